//! How the commands that examine something say what they have found.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use clap::ValueEnum;
use serde::Serialize;
use serde_json::json;

use crate::status::judge::Verdict;

/// The exit code of who was ended by SIGPIPE, as shells give it. Rust has that signal ignored.
const CLOSED_PIPE: u8 = 128 + 13;

/// How an answer looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Output {
    /// For people.
    #[default]
    Text,
    /// For people, with more.
    Wide,
    /// For programs.
    Json,
}

/// Prints a report, as text for people that is `wide` or not; the exit code is that of the report, if somebody has read it.
pub(super) fn whole(output: Output, report: &impl Serialize, text: impl Fn(bool) -> String, exit: u8) -> ExitCode {
    let text = match output {
        Output::Text => text(false),
        Output::Wide => text(true),
        Output::Json => match serde_json::to_string_pretty(report) {
            Ok(json) => json + "\n",
            // Texts and numbers have no way to fail.
            Err(error) => error.to_string(),
        },
    };
    ExitCode::from(write(&mut io::stdout().lock(), &text, exit))
}

/// Says why there is no report; to a program it says so where it reads.
pub(super) fn failure(who: &str, output: Output, error: &anyhow::Error) -> ExitCode {
    let exit = Verdict::Unknown.exit_code();
    // Who has closed it does not want to know.
    let _ = writeln!(io::stderr(), "{who}: {error:#}");
    if output != Output::Json {
        return ExitCode::from(exit);
    }
    let document = json!({ "verdict": Verdict::Unknown, "error": format!("{error:#}") });
    ExitCode::from(write(&mut io::stdout().lock(), &format!("{document:#}\n"), exit))
}

/// Writes; the exit code is another one if it cannot.
fn write(to: &mut impl Write, text: &str, exit: u8) -> u8 {
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Ok(()) => exit,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => CLOSED_PIPE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "weft: cannot write the answer: {error}");
            Verdict::Unknown.exit_code()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Closed(ErrorKind);

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_who_has_gone_is_no_fault_and_a_full_disk_is() {
        assert_eq!(write(&mut Vec::new(), "text", 1), 1);
        assert_eq!(write(&mut Closed(ErrorKind::BrokenPipe), "text", 0), CLOSED_PIPE);
        assert_eq!(write(&mut Closed(ErrorKind::StorageFull), "text", 0), 2);
    }
}
