//! From evidence to cause: pure, so that each cause is a line in a table of tests.

use std::fmt;

use super::evidence::{Container, ContainerState, Evidence};
use super::rules::{RULES, Rule, Source, WAITS_FOR_OTHERS};
use super::targets::Component;
use crate::bootstrap::static_pods::Part;

/// Lines that are shown with a cause.
const SHOWN: usize = 20;
/// Exit code of a process that SIGKILL ended.
const KILLED: i32 = 137;
/// The start, counted from 0, after which a component that ends each time will not get better.
const HOPELESS: u32 = 1;
/// The same for one that is killed: a probe of a slow machine may have done it.
const KILLED_OFTEN: u32 = 2;
/// Below this etcd and images cannot be written.
const DISK_NEEDED: u64 = 100 * 1024 * 1024;

/// Kinds of causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// An image is missing.
    Image,
    /// A component ends, and nothing more is known.
    Crash,
    /// Control groups.
    Cgroup,
    /// A port is taken.
    Port,
    /// The disk is full.
    Disk,
    /// Memory is short.
    Memory,
    /// A certificate.
    Certificate,
    /// The clock is wrong.
    Clock,
    /// Swap is on.
    Swap,
    /// A flag or configuration is wrong.
    Configuration,
    /// The container runtime.
    Runtime,
    /// etcd's data.
    Data,
    /// kubelet does not run.
    Kubelet,
}

impl Cause {
    /// Its name for machines.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Crash => "crash",
            Self::Cgroup => "cgroup",
            Self::Port => "port",
            Self::Disk => "disk",
            Self::Memory => "memory",
            Self::Certificate => "certificate",
            Self::Clock => "clock",
            Self::Swap => "swap",
            Self::Configuration => "configuration",
            Self::Runtime => "runtime",
            Self::Data => "data",
            Self::Kubelet => "kubelet",
        }
    }
}

/// What is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// The kind.
    pub cause: Cause,
    /// Who has it.
    pub component: Component,
    /// What is wrong, in one sentence.
    pub summary: String,
    /// What to do.
    pub fix: String,
    /// The lines that tell.
    pub lines: Vec<String>,
    /// Whether waiting is in vain.
    pub certain: bool,
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "cause ({}): {}", self.cause.name(), self.summary)?;
        writeln!(f, "what to do: {}", self.fix)?;
        for line in &self.lines {
            writeln!(f, "  {} | {line}", self.component)?;
        }
        Ok(())
    }
}

/// The most likely cause for those who are still waited for; `None` if nothing is known against them.
#[must_use]
pub fn diagnose(evidence: &Evidence, waiting: &[Component]) -> Option<Diagnosis> {
    if waiting.is_empty() {
        return None;
    }
    let kubelet = waiting.contains(&Component::Kubelet);
    // In the order in which they need each other.
    let containers: Vec<(Component, &Container)> = Part::ALL
        .into_iter()
        .filter(|part| waiting.contains(&Component::Part(*part)))
        .filter_map(|part| Some((Component::Part(part), evidence.newest(part.name())?)))
        .filter(|(_, container)| matches!(container.state, ContainerState::Exited { .. }))
        .collect();
    let by_rule = RULES.iter().find_map(|rule| match rule.source {
        Source::KubeletStart if !kubelet => None,
        Source::KubeletStart | Source::KubeletPods => told(rule, Component::Kubelet, &evidence.kubelet_lines),
        Source::Container => {
            containers.iter().find_map(|(component, container)| told(rule, *component, &container.lines))
        }
    });
    let killed = || containers.iter().find_map(|(component, container)| killed(*component, container));
    // What is certain goes before what may pass.
    let all = [full(evidence), by_rule, killed(), crash(&containers), silent(evidence, kubelet)];
    let mut all: Vec<Diagnosis> = all.into_iter().flatten().collect();
    all.sort_by_key(|diagnosis| !diagnosis.certain);
    all.into_iter().next()
}

