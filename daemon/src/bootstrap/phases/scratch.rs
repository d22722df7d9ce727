//! Where `--dry-run` puts the files that it would write.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::bootstrap::converge::FileError;
use crate::bootstrap::resolved::Paths;

/// Authorities that are there are worked with.
const AUTHORITIES: [&str; 8] =
    ["ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "etcd/ca.crt", "etcd/ca.key", "sa.key", "sa.pub"];

/// Makes the directory for the files: the one that the environment names (`KUBEADM_INIT_DRYRUN_DIR`, as kubeadm's `constants.go`
/// has it), else a new one below kubeadm's directory for such, or
/// where who runs this may not write there, below the usual one for temporary files. Copies the authorities of `machine` into it.
///
/// # Errors
/// It cannot be made or written.
pub fn scratch(machine: &Paths, verb: &str) -> Result<Paths, FileError> {
    let root = match std::env::var_os(format!("KUBEADM_{}_DRYRUN_DIR", verb.to_uppercase())) {
        Some(directory) => PathBuf::from(directory),
        None => {
            let name = format!("weft-{verb}-dryrun{}", std::process::id());
            let usual = machine.kubernetes.join("tmp");
            let below = if nix::unistd::geteuid().is_root() { usual } else { std::env::temp_dir() };
            below.join(name)
        }
    };
    let mut paths = Paths::under(&root);
    paths.pki = root.join(machine.pki.strip_prefix(&machine.root).unwrap_or(&machine.pki));
    let make = |path: &Path| fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    make(&root).map_err(|source| FileError { verb: "make", path: root.clone(), source })?;
    for name in AUTHORITIES {
        let (from, to) = (machine.pki.join(name), paths.pki.join(name));
        let copied = match fs::read(&from) {
            Ok(bytes) => make(to.parent().unwrap_or(&root)).and_then(|()| private(&to, &bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        copied.map_err(|source| FileError { verb: "copy", path: from, source })?;
    }
    Ok(paths)
}

fn private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).open(path)?.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn i10_authorities_are_copied_and_the_machine_stays_as_it_is() {
        let root = tempfile::tempdir().unwrap();
        let machine = Paths::under(root.path());
        fs::create_dir_all(machine.pki.join("etcd")).unwrap();
        fs::write(machine.pki.join("etcd/ca.key"), "key").unwrap();
        fs::write(machine.pki.join("apiserver.key"), "leaf").unwrap();
        let elsewhere = scratch(&machine, "test").unwrap();
        let copied = elsewhere.pki.join("etcd/ca.key");
        assert_eq!(fs::read_to_string(&copied).unwrap(), "key");
        assert_eq!(fs::metadata(&copied).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!elsewhere.pki.join("apiserver.key").exists() && elsewhere.pki != machine.pki);
        fs::remove_dir_all(&elsewhere.root).unwrap();
    }
}
