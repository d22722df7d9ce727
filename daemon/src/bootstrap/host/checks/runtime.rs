//! The container runtime: whether it is there, speaks CRI, and makes cgroups as this machine does.

use crate::bootstrap::cri::CgroupDriver;
use crate::bootstrap::host::containerd::{CERTS_D, CONFIG, Containerd, mend::Mend};
use crate::bootstrap::host::facts::{HostFacts, RuntimeTold};
use crate::bootstrap::host::report::{Finding, Severity};
use crate::bootstrap::host::wanted::Wanted;

pub(super) fn judge(facts: &HostFacts, wanted: &Wanted) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(socket(facts, wanted));
    findings.extend(configuration(facts, wanted));
    findings.extend(sandbox(facts, wanted));
    findings
}

/// What `--fix` changes in containerd's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repair(pub Mend);

impl Repair {
    /// What is to be changed on this machine; `with_mirrors` if registries' directories are going to be written.
    #[must_use]
    pub fn of(facts: &HostFacts, wanted: &Wanted, with_mirrors: bool) -> Self {
        let socket = wanted.cri_socket.as_ref().or(facts.runtime.sockets.first());
        if socket.is_some_and(|socket| !socket.contains("containerd")) {
            return Self::default();
        }
        let containerd = containerd(facts);
        let runtime = containerd.map_or("runc", |found| found.runtime.as_str());
        let enable_cri = containerd.is_some_and(|found| found.disabled.is_some());
        let mut mend = Mend { enable_cri, ..Mend::default() };
        if should_be_systemd(facts) {
            mend.systemd_cgroup = Some((runtime.to_owned(), true));
        } else if should_be_cgroupfs(facts) {
            mend.systemd_cgroup = Some((runtime.to_owned(), false));
        }
        if let (Some(image), Some(found)) = (&wanted.sandbox_image, sandbox_image(facts))
            && *image != found
        {
            mend.sandbox_image = Some(image.clone());
        }
        mend.config_path = with_mirrors && containerd.is_none_or(|found| found.config_path.is_none());
        Self(mend)
    }
}

fn containerd(facts: &HostFacts) -> Option<&Containerd> {
    facts.runtime.containerd.as_ref().and_then(|told| told.as_ref().ok())
}

/// Whether the runtime makes cgroups behind the back of a systemd that owns them.
pub(super) fn should_be_systemd(facts: &HostFacts) -> bool {
    facts.systemd && super::runtime_driver(facts) == Some(CgroupDriver::Cgroupfs)
}

/// Whether the runtime asks a systemd for cgroups that does not run.
pub(super) fn should_be_cgroupfs(facts: &HostFacts) -> bool {
    !facts.systemd && super::runtime_driver(facts) == Some(CgroupDriver::Systemd)
}

fn socket(facts: &HostFacts, wanted: &Wanted) -> Vec<Finding> {
    const NAME: &str = "CRI";
    let sockets = &facts.runtime.sockets;
    let there =
        if sockets.is_empty() { "no other is there".to_owned() } else { format!("there is {}", sockets.join(", ")) };
    if wanted.cri_socket.is_none() && sockets.len() > 1 {
        return vec![Finding::error(
            NAME,
            format!("there are several container runtimes: {}", sockets.join(", ")),
            "choose one with --cri-socket, or nodeRegistration.criSocket in the configuration",
        )];
    }
    let socket = wanted.cri_socket.as_deref().or(sockets.first().map(String::as_str)).unwrap_or("any known socket");
    match &facts.runtime.told {
        RuntimeTold::NotAsked => Vec::new(),
        RuntimeTold::NoSocket => vec![Finding::error(
            NAME,
            format!("no container runtime listens at {socket}; {there}"),
            "install and start containerd (systemctl enable --now containerd), or name its socket with --cri-socket",
        )],
        RuntimeTold::Failed(reason) => vec![Finding::error(
            NAME,
            format!("the container runtime at {socket} does not answer: {reason}; {there}"),
            "systemctl restart containerd, and see journalctl -u containerd; is it the right socket (--cri-socket)?",
        )],
        RuntimeTold::NoCri => vec![no_cri(facts, socket, wanted)],
        RuntimeTold::Answers { version, unready, driver, .. } => {
            let mut findings = Vec::new();
            if let Some(reason) = unready {
                let cause = format!("{version} at {socket} is not ready: {reason}");
                findings.push(Finding::error(NAME, cause, "see journalctl -u containerd"));
            }
            if driver.is_none() {
                findings.push(Finding::warning(
                    "ContainerRuntimeVersion",
                    format!("{version} does not tell its cgroup driver (RuntimeConfig); kubelet 1.37 will demand it"),
                    "take containerd 2.0 or newer",
                ));
            }
            findings
        }
    }
}

