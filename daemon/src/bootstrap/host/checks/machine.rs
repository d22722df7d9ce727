//! Rights, size, swap, names, clock.

use jiff::Timestamp;

use crate::bootstrap::host::facts::{HostFacts, SwapArea};
use crate::bootstrap::host::report::{Finding, Severity};
use crate::bootstrap::host::wanted::{SwapPolicy, Wanted};

/// kubeadm's name of the check for root.
pub(super) const PRIVILEGED: &str = "IsPrivilegedUser";

/// kubeadm's demands on a control-plane node (`constants.go`).
const CPUS: usize = 2;
const MEMORY_MB: u64 = 1700;

/// No weft is older than this: 2026-01-01.
const EARLIEST: i64 = 1_767_225_600;

/// Whether this is not root.
pub(super) fn privileged(uid: u32) -> Option<Finding> {
    (uid != 0).then(|| Finding::error(PRIVILEGED, format!("this is user {uid}"), "run it as root: sudo weft …"))
}

pub(super) fn judge(facts: &HostFacts, wanted: &Wanted) -> Vec<Finding> {
    let mut findings = Vec::new();
    if wanted.role.has_control_plane() {
        findings.extend(size(facts));
    }
    findings.extend(swap(facts, wanted));
    findings.extend(hostname(facts, wanted));
    findings.extend(clock(facts));
    findings.extend(identity(facts));
    findings
}

fn size(facts: &HostFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if facts.cpus < CPUS {
        let cause = format!("{} CPU, and a control plane wants {CPUS}", facts.cpus);
        findings.push(Finding::error("NumCPU", cause, "give the machine another CPU"));
    }
    match &facts.memory_kib {
        Ok(kib) if kib / 1024 < MEMORY_MB => {
            let cause = format!("{} MB of memory, and a control plane wants {MEMORY_MB} MB", kib / 1024);
            findings.push(Finding::error("Mem", cause, "give the machine more memory"));
        }
        Ok(_) => {}
        Err(reason) => findings.push(Finding::warning("Mem", format!("the memory is unknown: {reason}"), "")),
    }
    findings
}

fn swap(facts: &HostFacts, wanted: &Wanted) -> Option<Finding> {
    let swaps = match &facts.swaps {
        Ok(swaps) => swaps,
        Err(reason) => {
            return Some(Finding::warning("Swap", format!("cannot tell whether there is swap: {reason}"), ""));
        }
    };
    let names: Vec<&str> = swaps.iter().map(|SwapArea { device, .. }| device.as_str()).collect();
    let names = names.join(", ");
    let in_fstab = match facts.fstab_swaps {
        0 => "",
        _ => ", and its lines in /etc/fstab made comments",
    };
    match (wanted.swap, swaps.is_empty()) {
        (SwapPolicy::Disable, true) if facts.fstab_swaps == 0 => None,
        (SwapPolicy::Disable, true) => Some(Finding {
            severity: if wanted.prepare { Severity::Mended } else { Severity::Warning },
            ..Finding::error(
                "Swap",
                "swap is off, and /etc/fstab turns it on at the next start",
                "make its lines in /etc/fstab comments",
            )
            .fixable()
        }),
        (SwapPolicy::Disable, false) if wanted.prepare => Some(Finding {
            severity: Severity::Mended,
            ..Finding::error(
                "Swap",
                format!("swap is on: {names}"),
                format!("it is turned off{in_fstab}; --swap=tolerate keeps it"),
            )
            .fixable()
        }),
        (SwapPolicy::Disable, false) => Some(
            Finding::error(
                "Swap",
                format!("swap is on: {names}, and kubelet does not start with it"),
                "swapoff -a and take it out of /etc/fstab; or keep it with --swap=tolerate",
            )
            .fixable(),
        ),
        (SwapPolicy::Tolerate | SwapPolicy::Limited, true) => None,
        (SwapPolicy::Tolerate, false) => Some(Finding::warning(
            "Swap",
            format!("swap is on: {names}; kubelet is told to bear it (failSwapOn: false)"),
            "",
        )),
        (SwapPolicy::Limited, false) => Some(Finding::warning(
            "Swap",
            format!("swap is on: {names}; pods may use some of it (swapBehavior: LimitedSwap)"),
            "",
        )),
    }
}

