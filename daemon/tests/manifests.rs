//! The manifests: names of settings that exist, values that are understood, and no right that the agent does not need.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, FromArgMatches};
use serde_json::{Value, json};
use weft::cluster::NetConf;
use weft::config::keys::{KEYS, find};
use weft::config::{AgentConfig, AgentFlags, ProxyMode, SourceKind};
use weft_cni::formats::conflist::Conflist;
use weft_tests::scratch::Scratch;
use weft_tests::{skip, tool};

const OVERLAYS: [&str; 4] = ["dual-stack", "ipvs", "migrate-from-flannel", "nftables"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests")
}

/// The documents of a YAML text.
fn documents(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Every YAML file below the manifests, parsed.
fn files() -> Vec<(PathBuf, Vec<Value>)> {
    let (mut folders, mut files) = (vec![folder()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                let parsed = documents(&fs::read_to_string(&path).unwrap());
                files.push((path, parsed));
            }
        }
    }
    files
}

/// What the base's own resources are.
fn base() -> Vec<Value> {
    let kustomization = documents(&fs::read_to_string(folder().join("base/kustomization.yaml")).unwrap()).remove(0);
    let resources = kustomization["resources"].as_array().unwrap();
    let read =
        |name: &Value| documents(&fs::read_to_string(folder().join("base").join(name.as_str().unwrap())).unwrap());
    resources.iter().flat_map(read).collect()
}

fn only<'a>(resources: &'a [Value], kind: &str) -> &'a Value {
    let found: Vec<&Value> = resources.iter().filter(|it| it["kind"] == kind).collect();
    assert_eq!(found.len(), 1, "{kind}");
    found[0]
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect()
}

/// The configuration that an agent of these resources has on node `n1`.
fn configuration(resources: &[Value]) -> AgentConfig {
    let data = &only(resources, "ConfigMap")["data"];
    let container = &only(resources, "DaemonSet")["spec"]["template"]["spec"]["containers"][0];
    let args = strings(&container["args"]);
    let scratch = Scratch::new();
    let file = |name: &str| {
        let path = scratch.join(name);
        fs::write(&path, data[name].as_str().unwrap()).unwrap();
        path
    };
    // The ConfigMap is mounted at another place here.
    let (net_conf, config_file) = (file("net-conf.json"), file("config.yaml"));
    let command = AgentFlags::augment_args(clap::Command::new("agent"));
    let given = args.iter().copied();
    let matches = command.try_get_matches_from(given).unwrap_or_else(|error| panic!("{error}"));
    let flags = AgentFlags::from_arg_matches(&matches).unwrap();

    let env = container["env"].as_array().unwrap();
    for variable in env {
        let name = variable["name"].as_str().unwrap();
        assert!(KEYS.iter().any(|key| key.variable() == name), "no setting has the variable {name}");
    }
    let value = |name: &str| {
        let variable = env.iter().find(|it| it["name"] == name)?;
        let is_node = variable["valueFrom"]["fieldRef"]["fieldPath"] == "spec.nodeName";
        let text = if is_node { "n1" } else { variable["value"].as_str().unwrap() };
        Some(text.replace("/etc/weft/net-conf.json", net_conf.to_str().unwrap()))
    };
    let config = AgentConfig::load_from(&flags, value, &config_file).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((config.settings.node_name.to_string().as_str(), config.settings.source), ("n1", SourceKind::Kube));
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    config
}

#[test]
fn every_file_is_yaml_and_no_resource_is_forgotten() {
    let files = files();
    assert!(files.len() >= 10, "{}", files.len());
    for (path, parsed) in &files {
        assert!(!parsed.is_empty(), "{}", path.display());
        for document in parsed {
            assert!(document["kind"].is_string() && document["apiVersion"].is_string(), "{}", path.display());
        }
    }
    let named: BTreeSet<&str> = OVERLAYS.into_iter().collect();
    let found =
        fs::read_dir(folder().join("overlays")).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap());
    assert_eq!(found.collect::<BTreeSet<_>>(), named.into_iter().map(str::to_owned).collect());
    let kinds: Vec<String> = base().iter().map(|it| it["kind"].as_str().unwrap().to_owned()).collect();
    let expected = [
        "ServiceAccount",
        "ClusterRole",
        "ClusterRoleBinding",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "ConfigMap",
        "DaemonSet",
    ];
    assert_eq!(kinds, expected);
    let in_base = files.iter().filter(|(path, _)| path.parent().unwrap().ends_with("base")).count();
    let kustomization = documents(&fs::read_to_string(folder().join("base/kustomization.yaml")).unwrap()).remove(0);
    assert_eq!(kustomization["resources"].as_array().unwrap().len() + 1, in_base);
}

