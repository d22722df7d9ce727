//! A machine whose /etc, /run, /var/lib and /var/log are a test's own: whoever is started on it can change nothing of the real ones.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use weft_tests::scratch::Scratch;
use weft_tests::tool::{self, Output, Stdin};

/// What programs want to find in /etc.
const ETC: [&str; 5] = ["hosts", "group", "nsswitch.conf", "passwd", "resolv.conf"];

/// Arguments: the folder of the machine, then the command. Nothing is started unless all is in place.
const ENTER: &str =
    "for below in etc run var/lib var/log proc/swaps; do mount --bind \"$0/$below\" \"/$below\"; done; exec \"$@\"";

/// What /proc/swaps holds where there is no swap.
pub(crate) const NO_SWAP: &str = "Filename Type Size Used Priority\n";

/// A machine, or the end of the test, which says why there can be none here. Its argument is that of [`OwnRoot::new`].
macro_rules! own_root {
    ($own_network:literal) => {
        match $crate::own_root::OwnRoot::new($own_network) {
            Ok(root) => root,
            Err(reason) => weft_tests::skip!("{reason}"),
        }
    };
}

/// Path below the root, mode, and bytes (none of a directory).
pub(crate) type Files = BTreeMap<String, (u32, Vec<u8>)>;

/// The machine, with a network namespace of its own or the test's.
pub(crate) struct OwnRoot {
    folder: Scratch,
    own_network: bool,
}

impl OwnRoot {
    /// A machine without swap on which nobody has done anything yet.
    ///
    /// # Errors
    /// Why there can be none here.
    pub(crate) fn new(own_network: bool) -> Result<Self, &'static str> {
        if !nix::unistd::geteuid().is_root() {
            return Err("needs root, to give a process an /etc of its own");
        }
        let folder = Scratch::new();
        for below in ["etc/ssl/certs", "run", "var/lib", "var/log", "proc"] {
            fs::create_dir_all(folder.join(below)).unwrap();
        }
        fs::write(folder.join("proc/swaps"), NO_SWAP).unwrap();
        for name in ETC {
            // What the real machine does not have, nobody misses.
            let _ = fs::copy(Path::new("/etc").join(name), folder.join("etc").join(name));
        }
        // Others than root go through it, too.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Ok(Self { folder, own_network })
    }

    /// Where a path of the machine is for the test.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.folder.join(path.trim_start_matches('/'))
    }

    /// A command line on the machine.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = tool::command("unshare");
        command.arg("--mount");
        if self.own_network {
            command.arg("--net");
        }
        command.args(["sh", "-ec", ENTER]).arg(self.folder.path()).args(words);
        command
    }

    /// Runs weft on the machine, without a word on its stdin.
    pub(crate) fn weft(&self, words: &[&str]) -> Output {
        let mut command = self.command(&[env!("CARGO_BIN_EXE_weft")]);
        tool::run_with(command.args(words), Stdin::Bytes(b"")).unwrap()
    }

    /// All files and directories below a folder of the machine.
    pub(crate) fn files(&self, below: &str) -> Files {
        let mut files = Files::new();
        collect(self.folder.path(), &self.at(below), &mut files);
        files
    }
}

fn collect(root: &Path, path: &Path, into: &mut Files) {
    let Ok(metadata) = fs::symlink_metadata(path) else { return };
    let name = path.strip_prefix(root).unwrap().display().to_string();
    let mode = metadata.permissions().mode() & 0o7777;
    if metadata.is_dir() {
        into.insert(name, (mode, Vec::new()));
        fs::read_dir(path).unwrap().for_each(|entry| collect(root, &entry.unwrap().path(), into));
    } else {
        // A socket has no bytes.
        into.insert(name, (mode, fs::read(path).unwrap_or_default()));
    }
}
