//! Plans how each other node is reached: with VXLAN, one neighbour, one FDB entry and one route for each of its subnets.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use weft_netlink::wireguard::PublicKey;
use weft_netlink::{FdbEntry, MacAddr, Neighbour, NextHop, Route};

use super::ROUTE_PROTOCOL;
use super::backend::{Backend, LocalEnd, Peer, Standpoint};
use crate::cluster::family::{Family, PerFamily};
use crate::cluster::key::SubnetKey;
use crate::cluster::model::{Lease, Rejected};

/// Metric of an IPv6 route without one (`IP6_RT_PRIO_USER`, net/ip6_route.h). Said outright, it compares equal.
const IP6_RT_PRIO_USER: u32 = 1024;

/// The metric of a peer's route.
#[must_use]
pub fn metric(family: Family) -> Option<u32> {
    (family == Family::V6).then_some(IP6_RT_PRIO_USER)
}

/// A peer's subnet through the peer itself, which is on a link of this node.
#[must_use]
pub fn direct_route(subnet: IpNetwork, public_ip: IpAddr, link: u32) -> PeerObject {
    PeerObject::Route(Route {
        next_hop: NextHop { link: Some(link), gateway: Some(public_ip), onlink: false },
        priority: metric(Family::of(public_ip)),
        ..Route::new(subnet, ROUTE_PROTOCOL)
    })
}

/// One kernel object of a peer.
///
/// The order is that of dependence. As soon as a route is there the kernel resolves its gateway: without the neighbour it
/// would ask by ARP, which goes nowhere on a device without multicast, and without the FDB entry the frame has no VTEP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerKey {
    /// Which MAC the peer's VTEP has.
    Neighbour {
        /// Index of the VXLAN device.
        link: u32,
        /// The gateway: the first address (.0) of the peer's subnet.
        ip: IpAddr,
    },
    /// Behind which node that MAC is.
    Fdb {
        /// Index of the VXLAN device.
        link: u32,
        /// The VTEP's MAC.
        mac: MacAddr,
        /// The node's public address.
        dst: IpAddr,
    },
    /// The peer in a device that has its peers in itself.
    Tunnel {
        /// Index of the device.
        link: u32,
        /// The peer's key.
        public_key: PublicKey,
    },
    /// The peer's subnet.
    Route {
        /// The subnet.
        dst: IpNetwork,
        /// Its metric: two routes to one subnet differ by it.
        metric: u32,
    },
}

/// What the object is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerObject {
    /// A permanent neighbour.
    Neighbour(Neighbour),
    /// A permanent FDB entry.
    Fdb(FdbEntry),
    /// The other end of a tunnel.
    Tunnel {
        /// Index of the device.
        link: u32,
        /// Who it is.
        peer: weft_netlink::wireguard::Peer,
    },
    /// A route through the peer's gateway address, through the peer itself, or into the device.
    Route(Route),
}

impl PeerObject {
    /// Under which key it stands.
    #[must_use]
    pub fn key(&self) -> PeerKey {
        match self {
            Self::Neighbour(neighbour) => PeerKey::Neighbour { link: neighbour.link, ip: neighbour.ip },
            Self::Fdb(entry) => PeerKey::Fdb { link: entry.link, mac: entry.mac, dst: entry.dst },
            Self::Tunnel { link, peer } => PeerKey::Tunnel { link: *link, public_key: peer.public_key },
            Self::Route(route) => PeerKey::Route { dst: route.dst, metric: route.priority.unwrap_or_default() },
        }
    }
}

impl fmt::Display for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Neighbour { link, ip } => write!(f, "neighbour {ip} on link {link}"),
            Self::Fdb { link, mac, dst } => write!(f, "FDB entry {mac} behind {dst} on link {link}"),
            Self::Tunnel { link, public_key } => write!(f, "tunnel to {public_key} on link {link}"),
            Self::Route { dst, .. } => write!(f, "route {dst}"),
        }
    }
}

/// How the peers are reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerPlan {
    /// The kernel objects.
    pub objects: BTreeMap<PeerKey, PeerObject>,
    /// Whose object it is, in no order: only those that fail are ever looked for.
    owners: Vec<(PeerKey, SubnetKey)>,
    /// The peers that are reached.
    pub reached: BTreeSet<SubnetKey>,
    /// The peers that cannot be, and why.
    pub rejected: Vec<Rejected>,
}

