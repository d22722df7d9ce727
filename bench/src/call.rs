//! A process to be started, and the time it takes.

use std::ffi::{OsStr, OsString};
use std::io::{self, PipeReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use weft_tests::tool;

/// A program with arguments, environment and input. It runs in the namespace of the thread that starts it.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    program: PathBuf,
    arguments: Vec<OsString>,
    variables: Vec<(&'static str, OsString)>,
    input: Vec<u8>,
}

impl Call {
    /// Of a program, without anything.
    pub(crate) fn new(program: &Path) -> Self {
        Self { program: program.to_owned(), arguments: Vec::new(), variables: Vec::new(), input: Vec::new() }
    }

    /// The same with a further argument.
    pub(crate) fn argument(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// The same with an environment variable. There are no others.
    pub(crate) fn variable(mut self, name: &'static str, value: impl AsRef<OsStr>) -> Self {
        self.variables.push((name, value.as_ref().to_owned()));
        self
    }

    /// The same with bytes on standard input. They have to fit into a pipe (64 KiB).
    pub(crate) fn input(mut self, bytes: &[u8]) -> Self {
        self.input = bytes.to_vec();
        self
    }

    /// The same, started by another program.
    pub(crate) fn under(mut self, program: &Path, arguments: &[&OsStr]) -> Self {
        let program = std::mem::replace(&mut self.program, program.to_owned());
        let words = arguments.iter().map(|word| (*word).to_owned()).chain([program.into_os_string()]);
        self.arguments.splice(0..0, words);
        self
    }

    /// What goes to standard input.
    pub(crate) fn input_bytes(&self) -> &[u8] {
        &self.input
    }

    /// As a command, with both outputs in one pipe and nothing said about standard input.
    pub(crate) fn command(&self) -> Result<(Command, PipeReader)> {
        let mut command = tool::command(&self.program);
        command.args(&self.arguments).env_clear().envs(self.variables.iter().map(|(name, value)| (name, value)));
        let (reader, writer) = io::pipe()?;
        command.stdout(writer.try_clone()?).stderr(writer);
        Ok((command, reader))
    }

    /// Starts it and returns the time until it has been reaped, by the monotonic clock.
    ///
    /// # Errors
    /// As [`Call::run`].
    pub(crate) fn time(&self) -> Result<Duration> {
        self.run().map(|(took, _)| took)
    }

    /// The same, and what it said: at most as much as a pipe holds (64 KiB), as it is read afterwards.
    ///
    /// All pipes are there and filled beforehand: no thread, no copying and no scheduling of ours is in the time.
    ///
    /// # Errors
    /// When it cannot be started or does not exit with 0; the error holds what it said.
    pub(crate) fn run(&self) -> Result<(Duration, Vec<u8>)> {
        let (mut command, mut output) = self.command()?;
        let (reader, mut writer) = io::pipe()?;
        writer.write_all(&self.input)?;
        drop(writer);
        command.stdin(reader);

        let begin = Instant::now();
        let mut child = command.spawn().with_context(|| format!("cannot start {self}"))?;
        let status = child.wait()?;
        let took = begin.elapsed();

        // Our copies of the pipe's other end; else there would be no end of file.
        drop(command);
        let mut said = Vec::new();
        output.read_to_end(&mut said)?;
        if !status.success() {
            bail!("{self}: {status}: {}", String::from_utf8_lossy(&said).trim());
        }
        Ok((took, said))
    }
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (name, value) in &self.variables {
            write!(f, "{name}={} ", value.display())?;
        }
        write!(f, "{}", self.program.display())?;
        self.arguments.iter().try_for_each(|argument| write!(f, " {}", argument.display()))
    }
}
