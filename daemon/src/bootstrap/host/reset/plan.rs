//! What a reset does, from what was seen. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use super::seen::leftovers;
use super::{Found, ResetOptions, Seen};
use crate::bootstrap::journal::{Change, EntryId, Stage};

/// One thing that is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A file system is taken away.
    Unmount(PathBuf),
    /// A directory loses what it holds, but for what is mounted there.
    Empty(PathBuf),
    /// A file or a symbolic link goes.
    Remove(PathBuf),
    /// A directory goes if it is empty by then.
    RemoveDirectory(PathBuf),
    /// A file gets its old content again.
    Restore {
        /// The file.
        path: PathBuf,
        /// Where its old content is.
        backup: PathBuf,
    },
    /// Comments become lines again.
    Uncomment(PathBuf),
    /// A block of lines goes.
    RemoveBlock {
        /// The file.
        path: PathBuf,
        /// The block's name.
        name: String,
    },
    /// A kernel setting gets its old value.
    Sysctl {
        /// Its path below `/proc/sys`.
        key: String,
        /// Its old value.
        value: String,
    },
    /// Swap space is used again.
    SwapOn {
        /// Device or file.
        device: String,
        /// Its priority, if it had been given one.
        priority: Option<i32>,
    },
    /// firewalld closes what was opened.
    CloseFirewall {
        /// `port=6443/tcp`.
        rule: String,
        /// The zone; the default one if absent.
        zone: Option<String>,
    },
    /// A unit does not start with the machine any more.
    Disable(String),
    /// A unit is stopped.
    Stop(String),
    /// A unit may be started again.
    Unmask(String),
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unmount(path) => write!(out, "unmount {}", path.display()),
            Self::Empty(path) => write!(out, "empty {}", path.display()),
            Self::Remove(path) => write!(out, "remove {}", path.display()),
            Self::RemoveDirectory(path) => write!(out, "remove {} if it is empty", path.display()),
            Self::Restore { path, backup } => write!(out, "restore {} from {}", path.display(), backup.display()),
            Self::Uncomment(path) => write!(out, "turn the lines of {} on again that weft turned off", path.display()),
            Self::RemoveBlock { path, name } => write!(out, "remove weft's block {name} from {}", path.display()),
            Self::Sysctl { key, value } => write!(out, "set {} = {value}", key.replace('/', ".")),
            Self::SwapOn { device, .. } => write!(out, "swapon {device}"),
            Self::CloseFirewall { rule, .. } => write!(out, "have firewalld close {rule}"),
            Self::Disable(unit) => write!(out, "disable {unit}"),
            Self::Stop(unit) => write!(out, "stop {unit}"),
            Self::Unmask(unit) => write!(out, "unmask {unit}"),
        }
    }
}

/// Something that stays, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// What.
    pub what: String,
    /// Why.
    pub why: String,
}

impl fmt::Display for Left {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.what, self.why)
    }
}

/// What a reset does, in its order, and what it leaves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// What is done, each with the journal's entry that it undoes.
    pub steps: Vec<(Step, Option<EntryId>)>,
    /// Entries that there is nothing to do about.
    pub settled: Vec<EntryId>,
    /// What stays.
    pub left: Vec<Left>,
}

impl Plan {
    /// Whether nothing is to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.settled.is_empty()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (step, _) in &self.steps {
            writeln!(out, "{step}")?;
        }
        for left in &self.left {
            writeln!(out, "left: {left}")?;
        }
        Ok(())
    }
}

impl ResetOptions {
    /// Directories that are emptied and stay, as kubeadm has it (`cmd/phases/reset/cleanupnode.go`).
    pub(super) fn emptied(&self) -> Vec<PathBuf> {
        let paths = &self.paths;
        let mut emptied = vec![paths.manifests(), paths.kubelet.clone(), paths.pki.clone()];
        emptied.extend(self.etcd_data.clone());
        emptied.extend(self.cleanup_tmp_dir.then(|| paths.kubernetes.join("tmp")));
        emptied
    }

