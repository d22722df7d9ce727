//! By which of its addresses a node is reached.

use std::net::IpAddr;

use weft_netlink::{Link, RouteKind};

use crate::cluster::family::Family;
use crate::overlay::uplink::{Machine, OF_PODS, best_address};

/// What is wished for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wish<'a> {
    /// The interface whose address is to be taken.
    pub(super) interface: Option<&'a str>,
    /// The family of the cluster's first Service range, if it is known.
    pub(super) family: Option<Family>,
}

/// The chosen address.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) address: IpAddr,
    /// Why this one.
    pub(super) because: String,
    /// Others that it could have been: interface and address.
    pub(super) others: Vec<(String, IpAddr)>,
}

/// Chooses an address: the wished interface's, or that of the interface with the best default route.
///
/// # Errors
/// What is missing, and what there is instead.
pub(super) fn choose(machine: &Machine, wish: Wish<'_>) -> Result<Chosen, String> {
    let families: Vec<Family> = wish.family.map_or_else(|| Family::ALL.to_vec(), |family| vec![family]);
    let candidates = candidates(machine, &families);
    let listed = || match candidates.is_empty() {
        true => "this machine has none".to_owned(),
        false => format!("there are: {}", shown(&candidates)),
    };
    let chosen = match wish.interface {
        Some(name) => {
            let found = candidates.iter().find(|(interface, _)| interface == name);
            let (_, address) = found
                .ok_or_else(|| format!("interface {name} has no address that others could reach; {}", listed()))?;
            (*address, format!("the address of {name}, as --iface asks"))
        }
        None => families
            .iter()
            .find_map(|family| by_default_route(machine, *family))
            .ok_or_else(|| format!("no interface has a default route and an address; {}", listed()))?,
    };
    let (address, because) = chosen;
    // One of the other family is no other choice: the cluster's ranges decide which is needed.
    let is_other = |other: IpAddr| other != address && Family::of(other) == Family::of(address);
    let others = candidates.into_iter().filter(|(_, other)| is_other(*other)).collect();
    Ok(Chosen { address, because, others })
}

/// The address of the other family that goes with a node's address: that of the same interface, else that of the interface with
/// the best default route; `None` if there is none.
pub(super) fn beside(machine: &Machine, address: IpAddr) -> Option<IpAddr> {
    let other = match Family::of(address) {
        Family::V4 => Family::V6,
        Family::V6 => Family::V4,
    };
    let known = machine.addresses.iter().find(|known| known.network.ip() == address);
    let link = known.and_then(|known| machine.links.iter().find(|link| link.index == known.link));
    let here = link.and_then(|link| address_of(machine, link, other));
    here.or_else(|| by_default_route(machine, other).map(|(address, _)| address))
}

/// The address that a machine has on its loopback interface for others, as kubeadm takes it when it is given a loopback one.
pub(super) fn of_loopback(machine: &Machine, family: Family) -> Option<IpAddr> {
    let loopback = machine.links.iter().find(|link| link.loopback)?;
    let found = machine.addresses.iter().filter(|address| address.link == loopback.index);
    found.map(|address| address.network.ip()).find(|ip| Family::of(*ip) == family && is_reachable(*ip))
}

