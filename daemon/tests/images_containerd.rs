//! Images and pods of a real containerd: what bring-up does before there is a cluster.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, CreateContainerRequest, ImageSpec, LinuxContainerConfig, LinuxPodSandboxConfig,
    LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxMetadata,
    RunPodSandboxRequest, StartContainerRequest,
};
use tokio::runtime::Runtime;
use weft::bootstrap::cri::{
    CgroupDriver, ContainerState, Cri, Health, Rehearsal, Removal, labels, last_lines, pod_labels,
};
use weft::bootstrap::images::{
    Change, Containerd as Images, ImageError, Names, Own, Pulls, Sources, Wanted, What, load_into, name_sandbox_image,
    provide, save,
};
use weft_tests::cni::Host;
use weft_tests::containerd::Containerd;
use weft_tests::{binaries, skip, tool, wait};

/// How long a container may take to end on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
/// With it, weft's plugin says that the node has a network.
const SUBNET_FILE: &str =
    "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
/// Stands in for a component that does not start.
const FALLS_OVER: &str =
    "#include <stdio.h>\nint main(void) { puts(\"one\"); fputs(\"bad flag\\n\", stderr); return 3; }\n";
const PROGRAM: &str = "kube-apiserver";
const IMAGE: &str = "registry.k8s.io/kube-apiserver:v1.36.2";
/// The sandbox image that the test's containerd is configured with.
const PAUSE: &str = "localhost/pause:1";

/// A containerd, what it is given, and a runtime to ask it with.
struct Bench<'a> {
    host: &'a Host,
    cri: Cri,
    sources: Sources,
    runtime: &'a Runtime,
}

impl<'a> Bench<'a> {
    fn new(host: &'a Host, runtime: &'a Runtime) -> Self {
        let programs = host.scratch.join("programs");
        fs::create_dir_all(&programs).unwrap();
        let source = host.scratch.join("falls-over.c");
        fs::write(&source, FALLS_OVER).unwrap();
        tool::run(tool::command("musl-gcc").args(["-static", "-Os", "-o"]).arg(programs.join(PROGRAM)).arg(&source))
            .unwrap();
        let own = Own { weft: binaries::find("weft").unwrap(), plugin: binaries::find("weft-cni").unwrap() };
        let scratch = host.scratch.join("unpacked");
        let sources = Sources { programs: Some(programs), own: Some(own), scratch, ..Default::default() };
        let socket = format!("unix://{}", socket(host).display());
        let cri = runtime.block_on(Cri::connect(&socket)).unwrap();
        Self { host, cri, sources, runtime }
    }

    fn provide(&self) -> Vec<(String, Change)> {
        let wanted = [(What::ApiServer, IMAGE), (What::Pause, PAUSE)];
        let wanted = wanted.map(|(what, name)| Wanted { what, name: name.to_owned() });
        let provided = self.runtime.block_on(provide(&self.cri, &wanted, &self.sources, &|_| {})).unwrap();
        assert_eq!(provided.pulled, Vec::<String>::new());
        provided.imported.into_iter().map(|image| (image.name, image.change)).collect()
    }

    fn has(&self, image: &str) -> bool {
        self.runtime.block_on(self.cri.find_image(image)).unwrap().is_some()
    }

    fn cgroup(&self) -> String {
        format!("/{}", self.host.netns.name())
    }

    fn sandbox(&self, name: &str, labels: HashMap<String, String>) -> (String, PodSandboxConfig) {
        let node = NamespaceMode::Node.into();
        let options = NamespaceOption { network: node, pid: 0, ipc: node, ..Default::default() };
        let security = LinuxSandboxSecurityContext { namespace_options: Some(options), ..Default::default() };
        let linux = LinuxPodSandboxConfig {
            cgroup_parent: self.cgroup(),
            security_context: Some(security),
            ..Default::default()
        };
        let metadata = PodSandboxMetadata {
            name: name.into(),
            uid: format!("uid-{name}"),
            namespace: "kube-system".into(),
            attempt: 0,
        };
        let config = PodSandboxConfig {
            metadata: Some(metadata),
            log_directory: self.host.scratch.join("pod-logs").display().to_string(),
            labels,
            linux: Some(linux),
            ..Default::default()
        };
        let request = RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
        let mut runtime = RuntimeServiceClient::new(self.cri.channel());
        let answer = self.runtime.block_on(runtime.run_pod_sandbox(request)).unwrap();
        (answer.into_inner().pod_sandbox_id, config)
    }

