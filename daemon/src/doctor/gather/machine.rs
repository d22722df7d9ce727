//! The machine: modules, settings, checksums.

use std::fs;
use std::path::Path;

use weft_netlink::sysctl::Sysctl;
use weft_netlink::{RouteSocket, conntrack, diagnose, ipvs};

use super::links::View;
use super::route_socket;
use crate::cluster::Family;
use crate::config::{ProxyMode, Settings};
use crate::doctor::Told;
use crate::doctor::kernel::{KernelFacts, Module};
use crate::doctor::offload::{Device, OffloadFacts};
use crate::doctor::overlay::Carrier;
use crate::doctor::path::Peer;
use crate::doctor::sysctls::{SysctlFacts, Value};
use crate::service::nft::{NftError, preflight};

/// What the kernel can do.
pub(super) fn kernel(settings: &Settings, view: &View, sysctl: &Sysctl, serving: Option<&str>) -> KernelFacts {
    let (proxy_mode, ipvs) = served(settings.proxy_mode, serving, ipvs);
    let scheduler = settings.ipvs_scheduler.as_str();
    let scheduler = if scheduler.is_empty() { "rr" } else { scheduler }.to_owned();
    let bridge = sysctl.read("net/bridge/bridge-nf-call-iptables").map_err(|error| error.to_string());
    KernelFacts {
        vxlan: match view.devices() {
            [] => Some(module("vxlan")),
            devices => devices.iter().any(|device| device.carrier != Carrier::Wireguard).then_some(Module::Present),
        },
        // ARP's part is ipvs mode's.
        nf_tables: match preflight(proxy_mode == ProxyMode::Ipvs) {
            Ok(()) => Ok(None),
            Err(lacks @ NftError::Lacks(_)) => Ok(Some(lacks.to_string())),
            Err(other) => Err(other.to_string()),
        },
        ipvs,
        scheduler: (scheduler.clone(), module(&format!("ip_vs_{scheduler}"))),
        conntrack: conntrack(sysctl),
        bridge_netfilter: bridge.map(|value| value.map(|text| text != "0")),
        proxy_mode,
    }
}

/// How Services are served, and whether there is IPVS. What the agent says counts more than what it may have been told;
/// without its word, auto is what it would choose. IPVS is not asked for where nobody needs it, as that would load it.
fn served(set: ProxyMode, serving: Option<&str>, ask: impl FnOnce() -> Told<bool>) -> (ProxyMode, Told<bool>) {
    let mode = match serving {
        Some("ipvs") => ProxyMode::Ipvs,
        Some("nftables") => ProxyMode::Nftables,
        _ => set,
    };
    match mode {
        ProxyMode::None | ProxyMode::Nftables => (mode, Ok(false)),
        ProxyMode::Ipvs => (mode, ask()),
        ProxyMode::Auto => match ask() {
            Ok(true) => (ProxyMode::Ipvs, Ok(true)),
            Ok(false) => (ProxyMode::Nftables, Ok(false)),
            Err(reason) => (mode, Err(reason)),
        },
    }
}

fn ipvs() -> Told<bool> {
    match ipvs::Socket::open() {
        Ok(_) => Ok(true),
        Err(weft_netlink::Error::Unsupported { .. }) => Ok(false),
        Err(error) => Err(error.to_string()),
    }
}

fn conntrack(sysctl: &Sysctl) -> Told<(u64, Option<u64>)> {
    let count = conntrack::Socket::open().and_then(|mut socket| socket.count()).map_err(|error| error.to_string())?;
    // Kernels before 5.9 do not give the limit along.
    let read = || sysctl.read("net/netfilter/nf_conntrack_max").ok().flatten()?.parse().ok();
    Ok((count.flows.into(), count.limit.map(u64::from).or_else(read)))
}

