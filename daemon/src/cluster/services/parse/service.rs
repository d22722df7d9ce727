//! `v1.Service`.

use std::net::IpAddr;
use std::time::Duration;

use ipnetwork::IpNetwork;

use super::Parsed;
use super::address::{address, is_link_local, is_usable, network};
use super::fault::{Examined, ParseError, read};
use super::raw::{AffinityConfig, Metadata, RawService, Spec, Status, Text};
use crate::cluster::services::{Interner, ObjectName, Service, ServicePort, TrafficPolicy};
use crate::cluster::{Family, PerFamily};

/// How long a client stays with its backend, in seconds, if the Service does not say (the API's default).
const DEFAULT_AFFINITY: i64 = 10_800;

/// Longest time that the API allows, in seconds.
const MAX_AFFINITY: u64 = 86_400;

/// Reads a Service. `key` is its name if the source knows it; else its metadata must tell.
///
/// # Errors
/// JSON that is none of a Service, or a field without which nothing right can be done: cluster IPs, ports, policies,
/// affinity.
pub fn service(json: &[u8], key: Option<&ObjectName>, strings: &mut Interner) -> Result<Parsed<Service>, ParseError> {
    let RawService { kind, metadata, spec, status } = read("Service", json, key)?;
    let (metadata, spec) = (metadata.unwrap_or_default(), spec.unwrap_or_default());
    let mut object = Examined::new("Service", kind.as_ref(), &metadata, key, strings)?;
    let ours = if is_ours(&metadata, &spec) {
        Some(convert(&mut object, &metadata, &spec, &status.unwrap_or_default(), strings)?)
    } else {
        None
    };
    Ok(Parsed { name: object.name, object: ours, warnings: object.warnings })
}

/// Whether a Service has cluster IPs, and nobody else is asked to serve it.
fn is_ours(metadata: &Metadata<'_>, spec: &Spec<'_>) -> bool {
    let is_elsewhere = metadata.labels.as_ref().is_some_and(|labels| labels.proxy_name.is_some());
    let is_external_name = spec.kind.as_deref() == Some("ExternalName");
    let has_address = listed_ips(spec).next().is_some_and(|text| !text.is_empty() && text != "None");
    !is_elsewhere && !is_external_name && has_address
}

/// The cluster IPs: `clusterIPs`, or of an object from before it, `clusterIP`.
fn listed_ips<'a>(spec: &'a Spec<'_>) -> impl Iterator<Item = &'a str> {
    let list = spec.cluster_ips.as_deref().unwrap_or_default();
    let legacy = spec.cluster_ip.as_deref().filter(|_| list.is_empty());
    list.iter().map(|text| &**text).chain(legacy)
}

fn convert(
    object: &mut Examined,
    metadata: &Metadata<'_>,
    spec: &Spec<'_>,
    status: &Status<'_>,
    strings: &mut Interner,
) -> Result<Service, ParseError> {
    let cluster_ips = cluster_ips(object, spec)?;
    let ports = ports(object, spec, strings)?;
    let external_ips = external_ips(object, spec);
    let mut load_balancer_ips = load_balancer_ips(object, status);
    let source_ranges = match source_ranges(object, spec) {
        Some(ranges) => ranges,
        None => {
            load_balancer_ips.clear();
            Vec::new()
        }
    };
    let internal = policy(object, "spec.internalTrafficPolicy", spec.internal_traffic_policy.as_ref())?;
    let external = policy(object, "spec.externalTrafficPolicy", spec.external_traffic_policy.as_ref())?;
    Ok(Service {
        name: object.name.clone(),
        created: metadata.creation_timestamp.as_deref().unwrap_or_default().into(),
        cluster_ips,
        ports,
        external_ips,
        load_balancer_ips,
        source_ranges,
        internal,
        external,
        health_check_node_port: health_check_node_port(object, spec, external)?,
        affinity: affinity(object, spec)?,
        scheduler: scheduler(metadata),
    })
}

fn cluster_ips(object: &Examined, spec: &Spec<'_>) -> Result<PerFamily<IpAddr>, ParseError> {
    let mut out = PerFamily::default();
    let families = spec.ip_families.as_deref().unwrap_or_default();
    let is_legacy = spec.cluster_ips.as_deref().unwrap_or_default().is_empty();
    for (i, text) in listed_ips(spec).enumerate() {
        let field = || if is_legacy { "spec.clusterIP".to_owned() } else { format!("spec.clusterIPs[{i}]") };
        let address = address(text).ok_or_else(|| object.text(field(), text, "an IP address"))?;
        let family = Family::of(address);
        if let Some(said) = families.get(i) {
            let said = object.family(format_args!("spec.ipFamilies[{i}]"), said)?;
            if said != family {
                return Err(object.text(field(), text, &format!("an {said} address, as spec.ipFamilies[{i}] says")));
            }
        }
        if !is_usable(address) {
            return Err(object.text(field(), text, "an address that a Service can have"));
        }
        if out.get(family).is_some() {
            return Err(object.text(field(), text, &format!("one {family} address at most")));
        }
        out.set(family, Some(address));
    }
    Ok(out)
}

