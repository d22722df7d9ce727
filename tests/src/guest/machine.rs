//! The virtual machine: QEMU, from its start to its end.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::guest::kernel::Kernel;
use crate::guest::protocol::Mark;
use crate::tool;

/// How long a kernel may take until it starts the program: some 5 s on an idle machine, 30 on one with ten times the work.
const BOOT: Duration = Duration::from_secs(120);
/// How often a kernel may try: emulating two processors, QEMU at times runs into an instruction that the other one is just
/// changing, and a kernel changes its own a lot while it comes up.
const BOOTS: u32 = 3;
/// `panic=-1` and QEMU's `-no-reboot` end the guest at once when its kernel gives up; `oops=panic`: no test goes on after
/// the kernel has lost its mind. Mitigations and the self-tests of ciphers cost seconds and help nobody here.
/// A clock that is known not to be steady spares the kernel changing its most used function when it finds out.
const COMMAND_LINE: &str = "tsc=unstable console=ttyS0 loglevel=5 panic=-1 oops=panic mitigations=off \
                            cryptomgr.notests";

/// What a guest is made of.
#[derive(Debug)]
pub struct Machine<'a> {
    /// Its kernel.
    pub kernel: &'a Kernel,
    /// Its file system, packed; removed once it is no longer needed.
    pub initramfs: &'a Path,
    /// A file for what the kernel says.
    pub log: &'a Path,
    /// Its memory in MiB.
    pub memory: u32,
    /// How long the program may take from the start of QEMU.
    pub limit: Duration,
}

/// How a guest ended.
#[derive(Debug)]
pub struct Ended {
    /// The program's exit code, or why there is none.
    pub exit: Result<i32, String>,
    /// The tests that were skipped, a line each.
    pub skips: Vec<String>,
    /// What the kernel said, warnings and worse: since the program's start, or since its own if it did not get there.
    pub log: String,
    /// From the start of QEMU to the start of the program.
    pub boot: Option<Duration>,
}

impl Machine<'_> {
    /// Runs the machine to its end, or kills it at its limit. The program's output goes to `out` as it comes. A kernel that
    /// does not get as far as to start the program is given another try, and said to.
    ///
    /// # Errors
    /// When QEMU cannot be started or `out` cannot be written. How the guest ended is not an error here.
    pub fn run(&self, out: &mut impl Write) -> Result<Ended> {
        for again in 1..BOOTS {
            let ended = self.boot(out)?;
            match &ended.exit {
                Err(why) if ended.boot.is_none() => writeln!(out, "guest: boot {again} of {BOOTS}: {why}")?,
                _ => return Ok(ended),
            }
        }
        self.boot(out)
    }

    fn boot(&self, out: &mut impl Write) -> Result<Ended> {
        let mut qemu = Qemu(self.command().spawn().context("cannot start QEMU: run `tests/setup.sh test`")?);
        let chunks = read(qemu.0.stdout.take().context("no pipe from QEMU")?);
        let begin = Instant::now();
        let mut lines = Lines::default();
        let mut log_at_start = 0;
        let mut ended = Ended { exit: Err(String::new()), skips: Vec::new(), log: String::new(), boot: None };
        let stopped = loop {
            let limit = if ended.boot.is_some() { self.limit } else { BOOT.min(self.limit) };
            match chunks.recv_timeout(limit.saturating_sub(begin.elapsed())) {
                Ok(chunk) => lines.push(&chunk),
                Err(RecvTimeoutError::Disconnected) => break None,
                Err(RecvTimeoutError::Timeout) => break Some(limit),
            }
            while let Some(line) = lines.next() {
                match Mark::parse(&line) {
                    Some(Mark::Start(_)) => {
                        ended.boot = Some(begin.elapsed());
                        log_at_start = fs::read(self.log)?.len();
                        // Large, and it would stay if we were killed.
                        fs::remove_file(self.initramfs)?;
                    }
                    Some(Mark::Skip(line)) => ended.skips.push(line),
                    Some(Mark::Exit(code)) => ended.exit = Ok(code),
                    Some(Mark::Broken(why)) => ended.exit = Err(why),
                    None => writeln!(out, "{line}")?,
                }
            }
            out.flush()?;
        };
        qemu.end()?;
        out.write_all(lines.rest().as_bytes())?;
        ended.log = self.log(log_at_start);
        if let Err(why) = &mut ended.exit {
            match stopped {
                Some(limit) if ended.boot.is_none() => *why = format!("it did not come up in {} s", limit.as_secs()),
                Some(limit) => *why = format!("the program did not end in {} s", limit.as_secs()),
                None if why.is_empty() => {
                    let panic = ended.log.lines().find(|line| line.contains("Kernel panic"));
                    *why =
                        format!("the machine ended before the program: {}", panic.unwrap_or("no word from its kernel"));
                }
                None => {}
            }
        }
        Ok(ended)
    }

    /// What the kernel said after the first `skip` bytes, but for its last words.
    fn log(&self, skip: usize) -> String {
        let bytes = fs::read(self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(bytes.get(skip..).unwrap_or_default()).replace('\r', "");
        text.lines().filter(|line| !line.ends_with("reboot: Power down")).map(|line| format!("{line}\n")).collect()
    }

    fn command(&self) -> std::process::Command {
        // So that QEMU goes when we are killed: the kernel sends it the signal.
        let mut command = tool::command("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none"]);
        command.args(["-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", &self.memory.to_string()]);
        command.arg("-kernel").arg(&self.kernel.image).arg("-initrd").arg(self.initramfs);
        command.args(["-append", COMMAND_LINE]);
        // The first port is the kernel's console, the second one the program's output.
        command.arg("-serial").arg(format!("file:{}", self.log.display())).args(["-serial", "stdio"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command
    }
}

/// A running QEMU, killed when it is dropped.
struct Qemu(Child);

impl Qemu {
    fn end(&mut self) -> Result<()> {
        // Already gone is fine; the number is ours until we have waited.
        let _ = self.0.kill();
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// The output in pieces, so that it can be waited for with a limit. The channel closes when QEMU ends.
fn read(mut pipe: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = pipe.read(&mut buffer) {
            if sender.send(buffer[..length].to_vec()).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Whole lines out of pieces.
#[derive(Debug, Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn next(&mut self) -> Option<String> {
        let end = self.0.iter().position(|&byte| byte == b'\n')?;
        let line = self.0.drain(..=end).collect::<Vec<_>>();
        Some(String::from_utf8_lossy(&line[..end]).into_owned())
    }

    /// What came after the last line: where a program that hangs stands.
    fn rest(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_from_pieces() {
        let mut lines = Lines::default();
        lines.push(b"test a ... ");
        assert_eq!(lines.next(), None);
        lines.push(b"ok\n@@GUEST exit 0\nhal");
        assert_eq!(lines.next().as_deref(), Some("test a ... ok"));
        assert_eq!(lines.next().as_deref(), Some("@@GUEST exit 0"));
        assert_eq!(lines.next(), None);
        assert_eq!(lines.rest(), "hal");
    }
}
