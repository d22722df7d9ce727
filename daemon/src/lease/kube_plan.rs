//! From the own Node to the state of its lease: a pure function.

use std::sync::Arc;

use super::machine::{Held, LeaseState};
use super::plan::Usage;
use crate::cluster::family::PerFamily;
use crate::cluster::key::SubnetKey;
use crate::cluster::kube::node::KubeNode;
use crate::cluster::kube::nodes::OwnNode;
use crate::cluster::lease_value::{BackendData, LeaseValue};
use crate::cluster::netconf::NetConf;
use crate::cluster::node::NodeName;
use crate::cluster::pool::Pool;

/// What is known.
#[derive(Debug)]
pub(super) struct Known<'a> {
    /// The node.
    pub(super) name: &'a NodeName,
    /// Its Node.
    pub(super) own: &'a OwnNode,
    /// The lease that it has held so far.
    pub(super) running: Option<&'a Held>,
    /// The network configuration.
    pub(super) network: &'a Arc<NetConf>,
    /// How many nodes have a subnet.
    pub(super) nodes: usize,
    /// Why the last write failed.
    pub(super) failure: Option<&'a str>,
}

/// How the lease is. A subnet that the node runs stays, whatever becomes of its Node, until the Node has another one.
pub(super) fn state(known: &Known<'_>) -> LeaseState {
    match found(known) {
        Ok((key, node)) => LeaseState::Held(held(known, key, node)),
        Err(reason) => match known.running {
            Some(running) => LeaseState::Held(Held { notice: Some(reason), ..running.clone() }),
            None => LeaseState::Acquiring { reason },
        },
    }
}

/// Whether this lease is of the Node's own subnets, and not of those that it had before it was deleted and made anew.
pub(super) fn is_of(state: &LeaseState, node: &KubeNode) -> bool {
    matches!(state, LeaseState::Held(held) if node.subnets.as_ref() == Ok(&held.key))
}

/// What the Node is to say: the user's addresses win over the node's own.
pub(super) fn value(node: &KubeNode, wanted: &LeaseValue) -> LeaseValue {
    let instead = node.overwrites();
    let public_ips = wanted.public_ips.filter_map(|family, ip| Some(*instead.get(family).unwrap_or(ip)));
    LeaseValue { public_ips, backend: wanted.backend.clone() }
}

fn found<'a>(known: &Known<'a>) -> Result<(SubnetKey, &'a KubeNode), String> {
    let name = known.name;
    let node = match known.own {
        OwnNode::Unread => return Err(format!("Node {name} has not been read yet")),
        OwnNode::Absent => {
            return Err(format!(
                "there is no Node {name}: kubelet makes it; does node-name say what kubelet is called?"
            ));
        }
        OwnNode::Known(node) => node,
    };
    let key = node.subnets.clone().map_err(|reason| {
        let hint = "kube-controller-manager gives it one if it runs with --allocate-node-cidrs and --cluster-cidr";
        format!("Node {name} {reason}: {hint}")
    })?;
    if let Some(family) = known.network.pools.families().find(|family| key.subnets().get(*family).is_none()) {
        let hint = "a Node keeps the podCIDRs that it was first given; one that is deleted is made anew by kubelet";
        return Err(format!("Node {name} has no {family} network in spec.podCIDRs: {hint}"));
    }
    for (family, subnet) in key.subnets().iter() {
        let network = known.network.pools.get(family).map(Pool::network);
        if !network.is_some_and(|network| network.contains(subnet.network()) && network.prefix() <= subnet.prefix()) {
            let network = network.map_or_else(|| "none".to_owned(), |network| network.to_string());
            return Err(format!(
                "Node {name} has podCIDR {subnet}, which is not within the {family} network {network}"
            ));
        }
    }
    Ok((key, node))
}