    /// Files that are removed, as kubeadm has it.
    pub(super) fn removed(&self) -> Vec<PathBuf> {
        let names = ["admin", "super-admin", "kubelet", "bootstrap-kubelet", "controller-manager", "scheduler"];
        names.map(|name| self.paths.kubernetes.join(format!("{name}.conf"))).into()
    }
}

/// Decides what is done.
#[must_use]
pub fn plan(options: &ResetOptions, seen: &Seen) -> Plan {
    let mut plan = Plan::default();
    plan.steps.extend(seen.mounts.iter().map(|point| (Step::Unmount(point.clone()), None)));
    let mut gone = BTreeSet::new();
    for path in options.emptied() {
        let real = seen.real.get(&path).unwrap_or(&path);
        match seen.paths.get(real) {
            Some(Found::Directory(0)) | None => {}
            Some(Found::Directory(_)) => plan.steps.push((Step::Empty(real.clone()), None)),
            Some(_) => plan.left.push(left(real, "it is no directory")),
        }
        gone.insert(path);
    }
    for path in options.removed() {
        if matches!(seen.paths.get(&path), Some(Found::File(_) | Found::Link(_))) {
            plan.steps.push((Step::Remove(path.clone()), None));
            gone.insert(path);
        }
    }
    undo(&mut plan, seen, &gone);
    for path in leftovers(&options.paths.root) {
        let why = match path.file_name().and_then(|name| name.to_str()) {
            Some("config") => "your own kubeconfig; remove it if it is this cluster's",
            Some("net.d") => "configurations of other network plugins (weft's own goes with weft cleanup)",
            Some("etcd") => "nothing tells that it is this cluster's; empty it by hand if it is",
            _ => "images and containers are the runtime's",
        };
        let empty = matches!(seen.paths.get(&path), None | Some(Found::Directory(0)));
        if !empty && !gone.contains(&path) {
            plan.left.push(left(&path, why));
        }
    }
    plan
}

fn left(path: &Path, why: &str) -> Left {
    Left { what: path.display().to_string(), why: why.to_owned() }
}

