//! What of an EndpointSlice's JSON becomes of it.

use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{ParseError, Parsed, service, slice};
use crate::cluster::Family;
use crate::cluster::services::{EndpointSlice, Interner, ObjectName, Protocol};

/// Reads a slice `default/web-1` of the Service `web` with these members.
fn web(members: Value) -> Result<Parsed<EndpointSlice>, ParseError> {
    let labels = json!({"kubernetes.io/service-name": "web"});
    let mut all = json!({"metadata": {"namespace": "default", "name": "web-1", "labels": labels},
        "addressType": "IPv4", "ports": [{"name": "", "port": 80}], "endpoints": [{"addresses": ["10.180.0.1"]}]});
    let Value::Object(members) = members else { panic!("{members}") };
    all.as_object_mut().unwrap().extend(members);
    slice(all.to_string().as_bytes(), None, &mut Interner::default())
}

fn ours(members: Value) -> EndpointSlice {
    let parsed = web(members).unwrap();
    assert_eq!(parsed.warnings, Vec::<String>::new());
    parsed.object.unwrap()
}

#[test]
fn a_whole_slice_of_the_api() {
    let metadata = json!({"namespace": "default", "name": "web-1",
        "labels": {"kubernetes.io/service-name": "web", "endpointslice.kubernetes.io/managed-by": "x"},
        "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "1970-01-01T00:00:10Z"}});
    let slice = ours(json!({"metadata": metadata, "kind": "EndpointSlice",
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080, "appProtocol": null}],
        "endpoints": [
            {"addresses": ["10.180.0.1", "10.180.0.2"], "nodeName": "n1", "zone": "a",
                "conditions": {"ready": false, "serving": true, "terminating": true},
                "hints": {"forZones": [{"name": "a"}, {"name": "b"}], "forNodes": [{"name": "n1"}]}},
            {"addresses": ["10.180.0.3"], "conditions": {"ready": null}, "nodeName": null, "hints": {"forZones": null}}]}));
    assert_eq!(slice.service, ObjectName::new("default", "web"));
    assert_eq!(slice.family, Family::V4);
    assert_eq!(slice.triggered, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(10)));
    assert_eq!((&*slice.ports[0].name, slice.ports[0].protocol, slice.ports[0].port), ("http", Protocol::Tcp, 8080));
    let [first, second] = slice.endpoints.as_slice() else { panic!("{:?}", slice.endpoints) };
    assert_eq!(first.address.to_string(), "10.180.0.1");
    assert_eq!((first.ready, first.serving, first.terminating), (false, true, true));
    assert_eq!(first.node.as_deref(), Some("n1"));
    assert_eq!((&*first.zone_hints, &*first.node_hints), (&["a".into(), "b".into()][..], &["n1".into()][..]));
    assert_eq!((second.ready, second.serving, second.terminating, &second.node), (true, true, false, &None));
    assert!(second.zone_hints.is_empty() && second.node_hints.is_empty());
}

#[test]
fn lists_may_be_null() {
    let slice = ours(json!({"ports": null, "endpoints": null}));
    assert!(slice.ports.is_empty() && slice.endpoints.is_empty());
}

#[test]
fn t14_names_instead_of_addresses_are_not_ours() {
    let parsed = web(json!({"addressType": "FQDN", "endpoints": [{"addresses": ["web.example.org"]}]})).unwrap();
    assert_eq!((parsed.object, parsed.warnings.len()), (None, 0));
}

#[test]
fn t18_a_slice_of_no_service_or_of_a_headless_one_is_not_ours() {
    let headless = json!({"kubernetes.io/service-name": "web", "service.kubernetes.io/headless": ""});
    for labels in [json!(null), json!({}), json!({"kubernetes.io/service-name": ""}), headless] {
        let parsed = web(json!({"metadata": {"namespace": "default", "name": "web-1", "labels": labels}})).unwrap();
        assert_eq!((parsed.object, parsed.warnings.len()), (None, 0));
    }
}

#[test]
fn t15_ports_without_name_or_number_are_ignored_and_the_others_work() {
    let ports = json!([{"port": 1}, {"name": null, "port": 2}, {"name": "a"}, {"name": "b", "port": null},
        {"name": "c", "port": 0}, {"name": "d", "port": 4, "protocol": "UDP"}]);
    let parsed = web(json!({"ports": ports})).unwrap();
    assert_eq!(parsed.warnings.len(), 2);
    assert!(parsed.warnings[0].starts_with("EndpointSlice default/web-1: ports[0].name is missing"));
    let slice = parsed.object.unwrap();
    assert_eq!(slice.ports.len(), 1);
    assert_eq!((&*slice.ports[0].name, slice.ports[0].protocol, slice.ports[0].port), ("d", Protocol::Udp, 4));
}

