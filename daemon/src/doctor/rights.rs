//! What this program may do: who may not look finds nothing, and must not take that for a fault.

use super::check::Group;
use super::{Check, Told};

const GROUP: Group = Group("rights");

/// `CAP_NET_ADMIN` and `CAP_NET_RAW`, linux/capability.h.
const NEEDED: [(&str, u32); 2] = [("NET_ADMIN", 12), ("NET_RAW", 13)];

/// What this process may do.
#[derive(Debug, Clone)]
pub struct Rights {
    /// Whether it is root's. Files are the agent's, which is root's: what another user may not read or write says nothing.
    pub root: bool,
    /// Its effective capabilities (`CapEff` of proc_pid_status(5)).
    pub capabilities: Told<u64>,
}

/// The check.
#[must_use]
pub fn judge(rights: &Rights) -> Check {
    let name = "rights";
    let capabilities = match &rights.capabilities {
        Ok(capabilities) => capabilities,
        Err(reason) => return GROUP.unknown(name, reason.clone()),
    };
    let missing: Vec<&str> =
        NEEDED.into_iter().filter(|(_, bit)| capabilities >> bit & 1 == 0).map(|(name, _)| name).collect();
    let words = match (rights.root, missing.is_empty()) {
        (true, true) => return GROUP.good(name, "root with NET_ADMIN and NET_RAW"),
        (true, false) => format!("without {}", missing.join(" and ")),
        (false, _) => "this is not root".to_owned(),
    };
    GROUP.unknown(name, format!("{words}, so that not everything can be looked at: run as root or in the agent's pod"))
}

/// Reads the effective capabilities out of `/proc/…/status`.
#[must_use]
pub fn effective(status: &str) -> Option<u64> {
    let text = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(text.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Outcome;

    #[test]
    fn who_is_not_root_or_lacks_a_capability_cannot_tell() {
        let outcome = |root, capabilities| judge(&Rights { root, capabilities }).outcome;
        assert_eq!(outcome(true, Ok(1 << 12 | 1 << 13)), Outcome::Good);
        assert_eq!(outcome(true, Ok(1 << 12)), Outcome::Unknown);
        assert_eq!(outcome(false, Ok(1 << 12 | 1 << 13)), Outcome::Unknown);
        assert_eq!(outcome(true, Err("denied".into())), Outcome::Unknown);
        let words = judge(&Rights { root: false, capabilities: Ok(0) }).words;
        assert!(words.contains("run as root or in the agent's pod"), "{words}");
    }

    #[test]
    fn capabilities_are_read() {
        assert_eq!(effective("Name:\tx\nCapPrm:\t00\nCapEff:\t0000000000003000\n"), Some(0x3000));
        assert_eq!(effective("Name:\tx\n"), None);
    }
}