    /// Runs a container as kubelet does for a static pod: by the program's name alone.
    fn container(&self, sandbox: &str, pod: PodSandboxConfig) -> String {
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: PROGRAM.into(), attempt: 2 }),
            image: Some(ImageSpec { image: IMAGE.into(), ..Default::default() }),
            command: vec![PROGRAM.into()],
            labels: pod.labels.clone(),
            log_path: "0.log".into(),
            linux: Some(LinuxContainerConfig::default()),
            ..Default::default()
        };
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(pod),
        };
        let mut runtime = RuntimeServiceClient::new(self.cri.channel());
        self.runtime.block_on(async {
            let container_id = runtime.create_container(request).await.unwrap().into_inner().container_id;
            let start = StartContainerRequest { container_id: container_id.clone() };
            runtime.start_container(start).await.unwrap();
            container_id
        })
    }
}

fn socket(host: &Host) -> PathBuf {
    host.scratch.join("containerd.sock")
}

fn kubelets(name: &str) -> HashMap<String, String> {
    let mut all: HashMap<String, String> = pod_labels("kube-system", name).into_iter().collect();
    all.insert(labels::UID.into(), format!("uid-{name}"));
    all
}

/// The whole way: programs become images, the pause image is weft's own, a component that falls over is seen to, and only
/// kubelet's pods go.
fn life(folder: &Path, driver: Option<CgroupDriver>) {
    let (host, runtime) = (Host::new(), Runtime::new().unwrap());
    fs::write(host.subnet_file(), SUBNET_FILE).unwrap();
    let _containerd = Containerd::start(&host, folder).unwrap();
    let bench = Bench::new(&host, &runtime);
    let health = runtime.block_on(bench.cri.health()).unwrap();
    assert_eq!((health.name.as_str(), &health.not_ready, health.cgroup_driver), ("containerd", &None, driver));

    p0_5_the_pause_image_is_tried(&bench);
    pods(&bench);
    archives(&bench);
}

fn p0_5_the_pause_image_is_tried(bench: &Bench<'_>) {
    let rehearse = || bench.runtime.block_on(bench.cri.rehearse(None, Some(&bench.cgroup()))).unwrap();
    bench.runtime.block_on(bench.cri.remove_image(PAUSE)).unwrap();
    let Rehearsal::Failed { cause, fix } = rehearse() else { panic!("there is no pause image, and it passed") };
    assert!(fix.contains("sandbox_image"), "{cause}: {fix}");
    assert_eq!(bench.provide(), [(IMAGE.into(), Change::Made), (PAUSE.into(), Change::Made)]);
    let Rehearsal::Passed { sandbox } = rehearse() else { panic!("the pause image is there") };
    for _ in 0..2 {
        bench.runtime.block_on(bench.cri.end_sandbox(&sandbox)).unwrap();
    }
    let health = bench.runtime.block_on(bench.cri.health()).unwrap();
    let named = bench.runtime.block_on(name_sandbox_image(&bench.cri, &health, PAUSE)).unwrap();
    assert_eq!(named, health.sandbox_image.is_some().then_some(Change::Kept), "{health:?}");
    let other = Health { sandbox_image: Some("registry.example/pause:1".into()), ..health };
    let named = bench.runtime.block_on(name_sandbox_image(&bench.cri, &other, PAUSE)).unwrap();
    assert_eq!(named, Some(Change::Made));
    assert!(bench.has("registry.example/pause:1"));
    // A second run finds all of it.
    assert_eq!(bench.provide(), [(IMAGE.into(), Change::Kept)]);
    assert_eq!(bench.runtime.block_on(bench.cri.sandboxes(&BTreeMap::new())).unwrap(), []);
}

