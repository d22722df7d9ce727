//! What a process asks of the kernel, told by strace(1).

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;

use crate::process::ProcessId;
use crate::{tool, wait};

/// The first type of rtnetlink (`RTM_BASE`).
const RTM_BASE: u16 = 16;
/// linux/netfilter/nfnetlink.h.
const NFNL_SUBSYS_NFTABLES: u8 = 10;

/// What one call has asked of the kernel, itself and the processes that it has started.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Trace {
    /// Programs run.
    pub processes: usize,
    /// Threads, the first of each process among them.
    pub threads: usize,
    /// System calls.
    pub syscalls: usize,
    /// Requests sent by netlink; in order if there is a single thread.
    pub requests: Vec<Request>,
}

/// The header of a netlink message (`struct nlmsghdr`, linux/netlink.h), without what differs from call to call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Request {
    /// `nlmsg_type`.
    #[serde(rename = "type")]
    kind: u16,
    /// `nlmsg_flags`.
    flags: u16,
    /// `nlmsg_len`.
    length: u32,
}

impl Request {
    /// Whether it changes something, if it goes to rtnetlink or nf_tables. rtnetlink's types come in fours, of which the third
    /// asks (linux/rtnetlink.h); those of nf_tables in threes, of which the second does (linux/netfilter/nf_tables.h). What
    /// begins and ends a transaction of nf_tables cannot be told from rtnetlink's types, and counts.
    #[must_use]
    pub fn is_write(&self) -> bool {
        let [subsystem, kind] = self.kind.to_be_bytes();
        match subsystem {
            0 => self.kind >= RTM_BASE && self.kind % 4 != 2,
            NFNL_SUBSYS_NFTABLES => kind % 3 != 1,
            _ => true,
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // linux/rtnetlink.h
        match self.kind {
            16 => f.write_str("NEWLINK"),
            17 => f.write_str("DELLINK"),
            18 => f.write_str("GETLINK"),
            19 => f.write_str("SETLINK"),
            20 => f.write_str("NEWADDR"),
            21 => f.write_str("DELADDR"),
            22 => f.write_str("GETADDR"),
            24 => f.write_str("NEWROUTE"),
            25 => f.write_str("DELROUTE"),
            26 => f.write_str("GETROUTE"),
            28 => f.write_str("NEWNEIGH"),
            other => write!(f, "type {other}"),
        }
    }
}

/// A running process whose threads' sent messages are noted.
#[derive(Debug)]
pub struct Attached {
    strace: Child,
    folder: PathBuf,
}

impl Attached {
    /// Begins with every thread that the process has, and notes in `folder`, which is made. Only what it sends is noted, so that
    /// it is held up little.
    ///
    /// # Errors
    /// When it has ended, or strace may not trace.
    pub fn to(process: ProcessId, folder: &Path) -> Result<Self> {
        let words = wrapper(folder)?;
        let (program, arguments) = words.split_first().context("nothing to trace with")?;
        let mut command = tool::command(program);
        command.args(arguments).args(["-e", "trace=sendto,sendmsg,sendmmsg", "-p", &process.pid.to_string()]);
        let strace = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let this = Self { strace, folder: folder.to_owned() };
        wait::until(Duration::from_secs(10), "strace to trace every thread", || every_thread_is_traced(process.pid))?;
        Ok(this)
    }

    /// Ends it. Returns what has been sent; the folder is removed.
    ///
    /// # Errors
    /// When there is nothing to read.
    pub fn finish(mut self) -> Result<Trace> {
        kill(Pid::from_raw(i32::try_from(self.strace.id())?), Signal::SIGINT)?;
        self.strace.wait()?;
        read(&self.folder)
    }
}

fn every_thread_is_traced(pid: i32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut states = threads.filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok()).peekable();
    states.peek().is_some() && states.all(|state| !state.contains("TracerPid:\t0\n"))
}

/// Whether this machine has strace.
#[must_use]
pub fn is_available() -> bool {
    tool::call("strace", &["-V"]).is_ok()
}

/// What to start a program under, so that [`read`] finds what it asks in `folder`, which is made.
///
/// # Errors
/// When the folder cannot be made.
pub fn wrapper(folder: &Path) -> Result<Vec<OsString>> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    // A file a thread, so that no line is cut in two by another thread's; all that is sent in hexadecimal.
    let words = ["strace", "-ff", "-q", "-e", "write=all", "-o"].map(OsString::from);
    Ok(words.into_iter().chain([folder.join("thread").into_os_string()]).collect())
}

/// What was asked by a program that was started under [`wrapper`]. The folder is removed.
///
/// # Errors
/// When there is nothing to read.
pub fn read(folder: &Path) -> Result<Trace> {
    let mut total = Trace::default();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        total.add_thread(&fs::read_to_string(entry?.path())?);
    }
    fs::remove_dir_all(folder)?;
    Ok(total)
}

