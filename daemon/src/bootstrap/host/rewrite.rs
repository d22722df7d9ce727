//! Writing other people's files, some of which are no plain files of a directory.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use nix::errno::Errno;

use crate::bootstrap::converge;

/// Puts other content into a file, in one step that survives a power failure. What a symbolic link leads to is written, and
/// the link stays. A file that is a mount point of its own, as /etc/hosts of a container is, cannot be replaced: it is written
/// over, and its mode stays.
///
/// # Errors
/// Whatever the file system says.
pub(super) fn rewrite(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    match converge::replace(&real, bytes, mode) {
        Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => {
            let mut file = File::options().write(true).truncate(true).open(&real)?;
            file.write_all(bytes)?;
            file.sync_all()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_stays_and_leads_to_the_new_content() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        rewrite(&link, b"new", 0o644).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert!(link.symlink_metadata().unwrap().is_symlink());
        rewrite(&folder.path().join("none"), b"made", 0o644).unwrap();
    }
}
