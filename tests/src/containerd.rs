//! A containerd of its own: in private process, mount and network namespaces, with the plugin under test.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::cni::Host;
use crate::cri::{Message, call, field};
use crate::process::{self, ProcessId};
use crate::tool;
use crate::wait;

/// How long containerd may take to start, or a sandbox to come and go.
const LIMIT: Duration = Duration::from_secs(30);
/// The pod's container that holds the namespaces.
const PAUSE: &str = "#include <unistd.h>\nint main(void) { for (;;) pause(); }\n";

/// A running containerd. Everything that it has started ends with it.
#[derive(Debug)]
pub struct Containerd<'a> {
    host: &'a Host,
    process: ProcessId,
    cgroup: String,
}

impl<'a> Containerd<'a> {
    /// Starts the one that is on this machine (`containerd`, or one in `folder`) on a machine with a subnet file, and waits
    /// until its network is ready.
    ///
    /// # Errors
    /// When it does not get ready; the error ends with its log.
    pub fn start(host: &'a Host, folder: &Path) -> Result<Self> {
        let scratch = host.scratch.path();
        let cgroup = format!("/{}", host.netns.name());
        fs::create_dir_all(scratch.join("bin"))?;
        fs::create_dir_all(scratch.join("net.d"))?;
        fs::copy(host.plugin(), scratch.join("bin/weft-cni"))?;
        symlink("weft-cni", scratch.join("bin/loopback"))?;
        fs::write(scratch.join("net.d/10-weft.conflist"), conflist(host).to_string())?;
        fs::write(scratch.join("config.toml"), config(scratch))?;
        fs::write(scratch.join("run.sh"), SCRIPT)?;
        image(scratch)?;
        let mut command = tool::command("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh"]);
        command.arg(scratch.join("run.sh")).arg(scratch).arg(folder);
        let process = process::spawn(&host.netns, &mut command, &scratch.join("log"))?;
        let this = Self { host, process, cgroup };
        this.await_ready()?;
        Ok(this)
    }

    fn await_ready(&self) -> Result<()> {
        let ready = || -> Result<()> {
            anyhow::ensure!(self.network_is_ready()?, "the network is not ready");
            let imported = self.host.scratch.join("imported").exists();
            anyhow::ensure!(imported, "the image is not there yet");
            Ok(())
        };
        wait::until_ok(LIMIT, "containerd", ready).map_err(|error| anyhow::anyhow!("{error}; {}", self.log()))
    }

    /// Whether it would let kubelet run pods: it has a network configuration.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn network_is_ready(&self) -> Result<bool> {
        let status = call(&self.socket(), "Status", &Message::default())?;
        // The reason of the condition NetworkReady, if that is false.
        Ok(!String::from_utf8_lossy(&status).contains("NetworkPluginNotReady"))
    }

    /// The folder that it reads network configurations from.
    #[must_use]
    pub fn conf_dir(&self) -> PathBuf {
        self.host.scratch.join("net.d")
    }

    fn socket(&self) -> PathBuf {
        self.host.scratch.join("containerd.sock")
    }

    /// The end of what it has said.
    #[must_use]
    pub fn log(&self) -> String {
        let text = fs::read_to_string(self.host.scratch.join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(30)..).unwrap_or_default().join("\n")
    }

    /// Ends containerd and starts it anew; pods live on, as they do on a node.
    ///
    /// # Errors
    /// When it does not come back.
    pub fn restart(&self) -> Result<()> {
        fs::write(self.host.scratch.join("restart"), "")?;
        wait::until(LIMIT, "containerd's restart", || !self.host.scratch.join("restart").exists())
            .map_err(|error| anyhow::anyhow!("{error}; {}", self.log()))?;
        self.await_ready()
    }

    /// Runs a pod's sandbox with a host port (0 for none) to its port 80; returns its id.
    ///
    /// # Errors
    /// When containerd refuses; the error ends with its log.
    pub fn run_sandbox(&self, name: &str, host_port: u64) -> Result<String> {
        let metadata = Message::default().bytes(1, name).bytes(2, format!("uid-{name}")).bytes(3, "default");
        let linux = Message::default().bytes(1, &self.cgroup);
        let mut pod = Message::default().message(1, &metadata).bytes(2, name).message(8, &linux);
        if host_port != 0 {
            // Protocol 0 is TCP, which protobuf does not write.
            pod = pod.message(5, &Message::default().number(2, 80).number(3, host_port));
        }
        let answer =
            call(&self.socket(), "RunPodSandbox", &Message::default().message(1, &pod)).with_context(|| self.log())?;
        text(field(&answer, 1))
    }

    /// The address of a sandbox, as the runtime tells kubelet.
    ///
    /// # Errors
    /// When there is no such sandbox, or it has none.
    pub fn address(&self, id: &str) -> Result<IpAddr> {
        let answer = call(&self.socket(), "PodSandboxStatus", &Message::default().bytes(1, id))?;
        let network = field(&answer, 1).and_then(|status| field(status, 5)).context("no network status")?;
        Ok(text(field(network, 1))?.parse()?)
    }

    /// Stops a sandbox and removes it.
    ///
    /// # Errors
    /// When containerd refuses; the error ends with its log.
    pub fn remove_sandbox(&self, id: &str) -> Result<()> {
        for method in ["StopPodSandbox", "RemovePodSandbox"] {
            call(&self.socket(), method, &Message::default().bytes(1, id)).with_context(|| self.log())?;
        }
        Ok(())
    }
}