impl PeerPlan {
    /// Whose object that is.
    #[must_use]
    pub fn owner(&self, key: &PeerKey) -> Option<SubnetKey> {
        self.owners.iter().find(|(owned, _)| owned == key).map(|(_, owner)| *owner)
    }

    /// The links, other than `devices`, through which peers are reached.
    #[must_use]
    pub fn direct_links(&self, devices: &[u32]) -> Vec<u32> {
        let link = |object: &PeerObject| match object {
            PeerObject::Route(route) => route.next_hop.link.filter(|link| !devices.contains(link)),
            _ => None,
        };
        let links: BTreeSet<u32> = self.objects.values().filter_map(link).collect();
        links.into_iter().collect()
    }
}

/// Where the overlay may route to, and where it must not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The cluster's networks: whatever lies elsewhere is not a pod's.
    pub cluster: Vec<IpNetwork>,
}

/// This node as its peers are planned from it.
#[derive(Debug, Clone, Copy)]
pub struct Local<'a> {
    /// The back end.
    pub backend: &'a dyn Backend,
    /// This node's ends.
    pub ends: &'a PerFamily<LocalEnd>,
    /// Peers that are on a link of this node, and on which, by their public addresses: they are reached past the device.
    pub direct: &'a BTreeMap<IpAddr, u32>,
}

/// Plans the peers. A peer whose data cannot be right is left out by itself; the others are not touched by it.
#[must_use]
pub fn plan(local: Local<'_>, bounds: &Bounds, peers: &[&Lease]) -> PeerPlan {
    let mut plan = PeerPlan::default();
    let nodes: BTreeSet<IpAddr> = local
        .ends
        .values()
        .map(|local| local.end.public_ip)
        .chain(peers.iter().flat_map(|peer| peer.public_ips.values().copied()))
        .collect();
    let public_ips = local.ends.filter_map(|_, local| Some(local.end.public_ip));
    let standpoint = |end| Standpoint { local: end, public_ips, cluster: &bounds.cluster };
    // A map that is made of all at once takes a third of the time of one that grows.
    let mut all = Vec::new();
    for end in local.ends.values() {
        let common = local.backend.common(&standpoint(end));
        all.extend(common.into_iter().map(|object| (object.key(), object)));
    }
    // Of two peers with one MAC, or one key, the older stands, on every node alike.
    let mut by_age = peers.to_vec();
    by_age.sort_by_key(|peer| (peer.create_revision, peer.key));
    let mut names: BTreeMap<Name, SubnetKey> = BTreeMap::new();
    for peer in by_age {
        match within(bounds, &nodes, peer).and_then(|()| objects(local, &standpoint, peer)) {
            Ok(objects) if objects.is_empty() => {}
            Ok(objects) => {
                let claimed: Vec<Name> = objects.iter().filter_map(Name::of).collect();
                if let Some((name, owner)) = claimed.iter().find_map(|claim| Some((*claim, *names.get(claim)?))) {
                    plan.rejected.push(refused(peer, format!("its {name} is that of {owner}, which is older")));
                    continue;
                }
                names.extend(claimed.into_iter().map(|claim| (claim, peer.key)));
                plan.owners.extend(objects.iter().map(|object| (object.key(), peer.key)));
                all.extend(objects.into_iter().map(|object| (object.key(), object)));
                plan.reached.insert(peer.key);
            }
            Err(reason) => plan.rejected.push(refused(peer, reason)),
        }
    }
    plan.objects = all.into_iter().collect();
    plan
}

/// What a device knows a peer by, so that no two can have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    Mac(u32, MacAddr),
    Key(u32, PublicKey),
}

impl Name {
    fn of(object: &PeerObject) -> Option<Self> {
        match object {
            PeerObject::Fdb(entry) => Some(Self::Mac(entry.link, entry.mac)),
            PeerObject::Tunnel { link, peer } => Some(Self::Key(*link, peer.public_key)),
            PeerObject::Neighbour(_) | PeerObject::Route(_) => None,
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mac(_, mac) => write!(f, "VTEP MAC {mac}"),
            Self::Key(_, key) => write!(f, "public key {key}"),
        }
    }
}

/// A route to anywhere but the cluster's networks, or over the nodes themselves, would cut this node off from them.
fn within(bounds: &Bounds, nodes: &BTreeSet<IpAddr>, peer: &Lease) -> Result<(), String> {
    for subnet in peer.key.subnets().values() {
        let inside = |network: &IpNetwork| network.contains(subnet.network()) && network.prefix() <= subnet.prefix();
        if !bounds.cluster.iter().any(inside) {
            return Err(format!("{subnet} lies outside the cluster network"));
        }
        if let Some(node) = nodes.range(subnet.network()..=subnet.broadcast()).next() {
            return Err(format!("{subnet} contains {node}, the address of a node"));
        }
    }
    Ok(())
}

