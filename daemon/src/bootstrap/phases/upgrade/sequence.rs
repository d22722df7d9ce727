//! One static pod after the other gets its new manifest, and the next only when the last is well; if one does not get well, all
//! get their old ones back.

use std::fs;
use std::io;
use std::path::Path;

use super::error::UpgradeError;
use crate::bootstrap::converge::{self, FileError};
use crate::bootstrap::phases::error::PhaseError;
use crate::bootstrap::resolved::Paths;
use crate::bootstrap::static_pods::Part;

/// As static pods' manifests have it.
const MODE: u32 = 0o600;

/// A manifest that is to be another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Swap {
    /// Whose.
    pub(super) part: Part,
    /// Its text before the upgrade; `None` if there was none.
    pub(super) old: Option<String>,
    /// Its text after.
    pub(super) new: String,
}

/// Whoever runs what the manifests say.
pub(super) trait Kubelet {
    /// What it calls the content of the manifest that it runs; `None` if it runs none. That it cannot be seen is an error: the old
    /// content would be taken for the new one.
    async fn hash(&mut self, part: Part) -> Result<Option<String>, PhaseError>;

    /// Waits until it runs another content than the one it called so, and that is well.
    async fn await_new(&mut self, part: Part, before: Option<&str>) -> Result<(), PhaseError>;

    /// Waits until these are well.
    async fn await_well(&mut self, parts: &[Part]) -> Result<(), PhaseError>;

    /// Waits until these are well again with the manifests that were put back: how the ones in between ended tells nothing of them.
    async fn await_old(&mut self, parts: &[Part]) -> Result<(), PhaseError>;
}

/// Makes the swaps in their order. `prepare` is called before each.
///
/// # Errors
/// [`UpgradeError::RolledBack`] or [`UpgradeError::StillUnwell`]: all manifests are then as they were. The file system's refusal to
/// have it so.
pub(super) async fn run(
    swaps: &[Swap],
    paths: &Paths,
    backup: &Path,
    kubelet: &mut impl Kubelet,
    prepare: &mut dyn FnMut(Part) -> Result<(), PhaseError>,
    say: &dyn Fn(String),
) -> Result<(), PhaseError> {
    let mut made: Vec<&Swap> = Vec::new();
    for swap in swaps {
        made.push(swap);
        let Err(cause) = one(swap, paths, kubelet, prepare, say).await else { continue };
        let (part, cause) = (swap.part.name(), Box::new(cause));
        say(format!("{part} did not get well with its new manifest; putting the old ones back"));
        for swap in made.iter().rev() {
            put_back(swap, paths)?;
        }
        let parts: Vec<Part> = made.iter().filter(|swap| swap.old.is_some()).map(|swap| swap.part).collect();
        return Err(match kubelet.await_old(&parts).await {
            Ok(()) => UpgradeError::RolledBack { part, cause },
            Err(then) => {
                let folder = backup.display().to_string();
                UpgradeError::StillUnwell { part, cause, folder, then: Box::new(then) }
            }
        }
        .into());
    }
    Ok(())
}

async fn one(
    swap: &Swap,
    paths: &Paths,
    kubelet: &mut impl Kubelet,
    prepare: &mut dyn FnMut(Part) -> Result<(), PhaseError>,
    say: &dyn Fn(String),
) -> Result<(), PhaseError> {
    let part = swap.part;
    let before = kubelet.hash(part).await?;
    prepare(part)?;
    let path = paths.manifest(part);
    // A file with another mode and the same content is none that kubelet starts anything for.
    let is_new = fs::read(&path).ok().as_deref() != Some(swap.new.as_bytes());
    converge::put(&path, swap.new.as_bytes(), MODE)?;
    if is_new {
        say(format!("{} has its new manifest; waiting until kubelet runs it", part.name()));
        kubelet.await_new(part, before.as_deref()).await?;
    } else {
        // An earlier run was ended behind this point.
        kubelet.await_well(&[part]).await?;
    }
    say(format!("{} is well with its new manifest", part.name()));
    Ok(())
}

