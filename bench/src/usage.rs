//! What a running process has used, with the children that it has reaped.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};
use serde::Serialize;
use weft_tests::process::ProcessId;

/// At one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Usage {
    /// Resident memory, in KiB; without children.
    pub(crate) rss_kib: u64,
    /// The most that it has been.
    pub(crate) peak_kib: u64,
    /// Processor time in user space and in the kernel, children included.
    #[serde(rename = "cpu_ms", serialize_with = "millis")]
    pub(crate) cpu: Duration,
}

impl Usage {
    /// Of a process that runs.
    ///
    /// # Errors
    /// When it has ended.
    pub(crate) fn of(process: ProcessId) -> Result<Self> {
        let read = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", process.pid));
        let (status, stat) = (read("status")?, read("stat")?);
        let ticks = sysconf(SysconfVar::CLK_TCK)?.context("no clock ticks")?;
        let memory = |name| field(&status, name).with_context(|| format!("no {name} of process {}", process.pid));
        let ticked = ticks_used(&stat).with_context(|| format!("no times of process {}", process.pid))?;
        let millis = ticked * 1000 / u64::try_from(ticks)?.max(1);
        Ok(Self { rss_kib: memory("VmRSS:")?, peak_kib: memory("VmHWM:")?, cpu: Duration::from_millis(millis) })
    }
}

/// A line of `/proc/PID/status` that is in kB.
fn field(status: &str, name: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().strip_suffix(" kB")?.parse().ok()
}

/// utime, stime, cutime and cstime of `/proc/PID/stat` (fields 14 to 17, proc(5)).
fn ticks_used(stat: &str) -> Option<u64> {
    // The program's name is in parentheses and may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().skip(11).take(4).map(|ticks| ticks.parse::<u64>().ok()).sum()
}

fn millis<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_children_count() {
        let text = "77 (a) b (c) S 1 77 77 0 -1 4 1 0 0 0 1 20 300 4000 20 0 1 0 4711 1 1";
        assert_eq!(ticks_used(text), Some(4321));
        assert_eq!(ticks_used("77 (a) S 1"), Some(0));
    }

    #[test]
    fn this_process_has_memory() {
        let usage = Usage::of(ProcessId::of(i32::try_from(std::process::id()).unwrap()).unwrap()).unwrap();
        assert!(usage.rss_kib > 100 && usage.peak_kib >= usage.rss_kib);
    }
}
