//! The agent itself, in a network namespace with an uplink.

use std::fs::OpenOptions;
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;
use weft_tests::scratch::Scratch;
use weft_tests::{binaries, tool};

use crate::etcd::free_port;

/// Puts the thread, and so all that it starts, into a network namespace of its own with the uplink `up0`.
pub(crate) fn enter_a_namespace() {
    unshare(CloneFlags::CLONE_NEWNET).expect("needs root");
    for args in [
        "link set lo up",
        "link add up0 type veth peer name up1",
        "link set up1 up",
        "link set up0 up",
        "address add 198.18.0.0/15 dev up0",
        "route add default dev up0",
    ] {
        tool::call("ip", &args.split(' ').collect::<Vec<_>>()).unwrap();
    }
}

/// The agent of node n0, running.
pub(crate) struct Agent {
    pub(crate) process: Child,
    pub(crate) began: Instant,
    pub(crate) port: u16,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Agent {
    /// Starts it beside an API server, with its files in `scratch`: the runtime's in `conf` and `bin`.
    pub(crate) fn start(scratch: &Scratch, kubeconfig: &str) -> Self {
        Self::start_with(scratch, kubeconfig, &[])
    }

    /// The same with these arguments besides.
    pub(crate) fn start_with(scratch: &Scratch, kubeconfig: &str, more: &[&str]) -> Self {
        let source = ["--source", "kube", "--kubeconfig", kubeconfig, "--network", "10.0.0.0/11"];
        Self::spawn(scratch, &[&source, more].concat())
    }

    /// Starts it with these arguments beside those that say where its files are. What it logs goes to `err` there, also of
    /// earlier starts.
    pub(crate) fn spawn(scratch: &Scratch, args: &[&str]) -> Self {
        let port = free_port();
        let path = |name: &str| scratch.join(name).to_str().unwrap().to_owned();
        let log = |name: &str| OpenOptions::new().create(true).append(true).open(scratch.join(name)).unwrap();
        let mut command = tool::command(binaries::find("weft").unwrap());
        command
            .args(["agent", "--node-name", "n0", "--healthz-bind", &format!("127.0.0.1:{port}")])
            .args(["--run-dir", &path("run"), "--state-dir", &path("state"), "--cni-state-dir", &path("cni")])
            .args(["--cni-conf-dir", &path("conf"), "--cni-bin-dir", &path("bin")])
            .args(["--subnet-file", &path("subnet.env")])
            .args(["--conntrack-max-per-core", "0", "--conntrack-tcp-timeout-established", "0"])
            .args(["--conntrack-tcp-timeout-close-wait", "0"])
            .args(args)
            .stdout(log("log"))
            .stderr(Stdio::from(log("err")));
        Self { process: command.spawn().unwrap(), port, began: Instant::now() }
    }

    /// What it answers, status line and all; `None` if it does not.
    pub(crate) async fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    }

    /// A line of `/proc/PID/status`, in MiB.
    pub(crate) fn memory(&self, name: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }

    /// Processor time that it has used in all.
    pub(crate) fn processor(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        // Behind the name, which is in parentheses: user and system time are the 12th and 13th field, in ticks of 10 ms.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        Duration::from_millis(10 * (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()))
    }
}
