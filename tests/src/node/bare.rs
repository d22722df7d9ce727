//! A machine as an administrator finds it: a runtime with its own configuration, and nothing of Kubernetes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::kubelet;
use super::machine::{Machine, Service};
use super::peers;
use crate::binaries;
use crate::lab::underlay::Families;
use crate::netns::Netns;
use crate::tool::Output;

/// Where containerd's configuration is usually.
const CONFIG: &str = "/etc/containerd/config.toml";

/// What a folder for `--kubernetes-bin` holds; weft and its plugin besides.
pub const PROGRAMS: [&str; 7] =
    ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl", "coredns", "etcd"];

/// What the runtime consists of.
pub const RUNTIME: [&str; 3] = ["containerd", "ctr", "runc"];

/// How long bringing up a node may take on a busy machine, images and all.
const LIMIT: Duration = Duration::from_secs(300);

/// For a machine whose disk is full for other reasons: it shall not lose its pods.
pub const ROOMY: &str = "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
evictionHard: {memory.available: 0%, nodefs.available: 0%, imagefs.available: 0%}
imageGCHighThresholdPercent: 100
";

/// What this machine is not, whatever is tested: control groups of version 2.
pub const LENIENT: &str = "--ignore-preflight-errors=SystemVerification";

/// Everything that a reset has to give back, one thing a line. Logs and what is the runtime's own are left out.
const SNAPSHOT: &str = r#"
ip -o link | sed 's/^[0-9]*: //; s/@.*//; s/:.*//' | sort
ip -o addr | awk '{print $2, $4}' | sort
for family in -4 -6; do ip $family route show table all | grep -v '^ff\|^multicast\|cache' | sort; ip $family rule; done
ip neigh show nud permanent
nft list ruleset
for file in /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv[46]/conf/*/* /proc/sys/net/netfilter/nf_conntrack_*; do
    case $file in *_count | *stable_secret | */flush) ;; *) echo "$file = $(cat $file 2> /dev/null | tr '\n' ' ')" ;; esac
done
find /etc /opt /usr/bin /usr/libexec /usr/local/bin /usr/lib/systemd /var/lib /run -xdev \
    \( -path /var/lib/containerd -o -path /run/containerd -o -path /run/netns \) -prune -o -printf '%p %y %m %l\n' | sort
find /etc -xdev -type f -exec sha256sum {} + | sort
mount | grep -v ' /run/netns\| /run/containerd\|/var/lib/containerd' | sort
"#;

/// A machine with a runtime.
pub struct Bare {
    /// The machine.
    pub machine: Machine,
    /// Its containerd.
    pub containerd: Service,
    /// What is given to `--kubernetes-bin` and `--config`.
    folder: PathBuf,
}

impl Bare {
    /// Switches a machine with addresses of these families on and starts containerd, configured in the usual place. `programs` is
    /// made by [`programs_with`].
    ///
    /// # Errors
    /// When it does not start.
    pub fn boot(underlay: &Netns, number: u8, folder: &Path, programs: &Path, families: Families) -> Result<Self> {
        let machine = Machine::boot_with(underlay, number, folder, families)?;
        let file = machine.inside(CONFIG)?;
        fs::create_dir_all(file.parent().context("a file is in a folder")?)?;
        fs::write(&file, kubelet::CONTAINERD.replace("SANDBOX", "registry.k8s.io/pause:3.10.2"))?;
        let containerd = kubelet::containerd_with(&machine, CONFIG)?;
        Ok(Self { machine, containerd, folder: programs.to_owned() })
    }

    /// What is given to `--kubernetes-bin`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Runs weft on it.
    ///
    /// # Errors
    /// When it cannot be run; its exit code is not an error here.
    pub fn weft(&self, args: &[&str]) -> Result<Output> {
        let weft = self.folder.join("weft").display().to_string();
        let output = self.machine.run_within(&weft, args, LIMIT)?;
        eprintln!(
            "{}: weft {} ended with {:?} after {:.1?}\n{}{}",
            self.machine.name(),
            args.join(" "),
            output.exit,
            output.took,
            output.stdout,
            output.stderr
        );
        Ok(output)
    }

