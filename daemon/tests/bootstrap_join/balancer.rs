//! A worker whose configuration has the balancer of the API no more, and then again: the files that phases of join leave, and
//! kubelet's way to a real API server. kubelet is a stand-in that is well and notes when it is started anew.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use clap::Parser;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use weft::balancer::{Options, run};
use weft::bootstrap::api::{upload_kubeadm_config, upload_kubelet_config};
use weft::bootstrap::config::{Facts, JoinFlags, join};
use weft::bootstrap::journal::{Change, Journal, Stage};
use weft::bootstrap::kubeconfig::Kubeconfig;
use weft::bootstrap::kubelet::service::ServiceManager;
use weft::bootstrap::phases::join::Join;
use weft::bootstrap::phases::{Format, Teller};
use weft::bootstrap::resolved::Paths;
use weft::bootstrap::stable_name;
use weft_tests::scratch::Scratch;

use crate::control_plane::ControlPlane;
use crate::etcd::free_port;

const HOSTS: &str = "127.0.0.1 localhost\n";

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    flags: JoinFlags,
}

/// A worker that has joined.
struct Worker {
    root: Scratch,
    paths: Paths,
    /// The balancer's.
    port: u16,
}

impl Worker {
    async fn new(plane: &ControlPlane) -> Self {
        let root = Scratch::new();
        let paths = Paths::under(root.path());
        let worker = Self { root, paths, port: free_port() };
        let server = plane.server().await;
        let cluster = format!(
            "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: v1.36.0\n\
             controlPlaneEndpoint: {}\napiServer: {{certSANs: [{}]}}\n",
            plane.address,
            stable_name::NAME
        );
        upload_kubeadm_config(&server, &cluster).await.unwrap();
        let kubelet = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
        upload_kubelet_config(&server, kubelet, true).await.unwrap();
        worker.lay_out(plane);
        worker.is_well().await;
        worker
    }

    fn lay_out(&self, plane: &ControlPlane) {
        for directory in ["etc/kubernetes", "var/lib/kubelet"] {
            fs::create_dir_all(self.root.join(directory)).unwrap();
        }
        fs::write(self.root.join("etc/hosts"), HOSTS).unwrap();
        let issued = plane.authority.client("system:node:w1", Some("system:nodes"));
        let path = plane.kubeconfig("w1.conf", &issued);
        fs::rename(path, self.kubeconfig()).unwrap();
        let phase = Change::Phase { name: "kubelet-start".into(), config_hash: "1".into() };
        Journal::open(&self.paths).unwrap().begin(phase).unwrap();
        // It notes what kubelet finds when it starts: its server, static pods, and the balancer's lists.
        let program = format!(
            "#!/bin/sh\ncase $1 in is-active) exit 0;; esac\n\
             echo \"$1 $2 $(sed -n 's/.*server: *//p' '{}' | tr -d '\"')\" $(ls -A '{}') $(ls -A '{}') >> '{}'\n",
            self.kubeconfig().display(),
            self.paths.manifests().display(),
            stable_name::directory(&self.paths).display(),
            self.root.join("systemctl.log").display()
        );
        fs::write(self.root.join("systemctl"), program).unwrap();
        fs::set_permissions(self.root.join("systemctl"), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Answers for kubelet.
    async fn is_well(&self) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        fs::write(self.paths.kubelet.join("config.yaml"), format!("healthzPort: {port}\n")).unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
            }
        });
    }

    fn kubeconfig(&self) -> std::path::PathBuf {
        self.paths.kubernetes.join("kubelet.conf")
    }

    /// Where kubelet finds the API, and by which name it knows it.
    fn way(&self) -> (String, Option<String>) {
        let config = Kubeconfig::load(&self.kubeconfig()).unwrap().unwrap();
        (config.server().unwrap().to_owned(), config.server_name().map(str::to_owned))
    }

    fn directs_to_balancer(&self) -> (String, Option<String>) {
        (format!("https://127.0.0.1:{}", self.port), Some(stable_name::NAME.to_owned()))
    }

    /// Runs a phase of join with the balancer wanted or not.
    async fn phase(&self, name: &str, balancer: bool) {
        let file = self.root.join("join.yaml");
        let text = format!(
            "apiVersion: kubeadm.k8s.io/v1beta4\nkind: JoinConfiguration\ndiscovery:\n  bootstrapToken: {{token: \
             abcdef.0123456789abcdef, apiServerEndpoint: '192.0.2.1:6443', unsafeSkipCAVerification: true}}\n\
             nodeRegistration: {{name: w1, ignorePreflightErrors: [IsPrivilegedUser]}}\n---\napiVersion: \
             weft.dev/v1\nkind: WeftConfiguration\nnodeIP: 192.0.2.20\napiBalancer: {balancer}\napiBalancerPort: {}\n",
            self.port
        );
        fs::write(&file, text).unwrap();
        let line = Line::parse_from(["join", "--config", file.to_str().unwrap()]);
        let config = join(&line.flags, &Facts::gather(Path::new("/")).unwrap()).unwrap();
        let tell = Teller::without_log(Format::Text);
        let services = ServiceManager::Systemd(self.root.join("systemctl"));
        let mut run = Join::new(&config, None, &self.paths, services, &tell).unwrap();
        run.run(&[name.to_owned()]).await.unwrap();
    }

    /// The lines of starts, and forgets them.
    fn starts(&self) -> String {
        let log = self.root.join("systemctl.log");
        let lines = fs::read_to_string(&log).unwrap_or_default();
        let _ = fs::remove_file(log);
        lines
    }

    /// Whether the balancer is there in whole, or has left nothing.
    fn has_balancer(&self) -> bool {
        let manifest = self.paths.manifests().join("weft-api-balancer.yaml").exists();
        let directory = stable_name::directory(&self.paths).exists();
        let hosts = fs::read_to_string(self.root.join("etc/hosts")).unwrap();
        assert!(manifest == directory && manifest == (hosts != HOSTS), "{manifest} {directory} {hosts}");
        let entries = Journal::read(&self.paths).unwrap();
        let is_of_it = |change: &Change| match change {
            Change::FileMade { path, .. } => path.starts_with(stable_name::directory(&self.paths)),
            Change::BlockAdded { .. } => true,
            _ => false,
        };
        let live = entries.iter().any(|entry| entry.stage != Stage::Undone && is_of_it(&entry.change));
        assert_eq!(live, manifest, "what a reset has to undo: {entries:?}");
        manifest
    }
}

