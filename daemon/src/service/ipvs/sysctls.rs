//! The kernel settings that IPVS needs to be a Service proxy.

use weft_netlink::sysctl::Sysctl;

use crate::cluster::Family;
use crate::node::{Owned, OwnedError};

/// What is wanted of the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpvsSysctls {
    /// Whether Services have IPv4 addresses. (IPv6 forwarding is the overlay's, which sets what belongs to it.)
    pub v4: bool,
    /// Whether IPVS shall estimate rates. The estimators visit every real server every two seconds, and before Linux 6.2
    /// do so where packets wait for them; nobody reads the rates here, and the counters go on without them.
    pub estimate: bool,
}

impl IpvsSysctls {
    /// For Services of these families, without estimators.
    #[must_use]
    pub fn new(mut families: impl Iterator<Item = Family>) -> Self {
        Self { v4: families.any(|family| family == Family::V4), estimate: false }
    }
}

/// The settings, each with its value.
fn wanted(sysctls: IpvsSysctls) -> Vec<(&'static str, &'static str)> {
    let mut settings = vec![
        // Connections through IPVS are known to conntrack, and can be masqueraded.
        ("net/ipv4/vs/conntrack", "1"),
        // A client whose real server is deleted is told at the next packet, and does not wait for an answer.
        ("net/ipv4/vs/expire_nodest_conn", "1"),
        // Affinity to a real server that drains ends at once (kubernetes/kubernetes#71809).
        ("net/ipv4/vs/expire_quiescent_template", "1"),
        // A client that uses a port again gets a new choice: with 0 it would stay with a real server that drains, or is
        // gone. Before Linux 5.9 a 1 made such clients wait for a second; those kernels are not supported.
        ("net/ipv4/vs/conn_reuse_mode", "1"),
        // Linux 6.2.
        ("net/ipv4/vs/run_estimation", if sysctls.estimate { "1" } else { "0" }),
    ];
    if sysctls.v4 {
        settings.push(("net/ipv4/ip_forward", "1"));
    }
    settings
}

/// Makes the settings, remembering what they were; returns those that had to be changed. One that this kernel does not
/// have is passed over. The module has to be there: its settings come with it.
///
/// # Errors
/// The first setting that could not be made.
pub fn ensure(owned: &mut Owned, sysctl: &Sysctl, sysctls: IpvsSysctls) -> Result<Vec<String>, OwnedError> {
    let mut changed = Vec::new();
    for (name, value) in wanted(sysctls) {
        if owned.set(sysctl, name, value)? {
            changed.push(format!("{name} = {value}"));
        }
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_made_where_they_exist_and_come_back() {
        let root = tempfile::tempdir().unwrap();
        let vs = root.path().join("sys/net/ipv4/vs");
        std::fs::create_dir_all(&vs).unwrap();
        for (name, value) in [("conntrack", "0"), ("conn_reuse_mode", "1"), ("expire_nodest_conn", "0")] {
            std::fs::write(vs.join(name), value).unwrap();
        }
        let sysctl = Sysctl::at(root.path().join("sys"));
        let mut owned = Owned::load(&root.path().join("run"), "test.json").unwrap();
        let settings = IpvsSysctls::new([Family::V6].into_iter());
        let changed = ensure(&mut owned, &sysctl, settings).unwrap();
        assert_eq!(changed, ["net/ipv4/vs/conntrack = 1", "net/ipv4/vs/expire_nodest_conn = 1"]);
        assert!(ensure(&mut owned, &sysctl, settings).unwrap().is_empty());
        owned.restore(&sysctl).unwrap();
        assert_eq!(std::fs::read_to_string(vs.join("conntrack")).unwrap(), "0");
    }
}
