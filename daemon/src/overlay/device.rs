//! Plans a VXLAN device: keep it, change it in place, or make it anew.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use weft_netlink::{Address, AddressInfo, Link, LinkChange, LinkKind, Request, Verb, Vxlan, delete_link};

use crate::cluster::family::Family;

/// What has to happen to the device.
#[derive(Debug)]
pub enum DevicePlan {
    /// Nothing.
    Keep,
    /// Change it in place; its peers stay.
    Change(Vec<Request>),
    /// Delete it if it is there, and create it; its peers go with it.
    Make {
        /// The requests, in order.
        requests: Vec<Request>,
        /// What could not be changed in place; `None` if there was no device.
        because: Option<String>,
    },
    /// A device of that name is there and is not ours to delete.
    Conflict(String),
}

/// The name of the device of a family, as flannel has it.
#[must_use]
pub fn name(family: Family, vni: u32) -> String {
    match family {
        Family::V4 => format!("flannel.{vni}"),
        Family::V6 => format!("flannel-v6.{vni}"),
    }
}

/// Compares the device that is wanted with the one that is there.
#[must_use]
pub fn plan(wanted: &Vxlan, found: Option<&Link>) -> DevicePlan {
    let Some(found) = found else {
        return DevicePlan::Make { requests: vec![wanted.create()], because: None };
    };
    let LinkKind::Vxlan { vni, port, underlay, local, learning, gbp } = found.kind else {
        return DevicePlan::Conflict(format!(
            "{} is there and is no VXLAN device; weft needs that name for the overlay, so rename or delete it",
            wanted.name
        ));
    };
    // vxlan_changelink() refuses these (drivers/net/vxlan/vxlan_core.c), and a local address of the other family.
    let other_family = local.zip(wanted.local).is_some_and(|(found, wanted)| found.is_ipv4() != wanted.is_ipv4());
    let differences: Vec<String> = [
        differs("VNI", Some(vni), Some(wanted.vni)),
        differs("port", Some(port), Some(wanted.port)),
        differs("GBP", Some(gbp), Some(wanted.gbp)),
        differs("local address", local, wanted.local).filter(|_| other_family || local.is_none()),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !differences.is_empty() {
        return DevicePlan::Make {
            requests: vec![delete_link(found.index), wanted.create()],
            because: Some(differences.join(", ")),
        };
    }
    let mut requests = Vec::new();
    if (underlay, local, learning) != (wanted.underlay, wanted.local, wanted.learning) {
        requests.push(wanted.change(found.index));
    }
    // Behind it, and on its own: a new underlay brings the device its own idea of an MTU.
    let mut change = None;
    let mut with = |apply: &dyn Fn(LinkChange) -> LinkChange| {
        change = Some(apply(change.take().unwrap_or_else(|| LinkChange::new(found.index))));
    };
    if let Some(mac) = wanted.mac.filter(|mac| found.mac != Some(*mac)) {
        with(&move |link| link.mac(mac));
    }
    if let Some(mtu) = wanted.mtu.filter(|mtu| found.mtu != *mtu) {
        with(&move |link| link.mtu(mtu));
    }
    if !found.up {
        with(&LinkChange::up);
    }
    requests.extend(change.map(LinkChange::request));
    if requests.is_empty() { DevicePlan::Keep } else { DevicePlan::Change(requests) }
}

/// The requests that leave the device with these addresses and no other of the cluster's.
///
/// They are host addresses (/32, /128), so that they bring no connected route; they are the source of what the node itself sends
/// to pods.
#[must_use]
pub fn addresses(link: u32, wanted: &[IpAddr], cluster: &[IpNetwork], found: &[AddressInfo]) -> Vec<Request> {
    let wanted: Vec<IpNetwork> = wanted.iter().copied().map(IpNetwork::from).collect();
    let missing = wanted.iter().filter(|wanted| !found.iter().any(|found| found.network == **wanted));
    let mut requests: Vec<Request> = missing.map(|wanted| Address::new(link, *wanted).request(Verb::Replace)).collect();
    // Others than the cluster's may be there for a reason that we do not know.
    let stale = |found: &&AddressInfo| {
        !wanted.contains(&found.network) && cluster.iter().any(|network| network.contains(found.network.ip()))
    };
    requests.extend(found.iter().filter(stale).map(|found| Address::new(link, found.network).request(Verb::Delete)));
    requests
}

fn differs<T: Copy + PartialEq + std::fmt::Display>(what: &str, found: Option<T>, wanted: Option<T>) -> Option<String> {
    let words = |value: &Option<T>| value.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
    (found != wanted).then(|| format!("{what} is {} and should be {}", words(&found), words(&wanted)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_netlink::MacAddr;

    fn wanted() -> Vxlan {
        Vxlan {
            name: "flannel.1".into(),
            mac: Some(MacAddr([2, 0, 0, 0, 0, 1])),
            mtu: Some(1450),
            vni: 1,
            port: 8472,
            underlay: Some(2),
            local: Some("192.0.2.1".parse().unwrap()),
            learning: false,
            gbp: false,
            up: true,
        }
    }

    fn found() -> Link {
        Link {
            index: 9,
            name: "flannel.1".into(),
            kind: LinkKind::Vxlan {
                vni: 1,
                port: 8472,
                underlay: Some(2),
                local: Some("192.0.2.1".parse().unwrap()),
                learning: false,
                gbp: false,
            },
            mac: Some(MacAddr([2, 0, 0, 0, 0, 1])),
            mtu: 1450,
            up: true,
            running: true,
            operational: true,
            loopback: false,
            master: None,
            promiscuity: 0,
            alias: None,
            peer_index: None,
            hairpin: None,
            isolated: None,
        }
    }

    fn words(plan: &DevicePlan) -> Vec<String> {
        match plan {
            DevicePlan::Change(requests) | DevicePlan::Make { requests, .. } => {
                requests.iter().map(|request| request.operation().to_owned()).collect()
            }
            DevicePlan::Keep => vec!["keep".into()],
            DevicePlan::Conflict(reason) => vec![reason.clone()],
        }
    }

    #[test]
    fn a_device_that_is_right_is_kept() {
        assert_eq!(words(&plan(&wanted(), Some(&found()))), ["keep"]);
    }

    #[test]
    fn mac_mtu_and_state_are_mended_in_place() {
        let found = Link { mac: Some(MacAddr([2; 6])), mtu: 1500, up: false, ..found() };
        assert_eq!(words(&plan(&wanted(), Some(&found))), ["set link 9 address 02:00:00:00:00:01, mtu 1450, up"]);
    }

    #[test]
    fn d41_a_new_uplink_or_address_leaves_the_device_and_its_peers() {
        let mut other = wanted();
        (other.underlay, other.local, other.mtu) = (Some(3), Some("192.0.2.9".parse().unwrap()), Some(8950));
        assert_eq!(
            words(&plan(&other, Some(&found()))),
            ["change VXLAN device flannel.1: on link 3, from 192.0.2.9, no learning", "set link 9 mtu 8950"]
        );
        let learning = Vxlan { learning: true, ..wanted() };
        assert_eq!(
            words(&plan(&learning, Some(&found()))),
            ["change VXLAN device flannel.1: on link 2, from 192.0.2.1, learning"]
        );
    }

    #[test]
    fn a_local_address_of_the_other_family_makes_a_new_device() {
        let other = Vxlan { local: Some("2001:db8::1".parse().unwrap()), ..wanted() };
        assert!(matches!(plan(&other, Some(&found())), DevicePlan::Make { because: Some(_), .. }));
    }

    #[test]
    fn what_the_kernel_cannot_change_makes_a_new_device() {
        let other = Vxlan { port: 4789, ..wanted() };
        let DevicePlan::Make { because: Some(because), .. } = plan(&other, Some(&found())) else { panic!() };
        assert_eq!(because, "port is 8472 and should be 4789");
    }

    #[test]
    fn a_foreign_device_of_that_name_is_left_alone() {
        let foreign = Link { kind: LinkKind::Other("dummy".into()), ..found() };
        assert!(words(&plan(&wanted(), Some(&foreign)))[0].contains("flannel.1 is there and is no VXLAN device"));
    }

    #[test]
    fn only_addresses_of_the_cluster_are_cleared_away() {
        let info = |network: &str| AddressInfo {
            link: 9,
            network: network.parse().unwrap(),
            tentative: false,
            dad_failed: false,
            deprecated: false,
            permanent: true,
            secondary: false,
            global: true,
        };
        let requests = addresses(
            9,
            &["10.244.1.0".parse().unwrap()],
            &["10.244.0.0/16".parse().unwrap()],
            &[info("10.244.7.0/32"), info("203.0.113.5/24")],
        );
        let words: Vec<&str> = requests.iter().map(Request::operation).collect();
        assert_eq!(words, ["set address 10.244.1.0/32 on link 9", "delete address 10.244.7.0/32 on link 9"]);
    }
}
