//! Versions of the CNI protocol.

use std::fmt;

use super::error::{CniError, Code, Result};

/// A version that this plugin speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 0.1.0: results with at most one address a family. What an absent version means.
    V010,
    /// 0.2.0: VERSION.
    V020,
    /// 0.3.0: lists of plugins, results with interfaces and any number of addresses.
    V030,
    /// 0.3.1.
    V031,
    /// 0.4.0: CHECK, and the previous result on DEL.
    V040,
    /// 1.0.0: no `version` in a result's addresses.
    V100,
    /// 1.1.0: GC, STATUS, and more about interfaces and routes in results.
    V110,
}

impl Version {
    /// All of them, oldest first.
    pub const ALL: [Self; 7] = [Self::V010, Self::V020, Self::V030, Self::V031, Self::V040, Self::V100, Self::V110];
    /// The newest.
    pub const NEWEST: Self = Self::V110;

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V010 => "0.1.0",
            Self::V020 => "0.2.0",
            Self::V030 => "0.3.0",
            Self::V031 => "0.3.1",
            Self::V040 => "0.4.0",
            Self::V100 => "1.0.0",
            Self::V110 => "1.1.0",
        }
    }

    /// The version of a configuration; an empty one is 0.1.0.
    ///
    /// # Errors
    /// Code 1 if it is none of [`Version::ALL`] to the letter.
    pub fn of_config(text: &str) -> Result<Self> {
        let text = if text.is_empty() { Self::V010.as_str() } else { text };
        Self::ALL.into_iter().find(|version| version.as_str() == text).ok_or_else(|| {
            let known = Self::ALL.map(|version| format!("{:?}", version.as_str())).join(" ");
            CniError::new(Code::IncompatibleVersion, format!("incompatible CNI versions: cniVersion {text:?}"))
                .with_details(format!("config is {text:?}, plugin supports [{known}]"))
        })
    }

    /// Refuses a verb that this version does not have.
    ///
    /// # Errors
    /// Code 1 if `self` is older than `since`.
    pub fn require(self, since: Self, verb: &str) -> Result<()> {
        if self >= since {
            return Ok(());
        }
        Err(CniError::new(Code::IncompatibleVersion, format!("config version does not allow {verb}"))
            .with_details(format!("cniVersion is {self}, {verb} came with {since}")))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t009_empty_is_010_and_others_must_match_to_the_letter() {
        assert_eq!(Version::of_config("").unwrap(), Version::V010);
        for version in Version::ALL {
            assert_eq!(Version::of_config(version.as_str()).unwrap(), version);
        }
        for text in ["1.2.0", "1", "abc", "1.0", " 1.0.0", "v1.0.0"] {
            let error = Version::of_config(text).unwrap_err();
            assert_eq!(error.code, Code::IncompatibleVersion);
            assert!(error.details.contains("1.1.0") && error.details.contains(text), "{error}");
        }
    }

    #[test]
    fn t010_verbs_are_gated() {
        assert_eq!(
            Version::V031.require(Version::V040, "CHECK").unwrap_err().message,
            "config version does not allow CHECK"
        );
        assert!(Version::V110.require(Version::V110, "GC").is_ok());
    }
}
