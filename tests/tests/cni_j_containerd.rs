//! containerd with the CRI plugin, as kubelet uses it: the conflist is read, pods come, are reached, and go.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use weft_tests::cni::Host;
use weft_tests::containerd::{Containerd, conflist};
use weft_tests::{probe, skip, tool, wait};

/// Where a program of `WEFT_PEERS` is.
fn peer(program: &str) -> Option<PathBuf> {
    let peers = PathBuf::from(std::env::var_os("WEFT_PEERS")?);
    let folders = [peers.join("containerd/bin"), peers.join("bin"), peers];
    folders.into_iter().find(|folder| folder.join(program).is_file())
}

const SUBNET_FILE: &str =
    "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";

/// Pods through the life of one node's runtime.
fn life(folder: &Path) {
    let host = Host::new();
    fs::write(host.subnet_file(), SUBNET_FILE).unwrap();
    let runtime = Containerd::start(&host, folder).unwrap();
    let first = runtime.run_sandbox("first", 0).unwrap();
    let second = runtime.run_sandbox("second", 0).unwrap();
    let addresses = [runtime.address(&first).unwrap(), runtime.address(&second).unwrap()];
    assert_eq!(addresses.map(|ip| ip.to_string()), ["10.244.1.2", "10.244.1.3"]);
    let reached = |at: usize| probe::ping(&host.netns, addresses[at], Duration::from_secs(5)).unwrap().is_some();
    assert!(reached(0) && reached(1));
    host.assert_attachments(2);

    runtime.restart().unwrap();
    assert_eq!(runtime.address(&first).unwrap(), addresses[0]);
    assert!(reached(0) && reached(1));
    runtime.remove_sandbox(&first).unwrap();
    host.assert_attachments(1);
    assert!(reached(1));

    ports(&host, &runtime);
    runtime.remove_sandbox(&second).unwrap();
    host.assert_nothing_left();
}

/// Host ports come with keys in Go's capitals.
fn ports(host: &Host, runtime: &Containerd<'_>) {
    let rules = || host.netns.tool("nft", &["list", "table", "inet", "weft-cni"]).unwrap();
    let id = runtime.run_sandbox("with-port", 18080).unwrap();
    assert!(rules().contains("18080"), "{}", rules());
    runtime.remove_sandbox(&id).unwrap();
    assert!(!rules().contains("18080"), "{}", rules());
    wait::until(Duration::from_secs(5), "only the second pod", || host.records().len() == 1).unwrap();
}

#[test]
fn t103_debians_containerd() {
    if tool::call("containerd", &["--version"]).is_err() || tool::call("runc", &["--version"]).is_err() {
        skip!("containerd and runc are not installed");
    }
    life(Path::new("/usr/bin"));
}

/// The agent writes its conflist beside its place and renames it. Out of another folder containerd would not see it come.
#[test]
fn t127_a_conflist_that_is_renamed_within_its_folder_is_read() {
    if tool::call("containerd", &["--version"]).is_err() || tool::call("runc", &["--version"]).is_err() {
        skip!("containerd and runc are not installed");
    }
    let host = Host::new();
    fs::write(host.subnet_file(), SUBNET_FILE).unwrap();
    let runtime = Containerd::start(&host, Path::new("")).unwrap();
    let installed = runtime.conf_dir().join("10-weft.conflist");
    let ready = |wanted: bool| runtime.network_is_ready().is_ok_and(|ready| ready == wanted);
    let withdraw = || {
        fs::remove_file(&installed).unwrap();
        wait::until(Duration::from_secs(5), "no network without a conflist", || ready(false)).unwrap();
    };
    withdraw();
    let beside = host.scratch.join("10-weft.conflist");
    fs::write(&beside, conflist(&host).to_string()).unwrap();
    fs::rename(&beside, &installed).unwrap();
    let unseen = || if ready(false) { Ok(()) } else { Err("seen") };
    wait::throughout(Duration::from_secs(1), unseen).unwrap();
    withdraw();
    let temporary = runtime.conf_dir().join(".10-weft.conflist.1.tmp");
    fs::write(&temporary, conflist(&host).to_string()).unwrap();
    fs::rename(&temporary, &installed).unwrap();
    wait::until(Duration::from_secs(5), "the conflist to be read", || ready(true)).unwrap();
}

#[test]
fn t103_a_newer_containerd() {
    match peer("containerd") {
        Some(folder) => life(&folder),
        None => skip!("WEFT_PEERS names no folder with a containerd"),
    }
}

#[test]
fn t103_cnitool_adds_checks_and_deletes() {
    let Some(folder) = peer("cnitool") else { skip!("WEFT_PEERS names no folder with a cnitool") };
    let host = Host::new();
    fs::write(host.subnet_file(), SUBNET_FILE).unwrap();
    let conf = host.scratch.join("net.d");
    fs::create_dir_all(&conf).unwrap();
    fs::write(conf.join("10-weft.conflist"), conflist(&host).to_string()).unwrap();
    let pod = host.pod();
    let tool = |verb: &str| {
        let mut command = tool::command(folder.join("cnitool"));
        command.args([verb, "cbr0"]).arg(pod.netns.path()).env("NETCONFPATH", &conf);
        command.env("CNI_PATH", host.plugin().parent().unwrap());
        host.netns.command(&mut command).unwrap()
    };
    assert!(tool("add").contains("10.244.1.2/24"));
    tool("check");
    tool("del");
    host.assert_nothing_left();
}
