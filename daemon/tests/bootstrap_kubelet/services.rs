//! Whoever keeps kubelet running: weft's supervisor where there is nobody, else systemctl or what stands for it.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use weft::bootstrap::kubelet::service::{Plain, Service, ServiceManager};
use weft::bootstrap::resolved::Paths;
use weft_tests::process::ProcessId;
use weft_tests::scratch::Scratch;
use weft_tests::wait;

const LIMIT: Duration = Duration::from_secs(60);

/// A machine without a service manager, whose kubelet is a shell script; ends what it runs when it goes.
struct Host {
    folder: Scratch,
    services: ServiceManager,
}

impl Host {
    /// The script gets `$STARTS`, a file to which it may add.
    fn new(script: &str) -> Self {
        let folder = Scratch::new();
        let kubelet =
            program(&folder.join("kubelet"), &format!("STARTS={}\n{script}", folder.join("starts").display()));
        let paths = Paths::under(folder.path());
        fs::create_dir_all(&paths.kubelet).unwrap();
        let plain = Plain { weft: env!("CARGO_BIN_EXE_weft").into(), kubelet: Some(kubelet), containerd: None, paths };
        Self { folder, services: ServiceManager::Plain(plain) }
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.folder.join(name)).unwrap_or_default()
    }

    fn starts(&self) -> usize {
        self.text("starts").lines().count()
    }

    /// Supervisor and program, once both are known.
    fn processes(&self) -> (ProcessId, ProcessId) {
        let numbers = || -> Result<(ProcessId, ProcessId), String> {
            let text = self.text("run/weft/kubelet.pid");
            let words: Vec<i32> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            let process = |at: usize| words.get(at).and_then(|pid| ProcessId::of(*pid)).ok_or(text.clone());
            Ok((process(0)?, process(1)?))
        };
        wait::until_ok(LIMIT, "both processes", numbers).unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.services.stop(Service::Kubelet);
    }
}

