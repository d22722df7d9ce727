//! `discovery.k8s.io/v1` EndpointSlice.

use std::net::IpAddr;
use std::sync::Arc;

use super::Parsed;
use super::address::{address, is_link_local, is_usable};
use super::fault::{Examined, ParseError, read};
use super::raw::{Endpoint, Hint, Metadata, Port, RawSlice, Text};
use super::time::rfc3339;
use crate::cluster::Family;
use crate::cluster::services::{EndpointSlice, Interner, ObjectName, SliceEndpoint, SlicePort};

/// Most endpoints that the API lets a slice have.
pub const MAX_ENDPOINTS: usize = 1000;

/// Reads an EndpointSlice. `key` is its name if the source knows it; else its metadata must tell.
///
/// # Errors
/// JSON that is none of an EndpointSlice, an unknown address type or protocol, a port out of range, or more endpoints than
/// a slice may have. An endpoint with a bad address costs only itself.
pub fn slice(
    json: &[u8],
    key: Option<&ObjectName>,
    strings: &mut Interner,
) -> Result<Parsed<EndpointSlice>, ParseError> {
    let raw: RawSlice<'_> = read("EndpointSlice", json, key)?;
    let metadata = raw.metadata.unwrap_or_default();
    let mut object = Examined::new("EndpointSlice", raw.kind.as_ref(), &metadata, key, strings)?;
    let address_type = raw.address_type.as_deref().unwrap_or_default();
    let owner = owner(&metadata).filter(|_| address_type != "FQDN");
    let Some(owner) = owner else {
        return Ok(Parsed { name: object.name, object: None, warnings: object.warnings });
    };
    let service = ObjectName { namespace: Arc::clone(&object.name.namespace), name: strings.get(owner) };
    let family = object.family("addressType", address_type)?;
    let listed = raw.endpoints.as_deref().unwrap_or_default();
    if listed.len() > MAX_ENDPOINTS {
        return Err(object.field("endpoints", format_args!("a list of {}", listed.len()), "1000 at most"));
    }
    let ports = ports(&mut object, raw.ports.as_deref().unwrap_or_default(), strings)?;
    let mut endpoints = Vec::with_capacity(listed.len());
    for (i, raw) in listed.iter().enumerate() {
        endpoints.extend(endpoint(&mut object, family, i, raw, strings));
    }
    let triggered = metadata.annotations.as_ref().and_then(|annotations| rfc3339(annotations.triggered.as_deref()?));
    let slice = EndpointSlice { name: object.name.clone(), service, family, ports, endpoints, triggered };
    Ok(Parsed { name: object.name, object: Some(slice), warnings: object.warnings })
}

/// The Service that a slice belongs to, unless that is headless.
fn owner<'a>(metadata: &'a Metadata<'_>) -> Option<&'a str> {
    let labels = metadata.labels.as_ref().filter(|labels| labels.headless.is_none())?;
    labels.service_name.as_deref().filter(|name| !name.is_empty())
}

/// The ports. One without a number stands for all ports, which no Service port can mean; one without a name (the API
/// gives each one, if only an empty one) cannot be told which Service port it is of.
fn ports(object: &mut Examined, listed: &[Port<'_>], strings: &mut Interner) -> Result<Vec<SlicePort>, ParseError> {
    let mut out = Vec::with_capacity(listed.len());
    for (i, raw) in listed.iter().enumerate() {
        let field = format_args!("ports[{i}]");
        let Some(number) = raw.port.filter(|number| *number != 0) else { continue };
        let Some(name) = raw.name.as_deref() else {
            object.warnings.push(format!(
                "EndpointSlice {}: {field}.name is missing; expected a name, empty if the Service's port has none; left out",
                object.name
            ));
            continue;
        };
        let protocol = object.protocol(field, raw)?;
        let port = object.port(format_args!("{field}.port"), number)?;
        out.push(SlicePort { name: strings.get(name), protocol, port });
    }
    Ok(out)
}

fn endpoint(
    object: &mut Examined,
    family: Family,
    index: usize,
    raw: &Endpoint<'_>,
    strings: &mut Interner,
) -> Option<SliceEndpoint> {
    let text = raw.addresses.as_deref().unwrap_or_default().first().map_or("", |text| text);
    // As the API's own validation, which objects from elsewhere have not passed.
    let fits = |address: &IpAddr| Family::of(*address) == family && is_usable(*address) && !is_link_local(*address);
    let Some(address) = address(text).filter(fits) else {
        object.left_out(format_args!("endpoints[{index}].addresses[0]"), text, &format!("an {family} address"));
        return None;
    };
    let conditions = raw.conditions.as_ref();
    Some(SliceEndpoint {
        address,
        ready: conditions.and_then(|all| all.ready).unwrap_or(true),
        serving: conditions.and_then(|all| all.serving).unwrap_or(true),
        terminating: conditions.and_then(|all| all.terminating).unwrap_or(false),
        node: raw.node_name.as_deref().filter(|name| !name.is_empty()).map(|name| strings.get(name)),
        zone_hints: names(raw.hints.as_ref().and_then(|hints| hints.for_zones.as_deref()), strings),
        node_hints: names(raw.hints.as_ref().and_then(|hints| hints.for_nodes.as_deref()), strings),
    })
}

fn names(hints: Option<&[Hint<'_>]>, strings: &mut Interner) -> Box<[Arc<str>]> {
    let name = |hint: &Hint<'_>| hint.name.as_ref().map(|name: &Text<'_>| strings.get(name));
    hints.unwrap_or_default().iter().filter_map(name).collect()
}
