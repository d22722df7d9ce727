//! To which versions a cluster may go: Kubernetes' rules of skew, and what this build knows. Pure; nothing is asked of a network.

use serde::Serialize;

use crate::bootstrap::version::Version;

/// A kubelet may be so many minor versions behind the API server.
const KUBELET_SKEW: i64 = 3;

/// What the rules are about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Situation {
    /// Version of the API server.
    pub running: Version,
    /// Versions of the kubelets, by node.
    pub kubelets: Vec<(String, Version)>,
    /// The version that this build is made for.
    pub build: Version,
}

/// Why a version should not be gone to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objection {
    /// In words.
    pub words: String,
    /// Whether `--force` passes over it.
    pub forcible: bool,
}

/// A version that may be gone to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Offer {
    /// `v1.36.2`, or `v1.35.x` where this build does not know which the newest is.
    pub version: String,
    /// What it is, for people.
    pub description: String,
}

impl Situation {
    /// What speaks against a version; what nothing passes over first.
    #[must_use]
    pub fn objections(&self, target: &Version) -> Vec<Objection> {
        let Self { running, kubelets, build } = self;
        let mut found = Vec::new();
        let mut object = |forcible, words: String| found.push(Objection { words, forcible });
        let step = target.minors_ahead_of(running);
        if target.major != running.major {
            object(false, format!("{target} is another major version than {running}, which runs"));
        } else if step > 1 {
            let next = running.minor + 1;
            object(
                false,
                format!("{target} is {step} minor versions ahead of {running}, which runs; go to v1.{next}.x first"),
            );
        } else if step < -1 {
            object(
                false,
                format!("{target} is {} minor versions behind {running}, which runs; one is the most", -step),
            );
        } else if target < running {
            object(true, format!("{target} is older than {running}, which runs: going back is no upgrade"));
        }
        match target.minors_ahead_of(build) {
            ahead if ahead > 0 => object(
                false,
                format!("{target} is newer than what this weft can bring up ({build}); take a newer weft"),
            ),
            ahead if ahead < -1 => object(
                false,
                format!("{target} is older than what this weft can bring up ({build}, and one minor version before)"),
            ),
            0 if target > build => object(true, format!("{target} is newer than {build}, for which this weft is made")),
            _ => {}
        }
        if !target.is_release() {
            object(true, format!("{target} is no release"));
        }
        for (node, kubelet) in kubelets {
            let behind = target.minors_ahead_of(kubelet);
            if behind > KUBELET_SKEW {
                object(
                    true,
                    format!(
                        "kubelet of {node} is {kubelet}, which is too old for {target}: {KUBELET_SKEW} minor versions are the most"
                    ),
                );
            } else if behind < 0 {
                object(true, format!("kubelet of {node} is {kubelet}, which is newer than {target}"));
            }
        }
        found.sort_by_key(|objection| objection.forcible);
        found
    }

    /// The versions that may be gone to, the nearest first. Patches of a minor version that this build is not pinned to are
    /// not known without a network: any for which there are images.
    #[must_use]
    pub fn offers(&self) -> Vec<Offer> {
        let Self { running, build, .. } = self;
        let mut offers = Vec::new();
        let before = build.minor.saturating_sub(1);
        for minor in [running.minor, running.minor.saturating_add(1)] {
            let same = minor == running.minor;
            let what = if same { "newer patch of the running minor version" } else { "the next minor version" };
            if minor == build.minor && build > running {
                offers.push(Offer {
                    version: build.to_string(),
                    description: format!("{what}; this weft is made for it"),
                });
            } else if minor == before {
                let version = format!("v{}.{minor}.x", running.major);
                offers.push(Offer { version, description: format!("{what}; any for which you have images") });
            }
        }
        offers
    }

    /// Why there is no version to go to.
    #[must_use]
    pub fn nothing_to_offer(&self) -> String {
        let Self { running, build, .. } = self;
        match build.minors_ahead_of(running) {
            ahead if ahead < 0 => {
                format!("{running} is newer than what this weft can bring up ({build}); take a newer weft")
            }
            ahead if ahead > 2 => {
                let next = running.minor + 1;
                format!(
                    "{running} is too old for this weft ({build}); go to v1.{next}.x with a weft, or kubeadm, made for that"
                )
            }
            _ => format!("{running} is the newest version that this weft knows"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    fn situation(running: &str) -> Situation {
        Situation { running: version(running), kubelets: Vec::new(), build: version("v1.36.2") }
    }

    /// `no` if nothing passes over it, `force` if that does.
    fn judged(running: &str, target: &str) -> &'static str {
        match situation(running).objections(&version(target)).first() {
            None => "yes",
            Some(Objection { forcible: true, .. }) => "force",
            Some(_) => "no",
        }
    }

    #[test]
    fn u01_one_minor_version_at_a_time_and_none_beyond_the_build() {
        for (running, target, expected) in [
            ("v1.35.3", "v1.36.2", "yes"),
            ("v1.36.0", "v1.36.2", "yes"),
            ("v1.36.2", "v1.36.2", "yes"),
            ("v1.36.2", "v1.36.9", "force"),
            ("v1.36.2", "v1.36.1", "force"),
            ("v1.36.2", "v1.35.1", "force"),
            ("v1.35.0", "v1.36.0-rc.1", "force"),
            ("v1.34.0", "v1.35.9", "yes"),
            ("v1.34.0", "v1.36.2", "no"),
            ("v1.36.2", "v1.37.0", "no"),
            ("v1.36.2", "v1.34.0", "no"),
            ("v1.35.2", "v1.34.9", "no"),
            ("v1.36.2", "v2.36.2", "no"),
        ] {
            assert_eq!(judged(running, target), expected, "{running} to {target}");
        }
    }

    #[test]
    fn old_kubelets_are_an_objection() {
        let kubelets = vec![("n1".to_owned(), version("v1.32.9")), ("n2".to_owned(), version("v1.33.0"))];
        let found = Situation { kubelets, ..situation("v1.35.0") }.objections(&version("v1.36.2"));
        assert!(found.len() == 1 && found[0].forcible && found[0].words.contains("n1"), "{found:?}");
    }

    #[test]
    fn offers_are_those_that_nothing_speaks_against() {
        let offers = |running: &str| -> Vec<String> {
            situation(running).offers().into_iter().map(|offer| offer.version).collect()
        };
        assert_eq!(offers("v1.36.2"), Vec::<String>::new());
        assert_eq!(offers("v1.36.0"), ["v1.36.2"]);
        assert_eq!(offers("v1.35.3"), ["v1.35.x", "v1.36.2"]);
        assert_eq!(offers("v1.34.3"), ["v1.35.x"]);
        assert_eq!(offers("v1.33.0"), Vec::<String>::new());
        for (running, word) in [("v1.36.2", "newest"), ("v1.37.0", "newer weft"), ("v1.33.0", "v1.34.x")] {
            let words = situation(running).nothing_to_offer();
            assert!(words.contains(word), "{words}");
        }
    }
}
