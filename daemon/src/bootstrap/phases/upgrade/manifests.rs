//! The manifests that a version asks for, and whether those that are there say the same. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::plan::newer;
use crate::bootstrap::patches::{PatchError, Patches};
use crate::bootstrap::pki::restart::ANNOTATION;
use crate::bootstrap::resolved::{Cluster, EtcdPlace, Node};
use crate::bootstrap::static_pods::{EtcdVersion, Facts, Part, pod};

/// The manifests of this node in the order of [`Part::ALL`], patched. `present` are those that are there; etcd's is left out
/// without `etcd`.
pub(super) fn wanted(
    cluster: &Cluster,
    node: &Node,
    facts: &Facts,
    patches: &Patches,
    present: &BTreeMap<Part, Value>,
    etcd: bool,
) -> Result<Vec<(Part, Value)>, PatchError> {
    let mut found = Vec::new();
    for part in Part::ALL.into_iter().filter(|part| etcd || *part != Part::Etcd) {
        let old = present.get(&part);
        let pod = match (part, old) {
            (Part::Etcd, Some(old)) => etcd_pod(cluster, node, facts, old),
            _ => pod(part, cluster, node, facts),
        };
        let Some(mut pod) = pod else { continue };
        patches.apply(part.name(), &mut pod)?;
        found.push((part, pod));
    }
    Ok(found)
}

/// etcd keeps the members that it was told of when it joined (they say nothing once it has data, and another list would be
/// another manifest), and never gets an older image.
fn etcd_pod(cluster: &Cluster, node: &Node, facts: &Facts, old: &Value) -> Option<Value> {
    let mut facts = facts.clone();
    if flag(old, "initial-cluster-state").as_deref() == Some("existing") {
        let member = |pair: &str| pair.split_once('=').map(|(name, url)| (name.to_owned(), url.to_owned()));
        facts.etcd_members = flag(old, "initial-cluster").unwrap_or_default().split(',').filter_map(member).collect();
    }
    let mut cluster = cluster.clone();
    if let EtcdPlace::Local { image, .. } = &mut cluster.etcd {
        let present = image_of(old).unwrap_or_default();
        *image = newer(&present, image).to_owned();
    }
    pod(Part::Etcd, &cluster, node, &facts)
}

/// The version of etcd that a manifest is for, by its flags and probes: the image's tag may promise another.
pub(super) fn etcd_version(old: &Value) -> EtcdVersion {
    let of = |minor, patch| EtcdVersion { major: 3, minor, patch };
    let path = old.pointer("/spec/containers/0/livenessProbe/httpGet/path").and_then(Value::as_str);
    match (flag(old, "experimental-initial-corrupt-check"), path) {
        (None, _) => EtcdVersion::USUAL,
        (Some(_), Some("/livez")) => of(5, 24),
        (Some(_), _) => of(4, 0),
    }
}

/// How long a component may take to start by its manifest: whoever made that may have been told another time than the usual.
pub(super) fn start_limit(old: &Value) -> Option<Duration> {
    let probe = old.pointer("/spec/containers/0/startupProbe")?;
    let seconds = probe.get("failureThreshold")?.as_u64()?.checked_mul(probe.get("periodSeconds")?.as_u64()?)?;
    Some(Duration::from_secs(seconds))
}

/// The image of a manifest.
pub(super) fn image_of(pod: &Value) -> Option<String> {
    pod.pointer("/spec/containers/0/image")?.as_str().map(str::to_owned)
}

/// The value of a flag of a manifest's command; the last one counts.
pub(super) fn flag(pod: &Value, name: &str) -> Option<String> {
    let command = pod.pointer("/spec/containers/0/command")?.as_array()?;
    let value =
        |word: &Value| Some(word.as_str()?.strip_prefix("--")?.strip_prefix(name)?.strip_prefix('=')?.to_owned());
    command.iter().rev().find_map(value)
}

/// Whether two manifests say the same to kubelet. What a restart for new certificates has left there is no difference, and
/// neither is the order of volumes.
pub(super) fn is_same(one: &Value, other: &Value) -> bool {
    said(one) == said(other)
}