impl Trace {
    fn add_thread(&mut self, text: &str) {
        self.threads += 1;
        let mut sent = None;
        for line in text.lines() {
            if let Some(dump) = line.strip_prefix(" | ") {
                if let Some(bytes) = &mut sent {
                    *bytes = [std::mem::take(bytes), hexadecimal(dump)].concat();
                }
                continue;
            }
            // What goes before the bytes of `sendmsg`.
            if line.starts_with(" * ") {
                continue;
            }
            self.requests.extend(sent.take().iter().flat_map(|bytes: &Vec<u8>| requests(bytes)));
            // Signals and ends are no calls.
            if line.starts_with(['+', '-']) {
                continue;
            }
            self.syscalls += 1;
            self.processes += usize::from(line.starts_with("execve(") && line.ends_with(" = 0"));
            // Only what goes to a netlink socket is shown so. strace does not know the types of a foreign namespace's.
            let by_netlink = line.starts_with("send") && line.contains("nlmsg_len=");
            sent = by_netlink.then(Vec::new);
        }
        self.requests.extend(sent.iter().flat_map(|bytes| requests(bytes)));
    }

    /// The requests, equal ones that follow each other in one word: `NEWLINK x3, NEWADDR`.
    #[must_use]
    pub fn requests_in_words(&self) -> String {
        let words: Vec<String> = self.requests.iter().map(ToString::to_string).collect();
        let grouped = words.chunk_by(|a, b| a == b).map(|group| match group {
            [word] => word.clone(),
            group => format!("{} x{}", group.first().map_or("", String::as_str), group.len()),
        });
        grouped.collect::<Vec<_>>().join(", ")
    }
}

/// The bytes of ` 00000  a8 00 00 00 10 00 05 06  00 … 00   ................ |`.
fn hexadecimal(dump: &str) -> Vec<u8> {
    // The column of letters may hold anything, so it is cut off by place: 5 digits, two blanks, 16 times 3, one between.
    let digits = dump.get(7..7 + 16 * 3 + 1).unwrap_or_default();
    digits.split_whitespace().filter_map(|byte| u8::from_str_radix(byte, 16).ok()).collect()
}

/// The headers of the netlink messages in one datagram.
fn requests(mut bytes: &[u8]) -> Vec<Request> {
    let mut found = Vec::new();
    while let Some([a, b, c, d, e, f, g, h]) = bytes.first_chunk() {
        let length = u32::from_ne_bytes([*a, *b, *c, *d]);
        let (kind, flags) = (u16::from_ne_bytes([*e, *f]), u16::from_ne_bytes([*g, *h]));
        found.push(Request { kind, flags, length });
        let step = usize::try_from(length).unwrap_or(usize::MAX).max(16).checked_next_multiple_of(4);
        bytes = step.and_then(|step| bytes.get(step..)).unwrap_or_default();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREAD: &str = r#"execve("/bin/x", ["x"], 0x7ffd /* 5 vars */) = 0
write(1, "{nlmsg_len=", 11) = 11
 | 00000  7b 6e 6c 6d 73 67 5f 6c  65 6e 3d                 {nlmsg_len=      |
--- SIGURG {si_signo=SIGURG} ---
sendto(7, [{nlmsg_len=20, nlmsg_type=0x10}, {nlmsg_len=16}], 36, 0, NULL, 0) = 36
 | 00000  14 00 00 00 10 00 05 06  01 00 00 00 00 00 00 00  ................ |
 | 00010  aa bb cc dd 10 00 00 00  14 00 05 00 02 00 00 00  20 20 20 20 20 20 |
 | 00020  00 00 00 00                                       ....             |
sendmsg(3, {msg_iov=[{iov_base=[{nlmsg_len=16]}]}, 0) = 16
 * 16 bytes in buffer 0
 | 00000  10 00 00 00 14 00 05 00  00 00 00 00 00 00 00 00  ................ |
+++ exited with 0 +++
"#;

    #[test]
    fn calls_and_netlink_requests_are_counted() {
        let mut trace = Trace::default();
        trace.add_thread(THREAD);
        assert_eq!((trace.threads, trace.processes, trace.syscalls), (1, 1, 4));
        assert_eq!(trace.requests_in_words(), "NEWLINK, NEWADDR x2");
        assert_eq!(trace.requests.first(), Some(&Request { kind: 16, flags: 0x605, length: 20 }));
        assert!(trace.requests.iter().all(Request::is_write));
        let asks = [18, 26, 30, 2, 0xa01, 0xa07, 0xa10].map(|kind| Request { kind, flags: 0, length: 16 });
        assert!(!asks.iter().any(Request::is_write));
    }

    #[test]
    fn a_broken_length_ends() {
        assert_eq!(requests(&[0; 16]).len(), 1);
        assert_eq!(requests(&[0xff; 40]).len(), 1);
    }
}