/// All objects of one peer; none if it does not take part in the overlay yet.
fn objects<'a>(
    local: Local<'a>,
    standpoint: &impl Fn(&'a LocalEnd) -> Standpoint<'a>,
    peer: &Lease,
) -> Result<Vec<PeerObject>, String> {
    if peer.backend.is_none() {
        return Ok(Vec::new());
    }
    let (theirs, ours) = (&peer.backend.kind, local.backend.kind().name);
    if theirs != ours {
        return Err(format!("its back end is {theirs}; this node's is {ours}"));
    }
    let mut objects = Vec::new();
    for (family, subnet) in peer.key.subnets().iter() {
        // A node of one family has nothing to say to the other family of its peers.
        let Some(own) = local.ends.get(family) else { continue };
        let Some(&public_ip) = peer.public_ips.get(family) else {
            return Err(format!("it says nothing of how to reach it over {family}"));
        };
        if public_ip == own.end.public_ip {
            return Err(format!("its public address {public_ip} is this node's own"));
        }
        let peer = Peer { family, subnet: *subnet, public_ip, data: peer.backend.data.get(family), lease: peer };
        // Also of a peer that is reached past the device: the link may go.
        let through = local.backend.reach(&standpoint(own), &peer)?;
        match local.direct.get(&public_ip) {
            Some(&link) => objects.push(direct_route(peer.subnet, public_ip, link)),
            None => objects.extend(through),
        }
    }
    Ok(objects)
}

fn refused(peer: &Lease, reason: String) -> Rejected {
    Rejected { key: peer.key.to_string(), reason }
}

#[cfg(test)]
mod tests {
    use super::super::backend::{Device, End, Vxlan, VxlanData};
    use super::*;
    use crate::cluster::lease_value::BackendData;

    fn ends() -> PerFamily<LocalEnd> {
        let end = |link: u32, last, public_ip: &str, address: &str| {
            let device = weft_netlink::Vxlan {
                name: "flannel.1".into(),
                mac: Some(MacAddr([2, 0, 0, 0, 9, last])),
                mtu: Some(1450),
                vni: 1,
                port: 8472,
                underlay: Some(2),
                local: Some(public_ip.parse().unwrap()),
                learning: false,
                gbp: false,
                up: true,
            };
            let (public_ip, address) = (public_ip.parse().unwrap(), address.parse().unwrap());
            LocalEnd { end: End { device: Device::Vxlan(device), address, public_ip, mtu: 1450 }, link }
        };
        PerFamily {
            v4: Some(end(4, 4, "192.0.2.1", "10.244.1.0")),
            v6: Some(end(6, 6, "2001:db8::1", "fd00:10:244:1::")),
        }
    }

    fn planned(ends: &PerFamily<LocalEnd>, bounds: &Bounds, peers: &[&Lease]) -> PeerPlan {
        plan(Local { backend: &Vxlan::default(), ends, direct: &BTreeMap::new() }, bounds, peers)
    }

    fn peer(number: u8) -> Lease {
        let data = |last| VxlanData { vni: Some(1), vtep_mac: MacAddr([2, 0, 0, 0, number, last]) };
        Lease {
            key: format!("10.244.{number}.0-24&fd00:10:244:{number}::-64").parse().unwrap(),
            public_ips: PerFamily {
                v4: Some(format!("192.0.2.{number}").parse().unwrap()),
                v6: Some(format!("2001:db8::{number}").parse().unwrap()),
            },
            backend: PerFamily { v4: Some(data(4)), v6: Some(data(6)) }.into(),
            node: None,
            create_revision: i64::from(number),
        }
    }

    fn bounds() -> Bounds {
        Bounds { cluster: vec!["10.244.0.0/16".parse().unwrap(), "fd00:10:244::/48".parse().unwrap()] }
    }

    fn reason(lease: &Lease) -> String {
        let plan = planned(&ends(), &bounds(), &[lease]);
        assert!(plan.objects.is_empty() && plan.reached.is_empty());
        plan.rejected[0].reason.clone()
    }

