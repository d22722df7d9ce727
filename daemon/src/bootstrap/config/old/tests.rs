use super::*;
use crate::bootstrap::config::render;

/// What the tutorials of 2020 have.
const TUTORIAL: &str = r#"apiVersion: kubeadm.k8s.io/v1beta2
kind: InitConfiguration
bootstrapTokens:
- groups: ["system:bootstrappers:kubeadm:default-node-token"]
  token: abcdef.0123456789abcdef
  ttl: 24h
localAPIEndpoint:
  advertiseAddress: 192.0.2.10
nodeRegistration:
  criSocket: /var/run/dockershim.sock
  name: master
  kubeletExtraArgs:
    v: "4"
    network-plugin: cni
  taints:
  - effect: NoSchedule
    key: node-role.kubernetes.io/master
---
apiVersion: kubeadm.k8s.io/v1beta2
kind: ClusterConfiguration
apiServer:
  timeoutForControlPlane: 4m
  extraArgs:
    b: "2"
    a: "1"
dns:
  type: CoreDNS
featureGates:
  IPv6DualStack: true
imageRepository: k8s.gcr.io
kubernetesVersion: v1.20.0
---
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
featureGates:
  SupportIPVSProxyMode: true
mode: ipvs
"#;

fn read(text: &str) -> Documents {
    Documents::parse("old.yaml", text).unwrap()
}

fn notes(documents: &Documents) -> Vec<String> {
    documents.findings.iter().map(ToString::to_string).collect()
}

#[test]
fn c02_a_tutorials_file_is_written_as_v1beta4() {
    let mut documents = read(TUTORIAL);
    assert!(documents.findings.iter().all(|finding| finding.weight == Weight::Note), "{:?}", documents.findings);
    let said = notes(&documents).join("\n");
    for expected in [
        "old.yaml:1:13: kubeadm.k8s.io/v1beta2 is old",
        "old.yaml:10:14: nodeRegistration.criSocket /var/run/dockershim.sock is dockershim's",
        "old.yaml:13:5: kubelet has no flag network-plugin any more",
        "the taint node-role.kubernetes.io/master is called node-role.kubernetes.io/control-plane now",
        "imageRepository k8s.gcr.io has been frozen",
        "featureGates of that time have gone",
        "mode \"ipvs\" becomes weft's proxyMode \"ipvs\"",
    ] {
        assert!(said.contains(expected), "{expected}\nis not in\n{said}");
    }

    let text = render::documents(&documents);
    let again = read(&text);
    assert_eq!(again.findings.iter().filter(|finding| finding.weight != Weight::Note).count(), 0, "{text}");
    let value = |kind: Kind| Value::Object(again.found[&kind].value.clone());
    let init = value(Kind::Init);
    assert_eq!(init["nodeRegistration"]["kubeletExtraArgs"], serde_json::json!([{"name": "v", "value": "4"}]));
    assert_eq!(init["nodeRegistration"].get("criSocket"), None);
    assert_eq!(init["nodeRegistration"]["taints"][0]["key"], CONTROL_PLANE_TAINT);
    assert_eq!(init["timeouts"], serde_json::json!({"controlPlaneComponentHealthCheck": "4m0s"}));
    assert_eq!(init["bootstrapTokens"][0]["ttl"], "24h0m0s");
    let cluster = value(Kind::Cluster);
    let flags = serde_json::json!([{"name": "a", "value": "1"}, {"name": "b", "value": "2"}]);
    assert_eq!(cluster["apiServer"], serde_json::json!({ "extraArgs": flags }));
    assert_eq!((&cluster["imageRepository"], cluster.get("featureGates")), (&REPOSITORY.into(), None));
    assert_eq!(cluster["dns"], serde_json::json!({}));
    assert_eq!(value(Kind::Weft)["proxyMode"], "ipvs");
    assert_eq!(value(Kind::KubeProxy)["mode"], "ipvs");
    assert!(!text.contains("weft.dev"), "kubeadm would not take it:\n{text}");
    // Once is enough.
    documents.findings.clear();
    modernize(&mut documents);
    assert_eq!(render::documents(&documents), text);
}

#[test]
fn a_timeout_of_v1beta3_moves_unless_its_new_place_is_taken() {
    let join = "apiVersion: kubeadm.k8s.io/v1beta3\nkind: JoinConfiguration\ndiscovery:\n  timeout: 90s\n  tlsBootstrapToken: a\n";
    let documents = read(join);
    let value = Value::Object(documents.found[&Kind::Join].value.clone());
    assert_eq!(value["timeouts"], serde_json::json!({"discovery": "1m30s"}));
    assert_eq!(value["discovery"], serde_json::json!({"tlsBootstrapToken": "a"}));

    let both = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\ntimeouts:\n  controlPlaneComponentHealthCheck: 9m\n---\n\
                apiVersion: kubeadm.k8s.io/v1beta3\nkind: ClusterConfiguration\napiServer:\n  timeoutForControlPlane: 4m\n";
    let documents = read(both);
    let value = Value::Object(documents.found[&Kind::Init].value.clone());
    assert_eq!(value["timeouts"]["controlPlaneComponentHealthCheck"], "9m0s");
}

#[test]
fn kube_proxys_mode_gives_way_to_wefts_and_an_unknown_one_is_wrong() {
    let proxy = |mode: &str| {
        format!("apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: {mode}\n")
    };
    let weft = "---\napiVersion: weft.dev/v1\nkind: WeftConfiguration\nproxyMode: auto\n";
    let documents = read(&(proxy("ipvs") + weft));
    assert_eq!(documents.found[&Kind::Weft].value["proxyMode"], "auto");
    assert_eq!(read(&proxy("iptables")).found[&Kind::Weft].value["proxyMode"], "nftables");
    let wrong = read(&proxy("userspace"));
    assert!(wrong.findings.iter().any(|finding| finding.weight == Weight::Wrong), "{:?}", wrong.findings);
}

#[test]
fn a_socket_without_scheme_gets_one() {
    let text = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: JoinConfiguration\nnodeRegistration: {criSocket: /run/crio/crio.sock}\n";
    let documents = read(text);
    assert_eq!(documents.found[&Kind::Join].value["nodeRegistration"]["criSocket"], "unix:///run/crio/crio.sock");
    assert_eq!(documents.findings.len(), 1);
}
