//! Files that a second run finds as the first left them: made, kept or changed, and told which.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use weft_cni::formats::files::{Durability, sweep, write_atomically};

/// Lines around a difference that are shown with it.
const CONTEXT: usize = 2;

/// What a step has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was not there and is now.
    Made,
    /// It was there as it should be, and has not been touched.
    Kept,
    /// It was there otherwise; the lines that differ, with `-` and `+` before them.
    Changed(String),
}

impl Outcome {
    /// Whether anything is other than before.
    #[must_use]
    pub fn is_new(&self) -> bool {
        *self != Self::Kept
    }
}

/// A file or directory could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {}: {source}", .path.display())]
pub struct FileError {
    /// What was tried.
    pub verb: &'static str,
    /// With what.
    pub path: PathBuf,
    /// The system's reason.
    pub source: io::Error,
}

impl FileError {
    pub(super) fn of<'a>(verb: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + use<'a> {
        move |source| Self { verb, path: path.to_owned(), source }
    }
}

/// Puts `bytes` into a file in one step that survives a power failure, unless they are there already with that mode.
///
/// # Errors
/// [`FileError`] when it can be neither read nor written.
pub fn put(path: &Path, bytes: &[u8], mode: u32) -> Result<Outcome, FileError> {
    let outcome = match fs::read(path) {
        Ok(old) if old == bytes => {
            sweep(path).map_err(FileError::of("clean up beside", path))?;
            return keep_mode(path, mode);
        }
        Ok(old) => Outcome::Changed(difference(&String::from_utf8_lossy(&old), &String::from_utf8_lossy(bytes))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Outcome::Made,
        Err(error) => return Err(FileError::of("read", path)(error)),
    };
    replace(path, bytes, mode).map_err(FileError::of("write", path))?;
    Ok(outcome)
}

/// Puts `bytes` in the place of a file in one step that survives a power failure, and removes what runs that were killed
/// within such a step have left.
pub(super) fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    sweep(path)?;
    write_atomically(path, bytes, mode, Durability::Durable)
}

/// Makes a directory and those above it, the directory itself with this mode.
///
/// # Errors
/// [`FileError`] when the system refuses.
pub fn directory(path: &Path, mode: u32) -> Result<Outcome, FileError> {
    if path.is_dir() {
        return keep_mode(path, mode);
    }
    if let Some(above) = path.parent() {
        fs::create_dir_all(above).map_err(FileError::of("make", above))?;
    }
    DirBuilder::new().mode(mode).create(path).map_err(FileError::of("make", path))?;
    // The mode given at creation is cut by the umask.
    set_mode(path, mode)?;
    Ok(Outcome::Made)
}

fn keep_mode(path: &Path, mode: u32) -> Result<Outcome, FileError> {
    let old = fs::metadata(path).map_err(FileError::of("look at", path))?.permissions().mode() & 0o7777;
    if old == mode {
        return Ok(Outcome::Kept);
    }
    set_mode(path, mode)?;
    Ok(Outcome::Changed(format!("- mode {old:04o}\n+ mode {mode:04o}\n")))
}

fn set_mode(path: &Path, mode: u32) -> Result<(), FileError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(FileError::of("set the mode of", path))
}

/// The lines in which two texts differ, with a few lines around them; passwords in URLs are left out.
#[must_use]
pub fn difference(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let lines = compare(&old, &new);
    let near = |at: usize| {
        lines[at.saturating_sub(CONTEXT)..(at + CONTEXT + 1).min(lines.len())].iter().any(|(sign, _)| *sign != ' ')
    };
    let mut text = String::new();
    let mut gap = false;
    for (at, (sign, line)) in lines.iter().enumerate() {
        if near(at) {
            if gap && !text.is_empty() {
                text.push_str("  ...\n");
            }
            text.push_str(&format!("{sign} {}\n", without_password(line)));
        }
        gap = !near(at);
    }
    text
}

/// The longest common subsequence, by the table of its lengths: the texts are a few hundred lines at most.
fn compare<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(char, &'a str)> {
    let width = new.len() + 1;
    let mut lengths = vec![0_usize; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            lengths[i * width + j] = if old[i] == new[j] {
                lengths[(i + 1) * width + j + 1] + 1
            } else {
                lengths[(i + 1) * width + j].max(lengths[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut lines = Vec::new();
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push((' ', old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && lengths[(i + 1) * width + j] >= lengths[i * width + j + 1]) {
            lines.push(('-', old[i]));
            i += 1;
        } else {
            lines.push(('+', new[j]));
            j += 1;
        }
    }
    lines
}

/// A proxy's password must not get into a log.
fn without_password(line: &str) -> String {
    let Some((before, rest)) = line.split_once("://") else { return line.to_owned() };
    let authority = rest.find('/').map_or(rest, |end| &rest[..end]);
    match authority.rfind('@') {
        Some(at) => format!("{before}://***{}", &rest[at..]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_run_changes_nothing_and_a_changed_one_says_what() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/file");
        assert_eq!(directory(path.parent().unwrap(), 0o700).unwrap(), Outcome::Made);
        assert_eq!(directory(path.parent().unwrap(), 0o700).unwrap(), Outcome::Kept);
        assert_eq!(put(&path, b"a\nb\n", 0o600).unwrap(), Outcome::Made);
        let before = fs::metadata(&path).unwrap().modified().unwrap();
        assert_eq!(put(&path, b"a\nb\n", 0o600).unwrap(), Outcome::Kept);
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before);
        assert_eq!(put(&path, b"a\nc\n", 0o600).unwrap(), Outcome::Changed("  a\n- b\n+ c\n".into()));
        set_mode(&path, 0o644).unwrap();
        assert_eq!(put(&path, b"a\nc\n", 0o600).unwrap(), Outcome::Changed("- mode 0644\n+ mode 0600\n".into()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_difference_shows_what_is_near_and_no_password() {
        let old: String = (0..20).map(|line| format!("{line}\n")).collect();
        let new = old.replace("3\n", "http://me:secret@proxy:1/x\n");
        let shown = difference(&old, &new);
        assert!(shown.contains("+ http://***@proxy:1/x\n") && !shown.contains("secret"), "{shown}");
        assert!(shown.contains("  ...\n") && !shown.contains("  9\n"), "{shown}");
        assert_eq!(difference(&old, &old), "");
    }
}
