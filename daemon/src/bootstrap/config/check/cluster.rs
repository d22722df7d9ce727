//! The rules of a `ClusterConfiguration`.

use ipnetwork::IpNetwork;
use serde_json::Value;

use super::{Check, list};
use crate::bootstrap::config::finding::Weight;
use crate::bootstrap::config::rules::{host_port, is_alternative_name, is_image_repository, is_subdomain, subnets};
use crate::bootstrap::config::versions;
use crate::bootstrap::duration;

const SERVICES: &str = "ClusterConfiguration.networking.serviceSubnet";
const PODS: &str = "ClusterConfiguration.networking.podSubnet";
const RANGES: &str = "a range such as 10.244.0.0/16, or one of each family with a comma between";
/// kube-apiserver keeps a bitmap of the range.
const LARGEST_SERVICE_RANGE: u8 = 20;
const LEAST_SERVICE_ADDRESSES: u128 = 10;
const LEAST_POD_ADDRESSES: u128 = 14;
/// kube-controller-manager keeps a bitmap of the nodes' ranges.
const MOST_NODE_BITS: u8 = 16;
/// kubeadm's feature gates; none of them means anything to weft.
const GATES: [&str; 3] = ["NodeLocalCRISocket", "PublicKeysECDSA", "RootlessControlPlane"];

/// All rules of the cluster.
pub(in super::super) fn check(check: &mut Check<'_>) {
    let path = |field: &str| format!("ClusterConfiguration.{field}");
    check.text(&path("networking.dnsDomain"), is_subdomain, "a domain of lower-case labels, such as cluster.local");
    services(check);
    pods(check);
    overlap(check);
    check.absolute(&path("certificatesDir"));
    check.text(&path("controlPlaneEndpoint"), |text| host_port(text).is_some(), "host, host:port or [IPv6]:port");
    for field in ["imageRepository", "dns.imageRepository", "etcd.local.imageRepository"] {
        check.text(&path(field), is_image_repository, "a registry and path without scheme, such as registry.k8s.io");
    }
    for field in ["apiServer.certSANs", "etcd.local.serverCertSANs", "etcd.local.peerCertSANs"] {
        check.texts(&path(field), is_alternative_name, "an IP address, a DNS name or *.<DNS name>");
    }
    for component in ["apiServer", "controllerManager", "scheduler", "etcd.local"] {
        let below = |field: &str| path(&format!("{component}.{field}"));
        check.fields(&below("extraArgs"), &["name"]);
        check.fields(&below("extraEnvs"), &["name"]);
        check.fields(&below("extraVolumes"), &["name", "hostPath", "mountPath"]);
    }
    etcd(check);
    gates(check);
    for (field, usual) in [("certificateValidityPeriod", "8760h0m0s"), ("caCertificateValidityPeriod", "87600h0m0s")] {
        validity(check, &path(field), usual);
    }
}

fn services(check: &mut Check<'_>) {
    let Some(text) = check.layers.text(SERVICES).map(str::to_owned) else { return };
    let Some(ranges) = subnets(&text) else { return check.wrong(SERVICES, &text, RANGES) };
    for range in ranges {
        let bits = width(range);
        if bits - range.prefix() > LARGEST_SERVICE_RANGE {
            let expected =
                format!("a range of at most /{}: larger ones do not fit into etcd", bits - LARGEST_SERVICE_RANGE);
            check.wrong(SERVICES, &range.to_string(), &expected);
        }
        few(check, SERVICES, range, LEAST_SERVICE_ADDRESSES);
    }
}

fn pods(check: &mut Check<'_>) {
    let Some(text) = check.layers.text(PODS).map(str::to_owned) else { return };
    let Some(ranges) = subnets(&text) else { return check.wrong(PODS, &text, RANGES) };
    let allocated = controller_flag(check, "allocate-node-cidrs").as_deref() != Some("false");
    for range in ranges {
        few(check, PODS, range, LEAST_POD_ADDRESSES);
        if !allocated {
            continue;
        }
        let (flag, usual) = match range.is_ipv4() {
            true => ("node-cidr-mask-size-ipv4", 24),
            false => ("node-cidr-mask-size-ipv6", 64),
        };
        let node = match controller_flag(check, flag) {
            None => usual,
            Some(text) => match text.parse::<u8>() {
                Ok(node) if node <= width(range) => node,
                _ => {
                    let path = "ClusterConfiguration.controllerManager.extraArgs";
                    check.wrong(path, &format!("{flag}={text}"), "a length of a prefix");
                    continue;
                }
            },
        };
        let prefix = range.prefix();
        if prefix > node {
            let expected = format!("a range with room for a node's /{node} (controllerManager's {flag})");
            check.wrong(PODS, &range.to_string(), &expected);
        } else if node - prefix > MOST_NODE_BITS {
            let expected = format!(
                "a range of /{} or smaller: a node's /{node} may be at most {MOST_NODE_BITS} bits longer (controllerManager's {flag})",
                node - MOST_NODE_BITS
            );
            check.wrong(PODS, &range.to_string(), &expected);
        }
    }
}

