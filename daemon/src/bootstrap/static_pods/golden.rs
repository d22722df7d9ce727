//! Facts of upstream: what `kubeadm init --dry-run` writes, read, must equal what weft writes.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use weft_tests::node::peers;
use weft_tests::{skip, tool};

use super::*;
use crate::bootstrap::config::model::{
    ApiServer, Component, EncryptionAlgorithm, ExternalEtcd, HostPathMount, LocalEtcd, NodeRegistration,
};
use crate::bootstrap::kubelet::flags::{self, Role};

/// A cluster as its defaults make it.
pub(crate) fn cluster() -> Cluster {
    Cluster {
        kubernetes_version: "v1.36.2".into(),
        name: "kubernetes".into(),
        service_subnets: vec!["10.96.0.0/12".parse().unwrap()],
        pod_subnets: vec!["10.244.0.0/16".parse().unwrap()],
        dns_domain: "cluster.local".into(),
        control_plane_endpoint: None,
        image_repository: "registry.k8s.io".into(),
        certificates_dir: "/etc/kubernetes/pki".into(),
        encryption: EncryptionAlgorithm::EcdsaP256,
        certificate_validity: Duration::from_secs(8760 * 3600),
        ca_validity: Duration::from_secs(87600 * 3600),
        api_server: ApiServer::default(),
        controller_manager: Component::default(),
        scheduler: Component::default(),
        etcd: EtcdPlace::Local {
            config: LocalEtcd::default(),
            image: "registry.k8s.io/etcd:3.6.8-0".into(),
            data_dir: "/var/lib/etcd".into(),
        },
        dns: None,
    }
}

/// Its first node.
pub(crate) fn node() -> Node {
    Node {
        name: "n1".into(),
        hostname: "host".into(),
        address: "192.0.2.10".parse().unwrap(),
        second_address: None,
        bind_port: 6443,
        taints: Vec::new(),
        registration: NodeRegistration::default(),
        cri_socket: "unix:///var/run/containerd/containerd.sock".into(),
    }
}

fn arg(name: &str, value: &str) -> Arg {
    Arg { name: name.into(), value: value.into() }
}

/// What upstream writes into a folder for this configuration.
pub(in crate::bootstrap) fn dry_run(kubeadm: &Path, folder: &Path, configuration: &str) -> PathBuf {
    let (file, out) = (folder.join("kubeadm.yaml"), folder.join("out"));
    fs::write(&file, configuration).unwrap();
    fs::create_dir(&out).unwrap();
    let mut command = tool::command(kubeadm);
    command.args(["init", "--dry-run", "--ignore-preflight-errors=all", "--config"]).arg(file);
    for proxy in ["http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "all_proxy"] {
        command.env_remove(proxy);
    }
    tool::run(command.env("KUBEADM_INIT_DRYRUN_DIR", &out)).unwrap();
    out
}

/// A file of upstream's, with what has no order sorted.
pub(in crate::bootstrap) fn read(folder: &Path, name: &str) -> Value {
    serde_saphyr::from_str(&fs::read_to_string(folder.join(name)).unwrap()).unwrap()
}

/// Mounts have no order, and upstream sorts those of all but etcd.
fn sorted(mut pod: Value) -> Value {
    if let Some(Value::Array(mounts)) = pod.pointer_mut("/spec/containers/0/volumeMounts") {
        mounts.sort_by_key(|mount| mount["name"].to_string());
    }
    pod
}

fn compare(configuration: &str, cluster: &Cluster, node: &Node, start_limit: Duration) {
    if let Err(reason) = peers::check(&["kubeadm"]) {
        skip!("{reason}");
    }
    let folder = tempfile::tempdir().unwrap();
    let out = dry_run(&peers::need("kubeadm").unwrap(), folder.path(), configuration);
    let facts = Facts { ca_directories: ca_directories(Path::new("/")), start_limit, ..Facts::default() };
    let ours = manifests(cluster, node, &facts);
    for part in Part::ALL {
        let ours = ours.iter().find(|manifest| manifest.part == part);
        let file = format!("{}.yaml", part.name());
        assert_eq!(ours.is_some(), out.join(&file).exists(), "{file}");
        if let Some(ours) = ours {
            assert_eq!(sorted(ours.pod.clone()), sorted(read(&out, &file)), "{file}");
        }
    }
    let theirs = fs::read_to_string(out.join("kubeadm-flags.env")).unwrap();
    assert_eq!(flags::environment_file(node, Role::ControlPlane, &[]).unwrap(), theirs);
    let instance: Value = read(&out, "instance-config.yaml");
    assert_eq!(instance["containerRuntimeEndpoint"], node.cri_socket);
}

fn limit() -> Duration {
    Facts::default().start_limit
}

#[test]
fn i01_defaults_are_upstreams() {
    let configuration = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\n\
        localAPIEndpoint: {advertiseAddress: 192.0.2.10}\n\
        nodeRegistration: {name: n1, criSocket: 'unix:///var/run/containerd/containerd.sock'}\n---\n\
        apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: v1.36.2\n\
        networking: {podSubnet: 10.244.0.0/16}\n";
    compare(configuration, &cluster(), &node(), limit());
}

#[test]
fn i01_ipv6_is_upstreams() {
    let configuration = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\n\
        localAPIEndpoint: {advertiseAddress: '2001:db8::10'}\n\
        nodeRegistration: {name: n1, criSocket: 'unix:///var/run/containerd/containerd.sock'}\n---\n\
        apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: v1.36.2\n\
        controlPlaneEndpoint: api.example:8443\n\
        networking: {podSubnet: 'fd00:10::/56', serviceSubnet: 'fd00:96::/112'}\n";
    let cluster = Cluster {
        pod_subnets: vec!["fd00:10::/56".parse().unwrap()],
        service_subnets: vec!["fd00:96::/112".parse().unwrap()],
        control_plane_endpoint: Some(("api.example".into(), 8443)),
        ..cluster()
    };
    compare(configuration, &cluster, &Node { address: "2001:db8::10".parse().unwrap(), ..node() }, limit());
}

