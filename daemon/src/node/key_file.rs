//! The private key that a back end needs, in a file.
//!
//! The file counts: another key in it is taken without a restart. Without it the key that the agent goes by is written again, so
//! that a file that somebody removes makes no stranger of this node; the first is drawn by chance.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use weft_cni::formats::files::{Durability, sweep, write_atomically};
use weft_netlink::wireguard::SecretKey;

use super::owned::{Owned, OwnedError};

/// Only the owner reads it, and nobody needs to write to it but by way of another file.
const MODE: u32 = 0o600;

/// The file, and the key of this node once it is known.
#[derive(Debug)]
pub(super) struct KeyFile {
    path: PathBuf,
    key: Option<SecretKey>,
}

/// Why there is no key. What the file holds is never told.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeyFileError {
    /// The file system refused.
    #[error("the key file {} (wireguard-key-file): {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// There is something else in it.
    #[error("the key file {} (wireguard-key-file) holds no key; expected 32 bytes in base64, as wg genkey writes them; remove it, and a new key is made", .0.display())]
    Garbage(PathBuf),
    /// The system has no chance to give.
    #[error("the system gives no random numbers for a key: {0}")]
    Random(getrandom::Error),
    /// The record of what weft has made cannot be written.
    #[error(transparent)]
    Owned(#[from] OwnedError),
}

impl KeyFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, key: None }
    }

    /// The key, once the file holds it and nobody else can read it; with what that took, for the log.
    ///
    /// # Errors
    /// [`KeyFileError`]; the file is as it was.
    pub(super) fn ensure(&mut self, owned: &mut Owned) -> Result<(SecretKey, Option<String>), KeyFileError> {
        let wrong = |source| KeyFileError::File { path: self.path.clone(), source };
        let path = self.path.display();
        let text = match fs::read_to_string(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(KeyFileError::Garbage(self.path.clone()));
            }
            text => Some(text.map_err(wrong)?),
        };
        let (key, done) = match text {
            Some(text) => {
                let key = text.trim().parse().map_err(|_| KeyFileError::Garbage(self.path.clone()))?;
                let others = fs::metadata(&self.path).map_err(wrong)?.permissions().mode() & 0o077;
                if others != 0 {
                    fs::set_permissions(&self.path, Permissions::from_mode(MODE)).map_err(wrong)?;
                }
                (key, (others != 0).then(|| format!("{path} is for nobody else's eyes any more")))
            }
            None => {
                let key = self.key.clone().map_or_else(draw, Ok)?;
                // Whoever was killed while he wrote the file has left the key beside it.
                sweep(&self.path).map_err(wrong)?;
                self.path.parent().map_or(Ok(()), |directory| owned.claim_directory(directory))?;
                owned.claim_file(&self.path)?;
                let text = key.to_base64();
                write_atomically(&self.path, text.as_bytes(), MODE, Durability::UntilReboot).map_err(wrong)?;
                (key, Some(format!("wrote a private key to {path}")))
            }
        };
        self.key = Some(key.clone());
        Ok((key, done))
    }
}

fn draw() -> Result<SecretKey, KeyFileError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(KeyFileError::Random)?;
    // As wg genkey does it: so it is the same in the file and in the kernel.
    Ok(SecretKey::new(bytes).clamped())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::owned::NODE_RECORD;
    use super::*;

    const KEY: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn place() -> (tempfile::TempDir, PathBuf, Owned) {
        let root = tempfile::tempdir().unwrap();
        let (path, owned) = (root.path().join("flannel/wgkey"), Owned::load(&root.path().join("run"), NODE_RECORD));
        (root, path, owned.unwrap())
    }

    #[test]
    fn a_key_is_drawn_once_kept_for_the_owner_and_goes_with_the_record() {
        let (root, path, mut owned) = place();
        let mut file = KeyFile::new(path.clone());
        let (key, done) = file.ensure(&mut owned).unwrap();
        assert_eq!(done.unwrap(), format!("wrote a private key to {}", path.display()));
        assert_eq!((mode(&path), fs::read_to_string(&path).unwrap()), (0o600, key.to_base64()));
        assert_eq!(file.ensure(&mut owned).unwrap(), (key.clone(), None));
        assert_eq!(KeyFile::new(path.clone()).ensure(&mut owned).unwrap(), (key.clone(), None), "a restart");

        fs::remove_file(&path).unwrap();
        // No process can have this number.
        let left = path.with_file_name(".wgkey.999999999.tmp");
        fs::write(&left, key.to_base64()).unwrap();
        assert_eq!(file.ensure(&mut owned).unwrap().0, key, "what the node goes by stays");
        assert!(!left.exists(), "a key that a killed process has left beside the file");
        assert_eq!(fs::read_to_string(&path).unwrap(), key.to_base64());
        assert_ne!(KeyFile::new(root.path().join("other")).ensure(&mut owned).unwrap().0, key);

        owned.restore(&weft_netlink::sysctl::Sysctl::default()).unwrap();
        assert!(!path.exists() && !path.parent().unwrap().exists());
    }

    #[test]
    fn a_key_that_was_there_is_used_hidden_from_others_and_left_behind() {
        let (_root, path, mut owned) = place();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("{KEY}\n")).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let mut file = KeyFile::new(path.clone());
        let (key, done) = file.ensure(&mut owned).unwrap();
        assert_eq!((key.to_base64().as_str(), mode(&path)), (KEY, 0o600));
        assert!(done.is_some() && file.ensure(&mut owned).unwrap().1.is_none());
        fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        assert!(file.ensure(&mut owned).unwrap().1.is_none(), "flannel's mode hides it as well");
        assert_eq!(mode(&path), 0o400);
        owned.restore(&weft_netlink::sysctl::Sysctl::default()).unwrap();
        assert!(path.exists());
    }

    #[test]
    fn what_is_no_key_is_told_by_its_place_and_not_by_its_words() {
        let (_root, path, mut owned) = place();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        for garbage in ["", "hunter2", &KEY[..43]] {
            fs::write(&path, garbage).unwrap();
            let error = KeyFile::new(path.clone()).ensure(&mut owned).unwrap_err().to_string();
            assert!(error.contains("flannel/wgkey") && error.contains("holds no key"), "{error}");
            assert!(!error.contains("hunter2") && !error.contains("dwdt"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), garbage);
        }
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(matches!(KeyFile::new(path).ensure(&mut owned), Err(KeyFileError::Garbage(_))));
    }
}
