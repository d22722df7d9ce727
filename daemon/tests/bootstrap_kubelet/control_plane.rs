//! The command lines of the static pods start a real control plane, and waiting sees it get well.

use std::fs;
use std::path::Path;
use std::time::Duration;

use futures_util::FutureExt;
use serde_json::Value;
use weft::bootstrap::config::model::{ApiServer, Arg, Component, EncryptionAlgorithm, LocalEtcd, NodeRegistration};
use weft::bootstrap::kubelet::config::{Host, Swap, cluster_wide, for_node};
use weft::bootstrap::patches::Patches;
use weft::bootstrap::resolved::{Cluster, EtcdPlace, Limits, Node, Paths};
use weft::bootstrap::static_pods::{EtcdVersion, Facts, Manifest, manifests, write};
use weft::bootstrap::waiting::evidence::Evidence;
use weft::bootstrap::waiting::poll::{Progress, wait};
use weft::bootstrap::waiting::probe::Client;
use weft::bootstrap::waiting::targets;
use weft::bootstrap::yaml;
use weft_tests::netns::OwnedNetns;
use weft_tests::node::peers;
use weft_tests::process::{self, ProcessId};
use weft_tests::scratch::{Scratch, unique_name};
use weft_tests::{skip, tool};

const ADDRESS: &str = "192.0.2.10";

fn cluster(pki: &Path, data_dir: &Path) -> Cluster {
    let flag = |name: &str, value: &str| Arg { name: name.into(), value: value.into() };
    Cluster {
        kubernetes_version: "v1.36.2".into(),
        name: "kubernetes".into(),
        service_subnets: vec!["10.96.0.0/12".parse().unwrap()],
        pod_subnets: vec!["10.244.0.0/16".parse().unwrap()],
        dns_domain: "cluster.local".into(),
        control_plane_endpoint: None,
        image_repository: "registry.k8s.io".into(),
        certificates_dir: pki.into(),
        encryption: EncryptionAlgorithm::EcdsaP256,
        certificate_validity: Duration::from_secs(3600),
        ca_validity: Duration::from_secs(3600),
        api_server: ApiServer::default(),
        controller_manager: Component::default(),
        scheduler: Component::default(),
        etcd: EtcdPlace::Local {
            config: LocalEtcd { extra_args: vec![flag("unsafe-no-fsync", "true")], ..LocalEtcd::default() },
            image: "registry.k8s.io/etcd:3.6.8-0".into(),
            data_dir: data_dir.into(),
        },
        dns: None,
    }
}

fn node() -> Node {
    Node {
        name: "n1".into(),
        hostname: "n1".into(),
        address: ADDRESS.parse().unwrap(),
        second_address: None,
        bind_port: 6443,
        taints: Vec::new(),
        registration: NodeRegistration::default(),
        cri_socket: "unix:///run/containerd/containerd.sock".into(),
    }
}

/// What runs, ended when the test ends.
struct Running(Vec<(String, ProcessId)>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.iter().rev().for_each(|(_, process)| process.kill());
    }
}

/// The container's command as a process: what a kubelet would start, with the kubeconfigs where the test has them.
fn start(machine: &OwnedNetns, manifest: &Manifest, files: &Path, logs: &Path) -> (String, ProcessId) {
    let command = manifest.pod.pointer("/spec/containers/0/command").and_then(Value::as_array).unwrap();
    let words: Vec<String> = command
        .iter()
        .map(|word| word.as_str().unwrap().replace("=/etc/kubernetes/", &format!("={}/", files.display())))
        .collect();
    let mut process = tool::command(peers::need(&words[0]).unwrap());
    process.args(&words[1..]);
    let started = process::spawn(machine, &mut process, &logs.join(format!("{}.log", words[0]))).unwrap();
    (words[0].clone(), started)
}