/// Looks for a module in `/sys/module`, and in the lists of this kernel's modules.
fn module(name: &str) -> Module {
    if Path::new("/sys/module").join(name).exists() {
        return Module::Present;
    }
    let Ok(uname) = nix::sys::utsname::uname() else { return Module::Untold };
    let folder = Path::new("/lib/modules").join(uname.release());
    let lists = ["modules.builtin", "modules.dep"].map(|list| fs::read_to_string(folder.join(list)));
    // Files write either; the kernel takes both for one.
    let is_named = |line: &str| {
        let path = line.split(':').next().unwrap_or_default();
        let file = path.rsplit('/').next().unwrap_or_default();
        file.split('.').next().unwrap_or_default().replace('-', "_") == name
    };
    match lists {
        [Ok(builtin), _] if builtin.lines().any(is_named) => Module::Present,
        [_, Ok(loadable)] if loadable.lines().any(is_named) => Module::Loadable,
        [Ok(_), Ok(_)] => Module::Absent,
        _ => Module::Untold,
    }
}

/// The settings that the data plane rests on.
pub(super) fn sysctls(sysctl: &Sysctl, view: &View, peers: &[Peer], serving: Option<&str>) -> SysctlFacts {
    let read = |name: &str| -> Value { sysctl.read(name).map_err(|error| error.to_string()) };
    let families = |device: &crate::doctor::overlay::Device| -> Vec<Family> {
        // The inner family: that of its addresses, which is the outer one where it has none.
        let inner: Vec<Family> = device.addresses.iter().map(|address| Family::of(address.ip())).collect();
        if inner.is_empty() { vec![device.outer] } else { inner }
    };
    let mut forwarding: Vec<(Family, Value)> = Vec::new();
    let mut links: Vec<(String, Value)> = Vec::new();
    let first_uplink = view.devices().iter().find_map(|device| device.uplink.as_ref().map(|(name, _)| name.clone()));
    let mut reverse_path = Vec::new();
    for device in view.devices() {
        for family in families(device) {
            if forwarding.iter().any(|(known, _)| *known == family) {
                continue;
            }
            let whole = match family {
                Family::V4 => "net/ipv4/ip_forward",
                Family::V6 => "net/ipv6/conf/all/forwarding",
            };
            forwarding.push((family, read(whole)));
            if family == Family::V6 {
                continue;
            }
            let uplink = device.uplink.iter().map(|(name, _)| name.clone());
            let bridge = view.overlay.bridge.iter().flatten().map(|(name, ..)| name.clone());
            for link in [device.name.clone()].into_iter().chain(uplink).chain(bridge) {
                let value = read(&format!("net/ipv4/conf/{link}/forwarding"));
                links.push((link, value));
            }
        }
        if let Some((uplink, _)) = &device.uplink
            && device.outer == Family::V4
        {
            let of = |link: &str| read(&format!("net/ipv4/conf/{link}/rp_filter"));
            reverse_path.push((uplink.clone(), of("all"), of(uplink)));
        }
    }
    SysctlFacts {
        forwarding,
        links,
        uplink: first_uplink,
        reverse_path,
        detours: route_socket().map(|mut socket| detours(&mut socket, view, peers)).unwrap_or_default(),
        ipvs_conntrack: (serving == Some("ipvs")).then(|| read("net/ipv4/vs/conntrack")),
    }
}

/// Peers to whose address packets leave by another link than the uplink of the device towards them.
fn detours(socket: &mut RouteSocket, view: &View, peers: &[Peer]) -> Vec<String> {
    let Ok(links) = &view.links else { return Vec::new() };
    let is_detour = |socket: &mut RouteSocket, peer: &Peer| {
        let device = view.devices().iter().find(|device| device.outer == Family::of(peer.outer))?;
        let (uplink, _) = device.uplink.as_ref()?;
        let by = socket.route_to(peer.outer).ok()?.next_hop.link?;
        let by = links.iter().find(|link| link.index == by)?;
        Some(by.name != *uplink)
    };
    peers.iter().filter(|peer| is_detour(socket, peer) == Some(true)).map(|peer| peer.name.clone()).collect()
}

