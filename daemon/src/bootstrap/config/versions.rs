//! The versions that this build brings up: nothing is asked of the network (kubeadm 1.36, constants.go).

/// Version of Kubernetes that this build is made for.
pub const KUBERNETES: &str = "v1.36.2";
/// Its minor version; the one before can be brought up as well.
const MINOR: u32 = 36;
/// Tag of etcd's image.
pub const ETCD_TAG: &str = "3.6.8-0";
/// Tag of CoreDNS's image.
pub const COREDNS_TAG: &str = "v1.14.2";
/// Tag of the pause image.
pub const PAUSE_TAG: &str = "3.10.2";
/// Where Kubernetes' images come from if nobody says.
pub const IMAGE_REPOSITORY: &str = "registry.k8s.io";

/// What a version comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// This version, written with its `v`.
    Exactly(String),
    /// A label whose version only the network could tell: `stable-1`.
    Label,
    /// A version that this build cannot bring up, or no version.
    Refused,
}

/// What an operator's version means.
pub(super) fn asked(text: &str) -> Asked {
    let labels = ["stable", "latest", "ci/", "release/", "k8s-"];
    if labels.iter().any(|label| text.starts_with(label)) {
        return Asked::Label;
    }
    let bare = text.strip_prefix('v').unwrap_or(text);
    match minor(bare) {
        Some(minor) if minor == MINOR || minor + 1 == MINOR => Asked::Exactly(format!("v{bare}")),
        _ => Asked::Refused,
    }
}

/// The minor version of `1.x.y`, with or without a pre-release after it.
fn minor(bare: &str) -> Option<u32> {
    let release = bare.split(['-', '+']).next()?;
    let parts: Vec<u32> = release.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    if let [1, minor, _] = parts.as_slice() { Some(*minor) } else { None }
}

/// What a version should look like, for error messages.
pub(super) fn expected() -> String {
    format!("v1.{}.x or v1.{MINOR}.x, which this weft can bring up (it is made for {KUBERNETES})", MINOR - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_taken_refused_or_labels() {
        for (text, expected) in [
            ("v1.36.2", Asked::Exactly("v1.36.2".into())),
            ("1.35.0", Asked::Exactly("v1.35.0".into())),
            ("v1.36.0-rc.1", Asked::Exactly("v1.36.0-rc.1".into())),
            ("stable-1", Asked::Label),
            ("latest", Asked::Label),
            ("v1.20.4", Asked::Refused),
            ("v1.37.0", Asked::Refused),
            ("1.36", Asked::Refused),
            ("", Asked::Refused),
        ] {
            assert_eq!(asked(text), expected, "{text}");
        }
        assert_eq!(asked(KUBERNETES), Asked::Exactly(KUBERNETES.into()));
    }
}
