//! `weft init`, `weft join` and `weft reset` on machines that reach no image registry: two commands, and a cluster is there.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use weft_tests::lab::underlay;
use weft_tests::netns::OwnedNetns;
use weft_tests::node::{Machine, Service, bare, peers};
use weft_tests::scratch::{Scratch, unique_name};
use weft_tests::{binaries, skip};

/// What `--kubernetes-bin` is given.
const PROGRAMS: [&str; 7] =
    ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl", "coredns", "etcd"];

/// A machine with a runtime, and nothing of Kubernetes.
struct Bare {
    machine: Machine,
    _containerd: Service,
}

impl Bare {
    fn boot(underlay: &OwnedNetns, number: u8, folder: &Path) -> Self {
        let machine = Machine::boot(underlay, number, folder).unwrap();
        let containerd = bare::containerd(&machine).unwrap();
        Self { machine, _containerd: containerd }
    }

    fn weft(&self, args: &[&str]) -> String {
        let weft = binaries::find("weft").unwrap();
        let began = Instant::now();
        let said = self.machine.run(weft.to_str().unwrap(), args).unwrap();
        eprintln!("{} weft {} took {:.1?}:\n{said}", self.machine.name(), args[0], began.elapsed());
        said
    }
}

/// The folder of programs, linked to where they are.
fn programs(scratch: &Scratch) -> PathBuf {
    let folder = scratch.join("bin");
    fs::create_dir(&folder).unwrap();
    for program in PROGRAMS {
        std::os::unix::fs::symlink(peers::need(program).unwrap(), folder.join(program)).unwrap();
    }
    folder
}

#[test]
fn two_commands_make_a_cluster_and_reset_takes_it_back() {
    if let Err(reason) = peers::check(&PROGRAMS).and_then(|()| peers::check(&["containerd", "ctr", "runc"])) {
        skip!("{reason}");
    }
    let scratch = Scratch::new();
    let underlay = OwnedNetns::new(format!("{}-underlay", unique_name()));
    underlay::ensure(&underlay).unwrap();
    let folder = programs(&scratch);
    let folder = folder.to_str().unwrap();
    let first = Bare::boot(&underlay, 1, &scratch.join("n1"));
    let ip = first.machine.ip().to_string();
    let init = ["init", "--kubernetes-bin", folder, "--apiserver-advertise-address", &ip];
    // This machine's control groups are of version 1, and its processors are two.
    let lenient = ["--ignore-preflight-errors", "SystemVerification,NumCPU,Mem,Hostname,FileExisting-losetup"];
    let init = [init.as_slice(), &lenient].concat();
    let said = first.weft(&init);
    assert!(said.contains("is Ready"), "{said}");
    let kubectl = |args: &[&str]| {
        let args = [&["--kubeconfig=/etc/kubernetes/admin.conf"], args].concat();
        first.machine.run("kubectl", &args).unwrap()
    };
    eprintln!("{}", kubectl(&["get", "nodes,pods", "--all-namespaces", "--output=wide"]));

    let began = Instant::now();
    let again = first.weft(&init);
    eprintln!("a second run took {:?}", began.elapsed());
    assert!(!again.contains("Generating") && !again.contains("Created"), "{again}");
}
