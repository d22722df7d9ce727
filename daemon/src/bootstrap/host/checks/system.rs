//! Kernel, cgroups, settings, programs.

use crate::bootstrap::host::facts::{Cgroups, HostFacts, ModuleState};
use crate::bootstrap::host::report::{Finding, Severity};
use crate::bootstrap::host::wanted::Wanted;

/// kubeadm's name for all that is about the kernel.
const NAME: &str = "SystemVerification";

/// Controllers that kubelet cannot do without. Of cgroup v2's, devices is a program and freezer is always there.
const V2: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];
const V1: [&str; 5] = ["cpu", "cpuacct", "cpuset", "memory", "devices"];

/// Programs that kubelet and static pods call (`checks.go`).
const PROGRAMS: [&str; 3] = ["losetup", "mount", "cp"];

pub(super) fn judge(facts: &HostFacts, wanted: &Wanted) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(kernel(facts));
    findings.extend(features(facts));
    findings.extend(cgroups(facts));
    findings.extend(modules(facts, wanted));
    findings.extend(forwarding(facts, wanted));
    for program in PROGRAMS {
        if facts.programs.get(program).is_none_or(Option::is_none) {
            let cause = format!("the program {program} is not in PATH");
            let package = if program == "cp" { "coreutils" } else { "util-linux (mount)" };
            findings.push(Finding::error(format!("FileExisting-{program}"), cause, format!("install {package}")));
        }
    }
    findings
}

fn kernel(facts: &HostFacts) -> Option<Finding> {
    let mut numbers = facts.kernel.split(|c: char| !c.is_ascii_digit()).map_while(|word| word.parse::<u32>().ok());
    let version = (numbers.next()?, numbers.next().unwrap_or_default());
    (version < (5, 15)).then(|| {
        let cause = format!("kernel {} is older than 5.15, the oldest that weft is made for", facts.kernel);
        Finding::warning(NAME, cause, "take a newer kernel")
    })
}

fn features(facts: &HostFacts) -> Vec<Finding> {
    let judged = facts.features.iter().filter_map(|feature| match (&feature.works, feature.needed) {
        (Ok(true), _) => None,
        (Ok(false), true) => Some(Finding::error(
            NAME,
            format!("this kernel has no {}", feature.name),
            "take a kernel of a distribution, or build it in",
        )),
        (Ok(false), false) => {
            Some(Finding::warning(NAME, format!("this kernel has no {}; weft goes without", feature.name), ""))
        }
        // What could not be asked is no proof of anything.
        (Err(reason), _) => {
            Some(Finding::warning(NAME, format!("could not find out about {}: {reason}", feature.name), ""))
        }
    });
    judged.collect()
}

