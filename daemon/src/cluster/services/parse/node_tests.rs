//! What of a Node's JSON becomes of it.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{ParseError, Parsed, node};
use crate::cluster::services::{Interner, NodeObject, ObjectName};

fn read(object: &Value) -> Result<Parsed<NodeObject>, ParseError> {
    node(object.to_string().as_bytes(), Some(&ObjectName::new("", "n1")), &mut Interner::default())
}

fn ours(object: &Value) -> NodeObject {
    let parsed = read(object).unwrap();
    assert_eq!((parsed.name.to_string().as_str(), parsed.warnings), ("n1", Vec::new()));
    parsed.object.unwrap()
}

#[test]
fn a_whole_node_of_the_api() {
    let object = json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "n1", "uid": "1", "creationTimestamp": "2026-01-01T00:00:00Z", "annotations": {"a": "b"},
            "labels": {"kubernetes.io/hostname": "n1", "topology.kubernetes.io/region": "r",
                "topology.kubernetes.io/zone": "a"}},
        "spec": {"podCIDRs": ["10.244.1.0/24"], "unschedulable": true,
            "taints": [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule", "timeAdded": null}]},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}});
    assert_eq!(ours(&object), NodeObject { zone: Some("a".into()), is_leaving: false });
    let by_itself = node(object.to_string().as_bytes(), None, &mut Interner::default()).unwrap();
    assert_eq!(by_itself.name, ObjectName::new("", "n1"));
}

#[test]
fn t53_a_node_may_have_no_zone() {
    for labels in [json!(null), json!({}), json!({"topology.kubernetes.io/zone": ""})] {
        assert_eq!(ours(&json!({"metadata": {"name": "n1", "labels": labels}})), NodeObject::default());
    }
    assert_eq!(ours(&json!({"metadata": null, "spec": {"taints": null}})), NodeObject::default());
}

#[test]
fn t81_the_autoscalers_taint_and_a_time_of_deletion_say_that_it_leaves() {
    for effect in [json!("NoSchedule"), json!("PreferNoSchedule"), json!(null)] {
        let taints = json!([{"key": null}, {"key": "ToBeDeletedByClusterAutoscaler", "value": "1", "effect": effect}]);
        assert!(ours(&json!({"spec": {"taints": taints}})).is_leaving, "{taints}");
    }
    assert!(ours(&json!({"metadata": {"deletionTimestamp": "2026-01-31T12:00:00Z"}})).is_leaving);
    let others = json!([{"key": "DeletionCandidateOfClusterAutoscaler"}, {"key": "node.kubernetes.io/not-ready"}, {}]);
    assert!(!ours(&json!({"metadata": {"deletionTimestamp": null}, "spec": {"taints": others}})).is_leaving);
}

#[test]
fn a_bad_time_of_deletion_costs_only_itself() {
    let metadata = json!({"deletionTimestamp": "soon", "labels": {"topology.kubernetes.io/zone": "a"}});
    let parsed = read(&json!({"metadata": metadata})).unwrap();
    assert_eq!(parsed.object.unwrap(), NodeObject { zone: Some("a".into()), is_leaving: false });
    let said =
        r#"Node n1: metadata.deletionTimestamp is "soon"; expected a time such as 2026-01-31T12:00:00Z; left out"#;
    assert_eq!(parsed.warnings, [said]);
}

#[test]
fn what_cannot_be_is_named() {
    for (object, named) in [
        (json!({"kind": "Service"}), r#"Node n1: kind is "Service"; expected Node"#),
        (json!({"metadata": {"name": "n2"}}), r#"Node n1: metadata.name is "n2"; expected the name in the key"#),
        (json!({"metadata": {"labels": {"topology.kubernetes.io/zone": 1}}}), "expected a string"),
        (json!({"spec": {"taints": {}}}), r#"Node n1 is not readable at "taints""#),
        (json!([]), "Node n1 is not readable: it is a list, expected an object"),
    ] {
        let text = read(&object).unwrap_err().to_string();
        assert!(text.contains(named), "{text}");
    }
    let nameless = node(b"{}", None, &mut Interner::default()).unwrap_err().to_string();
    assert!(nameless.ends_with(r#"metadata.name is ""; expected a name"#), "{nameless}");
}

proptest! {
    #[test]
    fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..200) {
        let whole = r#"{"kind":"Node","metadata":{"name":"n1","deletionTimestamp":"2026-01-31T12:00:00Z",
            "labels":{"topology.kubernetes.io/zone":"\"é\""}},"spec":{"taints":[{"key":"x"}]}}"#;
        let mut garbled = whole.as_bytes()[..cut.min(whole.len())].to_vec();
        garbled.extend(&bytes);
        for json in [bytes, garbled] {
            let _ = node(&json, None, &mut Interner::default());
        }
    }
}
