use super::*;
use crate::cluster::lease_value::BackendData;

const V4: PerFamily<()> = PerFamily { v4: Some(()), v6: None };
const BOTH: PerFamily<()> = PerFamily { v4: Some(()), v6: Some(()) };

fn parsed(json: &str, families: &PerFamily<()>) -> KubeNode {
    KubeNode::parse(json.as_bytes(), &"flannel.alpha.coreos.com".parse().unwrap(), families).unwrap()
}

/// A Node with flannel's annotations; `more` are others, or other values of those.
fn node(spec: &str, more: &[(&str, &str)]) -> String {
    let mut annotations = serde_json::json!({
        "flannel.alpha.coreos.com/kube-subnet-manager": "true",
        "flannel.alpha.coreos.com/backend-type": "vxlan",
        "flannel.alpha.coreos.com/backend-data": r#"{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}"#,
        "flannel.alpha.coreos.com/public-ip": "192.0.2.1",
        "node.alpha.kubernetes.io/ttl": "0"
    });
    for (suffix, value) in more {
        annotations[format!("flannel.alpha.coreos.com/{suffix}")] = (*value).into();
    }
    format!(
        r#"{{"metadata": {{"name": "n1", "creationTimestamp": "2026-01-31T12:00:00Z", "annotations": {annotations}}},
            "spec": {spec}, "status": {{"conditions": [{{"type": "Ready", "status": "True"}},
            {{"type": "NetworkUnavailable", "status": "False", "reason": "FlannelIsUp"}}], "images": [{{"names": ["x"]}}]}}}}"#
    )
}

#[test]
fn h87_what_flannel_writes_is_a_lease() {
    let spec = r#"{"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00:1::/64"]}"#;
    let node_v4 = parsed(&node(spec, &[]), &V4);
    assert_eq!(node_v4.condition, Some(("False".to_owned(), "FlannelIsUp".to_owned())));
    let lease = node_v4.lease().unwrap().unwrap();
    assert_eq!(lease.key, "10.244.1.0-24".parse().unwrap());
    assert_eq!(lease.node.unwrap().as_str(), "n1");
    assert_eq!(lease.create_revision, 1_769_860_800);
    assert_eq!(lease.backend.kind, "vxlan");
    assert_eq!(lease.backend.data.v4.unwrap().value()["VtepMAC"], "c6:d2:32:6f:8f:44");

    let v6 = [("backend-v6-data", r#"{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:45"}"#), ("public-ipv6", "2001:db8::1")];
    let lease = parsed(&node(spec, &v6), &BOTH).lease().unwrap().unwrap();
    assert_eq!(lease.key, "10.244.1.0-24&fd00:1::-64".parse().unwrap());
    assert_eq!(lease.public_ips.v6, Some("2001:db8::1".parse().unwrap()));
}

#[test]
fn a_peer_has_the_families_that_it_speaks() {
    let both = r#"{"podCIDRs": ["10.244.1.0/24", "fd00:1::/64"]}"#;
    let first = r#"{"podCIDRs": ["10.244.1.0/24"]}"#;
    for spec in [both, first] {
        let lease = parsed(&node(spec, &[]), &BOTH).lease().unwrap().unwrap();
        assert_eq!(lease.key, "10.244.1.0-24".parse().unwrap(), "{spec}");
    }
    // Half of what a family needs is a fault, and is said.
    let rejected = parsed(&node(both, &[("public-ipv6", "2001:db8::1")]), &BOTH).lease().unwrap().unwrap_err();
    assert!(rejected.reason.contains("no back-end data"), "{}", rejected.reason);
}

#[test]
fn h87_another_back_end_is_known_by_its_name() {
    let spec = r#"{"podCIDR": "10.244.1.0/24"}"#;
    let lease = parsed(&node(spec, &[("backend-type", "host-gw"), ("backend-data", "null")]), &V4).lease();
    let expected = BackendData { kind: "host-gw".to_owned(), data: PerFamily::default() };
    assert_eq!(lease.unwrap().unwrap().backend, expected);
}

#[test]
fn h89_a_node_that_takes_no_part_is_none() {
    let spec = r#"{"podCIDR": "10.244.1.0/24"}"#;
    for text in ["false", "True", ""] {
        assert!(parsed(&node(spec, &[("kube-subnet-manager", text)]), &V4).lease().is_none(), "{text}");
    }
    assert!(parsed(r#"{"metadata": {"name": "n1"}, "spec": {}}"#, &V4).lease().is_none());
}

#[test]
fn bad_annotations_name_themselves() {
    let spec = r#"{"podCIDRs": ["10.244.1.0/24"]}"#;
    for (suffix, value) in [
        ("backend-data", "notjson"),
        ("backend-data", r#"{"VNI":1,"VtepMAC":"hi"}"#),
        ("backend-v6-data", "[]"),
        ("public-ip", "224.0.0.1"),
        ("public-ipv6", "192.0.2.1"),
    ] {
        let rejected = parsed(&node(spec, &[(suffix, value)]), &V4).lease().unwrap().unwrap_err();
        assert_eq!(rejected.key, "node n1");
        assert!(rejected.reason.starts_with(&format!("annotation {suffix}")), "{}", rejected.reason);
    }
    let rejected = parsed(&node(spec, &[("backend-data", "null")]), &V4).lease().unwrap().unwrap_err();
    assert!(rejected.reason.contains("no back-end data"), "{}", rejected.reason);
}

#[test]
fn missing_and_odd_pod_networks_are_explained() {
    for (spec, families, reason) in [
        ("{}", V4, "has no pod network in spec.podCIDRs yet"),
        (r#"{"podCIDR": null, "podCIDRs": null}"#, V4, "has no pod network in spec.podCIDRs yet"),
        (r#"{"podCIDRs": ["10.244.1.0/24"]}"#, PerFamily { v4: None, v6: Some(()) }, "has no pod network"),
        (r#"{"podCIDRs": ["10.244.1.0"]}"#, V4, r#"spec.podCIDRs has "10.244.1.0""#),
        (r#"{"podCIDRs": ["10.244.1.0/32"]}"#, V4, "no networks for pods"),
    ] {
        let said = parsed(&node(spec, &[]), &families).subnets.unwrap_err();
        assert!(said.contains(reason), "{spec}: {said}");
    }
}

#[test]
fn only_addresses_of_their_family_are_published_instead() {
    let more = [("public-ip-overwrite", "203.0.113.7"), ("public-ipv6-overwrite", "203.0.113.7")];
    let overwrites = parsed(&node("{}", &more), &V4).overwrites();
    assert_eq!(overwrites, PerFamily { v4: Some("203.0.113.7".parse().unwrap()), v6: None });
}