impl Drop for Containerd<'_> {
    fn drop(&mut self) {
        self.process.signal(Signal::SIGKILL);
        let _ = wait::until(LIMIT, "containerd's end", || !self.process.alive());
        // What runc made for pods that were not stopped: version 1 of cgroups has a tree a controller.
        let roots = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
        for root in roots.chain([PathBuf::from("/sys/fs/cgroup")]) {
            let own = root.join(self.cgroup.trim_start_matches('/'));
            for inner in fs::read_dir(&own).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(inner.path());
            }
            let _ = fs::remove_dir(&own);
        }
    }
}

fn text(field: Option<&[u8]>) -> Result<String> {
    Ok(String::from_utf8(field.context("the answer lacks a field")?.to_vec())?)
}

/// The conflist as the agent installs it, with this machine's folders.
#[must_use]
pub fn conflist(host: &Host) -> Value {
    json!({
        "cniVersion": "1.0.0", "cniVersions": ["0.4.0", "1.0.0", "1.1.0"], "name": "cbr0",
        "plugins": [{
            "type": "weft-cni", "bridge": "cni0", "isDefaultGateway": true, "forceAddress": true, "hairpinMode": true,
            "subnetFile": host.subnet_file(), "stateDir": host.state_dir(),
            "capabilities": {"portMappings": true, "bandwidth": true, "ips": true, "mac": true},
        }],
    })
}

fn config(scratch: &Path) -> String {
    let at = |name: &str| scratch.join(name).display().to_string();
    format!(
        r#"version = 2
root = "{root}"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "localhost/pause:1"
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{bin}"
conf_dir = "{conf}"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"#,
        root = at("root"),
        socket = at("containerd.sock"),
        bin = at("bin"),
        conf = at("net.d"),
    )
}

/// The first process of the namespaces: private folders, then containerd, started anew when it is told to.
const SCRIPT: &str = r#"
set -eu
scratch=$1; export PATH="$2:$PATH:/usr/sbin:/sbin"
mount --make-rprivate /
mkdir -p /var/lib/cni
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/lib/cni
containerd --config "$scratch/config.toml" & daemon=$!
until ctr --address "$scratch/containerd.sock" version > /dev/null 2>&1; do sleep 0.05; done
# From 2.0 on, containerd's own import knows only the snapshotters that it is configured for; ctr's works as it did.
local=
if ctr images import --help | grep -q -e --local; then local=--local; fi
ctr --address "$scratch/containerd.sock" --namespace k8s.io images import $local --snapshotter native "$scratch/pause.tar"
touch "$scratch/imported"
while :; do
    if [ -e "$scratch/restart" ]; then
        kill $daemon; wait $daemon || true
        containerd --config "$scratch/config.toml" & daemon=$!
        rm "$scratch/restart"
    fi
    sleep 0.05
done
"#;

/// Writes `pause.tar`: an image of one static program, in the form that `docker save` has.
fn image(scratch: &Path) -> Result<()> {
    let folder = scratch.join("image");
    fs::create_dir_all(&folder)?;
    let (source, program) = (scratch.join("pause.c"), folder.join("pause"));
    fs::write(&source, PAUSE)?;
    tool::run(tool::command("musl-gcc").args(["-static", "-Os", "-s", "-o"]).arg(&program).arg(&source))?;
    let tar = |archive: &Path, names: &[&str]| {
        tool::run(
            tool::command("tar").arg("--directory").arg(&folder).arg("--create").arg("--file").arg(archive).args(names),
        )
    };
    tar(&folder.join("layer.tar"), &["pause"])?;
    let sums = tool::run(tool::command("sha256sum").arg(folder.join("layer.tar")))?;
    let digest = format!("sha256:{}", sums.split_whitespace().next().unwrap_or_default());
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = json!({"architecture": architecture, "os": "linux", "config": {"Entrypoint": ["/pause"]},
        "rootfs": {"type": "layers", "diff_ids": [digest]}});
    fs::write(folder.join("config.json"), config.to_string())?;
    let manifest = json!([{"Config": "config.json", "RepoTags": ["localhost/pause:1"], "Layers": ["layer.tar"]}]);
    fs::write(folder.join("manifest.json"), manifest.to_string())?;
    tar(&scratch.join("pause.tar"), &["manifest.json", "config.json", "layer.tar"])?;
    Ok(())
}
