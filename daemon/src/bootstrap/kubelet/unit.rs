//! kubelet's systemd unit and its drop-in, where no package has brought them.
//!
//! What is there is never changed. A drop-in without a command line of kubeadm's (kubernetes/website#17924) gets one of
//! weft's behind it; one with another command line is somebody's own and is reported.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::bootstrap::converge::{self, FileError};

/// Where units lie, ours first.
const UNITS: [&str; 4] = ["etc/systemd/system", "run/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"];

const UNIT: &str = "kubelet.service";
const DROP_INS: &str = "kubelet.service.d";
/// Read after kubeadm's `10-kubeadm.conf`, so that it has the last word.
const OURS: &str = "20-weft.conf";
const FILE_MODE: u32 = 0o644;

/// What a drop-in's command line has to hold for kubelet to find what init and join write.
const NEEDED: [&str; 3] = ["/etc/kubernetes/kubelet.conf", "/var/lib/kubelet/config.yaml", "kubeadm-flags.env"];

/// What there is of the unit now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// The unit, and whether weft has made it just now.
    pub unit: (PathBuf, bool),
    /// The drop-in that starts kubelet as kubeadm wants it, and whether weft has made it just now.
    pub drop_in: (PathBuf, bool),
    /// What the user should know.
    pub notices: Vec<String>,
}

impl Installed {
    /// Whether systemd has to read its units again.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.unit.1 || self.drop_in.1
    }
}

/// kubelet's unit cannot be put in place.
#[derive(Debug, thiserror::Error)]
pub enum UnitError {
    /// The file system refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// Somebody starts kubelet in another way.
    #[error("{} starts kubelet without {}; kubelet would not read what weft writes: take its ExecStart= out, or add the missing", .path.display(), .lacks.join(", "))]
    Foreign {
        /// The drop-in or the unit.
        path: PathBuf,
        /// What its command line does not name.
        lacks: Vec<&'static str>,
    },
}

/// Puts unit and drop-in where none are. `kubelet` is the program's path on the host.
///
/// # Errors
/// [`UnitError`].
pub fn install(root: &Path, kubelet: &Path) -> Result<Installed, UnitError> {
    let found = UNITS.iter().map(|folder| root.join(folder).join(UNIT)).find(|path| path.is_file());
    let own = root.join(UNITS[0]);
    let mut notices = Vec::new();
    let drop_ins = read_drop_ins(root)?;
    let drop_in = match judge(&drop_ins) {
        Verdict::Good(path) => (path.to_owned(), false),
        Verdict::Foreign(path, lacks) => return Err(UnitError::Foreign { path: path.to_owned(), lacks }),
        Verdict::Missing => {
            let path = own.join(DROP_INS).join(OURS);
            for (other, _) in &drop_ins {
                notices.push(format!(
                    "{} sets no command line for kubelet; {} does it instead",
                    other.display(),
                    path.display()
                ));
            }
            converge::put(&path, drop_in_text(kubelet).as_bytes(), FILE_MODE)?;
            (path, true)
        }
    };
    // Last: systemd must not find the unit without its command line.
    let unit = match found {
        Some(path) => (path, false),
        None => {
            let path = own.join(UNIT);
            converge::put(&path, unit_text(kubelet).as_bytes(), FILE_MODE)?;
            (path, true)
        }
    };
    Ok(Installed { unit, drop_in, notices })
}

/// The drop-ins with their text in the order in which systemd reads them: by name, whatever folder they are in; of two with
/// the same name the one in the first folder counts.
fn read_drop_ins(root: &Path) -> Result<Vec<(PathBuf, String)>, FileError> {
    let mut found: std::collections::BTreeMap<_, (PathBuf, String)> = std::collections::BTreeMap::new();
    for folder in UNITS.iter().map(|folder| root.join(folder).join(DROP_INS)) {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(FileError::of("read", &folder)(error)),
        };
        for entry in entries {
            let path = entry.map_err(FileError::of("read", &folder))?.path();
            let (Some(name), true) = (path.file_name(), path.extension().is_some_and(|end| end == "conf")) else {
                continue;
            };
            if !found.contains_key(name) {
                let text = fs::read_to_string(&path).map_err(FileError::of("read", &path))?;
                found.insert(name.to_owned(), (path.clone(), text));
            }
        }
    }
    Ok(found.into_values().collect())
}

enum Verdict<'a> {
    Good(&'a Path),
    Foreign(&'a Path, Vec<&'static str>),
    Missing,
}

