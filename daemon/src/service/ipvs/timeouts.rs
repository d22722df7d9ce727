//! After what time of silence connections are forgotten.
//!
//! Two tables know each connection, IPVS' and conntrack's, and it breaks as soon as one of them has forgotten it. Left to
//! itself IPVS forgets an idle TCP connection after 15 minutes, where conntrack keeps it for days: hence connections to
//! databases that were reset for no reason (kubernetes/kubernetes#80298). So both count alike unless told otherwise.

use std::time::Duration;

use weft_netlink::Error;
use weft_netlink::ipvs::Timeouts;
use weft_netlink::sysctl::Sysctl;

/// Seconds; Documentation/networking/nf_conntrack-sysctl.rst.
const TCP_ESTABLISHED: &str = "net/netfilter/nf_conntrack_tcp_timeout_established";
const UDP_STREAM: &str = "net/netfilter/nf_conntrack_udp_timeout_stream";

/// The timeouts asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TimeoutSettings {
    /// An established TCP connection; `None`: as conntrack.
    pub tcp: Option<Duration>,
    /// A TCP connection after a FIN; `None`: as the kernel has it.
    pub tcp_fin: Option<Duration>,
    /// UDP; `None`: as conntrack has it for a flow that is answered.
    pub udp: Option<Duration>,
}

impl TimeoutSettings {
    /// What IPVS should be told, as conntrack stands now.
    ///
    /// # Errors
    /// [`Error::Io`] if conntrack's settings cannot be read. That there are none is no error: nothing is said then.
    pub(super) fn resolve(&self, sysctl: &Sysctl) -> Result<Timeouts, Error> {
        let or_conntrack = |own: Option<Duration>, name: &str| -> Result<Option<Duration>, Error> {
            match own {
                Some(own) => Ok(Some(own)),
                None => Ok(sysctl.read(name)?.and_then(|text| text.parse().ok()).map(Duration::from_secs)),
            }
        };
        Ok(Timeouts {
            tcp: or_conntrack(self.tcp, TCP_ESTABLISHED)?,
            tcp_fin: self.tcp_fin,
            udp: or_conntrack(self.udp, UDP_STREAM)?,
        })
    }
}

/// Those of `wanted` that are not so; `None` if all are. The kernel counts a silence of zero as "leave it".
pub(super) fn differing(wanted: &Timeouts, actual: &Timeouts) -> Option<Timeouts> {
    let differs = |wanted: Option<Duration>, actual: Option<Duration>| {
        wanted.filter(|wanted| !wanted.is_zero() && actual.is_some_and(|actual| actual != *wanted))
    };
    let differing = Timeouts {
        tcp: differs(wanted.tcp, actual.tcp),
        tcp_fin: differs(wanted.tcp_fin, actual.tcp_fin),
        udp: differs(wanted.udp, actual.udp),
    };
    (differing != Timeouts::default()).then_some(differing)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    #[test]
    fn p13_idle_connections_live_as_long_as_in_conntrack() {
        let root = tempfile::tempdir().unwrap();
        let sysctl = Sysctl::at(root.path());
        assert_eq!(TimeoutSettings::default().resolve(&sysctl).unwrap(), Timeouts::default());
        std::fs::create_dir_all(root.path().join("net/netfilter")).unwrap();
        std::fs::write(root.path().join(TCP_ESTABLISHED), "86400\n").unwrap();
        std::fs::write(root.path().join(UDP_STREAM), "120\n").unwrap();
        let own = TimeoutSettings { tcp: None, tcp_fin: seconds(60), udp: seconds(30) };
        let expected = Timeouts { tcp: seconds(86_400), tcp_fin: seconds(60), udp: seconds(30) };
        assert_eq!(own.resolve(&sysctl).unwrap(), expected);
        assert_eq!(TimeoutSettings::default().resolve(&sysctl).unwrap().udp, seconds(120));
    }

    #[test]
    fn only_what_differs_is_set_and_nothing_that_the_kernel_does_not_have() {
        let actual = Timeouts { tcp: seconds(900), tcp_fin: seconds(120), udp: None };
        let wanted = Timeouts { tcp: seconds(86_400), tcp_fin: seconds(120), udp: seconds(30) };
        assert_eq!(differing(&wanted, &actual), Some(Timeouts { tcp: seconds(86_400), ..Timeouts::default() }));
        assert_eq!(differing(&actual, &actual), None);
        let zero = Timeouts { tcp: seconds(0), ..Timeouts::default() };
        assert_eq!(differing(&zero, &actual), None);
    }
}
