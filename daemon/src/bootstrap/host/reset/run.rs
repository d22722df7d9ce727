//! Doing what was planned.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use weft_netlink::sysctl::Sysctl;

use super::{Left, MountHolder, Plan, ResetOptions, Step, holders, remove};
use crate::bootstrap::converge;
use crate::bootstrap::host::lines;
use crate::bootstrap::host::rewrite::rewrite;
use crate::bootstrap::host::tools::Tools;
use crate::bootstrap::journal::{FILE, Journal, JournalError, Stage};

/// The reset was not begun, or ended before a file was touched.
#[derive(Debug, thiserror::Error)]
pub enum ResetError {
    /// The journal could not be opened or written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A file system is in use.
    #[error("{} is mounted and in use by {}; nothing was removed, as that would destroy what is on it: end them, and run it again",
            .point.display(), names(.holders))]
    Busy {
        /// Where it is mounted.
        point: PathBuf,
        /// Who uses it.
        holders: Vec<MountHolder>,
    },
    /// A file system could not be taken away for another reason.
    #[error("cannot unmount {}: {errno}; nothing was removed, as that would destroy what is on it: unmount it by hand, and run it again",
            .point.display())]
    Unmount {
        /// Where it is mounted.
        point: PathBuf,
        /// The system's reason.
        errno: Errno,
    },
}

fn names(holders: &[MountHolder]) -> String {
    if holders.is_empty() {
        return "somebody who cannot be told (another mount on it, or a kernel service such as NFS)".to_owned();
    }
    holders.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What a reset has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done {
    /// What was done.
    pub changes: Vec<String>,
    /// What stays.
    pub left: Vec<Left>,
    /// What should have been done and could not be. Run again, it is tried again.
    pub warnings: Vec<String>,
}

/// Does it. Mounts come first, and one that cannot be taken away ends it; after that each failure is a warning, and the rest is
/// done all the same. The journal goes when all of it is undone.
///
/// # Errors
/// [`ResetError`].
pub fn run(plan: &Plan, options: &ResetOptions, tools: &dyn Tools) -> Result<Done, ResetError> {
    let mut done = Done { left: plan.left.clone(), ..Done::default() };
    let state = &options.paths.state;
    let mut journal = if state.join(FILE).exists() { Some(Journal::open(&options.paths)?) } else { None };
    for (step, entry) in &plan.steps {
        match (step, perform(step, options, tools, &mut done)) {
            (_, Ok(())) => {
                done.changes.push(step.to_string());
                if let (Some(journal), Some(id)) = (&mut journal, entry) {
                    journal.undone(*id)?;
                }
            }
            (_, Err(Failure::Final(error))) => return Err(error),
            (step, Err(Failure::Said(reason))) => done.warnings.push(format!("cannot {step}: {reason}")),
        }
    }
    let Some(mut journal) = journal else { return Ok(done) };
    for id in &plan.settled {
        journal.undone(*id)?;
    }
    if journal.entries().all(|entry| entry.stage == Stage::Undone) {
        journal.remove()?;
        // Whoever else keeps something there keeps the directory.
        let _ = fs::remove_dir(state);
    }
    Ok(done)
}

enum Failure {
    Final(ResetError),
    Said(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Said(error.to_string())
    }
}

fn perform(step: &Step, options: &ResetOptions, tools: &dyn Tools, done: &mut Done) -> Result<(), Failure> {
    match step {
        Step::Unmount(point) => unmount(point, options.unmount_flags).map_err(Failure::Final),
        Step::Empty(path) => {
            let kept = remove::empty(path).map_err(|errno| Failure::Said(errno.desc().to_owned()))?;
            done.left.extend(kept.into_iter().map(|(path, why)| Left { what: path.display().to_string(), why }));
            Ok(())
        }
        Step::Remove(path) => absent_is_well(fs::remove_file(path)),
        Step::RemoveDirectory(path) => match fs::remove_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                let why = "others keep something there".to_owned();
                done.left.push(Left { what: path.display().to_string(), why });
                Ok(())
            }
            other => absent_is_well(other),
        },
        Step::Restore { path, backup } => {
            let mode = fs::metadata(backup)?.permissions().mode() & 0o7777;
            converge::replace(path, &fs::read(backup)?, mode)?;
            absent_is_well(fs::remove_file(backup))
        }
        Step::Uncomment(path) => edit(path, lines::uncomment),
        Step::RemoveBlock { path, name } => edit(path, |text| lines::remove_block(text, name)),
        Step::Sysctl { key, value } => Sysctl::at(options.paths.root.join("proc/sys"))
            .write(key, value)
            .map_err(|error| Failure::Said(error.to_string())),
        Step::SwapOn { device, priority } => {
            let priority = priority.map(|priority| priority.to_string());
            let mut args = vec![device.as_str()];
            if let Some(priority) = &priority {
                args.extend(["-p", priority]);
            }
            call(tools, "swapon", &args)
        }
        Step::CloseFirewall { rule, zone } => {
            let flag = format!("--remove-{rule}");
            let zone = zone.as_ref().map(|zone| format!("--zone={zone}"));
            let with_zone = |words: &[&str]| -> Vec<String> {
                words.iter().map(|word| (*word).to_owned()).chain(zone.clone()).collect()
            };
            for words in [with_zone(&["--permanent", &flag]), with_zone(&[&flag])] {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                call(tools, "firewall-cmd", &words)?;
            }
            Ok(())
        }
        Step::Disable(unit) => call(tools, "systemctl", &["disable", unit]),
        Step::Stop(unit) => call(tools, "systemctl", &["stop", unit]),
        Step::Unmask(unit) => call(tools, "systemctl", &["unmask", unit]),
    }
}

/// One that is no mount point any more is done.
fn unmount(point: &Path, flags: MntFlags) -> Result<(), ResetError> {
    match umount2(point, flags | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(Errno::EBUSY) => Err(ResetError::Busy { point: point.to_owned(), holders: holders::of(point) }),
        Err(errno) => Err(ResetError::Unmount { point: point.to_owned(), errno }),
    }
}

fn absent_is_well(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn edit(path: &Path, edit: impl FnOnce(&str) -> Option<String>) -> Result<(), Failure> {
    let bytes = fs::read(path)?;
    let text = String::from_utf8(bytes).map_err(|_| Failure::Said("it is no text any more".to_owned()))?;
    let Some(new) = edit(&text) else { return Ok(()) };
    let mode = fs::metadata(path)?.permissions().mode() & 0o7777;
    Ok(rewrite(path, new.as_bytes(), mode)?)
}

fn call(tools: &dyn Tools, program: &str, args: &[&str]) -> Result<(), Failure> {
    let said = tools.call(program, args)?;
    if said.well { Ok(()) } else { Err(Failure::Said(said.why())) }
}
