//! Patches, from files to what they change.

use std::fs;

use serde_json::json;

use super::*;

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn pod() -> Value {
    json!({"kind": "Pod", "metadata": {"labels": {"a": "1"}}, "spec": {
        "containers": [{"name": "kube-apiserver", "image": "x", "command": ["a", "b"],
            "env": [{"name": "A", "value": "1"}], "volumeMounts": [{"name": "v", "mountPath": "/v"}],
            "ports": [{"containerPort": 6443, "name": "probe-port"}]}],
        "volumes": [{"name": "v", "hostPath": {"path": "/v"}}], "hostNetwork": true}})
}

#[test]
fn i03_patches_go_in_the_order_of_their_names_and_strangers_are_told() {
    let folder = folder(&[
        // Sorted: the JSON patch is first, and the merge patch has the last word.
        (
            "kube-apiserver+json.yaml",
            "- {op: replace, path: /metadata/labels/a, value: json}\n- {op: add, path: /metadata/labels/j, value: '1'}\n",
        ),
        ("kube-apiserver0+merge.yaml", "metadata: {labels: {a: merge}}\n"),
        ("foo.yaml", "a: 1\n"),
        ("kube-apiserver.txt", "a: 1\n"),
        ("etcd.json", "{\"metadata\": {\"labels\": {\"e\": \"1\"}}}"),
    ]);
    fs::create_dir(folder.path().join("kube-apiserver.yaml")).unwrap();
    let patches = Patches::load(folder.path()).unwrap();
    let mut value = pod();
    assert_eq!(patches.apply("kube-apiserver", &mut value).unwrap(), 2);
    assert_eq!(value["metadata"]["labels"], json!({"a": "merge", "j": "1"}));
    assert_eq!(patches.apply("kube-scheduler", &mut value).unwrap(), 0);
    let notices = patches.notices().join("\n");
    assert!(notices.contains("foo.yaml") && notices.contains("kube-apiserver.txt"), "{notices}");
    assert_eq!(patches.notices().len(), 2, "{notices}");
}

#[test]
fn i03_an_unknown_type_is_an_error() {
    let folder = folder(&[("etcd+bad.yaml", "a: 1\n")]);
    let error = Patches::load(folder.path()).unwrap_err().to_string();
    assert!(error.contains("etcd+bad.yaml") && error.contains("\"bad\"") && error.contains("strategic"), "{error}");
}

#[test]
fn a_strategic_patch_merges_by_key() {
    let folder = folder(&[(
        "kube-apiserver1+strategic.yaml",
        "spec:\n  containers:\n  - name: kube-apiserver\n    env:\n    - {name: A, value: '2'}\n    - {name: B, value: '3'}\n    \
         volumeMounts:\n    - {mountPath: /w, name: w}\n    ports:\n    - {containerPort: 6443, protocol: TCP}\n    command: [c]\n  \
         - {name: side, image: other}\n  volumes:\n  - {name: v, $patch: delete}\n  - {name: w, emptyDir: {}}\n  hostNetwork: null\n\
         ---\nmetadata: {labels: {$patch: replace, b: '2'}}\n",
    )]);
    let mut value = pod();
    assert_eq!(Patches::load(folder.path()).unwrap().apply("kube-apiserver", &mut value).unwrap(), 2);
    let expected = json!({"kind": "Pod", "metadata": {"labels": {"b": "2"}}, "spec": {
        "containers": [
            {"name": "kube-apiserver", "image": "x", "command": ["c"],
             "env": [{"name": "A", "value": "2"}, {"name": "B", "value": "3"}],
             "volumeMounts": [{"name": "v", "mountPath": "/v"}, {"name": "w", "mountPath": "/w"}],
             "ports": [{"containerPort": 6443, "name": "probe-port", "protocol": "TCP"}]},
            {"name": "side", "image": "other"}],
        "volumes": [{"name": "w", "emptyDir": {}}]}});
    assert_eq!(value, expected);
}

#[test]
fn lists_of_kubelets_configuration_are_replaced() {
    let folder =
        folder(&[("kubeletconfiguration.yaml", "clusterDNS: [10.0.0.10]\nevictionHard: {memory.available: 5%}\n")]);
    let mut value = json!({"kind": "KubeletConfiguration", "clusterDNS": ["10.96.0.10"], "evictionHard": {"x": "1"}});
    Patches::load(folder.path()).unwrap().apply("kubeletconfiguration", &mut value).unwrap();
    assert_eq!(value["clusterDNS"], json!(["10.0.0.10"]));
    assert_eq!(value["evictionHard"], json!({"x": "1", "memory.available": "5%"}));
}

#[test]
fn a_patch_that_does_not_fit_is_named_and_changes_nothing() {
    let unfit = [
        ("etcd+json.yaml", "- {op: remove, path: /nowhere}\n"),
        ("etcd+json.yaml", "a: 1\n"),
        ("etcd+merge.yaml", "[1]\n"),
        ("etcd.yaml", "spec: {containers: [{image: x}]}\n"),
        ("etcd.yaml", "spec: {$patch: explode}\n"),
    ];
    for (name, text) in unfit {
        let folder = folder(&[(name, text)]);
        let mut value = pod();
        let error = Patches::load(folder.path()).unwrap().apply("etcd", &mut value).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("document 1"), "{error}");
        assert_eq!(value, pod());
    }
    let broken = folder(&[("etcd.yaml", "a: [\n")]);
    assert!(matches!(Patches::load(broken.path()), Err(PatchError::Syntax { .. })));
    let error = Patches::load(&broken.path().join("none")).unwrap_err().to_string();
    assert!(error.contains("none") && error.contains("--patches"), "{error}");
}