/// Pods and Services must be told apart by their addresses, and each cluster needs the same families of both.
fn overlap(check: &mut Check<'_>) {
    let ranges = |path: &str| check.layers.text(path).and_then(subnets).unwrap_or_default();
    let (services, pods) = (ranges(SERVICES), ranges(PODS));
    for service in &services {
        if let Some(pod) = pods.iter().find(|pod| pod.contains(service.ip()) || service.contains(pod.ip())) {
            check.wrong(PODS, &pod.to_string(), &format!("a range that does not overlap serviceSubnet {service}"));
        }
        if !pods.is_empty() && !pods.iter().any(|pod| pod.is_ipv4() == service.is_ipv4()) {
            let expected = format!("a range of the family of serviceSubnet {service}, too");
            check.wrong(PODS, check.layers.text(PODS).unwrap_or_default(), &expected);
        }
    }
}

fn few(check: &mut Check<'_>, path: &str, range: IpNetwork, least: u128) {
    let host_bits = u32::from(width(range) - range.prefix());
    let size = 1_u128.checked_shl(host_bits).unwrap_or(u128::MAX);
    if size < least {
        check.wrong(path, &range.to_string(), &format!("at least {least} addresses; this range has {size}"));
    }
}

fn width(range: IpNetwork) -> u8 {
    if range.is_ipv4() { 32 } else { 128 }
}

/// The last value of a flag of kube-controller-manager's.
fn controller_flag(check: &Check<'_>, name: &str) -> Option<String> {
    let flags = list(check.layers, "ClusterConfiguration.controllerManager.extraArgs");
    let flag = flags.iter().rev().find(|flag| flag.get("name").is_some_and(|given| given == name))?;
    flag.get("value").and_then(Value::as_str).map(str::to_owned)
}

fn etcd(check: &mut Check<'_>) {
    let path = |field: &str| format!("ClusterConfiguration.etcd.{field}");
    let layers = check.layers;
    if layers.get(&path("external")).is_none() {
        return check.absolute(&path("local.dataDir"));
    }
    let external = |field: &str| path(&format!("external.{field}"));
    if layers.get(&path("local")).is_some() {
        let message = "etcd has both local and external; expected one of them".to_owned();
        check.say(Weight::Wrong, &external("endpoints"), message);
    }
    let has = |field: &str| layers.text(&external(field)).is_some();
    if has("certFile") != has("keyFile") || (has("certFile") && !has("caFile")) {
        let message =
            "etcd.external has only a part of caFile, certFile and keyFile; expected all of them, caFile, or none";
        check.say(Weight::Wrong, &external("certFile"), message.to_owned());
    }
    if list(layers, &external("endpoints")).is_empty() {
        check.say(
            Weight::Wrong,
            &path("external"),
            "etcd.external.endpoints is empty; expected one URL at least".to_owned(),
        );
    }
    let secured = has("caFile") || has("certFile") || has("keyFile");
    let https = |text: &str| text.starts_with("https://");
    let url = |text: &str| https(text) || text.starts_with("http://");
    match secured {
        true => check.texts(&external("endpoints"), https, "an https:// URL, since there are certificates"),
        false => check.texts(&external("endpoints"), url, "an https:// or http:// URL"),
    }
    check.texts(&external("httpEndpoints"), url, "an https:// or http:// URL");
    ["caFile", "certFile", "keyFile"].iter().for_each(|field| check.absolute(&external(field)));
}

fn gates(check: &mut Check<'_>) {
    let path = "ClusterConfiguration.featureGates";
    let Some(Value::Object(gates)) = check.layers.get(path) else { return };
    for name in gates.keys() {
        if GATES.contains(&name.as_str()) {
            check.say(Weight::Note, path, format!("featureGates.{name} is kubeadm's, and changes nothing here"));
        } else {
            check.wrong(path, name, &format!("kubeadm {}'s gates: {}", versions::KUBERNETES, GATES.join(", ")));
        }
    }
}

/// Longer than usual is allowed, and worth a word; shorter than an hour would be over before anybody joins.
fn validity(check: &mut Check<'_>, path: &str, usual: &str) {
    let Some(text) = check.layers.text(path).map(str::to_owned) else { return };
    let Some(given) = duration::parse(&text) else { return check.wrong(path, &text, duration::EXPECTED) };
    if given.as_secs() < 3_600 {
        check.wrong(path, &text, "an hour at least");
    } else if duration::parse(usual).is_some_and(|usual| given > usual) {
        let message = format!("{} is {text}, longer than the usual {usual}", super::field(path));
        check.say(Weight::Note, path, message);
    }
}
