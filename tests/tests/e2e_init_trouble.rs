//! What stands in the way of `weft init` and `weft join` on a real machine: each time the cause and its fix are told in time, with
//! the exit code that `--help` promises, and once the cause is gone the same command gets on.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use weft_tests::lab::underlay::Families;
use weft_tests::node::bare::{Bare, LENIENT, PROGRAMS, ROOMY, RUNTIME, join_line};
use weft_tests::node::machines::Machines;
use weft_tests::node::peers;
use weft_tests::scratch::Scratch;
use weft_tests::tool::{self, Output};
use weft_tests::{skip, wait};

/// How long may be waited for what others do, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
/// What is wrong is told within 10 s on a machine that does nothing else.
const PROMPT: Duration = Duration::from_secs(10);

/// Exit codes of `weft init --help` and `weft join --help`.
const PREFLIGHT: i32 = 2;
const IMAGES: i32 = 4;
const UNWELL: i32 = 5;
const DISCOVERY: i32 = 6;

/// A socket at which nobody listens.
const NOTHING: &str = "--cri-socket=unix:///run/nothing.sock";

/// A control plane whose API server does not start.
const BAD_FLAG: &str = "---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
apiServer:
  extraArgs:
    - {name: no-such-flag, value: \"1\"}
";

/// The run ended in time, so, and said all of this.
fn refused(output: &Output, exit: i32, words: &[&str]) {
    assert_eq!(output.exit, Some(exit), "{}", output.stderr);
    assert!(output.took < PROMPT, "it took {:?}", output.took);
    for word in words {
        assert!(output.stderr.contains(word), "no word of {word:?} in {}", output.stderr);
    }
}

/// The names of the checks that have failed, and only those.
fn failed(output: &Output, names: &[&str], words: &[&str]) {
    refused(output, PREFLIGHT, words);
    let found = output.stderr.split("[ERROR ").skip(1).filter_map(|rest| rest.split(']').next());
    let mut found: Vec<&str> = found.collect();
    found.sort_unstable();
    assert_eq!(found, names, "{}", output.stderr);
}

/// The journal holds nothing that had to be taken back.
fn nothing_written(node: &Bare) {
    let journal = fs::read_to_string(node.machine.path("lib/weft/journal.jsonl")).unwrap_or_default();
    assert_eq!(journal, "");
}

fn shell(node: &Bare, script: &str) {
    node.machine.run("sh", &["-euc", script]).unwrap();
}

/// What `--kubernetes-bin` or `--config` are given instead.
fn init_with(node: &Bare, flag: &str, path: &Path, more: &[&str]) -> Output {
    let args: Vec<String> = node.init_args().into_iter().filter(|word| !word.starts_with(flag)).collect();
    let given = format!("{flag}={}", path.display());
    let words: Vec<&str> =
        args.iter().map(String::as_str).chain([given.as_str()]).chain(more.iter().copied()).collect();
    node.weft(&words).unwrap()
}

fn p08_only_root_may(node: &Bare) {
    // Where everybody may go.
    let weft = node.machine.inside("/opt/weft").unwrap();
    fs::copy(weft_tests::binaries::find("weft").unwrap(), weft).unwrap();
    let address = format!("--apiserver-advertise-address={}", node.machine.ip());
    let args = ["--reuid=65534", "--regid=65534", "--clear-groups", "/opt/weft", "init", &address];
    let output = node.machine.run_within("setpriv", &args, LIMIT).unwrap();
    failed(&output, &["IsPrivilegedUser"], &["this is user 65534", "sudo weft"]);
    shell(node, "rm /opt/weft");
    assert!(!node.machine.path("lib/weft").exists());
}

fn swap_on(node: &Bare) {
    let swaps = node.machine.path("swaps");
    fs::write(&swaps, "Filename Type Size Used Priority\n/dev/none partition 1024 0 -2\n").unwrap();
    shell(node, &format!("mount --bind {} /proc/swaps", swaps.display()));
}

/// Three at once, told in one run that has done nothing; then each of them alone.
fn p01_all_is_told_at_once(node: &Bare) {
    swap_on(node);
    node.machine.netns().sysctl("net/ipv4/ip_forward", "0").unwrap();
    let urls = ["--listen-client-urls=http://127.0.0.1:6443", "--advertise-client-urls=http://127.0.0.1:6443"];
    let data = format!("--data-dir={}", node.machine.path("holder").display());
    let peers = ["--listen-peer-urls=http://127.0.0.1:7380", &data];
    let holder = node.machine.spawn("holder", "etcd", &[urls, peers].concat()).unwrap();
    let taken = || node.machine.netns().run(|| TcpStream::connect((Ipv4Addr::LOCALHOST, 6443))).unwrap();
    wait::until_ok(LIMIT, "port 6443 to be taken", taken).unwrap();

    let before = node.snapshot().unwrap();
    let names = ["FileContent--proc-sys-net-ipv4-ip_forward", "Port-6443", "Swap"];
    let causes = ["swap is on: /dev/none", "--swap=tolerate", "port 6443 is taken by etcd", "--apiserver-bind-port"];
    failed(&node.init(&["--prepare-host=false"]).unwrap(), &names, &causes);
    nothing_written(node);
    let after = node.snapshot().unwrap();
    let before: BTreeSet<&str> = before.lines().collect();
    let new: Vec<&str> = after.lines().filter(|line| !before.contains(line)).collect();
    assert!(new.iter().all(|line| line.contains("/var/lib/weft")), "{new:#?}");

    // Weft would set what it may, and names what it may not.
    failed(&node.init(&[]).unwrap(), &["Port-6443"], &["end process"]);
    holder.kill();
    let kept = node.init(&["--swap=tolerate", NOTHING]).unwrap();
    failed(&kept, &["CRI"], &["kubelet is told to bear it"]);
    // The area is none that could be turned off.
    refused(&node.init(&[]).unwrap(), PREFLIGHT, &["swapoff /dev/none", "--swap=tolerate"]);
    shell(node, "umount /proc/swaps");
}

fn wrong_socket(node: &Bare) {
    let causes = ["no container runtime listens at", "/run/nothing.sock", "there is /run/containerd/containerd.sock"];
    failed(&node.init(&[NOTHING]).unwrap(), &["CRI"], &[causes.as_slice(), &["--cri-socket"]].concat());
}

fn full_disk(node: &Bare) {
    let places = "/var/lib/etcd /var/lib/kubelet";
    shell(node, &format!("for at in {places}; do mkdir -p $at; mount -t tmpfs -o size=16m tmpfs $at; done"));
    let causes = ["MiB are free at /var/lib/etcd", "MiB are free at /var/lib/kubelet", "make room"];
    failed(&node.init(&[]).unwrap(), &["DiskSpace", "DiskSpace"], &causes);
    shell(node, &format!("for at in {places}; do umount $at; done"));
}

/// Changes containerd's configuration and has it read.
fn configure(node: &mut Bare, change: impl FnOnce(&str) -> String) {
    let (file, text) = node.configuration().unwrap();
    fs::write(file, change(&text)).unwrap();
    node.restart_containerd().unwrap();
}

/// Told without `--fix`, mended with it; there is nobody who could start containerd anew but whoever has started it.
fn mended(node: &mut Bare, name: &str, causes: &[&str]) {
    failed(&node.init(&[]).unwrap(), &[name], causes);
    let (_, wrong) = node.configuration().unwrap();
    let fixed = node.init(&["--fix"]).unwrap();
    refused(&fixed, PREFLIGHT, &["containerd's configuration is mended", "Start it anew"]);
    let (file, text) = node.configuration().unwrap();
    assert_ne!(text, wrong);
    let beside = fs::read_dir(file.parent().unwrap()).unwrap().count();
    assert!(beside > 1, "no backup");
    node.restart_containerd().unwrap();
    // It gets further now: to another obstacle.
    failed(&node.init(&[NOTHING]).unwrap(), &["CRI"], &["/run/nothing.sock"]);
}

fn cri_disabled(node: &mut Bare) {
    let nri = "disabled_plugins = [\"io.containerd.nri.v1.nri\"";
    configure(node, |text| text.replace(nri, &format!("{nri}, \"io.containerd.grpc.v1.cri\"")));
    let place = "/etc/containerd/config.toml line 5 disables it";
    failed(&node.init(&[]).unwrap(), &["CRI"], &["runs without its CRI plugin", place, "disabled_plugins"]);
    let more = ", \"io.containerd.cri.v1.runtime\", \"io.containerd.cri.v1.images\"";
    configure(node, |text| text.replace(nri, &format!("{nri}{more}")));
    mended(node, "CRI", &["runs without its CRI plugin", place]);
    let (_, text) = node.configuration().unwrap();
    assert!(text.contains("io.containerd.nri.v1.nri") && !text.contains("grpc.v1.cri"), "{text}");
}

fn cgroup_driver(node: &mut Bare) {
    let options = "[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.runc.options]\nSystemdCgroup = true\n";
    configure(node, |text| format!("{text}{options}"));
    mended(
        node,
        "CgroupDriver",
        &["no systemd runs here", "SystemdCgroup = false in /etc/containerd/config.toml line"],
    );
}

fn image_missing(node: &Bare) {
    let scratch = Scratch::new();
    let folder = scratch.join("without");
    fs::create_dir(&folder).unwrap();
    let programs = fs::read_dir(node.folder()).unwrap().map(Result::unwrap);
    for entry in programs.filter(|entry| entry.file_name() != "kube-scheduler") {
        let target = entry.path().canonicalize().unwrap();
        std::os::unix::fs::symlink(target, folder.join(entry.file_name())).unwrap();
    }
    let causes = ["registry.k8s.io/kube-scheduler:v1.36.2 is not on this node", "--images", "--kubernetes-bin"];
    refused(&init_with(node, "--kubernetes-bin", &folder, &[]), IMAGES, &causes);
}

fn configuration(node: &Bare, name: &str, text: &str) -> PathBuf {
    let file = node.machine.path(name);
    fs::write(&file, text).unwrap();
    file
}

/// An API server that ends at once is not waited for until the time is over.
fn i08_bad_flag(node: &Bare) {
    let file = configuration(node, "bad.yaml", &format!("{ROOMY}{BAD_FLAG}"));
    let output = init_with(node, "--config", &file, &[]);
    assert_eq!(output.exit, Some(UNWELL), "{}", output.stderr);
    let (_, after) = output.stderr.split_once("will not get well after ").expect("it was waited in vain");
    let seconds: f32 = after.split(' ').next().unwrap().parse().unwrap();
    assert!(seconds < 15.0, "only after {seconds} s");
    for word in [
        "cause (configuration): kube-apiserver does not know one of its flags",
        "extraArgs",
        "unknown flag: --no-such-flag",
    ] {
        assert!(output.stderr.contains(word), "no word of {word:?} in {}", output.stderr);
    }
}

/// Without the flag it gets well, though kubelet's configuration names a driver that the runtime does not have.
fn succeeds(node: &Bare) -> Output {
    let file = configuration(node, "good.yaml", &format!("{ROOMY}cgroupDriver: systemd\n"));
    let output = init_with(node, "--config", &file, &[]);
    assert_eq!(output.exit, Some(0), "{}", output.stderr);
    assert!(output.stdout.contains("going on from there"), "{}", output.stdout);
    let warning = "cgroupDriver: \"systemd\" is given, and the runtime of this node has cgroupfs";
    assert!(output.stderr.contains(warning), "{}", output.stderr);
    output
}

/// A word of a line that follows another one.
fn word_after(line: &str, flag: &str) -> String {
    line.split_whitespace().skip_while(|word| *word != flag).nth(1).unwrap().to_owned()
}

fn expired_token(first: &Bare, second: &Bare, line: &str) {
    let made = first.weft(&["token", "create", "--ttl", "5s"]).unwrap();
    let token = made.stdout.trim().to_owned();
    let signature = format!("jws-kubeconfig-{}", token.split('.').next().unwrap());
    let is_gone = || {
        let text = first.kubectl(&["get", "configmap", "cluster-info", "--namespace=kube-public", "--output=json"])?;
        anyhow::ensure!(!text.contains(&signature), "it is still signed with {signature}");
        Ok::<_, anyhow::Error>(())
    };
    wait::until_ok(LIMIT, "the token to expire", is_gone).unwrap();
    let line = line.replace(&word_after(line, "--token"), &token);
    let words = ["is unknown to the cluster", "has expired", "weft token create --print-join-command"];
    refused(&second.follow(&line, &[LENIENT]).unwrap(), DISCOVERY, &words);
}

/// Somebody who answers as the API server does, at another time.
fn skewed_clock(first: &Bare, second: &Bare, line: &str) {
    const PATH: &str = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
    let body = first.kubectl(&["get", "--raw", PATH]).unwrap();
    let date = tool::call("date", &["-u", "-d", "10 minutes", "+%a, %d %b %Y %H:%M:%S GMT"]).unwrap();
    let answer = format!(
        "HTTP/1.1 200 OK\r\nDate: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        date.trim(),
        body.len()
    );
    let folder = second.machine.path("front");
    let file = folder.join(PATH.trim_start_matches('/'));
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, answer).unwrap();
    let certificate = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=front -keyout key -out crt 2> /dev/null";
    let serve = "exec openssl s_server -accept 7443 -cert crt -key key -HTTP -quiet";
    let script = format!("cd {}; {certificate}; {serve}", folder.display());
    let front = second.machine.spawn("front", "sh", &["-euc", &script]).unwrap();
    let listens = || second.machine.netns().run(|| TcpStream::connect((Ipv4Addr::LOCALHOST, 7443))).unwrap();
    wait::until_ok(LIMIT, "the front", listens).unwrap();
    let line = line.replace(&format!("{}:6443", first.machine.ip()), "127.0.0.1:7443");
    let words = ["clock skew 10m: this machine's clock is behind", "set the clock (chrony, ntp)"];
    refused(&second.follow(&line, &[LENIENT]).unwrap(), DISCOVERY, &words);
    front.kill();
}

