//! iptables of the old kind: its rules are another place where pods' packets are dropped, into which netlink puts nothing.

use ipnetwork::IpNetwork;
use weft_netlink::{Error, IpVersion, LegacyFilter};

/// A network whose pods the chain FORWARD of an old iptables cuts off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutOff {
    /// The network.
    pub network: IpNetwork,
    /// The commands that mend it.
    pub remedy: String,
}

impl CutOff {
    /// What is wrong, in a sentence.
    #[must_use]
    pub fn cause(&self) -> String {
        let Self { network, .. } = self;
        format!(
            "FORWARD of {} drops what no rule of its takes, and none takes {network}: pods are cut off from other nodes and from outside",
            program(network)
        )
    }
}

/// Which of these networks are cut off on this machine. To look loads and changes nothing.
///
/// # Errors
/// If the kernel does not tell.
pub fn cut_off(networks: &[IpNetwork]) -> Result<Vec<CutOff>, Error> {
    let mut found = Vec::new();
    for network in networks {
        if let Some(filter) = LegacyFilter::read(IpVersion::of(network.ip()))? {
            found.extend(judge(&filter, *network));
        }
    }
    Ok(found)
}

fn judge(filter: &LegacyFilter, network: IpNetwork) -> Option<CutOff> {
    let covers = |taken: &IpNetwork| taken.prefix() <= network.prefix() && taken.contains(network.network());
    let takes = |networks: &[IpNetwork]| networks.iter().any(covers);
    if !filter.forward_drops || (takes(&filter.accepts_from) && takes(&filter.accepts_to)) {
        return None;
    }
    let program = program(&network);
    let remedy = format!("{program} -I FORWARD -s {network} -j ACCEPT; {program} -I FORWARD -d {network} -j ACCEPT");
    Some(CutOff { network, remedy })
}

fn program(network: &IpNetwork) -> &'static str {
    if network.is_ipv4() { "iptables-legacy" } else { "ip6tables-legacy" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_cut_off_unless_it_is_taken_both_ways() {
        let network = |text: &str| text.parse::<IpNetwork>().unwrap();
        let filter = |from: &[&str], to: &[&str]| LegacyFilter {
            forward_drops: true,
            accepts_from: from.iter().map(|text| network(text)).collect(),
            accepts_to: to.iter().map(|text| network(text)).collect(),
        };
        let judge = |filter: LegacyFilter| judge(&filter, network("10.244.0.0/16"));
        let found = judge(filter(&[], &[])).unwrap();
        assert!(found.remedy.starts_with("iptables-legacy -I FORWARD -s 10.244.0.0/16 -j ACCEPT; "), "{found:?}");
        assert!(judge(filter(&["10.244.0.0/16"], &["10.244.1.0/24"])).is_some(), "a part is not the whole");
        assert_eq!(judge(filter(&["10.0.0.0/8"], &["0.0.0.0/0"])), None);
        assert_eq!(judge(LegacyFilter { forward_drops: false, ..filter(&[], &[]) }), None);
    }
}