#[test]
fn the_command_lines_of_the_static_pods_start_a_control_plane_and_waiting_sees_it() {
    if let Err(reason) =
        peers::check(&["kubeadm", "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"])
    {
        skip!("{reason}");
    }
    let folder = Scratch::new();
    let files = folder.join("kubernetes");
    fs::create_dir(&files).unwrap();
    // Certificates of upstream's making.
    let mut upstream = tool::command(peers::need("kubeadm").unwrap());
    upstream.args([
        "init",
        "--dry-run",
        "--ignore-preflight-errors=all",
        "--kubernetes-version=v1.36.2",
        "--node-name=n1",
    ]);
    upstream.args([&format!("--apiserver-advertise-address={ADDRESS}"), "--pod-network-cidr=10.244.0.0/16"]);
    tool::run(upstream.env("KUBEADM_INIT_DRYRUN_DIR", &files)).unwrap();

    let machine = OwnedNetns::new(unique_name());
    machine.tool("ip", &["address", "add", &format!("{ADDRESS}/32"), "dev", "lo"]).unwrap();
    let (cluster, node) = (cluster(&files, &folder.join("etcd")), node());
    let paths = Paths::under(folder.join("root"));
    let version = tool::call(&peers::need("etcd").unwrap().display().to_string(), &["--version"]).unwrap();
    let facts = Facts { etcd_version: EtcdVersion::parse(&version).unwrap(), ..Facts::default() };
    let mut running = Running(Vec::new());
    fs::create_dir(folder.join("etcd")).unwrap();
    for manifest in manifests(&cluster, &node, &facts) {
        write(&paths, &cluster, &manifest, &Patches::default()).unwrap();
        running.0.push(start(&machine, &manifest, &files, folder.path()));
    }
    let targets = targets::all(&paths, &Limits::default()).unwrap();
    assert_eq!(targets.len(), 4);
    let mut told = Vec::new();
    let outcome = machine.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let gather = || async { Evidence::default() }.boxed();
        runtime.block_on(wait(&targets, &Client::anonymous().unwrap(), &gather, &mut |progress| told.push(progress)))
    });
    let logs = || {
        let names = running
            .0
            .iter()
            .map(|(name, _)| fs::read_to_string(folder.join(format!("{name}.log"))).unwrap_or_default());
        names.map(|log| log.lines().rev().take(10).collect::<Vec<_>>().join("\n")).collect::<Vec<_>>().join("\n---\n")
    };
    outcome.unwrap().unwrap_or_else(|error| panic!("{error}\n{}", logs()));
    assert_eq!(told.iter().filter(|progress| matches!(progress, Progress::Healthy { .. })).count(), 4, "{told:?}");
}

#[test]
fn kubelet_takes_the_configuration() {
    if let Err(reason) = peers::check(&["kubelet"]) {
        skip!("{reason}");
    }
    let folder = Scratch::new();
    let services = weft::bootstrap::kubelet::service::ServiceManager::Systemd("/none".into());
    let host = Host::detect(Path::new("/"), &services, None, Swap::Tolerated);
    let wide = cluster_wide(&cluster(Path::new("/etc/kubernetes/pki"), Path::new("/var/lib/etcd")), None);
    let config = for_node(&wide.value, &host, &node(), &Patches::default()).unwrap();
    let file = folder.join("config.yaml");
    let say = |config: &Value| {
        fs::write(&file, yaml::to_string(config)).unwrap();
        // Without a kubeconfig it ends right after it has checked its configuration, and before it touches anything.
        let mut kubelet = tool::command(peers::need("kubelet").unwrap());
        kubelet
            .arg(format!("--config={}", file.display()))
            .arg(format!("--kubeconfig={}", folder.join("none").display()));
        kubelet.arg(format!("--root-dir={}", folder.join("kubelet").display()));
        tool::run(&mut kubelet).unwrap_err().to_string()
    };
    let said = say(&config);
    assert!(said.contains("unable to load kubeconfig") && !said.contains("strict decoding"), "{said}");
    let mut wrong = config;
    wrong["maxPods"] = (-1).into();
    wrong["noSuchField"] = true.into();
    let said = say(&wrong);
    assert!(said.contains("failed to validate kubelet configuration") && said.contains("noSuchField"), "{said}");
}
