//! Versions of Kubernetes and etcd, compared as their policies compare them.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// `major.minor.patch`, with what a release that is none yet has behind it. Kept as it was written, `v` aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// 1 for Kubernetes.
    pub major: u32,
    /// What the policies of upgrades and skews are about.
    pub minor: u32,
    /// A number within the minor version.
    pub patch: u32,
    /// `rc.1` of `v1.36.0-rc.1`; empty for a release. Of etcd's images it is the number of the image.
    pub pre: String,
}

/// A text is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no version; expected such as v1.36.2")]
pub struct VersionError(String);

impl Version {
    /// Whether it is a release, and not a candidate for one.
    #[must_use]
    pub fn is_release(&self) -> bool {
        self.pre.is_empty()
    }

    /// How many minor versions it is ahead of another; negative if it is behind.
    #[must_use]
    pub fn minors_ahead_of(&self, other: &Self) -> i64 {
        i64::from(self.minor) - i64::from(other.minor)
    }

    /// That of an image: what its tag says.
    #[must_use]
    pub fn of_image(image: &str) -> Option<Self> {
        let (_, tag) = image.rsplit('/').next()?.split('@').next()?.rsplit_once(':')?;
        tag.parse().ok()
    }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let wrong = || VersionError(text.to_owned());
        let bare = text.trim().strip_prefix('v').unwrap_or(text.trim());
        // What a distribution adds says nothing of order (semver section 10).
        let bare = bare.split('+').next().unwrap_or_default();
        let (release, pre) = bare.split_once('-').unwrap_or((bare, ""));
        let mut numbers = release.split('.').map(|number| number.parse::<u32>().map_err(|_| wrong()));
        let mut next = || numbers.next().ok_or_else(wrong)?;
        let version = Self { major: next()?, minor: next()?, patch: next()?, pre: pre.to_owned() };
        if numbers.next().is_some() { Err(wrong()) } else { Ok(version) }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}.{}.{}", self.major, self.minor, self.patch)?;
        if self.pre.is_empty() { Ok(()) } else { write!(f, "-{}", self.pre) }
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let numbers = |version: &Self| (version.major, version.minor, version.patch);
        let by_numbers = numbers(self).cmp(&numbers(other));
        by_numbers.then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            // A release is what its candidates led to.
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            _ => parts(&self.pre).cmp(&parts(&other.pre)),
        })
    }
}

/// `rc.10` is behind `rc.9`: numbers are compared as numbers, and are before words (semver section 11).
fn parts(pre: &str) -> Vec<(bool, u64, &str)> {
    pre.split('.')
        .map(|part| match part.parse() {
            Ok(number) => (false, number, ""),
            Err(_) => (true, 0, part),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn versions_are_read_and_written() {
        for text in ["v1.36.2", "1.36.2", "v1.36.2+k3s1"] {
            assert_eq!(version(text).to_string(), "v1.36.2", "{text}");
        }
        assert_eq!(version("v1.36.0-rc.1+build").to_string(), "v1.36.0-rc.1");
        for text in ["", "v1.36", "1.36.x", "latest", "1.2.3.4", "1.-2.3"] {
            assert_eq!(text.parse::<Version>(), Err(VersionError(text.to_owned())));
        }
    }

    #[test]
    fn versions_have_an_order() {
        let sorted = ["1.35.9", "1.36.0-alpha.2", "1.36.0-rc.9", "1.36.0-rc.10", "1.36.0", "1.36.10"].map(version);
        assert!(sorted.windows(2).all(|pair| pair[0] < pair[1]), "{sorted:?}");
        assert_eq!(version("1.36.0").minors_ahead_of(&version("v1.34.9")), 2);
        assert!(!version("1.36.0-rc.1").is_release());
    }

    #[test]
    fn an_image_tells_its_version() {
        assert_eq!(Version::of_image("registry.k8s.io/kube-apiserver:v1.36.2"), Some(version("1.36.2")));
        assert_eq!(Version::of_image("mirror:5000/x/etcd:3.6.8-0@sha256:00"), Some(version("3.6.8-0")));
        assert_eq!(Version::of_image("mirror:5000/etcd"), None);
    }
}
