//! What the leases say together: two nodes with one address or one subnet, and how much is left.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::check::Group;
use super::{Check, Told};
use crate::serve::document::{LeaseStatus, NodeStatus, PeerState};
use crate::status::judge::{Capacity, capacity as full};

const GROUP: Group = Group("cluster");

/// The checks, from what the agent knows.
#[must_use]
pub fn judge(status: &Told<NodeStatus>) -> Vec<Check> {
    let Ok(status) = status else {
        let unknown = |name: &str| GROUP.unknown(name, "the agent does not tell");
        return ["own lease", "peers", "leases", "public addresses", "capacity"].map(unknown).into();
    };
    vec![own_lease(status), peers(status), leases(status), public_addresses(status), capacity(status)]
}

/// A node that cannot say where it is goes on by itself, and none that comes after will ever reach it.
fn own_lease(status: &NodeStatus) -> Check {
    let name = "own lease";
    match &status.lease {
        None => GROUP.unknown(name, "the node has no lease yet"),
        Some(LeaseStatus { notice: Some(notice), .. }) => GROUP.problem(
            name,
            format!("the lease stands, and the agent says of it: {notice}"),
            "what is forbidden: the ServiceAccount's role (kubectl auth can-i patch nodes --subresource status), and the policy weft-own-node; a name that two machines have: another node-name for one of them; a store that is away: see store",
        ),
        Some(_) => GROUP.good(name, "published"),
    }
}

fn peers(status: &NodeStatus) -> Check {
    let bad: Vec<String> = status
        .peers
        .iter()
        .filter(|peer| peer.state != PeerState::Programmed)
        .map(|peer| {
            let subnets: Vec<String> = peer.subnets.iter().map(ToString::to_string).collect();
            let reason = peer.reason.as_deref().unwrap_or("it publishes nothing that this node could reach it by");
            format!("{} ({reason})", peer.node.clone().unwrap_or_else(|| subnets.join(", ")))
        })
        .collect();
    if bad.is_empty() {
        return GROUP.good("peers", format!("all {} are in the kernel", status.peers.len()));
    }
    GROUP.problem(
        "peers",
        format!("{} of {} peers are not in the kernel as they should be: {}", bad.len(), status.peers.len(), bad.join("; ")),
        "the agent tries again by itself; what the kernel refuses is in its log; another back end or VNI on those nodes is to be changed to this node's",
    )
}

fn leases(status: &NodeStatus) -> Check {
    if status.rejected.is_empty() {
        return GROUP.good("leases", "all can be right");
    }
    let words: Vec<String> = status.rejected.iter().map(|lease| format!("{}: {}", lease.lease, lease.reason)).collect();
    GROUP.problem(
        "leases",
        format!("leases are ignored, as they cannot be right, and their nodes are out of reach: {}", words.join("; ")),
        "mend or delete the entry: etcdctl del <prefix>/subnets/<lease>, or kubectl get node -o custom-columns=N:.metadata.name,C:.spec.podCIDRs and kubectl delete node for one of two with one podCIDR",
    )
}

fn public_addresses(status: &NodeStatus) -> Check {
    let mut owners: BTreeMap<IpAddr, Vec<String>> = BTreeMap::new();
    let own = status.overlay.iter().map(|device| (device.public_ip, status.node.clone()));
    let others = status.peers.iter().flat_map(|peer| {
        let name = peer
            .node
            .clone()
            .unwrap_or_else(|| peer.subnets.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
        peer.addresses.iter().map(move |address| (*address, name.clone()))
    });
    for (address, name) in own.chain(others) {
        owners.entry(address).or_default().push(name);
    }
    let twice: Vec<String> = owners
        .iter()
        .filter(|(_, names)| names.len() > 1)
        .map(|(address, names)| format!("{address} is that of {}", names.join(" and ")))
        .collect();
    if twice.is_empty() {
        return GROUP.good("public addresses", "each node has its own");
    }
    GROUP.problem(
        "public addresses",
        format!("{}: only one of them is reached", twice.join("; ")),
        "a cloned machine, or NAT: give each node its own with --public-ip, or --iface where the wrong interface was taken",
    )
}

fn capacity(status: &NodeStatus) -> Check {
    match &status.lease {
        None => GROUP.unknown("capacity", "the node has no lease yet"),
        Some(lease) => match full(lease) {
            None => GROUP.good("capacity", format!("{} of {} subnets are taken", lease.used, lease.total)),
            Some(Capacity { words, wrong: false }) => GROUP.note("capacity", words),
            Some(Capacity { words, .. }) => GROUP.problem(
                "capacity",
                format!("{words}: soon new nodes get none"),
                "remove leases of nodes that are gone (weft status --all; kubectl delete node); a larger network or smaller subnets need a new cluster network",
            ),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Outcome;
    use crate::serve::document::{DeviceStatus, PeerStatus, RejectedStatus};

    fn status() -> NodeStatus {
        let peer = |host: u8| PeerStatus {
            node: Some(format!("n{host}")),
            subnets: vec![format!("10.244.{host}.0/24").parse().unwrap()],
            addresses: vec![format!("192.0.2.{host}").parse().unwrap()],
            state: PeerState::Programmed,
            reason: None,
        };
        NodeStatus {
            node: "n1".into(),
            overlay: vec![DeviceStatus {
                name: "flannel.1".into(),
                vni: Some(1),
                port: 8472,
                mac: None,
                public_key: None,
                public_ip: "192.0.2.1".parse().unwrap(),
                address: "10.244.1.0".parse().unwrap(),
                mtu: 1450,
            }],
            peers: vec![peer(2), peer(3)],
            lease: Some(LeaseStatus { subnets: vec![], networks: vec![], used: 3, total: 256, notice: None }),
            ..NodeStatus::default()
        }
    }

    fn outcomes(status: NodeStatus) -> Vec<Outcome> {
        judge(&Ok(status)).iter().map(|check| check.outcome).collect()
    }

    #[test]
    fn a_sound_cluster_is_good() {
        assert_eq!(outcomes(status()), [Outcome::Good; 5]);
    }

    #[test]
    fn each_fault_has_its_check() {
        let mut sick = status();
        sick.peers[0].state = PeerState::Failed;
        sick.peers[1].addresses = vec!["192.0.2.1".parse().unwrap()];
        sick.rejected = vec![RejectedStatus { lease: "node n4".into(), reason: "overlaps 10.244.2.0-24".into() }];
        if let Some(lease) = &mut sick.lease {
            lease.used = 220;
            lease.notice = Some("cannot write to Node n1: forbidden".into());
        }
        assert_eq!(outcomes(sick.clone()), [Outcome::Problem; 5]);
        assert!(judge(&Ok(sick))[3].words.contains("192.0.2.1 is that of n1 and n3"));
        assert!(judge(&Err("away".into())).iter().all(|check| check.outcome == Outcome::Unknown));
    }

    #[test]
    fn a_small_network_that_is_used_is_a_note() {
        let mut small = status();
        small.lease = Some(LeaseStatus { subnets: vec![], networks: vec![], used: 4, total: 4, notice: None });
        assert_eq!(outcomes(small)[4], Outcome::Note);
    }
}
