//! The bridge: there, up, with the gateway's addresses.

use ipnetwork::IpNetwork;
use weft_netlink::sysctl::Sysctl;
use weft_netlink::{Address, AddressInfo, Bridge, Errno, Link, LinkChange, LinkKind, LinkProbe, RouteSocket, Verb};

use super::plan::bridge_mac;
use super::veth::await_own;
use crate::formats::conflist::BRIDGE_ALIAS;
use crate::ipam::pool::KnownBridge;
use crate::ipam::range::RangeSet;
use crate::protocol::config::BridgeConfig;
use crate::protocol::{CniError, Code, Result};

/// What the bridge has to be.
#[derive(Debug, Clone, Copy)]
pub struct BridgeWish<'a> {
    /// Its configuration.
    pub config: &'a BridgeConfig,
    /// Its addresses as gateway of this container.
    pub gateways: &'a [IpNetwork],
    /// All ranges of the configuration: other containers have their gateways.
    pub sets: &'a [RangeSet],
    /// MTU in bytes of one that is made now.
    pub mtu: Option<u32>,
    /// The cluster's networks: an address out of them that is not the gateway's is from an old life.
    pub networks: &'a [IpNetwork],
}

/// Whether the bridge is still as it has to be: the same link, up, with the gateway's addresses, and the machine forwards.
/// None of these questions takes the kernel's RTNL lock (addresses since Linux 6.9).
#[must_use]
pub fn is_as_known(wish: BridgeWish<'_>, known: &KnownBridge, probe: &LinkProbe, socket: &mut RouteSocket) -> bool {
    let name = &wish.config.name;
    let same = known.name == *name && probe.index(name).is_ok_and(|index| index == Some(known.index));
    let as_set = || {
        let flags = probe.flags(name).ok().flatten();
        flags.is_some_and(|flags| flags.up && (flags.promisc || !wish.config.promiscuous))
    };
    let mut bears_all = || {
        let present = socket.addresses(Some(known.index)).unwrap_or_default();
        wish.gateways.iter().all(|gateway| present.iter().any(|address| address.network == *gateway))
    };
    same && as_set() && (!wish.config.is_gateway || (bears_all() && forwards(wish.gateways)))
}

/// Makes the bridge what it has to be. What is right already is not touched.
///
/// # Errors
/// Code 7 if the name belongs to something else, 999 if it bears an address that must not give way or the kernel refuses.
pub fn ensure(wish: BridgeWish<'_>, socket: &mut RouteSocket) -> Result<KnownBridge> {
    let name = wish.config.name.as_str();
    let (link, made) = match socket.link(name)? {
        Some(link) => (link, false),
        None => (create(wish, socket)?, true),
    };
    if link.kind != LinkKind::Bridge {
        return Err(CniError::new(Code::InvalidConfig, format!("bridge: {name:?} already exists but is not a bridge")));
    }
    let mut changes = Vec::new();
    if made {
        changes.push(LinkChange::new(link.index).alias(BRIDGE_ALIAS).request());
    }
    if !link.up {
        changes.push(LinkChange::new(link.index).up().request());
    }
    if wish.config.promiscuous {
        changes.push(LinkChange::new(link.index).promisc(true).request());
    }
    if !changes.is_empty() {
        socket.all(changes)?;
    }
    if wish.config.is_gateway {
        let ours = made || link.alias.as_deref() == Some(BRIDGE_ALIAS);
        ensure_addresses(wish, &link, ours, socket)?;
        ensure_forwarding(wish.gateways)?;
    }
    Ok(KnownBridge { name: name.to_owned(), index: link.index })
}

fn create(wish: BridgeWish<'_>, socket: &mut RouteSocket) -> Result<Link> {
    let name = wish.config.name.as_str();
    let mac = bridge_mac(name, wish.gateways);
    let bridge = Bridge { name: name.to_owned(), mac: Some(mac), mtu: wish.mtu, up: true };
    match socket.one(bridge.create()) {
        // Another network's ADD made it meanwhile.
        Err(error) if !error.is_present() => return Err(error.into()),
        _ => {}
    }
    // Router advertisements of a pod must not configure the host. Absent where the kernel has no IPv6.
    let _ = Sysctl::default().write(&format!("net/ipv6/conf/{name}/accept_ra"), "0");
    let gone = || CniError::later(format!("bridge: {name:?} vanished while it was set up"));
    socket.link(name)?.ok_or_else(gone)
}

fn ensure_addresses(wish: BridgeWish<'_>, link: &Link, ours: bool, socket: &mut RouteSocket) -> Result<()> {
    let present: Vec<AddressInfo> =
        socket.addresses(Some(link.index))?.into_iter().filter(|address| address.global).collect();
    let mut removed = Vec::new();
    for address in &present {
        match fate(wish, address.network, ours) {
            Fate::Stays => {}
            Fate::Goes => removed.push(address.network),
            Fate::Conflicts(gateway) => {
                return Err(CniError::internal(format!(
                    "failed to set bridge addr: {:?} already has an IP address different from {gateway}: {}; forceAddress: true would replace it",
                    link.name, address.network
                )));
            }
        }
    }
    let is_missing = |gateway: &&IpNetwork| !present.iter().any(|address| address.network == **gateway);
    let mut wanted: Vec<IpNetwork> = wish.gateways.iter().filter(is_missing).copied().collect();
    if !removed.is_empty() {
        // The kernel removes the secondaries of an IPv4 address along with it, unless promote_secondaries says otherwise.
        let stays = present.iter().map(|address| address.network).filter(|network| !removed.contains(network));
        wanted.extend(stays.filter(IpNetwork::is_ipv4));
    }
    if wanted.is_empty() && removed.is_empty() {
        return Ok(());
    }
    if wanted.iter().any(IpNetwork::is_ipv6) {
        // A new link has what `default` says, and a link without IPv6 takes no address.
        Sysctl::default().ensure(&format!("net/ipv6/conf/{}/disable_ipv6", link.name), "0")?;
    }
    let request = |network: &IpNetwork, verb| Address::new(link.index, *network).request(verb);
    let removals = removed.iter().map(|network| request(network, Verb::Delete));
    let additions = wanted.iter().map(|network| request(network, Verb::Create));
    for verdict in socket.run(removals.chain(additions).collect())? {
        match verdict {
            Err(error) if error.errno != Errno::EEXIST && !error.is_absent() => {
                return Err(CniError::internal(format!("failed to set bridge addr: {error}")));
            }
            _ => {}
        }
    }
    // The first pod asks for its gateway at once.
    await_own(wanted.iter().map(IpNetwork::ip), socket)
}

