//! The end of a log file.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// What is read of a log at most, from its end.
const LARGEST: u64 = 256 * 1024;

/// What weft's supervisor writes first: what stands before it is of another run.
pub(super) const BEGIN: &str = "weft: keeps running: ";

/// The last lines of a file, of this run of a supervisor only.
///
/// # Errors
/// When it cannot be read.
pub fn tail(path: &Path, lines: usize) -> io::Result<Vec<String>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LARGEST)))?;
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(last(&String::from_utf8_lossy(&bytes), lines))
}

/// The last lines of a text, of this run only.
pub(super) fn last(text: &str, lines: usize) -> Vec<String> {
    let of_this_run = text.rfind(BEGIN).map_or(text, |begin| &text[begin..]);
    let all: Vec<&str> = of_this_run.lines().collect();
    all[all.len().saturating_sub(lines)..].iter().map(|line| (*line).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_of_this_run() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let old = "x".repeat(100) + "\n";
        std::fs::write(&path, old.repeat(5000) + BEGIN + "kubelet\none\ntwo\nthree\n").unwrap();
        assert_eq!(tail(&path, 2).unwrap(), ["two", "three"]);
        assert_eq!(tail(&path, 50).unwrap().len(), 4);
        assert!(tail(&folder.path().join("none"), 1).is_err());
    }
}