fn hostname(facts: &HostFacts, wanted: &Wanted) -> Vec<Finding> {
    let name = &wanted.node_name;
    let mut findings = Vec::new();
    let label = |label: &str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !label.is_empty()
            && label.len() <= 63
            && label.chars().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() > 253 || !name.split('.').all(label) {
        findings.push(Finding::error(
            "Hostname",
            format!(
                "the node's name {name:?} is none: expected lower-case letters, digits, - and ., as RFC 1123 has it"
            ),
            "hostnamectl hostname NAME, or --node-name",
        ));
    } else if matches!(name.as_str(), "localhost" | "localhost.localdomain") {
        findings.push(Finding::error(
            "Hostname",
            format!("the node would be called {name}, as any other"),
            "hostnamectl hostname NAME, or --node-name",
        ));
    } else if let Err(reason) = &facts.resolved {
        let line = wanted.address.map_or_else(|| "ADDRESS".to_owned(), |address| address.to_string());
        findings.push(Finding {
            severity: if wanted.prepare { Severity::Mended } else { Severity::Warning },
            ..Finding::warning(
                "Hostname",
                format!("{name} cannot be resolved: {reason}"),
                format!("add a line \"{line} {name}\" to /etc/hosts"),
            )
        });
    }
    findings
}

fn clock(facts: &HostFacts) -> Option<Finding> {
    let earliest = Timestamp::from_second(EARLIEST).ok()?;
    (facts.now < earliest).then(|| {
        Finding::error(
            "Clock",
            format!("it is {} by this machine's clock, and certificates made now would be void elsewhere", facts.now),
            "set the clock (timedatectl set-ntp true, or date -s)",
        )
    })
}

fn identity(facts: &HostFacts) -> Option<Finding> {
    let id = facts.identity.machine_id.as_deref().unwrap_or_default();
    (id.is_empty() || id == "uninitialized").then(|| {
        Finding::warning(
            "MachineID",
            "/etc/machine-id is empty: nodes made from one image cannot be told apart",
            "systemd-machine-id-setup",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{facts, init, names, report};
    use super::*;
    use crate::bootstrap::host::report::Ignored;

    fn swapping() -> HostFacts {
        let area = SwapArea { device: "/dev/sda2".into(), kind: "partition".into(), priority: Some(-2) };
        HostFacts { swaps: Ok(vec![area]), fstab_swaps: 1, ..facts() }
    }

    #[test]
    fn p08_who_is_not_root_learns_only_that() {
        let poor = HostFacts { uid: 1000, cpus: 1, memory_kib: Ok(1), ..facts() };
        assert_eq!(names(&report(&poor, &init())), ["IsPrivilegedUser"]);
        let ignored = Ignored::parse(&["all"]).unwrap();
        let all = super::super::judge(&poor, &init(), &ignored);
        assert!(all.is_passed() && all.get("NumCPU").is_some(), "ignored, the others are judged: {all}");
    }

    #[test]
    fn a_small_machine_is_no_control_plane_and_may_be_a_worker() {
        let small = HostFacts { cpus: 1, memory_kib: Ok(1024 * 1024), ..facts() };
        assert_eq!(names(&report(&small, &init())), ["NumCPU", "Mem"]);
        let worker = Wanted { role: super::super::testing::WORKER, etcd_data: None, ..init() };
        assert!(report(&small, &worker).is_passed());
    }

    #[test]
    fn p0_1_swap_is_turned_off_or_borne_and_never_just_ignored() {
        let mended = report(&swapping(), &init());
        assert!(mended.is_passed());
        assert_eq!(mended.get("Swap").unwrap().severity, Severity::Mended);
        assert!(!mended.kubelet.tolerate_swap);

        let strict = Wanted { prepare: false, ..init() };
        let refused = report(&swapping(), &strict);
        let found = refused.get("Swap").unwrap();
        assert!(found.cause.contains("/dev/sda2") && found.fix.contains("--swap=tolerate"), "{found:?}");
        assert!(!refused.is_passed());

        let ignored = super::super::judge(&swapping(), &strict, &Ignored::parse(&["SWAP"]).unwrap());
        assert!(ignored.is_passed() && ignored.kubelet.tolerate_swap, "ignoring it makes it work");

        let limited = report(&swapping(), &Wanted { swap: SwapPolicy::Limited, ..init() });
        assert!(limited.is_passed() && limited.kubelet.tolerate_swap && limited.kubelet.limited_swap);
    }

    #[test]
    fn names_that_no_node_can_have_are_refused() {
        for name in ["Node1", "a_b", "", "-a", "localhost"] {
            let found = report(&facts(), &Wanted { node_name: name.into(), ..init() });
            assert_eq!(names(&found), ["Hostname"], "{name}");
        }
        let unknown = HostFacts { resolved: Err("no such host".into()), ..facts() };
        let found = report(&unknown, &init());
        assert!(found.is_passed() && found.get("Hostname").unwrap().fix.contains("/etc/hosts"));
    }

    #[test]
    fn a_clock_that_has_lost_its_battery_is_an_error() {
        let old = HostFacts { now: Timestamp::from_second(86_400).unwrap(), ..facts() };
        let found = report(&old, &init());
        assert!(found.get("Clock").unwrap().cause.contains("1970-01-02"));
        assert!(!found.is_passed());
    }
}
