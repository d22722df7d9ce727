//! How much and for how long the kernel tracks connections: kube-proxy's settings, which its users' nodes run with.

use std::time::Duration;

use weft_netlink::sysctl::Sysctl;

use crate::node::{Owned, OwnedError};

/// More connections than this nobody has tables for, however many cores there are.
const MOST: u32 = 1_048_576;

/// Connections for each bucket of the kernel's hash table, at most: longer chains cost every packet.
const PER_BUCKET: u32 = 4;

/// What is asked for: the keys `conntrack-…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConntrackOptions {
    /// Connections for each core; 0 leaves the kernel's number.
    pub max_per_core: u32,
    /// Connections at least.
    pub min: u32,
    /// Lets segments out of the TCP window pass.
    pub tcp_be_liberal: bool,
    /// Timeout of idle TCP connections; `None` leaves the kernel's, as in the others.
    pub tcp_established: Option<Duration>,
    /// Timeout in `CLOSE_WAIT`.
    pub tcp_close_wait: Option<Duration>,
    /// Timeout of UDP flows without an answer.
    pub udp: Option<Duration>,
    /// Timeout of UDP flows with answers.
    pub udp_stream: Option<Duration>,
}

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Its name below `/proc/sys`.
    pub name: &'static str,
    /// What it should be.
    pub value: u64,
    /// Whether more is right, too.
    pub or_more: bool,
}

/// The settings for a machine with so many cores.
#[must_use]
pub fn plan(options: &ConntrackOptions, cores: u32) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut put = |name, value, or_more| settings.push(Setting { name, value, or_more });
    if options.max_per_core > 0 {
        let most = options.max_per_core.saturating_mul(cores).max(options.min).min(MOST);
        put("net/netfilter/nf_conntrack_max", most.into(), false);
        put("net/netfilter/nf_conntrack_buckets", (most / PER_BUCKET).into(), true);
    }
    if options.tcp_be_liberal {
        put("net/netfilter/nf_conntrack_tcp_be_liberal", 1, false);
    }
    for (name, time) in [
        ("net/netfilter/nf_conntrack_tcp_timeout_established", options.tcp_established),
        ("net/netfilter/nf_conntrack_tcp_timeout_close_wait", options.tcp_close_wait),
        ("net/netfilter/nf_conntrack_udp_timeout", options.udp),
        ("net/netfilter/nf_conntrack_udp_timeout_stream", options.udp_stream),
    ] {
        if let Some(time) = time {
            put(name, time.as_secs(), false);
        }
    }
    settings
}

/// Applies settings, with a record of what they were. Returns what could not be set: the size of the table is the
/// machine's, so that an agent in a network namespace of its own can only see it. Services work without any of them.
pub fn apply(settings: &[Setting], owned: &mut Owned, sysctl: &Sysctl) -> Vec<OwnedError> {
    let set = |setting: &Setting| -> Result<(), OwnedError> {
        let Setting { name, value, or_more } = *setting;
        let before = sysctl.read(name)?.and_then(|text| text.parse::<u64>().ok());
        if !(or_more && before.is_some_and(|before| before >= value)) {
            owned.set(sysctl, name, &value.to_string())?;
        }
        Ok(())
    };
    settings.iter().map(set).filter_map(Result::err).collect()
}

/// How many CPU cores are online.
#[must_use]
pub fn cores() -> u32 {
    // Not what this process may use: the table is for everybody's connections.
    let online = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN).ok().flatten();
    online.and_then(|cores| u32::try_from(cores).ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: ConntrackOptions = ConntrackOptions {
        max_per_core: 32_768,
        min: 131_072,
        tcp_be_liberal: false,
        tcp_established: Some(Duration::from_secs(86_400)),
        tcp_close_wait: Some(Duration::from_secs(3600)),
        udp: None,
        udp_stream: None,
    };

    fn planned(options: &ConntrackOptions, cores: u32) -> Vec<(&'static str, u64)> {
        let short = |setting: Setting| (setting.name.trim_start_matches("net/netfilter/nf_conntrack_"), setting.value);
        plan(options, cores).into_iter().map(short).collect()
    }

    #[test]
    fn the_defaults_are_kube_proxys() {
        let timeouts = [("tcp_timeout_established", 86_400), ("tcp_timeout_close_wait", 3600)];
        for (cores, most) in [(1, 131_072), (4, 131_072), (8, 262_144), (32, 1_048_576), (256, 1_048_576)] {
            let table = [("max", most), ("buckets", most / 4)];
            assert_eq!(planned(&DEFAULTS, cores), [table, timeouts].concat(), "{cores} cores");
        }
        assert_eq!(planned(&ConntrackOptions { max_per_core: u32::MAX, ..DEFAULTS }, 8)[0].1, u64::from(MOST));
    }

    #[test]
    fn what_is_0_is_left_alone() {
        let nothing = ConntrackOptions { max_per_core: 0, tcp_established: None, tcp_close_wait: None, ..DEFAULTS };
        assert_eq!(planned(&nothing, 8), []);
        let rest = ConntrackOptions {
            tcp_be_liberal: true,
            udp: Some(Duration::from_secs(30)),
            udp_stream: Some(Duration::from_secs(120)),
            ..nothing
        };
        assert_eq!(planned(&rest, 8), [("tcp_be_liberal", 1), ("udp_timeout", 30), ("udp_timeout_stream", 120)]);
    }

    #[test]
    fn what_differs_is_set_and_what_cannot_be_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let settings = dir.path().join("net/netfilter");
        std::fs::create_dir_all(&settings).unwrap();
        let file = |name: &str| settings.join(format!("nf_conntrack_{name}"));
        for (name, value) in [("buckets", "262144\n"), ("tcp_timeout_established", "432000\n"), ("max", "65536\n")] {
            std::fs::write(file(name), value).unwrap();
        }
        // A setting that is a directory can be neither read nor written, whoever asks.
        std::fs::create_dir(file("tcp_timeout_close_wait")).unwrap();
        let sysctl = Sysctl::at(dir.path());
        let mut owned = Owned::load(dir.path(), "test.json").unwrap();
        let problems = apply(&plan(&DEFAULTS, 4), &mut owned, &sysctl);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].to_string().contains("nf_conntrack_tcp_timeout_close_wait"), "{problems:?}");
        let value = |name: &str| sysctl.read(&format!("net/netfilter/nf_conntrack_{name}")).unwrap();
        assert_eq!(value("buckets").as_deref(), Some("262144"), "more buckets than needed stay");
        assert_eq!(value("tcp_timeout_established").as_deref(), Some("86400"));
        assert_eq!(value("max").as_deref(), Some("131072"));
        owned.restore(&sysctl).unwrap();
        assert_eq!(value("tcp_timeout_established").as_deref(), Some("432000"));
        assert!(cores() > 0);
    }
}
