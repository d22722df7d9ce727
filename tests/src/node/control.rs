//! The control plane: etcd, API server, controller manager and scheduler, as plain processes of one machine's network.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use super::peers;
use crate::etcd::Etcd;
use crate::netns::Netns;
use crate::process::{self, ProcessId};
use crate::{tool, wait};

/// How long the API server may take to start on a busy machine.
const LIMIT: Duration = Duration::from_secs(240);
/// The networks of pods and Services, as `manifests/base` has them.
const POD_NETWORK: &str = "10.244.0.0/16";
const SERVICE_NETWORK: &str = "10.96.0.0/12";

/// Where the control plane is and what is needed to speak to it.
#[derive(Debug)]
pub struct Control {
    netns: Netns,
    ip: IpAddr,
    folder: PathBuf,
    etcd: Etcd,
    server: ProcessId,
    others: Vec<ProcessId>,
}

impl Control {
    /// Starts it in the network of a machine with this address, and waits until the API server is ready.
    ///
    /// # Errors
    /// When a part does not start.
    pub fn start(netns: &Netns, ip: IpAddr, folder: &Path, nodes: &[&str]) -> Result<Self> {
        fs::create_dir_all(folder)?;
        prepare(folder, nodes)?;
        let etcd = Etcd::start(netns, "127.0.0.1:2379".parse()?, &folder.join("etcd"))?;
        let server = api_server(netns, ip, folder)?;
        let mut this = Self { netns: netns.clone(), ip, folder: folder.to_owned(), etcd, server, others: Vec::new() };
        this.await_ready()?;
        this.start_others()?;
        Ok(this)
    }

    /// Starts the controller manager and the scheduler.
    fn start_others(&mut self) -> Result<()> {
        for program in ["kube-controller-manager", "kube-scheduler"] {
            let mut command = tool::command(peers::need(program)?);
            command.arg("--kubeconfig").arg(self.kubeconfig(&format!("system:{program}"))?).arg("--leader-elect=false");
            if program == "kube-controller-manager" {
                command.args(["--allocate-node-cidrs", "--use-service-account-credentials"]);
                command.arg(format!("--cluster-cidr={POD_NETWORK}"));
                command.arg(format!("--service-cluster-ip-range={SERVICE_NETWORK}"));
                command.arg("--service-account-private-key-file").arg(self.folder.join("account.key"));
                command.arg("--root-ca-file").arg(self.authority());
            }
            let log = self.folder.join(format!("{program}.log"));
            self.others.push(process::spawn(&self.netns, &mut command, &log)?);
        }
        Ok(())
    }

    /// Where the API server is.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}:6443", self.ip)
    }

    /// The certificates that vouch for it. It has made them itself.
    fn authority(&self) -> PathBuf {
        self.folder.join("certificates/apiserver.crt")
    }

    /// The file with the credentials of a user.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn kubeconfig(&self, user: &str) -> Result<PathBuf> {
        let path = self.folder.join(format!("{}.kubeconfig", user.replace(':', "-")));
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": self.url(), "certificate-authority": self.authority()}}],
            "users": [{"name": "u", "user": {"token": token(user)}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        });
        fs::write(&path, kubeconfig.to_string())?;
        Ok(path)
    }

    /// A call of kubectl as an administrator, with standard input.
    ///
    /// # Errors
    /// When it ends with another code than 0.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.kubectl_as("admin", args)
    }

    /// The same as somebody else.
    ///
    /// # Errors
    /// As [`Control::kubectl`].
    pub fn kubectl_as(&self, user: &str, args: &[&str]) -> Result<String> {
        let mut command: Command = tool::command(peers::need("kubectl")?);
        command.arg("--kubeconfig").arg(self.kubeconfig(user)?).args(args);
        // Not what another cluster's discovery has left in a cache.
        command.env("HOME", &self.folder).env_remove("KUBECONFIG");
        self.netns.command(&mut command)
    }

    /// Kills the API server, and with it those that end when they cannot reach it; etcd keeps what it has.
    pub fn stop(&mut self) {
        self.others.drain(..).chain([self.server]).for_each(ProcessId::kill);
    }

    /// Starts again what [`Control::stop`] has ended.
    ///
    /// # Errors
    /// When the API server does not get ready.
    pub fn resume(&mut self) -> Result<()> {
        self.server = api_server(&self.netns, self.ip, &self.folder)?;
        self.await_ready()?;
        self.start_others()
    }

    fn await_ready(&self) -> Result<()> {
        let ready = || {
            anyhow::ensure!(self.server.alive(), "it ended");
            self.kubectl(&["get", "--raw", "/readyz"])
        };
        wait::until_ok(LIMIT, "the API server", ready).with_context(|| self.log("kube-apiserver"))?;
        Ok(())
    }

    /// The end of what a part has said.
    #[must_use]
    pub fn log(&self, program: &str) -> String {
        super::tail(&self.folder.join(format!("{program}.log")), 30)
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        for process in self.others.iter().chain([&self.server, &self.etcd.process()]) {
            process.kill();
        }
    }
}

/// A token that says whose it is: these clusters are reached from their own network only.
fn token(user: &str) -> String {
    format!("token-of-{}", user.replace(':', "-"))
}

/// The keys and users that a control plane begins with.
fn prepare(folder: &Path, nodes: &[&str]) -> Result<()> {
    let key = folder.join("account.key");
    tool::run(tool::command("openssl").args(["genrsa", "-out"]).arg(key).arg("2048"))?;
    let mut users = vec![
        ("admin".to_owned(), "system:masters"),
        ("system:kube-controller-manager".to_owned(), ""),
        ("system:kube-scheduler".to_owned(), ""),
    ];
    users.extend(nodes.iter().map(|node| (format!("system:node:{node}"), "system:nodes")));
    let lines = users.iter().map(|(user, group)| format!("{},{user},{user},\"{group}\"\n", token(user)));
    Ok(fs::write(folder.join("tokens"), lines.collect::<String>())?)
}

fn api_server(netns: &Netns, ip: IpAddr, folder: &Path) -> Result<ProcessId> {
    let mut command = tool::command(peers::need("kube-apiserver")?);
    command.args(["--etcd-servers=http://127.0.0.1:2379", "--secure-port=6443", "--authorization-mode=Node,RBAC"]);
    command.args(["--enable-admission-plugins=NodeRestriction", "--allow-privileged", "--profiling=false"]);
    command.arg(format!("--advertise-address={ip}"));
    // Nobody resolves the names of these nodes.
    command.arg("--kubelet-preferred-address-types=InternalIP");
    command.arg(format!("--service-cluster-ip-range={SERVICE_NETWORK}"));
    command.arg("--service-account-issuer=https://kubernetes.default.svc.cluster.local");
    for (flag, file) in [
        ("cert-dir", "certificates"),
        ("token-auth-file", "tokens"),
        ("service-account-key-file", "account.key"),
        ("service-account-signing-key-file", "account.key"),
    ] {
        command.arg(format!("--{flag}={}", folder.join(file).display()));
    }
    process::spawn(netns, &mut command, &folder.join("kube-apiserver.log"))
}