fn program(path: &Path, script: &str) -> PathBuf {
    fs::write(path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_owned()
}

/// Stays until it is told to go, and says so.
const FAITHFUL: &str =
    "echo \"$@\" >> $STARTS\ntrap 'echo told to go; exit 0' TERM\necho here \"$@\"\nwhile :; do sleep 0.1; done";

#[test]
fn a_supervised_kubelet_is_started_once_and_ended_when_told() {
    let host = Host::new(FAITHFUL);
    fs::write(
        host.folder.join("var/lib/kubelet/kubeadm-flags.env"),
        "KUBELET_KUBEADM_ARGS=\"--node-ip=192.0.2.1 --v=2\"\n",
    )
    .unwrap();
    assert!(!host.services.is_active(Service::Kubelet).unwrap());
    host.services.start(Service::Kubelet).unwrap();
    assert!(host.services.is_active(Service::Kubelet).unwrap());
    let (supervisor, kubelet) = host.processes();
    wait::until(LIMIT, "the first start", || host.starts() == 1).unwrap();
    host.services.start(Service::Kubelet).unwrap();
    assert_eq!(host.processes(), (supervisor, kubelet));
    let starts = host.text("starts");
    let root = host.folder.path().display();
    assert!(
        starts.contains(&format!("--config={root}/var/lib/kubelet/config.yaml"))
            && starts.ends_with("--node-ip=192.0.2.1 --v=2\n"),
        "{starts}"
    );
    host.services.stop(Service::Kubelet).unwrap();
    // The supervisor lets its lock go a moment before it has ended.
    wait::until(LIMIT, "both to end", || !kubelet.alive() && !supervisor.alive()).unwrap();
    assert!(!host.services.is_active(Service::Kubelet).unwrap());
    let lines = host.services.last_lines(host.folder.path(), Service::Kubelet, 50, SystemTime::UNIX_EPOCH);
    assert!(lines.iter().any(|line| line == "told to go") && lines[0].starts_with("weft: keeps running"), "{lines:?}");
    host.services.stop(Service::Kubelet).unwrap();
}

#[test]
fn a_restart_reads_the_flags_again() {
    let host = Host::new(FAITHFUL);
    let flags = host.folder.join("var/lib/kubelet/kubeadm-flags.env");
    fs::write(&flags, "KUBELET_KUBEADM_ARGS=\"--v=2\"\n").unwrap();
    host.services.restart(Service::Kubelet).unwrap();
    wait::until(LIMIT, "the first start", || host.starts() == 1).unwrap();
    fs::write(&flags, "KUBELET_KUBEADM_ARGS=\"--v=3\"\n").unwrap();
    host.services.restart(Service::Kubelet).unwrap();
    wait::until(LIMIT, "the second start", || host.starts() == 2).unwrap();
    assert!(host.text("starts").ends_with("--v=3\n"), "{}", host.text("starts"));
}

#[test]
fn one_that_ends_is_started_again_and_its_words_are_kept() {
    let host = Host::new("echo x >> $STARTS\necho running with swap on is not supported >&2\nexit 3");
    host.services.start(Service::Kubelet).unwrap();
    wait::until(LIMIT, "the second start", || host.starts() >= 2).unwrap();
    assert!(host.services.is_active(Service::Kubelet).unwrap());
    let lines = host.services.last_lines(host.folder.path(), Service::Kubelet, 50, SystemTime::UNIX_EPOCH).join("\n");
    assert!(lines.contains("swap on is not supported") && lines.contains("exit status: 3"), "{lines}");
}

#[test]
fn after_a_supervisor_was_killed_its_program_is_not_left_to_fight_the_next() {
    let host = Host::new("echo x >> $STARTS\nexec sleep 1000");
    host.services.start(Service::Kubelet).unwrap();
    let (supervisor, first) = host.processes();
    supervisor.kill();
    wait::until(LIMIT, "the supervisor to end", || !host.services.is_active(Service::Kubelet).unwrap()).unwrap();
    assert!(first.alive());
    host.services.start(Service::Kubelet).unwrap();
    wait::until(LIMIT, "the orphan to end", || !first.alive()).unwrap();
    wait::until(LIMIT, "the second start", || host.starts() == 2).unwrap();
}

#[test]
fn a_second_supervisor_goes_and_leaves_the_first() {
    let host = Host::new(FAITHFUL);
    host.services.start(Service::Kubelet).unwrap();
    let before = host.processes();
    let mut second = weft_tests::tool::command(env!("CARGO_BIN_EXE_weft"));
    second.args(["supervise", "--state"]).arg(host.folder.join("run/weft/kubelet.pid"));
    second.arg("--log").arg(host.folder.join("other.log")).args(["--", "true"]);
    let refusal = weft_tests::tool::run(&mut second).unwrap_err().to_string();
    assert!(refusal.contains("another weft supervise"), "{refusal}");
    assert_eq!(host.processes(), before);
}

#[test]
fn a_full_log_is_put_aside() {
    let folder = Scratch::new();
    let (state, log) = (folder.join("state"), folder.join("log"));
    let script = program(
        &folder.join("talker"),
        "i=0\nwhile [ $i -lt 400 ]; do echo \"line $i\"; i=$((i+1)); [ $((i % 50)) != 0 ] || sleep 0.05; done\nexec sleep 1000",
    );
    let mut command = weft_tests::tool::command(env!("CARGO_BIN_EXE_weft"));
    command
        .args(["supervise", "--log-limit", "1000", "--state"])
        .arg(&state)
        .arg("--log")
        .arg(&log)
        .arg("--")
        .arg(script);
    let mut supervisor = command.spawn().unwrap();
    let process = ProcessId::of(i32::try_from(supervisor.id()).unwrap()).unwrap();
    let both =
        || fs::read_to_string(&log).unwrap_or_default() + &fs::read_to_string(folder.join("log.1")).unwrap_or_default();
    let done = wait::until(LIMIT, "the last line", || both().contains("line 399\n") && folder.join("log.1").exists());
    process.signal(Signal::SIGTERM);
    let status = supervisor.wait().unwrap();
    done.unwrap();
    assert!(status.success(), "{status}");
    assert!(fs::metadata(&log).unwrap().len() < 20_000);
}

/// A search path that has the program and little else.
fn search_path(folder: &Path) -> OsString {
    folder.as_os_str().to_owned()
}

#[test]
fn a_stand_in_for_systemctl_is_taken_for_one_and_may_leave_its_outputs_open() {
    let folder = Scratch::new();
    let script = "echo \"$@\" >> CALLS\ncase $1 in\nstart|restart) sleep 300 & echo $! >> PIDS; touch RUNS ;;\nstop) rm -f RUNS ;;\nis-active) test -e RUNS ;;\n*) echo unknown verb >&2; exit 1 ;;\nesac";
    let at = |name: &str| folder.join(name).display().to_string();
    program(
        &folder.join("systemctl"),
        &script.replace("CALLS", &at("calls")).replace("RUNS", &at("runs")).replace("PIDS", &at("pids")),
    );
    let plain = Plain { weft: "/none".into(), kubelet: None, containerd: None, paths: Paths::under(folder.path()) };
    let services = ServiceManager::detect(&search_path(folder.path()), plain);
    assert_eq!(services, ServiceManager::Systemd(folder.join("systemctl")));
    let begin = std::time::Instant::now();
    services.start(Service::Containerd).unwrap();
    let took = begin.elapsed();
    for pid in fs::read_to_string(folder.join("pids")).unwrap().lines() {
        ProcessId::of(pid.parse().unwrap()).into_iter().for_each(ProcessId::kill);
    }
    assert!(took < Duration::from_secs(100), "{took:?}");
    assert!(services.is_active(Service::Containerd).unwrap());
    services.stop(Service::Containerd).unwrap();
    assert!(!services.is_active(Service::Containerd).unwrap());
    services.reload();
    let notice = services.enable(Service::Kubelet).unwrap();
    assert!(notice.contains("unknown verb") && notice.contains("systemctl enable kubelet"), "{notice}");
    let calls = fs::read_to_string(folder.join("calls")).unwrap();
    assert!(calls.contains("start containerd\n") && calls.contains("daemon-reload\n"), "{calls}");
    fs::create_dir_all(folder.join("var/log")).unwrap();
    fs::write(folder.join("var/log/kubelet.log"), "last words\n").unwrap();
    assert_eq!(services.last_lines(folder.path(), Service::Kubelet, 5, SystemTime::now()), ["last words"]);
}

#[test]
fn a_systemctl_without_systemd_is_none() {
    let folder = Scratch::new();
    program(&folder.join("systemctl"), "echo System has not been booted with systemd as init system >&2; exit 1");
    let plain = Plain { weft: "/none".into(), kubelet: None, containerd: None, paths: Paths::under(folder.path()) };
    assert_eq!(ServiceManager::detect(&search_path(folder.path()), plain.clone()), ServiceManager::Plain(plain));
}