/// Checksums; `before` is what had come in when the doctor began.
pub(super) fn offload(view: &View, before: &Told<(u64, u64)>) -> OffloadFacts {
    let device = |device: &crate::doctor::overlay::Device| Device {
        name: device.name.clone(),
        tx_checksum: diagnose::tx_checksum(&device.name).map_err(|error| error.to_string()),
        driver: match &device.uplink {
            Some((uplink, _)) => diagnose::driver(uplink).map_err(|error| error.to_string()),
            None => Ok(None),
        },
    };
    let errors = checksum_errors();
    let fresh = match (before, &errors) {
        (Ok(before), Ok(now)) => (now.0.saturating_sub(before.0), now.1.saturating_sub(before.1)),
        _ => (0, 0),
    };
    OffloadFacts { devices: view.devices().iter().map(device).collect(), errors, fresh }
}

/// Packets for this machine whose checksum was wrong, and all, of TCP and UDP over both families.
pub(super) fn checksum_errors() -> Told<(u64, u64)> {
    // Of this thread's network namespace; /proc/net is that of the process' first thread.
    let read = |file: &str| fs::read_to_string(format!("/proc/thread-self/net/{file}"));
    let v4 = read("snmp").map_err(|error| format!("/proc/thread-self/net/snmp: {error}"))?;
    // A kernel without IPv6 has no such file.
    let v6 = read("snmp6").unwrap_or_default();
    Ok(counts(&v4, &v6))
}

fn counts(v4: &str, v6: &str) -> (u64, u64) {
    let mut names: Vec<&str> = Vec::new();
    let (mut errors, mut all) = (0, 0);
    for line in v4.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.get(1).is_some_and(|word| word.parse::<i64>().is_err()) {
            names = words;
            continue;
        }
        let value = |name: &str| -> u64 {
            let at = names.iter().position(|known| *known == name);
            at.and_then(|at| words.get(at)?.parse().ok()).unwrap_or_default()
        };
        match words.first() {
            Some(&"Tcp:") => (errors, all) = (errors + value("InCsumErrors"), all + value("InSegs")),
            Some(&"Udp:") => (errors, all) = (errors + value("InCsumErrors"), all + value("InDatagrams")),
            _ => {}
        }
    }
    for line in v6.lines() {
        let mut words = line.split_whitespace();
        let (name, value) = (words.next(), words.next().and_then(|word| word.parse::<u64>().ok()).unwrap_or_default());
        match name {
            Some("Udp6InCsumErrors") => errors += value,
            Some("Udp6InDatagrams") => all += value,
            _ => {}
        }
    }
    (errors, all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_is_the_one_that_is_served() {
        use ProxyMode::{Auto, Ipvs, Nftables, None};
        let nobody = || -> Told<bool> { panic!("IPVS must not be loaded") };
        assert_eq!(served(Ipvs, Some("nftables"), nobody).0, Nftables);
        assert_eq!(served(None, Option::None, nobody), (None, Ok(false)));
        assert_eq!(served(Nftables, Some("ipvs"), || Ok(true)), (Ipvs, Ok(true)));
        assert_eq!(served(Auto, Option::None, || Ok(false)), (Nftables, Ok(false)));
        assert_eq!(served(Auto, Option::None, || Ok(true)).0, Ipvs);
        assert_eq!(served(Auto, Option::None, || Err("denied".into())), (Auto, Err("denied".into())));
    }

    #[test]
    fn checksum_errors_are_counted_from_the_kernels_tables() {
        let v4 = "Ip: Forwarding DefaultTTL\nIp: 1 64\nTcp: RtoAlgorithm InSegs InCsumErrors\nTcp: 1 50 2\n\
                  Udp: InDatagrams NoPorts InErrors InCsumErrors\nUdp: 7 0 3 3\nUdpLite: InDatagrams InCsumErrors\nUdpLite: 9 9\n";
        let v6 = "Ip6InReceives 5\nUdp6InDatagrams 10\nUdp6InCsumErrors 1\n";
        assert_eq!(counts(v4, v6), (6, 67));
        assert!(checksum_errors().is_ok());
    }
}