fn no_cri(facts: &HostFacts, socket: &str, wanted: &Wanted) -> Finding {
    let disabled = containerd(facts).and_then(|found| found.disabled.as_ref());
    let Some(place) = disabled else {
        return Finding::error(
            "CRI",
            format!("containerd at {socket} runs without its CRI plugin, though its configuration does not disable it"),
            format!("systemctl restart containerd, and see journalctl -u containerd and /{CONFIG}"),
        );
    };
    let place = format!("{} line {}", place.file.display(), place.line);
    mendable(
        Finding::error(
            "CRI",
            format!("containerd at {socket} runs without its CRI plugin: {place} disables it"),
            format!("take \"cri\" out of disabled_plugins in {place}, then systemctl restart containerd"),
        ),
        wanted,
    )
}

fn configuration(facts: &HostFacts, wanted: &Wanted) -> Vec<Finding> {
    let mut findings = Vec::new();
    match &facts.runtime.containerd {
        Some(Err(reason)) => {
            findings.push(Finding::error(
                "ContainerdConfig",
                reason.clone(),
                "containerd will not start with it; mend the file",
            ));
        }
        // Already told by the socket.
        Some(Ok(found)) if facts.runtime.told != RuntimeTold::NoCri => {
            if let Some(place) = &found.disabled {
                let cause = format!("{} line {} disables containerd's CRI plugin", place.file.display(), place.line);
                let fix = "take \"cri\" out of disabled_plugins, then systemctl restart containerd";
                findings.push(mendable(Finding::error("CRI", cause, fix), wanted));
            }
        }
        _ => {}
    }
    if should_be_systemd(facts) {
        let line = containerd(facts).map_or_else(
            || "SystemdCgroup = true in the options of its runtime".to_owned(),
            |found| match &found.systemd_cgroup {
                Some(setting) => {
                    format!("SystemdCgroup = true in {} line {}", setting.place.file.display(), setting.place.line)
                }
                None => format!("{} in {}", found.systemd_line(), found.path.display()),
            },
        );
        findings.push(mendable(
            Finding::error(
                "CgroupDriver",
                "the container runtime makes cgroups by itself (cgroupfs) where systemd owns them: pods would crash later",
                format!("{line}, then systemctl restart containerd"),
            ),
            wanted,
        ));
    } else if should_be_cgroupfs(facts) {
        let setting = containerd(facts).and_then(|found| found.systemd_cgroup.as_ref());
        let place = setting.map_or_else(String::new, |setting| {
            format!(" in {} line {}", setting.place.file.display(), setting.place.line)
        });
        findings.push(mendable(
            Finding::error(
                "CgroupDriver",
                "the container runtime asks systemd for cgroups, and no systemd runs here",
                format!("SystemdCgroup = false{place}, then restart containerd"),
            ),
            wanted,
        ));
    }
    findings
}

/// With `--fix` it is mended before anything else.
fn mendable(finding: Finding, wanted: &Wanted) -> Finding {
    let severity = if wanted.fix { Severity::Mended } else { finding.severity };
    Finding { severity, ..finding.fixable() }
}

fn sandbox_image(facts: &HostFacts) -> Option<String> {
    match &facts.runtime.told {
        RuntimeTold::Answers { sandbox_image: Some(image), .. } => Some(image.clone()),
        _ => Some(containerd(facts)?.sandbox_image.as_ref()?.value.clone()),
    }
}