/// The last command line counts; its variables may come from any of the files.
fn judge(drop_ins: &[(PathBuf, String)]) -> Verdict<'_> {
    let starts = |text: &str| {
        text.lines().any(|line| line.trim().strip_prefix("ExecStart=").is_some_and(|rest| !rest.trim().is_empty()))
    };
    let Some((path, _)) = drop_ins.iter().rfind(|(_, text)| starts(text)) else { return Verdict::Missing };
    let uncommented = |text: &str| {
        text.lines().filter(|line| !line.trim_start().starts_with(['#', ';'])).collect::<Vec<_>>().join("\n")
    };
    let all: String = drop_ins.iter().map(|(_, text)| uncommented(text)).collect();
    let lacks: Vec<_> = NEEDED.into_iter().filter(|needed| !all.contains(needed)).collect();
    if lacks.is_empty() { Verdict::Good(path) } else { Verdict::Foreign(path, lacks) }
}

fn unit_text(kubelet: &Path) -> String {
    let kubelet = kubelet.display();
    format!(
        "# Written by weft.\n\
         [Unit]\nDescription=kubelet: runs the pods of this node\nDocumentation=https://kubernetes.io/docs/\n\
         Wants=network-online.target\nAfter=network-online.target containerd.service crio.service\n\
         # Nothing to do before weft init or weft join has written it.\n\
         ConditionPathExists=/var/lib/kubelet/config.yaml\n\
         StartLimitIntervalSec=0\n\n\
         [Service]\nExecStart={kubelet}\nRestart=always\nRestartSec=5\n\n\
         [Install]\nWantedBy=multi-user.target\n"
    )
}

fn drop_in_text(kubelet: &Path) -> String {
    let kubelet = kubelet.display();
    format!(
        "# Written by weft: the command line that kubeadm's package gives kubelet.\n\
         [Service]\n\
         Environment=\"KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf\"\n\
         Environment=\"KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml\"\n\
         EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env\n\
         # KUBELET_EXTRA_ARGS, on Debian's family and on Red Hat's.\n\
         EnvironmentFile=-/etc/default/kubelet\n\
         EnvironmentFile=-/etc/sysconfig/kubelet\n\
         ExecStart=\n\
         ExecStart={kubelet} $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(root: &Path, path: &str, text: &str) -> PathBuf {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn where_none_is_both_are_made_once() {
        let root = tempfile::tempdir().unwrap();
        let first = install(root.path(), Path::new("/usr/bin/kubelet")).unwrap();
        assert!(first.unit.1 && first.drop_in.1 && first.notices.is_empty());
        let second = install(root.path(), Path::new("/usr/bin/kubelet")).unwrap();
        assert_eq!((second.unit, second.drop_in), ((first.unit.0.clone(), false), (first.drop_in.0.clone(), false)));
        assert!(
            !Installed { unit: (first.unit.0.clone(), false), ..install(root.path(), Path::new("/x")).unwrap() }
                .is_new()
        );
        let text = fs::read_to_string(first.drop_in.0).unwrap();
        assert!(text.contains("\nExecStart=\nExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS"), "{text}");
    }

    #[test]
    fn a_package_s_are_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let unit =
            file(root.path(), "usr/lib/systemd/system/kubelet.service", "[Service]\nExecStart=/usr/bin/kubelet\n");
        let good = drop_in_text(Path::new("/opt/kubelet"));
        let drop_in = file(root.path(), "usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf", &good);
        let installed = install(root.path(), Path::new("/usr/bin/kubelet")).unwrap();
        assert_eq!(installed, Installed { unit: (unit, false), drop_in: (drop_in, false), notices: vec![] });
        assert!(!root.path().join("etc").exists());
    }

    #[test]
    fn an_empty_drop_in_gets_one_behind_it_and_is_told() {
        let root = tempfile::tempdir().unwrap();
        let empty = file(root.path(), "etc/systemd/system/kubelet.service.d/10-kubeadm.conf", "");
        let installed = install(root.path(), Path::new("/usr/bin/kubelet")).unwrap();
        assert!(installed.drop_in.1 && installed.drop_in.0.ends_with(OURS));
        assert!(installed.notices[0].contains(&empty.display().to_string()), "{:?}", installed.notices);
        assert_eq!(fs::read_to_string(empty).unwrap(), "");
    }

    #[test]
    fn a_foreign_command_line_is_refused_with_what_it_lacks() {
        let root = tempfile::tempdir().unwrap();
        let text = "[Service]\n# kubeadm-flags.env\nExecStart=\nExecStart=/usr/bin/kubelet --config=/var/lib/kubelet/config.yaml\n";
        file(root.path(), "etc/systemd/system/kubelet.service.d/99-mine.conf", text);
        let error = install(root.path(), Path::new("/usr/bin/kubelet")).unwrap_err().to_string();
        assert!(error.contains("99-mine.conf") && error.contains("kubelet.conf, kubeadm-flags.env"), "{error}");
        assert!(!root.path().join("etc/systemd/system/kubelet.service").exists());
    }
}