fn held(known: &Known<'_>, key: SubnetKey, node: &KubeNode) -> Held {
    let nothing = || LeaseValue { public_ips: PerFamily::default(), backend: BackendData::default() };
    let usage = usage(known, &key);
    Held {
        key,
        published: node.value().unwrap_or_else(|_| nothing()),
        config: Arc::clone(known.network),
        usage,
        notice: known.failure.map(str::to_owned).or_else(|| usage.notice()),
    }
}

/// How many subnets of this size there are, and how many nodes have one.
fn usage(known: &Known<'_>, key: &SubnetKey) -> Usage {
    let sizes = key.subnets().iter().filter_map(|(family, subnet)| {
        let bits = subnet.prefix().checked_sub(known.network.pools.get(family)?.network().prefix())?;
        1_u128.checked_shl(bits.into())
    });
    Usage { used: known.nodes as u128, total: sizes.min().unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::kube::annotations::Field;

    fn node(cidr: &str) -> KubeNode {
        let json = format!(
            r#"{{"metadata": {{"name": "n1", "annotations": {{"a.b/public-ip": "192.0.2.1"}}}}, "spec": {{"podCIDR": {cidr}}}}}"#
        );
        let families = PerFamily { v4: Some(()), v6: None };
        KubeNode::parse(json.as_bytes(), &"a.b".parse().unwrap(), &families).unwrap()
    }

    fn state_of(own: &OwnNode, running: Option<&Held>, failure: Option<&str>) -> LeaseState {
        let network = Arc::new(NetConf::parse(br#"{"Network": "10.244.0.0/16"}"#).unwrap().0);
        let name = "n1".parse().unwrap();
        state(&Known { name: &name, own, running, network: &network, nodes: 3, failure })
    }

    fn known(cidr: &str) -> OwnNode {
        OwnNode::Known(Arc::new(node(cidr)))
    }

    fn held_of(state: LeaseState) -> Held {
        let LeaseState::Held(held) = state else { panic!("{state:?}") };
        held
    }

    #[test]
    fn d05_what_is_waited_for_is_explained() {
        for (own, words) in [
            (OwnNode::Unread, "has not been read yet"),
            (OwnNode::Absent, "there is no Node n1"),
            (known("null"), "--allocate-node-cidrs"),
            (known(r#""10.1.0.0/24""#), "podCIDR 10.1.0.0/24, which is not within the IPv4 network 10.244.0.0/16"),
            (known(r#""10.0.0.0/8""#), "not within the IPv4 network 10.244.0.0/16"),
        ] {
            let LeaseState::Acquiring { reason } = state_of(&own, None, None) else { panic!("{own:?}") };
            assert!(reason.contains(words), "{reason}");
        }
    }

    #[test]
    fn the_pod_network_is_the_lease_and_stays_without_the_node() {
        let first = held_of(state_of(&known(r#""10.244.1.0/24""#), None, None));
        assert_eq!((first.key.to_string().as_str(), first.usage), ("10.244.1.0-24", Usage { used: 3, total: 256 }));
        assert_eq!(first.published.public_ips.v4, Some("192.0.2.1".parse().unwrap()));
        for own in [OwnNode::Absent, known("null")] {
            let still = held_of(state_of(&own, Some(&first), None));
            assert!(still.key == first.key && still.notice.is_some(), "{still:?}");
        }
        let moved = held_of(state_of(&known(r#""10.244.9.0/24""#), Some(&first), Some("forbidden")));
        assert_eq!((moved.key.to_string().as_str(), moved.notice.as_deref()), ("10.244.9.0-24", Some("forbidden")));
    }

    #[test]
    fn d21_the_users_address_is_published_instead() {
        let mut node = node(r#""10.244.1.0/24""#);
        node.annotations.insert(Field::PublicIpOverwrite, "203.0.113.7".to_owned());
        let own = PerFamily { v4: Some("192.0.2.1".parse().unwrap()), v6: None };
        let value = value(&node, &LeaseValue { public_ips: own, backend: BackendData::default() });
        assert_eq!(value.public_ips.v4, Some("203.0.113.7".parse().unwrap()));
    }
}
