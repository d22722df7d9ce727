//! Other programs: those under test, and those that judge them.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// How long a program may take before it counts as hung.
const LIMIT: Duration = Duration::from_secs(60);

/// How a program ended and what it said.
#[derive(Debug, Clone)]
pub struct Output {
    /// The exit code; nothing when a signal ended it.
    pub exit: Option<i32>,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
    /// The time from its start to its end.
    pub took: Duration,
}

/// What a program finds on its stdin.
#[derive(Debug, Clone, Copy)]
pub enum Stdin<'a> {
    /// These bytes, then the end.
    Bytes(&'a [u8]),
    /// Nothing, and no end either while it runs.
    HeldOpen,
}

/// A command. The one place where the test library starts programs from.
#[expect(clippy::disallowed_methods, reason = "tests run the binaries under test and the tools that judge them")]
pub fn command(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

/// A command that is started by way of another program, if there are words for that.
pub fn wrapped(under: &[OsString], program: impl AsRef<OsStr>) -> Command {
    let Some((wrapper, words)) = under.split_first() else { return command(program) };
    let mut wrapped = command(wrapper);
    wrapped.args(words).arg(program);
    wrapped
}

/// Runs a command to its end with `stdin`, and keeps what it said. One that hangs for a minute is killed.
///
/// # Errors
/// When it cannot be started. An exit code is not an error here.
pub fn run_with(command: &mut Command, stdin: Stdin<'_>) -> Result<Output> {
    run_within(command, stdin, LIMIT)
}

/// The same for one that may take so long.
///
/// # Errors
/// As [`run_with`].
pub fn run_within(command: &mut Command, stdin: Stdin<'_>, limit: Duration) -> Result<Output> {
    let shown = show(command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let begin = Instant::now();
    let mut child = command.spawn().with_context(|| format!("cannot start `{shown}`"))?;
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    let mut pipe = child.stdin.take().context("no pipe to stdin")?;
    let (ended, watched) = channel::<()>();
    let (output, took) = std::thread::scope(|scope| {
        scope.spawn(move || {
            if let Stdin::Bytes(bytes) = stdin {
                // In a thread of its own: a program that answers before it has read everything must not block us.
                let _ = pipe.write_all(bytes);
                drop(pipe);
                watch(&watched, pid, limit);
            } else {
                watch(&watched, pid, limit);
                drop(pipe);
            }
        });
        let output = child.wait_with_output();
        let took = begin.elapsed();
        drop(ended);
        (output, took)
    });
    let output = output?;
    Ok(Output {
        exit: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        took,
    })
}

/// Kills the process unless its end is announced within the limit.
fn watch(ended: &std::sync::mpsc::Receiver<()>, pid: Pid, limit: Duration) {
    if ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
        let _ = kill(pid, Signal::SIGKILL);
    }
}

/// Runs a command to its end and returns its stdout.
///
/// # Errors
/// When it cannot be started or does not exit with 0; the error holds the command line and its stderr.
pub fn run(command: &mut Command) -> Result<String> {
    let output = run_with(command, Stdin::Bytes(b""))?;
    if output.exit != Some(0) {
        bail!("`{}` ended with {:?}: {}{}", show(command), output.exit, output.stderr.trim(), output.stdout.trim());
    }
    Ok(output.stdout)
}

/// Runs a tool of this machine with the given arguments, in the namespace of the calling thread.
///
/// # Errors
/// As [`run`].
pub fn call(program: &str, args: &[&str]) -> Result<String> {
    run(command(program).args(args))
}

/// The stdout of a tool as JSON; an empty one is an empty array, as `ip -j` means it.
///
/// # Errors
/// When it is not JSON.
pub fn parse_json(text: &str) -> Result<Value> {
    if text.trim().is_empty() {
        return Ok(Value::Array(Vec::new()));
    }
    serde_json::from_str(text).with_context(|| format!("not JSON: {text}"))
}

fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
