//! The checks: facts in, findings out. One pure file a subject; names are kubeadm's where it has them
//! (`cmd/kubeadm/app/preflight/checks.go`).

mod clash;
mod firewall;
mod kubelet;
mod machine;
mod network;
mod runtime;
mod storage;
mod system;

#[cfg(test)]
pub(super) mod testing;

pub use clash::{NodeIdentity, duplicates};
pub use network::open_ports;
pub use runtime::Repair;

use super::facts::{Cgroups, HostFacts, RuntimeTold};
use super::report::{Finding, Ignored, KubeletNeeds, PreflightReport};
use super::wanted::{SwapPolicy, Wanted};
use crate::bootstrap::cri::CgroupDriver;

/// Judges the machine. Whoever is not root learns only that, as all else would be guesses.
#[must_use]
pub fn judge(facts: &HostFacts, wanted: &Wanted, ignored: &Ignored) -> PreflightReport {
    if let Some(report) = privileged(facts.uid, ignored) {
        return report;
    }
    let mut findings: Vec<Finding> = machine::privileged(facts.uid).into_iter().collect();
    for check in [machine::judge, system::judge, runtime::judge, kubelet::judge] {
        findings.extend(check(facts, wanted));
    }
    for check in [clash::judge, storage::judge, network::judge, firewall::judge] {
        findings.extend(check(facts, wanted));
    }
    PreflightReport::new(findings, ignored, needs(facts, wanted))
}

/// The report of whoever is not root: only that. `None` for root, and for whoever chooses to ignore it.
#[must_use]
pub fn privileged(uid: u32, ignored: &Ignored) -> Option<PreflightReport> {
    let finding = machine::privileged(uid).filter(|_| !ignored.has(machine::PRIVILEGED))?;
    Some(PreflightReport::new(vec![finding], ignored, KubeletNeeds::default()))
}

/// What kubelet must be told so that it works on this machine. What a user chooses to ignore must work all the same: swap that
/// stays, for whatever reason, is borne.
#[must_use]
pub fn needs(facts: &HostFacts, wanted: &Wanted) -> KubeletNeeds {
    let has_swap = facts.swaps.as_ref().is_ok_and(|swaps| !swaps.is_empty());
    let stays = has_swap && !(wanted.prepare && wanted.swap == SwapPolicy::Disable);
    let is_v2 = matches!(facts.cgroups, Cgroups::V2(_));
    KubeletNeeds {
        tolerate_swap: stays || wanted.swap != SwapPolicy::Disable,
        limited_swap: wanted.swap == SwapPolicy::Limited && is_v2,
        tolerate_cgroup_v1: !is_v2,
        cgroup_driver: driver(facts, wanted),
        slow_disk: storage::slow(facts).map(|fsync| fsync.worst),
    }
}

/// The driver that the runtime has, or will have once it is mended; where nobody says, the one of this machine's init.
fn driver(facts: &HostFacts, wanted: &Wanted) -> Option<CgroupDriver> {
    if wanted.fix && runtime::should_be_systemd(facts) {
        return Some(CgroupDriver::Systemd);
    }
    if wanted.fix && runtime::should_be_cgroupfs(facts) {
        return Some(CgroupDriver::Cgroupfs);
    }
    runtime_driver(facts).or(Some(if facts.systemd { CgroupDriver::Systemd } else { CgroupDriver::Cgroupfs }))
}

/// What the runtime says itself, else what its configuration does.
fn runtime_driver(facts: &HostFacts) -> Option<CgroupDriver> {
    match (&facts.runtime.told, &facts.runtime.containerd) {
        (RuntimeTold::Answers { driver: Some(driver), .. }, _) => Some(*driver),
        (_, Some(Ok(containerd))) => Some(containerd.driver()),
        _ => None,
    }
}
