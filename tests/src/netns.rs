//! Network namespaces: nodes and pods.
//!
//! They are made by `ip netns`, not by weft's own code, so that a fault of that code cannot hide itself.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::process::ProcessId;
use crate::tool;

/// The name of a network namespace in `/run/netns`. A value: dropping it does nothing, see [`OwnedNetns`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Netns(String);

impl Netns {
    /// The namespace of that name, whether it is there or not.
    pub fn named(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// Makes a namespace, bare as a runtime gives it to a pod (`lo` is down), or takes the one that is there.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn ensure(name: impl Into<String>) -> Result<Self> {
        let this = Self::named(name);
        if !this.exists() {
            tool::call("ip", &["netns", "add", this.name()])?;
        }
        Ok(this)
    }

    /// Makes a namespace that is a machine: `lo` is up, v6 addresses are usable at once.
    ///
    /// # Errors
    /// When `ip` or `sysctl` refuses.
    pub fn ensure_machine(name: impl Into<String>) -> Result<Self> {
        let this = Self::ensure(name)?;
        this.tool("ip", &["link", "set", "lo", "up"])?;
        this.sysctl("net/ipv6/conf/default/accept_dad", "0")?;
        Ok(this)
    }

    /// Writes a sysctl of the namespace, by its path below `/proc/sys`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn sysctl(&self, path: &str, value: &str) -> Result<()> {
        self.run(|| std::fs::write(format!("/proc/sys/{path}"), value))?.with_context(|| format!("cannot set {path}"))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Its file, which is what a runtime passes to plugins.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.0)
    }

    /// Whether it is there. A plain file that a crash has left is not a namespace.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.run(|| ()).is_ok()
    }

    /// The namespaces of this machine whose name satisfies `wanted`.
    ///
    /// # Errors
    /// When `/run/netns` cannot be read.
    pub fn matching(wanted: impl Fn(&str) -> bool) -> Result<Vec<Self>> {
        let entries = match std::fs::read_dir("/run/netns") {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).context("cannot list /run/netns"),
        };
        let mut found = Vec::new();
        for entry in entries {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if wanted(&name) {
                found.push(Self(name));
            }
        }
        found.sort();
        Ok(found)
    }

    /// Runs `work` in a fresh thread inside the namespace. What the thread starts or opens belongs to the namespace.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let path = self.path();
        let file = File::open(&path).with_context(|| format!("no namespace {}", path.display()))?;
        let done = std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                setns(&file, CloneFlags::CLONE_NEWNET).map(|()| {
                    drop(file);
                    work()
                })
            });
            inside.join()
        });
        match done {
            Ok(result) => result.with_context(|| format!("cannot enter {}", path.display())),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Runs a command inside and returns its stdout.
    ///
    /// # Errors
    /// As [`tool::run`].
    pub fn command(&self, command: &mut Command) -> Result<String> {
        self.run(|| tool::run(command))?
    }

    /// Runs a tool inside and returns its stdout.
    ///
    /// # Errors
    /// As [`tool::run`].
    pub fn tool(&self, program: &str, args: &[&str]) -> Result<String> {
        self.run(|| tool::call(program, args))?.map_err(|error| anyhow!("in {}: {error}", self.0))
    }

    /// Runs `program -j …` inside (`ip`, `bridge` and `nft` have it) and returns its JSON.
    ///
    /// # Errors
    /// As [`tool::run`], or when it is not JSON.
    pub fn json(&self, program: &str, args: &[&str]) -> Result<Value> {
        let words: Vec<&str> = std::iter::once("-j").chain(args.iter().copied()).collect();
        tool::parse_json(&self.tool(program, &words)?)
    }

    /// The objects of a JSON answer.
    ///
    /// # Errors
    /// As [`Netns::json`], or when it is not an array.
    pub fn objects(&self, program: &str, args: &[&str]) -> Result<Vec<Value>> {
        match self.json(program, args)? {
            // `ip -j` prints an empty object for what it filtered out.
            Value::Array(list) => {
                Ok(list.into_iter().filter(|v| v.as_object().is_none_or(|o| !o.is_empty())).collect())
            }
            other => Err(anyhow!("{program} {args:?} gave no list: {other}")),
        }
    }

    /// Ends the processes inside and removes the namespace. Removing what is not there is no error.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn delete(&self) -> Result<()> {
        Self::delete_all(std::slice::from_ref(self))
    }

    /// Ends the processes inside these namespaces, and removes all of them that are there.
    ///
    /// # Errors
    /// The first refusal of `ip`; the others have been removed.
    pub fn delete_all(all: &[Self]) -> Result<()> {
        for process in processes_inside(all) {
            process.kill();
        }
        let there = all.iter().filter(|netns| netns.path().exists());
        let results: Vec<Result<()>> =
            there.map(|netns| tool::call("ip", &["netns", "delete", netns.name()]).map(drop)).collect();
        results.into_iter().collect()
    }
}

/// The processes whose namespace is one of these. A thread that has entered one for a moment does not count.
fn processes_inside(all: &[Netns]) -> Vec<ProcessId> {
    let identity = |path: PathBuf| std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    let wanted: BTreeSet<(u64, u64)> = all.iter().filter_map(|netns| identity(netns.path())).collect();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().filter_map(io::Result::ok);
    let inside = entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let home = identity(entry.path().join("ns/net"))?;
        wanted.contains(&home).then(|| ProcessId::of(pid))?
    });
    inside.collect()
}

/// A namespace that goes away with its owner, also when the test panics.
#[derive(Debug)]
pub struct OwnedNetns(Netns);

impl OwnedNetns {
    /// A new namespace that is a machine.
    ///
    /// # Panics
    /// When it cannot be made (tests need root).
    pub fn new(name: impl Into<String>) -> Self {
        Self::of(Netns::ensure_machine(name))
    }

    /// A new namespace as a runtime gives it to a pod.
    ///
    /// # Panics
    /// When it cannot be made (tests need root).
    pub fn bare(name: impl Into<String>) -> Self {
        Self::of(Netns::ensure(name))
    }

    fn of(made: Result<Netns>) -> Self {
        Self(made.unwrap_or_else(|error| panic!("cannot make a namespace (are you root?): {error:#}")))
    }
}

impl std::ops::Deref for OwnedNetns {
    type Target = Netns;
    fn deref(&self) -> &Netns {
        &self.0
    }
}

impl Drop for OwnedNetns {
    fn drop(&mut self) {
        if let Err(error) = self.0.delete() {
            eprintln!("left behind: namespace {}: {error:#}", self.0.name());
        }
    }
}
