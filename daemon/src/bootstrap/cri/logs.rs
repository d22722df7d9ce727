//! The last words of a container, from the file that the runtime writes.
//!
//! A line is `TIME STREAM TAG TEXT`; tag `P` means that the text goes on in the next line of that stream (kubelet's
//! `kuberuntime/logs`, CRI's log format).

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

/// What is read of a log, from its end, in bytes: enough for twenty lines of the most talkative component.
const TAIL: u64 = 64 << 10;

/// The last `count` lines that a container has written to stdout and stderr, without the runtime's marks.
///
/// # Errors
/// When the file cannot be read.
pub fn last_lines(log: &Path, count: usize) -> io::Result<Vec<String>> {
    let mut file = File::open(log)?;
    let start = file.metadata()?.len().saturating_sub(TAIL);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    // What the cut went through is no whole line.
    let text = if start == 0 { &text } else { text.split_once('\n').map_or("", |(_, rest)| rest) };
    let mut lines = joined(text);
    lines.drain(..lines.len().saturating_sub(count));
    Ok(lines)
}

/// The lines as they were written.
fn joined(log: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    // Streams whose last line goes on, with that line's place.
    let mut open: Vec<(&str, usize)> = Vec::new();
    for entry in log.lines() {
        let mut parts = entry.splitn(4, ' ');
        let (Some(_), Some(stream @ ("stdout" | "stderr")), Some(tag)) = (parts.next(), parts.next(), parts.next())
        else {
            lines.push(entry.to_owned());
            continue;
        };
        let text = parts.next().unwrap_or_default();
        let begun = open.iter().position(|(of, _)| *of == stream).map(|at| open.swap_remove(at).1);
        let at = match begun.and_then(|at| Some((at, lines.get_mut(at)?))) {
            Some((at, line)) => {
                line.push_str(text);
                at
            }
            None => {
                lines.push(text.to_owned());
                lines.len() - 1
            }
        };
        if tag.split(':').next() == Some("P") {
            open.push((stream, at));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_line_are_put_together_a_stream_at_a_time() {
        let log = "2026-01-01T00:00:00Z stdout P one \n2026-01-01T00:00:00Z stderr F other\n\
                   2026-01-01T00:00:00Z stdout F line\n2026-01-01T00:00:00Z stdout F \n";
        assert_eq!(joined(log), ["one line", "other", ""]);
    }

    #[test]
    fn the_last_lines_of_a_long_log_without_the_one_that_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let text: String = (0..5000).map(|n| format!("2026-01-01T00:00:00Z stderr F line {n}\n")).collect();
        std::fs::write(&path, text).unwrap();
        assert_eq!(last_lines(&path, 2).unwrap(), ["line 4998", "line 4999"]);
        let many = last_lines(&path, 5000).unwrap();
        assert!(many.len() > 1000 && many.iter().all(|line| line.starts_with("line ")));
        std::fs::write(&path, "not CRI's format\n").unwrap();
        assert_eq!(last_lines(&path, 20).unwrap(), ["not CRI's format"]);
    }
}
