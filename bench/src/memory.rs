//! How much memory a process has had at most.

use std::fs;
use std::io::{self, Write};

use anyhow::{Context, Result, bail};
use nix::libc;
use nix::sys::ptrace;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::call::Call;

/// The largest resident set of the process, in KiB; not of those that it starts in turn.
///
/// `getrusage` cannot tell: a process inherits the mark of the one it was forked from. The kernel stops the process for us
/// at the very end of its life, and we read the mark of its memory (proc(5), `VmHWM`).
///
/// # Errors
/// When it cannot be started or traced, or does not exit with 0.
pub(crate) fn peak(call: &Call) -> Result<u64> {
    let (mut command, _output) = call.command()?;
    let (reader, mut writer) = io::pipe()?;
    let child = command.stdin(reader).spawn().with_context(|| format!("cannot start {call}"))?;
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    // Until it gets its input it waits, so we are not too late.
    ptrace::seize(pid, ptrace::Options::PTRACE_O_TRACEEXIT).with_context(|| format!("cannot trace {call}"))?;
    writer.write_all(call.input_bytes())?;
    drop(writer);
    let mut peak = None;
    loop {
        match waitpid(pid, None)? {
            WaitStatus::PtraceEvent(_, _, libc::PTRACE_EVENT_EXIT) => {
                peak = high_water_mark(&fs::read_to_string(format!("/proc/{pid}/status"))?);
                ptrace::cont(pid, None)?;
            }
            WaitStatus::PtraceEvent(..) => ptrace::cont(pid, None)?,
            WaitStatus::Stopped(_, signal) => ptrace::cont(pid, signal)?,
            WaitStatus::Exited(_, 0) => return peak.with_context(|| format!("{call} ended unseen")),
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => bail!("{call} failed while its memory was watched"),
            WaitStatus::Continued(_) | WaitStatus::PtraceSyscall(_) | WaitStatus::StillAlive => {}
        }
    }
}

fn high_water_mark(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    value.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_is_read_from_status() {
        assert_eq!(high_water_mark("VmPeak:\t    9 kB\nVmHWM:\t    1234 kB\nVmRSS:\t 1 kB\n"), Some(1234));
        // A process without memory, a zombie.
        assert_eq!(high_water_mark("Name:\tx\n"), None);
    }
}