    #[test]
    fn both_families_in_the_order_neighbour_fdb_route() {
        let plan = planned(&ends(), &bounds(), &[&peer(2)]);
        let words: Vec<String> = plan.objects.keys().map(ToString::to_string).collect();
        assert_eq!(
            words,
            [
                "neighbour 10.244.2.0 on link 4",
                "neighbour fd00:10:244:2:: on link 6",
                "FDB entry 02:00:00:00:02:04 behind 192.0.2.2 on link 4",
                "FDB entry 02:00:00:00:02:06 behind 2001:db8::2 on link 6",
                "route 10.244.2.0/24",
                "route fd00:10:244:2::/64",
            ]
        );
    }

    #[test]
    fn d50_a_bad_peer_is_refused_by_itself() {
        let own_ip =
            Lease { public_ips: PerFamily { v4: Some("192.0.2.1".parse().unwrap()), ..peer(3).public_ips }, ..peer(3) };
        assert_eq!(reason(&own_ip), "its public address 192.0.2.1 is this node's own");
        let vni = Lease {
            backend: PerFamily {
                v4: Some(VxlanData { vni: Some(7), vtep_mac: MacAddr([2, 0, 0, 0, 1, 1]) }),
                v6: None,
            }
            .into(),
            ..peer(3)
        };
        assert_eq!(reason(&vni), "its VNI is 7; this node's is 1");
        let other = Lease { backend: BackendData { kind: "host-gw".into(), ..BackendData::default() }, ..peer(3) };
        assert_eq!(reason(&other), "its back end is host-gw; this node's is vxlan");

        let both = planned(&ends(), &bounds(), &[&other, &peer(2)]);
        assert_eq!(both.objects, planned(&ends(), &bounds(), &[&peer(2)]).objects);
        assert_eq!(both.rejected.len(), 1);
    }

    #[test]
    fn d50_no_lease_routes_beside_the_cluster_network_or_over_the_nodes() {
        let at = |key: &str| Lease { key: key.parse().unwrap(), ..peer(3) };
        assert_eq!(reason(&at("10.99.0.0-24")), "10.99.0.0/24 lies outside the cluster network");
        assert_eq!(reason(&at("10.0.0.0-8")), "10.0.0.0/8 lies outside the cluster network");
        let wide = Bounds { cluster: vec!["0.0.0.0/0".parse().unwrap()] };
        let plan = planned(&ends(), &wide, &[&at("192.0.2.0-30")]);
        assert_eq!(plan.rejected[0].reason, "192.0.2.0/30 contains 192.0.2.1, the address of a node");
        assert!(plan.objects.is_empty());
    }

    #[test]
    fn of_two_peers_with_one_mac_the_older_stands() {
        let twin = Lease { backend: peer(2).backend, ..peer(3) };
        for order in [[&twin, &peer(2)], [&peer(2), &twin]] {
            let plan = planned(&ends(), &bounds(), &order);
            assert_eq!(plan.reached.len(), 1);
            assert_eq!(plan.rejected[0].key, twin.key.to_string());
            assert!(plan.rejected[0].reason.contains("is that of 10.244.2.0-24"), "{}", plan.rejected[0].reason);
        }
    }

    #[test]
    fn a_node_that_only_holds_a_lease_is_no_fault() {
        let plan = planned(&ends(), &bounds(), &[&Lease { backend: BackendData::default(), ..peer(2) }]);
        assert_eq!(plan, PeerPlan::default());
    }

    #[test]
    fn a_node_of_one_family_takes_that_part_of_its_peers() {
        let v4 = PerFamily { v4: ends().v4, v6: None };
        assert_eq!(planned(&v4, &bounds(), &[&peer(2)]).objects.len(), 3);
    }

    #[test]
    fn d30_a_peer_on_the_same_link_is_a_gateway_and_the_others_are_behind_the_device() {
        let direct = BTreeMap::from([("192.0.2.2".parse().unwrap(), 2)]);
        let v4 = PerFamily { v4: ends().v4, v6: None };
        let local = Local { backend: &Vxlan::default(), ends: &v4, direct: &direct };
        let plan = plan(local, &bounds(), &[&peer(2), &peer(3)]);
        let route = |key: &PeerKey| match &plan.objects[key] {
            PeerObject::Route(route) => Some(route.to_string()),
            _ => None,
        };
        let routes: Vec<String> = plan.objects.keys().filter_map(route).collect();
        assert_eq!(
            routes,
            ["route 10.244.2.0/24 via 192.0.2.2 on link 2", "route 10.244.3.0/24 via 10.244.3.0 on link 4"]
        );
        assert_eq!(plan.objects.len(), 4, "a neighbour and an FDB entry for the one alone: {:?}", plan.objects.keys());
    }
}