fn told(rule: &Rule, component: Component, lines: &[String]) -> Option<Diagnosis> {
    let holds = |line: &String| {
        let line = line.to_lowercase();
        rule.words.iter().all(|word| line.contains(word))
    };
    // The last that says so, with what came before it.
    let at = lines.iter().rposition(holds)?;
    let shown = lines[(at + 1).saturating_sub(SHOWN)..=at].to_vec();
    Some(Diagnosis {
        cause: rule.cause,
        component,
        summary: rule.summary.replace("{}", &component.to_string()),
        fix: rule.fix.to_owned(),
        lines: shown,
        certain: rule.certain,
    })
}

/// Before anybody says so.
fn full(evidence: &Evidence) -> Option<Diagnosis> {
    let disk = evidence.disk.filter(|disk| disk.total > 0 && disk.free < DISK_NEEDED)?;
    Some(Diagnosis {
        cause: Cause::Disk,
        component: Component::Kubelet,
        summary: format!("the file system with /var/lib has {} MiB free of {} MiB", disk.free >> 20, disk.total >> 20),
        fix: "free space there, then run weft again".into(),
        lines: Vec::new(),
        certain: true,
    })
}

fn killed(component: Component, container: &Container) -> Option<Diagnosis> {
    let ContainerState::Exited { code, reason, .. } = &container.state else { return None };
    let out_of_memory = reason == "OOMKilled";
    // SIGKILL alone is also what a probe ends with.
    (out_of_memory || (*code == KILLED && container.attempt >= KILLED_OFTEN)).then(|| Diagnosis {
        cause: Cause::Memory,
        component,
        summary: if out_of_memory {
            format!("{component} has been ended by the kernel: memory is short")
        } else {
            format!("{component} has been killed {} times: memory is short, or the machine is too slow for its probes", container.attempt + 1)
        },
        fix: "give the machine more memory (2 GiB for a control plane), stop what uses it, or raise timeouts.controlPlaneComponentHealthCheck".into(),
        lines: last(&container.lines),
        certain: out_of_memory,
    })
}

/// Somebody ends again and again and nobody knows why: his last words, and let the reader judge.
fn crash(containers: &[(Component, &Container)]) -> Option<Diagnosis> {
    containers.iter().find_map(|(component, container)| {
        let ContainerState::Exited { code, reason, message } = &container.state else { return None };
        let excused = container.lines.iter().rev().take(SHOWN).any(|line| {
            let line = line.to_lowercase();
            WAITS_FOR_OTHERS.iter().any(|word| line.contains(word))
        });
        if (*code == 0 && message.is_empty()) || excused {
            return None;
        }
        let why = if message.is_empty() { reason } else { message };
        Some(Diagnosis {
            cause: Cause::Crash,
            component: *component,
            summary: format!("{component} has ended with code {code} ({why}), {} times so far", container.attempt + 1),
            fix: format!(
                "its last lines say why; all of them: crictl logs, or /var/log/pods/kube-system_{component}-*"
            ),
            lines: last(&container.lines),
            certain: container.attempt >= HOPELESS || reason == "StartError",
        })
    })
}

/// kubelet or the runtime do not even run.
fn silent(evidence: &Evidence, kubelet: bool) -> Option<Diagnosis> {
    if kubelet && evidence.kubelet_active == Some(false) {
        return Some(Diagnosis {
            cause: Cause::Kubelet,
            component: Component::Kubelet,
            summary: "kubelet does not run".into(),
            fix: "its last lines say why; all of them: journalctl -u kubelet".into(),
            lines: last(&evidence.kubelet_lines),
            certain: false,
        });
    }
    let error = evidence.runtime_error.as_ref()?;
    Some(Diagnosis {
        cause: Cause::Runtime,
        component: Component::Kubelet,
        summary: format!("the container runtime does not answer: {error}"),
        fix: "start containerd; its log says why it ended (journalctl -u containerd)".into(),
        lines: Vec::new(),
        certain: false,
    })
}

fn last(lines: &[String]) -> Vec<String> {
    lines[lines.len().saturating_sub(SHOWN)..].to_vec()
}

#[cfg(test)]
mod tests;
