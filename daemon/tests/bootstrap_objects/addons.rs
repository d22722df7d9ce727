//! What is installed into the cluster.

use super::*;

pub(super) async fn weft_is_applied_whole_and_foreign_changes_stay(plane: &ControlPlane) {
    let server = plane.server().await;
    let (pods, services) = (["10.244.0.0/16".parse().unwrap()], ["10.96.0.0/12".parse().unwrap()]);
    let settings = BTreeMap::new();
    let url = plane.url();
    let addon = WeftAddon {
        image: "localhost/weft:test",
        pod_subnets: &pods,
        service_subnets: &services,
        api_server: &url,
        proxy_mode: "auto",
        settings: &settings,
    };
    let applied = apply_weft(&server, &addon).await.unwrap();
    assert!(applied.iter().all(|(_, outcome)| *outcome == Outcome::Made), "{applied:?}");
    // Every resource of the folder is there, whatever is added to it.
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/base"));
    let list: Value =
        serde_saphyr::from_str(&std::fs::read_to_string(folder.join("kustomization.yaml")).unwrap()).unwrap();
    let mut named = 0;
    for file in list["resources"].as_array().unwrap() {
        let text = std::fs::read_to_string(folder.join(file.as_str().unwrap())).unwrap();
        for object in serde_saphyr::from_multiple::<Value>(&text).unwrap() {
            let metadata = &object["metadata"];
            let name = match metadata["namespace"].as_str() {
                Some(namespace) => format!("{namespace}/{}", metadata["name"].as_str().unwrap()),
                None => metadata["name"].as_str().unwrap().to_owned(),
            };
            let words = format!("{} {name}", object["kind"].as_str().unwrap());
            assert!(applied.iter().any(|(it, _)| *it == words), "{words} is not applied");
            named += 1;
        }
    }
    assert_eq!(named, applied.len());
    let set = plane.get("/apis/apps/v1/namespaces/kube-system/daemonsets/weft").await;
    assert_eq!(set["spec"]["template"]["spec"]["containers"][0]["image"], "localhost/weft:test");
    assert_eq!(set["metadata"]["managedFields"][0]["manager"], "weft-init");
    let again = apply_weft(&server, &addon).await.unwrap();
    assert!(again.iter().all(|(_, outcome)| *outcome == Outcome::Kept), "{again:?}");
    // What somebody else has set in the configuration stays; in the rest it does not.
    let map = "/api/v1/namespaces/kube-system/configmaps/weft-config";
    let theirs = json!({"data": {"config.yaml": "proxy-mode: ipvs\n"}});
    plane.ask("PATCH", map, Some(&theirs)).await.unwrap();
    let third = apply_weft(&server, &addon).await.unwrap();
    let retained: Vec<&str> =
        third.iter().filter(|(_, it)| *it == Outcome::Retained).map(|(words, _)| words.as_str()).collect();
    assert_eq!(retained, ["ConfigMap kube-system/weft-config"], "{third:?}");
    assert_eq!(plane.get(map).await["data"]["config.yaml"], "proxy-mode: ipvs\n");
    compare_with_kustomize(&addon);
}

/// The little that is built in renders what kustomize does.
fn compare_with_kustomize(addon: &WeftAddon<'_>) {
    let kubectl = PathBuf::from(std::env::var_os("WEFT_PEERS").unwrap()).join("kubectl");
    if !kubectl.is_file() {
        skip!("WEFT_PEERS has no kubectl to compare with");
    }
    let text = tool::run(
        tool::command(kubectl).args(["kustomize", concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/base")]),
    );
    let mut theirs: Vec<Value> = serde_saphyr::from_multiple(&text.unwrap()).unwrap();
    let mut ours = weft_objects(addon).unwrap();
    for object in ours.iter_mut().chain(&mut theirs) {
        even(object);
        // kustomize gives a namespace to what has none, if it does not know the kind.
        if object["kind"].as_str().unwrap().starts_with("ValidatingAdmission") {
            object["metadata"].as_object_mut().unwrap().remove("namespace");
        }
        // What is the cluster's own.
        if object["kind"] == "ConfigMap" {
            object["data"] = Value::Null;
        }
        if object["kind"] == "DaemonSet" {
            let template = &mut object["spec"]["template"];
            template["spec"]["containers"][0]["image"] = Value::Null;
            template["metadata"].as_object_mut().unwrap().remove("annotations");
        }
    }
    let key = |object: &Value| format!("{} {}", object["kind"], object["metadata"]["name"]);
    ours.sort_by_key(key);
    theirs.sort_by_key(key);
    assert_eq!(ours, theirs);
}

/// Folded text with blanks at its lines' beginnings is written again in more than one way.
fn even(value: &mut Value) {
    match value {
        Value::String(text) => *text = text.split_whitespace().collect::<Vec<_>>().join(" "),
        Value::Array(items) => items.iter_mut().for_each(even),
        Value::Object(fields) => fields.values_mut().for_each(even),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

pub(super) async fn coredns_keeps_what_an_operator_has_changed(plane: &ControlPlane) {
    let server = plane.server().await;
    let dns = CoreDns {
        image: "registry.example/coredns:v1",
        dns_domain: "cluster.local",
        address: dns_address("10.96.0.0/12".parse().unwrap()).unwrap(),
    };
    let as_is = |object: Value| Ok(object);
    assert_eq!(apply_coredns(&server, &dns, &as_is).await.unwrap(), Outcome::Made);
    assert_eq!(plane.get("/api/v1/namespaces/kube-system/services/kube-dns").await["spec"]["clusterIP"], "10.96.0.10");
    let deployment = "/apis/apps/v1/namespaces/kube-system/deployments/coredns";
    let generation = plane.get(deployment).await["metadata"]["generation"].clone();
    assert_eq!(apply_coredns(&server, &dns, &as_is).await.unwrap(), Outcome::Kept);
    assert_eq!(plane.get(deployment).await["metadata"]["generation"], generation);
    let map = "/api/v1/namespaces/kube-system/configmaps/coredns";
    plane.ask("PATCH", map, Some(&json!({"data": {"Corefile": ".:53 {}"}}))).await.unwrap();
    plane.ask("PATCH", deployment, Some(&json!({"spec": {"replicas": 5}}))).await.unwrap();
    let newer = CoreDns { image: "registry.example/coredns:v2", ..dns };
    let patched = |mut object: Value| {
        object["spec"]["template"]["spec"]["priorityClassName"] = json!("system-node-critical");
        Ok(object)
    };
    assert_eq!(apply_coredns(&server, &newer, &patched).await.unwrap(), Outcome::Changed);
    let spec = plane.get(deployment).await["spec"].clone();
    assert_eq!(
        (&spec["replicas"], &spec["template"]["spec"]["priorityClassName"]),
        (&json!(5), &json!("system-node-critical"))
    );
    assert_eq!(spec["template"]["spec"]["containers"][0]["image"], "registry.example/coredns:v2");
    assert_eq!(plane.get(map).await["data"]["Corefile"], ".:53 {}");
    let refused = apply_coredns(&server, &newer, &|_| Err("it is broken".to_owned())).await.unwrap_err().to_string();
    assert!(refused.contains("coredns") && refused.contains("it is broken"), "{refused}");
}
