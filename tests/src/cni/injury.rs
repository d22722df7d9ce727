//! Calls that are killed, or lied to by the kernel, at every one of their system calls that changes something. strace does
//! it; the plugin knows nothing of it.

use std::collections::BTreeMap;
use std::fs;

use super::{Call, Host};
use crate::tool;

/// System calls that change something, or that a change waits for the answer of. Architectures differ in what they have:
/// strace passes over those with a question mark that are not there.
const CHANGES: &str = "?open,openat,linkat,?unlink,unlinkat,?mkdir,mkdirat,pwrite64,write,ftruncate,?rename,?renameat,setns,\
    sendto,sendmsg,recvmsg,recvfrom,fcntl,flock,?fork,clone,?vfork,close_range";

/// One system call of a run: the `nth` of its name, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// The system call.
    pub name: String,
    /// Which one of that name.
    pub nth: usize,
}

impl Point {
    /// strace's words for killing a process as it enters this call, so that the call is not made and all before it were.
    #[must_use]
    pub fn kill(&self) -> String {
        format!("inject={}:signal=SIGKILL:when={}", self.name, self.nth)
    }

    /// strace's words for letting this call fail.
    #[must_use]
    pub fn fail(&self, errno: &str) -> String {
        format!("inject={}:error={errno}:when={}", self.name, self.nth)
    }
}

/// Whether strace is there and may trace.
#[must_use]
pub fn can_injure() -> bool {
    tool::call("strace", &["-o", "/dev/null", "true"]).is_ok()
}

/// A call that strace does something to.
#[must_use]
pub fn injured(call: Call, injection: &str) -> Call {
    call.under(&["strace", "-f", "-o", "/dev/null", "-e", injection])
}

/// Makes the call and returns its system calls that change something, and its end: killed there, all of them were made.
///
/// # Panics
/// When strace cannot write down what it saw.
#[must_use]
pub fn points(host: &Host, call: Call) -> Vec<Point> {
    let file = host.scratch.join("strace");
    let shown = file.display().to_string();
    let filter = format!("trace={CHANGES},exit_group");
    let outcome = host.make(&call.under(&["strace", "-f", "-o", &shown, "-e", &filter]));
    assert!(outcome.succeeded(), "{outcome:?}");
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{shown}: {error}"));
    parse(&text)
}

/// The system calls in what `strace -f -o` has written. Of several processes strace counts each by itself; the later ones' calls
/// come with their own numbers.
#[must_use]
pub fn parse(text: &str) -> Vec<Point> {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut found = Vec::new();
    for line in text.lines() {
        let Some((pid, rest)) = line.split_once(char::is_whitespace) else { continue };
        let Some((name, _)) = rest.trim_start().split_once('(') else { continue };
        // Interrupted, and made again: it stands on the next line, too.
        if rest.contains("= ? ERESTART") {
            continue;
        }
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            continue;
        }
        let nth = counts.entry((pid, name)).or_default();
        *nth += 1;
        let point = Point { name: name.to_owned(), nth: *nth };
        if !found.contains(&point) {
            found.push(point);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_name_and_process() {
        let text = "7  openat(AT_FDCWD, \"x\") = 3\n7  setns(3, 0) = 0\n7  openat(AT_FDCWD, \"y\") = ? ERESTARTSYS (To be restarted)\n\
                    7  openat(AT_FDCWD, \"y\") = 4\n\
                    8  sendto(4, \"\") = 1\n8  +++ exited with 0 +++\n7  exit_group(0) = ?\n";
        let points: Vec<String> = parse(text).iter().map(Point::kill).collect();
        let expected = ["openat:1", "setns:1", "openat:2", "sendto:1", "exit_group:1"].map(|at| {
            let (name, nth) = at.split_once(':').unwrap();
            format!("inject={name}:signal=SIGKILL:when={nth}")
        });
        assert_eq!(points, expected);
    }
}
