//! What is known when something takes long: kubelet's words, the runtime's containers, the disk.

use std::path::Path;
use std::time::SystemTime;

use nix::sys::statvfs::statvfs;

use crate::bootstrap::kubelet::service::{Service, ServiceManager};
use crate::bootstrap::resolved::Paths;

/// Lines of kubelet's that are looked at.
const KUBELET_LINES: usize = 400;

/// Everything from which the cause is concluded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Whether kubelet runs, if the service manager can tell.
    pub kubelet_active: Option<bool>,
    /// kubelet's last lines, since the waiting began.
    pub kubelet_lines: Vec<String>,
    /// The containers of static pods, all attempts.
    pub containers: Vec<Container>,
    /// What the runtime's client says instead of a list of containers.
    pub runtime_error: Option<String>,
    /// What is free of the file system with `/var/lib`.
    pub disk: Option<Disk>,
}

/// A file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Bytes that are free.
    pub free: u64,
    /// Bytes altogether.
    pub total: u64,
}

/// A container as the runtime has it (CRI `ContainerStatus`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its name: `kube-apiserver`.
    pub name: String,
    /// Which start of it, from 0.
    pub attempt: u32,
    /// How it is.
    pub state: ContainerState,
    /// The last lines of its log.
    pub lines: Vec<String>,
}

/// How a container is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerState {
    /// It is there and not started yet.
    Created,
    /// It runs.
    Running,
    /// It has ended.
    Exited {
        /// The exit code, 128 and the number for a signal.
        code: i32,
        /// The runtime's word: `Error`, `OOMKilled`, `StartError`.
        reason: String,
        /// The runtime's sentence.
        message: String,
    },
}

impl Evidence {
    /// What the host itself tells; the containers are the runtime's to tell.
    #[must_use]
    pub fn of_host(services: &ServiceManager, paths: &Paths, since: SystemTime) -> Self {
        Self {
            kubelet_active: services.is_active(Service::Kubelet).ok(),
            kubelet_lines: services.last_lines(&paths.root, Service::Kubelet, KUBELET_LINES, since),
            disk: disk(&paths.root.join("var/lib")),
            ..Self::default()
        }
    }

    /// The last start of a container that the runtime knows of.
    #[must_use]
    pub fn newest(&self, name: &str) -> Option<&Container> {
        self.containers.iter().filter(|container| container.name == name).max_by_key(|container| container.attempt)
    }
}

fn disk(path: &Path) -> Option<Disk> {
    let found = statvfs(path).ok()?;
    let size = found.fragment_size();
    Some(Disk { free: size.saturating_mul(found.blocks_available()), total: size.saturating_mul(found.blocks()) })
}
