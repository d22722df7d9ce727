//! Writing to the own Node: patches of what weft owns there, and of nothing else.

use std::time::Duration;

use http::Method;
use serde_json::{Map, Value, json};

use super::annotations::{Annotations, Field};
use super::api::{Api, Write};
use super::node::{CONDITION, KubeNode};
use super::watch::encoded;
use crate::cluster::family::Family;
use crate::cluster::lease_value::LeaseValue;
use crate::cluster::node::NodeName;

/// Longest time that a patch may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// In whose name the API server records the fields.
const FIELD_MANAGER: &str = "weft";

/// What flannel gives as the reason, which others look for.
const REASON: &str = "FlannelIsUp";

/// A change of the own Node.
#[derive(Debug, Clone, PartialEq)]
pub struct Patch {
    content_type: &'static str,
    body: Value,
}

/// What has to change so that the Node's annotations say this; `None` if they do. A value without a back end has nothing to
/// say and leaves what is there.
#[must_use]
pub fn annotations(node: &KubeNode, value: &LeaseValue, names: &Annotations) -> Option<Patch> {
    if value.backend.is_none() {
        return None;
    }
    // As flannel has it, of a back end that has nothing to say of itself.
    let said = |family| {
        let data = value.backend.data.get(family).map(|data| data.as_str().to_owned());
        data.or_else(|| value.public_ips.get(family).map(|_| "null".to_owned()))
    };
    let wanted = [
        (Field::SubnetManager, Some("true".to_owned())),
        (Field::BackendType, Some(value.backend.kind.clone())),
        (Field::BackendData, said(Family::V4)),
        (Field::BackendV6Data, said(Family::V6)),
        (Field::PublicIp, value.public_ips.v4.map(|ip| ip.to_string())),
        (Field::PublicIpv6, value.public_ips.v6.map(|ip| ip.to_string())),
    ];
    let changed: Map<String, Value> = wanted
        .into_iter()
        .filter(|(field, text)| node.annotations.get(field) != text.as_ref())
        .map(|(field, text)| (names.name(field), text.map_or(Value::Null, Value::String)))
        .collect();
    (!changed.is_empty()).then(|| Patch {
        content_type: "application/merge-patch+json",
        body: json!({"metadata": {"annotations": changed}}),
    })
}

/// What has to change so that the Node's condition says that its network is there; `None` if it does. `now` is RFC 3339.
#[must_use]
pub fn condition(node: &KubeNode, now: &str) -> Option<Patch> {
    if node.condition.as_ref().is_some_and(|(status, _)| status == "False") {
        return None;
    }
    let condition = json!({
        "type": CONDITION,
        "status": "False",
        "reason": REASON,
        "message": "weft is running on this node",
        "lastTransitionTime": now,
        "lastHeartbeatTime": now,
    });
    // A list that is merged by `type`, which a plain merge patch would replace as a whole.
    Some(Patch {
        content_type: "application/strategic-merge-patch+json",
        body: json!({"status": {"conditions": [condition]}}),
    })
}

/// The time, for [`condition`].
#[must_use]
pub fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Where a Node is.
#[must_use]
pub fn node_path(node: &NodeName) -> String {
    format!("/api/v1/nodes/{}", encoded(node.as_str()))
}

/// Changes a Node, by its status subresource, which is all that the rules for weft's account need to allow.
///
/// # Errors
/// What the API server said, in words.
pub async fn apply(api: &Api, node: &NodeName, patch: &Patch) -> Result<(), String> {
    let write = Write {
        method: Method::PATCH,
        path: format!("{}/status?fieldManager={FIELD_MANAGER}", node_path(node)),
        content_type: patch.content_type,
        body: patch.body.clone(),
    };
    api.write("nodes/status", &write, TIMEOUT).await.map_err(|refusal| refusal.words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::family::PerFamily;
    use crate::cluster::lease_value::BackendData;
    use crate::overlay::backend::VxlanData;

    fn node(annotations: &[(Field, &str)], condition: Option<(&str, &str)>) -> KubeNode {
        KubeNode {
            name: "n1".parse().unwrap(),
            created: 0,
            subnets: Err("none".to_owned()),
            annotations: annotations.iter().map(|(field, text)| (*field, (*text).to_owned())).collect(),
            condition: condition.map(|(status, reason)| (status.to_owned(), reason.to_owned())),
        }
    }

    fn value() -> LeaseValue {
        let data = VxlanData { vni: Some(1), vtep_mac: "c6:d2:32:6f:8f:44".parse().unwrap() };
        LeaseValue {
            public_ips: PerFamily { v4: Some("192.0.2.1".parse().unwrap()), v6: None },
            backend: PerFamily { v4: Some(data), v6: None }.into(),
        }
    }

    const SAID: [(Field, &str); 4] = [
        (Field::SubnetManager, "true"),
        (Field::BackendType, "vxlan"),
        (Field::BackendData, r#"{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}"#),
        (Field::PublicIp, "192.0.2.1"),
    ];

    #[test]
    fn h87_only_own_annotations_that_differ_are_written() {
        let names: Annotations = "flannel.alpha.coreos.com".parse().unwrap();
        let all = annotations(&node(&[], None), &value(), &names).unwrap();
        let written = all.body["metadata"]["annotations"].as_object().unwrap();
        assert_eq!(written.len(), 4);
        assert_eq!(written["flannel.alpha.coreos.com/backend-data"], r#"{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}"#);

        assert_eq!(annotations(&node(&SAID, None), &value(), &names), None);
        let mut old = SAID.to_vec();
        old[3].1 = "192.0.2.9";
        old.extend([(Field::BackendV6Data, "{}"), (Field::PublicIpOverwrite, "203.0.113.7")]);
        let patch = annotations(&node(&old, None), &value(), &names).unwrap();
        let expected = json!({"metadata": {"annotations": {
            "flannel.alpha.coreos.com/public-ip": "192.0.2.1", "flannel.alpha.coreos.com/backend-v6-data": null}}});
        assert_eq!(patch.body, expected);

        let silent = LeaseValue { backend: BackendData::default(), ..value() };
        assert_eq!(annotations(&node(&[], None), &silent, &names), None);

        let without_data = BackendData { kind: "host-gw".into(), data: PerFamily::default() };
        let patch = annotations(&node(&[], None), &LeaseValue { backend: without_data, ..value() }, &names).unwrap();
        let written = &patch.body["metadata"]["annotations"];
        assert_eq!(written["flannel.alpha.coreos.com/backend-type"], "host-gw");
        assert_eq!(written["flannel.alpha.coreos.com/backend-data"], "null", "as flannel has it");
        assert_eq!(written.get("flannel.alpha.coreos.com/backend-v6-data"), None);
    }

    #[test]
    fn h91_the_condition_alone_is_written_and_only_if_it_is_not_there() {
        let now = now();
        let patch = condition(&node(&[], Some(("True", "NoRouteCreated"))), &now).unwrap();
        let conditions = patch.body["status"]["conditions"].as_array().unwrap();
        assert_eq!((conditions.len(), patch.body["status"].as_object().unwrap().len()), (1, 1));
        assert_eq!((&conditions[0]["status"], &conditions[0]["reason"]), (&json!("False"), &json!("FlannelIsUp")));
        assert!(patch.content_type.contains("strategic"));
        assert_eq!(condition(&node(&[], Some(("False", "RouteCreated"))), &now), None);
        assert!(condition(&node(&[], None), &now).is_some());
    }
}