fn ports(object: &Examined, spec: &Spec<'_>, strings: &mut Interner) -> Result<Vec<ServicePort>, ParseError> {
    let listed = spec.ports.as_deref().unwrap_or_default();
    let mut out: Vec<ServicePort> = Vec::with_capacity(listed.len());
    for (i, raw) in listed.iter().enumerate() {
        let field = format_args!("spec.ports[{i}]");
        let protocol = object.protocol(field, raw)?;
        let port = object.port(format_args!("{field}.port"), raw.port.unwrap_or_default())?;
        let node_port = match raw.node_port.unwrap_or_default() {
            0 => None,
            number => Some(object.port(format_args!("{field}.nodePort"), number)?),
        };
        let name = raw.name.as_deref().unwrap_or_default();
        if out.iter().any(|other| &*other.name == name && other.protocol == protocol) {
            return Err(object.text(format_args!("{field}.name"), name, "a name that no other port has"));
        }
        out.push(ServicePort { name: strings.get(name), protocol, port, node_port });
    }
    Ok(out)
}

fn external_ips(object: &mut Examined, spec: &Spec<'_>) -> Vec<IpAddr> {
    let mut out = Vec::new();
    for (i, text) in spec.external_ips.as_deref().unwrap_or_default().iter().enumerate() {
        match address(text).filter(|address| is_usable(*address) && !is_link_local(*address)) {
            Some(address) => out.push(address),
            None => object.left_out(format_args!("spec.externalIPs[{i}]"), text, "an IP address that others can reach"),
        }
    }
    out
}

/// The load balancer's addresses; not those (`ipMode: Proxy`) whose traffic has to pass through the load balancer itself.
fn load_balancer_ips(object: &mut Examined, status: &Status<'_>) -> Vec<IpAddr> {
    let mut out = Vec::new();
    let ingress = status.load_balancer.as_ref().and_then(|balancer| balancer.ingress.as_deref()).unwrap_or_default();
    for (i, entry) in ingress.iter().enumerate() {
        let Some(text) = entry.ip.as_ref().filter(|text| !text.is_empty()) else { continue };
        if !matches!(entry.ip_mode.as_deref(), None | Some("VIP")) {
            continue;
        }
        match address(text).filter(|address| is_usable(*address)) {
            Some(address) => out.push(address),
            None => {
                let field = format!("status.loadBalancer.ingress[{i}].ip");
                object.left_out(field, text, "an IP address that others can reach");
            }
        }
    }
    out
}

/// The networks that may use the load balancer's addresses; `None` if all that are listed are unreadable: whoever wrote
/// them wanted a limit, so that leaving them out must not open the addresses to everybody.
fn source_ranges(object: &mut Examined, spec: &Spec<'_>) -> Option<Vec<IpNetwork>> {
    let listed = spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
    let mut out = Vec::new();
    for (i, text) in listed.iter().enumerate() {
        match network(text.trim()) {
            Some(network) => out.push(network),
            None => {
                let field = format!("spec.loadBalancerSourceRanges[{i}]");
                object.left_out(field, text, "a network such as 10.0.0.0/8");
            }
        }
    }
    if out.is_empty() && !listed.is_empty() {
        let what = "no entry of spec.loadBalancerSourceRanges is a network; load balancer addresses are not served";
        object.warnings.push(format!("Service {}: {what}", object.name));
        return None;
    }
    Some(out)
}

fn policy(object: &Examined, field: &str, text: Option<&Text<'_>>) -> Result<TrafficPolicy, ParseError> {
    match text.map(|text| &**text) {
        None | Some("" | "Cluster") => Ok(TrafficPolicy::Cluster),
        Some("Local") => Ok(TrafficPolicy::Local),
        Some(other) => Err(object.text(field, other, "Cluster or Local")),
    }
}

fn health_check_node_port(
    object: &Examined,
    spec: &Spec<'_>,
    external: TrafficPolicy,
) -> Result<Option<u16>, ParseError> {
    let is_checked = spec.kind.as_deref() == Some("LoadBalancer") && external == TrafficPolicy::Local;
    match spec.health_check_node_port.filter(|port| is_checked && *port != 0) {
        None => Ok(None),
        Some(port) => object.port("spec.healthCheckNodePort", port).map(Some),
    }
}

fn affinity(object: &Examined, spec: &Spec<'_>) -> Result<Option<Duration>, ParseError> {
    match spec.session_affinity.as_deref() {
        None | Some("" | "None") => return Ok(None),
        Some("ClientIP") => {}
        Some(other) => return Err(object.text("spec.sessionAffinity", other, "None or ClientIP")),
    }
    let config: Option<&AffinityConfig> = spec.session_affinity_config.as_ref();
    let said = config.and_then(|config| config.client_ip.as_ref()).and_then(|client| client.timeout_seconds);
    let seconds = said.unwrap_or(DEFAULT_AFFINITY);
    match u64::try_from(seconds).ok().filter(|seconds| (1..=MAX_AFFINITY).contains(seconds)) {
        Some(seconds) => Ok(Some(Duration::from_secs(seconds))),
        None => {
            Err(object.field("spec.sessionAffinityConfig.clientIP.timeoutSeconds", seconds, "1 to 86400 (seconds)"))
        }
    }
}

/// weft's annotation, or kube-router's, so that its users need not rewrite their Services.
fn scheduler(metadata: &Metadata<'_>) -> Option<Box<str>> {
    let annotations = metadata.annotations.as_ref()?;
    let given = annotations.scheduler.as_deref().or(annotations.kube_router_scheduler.as_deref());
    given.map(str::trim).filter(|text| !text.is_empty()).map(Into::into)
}