/// Whether others may send to it: no loopback, link-local, multicast or unspecified address.
pub(super) fn is_reachable(ip: IpAddr) -> bool {
    let local = match ip {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(local || ip.is_loopback() || ip.is_multicast() || ip.is_unspecified())
}

/// The interfaces and addresses as text.
pub(super) fn shown(candidates: &[(String, IpAddr)]) -> String {
    candidates.iter().map(|(interface, ip)| format!("{ip} ({interface})")).collect::<Vec<_>>().join(", ")
}

fn by_default_route(machine: &Machine, family: Family) -> Option<(IpAddr, String)> {
    let mut routes: Vec<_> = machine
        .routes
        .iter()
        .filter(|route| route.kind == RouteKind::Unicast && route.dst.prefix() == 0)
        .filter(|route| Family::of(route.dst.ip()) == family)
        .collect();
    routes.sort_by_key(|route| route.priority.unwrap_or_default());
    routes.into_iter().find_map(|route| {
        let first = route.next_hop.link.or_else(|| route.further.first().and_then(|hop| hop.link))?;
        let link = machine.links.iter().find(|link| link.index == first)?;
        // What the machine would send from is what it is known by.
        let address = route.src.or_else(|| address_of(machine, link, family))?;
        Some((address, format!("the address of {}, which has the default route", link.name)))
    })
}

fn address_of(machine: &Machine, link: &Link, family: Family) -> Option<IpAddr> {
    best_address(machine, link.index, family).filter(|ip| is_reachable(*ip))
}

/// The best address of each interface that could be a node's: none of those that belong to pods' networks.
fn candidates(machine: &Machine, families: &[Family]) -> Vec<(String, IpAddr)> {
    let eligible = |link: &&Link| !link.loopback && !OF_PODS.iter().any(|prefix| link.name.starts_with(prefix));
    let links = machine.links.iter().filter(eligible);
    links
        .flat_map(|link| {
            families.iter().filter_map(move |family| Some((link.name.clone(), address_of(machine, link, *family)?)))
        })
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use weft_netlink::{AddressInfo, LinkKind, NextHop, Route};

    /// A machine with interfaces that have an address each, and default routes: index of the interface and metric.
    pub(in super::super) fn machine(interfaces: &[(&str, &str)], defaults: &[(u32, u32)]) -> Machine {
        let mut machine = Machine::default();
        for (index, (name, network)) in (1..).zip(interfaces) {
            machine.links.push(Link {
                index,
                name: (*name).to_owned(),
                kind: LinkKind::Other(String::new()),
                mac: None,
                mtu: 1500,
                up: true,
                running: true,
                operational: true,
                loopback: *name == "lo",
                master: None,
                promiscuity: 0,
                alias: None,
                peer_index: None,
                hairpin: None,
                isolated: None,
            });
            machine.addresses.push(AddressInfo {
                link: index,
                network: network.parse().unwrap(),
                tentative: false,
                dad_failed: false,
                deprecated: false,
                permanent: true,
                secondary: false,
                global: !network.starts_with("fe80") && !network.starts_with("127."),
            });
        }
        for (link, metric) in defaults {
            let address = machine.addresses.iter().find(|address| address.link == *link).unwrap();
            let any = if address.network.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
            let mut route = Route::new(any.parse().unwrap(), 4);
            route.next_hop = NextHop { link: Some(*link), ..NextHop::default() };
            route.priority = Some(*metric);
            machine.routes.push(route);
        }
        machine
    }

    #[test]
    fn the_better_default_route_decides_and_the_others_are_told() {
        let machine =
            machine(&[("lo", "127.0.0.1/8"), ("eth0", "10.0.2.15/24"), ("eth1", "192.0.2.7/24")], &[(2, 100), (3, 50)]);
        let chosen = choose(&machine, Wish::default()).unwrap();
        assert_eq!(chosen.address.to_string(), "192.0.2.7");
        assert!(chosen.because.contains("eth1"), "{}", chosen.because);
        assert_eq!(shown(&chosen.others), "10.0.2.15 (eth0)");
    }

    #[test]
    fn an_interface_or_a_family_can_be_asked_for() {
        let machine = machine(&[("eth0", "192.0.2.7/24"), ("eth1", "2001:db8::7/64")], &[(1, 0), (2, 1024)]);
        let named = choose(&machine, Wish { interface: Some("eth1"), family: None }).unwrap();
        let of_family = choose(&machine, Wish { interface: None, family: Some(Family::V6) }).unwrap();
        assert_eq!(named.address, of_family.address);
        let error = choose(&machine, Wish { interface: Some("eth9"), family: None }).unwrap_err();
        assert!(error.contains("eth9") && error.contains("192.0.2.7 (eth0)"), "{error}");
    }

    #[test]
    fn pods_networks_and_link_local_addresses_are_no_candidates() {
        let machine = machine(&[("cni0", "10.244.0.1/24"), ("eth0", "169.254.3.4/16")], &[]);
        let error = choose(&machine, Wish::default()).unwrap_err();
        assert!(error.contains("this machine has none"), "{error}");
    }

    #[test]
    fn the_other_familys_address_is_that_of_the_same_interface_if_it_has_one() {
        let mut machine = machine(
            &[("eth0", "192.0.2.7/24"), ("eth1", "2001:db8::7/64"), ("eth2", "2001:db8:1::7/64")],
            &[(2, 1024)],
        );
        let beside = |machine: &Machine, address: &str| beside(machine, address.parse().unwrap());
        let text = |machine: &Machine| beside(machine, "192.0.2.7").map(|it| it.to_string());
        assert_eq!(text(&machine).as_deref(), Some("2001:db8::7"), "by the default route");
        machine.addresses[2].link = 1;
        assert_eq!(text(&machine).as_deref(), Some("2001:db8:1::7"));
        assert_eq!(beside(&machine, "2001:db8:1::7"), "192.0.2.7".parse().ok());
        assert_eq!(beside(&Machine::default(), "192.0.2.7"), None);
    }

    #[test]
    fn a_loopback_address_stands_for_a_reachable_one_on_that_interface() {
        let machine = machine(&[("lo", "203.0.113.9/32")], &[]);
        assert_eq!(of_loopback(&machine, Family::V4).unwrap().to_string(), "203.0.113.9");
        assert_eq!(of_loopback(&machine, Family::V6), None);
    }
}