    /// Starts weft on it, which says what it says in `NAME.log` in the machine's folder.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, name: &str, args: &[&str]) -> Result<Service> {
        self.machine.spawn(name, &self.folder.join("weft").display().to_string(), args)
    }

    /// containerd's configuration, and where it lies as seen from outside.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn configuration(&self) -> Result<(PathBuf, String)> {
        let file = self.machine.inside(CONFIG)?;
        let text = fs::read_to_string(&file)?;
        Ok((file, text))
    }

    /// Has containerd read its configuration. Pods go on.
    ///
    /// # Errors
    /// When it does not start again.
    pub fn restart_containerd(&mut self) -> Result<()> {
        self.containerd.kill();
        self.containerd = kubelet::containerd_with(&self.machine, CONFIG)?;
        Ok(())
    }

    /// The words of `weft init` with all that is given on this machine.
    #[must_use]
    pub fn init_args(&self) -> Vec<String> {
        let (folder, config) = (self.folder.display(), self.folder.join("config.yaml"));
        let address = self.machine.ip();
        vec![
            "init".into(),
            format!("--kubernetes-bin={folder}"),
            format!("--config={}", config.display()),
            format!("--apiserver-advertise-address={address}"),
            LENIENT.into(),
        ]
    }

    /// `weft init` with these words besides.
    ///
    /// # Errors
    /// As [`Bare::weft`].
    pub fn init(&self, more: &[&str]) -> Result<Output> {
        let args = self.init_args();
        let args: Vec<&str> = args.iter().map(String::as_str).chain(more.iter().copied()).collect();
        self.weft(&args)
    }

    /// Runs a line as it was printed, and some more words.
    ///
    /// # Errors
    /// As [`Bare::weft`].
    pub fn follow(&self, line: &str, more: &[&str]) -> Result<Output> {
        let line = line.replace("\\\n", " ");
        let words: Vec<&str> = line.split_whitespace().skip(1).chain(more.iter().copied()).collect();
        self.weft(&words)
    }

    /// kubectl as an administrator.
    ///
    /// # Errors
    /// When it fails.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.machine.run("kubectl", &[&["--kubeconfig=/etc/kubernetes/admin.conf"], args].concat())
    }

    /// What `kubectl get` says.
    ///
    /// # Errors
    /// As [`Bare::kubectl`].
    pub fn get(&self, args: &[&str]) -> Result<Value> {
        Ok(serde_json::from_str(&self.kubectl(&[&["get", "--output=json"], args].concat())?)?)
    }

    /// Creates objects or brings them to this state.
    ///
    /// # Errors
    /// When the API server refuses them.
    pub fn apply(&self, objects: &[Value]) -> Result<()> {
        let file = self.machine.path("objects.json");
        fs::write(&file, json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string())?;
        self.kubectl(&["apply", "--filename", &file.display().to_string()]).map(drop)
    }

    /// Puts an image of one static program on it.
    ///
    /// # Errors
    /// When containerd refuses.
    pub fn import(&self, name: &str, program: &Path) -> Result<()> {
        let archive = self.machine.path("image.tar");
        fs::write(&archive, super::image::of(name, program)?)?;
        kubelet::import(&self.machine, &archive)
    }

    /// What a reset has to give back.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn snapshot(&self) -> Result<String> {
        self.machine.run("sh", &["-c", SNAPSHOT])
    }

    /// `weft init` once more where all is done: it finds nothing to do, and soon. `more` is what the first run was given.
    ///
    /// # Errors
    /// When it has something to do, or does not end well.
    pub fn init_again(&self, more: &[&str]) -> Result<()> {
        let again = self.init(more)?;
        ensure!(again.exit == Some(0), "a second run: {}", again.stderr);
        for word in ["Generating", "Created", "Creating", "Updated", "Applied", "Starting", "Changing"] {
            ensure!(!again.stdout.contains(word), "a second run has something to do:\n{}", again.stdout);
        }
        // At most 1 s on a machine that does nothing else.
        ensure!(again.took < Duration::from_secs(3), "a second run took {:?}", again.took);
        Ok(())
    }

    /// `weft reset`, which leaves the machine as it was when this snapshot was taken.
    ///
    /// # Errors
    /// When it fails, or something is left or gone: the error has each line of it.
    pub fn reset_to(&self, before: &str) -> Result<()> {
        let reset = self.weft(&["reset", "--force"])?;
        ensure!(reset.exit == Some(0), "reset: {}", reset.stderr);
        let after = self.snapshot()?;
        let (before, after) = (lines(before), lines(&after));
        let gone: Vec<_> = before.difference(&after).collect();
        let left: Vec<_> = after.difference(&before).collect();
        ensure!(gone.is_empty() && left.is_empty(), "{}: gone {gone:#?}, left {left:#?}", self.machine.name());
        Ok(())
    }
}

fn lines(text: &str) -> BTreeSet<&str> {
    text.lines().collect()
}

/// A folder for `--kubernetes-bin` below `scratch`: the programs linked to where they are, weft's own, and this configuration.
///
/// # Errors
/// When one is missing.
pub fn programs_with(scratch: &Path, config: &str) -> Result<PathBuf> {
    let folder = scratch.join("bin");
    fs::create_dir(&folder)?;
    for program in PROGRAMS {
        std::os::unix::fs::symlink(peers::need(program)?, folder.join(program))?;
    }
    for program in ["weft", "weft-cni"] {
        std::os::unix::fs::symlink(binaries::find(program)?, folder.join(program))?;
    }
    fs::write(folder.join("config.yaml"), config)?;
    Ok(folder)
}

/// The line that joins a worker, out of what init has printed.
///
/// # Errors
/// When there is none.
pub fn join_line(printed: &str) -> Result<String> {
    let Some((_, rest)) = printed.split_once("\nweft join ") else { bail!("no line to join with in: {printed}") };
    let rest: Vec<&str> = rest.split("\n\n").take(1).collect();
    Ok(format!("weft join {}", rest.concat()))
}
