//! The guest as a machine that can become a node: with a container runtime, a network, a name, and programs of Kubernetes.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use weft_tests::scratch::Scratch;
use weft_tests::tool::{self, Output, Stdin};
use weft_tests::{binaries, wait};

/// What stands in the way is told within this, on an emulated processor too.
const PROMPT: Duration = Duration::from_secs(10);
/// How long may be waited for what takes its time.
const LIMIT: Duration = Duration::from_secs(30);

/// What such a guest lacks, and what it has too little of.
const LACKING: &str = "--ignore-preflight-errors=KubeletVersion,Mem,DiskSpace";

const SOCKET: &str = "/run/containerd/containerd.sock";
/// As it comes, but that a file system that the kernel has unpacked into its memory is not changed for another one (pivot_root(2)).
const CONTAINERD: &str = r#"version = 2
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
NoPivotRoot = true
"#;

/// What images of a control plane are made of. Before kubelet starts nobody runs them.
const PROGRAMS: [&str; 5] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd", "coredns"];

/// There is one guest, with one clock and one journal.
static ALONE: Mutex<()> = Mutex::new(());

/// The machine, the test's alone. It is given back as it was.
pub(crate) struct Machine {
    containerd: Child,
    programs: Scratch,
    _alone: MutexGuard<'static, ()>,
}

/// The machine, or the end of the test, which says why there can be none.
macro_rules! machine {
    () => {
        match Machine::start() {
            Ok(machine) => machine,
            Err(reason) => weft_tests::skip!("{reason:#}"),
        }
    };
}
pub(crate) use machine;

impl Machine {
    /// # Errors
    /// The runtime is not installed where the guest has its programs from.
    pub(crate) fn start() -> anyhow::Result<Self> {
        for program in ["containerd", "runc"] {
            tool::call(program, &["--version"])?;
        }
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        nix::unistd::sethostname("n1").unwrap();
        for words in [
            "link add eth0 type dummy",
            "address add 192.0.2.10/24 dev eth0",
            "link set eth0 up",
            "route add default via 192.0.2.1",
        ] {
            tool::call("ip", &words.split(' ').collect::<Vec<_>>()).unwrap();
        }
        fs::write("/etc/resolv.conf", "").unwrap();
        fs::create_dir_all("/etc/containerd").unwrap();
        fs::write("/etc/containerd/config.toml", CONTAINERD).unwrap();
        let programs = Scratch::new();
        for name in PROGRAMS {
            fs::copy(binaries::find("weft-cni").unwrap(), programs.join(name)).unwrap();
        }
        let log = File::create(programs.join("log")).unwrap();
        let mut command = tool::command("containerd");
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let this = Self { containerd: command.spawn().unwrap(), programs, _alone: alone };
        let listens = || UnixStream::connect(SOCKET).map_err(|error| format!("{error}: {}", this.log()));
        wait::until_ok(wait::patience(LIMIT), "containerd", listens).unwrap();
        Ok(this)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.programs.join("log")).unwrap_or_default()
    }

    /// Runs weft to its end.
    pub(crate) fn weft(&self, words: &[&str]) -> Output {
        let mut command = tool::command(binaries::find("weft").unwrap());
        tool::run_within(command.args(words), Stdin::Bytes(b""), wait::patience(LIMIT)).unwrap()
    }

    /// The phase of init that makes the machine ready, with further flags.
    pub(crate) fn init(&self, more: &[&str]) -> Output {
        self.bring_up(&["init", "phase", "preflight"], more)
    }

    /// The same of join, which first finds the cluster.
    pub(crate) fn join(&self, more: &[&str]) -> Output {
        self.bring_up(&["join", "phase", "--name", "preflight"], more)
    }

    fn bring_up(&self, verb: &[&str], more: &[&str]) -> Output {
        let programs = self.programs.path().display().to_string();
        self.weft(&[verb, &["--kubernetes-bin", &programs, LACKING], more].concat())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.weft(&["reset", "--force"]);
        let _ = self.containerd.kill();
        let _ = self.containerd.wait();
        let _ = tool::call("ip", &["link", "delete", "eth0"]);
    }
}

/// The run has ended well.
pub(crate) fn well(output: Output) -> Output {
    assert_eq!(output.exit, Some(0), "{}{}", output.stdout, output.stderr);
    output
}

/// The run has ended in time, so, and has said all of this.
pub(crate) fn refused(output: &Output, exit: i32, words: &[&str]) {
    assert_eq!(output.exit, Some(exit), "{}{}", output.stdout, output.stderr);
    assert!(output.took < PROMPT, "it took {:?}", output.took);
    for word in words {
        assert!(output.stderr.contains(word), "no word of {word:?} in {}", output.stderr);
    }
}

/// The journal holds nothing that would have to be taken back.
pub(crate) fn nothing_written() {
    assert_eq!(fs::read_to_string("/var/lib/weft/journal.jsonl").unwrap_or_default(), "");
}