/// Undoes the journal, newest first. `content` is what each file will hold by then.
fn undo(plan: &mut Plan, seen: &Seen, gone: &BTreeSet<PathBuf>) {
    let mut content: BTreeMap<PathBuf, Option<Found>> = BTreeMap::new();
    for entry in seen.entries.iter().rev() {
        let id = entry.id;
        let at = |path: &Path| content.get(path).cloned().unwrap_or_else(|| seen.paths.get(path).cloned());
        // What is emptied or removed anyway needs no step of its own.
        let covered = |path: &Path| gone.iter().any(|gone| path.starts_with(gone));
        let step = match &entry.change {
            Change::FileMade { path, .. } | Change::FileChanged { path, .. } | Change::LinkMade { path, .. }
                if covered(path) =>
            {
                None
            }
            Change::FileMade { path, sha256 } => match (at(path), sha256) {
                (Some(Found::File(found)), Some(made)) if found != *made => {
                    plan.left.push(left(path, "weft made it, and somebody has changed it since"));
                    None
                }
                (Some(Found::File(_)), _) => {
                    content.insert(path.clone(), None);
                    Some(Step::Remove(path.clone()))
                }
                _ => None,
            },
            Change::FileChanged { path, backup, sha256 } => match (at(path), at(backup)) {
                (_, None) => {
                    // Without a backup the change was not begun.
                    if entry.stage == Stage::Done {
                        plan.left.push(left(path, &format!("its old content, {}, is gone", backup.display())));
                    }
                    None
                }
                (Some(Found::File(found)), Some(old)) if found == *sha256 => {
                    content.insert(path.clone(), Some(old));
                    content.insert(backup.clone(), None);
                    Some(Step::Restore { path: path.clone(), backup: backup.clone() })
                }
                // Killed between saving and writing.
                (Some(found), Some(old)) if found == old => Some(Step::Remove(backup.clone())),
                _ => {
                    let why =
                        format!("somebody has changed it since; its content before weft is in {}", backup.display());
                    plan.left.push(left(path, &why));
                    None
                }
            },
            Change::DirectoryMade { path } => {
                matches!(at(path), Some(Found::Directory(_))).then(|| Step::RemoveDirectory(path.clone()))
            }
            Change::LinkMade { path, target } => match at(path) {
                Some(Found::Link(found)) if found == *target => Some(Step::Remove(path.clone())),
                Some(_) => {
                    plan.left.push(left(path, "weft made a link there, and it leads elsewhere now"));
                    None
                }
                None => None,
            },
            Change::LinesCommented { path } => at(path).map(|_| Step::Uncomment(path.clone())),
            Change::BlockAdded { path, name } => {
                at(path).map(|_| Step::RemoveBlock { path: path.clone(), name: name.clone() })
            }
            Change::Sysctl { key, before, value } => match seen.sysctls.get(key) {
                Some(now) if now == value => Some(Step::Sysctl { key: key.clone(), value: before.clone() }),
                Some(now) if now != before => {
                    let what = format!("sysctl {}", key.replace('/', "."));
                    plan.left.push(Left { what, why: format!("somebody has set it to {now} since") });
                    None
                }
                _ => None,
            },
            Change::SwapOff { device, priority } => {
                (!seen.swaps.contains(device)).then(|| Step::SwapOn { device: device.clone(), priority: *priority })
            }
            Change::FirewallOpened { rule, zone } => {
                Some(Step::CloseFirewall { rule: rule.clone(), zone: zone.clone() })
            }
            Change::ServiceEnabled { unit } => Some(Step::Disable(unit.clone())),
            Change::ServiceStarted { unit } => Some(Step::Stop(unit.clone())),
            Change::UnitMasked { unit } => Some(Step::Unmask(unit.clone())),
            // Whoever else has come to use a module cannot be told; phases have nothing of their own.
            Change::ModuleLoaded { .. } | Change::Phase { .. } => None,
            Change::Unknown => {
                let what = "an entry of the journal".to_owned();
                plan.left.push(Left { what, why: "a newer weft has written it, and only that can undo it".into() });
                None
            }
        };
        match step {
            Some(step) => plan.steps.push((step, Some(id))),
            None => plan.settled.push(id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::journal::{Entry, Journal};
    use crate::bootstrap::resolved::Paths;

    /// Entries with those changes, as a journal has them.
    fn entries(changes: Vec<Change>) -> Vec<Entry> {
        let root = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(&Paths::under(root.path())).unwrap();
        for change in changes {
            let id = journal.begin(change).unwrap();
            journal.done(id).unwrap();
        }
        journal.entries().cloned().collect()
    }

    fn options() -> ResetOptions {
        let etcd_data = Some("/var/lib/etcd".into());
        let unmount_flags = nix::mount::MntFlags::empty();
        ResetOptions { paths: Paths::under("/"), etcd_data, cleanup_tmp_dir: false, unmount_flags }
    }

    fn planned(seen: &Seen) -> String {
        plan(&options(), seen).to_string()
    }

    #[test]
    fn r01_where_nothing_was_there_is_nothing_to_do() {
        let plan = plan(&options(), &Seen::default());
        assert!(plan.is_empty() && plan.left.is_empty(), "{plan}");
    }

    #[test]
    fn p0_20_what_was_changed_is_undone_newest_first() {
        let file = |text: &str| Found::File(text.to_owned());
        let path = PathBuf::from("/etc/containerd/config.toml");
        let backup = |number: &str| PathBuf::from(format!("/etc/containerd/config.toml.weft-saved{number}"));
        let changed = |backup: &PathBuf, sha256: &str| Change::FileChanged {
            path: path.clone(),
            backup: backup.clone(),
            sha256: sha256.into(),
        };
        let seen = Seen {
            paths: BTreeMap::from([
                (path.clone(), file("two")),
                (backup(""), file("zero")),
                (backup(".1"), file("one")),
                ("/etc/sysctl.d/90-weft.conf".into(), file("x")),
                ("/etc/edited".into(), file("theirs")),
                ("/etc/fstab".into(), file("f")),
                ("/etc/new".into(), Found::Directory(1)),
            ]),
            sysctls: [("net/ipv4/ip_forward".to_owned(), "1".to_owned()), ("a".to_owned(), "7".to_owned())].into(),
            entries: entries(vec![
                Change::LinesCommented { path: "/etc/fstab".into() },
                Change::SwapOff { device: "/swap".into(), priority: None },
                Change::DirectoryMade { path: "/etc/new".into() },
                Change::FileMade { path: "/etc/sysctl.d/90-weft.conf".into(), sha256: Some("x".into()) },
                Change::FileMade { path: "/etc/edited".into(), sha256: Some("ours".into()) },
                Change::Sysctl { key: "net/ipv4/ip_forward".into(), before: "0".into(), value: "1".into() },
                Change::Sysctl { key: "a".into(), before: "0".into(), value: "1".into() },
                changed(&backup(""), "one"),
                changed(&backup(".1"), "two"),
                Change::ModuleLoaded { name: "ip_vs".into() },
            ]),
            ..Seen::default()
        };
        assert_eq!(
            planned(&seen),
            "restore /etc/containerd/config.toml from /etc/containerd/config.toml.weft-saved.1\n\
             restore /etc/containerd/config.toml from /etc/containerd/config.toml.weft-saved\n\
             set net.ipv4.ip_forward = 0\n\
             remove /etc/sysctl.d/90-weft.conf\n\
             remove /etc/new if it is empty\n\
             swapon /swap\n\
             turn the lines of /etc/fstab on again that weft turned off\n\
             left: sysctl a: somebody has set it to 7 since\n\
             left: /etc/edited: weft made it, and somebody has changed it since\n"
        );
    }

    #[test]
    fn p0_21_what_kubeadm_empties_is_emptied_and_what_is_not_ours_is_listed() {
        let seen = Seen {
            paths: BTreeMap::from([
                ("/etc/kubernetes/manifests".into(), Found::Directory(4)),
                ("/etc/kubernetes/manifests/etcd.yaml".into(), Found::File("x".into())),
                ("/etc/kubernetes/pki".into(), Found::Directory(0)),
                ("/var/lib/kubelet".into(), Found::Link("/data/kubelet".into())),
                ("/data/kubelet".into(), Found::Directory(3)),
                ("/etc/kubernetes/admin.conf".into(), Found::File("y".into())),
                ("/root/.kube/config".into(), Found::File("z".into())),
                ("/etc/cni/net.d".into(), Found::Directory(1)),
            ]),
            real: BTreeMap::from([("/var/lib/kubelet".into(), "/data/kubelet".into())]),
            mounts: vec!["/data/kubelet/pods/x".into()],
            entries: entries(vec![Change::FileMade {
                path: "/etc/kubernetes/manifests/etcd.yaml".into(),
                sha256: Some("x".into()),
            }]),
            ..Seen::default()
        };
        let text = planned(&seen);
        assert!(
            text.starts_with(
                "unmount /data/kubelet/pods/x\nempty /etc/kubernetes/manifests\nempty /data/kubelet\nremove /etc/kubernetes/admin.conf\nleft: "
            ),
            "{text}"
        );
        assert!(
            text.contains("left: /root/.kube/config: your own") && text.contains("left: /etc/cni/net.d: "),
            "{text}"
        );
    }

    #[test]
    fn killed_between_saving_and_writing_only_the_copy_goes() {
        let change = Change::FileChanged { path: "/a".into(), backup: "/a.weft-saved".into(), sha256: "new".into() };
        let file = |text: &str| Found::File(text.to_owned());
        let mut seen = Seen {
            paths: BTreeMap::from([("/a".into(), file("old")), ("/a.weft-saved".into(), file("old"))]),
            entries: entries(vec![change]),
            ..Seen::default()
        };
        assert_eq!(planned(&seen), "remove /a.weft-saved\n");
        seen.paths.insert("/a".into(), file("somebody's"));
        assert!(planned(&seen).contains("left: /a: somebody has changed it since"));
        seen.paths.clear();
        seen.entries[0].stage = Stage::Begun;
        assert_eq!(planned(&seen), "");
    }
}