fn sandbox(facts: &HostFacts, wanted: &Wanted) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let (Some(image), Some(found)) = (&wanted.sandbox_image, sandbox_image(facts))
        && *image != found
    {
        findings.push(mendable(
            Finding::warning(
                "SandboxImage",
                format!("the runtime starts each pod with {found}, and {image} is the one that is here"),
                format!("set it to {image} in /{CONFIG}, or --fix"),
            ),
            wanted,
        ));
    }
    let both =
        containerd(facts).filter(|found| found.config_path.is_some()).and_then(|found| found.inline_mirrors.as_ref());
    if let Some(place) = both {
        findings.push(Finding::error(
            "ContainerdConfig",
            format!(
                "{} line {} names mirrors, which containerd refuses together with config_path",
                place.file.display(),
                place.line
            ),
            format!("move them to {CERTS_D}/REGISTRY/hosts.toml (weft init --image-mirror writes these)"),
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::testing::{facts, init, names, report};
    use super::*;
    use crate::bootstrap::host::containerd::Place;
    use crate::bootstrap::host::facts::RuntimeFacts;

    fn with(told: RuntimeTold, change: impl Fn(&mut Containerd)) -> HostFacts {
        let mut machine = facts();
        if let Some(Ok(containerd)) = &mut machine.runtime.containerd {
            change(containerd);
        }
        HostFacts { runtime: RuntimeFacts { told, ..machine.runtime }, ..machine }
    }

    fn place() -> Place {
        Place { file: "/etc/containerd/config.toml".into(), line: 14 }
    }

    #[test]
    fn p05_several_sockets_want_a_choice() {
        let mut machine = facts();
        machine.runtime.sockets.push("/run/crio/crio.sock".into());
        let found = report(&machine, &init());
        let text = found.to_string();
        assert!(text.contains("containerd.sock, /run/crio/crio.sock") && text.contains("--cri-socket"), "{text}");
        let chosen = Wanted { cri_socket: Some("unix:///run/crio/crio.sock".into()), ..init() };
        assert!(report(&machine, &chosen).is_passed());
    }

    #[test]
    fn a_wrong_socket_names_the_ones_that_are_there() {
        let wanted = Wanted { cri_socket: Some("unix:///run/x.sock".into()), ..init() };
        let text = report(&with(RuntimeTold::NoSocket, |_| {}), &wanted).to_string();
        assert!(text.contains("/run/x.sock") && text.contains("there is /run/containerd/containerd.sock"), "{text}");
    }

    #[test]
    fn p06_p0_3_a_containerd_without_cri_is_told_with_file_and_line() {
        let machine = with(RuntimeTold::NoCri, |found| found.disabled = Some(place()));
        let found = report(&machine, &init());
        assert_eq!(names(&found), ["CRI"]);
        let finding = found.get("CRI").unwrap();
        assert!(finding.cause.contains("/etc/containerd/config.toml line 14") && finding.fixable, "{finding:?}");
        assert!(Repair::of(&machine, &init(), false).0.enable_cri);
    }

    #[test]
    fn p0_2_cgroupfs_beside_systemd_is_refused_with_the_line_to_change() {
        let told = RuntimeTold::Answers {
            version: "containerd 2.1.4".into(),
            unready: None,
            driver: Some(CgroupDriver::Cgroupfs),
            sandbox_image: None,
        };
        let machine = with(told.clone(), |found| found.systemd_cgroup = None);
        let found = report(&machine, &init());
        let finding = found.get("CgroupDriver").unwrap();
        assert!(finding.fix.contains("runc.options] SystemdCgroup = true in /etc/containerd"), "{finding:?}");
        let fixing = Wanted { fix: true, ..init() };
        let mended = report(&machine, &fixing);
        assert!(mended.is_passed() && mended.kubelet.cgroup_driver == Some(CgroupDriver::Systemd));
        assert_eq!(Repair::of(&machine, &fixing, false).0.systemd_cgroup, Some(("runc".into(), true)));
        let crio = Wanted { cri_socket: Some("unix:///run/crio/crio.sock".into()), ..fixing };
        assert_eq!(Repair::of(&machine, &crio, true), Repair::default(), "another runtime has other files");
        // Without systemd it is right, and kubelet follows.
        let plain = HostFacts { systemd: false, ..machine };
        let found = report(&plain, &init());
        assert!(found.is_passed() && found.kubelet.cgroup_driver == Some(CgroupDriver::Cgroupfs));
    }

    #[test]
    fn p0_5_another_sandbox_image_is_told_and_mended() {
        let told = RuntimeTold::Answers {
            version: "containerd 1.7".into(),
            unready: None,
            driver: None,
            sandbox_image: Some("registry.k8s.io/pause:3.8".into()),
        };
        let wanted = Wanted { sandbox_image: Some("weft:0.1.0".into()), ..init() };
        let machine = with(told, |_| {});
        let found = report(&machine, &wanted);
        assert!(found.is_passed() && found.get("SandboxImage").unwrap().cause.contains("pause:3.8"));
        assert!(found.get("ContainerRuntimeVersion").is_some(), "it does not tell its driver");
        let repair = Repair::of(&machine, &wanted, true).0;
        assert_eq!((repair.sandbox_image.as_deref(), repair.config_path), (Some("weft:0.1.0"), true));
    }

    #[test]
    fn mirrors_of_both_kinds_do_not_go_together() {
        let machine = with(facts().runtime.told, |found| {
            found.inline_mirrors = Some(place());
            found.config_path =
                Some(crate::bootstrap::host::containerd::Setting { value: "/c".into(), place: place() });
        });
        assert_eq!(names(&report(&machine, &init())), ["ContainerdConfig"]);
    }
}