#[test]
fn a_bad_endpoint_costs_only_itself() {
    let listed = ["10.180.0.1", "fd00::1", "web", "0.0.0.0", "10.180.0.5"];
    let mut endpoints: Vec<Value> = listed.iter().map(|text| json!({"addresses": [text]})).collect();
    endpoints.push(json!({"addresses": null}));
    let parsed = web(json!({"endpoints": endpoints})).unwrap();
    let kept: Vec<String> = parsed.object.unwrap().endpoints.iter().map(|e| e.address.to_string()).collect();
    assert_eq!(kept, ["10.180.0.1", "10.180.0.5"]);
    assert_eq!(parsed.warnings.len(), 4);
    assert_eq!(
        parsed.warnings[0],
        r#"EndpointSlice default/web-1: endpoints[1].addresses[0] is "fd00::1"; expected an IPv4 address; left out"#
    );
}

#[test]
fn t105_leading_zeros_of_an_endpoint() {
    let slice = ours(json!({"endpoints": [{"addresses": ["010.180.00.001"]}]}));
    assert_eq!(slice.endpoints[0].address.to_string(), "10.180.0.1");
}

#[test]
fn more_endpoints_than_the_api_allows_are_refused() {
    let endpoints = |n| vec![json!({"addresses": ["10.180.0.1"]}); n];
    assert_eq!(ours(json!({"endpoints": endpoints(1000)})).endpoints.len(), 1000);
    assert_eq!(
        web(json!({"endpoints": endpoints(10_000)})).unwrap_err().to_string(),
        "EndpointSlice default/web-1: endpoints is a list of 10000; expected 1000 at most"
    );
}

#[test]
fn what_cannot_be_is_named() {
    for (members, named) in [
        (json!({"addressType": "ipv4"}), r#"addressType is "ipv4"; expected IPv4 or IPv6"#),
        (json!({"addressType": null}), r#"addressType is ""; expected IPv4 or IPv6"#),
        (json!({"ports": [{"name": "", "port": 70000}]}), "ports[0].port is 70000; expected a port, 1 to 65535"),
        (json!({"ports": [{"name": "", "port": 80, "protocol": "x"}]}), r#"ports[0].protocol is "x""#),
        (json!({"kind": "Service"}), r#"kind is "Service"; expected EndpointSlice"#),
        (json!({"endpoints": {}}), "invalid type: map, expected a sequence"),
    ] {
        let text = web(members).unwrap_err().to_string();
        assert!(text.contains(named), "{text}");
    }
}

#[test]
fn texts_that_come_again_are_held_once() {
    let mut strings = Interner::default();
    let mut read = |name: &str| {
        let labels = json!({"kubernetes.io/service-name": "web"});
        let json = json!({"metadata": {"namespace": "default", "name": name, "labels": labels}, "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.180.0.1"], "nodeName": "n1"}]});
        slice(json.to_string().as_bytes(), None, &mut strings).unwrap().object.unwrap()
    };
    let (a, b) = (read("a"), read("b"));
    assert!(std::ptr::eq(a.endpoints[0].node.as_deref().unwrap(), b.endpoints[0].node.as_deref().unwrap()));
    assert!(std::ptr::eq(&*a.service.name, &*b.service.name));
}

proptest! {
    #[test]
    fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..400) {
        let key = ObjectName::new("a", "b");
        let mut strings = Interner::default();
        let whole = r#"{"metadata":{"name":"b","labels":{"kubernetes.io/service-name":"w"}},"spec":{"clusterIP":"10.0.0.1",
            "ports":[{"name":"\"é\"","port":80}]},"addressType":"IPv4","endpoints":[{"addresses":["10.0.0.2"]}]}"#;
        let mut garbled = whole.as_bytes()[..cut.min(whole.len())].to_vec();
        garbled.extend(&bytes);
        for json in [bytes, garbled] {
            let _ = service(&json, Some(&key), &mut strings);
            let _ = slice(&json, Some(&key), &mut strings);
        }
    }
}
