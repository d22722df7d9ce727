//! A machine on which nothing is wrong, and how tests ask.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::judge;
use crate::bootstrap::cri::CgroupDriver;
use crate::bootstrap::host::containerd::{Containerd, Place, Setting};
use crate::bootstrap::host::facts::*;
use crate::bootstrap::host::report::{Ignored, PreflightReport, Severity};
use crate::bootstrap::host::wanted::{Role, SwapPolicy, Wanted};
use crate::bootstrap::resolved::Paths;

pub(crate) const WORKER: Role = Role::Join { control_plane: false };

pub(crate) fn init() -> Wanted {
    let paths = Paths::under("/");
    Wanted {
        role: Role::Init,
        etcd_data: Some("/var/lib/etcd".into()),
        paths,
        node_name: "n1".into(),
        address: Some("192.0.2.10".parse().unwrap()),
        bind_port: 6443,
        api_balancer_port: Some(7443),
        has_stable_name: true,
        endpoints: Vec::new(),
        pod_subnets: vec!["10.244.0.0/16".parse().unwrap()],
        service_subnets: vec!["10.96.0.0/12".parse().unwrap()],
        kubernetes_version: Some("v1.36.2".into()),
        cri_socket: None,
        sandbox_image: None,
        swap: SwapPolicy::Disable,
        prepare: true,
        fix: false,
        brings_kubelet: false,
    }
}

pub(crate) fn facts() -> HostFacts {
    let set = |words: &str| words.split(' ').map(str::to_owned).collect::<BTreeSet<_>>();
    let programs = ["losetup", "mount", "cp", "kubelet"];
    let sysctls = ["net/ipv4/ip_forward", "net/ipv6/conf/default/forwarding", "net/ipv6/conf/all/forwarding"];
    let place = Place { file: "/etc/containerd/config.toml".into(), line: 7 };
    HostFacts {
        uid: 0,
        cpus: 4,
        memory_kib: Ok(4 << 20),
        swaps: Ok(Vec::new()),
        fstab_swaps: 0,
        sysctls: sysctls.map(|key| (key.to_owned(), Some("1".to_owned()))).into(),
        resolved: Ok(vec!["192.0.2.10".parse().unwrap()]),
        taken: BTreeMap::new(),
        there: BTreeSet::new(),
        own: OwnRun::default(),
        programs: programs.map(|name| (name, Some(format!("/usr/bin/{name}").into()))).into(),
        kernel: "6.12.1".into(),
        features: Vec::new(),
        modules: BTreeMap::new(),
        cgroups: Cgroups::V2(set("cpu cpuset memory pids io hugetlb")),
        systemd: true,
        runtime: RuntimeFacts {
            sockets: vec!["/run/containerd/containerd.sock".into()],
            told: RuntimeTold::Answers {
                version: "containerd 2.1.4".into(),
                unready: None,
                driver: Some(CgroupDriver::Systemd),
                sandbox_image: None,
            },
            containerd: Some(Ok(Containerd {
                path: "/etc/containerd/config.toml".into(),
                files: vec!["/etc/containerd/config.toml".into()],
                version: 2,
                disabled: None,
                runtime: "runc".into(),
                systemd_cgroup: Some(Setting { value: true, place }),
                sandbox_image: None,
                config_path: None,
                inline_mirrors: None,
            })),
        },
        kubelet: Some(Ok("v1.36.2".into())),
        kubelet_unit: Some("enabled".into()),
        disks: Vec::new(),
        fsync: None,
        firewalld: false,
        firewalld_open: BTreeSet::new(),
        selinux: None,
        now: Timestamp::from_second(1_800_000_000).unwrap(),
        identity: Identity { machine_id: Some("1f".into()), product_uuid: None },
        addresses: Ok(vec![("eth0".into(), "192.0.2.10/24".parse().unwrap())]),
        routes: Ok(vec![("eth0".into(), "192.0.2.0/24".parse().unwrap())]),
        others: Vec::new(),
        proxies: BTreeMap::new(),
    }
}

pub(crate) fn report(facts: &HostFacts, wanted: &Wanted) -> PreflightReport {
    judge(facts, wanted, &Ignored::default())
}

/// Names of the errors.
pub(crate) fn names(report: &PreflightReport) -> Vec<&str> {
    let errors = report.findings.iter().filter(|finding| finding.severity == Severity::Error);
    errors.map(|finding| finding.name.as_str()).collect()
}

#[test]
fn on_a_good_machine_nothing_is_found() {
    let report = report(&facts(), &init());
    assert!(report.findings.is_empty(), "{report}");
    assert_eq!(report.kubelet.cgroup_driver, Some(CgroupDriver::Systemd));
}