pub(super) fn put_back(swap: &Swap, paths: &Paths) -> Result<(), FileError> {
    let path = paths.manifest(swap.part);
    match &swap.old {
        Some(text) => converge::put(&path, text.as_bytes(), MODE).map(drop),
        None => match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FileError::of("remove", &path)(error)),
            _ => Ok(()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kubelet to whom each content is a name, and which does not run what says `bad`.
    struct Fake {
        paths: Paths,
        asked: Vec<String>,
        /// Whether the old ones do not run either.
        broken: bool,
    }

    impl Fake {
        fn text(&self, part: Part) -> Option<String> {
            fs::read_to_string(self.paths.manifest(part)).ok()
        }
    }

    impl Kubelet for Fake {
        async fn hash(&mut self, part: Part) -> Result<Option<String>, PhaseError> {
            Ok(self.text(part))
        }

        async fn await_new(&mut self, part: Part, before: Option<&str>) -> Result<(), PhaseError> {
            assert_ne!(self.text(part).as_deref(), before, "the file is there before it is waited for");
            self.asked.push(format!("new {}", part.name()));
            match self.text(part) {
                Some(text) if text.contains("bad") => Err(PhaseError::Usage(format!("{} ends at once", part.name()))),
                _ => Ok(()),
            }
        }

        async fn await_well(&mut self, parts: &[Part]) -> Result<(), PhaseError> {
            self.asked.push(format!("well {}", parts.iter().map(|part| part.name()).collect::<Vec<_>>().join(" ")));
            if self.broken { Err(PhaseError::Usage("nobody answers".into())) } else { Ok(()) }
        }

        async fn await_old(&mut self, parts: &[Part]) -> Result<(), PhaseError> {
            self.asked.push("old".to_owned());
            self.await_well(parts).await
        }
    }

    /// Old manifests, `bad` among the new ones; what came of it, who was asked, and the manifests then.
    async fn upgrade(bad: Option<Part>, broken: bool) -> (Result<(), PhaseError>, Vec<String>, Vec<Option<String>>) {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        fs::create_dir_all(paths.manifests()).unwrap();
        let swap = |part: Part| {
            let old = (part != Part::Scheduler).then(|| format!("old {}", part.name()));
            if let Some(text) = &old {
                fs::write(paths.manifest(part), text).unwrap();
            }
            let word = if bad == Some(part) { "bad" } else { "new" };
            Swap { part, old, new: format!("{word} {}", part.name()) }
        };
        let swaps = Part::ALL.map(swap);
        let mut kubelet = Fake { paths: paths.clone(), asked: Vec::new(), broken };
        let mut prepared = Vec::new();
        let mut prepare = |part| {
            prepared.push(part);
            Ok(())
        };
        let ended = run(&swaps, &paths, Path::new("/backup"), &mut kubelet, &mut prepare, &|_| ()).await;
        let upto = bad.map_or(Part::ALL.len(), |bad| Part::ALL.iter().position(|part| *part == bad).unwrap() + 1);
        assert_eq!(prepared, Part::ALL[..upto]);
        let texts = Part::ALL.map(|part| fs::read_to_string(paths.manifest(part)).ok());
        (ended, kubelet.asked, texts.into())
    }

    #[tokio::test]
    async fn each_gets_its_manifest_and_is_waited_for_in_order() {
        let (ended, asked, texts) = upgrade(None, false).await;
        ended.unwrap();
        assert_eq!(asked, Part::ALL.map(|part| format!("new {}", part.name())));
        assert_eq!(texts, Part::ALL.map(|part| Some(format!("new {}", part.name()))));
    }

    #[tokio::test]
    async fn u02_whichever_fails_all_get_their_old_ones_back() {
        for bad in Part::ALL {
            let (ended, asked, texts) = upgrade(Some(bad), false).await;
            let error = ended.unwrap_err().to_string();
            assert!(error.starts_with(bad.name()) && error.contains("ends at once"), "{error}");
            let old = |part: Part| (part != Part::Scheduler).then(|| format!("old {}", part.name()));
            assert_eq!(texts, Part::ALL.map(old), "{bad:?}");
            let [.., old, well] = asked.as_slice() else { panic!("{asked:?}") };
            assert!(old == "old" && well.starts_with("well etcd"), "{asked:?}");
        }
    }

    #[tokio::test]
    async fn u02_a_roll_back_that_does_not_suffice_is_told_apart() {
        let (ended, _, texts) = upgrade(Some(Part::ApiServer), true).await;
        let error = ended.unwrap_err().to_string();
        assert!(error.contains("/backup") && error.contains("nobody answers"), "{error}");
        assert_eq!(texts[1].as_deref(), Some("old kube-apiserver"));
    }

    #[tokio::test]
    async fn a_run_goes_on_where_another_was_ended() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        fs::create_dir_all(paths.manifests()).unwrap();
        fs::write(paths.manifest(Part::Etcd), "new").unwrap();
        let swaps = [Swap { part: Part::Etcd, old: Some("old".into()), new: "new".into() }];
        let mut kubelet = Fake { paths: paths.clone(), asked: Vec::new(), broken: true };
        let ended = run(&swaps, &paths, Path::new("/b"), &mut kubelet, &mut |_| Ok(()), &|_| ()).await;
        assert!(ended.is_err());
        assert_eq!(kubelet.asked, ["well etcd", "old", "well etcd"]);
        assert_eq!(fs::read_to_string(paths.manifest(Part::Etcd)).unwrap(), "old", "the one from before both");
    }
}