fn join_troubles(first: &Bare, second: &Bare, line: &str) {
    let unknown = line.replace(&word_after(line, "--token"), "zzzzzz.0123456789abcdef");
    let words = ["token zzzzzz is unknown to the cluster", "weft token create --print-join-command"];
    refused(&second.follow(&unknown, &[LENIENT]).unwrap(), DISCOVERY, &words);
    let hash = word_after(line, "--discovery-token-ca-cert-hash");
    let other = line.replace(&hash, &format!("sha256:{}", "0".repeat(64)));
    let words = ["the certificate authority of the cluster at", &hash, "nothing has been sent there"];
    refused(&second.follow(&other, &[LENIENT]).unwrap(), DISCOVERY, &words);
    expired_token(first, second, line);
    skewed_clock(first, second, line);
    nothing_written(second);
    let join = second.follow(line, &[LENIENT]).unwrap();
    assert_eq!(join.exit, Some(0), "{}", join.stderr);
    let nodes: Value = serde_json::from_str(&first.kubectl(&["get", "nodes", "--output=json"]).unwrap()).unwrap();
    assert_eq!(nodes["items"].as_array().unwrap().len(), 2);
}

#[test]
fn what_stands_in_the_way_is_told_in_time_and_gone_it_is_forgotten() {
    if let Err(reason) = peers::check(&PROGRAMS).and_then(|()| peers::check(&RUNTIME)) {
        skip!("{reason}");
    }
    let mut machines = Machines::boot(2, Families::Both, ROOMY).unwrap();
    let [first, second] = &mut machines.nodes[..] else { unreachable!("as many as were asked for") };
    p08_only_root_may(first);
    p01_all_is_told_at_once(first);
    wrong_socket(first);
    full_disk(first);
    cri_disabled(first);
    cgroup_driver(first);
    image_missing(first);
    i08_bad_flag(first);
    let line = join_line(&succeeds(first).stdout).unwrap();
    join_troubles(first, second, &line.replace("\\\n", " "));
}