#[test]
fn settings_exist_and_their_values_are_understood() {
    let base = base();
    let config = configuration(&base);
    assert_eq!(config.settings.proxy_mode, ProxyMode::Auto);
    let own = NetConf::parse(br#"{"Network": "10.244.0.0/16"}"#).unwrap().0;
    assert_eq!(config.network, own, "net-conf.json is what weft's own default is, too");
    assert!(find("network").is_some_and(|key| (key.default)() == "10.244.0.0/16"));
    assert_eq!(config.settings.cni_bin_source.as_deref(), Some(Path::new("/weft-cni")));
    // What is in the conflist follows from the settings.
    let conflist: Value =
        serde_json::from_str(only(&base, "ConfigMap")["data"]["cni-conf.json"].as_str().unwrap()).unwrap();
    assert_eq!(conflist, serde_json::from_str::<Value>(&Conflist::default().render()).unwrap());
}

#[test]
fn every_path_that_the_agent_writes_is_mounted_at_its_own_place_and_no_other() {
    let base = base();
    let config = configuration(&base);
    let settings = &config.settings;
    let spec = &only(&base, "DaemonSet")["spec"]["template"]["spec"];
    let mounts = spec["containers"][0]["volumeMounts"].as_array().unwrap();
    let mut hosts = BTreeSet::new();
    for mount in mounts {
        let volume = spec["volumes"].as_array().unwrap().iter().find(|it| it["name"] == mount["name"]).unwrap();
        let path = mount["mountPath"].as_str().unwrap();
        if volume["configMap"].is_object() {
            assert_eq!((path, &mount["readOnly"]), ("/etc/weft", &json!(true)));
            assert_eq!(volume["configMap"]["name"], only(&base, "ConfigMap")["metadata"]["name"]);
            continue;
        }
        let host = volume["hostPath"]["path"].as_str().unwrap();
        let is_sysctl = host == "/proc/sys/net";
        assert_eq!(path, if is_sysctl { "/host/proc/sys/net" } else { host });
        hosts.insert(path.to_owned());
    }
    assert_eq!(mounts.len(), spec["volumes"].as_array().unwrap().len());
    let written = [
        settings.subnet_file.parent().unwrap(),
        &settings.run_dir,
        &settings.state_dir,
        &settings.cni_bin_dir,
        &settings.cni_conf_dir,
        &settings.sysctl_dir.join("net"),
    ];
    assert!(settings.cni_state_dir.starts_with(&settings.run_dir));
    assert_eq!(hosts, written.iter().map(|path| path.display().to_string()).collect());
}

#[test]
fn the_pod_has_no_privilege_but_two_capabilities() {
    let base = base();
    let config = configuration(&base);
    let daemonset = only(&base, "DaemonSet");
    let spec = &daemonset["spec"]["template"]["spec"];
    assert_eq!(daemonset["spec"]["updateStrategy"]["type"], "RollingUpdate");
    assert_eq!(spec["priorityClassName"], "system-node-critical");
    assert_eq!(spec["tolerations"], json!([{"operator": "Exists"}]));
    assert_eq!(spec["hostNetwork"], true);
    for absent in ["hostPID", "hostIPC", "initContainers"] {
        assert!(spec[absent].is_null(), "{absent}");
    }
    assert_eq!(spec["securityContext"], json!({"seccompProfile": {"type": "RuntimeDefault"}}));
    assert_eq!(spec["containers"].as_array().unwrap().len(), 1);
    let container = &spec["containers"][0];
    let wanted = json!({
        "runAsUser": 0, "runAsGroup": 0, "privileged": false, "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]},
    });
    assert_eq!(container["securityContext"], wanted);
    assert!(container["command"].is_null(), "the image has no shell");
    assert_eq!(container["imagePullPolicy"], "IfNotPresent");
    for (resource, kind) in [("cpu", "requests"), ("memory", "requests"), ("memory", "limits")] {
        assert!(container["resources"][kind][resource].is_string(), "{kind} of {resource}");
    }
    assert_eq!(container["ports"][0]["containerPort"], config.settings.healthz_bind.port());
    for (probe, path) in [("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
        let get = &container[probe]["httpGet"];
        assert_eq!((&get["path"], &get["port"]), (&json!(path), &container["ports"][0]["name"]));
        // The pod's address may be of either family; the agent is always at this one.
        assert_eq!(get["host"], "127.0.0.1");
    }
}

#[test]
fn the_role_allows_what_the_agent_does_and_no_more() {
    let base = base();
    let rules = only(&base, "ClusterRole")["rules"].as_array().unwrap();
    let mut granted = BTreeSet::new();
    for rule in rules {
        assert_eq!(rule.as_object().unwrap().len(), 3, "{rule}");
        for group in strings(&rule["apiGroups"]) {
            for resource in strings(&rule["resources"]) {
                granted.extend(strings(&rule["verbs"]).into_iter().map(|verb| format!("{verb} {resource}.{group}")));
            }
        }
    }
    let allowed = [
        "get nodes.",
        "list nodes.",
        "watch nodes.",
        "patch nodes/status.",
        "list services.",
        "watch services.",
        "list endpointslices.discovery.k8s.io",
        "watch endpointslices.discovery.k8s.io",
        "list servicecidrs.networking.k8s.io",
        "watch servicecidrs.networking.k8s.io",
        "create events.events.k8s.io",
        "patch events.events.k8s.io",
    ];
    assert_eq!(granted, allowed.into_iter().map(str::to_owned).collect());

    let account = &only(&base, "ServiceAccount")["metadata"];
    let (name, namespace) = (account["name"].as_str().unwrap(), account["namespace"].as_str().unwrap());
    let binding = only(&base, "ClusterRoleBinding");
    assert_eq!(binding["roleRef"]["name"], only(&base, "ClusterRole")["metadata"]["name"]);
    assert_eq!(binding["subjects"], json!([{"kind": "ServiceAccount", "name": name, "namespace": namespace}]));
    let daemonset = only(&base, "DaemonSet");
    assert_eq!(daemonset["spec"]["template"]["spec"]["serviceAccountName"], name);
    assert_eq!((namespace, &daemonset["metadata"]["namespace"]), ("kube-system", &json!("kube-system")));

    // What the role cannot say, the policy does: for this account, and fail-safe.
    let policy = only(&base, "ValidatingAdmissionPolicy");
    let spec = &policy["spec"];
    let condition = format!("request.userInfo.username == 'system:serviceaccount:{namespace}:{name}'");
    assert_eq!(
        (&spec["failurePolicy"], &spec["matchConditions"][0]["expression"]),
        (&json!("Fail"), &json!(condition))
    );
    assert_eq!(spec["matchConstraints"]["resourceRules"][0]["resources"], json!(["nodes", "nodes/status"]));
    let node = "request.userInfo.?extra[?'authentication.kubernetes.io/node-name'][?0].orValue('')";
    assert_eq!(spec["variables"][0], json!({"name": "node", "expression": node}));
    assert_eq!(spec["validations"][1]["expression"], "request.name == variables.node");
    let binding = only(&base, "ValidatingAdmissionPolicyBinding");
    assert_eq!(binding["spec"], json!({"policyName": policy["metadata"]["name"], "validationActions": ["Deny"]}));
}

#[test]
fn a_node_is_changed_over_with_one_capability_and_what_it_reads_is_mounted() {
    let path = folder().join("overlays/migrate-from-flannel/migrate.yaml");
    let spec = &documents(&fs::read_to_string(path).unwrap())[0]["spec"]["template"]["spec"];
    assert_eq!((&spec["hostNetwork"], &spec["hostPID"]), (&json!(true), &json!(true)));
    assert_eq!(spec["automountServiceAccountToken"], false);
    let container = &spec["initContainers"][0];
    let context = &container["securityContext"];
    assert_eq!(context["capabilities"], json!({"drop": ["ALL"], "add": ["NET_ADMIN"]}));
    assert_eq!((&context["privileged"], &context["readOnlyRootFilesystem"]), (&json!(false), &json!(true)));
    assert_eq!(strings(&container["args"])[..2], ["migrate", "node"]);
    let mounts = container["volumeMounts"].as_array().unwrap();
    let places: Vec<&str> = mounts.iter().map(|mount| mount["mountPath"].as_str().unwrap()).collect();
    assert_eq!(places, ["/etc/weft", "/etc/cni/net.d", "/var/lib/cni"]);
    for directory in [weft::migrate::cache::DIRECTORY, weft_cni::formats::host_local::DATA_DIR] {
        assert!(directory.starts_with("/var/lib/cni/"), "{directory}");
    }
}

/// A kubectl: one of `WEFT_PEERS`, else the machine's.
fn kubectl() -> Option<PathBuf> {
    let peers = std::env::var_os("WEFT_PEERS").map(PathBuf::from);
    let folders = peers.iter().flat_map(|peers| [peers.join("kubernetes/bin"), peers.join("bin"), peers.clone()]);
    let mut candidates: Vec<PathBuf> = folders.map(|folder| folder.join("kubectl")).filter(|it| it.is_file()).collect();
    candidates.push("kubectl".into());
    candidates.into_iter().find(|it| tool::run(tool::command(it).args(["kustomize", "--help"])).is_ok())
}

#[test]
fn the_overlays_change_what_they_are_for_and_nothing_else() {
    let Some(kubectl) = kubectl() else { skip!("needs kubectl, from WEFT_PEERS or installed: no overlay was applied") };
    let build =
        |name: &str| documents(&tool::run(tool::command(&kubectl).arg("kustomize").arg(folder().join(name))).unwrap());
    let base = build("base");
    assert_eq!(base, build("."), "the folder itself is the base");
    assert_eq!(base.len(), 7);
    let image = &only(&base, "DaemonSet")["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(*image, format!("localhost/weft:{}", env!("CARGO_PKG_VERSION")), "the version of this workspace");
    assert!(base.iter().all(|it| it["metadata"]["labels"]["app.kubernetes.io/name"] == "weft"));
    for overlay in OVERLAYS {
        let mut resources = build(&format!("overlays/{overlay}"));
        if overlay == "migrate-from-flannel" {
            let place = resources.iter().position(|it| it["metadata"]["name"] == "weft-migrate").unwrap();
            let migration = resources.remove(place);
            let spec = &migration["spec"]["template"]["spec"];
            assert_eq!(spec["nodeSelector"]["weft/agent"], "true");
            assert!([&spec["initContainers"][0], &spec["containers"][0]].iter().all(|it| it["image"] == *image));
        }
        let changed: Vec<&str> = base
            .iter()
            .zip(&resources)
            .filter(|(old, new)| old != new)
            .map(|(old, _)| old["kind"].as_str().unwrap())
            .collect();
        let kind = if overlay == "dual-stack" { "ConfigMap" } else { "DaemonSet" };
        assert_eq!((resources.len(), changed), (base.len(), vec![kind]), "{overlay}");
        let config = configuration(&resources);
        let network = &config.network;
        let (mode, families, selector) = match overlay {
            "ipvs" => (ProxyMode::Ipvs, 1, None),
            "nftables" => (ProxyMode::Nftables, 1, None),
            "dual-stack" => (ProxyMode::Auto, 2, None),
            _ => (ProxyMode::Auto, 1, Some("true")),
        };
        assert_eq!((config.settings.proxy_mode, network.pools.iter().count()), (mode, families), "{overlay}");
        let nodes = &only(&resources, "DaemonSet")["spec"]["template"]["spec"]["nodeSelector"];
        assert_eq!(nodes["weft/agent"].as_str(), selector, "{overlay}");
        if families == 2 {
            assert!(config.settings.service_cidr.iter().any(ipnetwork::IpNetwork::is_ipv6));
            let pod_networks = network.pools.v6.as_ref().unwrap().network();
            assert!(config.settings.service_cidr.iter().all(|it| it.ip() != pod_networks.ip()));
        }
    }
}

#[test]
fn the_readme_names_every_overlay() {
    let text = fs::read_to_string(folder().join("README.md")).unwrap();
    for overlay in OVERLAYS {
        assert!(text.contains(&format!("overlays/{overlay}")), "{overlay}");
    }
}
