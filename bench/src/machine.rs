//! A machine to measure on: mounts of its own, files in memory, namespaces that vanish with this process.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::utsname::uname;
use serde::Serialize;
use weft_tests::netns::Netns;
use weft_tests::scratch::Scratch;

/// Where `ip netns` keeps namespaces.
const NAMED: &str = "/run/netns";

/// Mounts of its own. However this process ends, the kernel takes the mounts away, and with them the namespaces.
#[derive(Debug)]
pub(crate) struct Machine {
    scratch: Scratch,
}

/// What a figure cannot be read without.
#[derive(Debug, Serialize)]
pub(crate) struct Facts {
    kernel: String,
    processor: String,
    processors: usize,
    /// Runnable processes on average over the minute before the measurement: above 1, others were at work.
    load: f64,
}

impl Machine {
    /// Must be called while this process has a single thread, as mounts are private to the thread that asks.
    ///
    /// # Errors
    /// Without root.
    pub(crate) fn new() -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNS).context("cannot have mounts of my own (are you root?)")?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).context("cannot make / private")?;
        fs::create_dir_all(NAMED).with_context(|| format!("cannot create {NAMED}"))?;
        tmpfs(Path::new(NAMED))?;
        let machine = Self { scratch: Scratch::new() };
        tmpfs(machine.scratch.path())?;
        Ok(machine)
    }

    /// A path in memory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Else the folder below could not be removed. Nothing can be done about a refusal, and the mount goes anyway.
        let _ = umount2(self.scratch.path(), MntFlags::MNT_DETACH);
    }
}

impl Facts {
    /// Of the machine that this process runs on.
    pub(crate) fn gather() -> Result<Self> {
        let kernel = uname()?.release().to_string_lossy().into_owned();
        let described = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = described.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let processor = model.map_or(std::env::consts::ARCH, |(_, name)| name).to_owned();
        let loads = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = loads.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or_default();
        Ok(Self { kernel, processor, processors: std::thread::available_parallelism()?.get(), load })
    }
}

impl std::fmt::Display for Facts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kernel, processor, processors, load } = self;
        write!(f, "Linux {kernel}, {processors} x {processor}, load {load:.1}")
    }
}

/// Moves this thread, and what it starts from now on, into a namespace.
///
/// # Errors
/// When there is none of that name.
pub(crate) fn enter(netns: &Netns) -> Result<()> {
    let path = netns.path();
    let file = File::open(&path).with_context(|| format!("no namespace {}", path.display()))?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {}", path.display()))
}

fn tmpfs(target: &Path) -> Result<()> {
    mount(Some("tmpfs"), target, Some("tmpfs"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("cannot mount a tmpfs on {}", target.display()))
}