/// What becomes of an address that the bridge bears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is right, or nobody's business here.
    Stays,
    /// It is from an old life, or has to give way.
    Goes,
    /// It must not be beside this gateway, and nobody has allowed to remove it.
    Conflicts(IpNetwork),
}

/// What becomes of `old` on a bridge that weft has made (`ours`) or somebody else.
///
/// Without a word of the configuration, only addresses out of this network's own ranges or the cluster's networks go: on a
/// bridge of ours others are the gateways of other networks.
fn fate(wish: BridgeWish<'_>, old: IpNetwork, ours: bool) -> Fate {
    let configured = || {
        wish.sets.iter().flatten().any(|range| range.gateway() == old.ip() && range.subnet().prefix() == old.prefix())
    };
    if wish.gateways.contains(&old) || configured() {
        return Fate::Stays;
    }
    // Several IPv6 networks may live beside each other as long as they do not overlap.
    let conflicts = |gateway: &&IpNetwork| {
        gateway.is_ipv4() == old.is_ipv4()
            && (old.is_ipv4() || old.contains(gateway.ip()) || gateway.contains(old.ip()))
    };
    let Some(gateway) = wish.gateways.iter().find(conflicts) else { return Fate::Stays };
    let old_life = || {
        wish.networks.iter().any(|network| network.contains(old.ip()))
            || wish.sets.iter().flatten().any(|range| range.subnet().contains(old.ip()))
    };
    match wish.config.force_address {
        Some(true) => Fate::Goes,
        Some(false) => Fate::Conflicts(*gateway),
        None if old_life() => Fate::Goes,
        None if ours => Fate::Stays,
        None => Fate::Conflicts(*gateway),
    }
}

/// The switches that make the machine forward between the bridge and its other links.
fn forwarding(gateways: &[IpNetwork]) -> impl Iterator<Item = &'static str> {
    [(false, "net/ipv4/ip_forward"), (true, "net/ipv6/conf/all/forwarding")]
        .into_iter()
        .filter(|(v6, _)| gateways.iter().any(|gateway| gateway.is_ipv6() == *v6))
        .map(|(_, name)| name)
}

fn forwards(gateways: &[IpNetwork]) -> bool {
    let sysctl = Sysctl::default();
    forwarding(gateways).all(|name| sysctl.read(name).is_ok_and(|value| value.as_deref() == Some("1")))
}

fn ensure_forwarding(gateways: &[IpNetwork]) -> Result<()> {
    let sysctl = Sysctl::default();
    forwarding(gateways).try_for_each(|name| Ok(sysctl.ensure(name, "1").map(drop)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipam::range::Range;
    use crate::protocol::config::NetConf;
    use crate::protocol::env::Args;
    use crate::protocol::json::Json;

    fn config(members: &str) -> BridgeConfig {
        let text = format!(r#"{{"cniVersion":"1.0.0","name":"net"{members}}}"#);
        NetConf::parse(&Json::parse_object(text.as_bytes()).unwrap(), &Args::default()).unwrap().bridge
    }

    #[test]
    fn t083_only_addresses_of_an_old_life_give_way_unasked() {
        let network = |text: &str| text.parse::<IpNetwork>().unwrap();
        let range = |subnet: &str| Range::new(network(subnet), None, None, None).unwrap();
        let sets = [vec![range("10.1.0.0/30"), range("10.2.0.0/30")], vec![range("fd00::/64")]];
        let (gateways, networks) = ([network("10.1.0.1/30"), network("fd00::1/64")], [network("10.244.0.0/16")]);
        let silent = config("");
        let (allowed, refused) = (config(r#","forceAddress":true"#), config(r#","forceAddress":false"#));
        let fate_of = |config, old: &str, ours| {
            let wish = BridgeWish { config, gateways: &gateways, sets: &sets, mtu: None, networks: &networks };
            fate(wish, network(old), ours)
        };
        for config in [&silent, &allowed, &refused] {
            for right in ["10.1.0.1/30", "10.2.0.1/30", "fd00::1/64", "fd01::1/64"] {
                assert_eq!(fate_of(config, right, true), Fate::Stays, "{right}");
            }
        }
        for old in ["10.244.7.1/24", "10.1.0.1/24", "fd00::1/48"] {
            assert_eq!(fate_of(&silent, old, false), Fate::Goes, "{old}");
            assert!(matches!(fate_of(&refused, old, true), Fate::Conflicts(_)), "{old}");
        }
        // Another network's gateway on our bridge; an operator's address on theirs.
        assert_eq!(fate_of(&silent, "10.9.0.1/24", true), Fate::Stays);
        assert_eq!(fate_of(&silent, "10.9.0.1/24", false), Fate::Conflicts(gateways[0]));
        assert_eq!(fate_of(&allowed, "10.9.0.1/24", false), Fate::Goes);
    }
}