fn cgroups(facts: &HostFacts) -> Vec<Finding> {
    let missing = |needed: &[&'static str], found: &std::collections::BTreeSet<String>| -> Vec<&'static str> {
        needed.iter().copied().filter(|name| !found.contains(*name)).collect()
    };
    let lacks = |missing: Vec<&str>| {
        (!missing.is_empty()).then(|| {
            Finding::error(
                NAME,
                format!("cgroup controllers are missing: {}", missing.join(", ")),
                "turn them on at the kernel's command line (cgroup_enable=memory and the like)",
            )
        })
    };
    match &facts.cgroups {
        Cgroups::V2(found) => lacks(missing(&V2, found)).into_iter().collect(),
        Cgroups::V1(found) => {
            let old = Finding::error(
                NAME,
                "this machine has cgroup v1, with which kubelet has not started by default since 1.35",
                "boot with systemd.unified_cgroup_hierarchy=1; or ignore SystemVerification, and kubelet is told to bear it",
            );
            lacks(missing(&V1, found)).into_iter().chain([old]).collect()
        }
        Cgroups::None => {
            vec![Finding::error(NAME, "no cgroups are mounted", "mount -t cgroup2 none /sys/fs/cgroup")]
        }
    }
}

fn modules(facts: &HostFacts, wanted: &Wanted) -> Vec<Finding> {
    let found = facts.modules.iter().filter_map(|(name, state)| match state {
        ModuleState::Loadable if !wanted.prepare => Some(Finding::warning(
            "KernelModules",
            format!("module {name} is not loaded"),
            format!("modprobe {name}, and write it to /etc/modules-load.d/"),
        )),
        ModuleState::Loadable => Some(Finding {
            severity: Severity::Mended,
            ..Finding::warning(
                "KernelModules",
                format!("module {name} is not loaded"),
                "it is loaded, now and at each start",
            )
            .fixable()
        }),
        ModuleState::Present | ModuleState::Absent => None,
    });
    found.collect()
}

/// kubeadm's two demands on kernel settings.
fn forwarding(facts: &HostFacts, wanted: &Wanted) -> Vec<Finding> {
    let (v4, v6) = wanted.families();
    let rules = [
        (v4, "net/ipv4/ip_forward", "FileContent--proc-sys-net-ipv4-ip_forward"),
        (v6, "net/ipv6/conf/default/forwarding", "FileContent--proc-sys-net-ipv6-conf-default-forwarding"),
    ];
    let mut findings = Vec::new();
    for (_, key, name) in rules.into_iter().filter(|(needed, ..)| *needed) {
        let found = match facts.sysctls.get(key).and_then(Option::as_deref) {
            Some("1") => continue,
            Some(value) => format!("/proc/sys/{key} is {value}, and pods need it to be 1"),
            None => {
                let cause = format!("/proc/sys/{key} is not there: this kernel does not have that family");
                findings.push(Finding::error(name, cause, "choose address ranges of a family that it has"));
                continue;
            }
        };
        findings.push(if wanted.prepare {
            Finding {
                severity: Severity::Mended,
                ..Finding::error(name, found, "it is set, now and at each start").fixable()
            }
        } else {
            Finding::error(
                name,
                found,
                format!("sysctl -w {}=1, and write it to /etc/sysctl.d/", key.replace('/', ".")),
            )
            .fixable()
        });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::testing::{facts, init, names, report};
    use super::*;
    use crate::bootstrap::host::facts::Feature;
    use crate::bootstrap::host::report::Ignored;

    #[test]
    fn p0_11_settings_are_mended_or_named_as_kubeadm_does() {
        let mut closed = facts();
        closed.sysctls.insert("net/ipv4/ip_forward".into(), Some("0".into()));
        let name = "FileContent--proc-sys-net-ipv4-ip_forward";
        assert_eq!(report(&closed, &init()).get(name).unwrap().severity, Severity::Mended);
        let strict = Wanted { prepare: false, ..init() };
        assert_eq!(names(&report(&closed, &strict)), [name]);
        // Nobody has IPv6 here, so nobody asks for it.
        closed.sysctls.insert("net/ipv6/conf/default/forwarding".into(), Some("0".into()));
        assert_eq!(names(&report(&closed, &strict)), [name]);
        let dual = Wanted { pod_subnets: vec!["fd00:244::/56".parse().unwrap()], ..strict };
        assert_eq!(names(&report(&closed, &dual)).len(), 2);
    }

    #[test]
    fn p0_11_a_module_is_loaded_and_one_that_is_built_in_or_missing_is_no_fault() {
        let states =
            [("ip_vs", ModuleState::Loadable), ("overlay", ModuleState::Present), ("ip_vs_sh", ModuleState::Absent)];
        let machine = HostFacts { modules: states.into(), ..facts() };
        let found = report(&machine, &init());
        assert_eq!(found.findings.len(), 1);
        assert!(found.findings[0].cause.contains("ip_vs ") && found.is_passed());
    }

    #[test]
    fn cgroup_v1_is_an_error_that_can_be_ignored_and_then_works() {
        let set = V1.map(str::to_owned).into();
        let old = HostFacts { cgroups: Cgroups::V1(set), ..facts() };
        assert_eq!(names(&report(&old, &init())), ["SystemVerification"]);
        let ignored = super::super::judge(&old, &init(), &Ignored::parse(&["SystemVerification"]).unwrap());
        assert!(ignored.is_passed() && ignored.kubelet.tolerate_cgroup_v1);
        let lacking = HostFacts { cgroups: Cgroups::V2(["cpu".to_owned()].into()), ..facts() };
        assert!(report(&lacking, &init()).get("SystemVerification").unwrap().cause.contains("cpuset, memory, pids"));
    }

    #[test]
    fn a_feature_that_could_not_be_asked_for_is_a_warning() {
        let feature = |name, needed, works| Feature { name, needed, works };
        let machine = HostFacts {
            features: vec![
                feature("network namespaces", true, Err("no rights".into())),
                feature("IPVS", false, Ok(false)),
                feature("nf_tables", true, Ok(false)),
            ],
            ..facts()
        };
        let found = report(&machine, &init());
        assert_eq!(found.errors, 1);
        assert!(found.findings[0].cause.contains("nf_tables"));
        assert_eq!(found.warnings, 2);
    }

    #[test]
    fn programs_and_old_kernels_are_told() {
        let mut machine = facts();
        machine.programs.insert("losetup", None);
        machine.kernel = "4.19.0-5".into();
        let found = report(&machine, &init());
        assert_eq!(names(&found), ["FileExisting-losetup"]);
        assert!(found.get("SystemVerification").unwrap().cause.contains("4.19"));
    }
}