fn pods(bench: &Bench<'_>) {
    let (sandbox, pod) = bench.sandbox("kube-apiserver-n1", kubelets("kube-apiserver-n1"));
    let (foreign, _) = bench.sandbox("foreign", HashMap::new());
    let id = bench.container(&sandbox, pod);
    let labels = pod_labels("kube-system", "kube-apiserver-n1");
    let container = || bench.runtime.block_on(bench.cri.containers(&labels)).unwrap().remove(0);
    wait::until(LIMIT, "the container's end", || container().state == ContainerState::Exited).unwrap();
    assert_eq!(
        (container().id.as_str(), container().attempt, container().sandbox.as_str()),
        (id.as_str(), 2, &*sandbox)
    );
    let ended = bench.runtime.block_on(bench.cri.ended(&id)).unwrap();
    assert_eq!(ended.exit_code, 3);
    let mut lines = last_lines(&ended.log, 20).unwrap();
    // The two streams come in no order.
    lines.sort();
    assert_eq!(lines, ["bad flag", "one"]);

    // R09: foreign sandboxes survive.
    let removals = bench.runtime.block_on(bench.cri.remove_kubelet_pods(|_| true)).unwrap();
    let removed = |removal: &Removal| match removal {
        Removal::Removed(sandbox) => (sandbox.id.clone(), true),
        Removal::Foreign(sandbox) => (sandbox.id.clone(), false),
        Removal::Stuck(sandbox, error) => panic!("{}: {error}", sandbox.name),
    };
    let mut removals: Vec<(String, bool)> = removals.iter().map(removed).collect();
    removals.sort_by_key(|(_, removed)| *removed);
    assert_eq!(removals, [(foreign.clone(), false), (sandbox, true)]);
    let left = bench.runtime.block_on(bench.cri.sandboxes(&BTreeMap::new())).unwrap();
    assert_eq!(left.iter().map(|sandbox| (&sandbox.id, sandbox.ready)).collect::<Vec<_>>(), [(&foreign, true)]);
}

/// What is saved on one node can be loaded on another; here, that is the same one, after it has lost the image.
fn archives(bench: &Bench<'_>) {
    let path = bench.host.scratch.join("saved.tar");
    let containerd = Images::of(&bench.cri);
    let saved = bench.runtime.block_on(save(&containerd, &[IMAGE.into()], &path)).unwrap();
    assert_eq!(saved, [IMAGE]);
    bench.runtime.block_on(bench.cri.remove_image(IMAGE)).unwrap();
    assert!(!bench.has(IMAGE));
    let load = || bench.runtime.block_on(load_into(&bench.cri, &path, bench.host.scratch.path(), &|_| {})).unwrap();
    assert_eq!(load()[0].change, Change::Made);
    assert!(bench.has(IMAGE));
    assert_eq!(load()[0].change, Change::Kept);

    // P0 6: nothing is pulled unless that is asked for.
    let wanted = Names::usual("registry.k8s.io", "v1.36.2").wanted(true);
    let nothing = Sources::default();
    let error = bench.runtime.block_on(provide(&bench.cri, &wanted, &nothing, &|_| {})).unwrap_err();
    let ImageError::Missing(names) = error else { panic!("{error}") };
    assert!(!names.contains(&IMAGE.to_owned()) && names.contains(&"registry.k8s.io/pause:3.10.2".to_owned()));

    // P0 4: a registry that nobody answers for is told of in time, with the ways around it.
    let begin = std::time::Instant::now();
    let wanted = [Wanted { what: What::Etcd, name: "127.0.0.1:1/etcd:3".into() }];
    let sources = Sources { pull: Some(Pulls::default()), ..Default::default() };
    let error = bench.runtime.block_on(provide(&bench.cri, &wanted, &sources, &|_| {})).unwrap_err();
    assert!(matches!(error, ImageError::Unreachable { .. }), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());

    let output = tool::command(env!("CARGO_BIN_EXE_weft"))
        .args(["images", "list", "-o", "json", "--cri-socket"])
        .arg(socket(bench.host))
        .output()
        .unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let present = |name: &str| answer["images"].as_array().unwrap().iter().find(|image| image["name"] == name).unwrap();
    assert_eq!(present(IMAGE)["present"], true);
    assert_eq!(present("registry.k8s.io/etcd:3.6.8-0")["present"], false);
}

#[test]
fn images_in_debians_containerd() {
    if tool::call("containerd", &["--version"]).is_err() || tool::call("runc", &["--version"]).is_err() {
        skip!("containerd and runc are not installed");
    }
    if let Err(error) = binaries::find("weft") {
        skip!("{error}");
    }
    life(Path::new("/usr/bin"), None);
}

#[test]
fn images_in_containerd_2() {
    let Some(folder) = std::env::var_os("WEFT_PEERS").map(PathBuf::from).filter(|dir| dir.join("containerd").is_file())
    else {
        skip!("needs containerd in the folder WEFT_PEERS");
    };
    if let Err(error) = binaries::find("weft") {
        skip!("{error}");
    }
    life(&folder, Some(CgroupDriver::Cgroupfs));
}
