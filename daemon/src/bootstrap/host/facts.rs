//! What is known of a machine before a cluster is put on it: gathered in one place ([`super::gather`]), judged in another
//! ([`super::checks`]), so that each verdict can be tested with facts of another machine.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnetwork::IpNetwork;
use jiff::Timestamp;

use crate::bootstrap::cri::CgroupDriver;

/// A fact, or why it could not be had.
pub type Told<T> = Result<T, String>;

/// A machine.
#[derive(Debug, Clone)]
pub struct HostFacts {
    /// The user that this process is.
    pub uid: u32,
    /// CPUs that this process may use.
    pub cpus: usize,
    /// `MemTotal` of /proc/meminfo in KiB.
    pub memory_kib: Told<u64>,
    /// Entries of /proc/swaps.
    pub swaps: Told<Vec<SwapArea>>,
    /// Lines of /etc/fstab that are swap space.
    pub fstab_swaps: usize,
    /// Kernel settings by their path below /proc/sys; `None` if this kernel does not have one.
    pub sysctls: BTreeMap<String, Option<String>>,
    /// What the node's name resolves to.
    pub resolved: Told<Vec<IpAddr>>,
    /// Ports in question that somebody listens on.
    pub taken: BTreeMap<u16, Holder>,
    /// Files and directories in question that are there; a directory only if it is not empty.
    pub there: BTreeSet<PathBuf>,
    /// What weft's journal says of an earlier run.
    pub own: OwnRun,
    /// Programs in question and where they are in PATH.
    pub programs: BTreeMap<&'static str, Option<PathBuf>>,
    /// Release of the kernel, `6.12.0-1-amd64`.
    pub kernel: String,
    /// What the kernel can do, asked by doing it.
    pub features: Vec<Feature>,
    /// Modules that weft's data plane likes to have.
    pub modules: BTreeMap<&'static str, ModuleState>,
    /// Which cgroups there are.
    pub cgroups: Cgroups,
    /// Whether systemd runs this machine.
    pub systemd: bool,
    /// The container runtime.
    pub runtime: RuntimeFacts,
    /// What `kubelet --version` says; `None` without a kubelet.
    pub kubelet: Option<Told<String>>,
    /// What systemctl says of kubelet's unit (`enabled`, `disabled`, `not-found`); `None` where nobody can be asked.
    pub kubelet_unit: Option<String>,
    /// Room where data will be.
    pub disks: Vec<Disk>,
    /// How long the disk under etcd's data takes to sync a small write: median and worst.
    pub fsync: Option<Told<Fsync>>,
    /// Whether firewalld has its rules here.
    pub firewalld: bool,
    /// Ports that firewalld lets through, `6443/tcp`; empty if unknown.
    pub firewalld_open: BTreeSet<String>,
    /// Whether SELinux enforces; `None` without it.
    pub selinux: Option<bool>,
    /// This machine's clock.
    pub now: Timestamp,
    /// What makes this machine differ from others.
    pub identity: Identity,
    /// Addresses of links that are not weft's own.
    pub addresses: Told<Vec<(String, IpNetwork)>>,
    /// Routes through links that are not weft's own, without the default ones.
    pub routes: Told<Vec<(String, IpNetwork)>>,
    /// Other ways of running Kubernetes that have left their files here, `k3s (/etc/rancher/k3s)`.
    pub others: Vec<String>,
    /// Proxy variables of the environment that are set, and their values, in lower case.
    pub proxies: BTreeMap<String, String>,
}

/// An entry of /proc/swaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwapArea {
    /// Device or file.
    pub device: String,
    /// `partition` or `file`.
    pub kind: String,
    /// Its priority.
    pub priority: Option<i32>,
}

/// Who listens on a port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holder {
    /// Its process, if it could be found.
    pub pid: Option<u32>,
    /// Its name (`comm`), at most 15 characters.
    pub name: Option<String>,
}

/// What weft's journal says of an earlier run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnRun {
    /// Files that weft made.
    pub files: BTreeSet<PathBuf>,
    /// Phases that were begun.
    pub phases: BTreeSet<String>,
}

/// Something that a kernel can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    /// `network namespaces`.
    pub name: &'static str,
    /// Whether a node cannot be without.
    pub needed: bool,
    /// `Ok(true)` if it was done, `Ok(false)` if the kernel has no such thing, else why nobody knows.
    pub works: Told<bool>,
}

/// A kernel module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModuleState {
    /// Loaded, or built in.
    Present,
    /// It can be loaded.
    Loadable,
    /// This kernel does not have it.
    Absent,
}

/// The cgroups of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cgroups {
    /// One hierarchy, and the controllers that it has.
    V2(BTreeSet<String>),
    /// A hierarchy a controller.
    V1(BTreeSet<String>),
    /// None mounted.
    None,
}

/// What is known of the container runtime.
#[derive(Debug, Clone, Default)]
pub struct RuntimeFacts {
    /// Well-known sockets that are there.
    pub sockets: Vec<String>,
    /// What the runtime itself says.
    pub told: RuntimeTold,
    /// containerd's configuration, if that is the runtime and has one.
    pub containerd: Option<Told<super::containerd::Containerd>>,
}

/// What the runtime at the socket says, over CRI.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum RuntimeTold {
    /// Nobody has asked; nothing is judged by it.
    #[default]
    NotAsked,
    /// There is no such socket.
    NoSocket,
    /// Something is there and does not speak CRI, or nobody answers: why.
    Failed(String),
    /// A containerd without its CRI plugin (`unknown service runtime.v1.RuntimeService`).
    NoCri,
    /// It answers.
    Answers {
        /// `containerd 2.1.4`.
        version: String,
        /// Why it is not ready for pods, the network aside.
        unready: Option<String>,
        /// Its cgroup driver; `None` if it cannot say (no `RuntimeConfig`).
        driver: Option<CgroupDriver>,
        /// Its sandbox image, if it tells.
        sandbox_image: Option<String>,
    },
}

/// Room on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// What will lie there: `etcd's data`.
    pub what: &'static str,
    /// Where.
    pub path: PathBuf,
    /// Bytes for this process.
    pub free: u64,
    /// Bytes in all.
    pub size: u64,
    /// Files that can be made; `None` where there is no limit.
    pub files: Option<u64>,
    /// Whether nothing can be written.
    pub read_only: bool,
    /// Whether the runtime's images are on it.
    pub holds_images: bool,
}

/// How long syncing takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fsync {
    /// Half of the writes were not slower.
    pub median: Duration,
    /// The slowest.
    pub worst: Duration,
}

/// What makes a machine differ from others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// /etc/machine-id.
    pub machine_id: Option<String>,
    /// The firmware's UUID.
    pub product_uuid: Option<String>,
}