#[test]
fn i01_everything_that_can_be_configured_is_upstreams() {
    let configuration = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\n\
        localAPIEndpoint: {advertiseAddress: 192.0.2.10, bindPort: 7443}\n\
        nodeRegistration: {name: n1, criSocket: 'unix:///run/x.sock', kubeletExtraArgs: [{name: node-ip, value: 192.0.2.10}, {name: v, value: '2'}]}\n\
        timeouts: {controlPlaneComponentHealthCheck: 5m5s}\n---\n\
        apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: v1.36.2\nclusterName: blue\n\
        certificatesDir: /srv/pki\nimageRepository: mirror.example/k8s\n\
        networking: {serviceSubnet: '10.96.0.0/16,fd00:96::/112', podSubnet: '10.244.0.0/16,fd00:10::/56', dnsDomain: example.org}\n\
        apiServer:\n  extraArgs: [{name: v, value: '4'}, {name: authorization-config, value: /x}, {name: runtime-config, value: a}, {name: runtime-config, value: b}]\n  \
        extraEnvs: [{name: ZED, value: '1'}, {name: ABLE, value: '2'}]\n  \
        extraVolumes: [{name: audit, hostPath: /var/log/audit, mountPath: /audit, readOnly: true, pathType: Directory}, {name: zz, hostPath: /z, mountPath: /zz}]\n\
        controllerManager: {extraArgs: [{name: bind-address, value: 0.0.0.0}]}\n\
        scheduler: {extraArgs: [{name: bind-address, value: '::'}]}\n\
        etcd: {external: {endpoints: ['https://a:2379', 'https://b:2379'], caFile: /srv/etcd/ca/ca.crt, certFile: /srv/etcd/c.crt, keyFile: /srv/key/c.key}}\n";
    let mut node = Node { bind_port: 7443, cri_socket: "unix:///run/x.sock".into(), ..node() };
    node.registration.kubelet_extra_args = vec![arg("node-ip", "192.0.2.10"), arg("v", "2")];
    let variable = |name: &str, value: &str| EnvVar { name: name.into(), value: value.into(), value_from: None };
    let audit = HostPathMount {
        name: "audit".into(),
        host_path: "/var/log/audit".into(),
        mount_path: "/audit".into(),
        read_only: true,
        path_type: Some("Directory".into()),
    };
    let zz = HostPathMount {
        name: "zz".into(),
        host_path: "/z".into(),
        mount_path: "/zz".into(),
        ..HostPathMount::default()
    };
    let component = |args: Vec<Arg>| Component { extra_args: args, ..Component::default() };
    let cluster = Cluster {
        name: "blue".into(),
        certificates_dir: "/srv/pki".into(),
        image_repository: "mirror.example/k8s".into(),
        service_subnets: vec!["10.96.0.0/16".parse().unwrap(), "fd00:96::/112".parse().unwrap()],
        pod_subnets: vec!["10.244.0.0/16".parse().unwrap(), "fd00:10::/56".parse().unwrap()],
        dns_domain: "example.org".into(),
        api_server: ApiServer {
            component: Component {
                extra_args: vec![
                    arg("v", "4"),
                    arg("authorization-config", "/x"),
                    arg("runtime-config", "a"),
                    arg("runtime-config", "b"),
                ],
                extra_envs: vec![variable("ZED", "1"), variable("ABLE", "2")],
                extra_volumes: vec![audit, zz],
            },
            cert_sans: Vec::new(),
        },
        controller_manager: component(vec![arg("bind-address", "0.0.0.0")]),
        scheduler: component(vec![arg("bind-address", "::")]),
        etcd: EtcdPlace::External(ExternalEtcd {
            endpoints: vec!["https://a:2379".into(), "https://b:2379".into()],
            http_endpoints: Vec::new(),
            ca_file: "/srv/etcd/ca/ca.crt".into(),
            cert_file: "/srv/etcd/c.crt".into(),
            key_file: "/srv/key/c.key".into(),
        }),
        ..cluster()
    };
    compare(configuration, &cluster, &node, Duration::from_secs(305));
}

#[test]
fn i01_an_etcd_of_ones_own_making_is_upstreams() {
    let configuration = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\n\
        localAPIEndpoint: {advertiseAddress: 192.0.2.10}\n\
        nodeRegistration: {name: n1, criSocket: 'unix:///var/run/containerd/containerd.sock'}\n---\n\
        apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: v1.36.2\n\
        etcd: {local: {dataDir: /srv/etcd, imageTag: 3.6.1-0, extraEnvs: [{name: B, value: x}], extraArgs: [{name: listen-metrics-urls, value: 'http://127.0.0.9:2382'}, \
        {name: snapshot-count, value: '5'}, {name: advertise-client-urls, value: 'https://192.0.2.10:2399'}]}}\n";
    let config = LocalEtcd {
        extra_args: vec![
            arg("listen-metrics-urls", "http://127.0.0.9:2382"),
            arg("snapshot-count", "5"),
            arg("advertise-client-urls", "https://192.0.2.10:2399"),
        ],
        extra_envs: vec![EnvVar { name: "B".into(), value: "x".into(), value_from: None }],
        ..LocalEtcd::default()
    };
    let image = "registry.k8s.io/etcd:3.6.1-0".into();
    let etcd = EtcdPlace::Local { config, image, data_dir: "/srv/etcd".into() };
    compare(configuration, &Cluster { etcd, pod_subnets: Vec::new(), ..cluster() }, &node(), limit());
}