/// Forwards as the static pod would, until it is dropped.
struct Pod(tokio::task::JoinHandle<()>);

impl Pod {
    fn start(worker: &Worker) -> Self {
        let options = Options {
            listen: vec![([127, 0, 0, 1], worker.port).into()],
            state: stable_name::directory(&worker.paths),
            authority: None,
            certificate: None,
            every: Duration::from_secs(60),
        };
        Self(tokio::spawn(async move { panic!("{}", run(options).await.unwrap_err()) }))
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(super) async fn p0_18_a_balancer_that_is_not_wanted_any_more_goes_and_comes_back(plane: &ControlPlane) {
    let worker = Worker::new(plane).await;
    let direct = (plane.url(), None);
    worker.phase("weft-helpers", true).await;
    let list = stable_name::directory(&worker.paths).join("start");
    assert_eq!(fs::read_to_string(&list).unwrap(), format!("{}\n", plane.address), "kubelet knows one");
    let pod = Pod::start(&worker);
    worker.phase("kubelet-finalize", true).await;
    assert!(worker.has_balancer() && worker.way() == worker.directs_to_balancer(), "{:?}", worker.way());
    assert_eq!(worker.starts().lines().count(), 1);

    // kubelet is led past it before it goes, and credentials stay what they are.
    drop(pod);
    let key = Kubeconfig::load(&worker.kubeconfig()).unwrap().unwrap().key();
    worker.phase("weft-helpers", false).await;
    assert!(!worker.has_balancer() && worker.way() == direct, "{:?}", worker.way());
    assert!(Kubeconfig::load(&worker.kubeconfig()).unwrap().unwrap().key() == key);
    assert_eq!(worker.starts(), format!("restart kubelet {} start\n", plane.url()), "the pod is gone, its list is not");

    // Once more there is nothing to do; but a run that was ended before kubelet had read its file is finished.
    let journal = || fs::read_to_string(worker.paths.state.join("journal.jsonl")).unwrap();
    worker.phase("kubelet-finalize", false).await;
    let before = journal();
    worker.phase("weft-helpers", false).await;
    worker.phase("kubelet-finalize", false).await;
    assert_eq!((worker.starts().as_str(), worker.way(), journal()), ("", direct, before));
    fs::create_dir(stable_name::directory(&worker.paths)).unwrap();
    worker.phase("weft-helpers", false).await;
    assert!(!worker.has_balancer());
    assert_eq!(worker.starts().lines().count(), 1);

    worker.phase("weft-helpers", true).await;
    assert_eq!(fs::read_to_string(&list).unwrap(), format!("{}\n", plane.address));
    let _pod = Pod::start(&worker);
    worker.phase("kubelet-finalize", true).await;
    assert!(worker.has_balancer() && worker.way() == worker.directs_to_balancer(), "{:?}", worker.way());
}

/// A list and a cluster whose servers are all away.
pub(super) async fn p0_18_a_balancer_stays_for_as_long_as_kubelet_has_no_other_way(plane: &ControlPlane) {
    let worker = Worker::new(plane).await;
    worker.phase("weft-helpers", true).await;
    let pod = Pod::start(&worker);
    worker.phase("kubelet-finalize", true).await;
    worker.starts();
    drop(pod);
    // The cluster says that it is where nobody answers; the list that join finds it by names it under a name that its
    // certificate does not have.
    let away = format!("127.0.0.1:{}", free_port());
    let server = plane.server().await;
    let cluster = format!(
        "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: v1.36.0\n\
         controlPlaneEndpoint: {away}\napiServer: {{certSANs: [{}]}}\n",
        stable_name::NAME
    );
    upload_kubeadm_config(&server, &cluster).await.unwrap();
    let list = stable_name::directory(&worker.paths).join("start");
    fs::write(&list, format!("127.0.0.2:{}\n", plane.address.port())).unwrap();
    let forward = TcpListener::bind(("127.0.0.2", plane.address.port())).await.unwrap();
    let to = plane.address;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = forward.accept().await {
            tokio::spawn(async move {
                let mut server = tokio::net::TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
            });
        }
    });
    worker.phase("weft-helpers", false).await;
    assert!(worker.has_balancer() && worker.way() == worker.directs_to_balancer(), "{:?}", worker.way());
    assert_eq!(worker.starts(), "");
}
