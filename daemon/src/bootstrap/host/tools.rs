//! The few programs that are called where no system call does the work: modules with their dependencies, swap, systemd,
//! firewalld.

use std::io;
use std::process::{Command, Stdio};

/// What a program has said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// Whether it ended with 0.
    pub well: bool,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Said {
    /// In a few words why it has failed.
    #[must_use]
    pub fn why(&self) -> String {
        let text = if self.err.trim().is_empty() { &self.out } else { &self.err };
        text.trim().replace('\n', "; ")
    }
}

/// Calls programs. Tests have one that only writes down.
pub trait Tools {
    /// Calls a program and waits for its end.
    ///
    /// # Errors
    /// That it is not there, or cannot be started.
    fn call(&self, program: &str, args: &[&str]) -> io::Result<Said>;
}

/// The programs of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

impl Tools for System {
    fn call(&self, program: &str, args: &[&str]) -> io::Result<Said> {
        #[expect(clippy::disallowed_methods, reason = "bring-up may call programs (DESIGN decision 4)")]
        let output = Command::new(program).args(args).env("LC_ALL", "C").stdin(Stdio::null()).output()?;
        Ok(Said {
            well: output.status.success(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

#[cfg(test)]
pub(super) mod testing {
    use std::cell::RefCell;

    use super::*;

    type Act = Box<dyn Fn(&str) -> io::Result<Said>>;

    /// Writes calls down, and does what the test says.
    pub(crate) struct Recorder {
        pub(crate) calls: RefCell<Vec<String>>,
        act: Act,
    }

    impl Recorder {
        pub(crate) fn new(act: impl Fn(&str) -> io::Result<Said> + 'static) -> Self {
            Self { calls: RefCell::default(), act: Box::new(act) }
        }

        /// All calls end well.
        pub(crate) fn willing() -> Self {
            Self::new(|_| Ok(Said { well: true, ..Said::default() }))
        }
    }

    impl Tools for Recorder {
        fn call(&self, program: &str, args: &[&str]) -> io::Result<Said> {
            let line = std::iter::once(program).chain(args.iter().copied()).collect::<Vec<_>>().join(" ");
            self.calls.borrow_mut().push(line.clone());
            (self.act)(&line)
        }
    }
}
