//! What follows from the machine: the node's name, its address, and the socket of its container runtime.

use std::net::IpAddr;

use super::address::{Wish, choose, is_reachable, of_loopback, shown};
use super::defaults::API_PORT;
use super::facts::{CRI_SOCKETS, Facts};
use super::finding::{Finding, Weight};
use super::layers::Layers;
use crate::cluster::family::Family;

/// The node's name: kubelet's own override, what was given, the host's; in lower case.
pub(super) fn name(layers: &mut Layers, kind: &str, facts: &Facts, findings: &mut Vec<Finding>) {
    let path = format!("{kind}.nodeRegistration.name");
    layers.default(&path, hostname(facts), "the host's name, in lower case");
    let given = layers.text(&path).unwrap_or_default().trim().to_owned();
    let lower = given.to_lowercase();
    if lower != given {
        layers.refine(&path, lower.clone());
    }
    if let Some(overridden) = kubelet_override(layers, kind)
        && overridden != lower
    {
        let message = format!("kubelet's flag hostname-override makes the node's name {overridden}, not {lower}");
        findings.push(layers.finding(Weight::Note, &format!("{kind}.nodeRegistration.kubeletExtraArgs"), message));
        layers.refine(&path, overridden);
    }
}

/// The host's name as a node has it.
pub(super) fn hostname(facts: &Facts) -> String {
    facts.hostname.trim().to_lowercase()
}

fn kubelet_override(layers: &Layers, kind: &str) -> Option<String> {
    let flags = layers.get(&format!("{kind}.nodeRegistration.kubeletExtraArgs"))?.as_array()?;
    let named = flags.iter().rev().find(|flag| flag.get("name").is_some_and(|name| name == "hostname-override"))?;
    Some(named.get("value")?.as_str()?.to_owned()).filter(|name| !name.is_empty())
}

/// The socket of the container runtime at a path: the one that is there.
pub(super) fn cri_socket(layers: &mut Layers, path: &str, facts: &Facts, findings: &mut Vec<Finding>) {
    if let Some(given) = layers.text(path) {
        if given.starts_with('/') {
            let socket = format!("unix://{given}");
            layers.refine(path, socket);
        }
        return;
    }
    let found: Vec<String> = facts.cri_sockets.iter().map(|socket| format!("unix://{}", socket.display())).collect();
    match found.as_slice() {
        [] => layers.default(path, format!("unix://{}", CRI_SOCKETS[0]), "no container runtime is there yet"),
        [socket] => layers.default(path, socket.as_str(), "the container runtime that is there"),
        [first, ..] => {
            let message = format!(
                "criSocket is not given, and there are several container runtimes: {}; choose one with --cri-socket",
                found.join(", ")
            );
            findings.push(Finding { weight: Weight::Wrong, place: String::new(), message });
            layers.default(path, first.as_str(), "");
        }
    }
}

/// The node's address, by which the others reach it. `endpoint` is the path of its API endpoint, where it has one.
///
/// What was given counts; `0.0.0.0` is as good as nothing, and a loopback address stands for a reachable one on that
/// interface, as with kubeadm. An address is returned even if none is found, so that all else can be looked at as well.
pub(super) fn address(
    layers: &mut Layers,
    endpoint: Option<&str>,
    family: Option<Family>,
    facts: &Facts,
    findings: &mut Vec<Finding>,
) -> IpAddr {
    let path = endpoint.map(|endpoint| format!("{endpoint}.advertiseAddress"));
    if let Some(endpoint) = endpoint {
        layers.default(&format!("{endpoint}.bindPort"), API_PORT, "");
    }
    let weft = format!("{}.nodeIP", super::weft::KIND);
    let given = |layers: &Layers, path: &str| layers.text(path)?.parse::<IpAddr>().ok();
    let wished = path.as_deref().and_then(|path| Some((given(layers, path)?, path)));
    let wished = wished.or_else(|| Some((given(layers, &weft)?, weft.as_str())));
    let (address, why) = match wished {
        Some((address, _)) if address.is_unspecified() => chosen(layers, Some(Family::of(address)), facts, findings),
        Some((address, path)) => {
            let address = checked(layers, path, address, facts, findings);
            (address, if path == weft { "the node's address, nodeIP".to_owned() } else { String::new() })
        }
        None => chosen(layers, family, facts, findings),
    };
    if let Some(path) = path {
        layers.default(&path, address.to_string(), why);
        layers.refine(&path, address.to_string());
    }
    address
}

/// An address that was given: one that others can send to, and preferably one of this machine's.
fn checked(layers: &Layers, path: &str, given: IpAddr, facts: &Facts, findings: &mut Vec<Finding>) -> IpAddr {
    let mut wrong = |weight, message: String| findings.push(layers.finding(weight, path, message));
    let field = path.split_once('.').map_or(path, |(_, field)| field);
    let address =
        if given.is_loopback() { of_loopback(&facts.machine, Family::of(given)).unwrap_or(given) } else { given };
    if !is_reachable(address) {
        wrong(Weight::Wrong, format!("{field} is {given}; expected an address that other nodes can send to"));
    } else if facts.real && !facts.machine.addresses.iter().any(|known| known.network.ip() == address) {
        let message = format!("{field} {address} is no address of this machine; is it translated on its way here?");
        wrong(Weight::Note, message);
    }
    address
}

/// An address that nobody gave.
fn chosen(layers: &Layers, family: Option<Family>, facts: &Facts, findings: &mut Vec<Finding>) -> (IpAddr, String) {
    let placeholder = match family {
        Some(Family::V6) => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]),
        Some(Family::V4) | None => IpAddr::from([1, 2, 3, 4]),
    };
    if !facts.real {
        return (placeholder, "a placeholder for the machine's own".to_owned());
    }
    let path = format!("{}.interface", super::weft::KIND);
    let interface = layers.text(&path).map(str::to_owned);
    match choose(&facts.machine, Wish { interface: interface.as_deref(), family }) {
        Ok(chosen) => {
            if interface.is_none() && !chosen.others.is_empty() {
                let message = format!(
                    "the node's address is {}, {}; it could also be {}: choose with --node-ip or --iface",
                    chosen.address,
                    chosen.because,
                    shown(&chosen.others)
                );
                findings.push(Finding { weight: Weight::Note, place: String::new(), message });
            }
            (chosen.address, chosen.because)
        }
        Err(reason) => {
            let message =
                format!("the node's address is not given, and cannot be told: {reason}; give it with --node-ip");
            findings.push(layers.finding(Weight::Wrong, &path, message));
            (placeholder, String::new())
        }
    }
}
