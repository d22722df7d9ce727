//! The chains that are there whatever Services there are, and the elements that they need.
//!
//! ```text
//! prerouting, output  -110  source ranges; in ipvs mode, which service addresses have a door
//! prerouting, output  -100  translation: frontend -> entrance -> list -> class -> backend
//! input, forward, output 0  what was not translated although it should: rejected or dropped
//! postrouting           88  masquerade
//! ```

mod filter;
mod translate;

use super::entry::{Datum, Entry, Key};
use super::layout::Entrance;
use super::options::{DetectLocal, NodePortAddresses, Options, disjoint};
use crate::cluster::Family;
use crate::filter::plan::PlannedChain;
use weft_netlink::nft::Source;
use weft_netlink::nft::expr::{self, AddressKind, Expr};

use super::lane::version;
use super::layout::SetId;

/// The chains, each behind those that it leads to.
#[must_use]
pub(super) fn chains(options: &Options) -> Vec<PlannedChain> {
    let mut chains = translate::chains(options);
    chains.extend(filter::chains(options));
    chains
}

/// The elements that do not depend on Services.
#[must_use]
pub(super) fn entries(options: &Options) -> Vec<Entry> {
    let mut entries = Vec::new();
    for entrance in Entrance::ALL {
        entries.push((Key::Entrance(entrance.number()), Datum::Chain));
        entries.push((Key::PortEntrance(entrance.number()), Datum::Chain));
    }
    for (family, addresses) in options.node_port_addresses.iter() {
        if let NodePortAddresses::Networks(networks) = addresses {
            let networks = disjoint(Options::of_family(networks, family));
            entries.extend(networks.into_iter().map(|network| (Key::NodePortNetwork(network), Datum::None)));
        }
    }
    let service_cidrs = disjoint(options.service_cidrs.iter().copied());
    entries.extend(service_cidrs.into_iter().map(|network| (Key::ServiceCidr(network), Datum::None)));
    entries
}

/// The phrases of which one lets a packet pass that may be for a node port, one a family at most.
fn takes_node_ports(options: &Options) -> Vec<Vec<Expr>> {
    let gate = |(family, addresses): (Family, &NodePortAddresses)| {
        options.families.get(family)?;
        let daddr = [Source::daddr(version(family))];
        match addresses {
            NodePortAddresses::Networks(networks) => Options::of_family(networks, family)
                .next()
                .map(|_| expr::in_set(&daddr, SetId::NodePortIps(family).name())),
            NodePortAddresses::All => {
                let mut phrase = expr::ip_daddr_not_in(loopback(family));
                phrase.extend(expr::fib_daddr_type(AddressKind::Local));
                // A route may make service addresses this node's own: ipvs mode's does.
                if Options::of_family(&options.service_cidrs, family).next().is_some() {
                    phrase.extend(expr::not_in_set(&daddr, SetId::ServiceCidrs(family).name()));
                }
                Some(phrase)
            }
        }
    };
    options.node_port_addresses.iter().filter_map(gate).collect()
}

/// The phrases of which one lets a packet of this node's pods pass.
fn from_pods(options: &Options) -> Vec<Vec<Expr>> {
    match &options.detect_local {
        DetectLocal::None => Vec::new(),
        DetectLocal::Cidrs(networks) => networks.iter().map(|network| expr::ip_saddr_in(*network)).collect(),
        DetectLocal::Bridge(name) => vec![expr::iifname(name)],
        DetectLocal::InterfacePrefix(prefix) => vec![expr::iifname(&format!("{prefix}*"))],
    }
}

/// The families in which this node's pods can be told from others.
fn detected(options: &Options) -> impl Iterator<Item = Family> {
    options.families.families().filter(|family| match &options.detect_local {
        DetectLocal::None => false,
        DetectLocal::Cidrs(networks) => Options::of_family(networks, *family).next().is_some(),
        DetectLocal::Bridge(_) | DetectLocal::InterfacePrefix(_) => true,
    })
}

fn loopback(family: Family) -> ipnetwork::IpNetwork {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    let (address, prefix) = match family {
        Family::V4 => (IpAddr::V4(Ipv4Addr::LOCALHOST), 8),
        Family::V6 => (IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
    };
    ipnetwork::IpNetwork::new(address, prefix).unwrap_or_else(|_| address.into())
}
