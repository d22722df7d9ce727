//! Each cause in the words of the programs that have it.

use super::super::evidence::Disk;
use super::*;

const API_SERVER: Component = Component::Part(Part::ApiServer);
const ETCD: Component = Component::Part(Part::Etcd);
const ALL: [Component; 5] =
    [Component::Kubelet, ETCD, API_SERVER, Component::Part(Part::ControllerManager), Component::Part(Part::Scheduler)];

fn lines(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

fn kubelet(line: &str) -> Evidence {
    Evidence {
        kubelet_lines: lines(&["I1126 10:00:00.0 1 server.go:547] \"Golang settings\"", line]),
        ..Evidence::default()
    }
}

fn exited(name: &str, attempt: u32, code: i32, reason: &str, said: &[&str]) -> Container {
    let state = ContainerState::Exited { code, reason: reason.into(), message: String::new() };
    Container { name: name.into(), attempt, state, lines: lines(said) }
}

fn container(name: &str, line: &str) -> Evidence {
    Evidence { containers: vec![exited(name, 0, 1, "Error", &[line])], ..Evidence::default() }
}

#[test]
fn p0_8_kubelets_words_have_a_cause() {
    let table = [
        (
            Cause::Swap,
            "err=\"failed to run Kubelet: running with swap on is not supported, please disable swap or set --fail-swap-on flag to false\"",
        ),
        (
            Cause::Cgroup,
            "err=\"failed to validate kubelet configuration, error: kubelet is configured to not run on a host using cgroup v1. cgroup v1 support is unsupported\"",
        ),
        (
            Cause::Cgroup,
            "err=\"failed to run Kubelet: misconfiguration: kubelet cgroup driver: \\\"systemd\\\" is different from docker cgroup driver: \\\"cgroupfs\\\"\"",
        ),
        (
            Cause::Cgroup,
            "Failed to create sandbox: runc create failed: expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \"/kubepods\"",
        ),
        (
            Cause::Configuration,
            "err=\"failed to validate kubelet configuration, error: invalid configuration: maxPods (--max-pods) -4 must not be a negative number\"",
        ),
        (Cause::Configuration, "err=\"failed to parse kubelet flag: unknown flag: --foo\""),
        (
            Cause::Configuration,
            "err=\"failed to load kubelet config file, path: /var/lib/kubelet/config.yaml, error: yaml: line 3\"",
        ),
        (
            Cause::Runtime,
            "validate CRI v1 runtime API for endpoint \"unix:///run/containerd/containerd.sock\": rpc error: code = Unimplemented desc = unknown service runtime.v1.RuntimeService",
        ),
        (Cause::Runtime, "Failed to create sandbox: can't get final child's PID from pipe: EOF"),
        (Cause::Port, "Failed to listen and serve err=\"listen tcp 0.0.0.0:10250: bind: address already in use\""),
        (Cause::Disk, "mkdir /var/lib/kubelet/pods: no space left on device"),
        (
            Cause::Certificate,
            "err=\"failed to run Kubelet: unable to load kubeconfig: stat /x: no such file or directory\"",
        ),
        (
            Cause::Certificate,
            "part of the existing bootstrap client certificate in /etc/kubernetes/kubelet.conf is expired",
        ),
        (
            Cause::Certificate,
            "err=\"failed to run Kubelet: invalid kubeconfig: stat /etc/kubernetes/kubelet.conf: no such file or directory\"",
        ),
        (Cause::Certificate, "failed to verify certificate: x509: certificate signed by unknown authority"),
        (
            Cause::Clock,
            "x509: certificate has expired or is not yet valid: current time 2026-01-01T00:00:00Z is before 2026-02-01T00:00:00Z",
        ),
        (
            Cause::Certificate,
            "x509: certificate has expired or is not yet valid: current time 2027-01-01T00:00:00Z is after 2026-02-01T00:00:00Z",
        ),
        (
            Cause::Image,
            "failed to get sandbox image \"registry.k8s.io/pause:3.10.2\": failed to pull image: dial tcp: lookup registry.k8s.io: no such host",
        ),
        (Cause::Image, "Error syncing pod: StartContainer for \"etcd\" with ImagePullBackOff"),
        (Cause::Image, "StartContainer for \"etcd\" with ErrImageNeverPull"),
    ];
    for (cause, line) in table {
        let found = diagnose(&kubelet(line), &ALL).unwrap_or_else(|| panic!("{line}"));
        assert_eq!((found.cause, found.component, found.certain), (cause, Component::Kubelet, true), "{line}");
        assert!(found.lines.last().unwrap().contains(line) && !found.fix.is_empty(), "{found}");
    }
}

#[test]
fn p0_8_words_of_containers_have_a_cause() {
    let table = [
        (Cause::Configuration, "kube-apiserver", "Error: unknown flag: --foo"),
        (
            Cause::Configuration,
            "kube-apiserver",
            "Error: invalid argument \"abc\" for \"--secure-port\" flag: strconv.ParseInt: parsing \"abc\": invalid syntax",
        ),
        (
            Cause::Port,
            "kube-controller-manager",
            "failed to create listener: failed to listen on 127.0.0.1:10257: listen tcp 127.0.0.1:10257: bind: address already in use",
        ),
        (
            Cause::Configuration,
            "etcd",
            "{\"level\":\"fatal\",\"msg\":\"discovery failed\",\"error\":\"listen tcp 192.0.2.1:2380: bind: cannot assign requested address\"}",
        ),
        (
            Cause::Certificate,
            "kube-apiserver",
            "err=\"failed to parse service-account-issuer-key-file: open /etc/kubernetes/pki/sa.key: no such file or directory\"",
        ),
        (Cause::Certificate, "kube-apiserver", "x509: certificate signed by unknown authority"),
        (Cause::Certificate, "etcd", "tls: private key does not match public key"),
        (
            Cause::Clock,
            "kube-apiserver",
            "x509: certificate has expired or is not yet valid: current time X is before Y",
        ),
        (Cause::Data, "etcd", "member 8e9e05c52164694d has already been bootstrapped"),
        (Cause::Data, "etcd", "{\"msg\":\"request cluster ID mismatch\",\"error\":\"cluster ID mismatch\"}"),
        (Cause::Disk, "etcd", "panic: write /var/lib/etcd/member/wal/1.wal: no space left on device"),
    ];
    for (cause, name, line) in table {
        let found = diagnose(&container(name, line), &ALL).unwrap_or_else(|| panic!("{line}"));
        assert_eq!((found.cause, found.certain), (cause, true), "{line}");
        assert_eq!(found.component.to_string(), name);
        assert!(found.lines.contains(&line.to_owned()), "{found}");
    }
}

#[test]
fn i08_one_that_ends_again_and_again_is_hopeless_and_has_the_last_word() {
    let said: Vec<String> = (0..40).map(|line| format!("line {line}")).collect();
    let said: Vec<&str> = said.iter().map(String::as_str).collect();
    let crash = |attempt| Evidence {
        containers: vec![exited("kube-apiserver", attempt, 1, "Error", &said)],
        ..Evidence::default()
    };
    let first = diagnose(&crash(0), &ALL).unwrap();
    assert_eq!((first.cause, first.certain), (Cause::Crash, false));
    let again = diagnose(&crash(1), &ALL).unwrap();
    assert_eq!((again.cause, again.component, again.certain), (Cause::Crash, API_SERVER, true));
    assert_eq!((again.lines.len(), again.lines.last().unwrap().as_str()), (20, "line 39"));
    assert!(again.to_string().contains("kube-apiserver | line 39"), "{again}");
}

#[test]
fn who_waits_for_another_is_not_the_cause() {
    let waits = exited("kube-scheduler", 3, 1, "Error", &["dial tcp 192.0.2.10:6443: connect: connection refused"]);
    let evidence = Evidence { containers: vec![waits.clone()], ..Evidence::default() };
    assert_eq!(diagnose(&evidence, &ALL), None);
    let evidence =
        Evidence { containers: vec![waits, exited("etcd", 2, 2, "Error", &["panic"])], ..Evidence::default() };
    assert_eq!(diagnose(&evidence, &ALL).unwrap().component, ETCD);
}

#[test]
fn only_the_newest_start_of_one_who_is_waited_for_counts() {
    let old = exited("kube-apiserver", 0, 1, "Error", &["Error: unknown flag: --foo"]);
    let new = Container { attempt: 1, state: ContainerState::Running, ..old.clone() };
    let evidence = Evidence { containers: vec![new, old.clone()], ..Evidence::default() };
    assert_eq!(diagnose(&evidence, &ALL), None);
    let evidence = Evidence { containers: vec![old], ..Evidence::default() };
    assert_eq!(diagnose(&evidence, &[ETCD]), None);
    assert_eq!(diagnose(&evidence, &[]), None);
}

#[test]
fn what_kubelet_said_at_its_start_is_over_once_it_is_well() {
    let evidence = kubelet("bind: address already in use");
    assert_eq!(diagnose(&evidence, &ALL).unwrap().cause, Cause::Port);
    assert_eq!(diagnose(&evidence, &ALL[1..]), None);
}

#[test]
fn memory_and_disk_are_seen_without_words() {
    let oom =
        Evidence { containers: vec![exited("kube-apiserver", 0, 137, "OOMKilled", &["x"])], ..Evidence::default() };
    let found = diagnose(&oom, &ALL).unwrap();
    assert_eq!((found.cause, found.certain), (Cause::Memory, true));
    let disk = Some(Disk { free: 5 << 20, total: 10 << 30 });
    let found = diagnose(&Evidence { disk, ..Evidence::default() }, &ALL).unwrap();
    assert_eq!((found.cause, found.certain), (Cause::Disk, true));
    assert!(found.summary.contains("5 MiB free of 10240 MiB"), "{found}");
    let enough = Some(Disk { free: 5 << 30, total: 10 << 30 });
    assert_eq!(diagnose(&Evidence { disk: enough, ..Evidence::default() }, &ALL), None);
}

#[test]
fn what_is_certain_goes_before_what_may_pass() {
    let mut evidence = kubelet("Error syncing pod: ErrImagePull");
    assert!(!diagnose(&evidence, &ALL).unwrap().certain);
    evidence.containers = vec![exited("etcd", 1, 1, "Error", &["panic: x"])];
    assert_eq!(diagnose(&evidence, &ALL).unwrap().cause, Cause::Crash);
}

#[test]
fn a_kubelet_that_does_not_run_and_a_silent_runtime_are_told() {
    let evidence = Evidence { kubelet_active: Some(false), kubelet_lines: lines(&["bye"]), ..Evidence::default() };
    let found = diagnose(&evidence, &ALL).unwrap();
    assert_eq!((found.cause, found.lines.as_slice()), (Cause::Kubelet, lines(&["bye"]).as_slice()));
    let evidence = Evidence { runtime_error: Some("no socket".into()), ..Evidence::default() };
    assert_eq!(diagnose(&evidence, &ALL[1..]).unwrap().cause, Cause::Runtime);
}
