//! A machine for a Kubernetes node: namespaces of every kind, and a folder for what outlives a reboot.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::peers;
use crate::lab::underlay::{self, Families};
use crate::netns::Netns;
use crate::process::{self, ProcessId};
use crate::{tool, wait};

const INIT: &str = include_str!("init.sh");
/// How long namespaces may take to come and go on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
/// Goes into the machine's control groups, so that what is started counts as its own, and then into its namespaces.
const ENTER: &str = r#"
group=$1; pid=$2; shift 2
for procs in /sys/fs/cgroup/*/"$group"/cgroup.procs; do echo $$ > "$procs"; done
exec nsenter --target "$pid" --mount --pid --uts --ipc --cgroup --net -- "$@"
"#;

/// A machine that runs, until it is switched off.
#[derive(Debug)]
pub struct Machine {
    name: String,
    number: u8,
    families: Families,
    netns: Netns,
    underlay: Netns,
    folder: PathBuf,
    /// `unshare`, whose end is the machine's.
    holder: Option<ProcessId>,
}

impl Machine {
    /// Switches a machine on: in a new network namespace with an address on the underlay. What is in `folder` it still has.
    ///
    /// # Errors
    /// When the kernel refuses a namespace or a mount.
    pub fn boot(underlay: &Netns, number: u8, folder: &Path) -> Result<Self> {
        Self::boot_with(underlay, number, folder, Families::Both)
    }

    /// The same with addresses of these families.
    ///
    /// # Errors
    /// As [`Machine::boot`].
    pub fn boot_with(underlay: &Netns, number: u8, folder: &Path, families: Families) -> Result<Self> {
        let name = format!("n{number}");
        let lab = underlay.name().trim_end_matches("-underlay").to_owned();
        let netns = Netns::named(format!("{lab}-{name}"));
        let mut this =
            Self { name, number, families, netns, underlay: underlay.clone(), folder: folder.to_owned(), holder: None };
        this.power_on()?;
        Ok(this)
    }

    /// Switches it on again.
    ///
    /// # Errors
    /// As [`Machine::boot`].
    pub fn power_on(&mut self) -> Result<()> {
        fs::create_dir_all(&self.folder)?;
        let port = format!("p{}", self.number);
        Netns::ensure_machine(self.netns.name())?;
        underlay::plug_in(&self.underlay, &self.netns, &port, &underlay::mac(self.number), &self.ips())?;
        let (script, up) = (self.path("init.sh"), self.path("up"));
        fs::write(&script, INIT)?;
        fs::write(self.path("hostname"), &self.name)?;
        if up.exists() {
            fs::remove_file(&up)?;
        }
        let mut command = tool::command("sh");
        command.arg(&script).arg("outside").arg(&self.folder).arg(self.cgroup());
        let log = self.path("init.log");
        let holder = process::spawn(&self.netns, &mut command, &log)?;
        self.holder = Some(holder);
        wait::until(LIMIT, "the machine's mounts", || up.exists() || !holder.alive())?;
        anyhow::ensure!(up.exists(), "a machine did not start: {}", fs::read_to_string(&log).unwrap_or_default());
        Ok(())
    }

    /// Switches it off at once, as a power cut does. Its folder stays.
    ///
    /// # Errors
    /// When something of it cannot be removed.
    pub fn power_off(&mut self) -> Result<()> {
        if let Some(holder) = self.holder.take() {
            let first = self.first_process(holder);
            holder.kill();
            if let Ok(first) = first {
                // The first process is gone only after all others of its namespace are.
                wait::until(LIMIT, "a machine's processes to end", || !first.alive())?;
            }
        }
        self.netns.delete()?;
        let roots = fs::read_dir("/sys/fs/cgroup")?.flatten().map(|entry| entry.path().join(self.cgroup()));
        for root in roots.filter(|root| root.is_dir()) {
            wait::until_ok(LIMIT, "control groups to be empty", || remove_group(&root))?;
        }
        Ok(())
    }

    /// Its name, which is its Node's.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its network namespace.
    #[must_use]
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The address on the underlay by which others know it.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.families.first(self.number)
    }

    /// All its addresses on the underlay, that one first.
    #[must_use]
    pub fn ips(&self) -> Vec<IpAddr> {
        self.families.all(self.number)
    }

    /// A path in its folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A path as the machine sees it, from outside; for what it has in memory.
    ///
    /// # Errors
    /// When the machine is switched off.
    pub fn inside(&self, path: &str) -> Result<PathBuf> {
        let first = self.first_process(self.holder.context("the machine is switched off")?)?;
        Ok(PathBuf::from(format!("/proc/{}/root{path}", first.pid)))
    }

    /// Its control group, in every hierarchy.
    fn cgroup(&self) -> String {
        self.netns.name().to_owned()
    }

    fn first_process(&self, holder: ProcessId) -> Result<ProcessId> {
        only_child(holder).with_context(|| format!("{} has no first process", self.name))
    }

    fn enter(&self, program: &str, args: &[&str]) -> Result<Command> {
        let first = self.first_process(self.holder.context("the machine is switched off")?)?;
        let mut command = tool::command("sh");
        command.args(["-euc", ENTER, "sh", &self.cgroup(), &first.pid.to_string(), program]).args(args);
        command.env("PATH", peers::path());
        Ok(command)
    }

    /// Runs a program on it and returns its stdout.
    ///
    /// # Errors
    /// As [`tool::run`].
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        tool::run(&mut self.enter(program, args)?).with_context(|| format!("on {}", self.name))
    }

    /// Runs a program on it that may take so long, and returns how it ended.
    ///
    /// # Errors
    /// As [`tool::run_within`].
    pub fn run_within(&self, program: &str, args: &[&str], limit: Duration) -> Result<tool::Output> {
        tool::run_within(&mut self.enter(program, args)?, tool::Stdin::Bytes(b""), limit)
            .with_context(|| format!("on {}", self.name))
    }

    /// Starts a service on it, which logs to `NAME.log` in the machine's folder.
    ///
    /// # Errors
    /// When it does not start.
    pub fn spawn(&self, name: &str, program: &str, args: &[&str]) -> Result<Service> {
        let log = self.path(&format!("{name}.log"));
        let entered = process::spawn(&self.netns, &mut self.enter(program, args)?, &log)?;
        Ok(Service { entered, log })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Err(error) = self.power_off() {
            eprintln!("left behind: something of the machine {}: {error:#}", self.netns.name());
        }
    }
}

/// A program that runs on a machine, until it is stopped or the machine is switched off.
#[derive(Debug, Clone)]
pub struct Service {
    /// `nsenter`, which waits for it.
    entered: ProcessId,
    log: PathBuf,
}

impl Service {
    /// Whether it still runs.
    #[must_use]
    pub fn alive(&self) -> bool {
        self.entered.alive()
    }

    /// Kills it. What it has started goes on.
    pub fn kill(&self) {
        if let Some(program) = only_child(self.entered) {
            program.kill();
        }
        self.entered.kill();
    }

    /// The end of what it has said.
    #[must_use]
    pub fn log(&self) -> String {
        super::tail(&self.log, 30)
    }
}

/// The child that a process waits for.
fn only_child(parent: ProcessId) -> Option<ProcessId> {
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", parent.pid)).ok()?;
    ProcessId::of(children.split_whitespace().next()?.parse().ok()?)
}

/// Removes a control group with those inside it.
fn remove_group(group: &Path) -> Result<(), String> {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_group(&entry.path())?;
        }
    }
    fs::remove_dir(group).map_err(|error| format!("{}: {error}", group.display()))
}
