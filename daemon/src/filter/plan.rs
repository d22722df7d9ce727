//! Plans masquerade and forwarding.

use ipnetwork::IpNetwork;
use weft_netlink::nft::expr;
use weft_netlink::nft::{Chain, ChainKind, Hook, Rule};
use weft_netlink::priority;

use super::rules::Rules;

/// The mark with which kube-proxy asks for masquerade; such a packet is translated already, and a second translation
/// breaks its checksum on kernels before 5.6.
const KUBE_MASQUERADE_MARK: u32 = 0x4000;

/// What the rules are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterConfig {
    /// The cluster's pod networks, of each family at most one.
    pub cluster: Vec<IpNetwork>,
    /// This node's part of them.
    pub subnets: Vec<IpNetwork>,
    /// Whether pods that leave the cluster network take on the node's address.
    pub masquerade: bool,
    /// Networks outside of the cluster that pods reach under their own addresses all the same.
    pub no_masquerade: Vec<IpNetwork>,
    /// Whether masquerade takes ports fully at random: without, two connections that begin at once may be given the same.
    pub random_ports: bool,
    /// Whether pods' packets are accepted on their way through the node.
    pub forward: bool,
}

/// A chain with all of its rules.
#[derive(Debug, Clone)]
pub struct PlannedChain {
    /// The chain.
    pub chain: Chain,
    /// Its rules in order, each with a comment that says what it is for and identifies its content.
    pub rules: Vec<Rule>,
}

/// Plans all chains of the agent's table.
#[must_use]
pub fn plan(config: &FilterConfig) -> Vec<PlannedChain> {
    vec![masquerade(config), forward(config)]
}

fn masquerade(config: &FilterConfig) -> PlannedChain {
    let chain = Chain::base("postrouting", ChainKind::Nat, Hook::Postrouting, priority::POD_MASQUERADE);
    let mut rules = Rules::of(&chain);
    let translate = if config.random_ports { expr::masquerade() } else { expr::masquerade_in_order() };
    if config.masquerade {
        rules.add(
            "translated already",
            [expr::mark_is(KUBE_MASQUERADE_MARK, KUBE_MASQUERADE_MARK), vec![expr::return_()]],
        );
        for network in &config.cluster {
            let family = |other: &&IpNetwork| other.is_ipv4() == network.is_ipv4();
            rules.add(
                "pod to pod keeps its address",
                [expr::ip_saddr_in(*network), expr::ip_daddr_in(*network), vec![expr::return_()]],
            );
            for subnet in config.subnets.iter().filter(family) {
                rules.add("a client keeps its address", [expr::ip_daddr_in(*subnet), vec![expr::return_()]]);
            }
            for other in config.no_masquerade.iter().filter(family) {
                rules.add(
                    "a pod keeps its address there",
                    [expr::ip_saddr_in(*network), expr::ip_daddr_in(*other), vec![expr::return_()]],
                );
            }
            rules.add(
                "a pod leaves the cluster network",
                [expr::ip_saddr_in(*network), expr::ip_daddr_not_in(multicast(*network)), vec![translate.clone()]],
            );
            rules.add(
                "the node's own address would not find the way back",
                [expr::ip_daddr_in(*network), vec![translate.clone()]],
            );
        }
    }
    rules.finish(chain)
}

fn forward(config: &FilterConfig) -> PlannedChain {
    let chain = Chain::base("forward", ChainKind::Filter, Hook::Forward, priority::FORWARD_ACCEPT);
    let mut rules = Rules::of(&chain);
    for network in config.cluster.iter().filter(|_| config.forward) {
        rules.add("from a pod", [expr::ip_saddr_in(*network), vec![expr::accept()]]);
        rules.add("to a pod", [expr::ip_daddr_in(*network), vec![expr::accept()]]);
    }
    rules.finish(chain)
}

/// All multicast addresses of the network's family (RFC 5771, RFC 4291).
fn multicast(network: IpNetwork) -> IpNetwork {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    let (address, prefix) = match network {
        IpNetwork::V4(_) => (IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 4),
        IpNetwork::V6(_) => (IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8),
    };
    // Both prefix lengths are valid; a network that is not would match nothing of multicast's.
    IpNetwork::new(address, prefix).unwrap_or_else(|_| IpNetwork::from(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> FilterConfig {
        FilterConfig {
            cluster: vec!["10.244.0.0/16".parse().unwrap(), "fd00:10:244::/56".parse().unwrap()],
            subnets: vec!["10.244.1.0/24".parse().unwrap(), "fd00:10:244:1::/64".parse().unwrap()],
            masquerade: true,
            no_masquerade: Vec::new(),
            random_ports: true,
            forward: true,
        }
    }

    fn comments(chains: &[PlannedChain]) -> Vec<String> {
        chains
            .iter()
            .flat_map(|chain| &chain.rules)
            .filter_map(|rule| rule.comment.as_ref().map(ToString::to_string))
            .collect()
    }

    #[test]
    fn both_families_have_the_same_rules() {
        let chains = plan(&config());
        assert_eq!(chains[0].rules.len(), 1 + 2 * 4);
        assert_eq!(chains[1].rules.len(), 2 * 2);
    }

    #[test]
    fn a_network_that_pods_reach_under_their_own_addresses_comes_before_masquerade() {
        let no_masquerade = vec!["10.1.0.0/16".parse().unwrap(), "fd00:1::/64".parse().unwrap()];
        let found = comments(&plan(&FilterConfig { no_masquerade, ..config() })[..1]);
        assert_eq!(found.len(), 1 + 2 * 5);
        let place = |words: &str| found.iter().position(|comment| comment.starts_with(words)).unwrap();
        assert!(place("a pod keeps its address there") < place("a pod leaves the cluster network"), "{found:?}");
    }

    #[test]
    fn without_masquerade_the_chain_is_empty() {
        assert!(plan(&FilterConfig { masquerade: false, ..config() })[0].rules.is_empty());
    }

    #[test]
    fn without_forwarding_nothing_is_accepted() {
        assert!(plan(&FilterConfig { forward: false, ..config() })[1].rules.is_empty());
    }

    #[test]
    fn a_comment_identifies_the_content() {
        let other = FilterConfig {
            cluster: vec!["10.245.0.0/16".parse().unwrap()],
            subnets: vec!["10.245.1.0/24".parse().unwrap()],
            ..config()
        };
        let (these, those) = (comments(&plan(&config())), comments(&plan(&other)));
        assert_eq!(these, comments(&plan(&config())));
        // The rule about the mark speaks of no network.
        assert_eq!(those.iter().filter(|comment| these.contains(comment)).count(), 1);
        assert!(comments(&plan(&config())).iter().all(|comment| comment.len() <= 127), "nft's limit for comments");
    }
}