fn said(pod: &Value) -> Value {
    let mut pod = pod.clone();
    if let Some(object) = pod.as_object_mut() {
        object.remove("status");
    }
    if let Some(metadata) = pod.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("creationTimestamp");
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove(ANNOTATION);
        }
        if metadata
            .get("annotations")
            .is_some_and(|left| left.is_null() || left.as_object().is_some_and(serde_json::Map::is_empty))
        {
            metadata.remove("annotations");
        }
    }
    for (list, key) in [("/spec/volumes", "name"), ("/spec/containers/0/volumeMounts", "mountPath")] {
        if let Some(Value::Array(items)) = pod.pointer_mut(list) {
            items.sort_by_key(|item| item.get(key).map(ToString::to_string));
        }
    }
    pod
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::static_pods::golden::{cluster, node};
    use crate::bootstrap::static_pods::manifests;
    use serde_json::json;

    fn present(facts: &Facts) -> BTreeMap<Part, Value> {
        manifests(&cluster(), &node(), facts).into_iter().map(|manifest| (manifest.part, manifest.pod)).collect()
    }

    fn changed(cluster: &Cluster, facts: &Facts, present: &BTreeMap<Part, Value>) -> Vec<Part> {
        let wanted = wanted(cluster, &node(), facts, &Patches::default(), present, true).unwrap();
        let differs = |(part, pod): (Part, Value)| (!is_same(&pod, &present[&part])).then_some(part);
        wanted.into_iter().filter_map(differs).collect()
    }

    #[test]
    fn u01_a_version_changes_three_and_the_same_version_none() {
        let facts = Facts::default();
        let present = present(&facts);
        assert_eq!(changed(&cluster(), &facts, &present), []);
        let newer = Cluster { kubernetes_version: "v1.36.3".into(), ..cluster() };
        assert_eq!(changed(&newer, &facts, &present), [Part::ApiServer, Part::ControllerManager, Part::Scheduler]);
        let mut with_etcd = cluster();
        if let EtcdPlace::Local { image, .. } = &mut with_etcd.etcd {
            *image = "registry.k8s.io/etcd:3.7.0-0".into();
        }
        assert_eq!(changed(&with_etcd, &facts, &present), [Part::Etcd]);
        let without = wanted(&with_etcd, &node(), &facts, &Patches::default(), &present, false).unwrap();
        assert!(without.iter().all(|(part, _)| *part != Part::Etcd));
    }

    #[test]
    fn etcd_keeps_its_members_its_kind_and_a_newer_image() {
        let facts = Facts {
            etcd_members: vec![("n0".into(), "https://192.0.2.9:2380".into())],
            etcd_version: EtcdVersion { major: 3, minor: 4, patch: 0 },
            ..Facts::default()
        };
        let mut present = present(&facts);
        let etcd = present.get_mut(&Part::Etcd).unwrap();
        etcd["spec"]["containers"][0]["image"] = json!("registry.k8s.io/etcd:3.6.9-0");
        let version = etcd_version(etcd);
        assert_eq!(version, facts.etcd_version);
        assert_eq!(changed(&cluster(), &Facts { etcd_version: version, ..Facts::default() }, &present), []);
        let five = EtcdVersion { major: 3, minor: 5, patch: 24 };
        for expected in [five, EtcdVersion::USUAL] {
            let facts = Facts { etcd_version: expected, ..Facts::default() };
            let pod = pod(Part::Etcd, &cluster(), &node(), &facts).unwrap();
            assert_eq!(etcd_version(&pod), expected);
        }
    }

    #[test]
    fn a_restart_and_the_order_of_volumes_are_no_difference() {
        let one = json!({"metadata": {"name": "x"}, "spec": {"volumes": [{"name": "a"}, {"name": "b"}]}});
        let other = json!({
            "metadata": {"name": "x", "creationTimestamp": null, "annotations": {ANNOTATION: "now"}},
            "spec": {"volumes": [{"name": "b"}, {"name": "a"}]}, "status": {},
        });
        assert!(is_same(&one, &other));
        assert!(!is_same(&one, &json!({"metadata": {"name": "x"}, "spec": {"volumes": [{"name": "a"}]}})));
    }

    #[test]
    fn the_time_to_start_is_what_it_was() {
        let facts = Facts { start_limit: Duration::from_secs(600), ..Facts::default() };
        let present = present(&facts);
        assert!(present.values().all(|pod| start_limit(pod) == Some(facts.start_limit)));
        assert_eq!(start_limit(&json!({})), None);
    }

    #[test]
    fn the_last_flag_counts() {
        let pod =
            json!({"spec": {"containers": [{"command": ["x", "--port=1", "--port=2", "--ports=3"], "image": "i:1"}]}});
        assert_eq!((flag(&pod, "port").as_deref(), flag(&pod, "por")), (Some("2"), None));
        assert_eq!(image_of(&pod).as_deref(), Some("i:1"));
    }
}
