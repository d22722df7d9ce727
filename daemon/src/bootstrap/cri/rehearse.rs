//! A sandbox that comes before the first pod does: it finds a pause image that is not there, a wrong driver of
//! control groups, a runtime that may not do what runc wants, while kubelet would only repeat itself for minutes.

use std::time::Duration;

use k8s_cri::v1::{
    LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption, PodSandboxConfig,
    PodSandboxMetadata, RemovePodSandboxRequest, RunPodSandboxRequest, StopPodSandboxRequest,
};
use tonic::Code;

use super::connect::Cri;
use super::error::CriError;
use super::health::CgroupDriver;

/// How long a sandbox may take to come; the runtime pulls its image if it has none.
const RUN_LIMIT: Duration = Duration::from_secs(60);
/// How long it may take to go.
const END_LIMIT: Duration = Duration::from_secs(30);
/// The namespace of its pod, which no cluster has.
const NAMESPACE: &str = "weft-preflight";

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rehearsal {
    /// It came; whoever asked for it ends it ([`Cri::end_sandbox`]).
    Passed {
        /// Its name in the runtime.
        sandbox: String,
    },
    /// It did not come.
    Failed {
        /// The runtime's words.
        cause: String,
        /// What to do about it.
        fix: String,
    },
}

impl Cri {
    /// Runs a sandbox in the host's network, so that it needs no plugin. `cgroup_parent` is where its control
    /// group goes; `None` for the place that is right for the driver.
    ///
    /// # Errors
    /// When the runtime does not answer.
    pub async fn rehearse(
        &self,
        driver: Option<CgroupDriver>,
        cgroup_parent: Option<&str>,
    ) -> Result<Rehearsal, CriError> {
        // systemd wants a slice; the other driver takes any folder.
        let usual = if driver == Some(CgroupDriver::Systemd) { "system.slice" } else { "/" };
        let config = config(cgroup_parent.unwrap_or(usual));
        let request = RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
        let mut runtime = self.runtime();
        match self.answer("RunPodSandbox", "", RUN_LIMIT, runtime.run_pod_sandbox(request)).await {
            Ok(answer) => Ok(Rehearsal::Passed { sandbox: answer.pod_sandbox_id }),
            Err(CriError::Refused { status, .. }) => {
                let cause = status.message().to_owned();
                let fix = fix(&cause);
                Ok(Rehearsal::Failed { cause, fix })
            }
            Err(error) => Err(error),
        }
    }

    /// Stops a sandbox with all that is in it, and removes it. One that is not there is no error.
    ///
    /// # Errors
    /// When the runtime does not answer, or cannot remove it.
    pub async fn end_sandbox(&self, id: &str) -> Result<(), CriError> {
        let stop = StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone_is_well(self.answer("StopPodSandbox", id, END_LIMIT, self.runtime().stop_pod_sandbox(stop)).await)?;
        let remove = RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone_is_well(self.answer("RemovePodSandbox", id, END_LIMIT, self.runtime().remove_pod_sandbox(remove)).await)
    }
}

/// containerd before 2.0 refuses to stop what is not there, against the CRI's promise (`api.proto`, `StopPodSandbox`).
fn gone_is_well<T>(answer: Result<T, CriError>) -> Result<(), CriError> {
    match answer {
        Err(error) if error.code() == Some(Code::NotFound) => Ok(()),
        other => other.map(drop),
    }
}

fn config(cgroup_parent: &str) -> PodSandboxConfig {
    let node = NamespaceMode::Node.into();
    let namespaces = NamespaceOption { network: node, pid: NamespaceMode::Pod.into(), ipc: node, ..Default::default() };
    let security = LinuxSandboxSecurityContext { namespace_options: Some(namespaces), ..Default::default() };
    // Runtimes take two sandboxes of the same name, UID and attempt for one: another one each time.
    let name = format!("rehearsal-{:x}", std::process::id());
    let uid = format!("{name}-{:x}", nanoseconds());
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata { name, uid, namespace: NAMESPACE.into(), attempt: 0 }),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: cgroup_parent.to_owned(),
            security_context: Some(security),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn nanoseconds() -> u128 {
    std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos())
}

/// What to do about the runtime's words.
fn fix(cause: &str) -> String {
    let has = |words: &[&str]| words.iter().any(|word| cause.contains(word));
    if has(&["get sandbox image", "failed to pull image", "failed to resolve reference"]) {
        "the runtime's own sandbox image is not here and cannot be fetched: set sandbox_image in containerd's configuration \
         to an image that `weft images list` shows as present, or bring it with --images FILE or an --image-mirror"
    } else if has(&["resolv.conf"]) {
        "pods get a copy of this machine's /etc/resolv.conf, and there is none to be read: make one"
    } else if has(&["get final child's PID"]) {
        "the runtime may not raise priorities against the OOM killer here (no CAP_SYS_RESOURCE): set \
         restrict_oom_score_adj = true in containerd's configuration"
    } else if has(&["systemd cgroups", "cgroupsPath to be of format", "cgroup"]) {
        "check the driver of control groups: SystemdCgroup in containerd's configuration has to be true where systemd is \
         the first process, and kubelet's cgroupDriver has to agree"
    } else if has(&["executable file not found", "no such file or directory"]) {
        "a program that the runtime starts is missing (runc, containerd-shim-runc-v2), or the sandbox image has none"
    } else {
        "see the runtime's log (journalctl -u containerd)"
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_complaints_have_their_fix() {
        for (cause, word) in [
            ("failed to get sandbox image \"registry.k8s.io/pause:3.6\": failed to pull image", "sandbox_image"),
            (
                "runc create failed: unable to start container process: can't get final child's PID from pipe: EOF",
                "oom",
            ),
            ("expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups", "SystemdCgroup"),
            ("exec: \"runc\": executable file not found in $PATH", "missing"),
            (
                "failed to copy host's resolv.conf to \"x\": open /etc/resolv.conf: no such file or directory",
                "make one",
            ),
            ("something new", "log"),
        ] {
            assert!(fix(cause).contains(word), "{cause}: {}", fix(cause));
        }
    }
}
