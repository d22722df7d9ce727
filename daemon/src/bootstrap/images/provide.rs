//! Every image that a node needs, from where it may come: what is there, archives, programs, and last the registry.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::bundle::Bundle;
use super::containerd::{Containerd, Imported};
use super::error::ImageError;
use super::layout::load;
use super::names::Wanted;
use super::pack::{Own, pack};
use super::pull::{Pulls, pull};
use crate::bootstrap::cri::Cri;

/// How long CRI may take to list what containerd has.
const SEEN_LIMIT: Duration = Duration::from_secs(10);
const SEEN_POLL: Duration = Duration::from_millis(50);

/// What goes on with images, for whoever shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It is there.
    Present(String),
    /// A source is read and verified.
    Reading(PathBuf),
    /// So many bytes of so many are in containerd.
    Wrote {
        /// Bytes that are there.
        done: u64,
        /// Bytes of the whole bundle.
        total: u64,
    },
    /// It has been brought in.
    Imported(Imported),
    /// The runtime fetches it.
    Pulling {
        /// Its name.
        name: String,
        /// The how manieth attempt, from 1.
        attempt: u32,
    },
    /// The runtime could not; there will be another attempt.
    Waiting {
        /// Its name.
        name: String,
        /// In how long.
        wait: Duration,
        /// The runtime's words.
        cause: String,
    },
    /// It has been fetched.
    Pulled {
        /// Its name.
        name: String,
        /// Its size in bytes, compressed.
        size: u64,
        /// How long it took.
        took: Duration,
    },
}

/// Where images may come from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Archives (`--images`).
    pub archives: Vec<PathBuf>,
    /// A folder with the programs of a control plane (`--kubernetes-bin`).
    pub programs: Option<PathBuf>,
    /// weft's own two programs, of which weft's image and the pause image are made.
    pub own: Option<Own>,
    /// How to pull what is missing then; `None`: not at all.
    pub pull: Option<Pulls>,
    /// Whether to pull also what is there (kubeadm's `imagePullPolicy: Always`).
    pub always: bool,
    /// For what has to be unpacked first, e.g. `/var/lib/weft`.
    pub scratch: PathBuf,
}

/// How it has come out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Provided {
    /// Names of the images that were there.
    pub present: Vec<String>,
    /// Those that were brought in; they may be there already, too.
    pub imported: Vec<Imported>,
    /// Names of those that were pulled.
    pub pulled: Vec<String>,
}

/// Sees to it that the runtime has these images. A second call finds them and changes nothing. Pulls only what is neither there
/// nor in a source, and only if that is allowed.
///
/// # Errors
/// The first image that cannot be had; [`ImageError::Missing`] when the network would be needed.
pub async fn provide(
    cri: &Cri,
    wanted: &[Wanted],
    sources: &Sources,
    tell: &(dyn Fn(&Event) + Sync),
) -> Result<Provided, ImageError> {
    let mut provided = Provided::default();
    for archive in &sources.archives {
        tell(&Event::Reading(archive.clone()));
        let (archive, scratch) = (archive.clone(), sources.scratch.clone());
        let bundle = blocking(move || load(&archive, &scratch)).await?;
        provided.imported.extend(bring_in(cri, &bundle, tell).await?);
    }
    // What an archive has brought is not made again.
    let mut rest = without(wanted, &provided.imported);
    if sources.pull.is_none() {
        // Told before time is spent on the others.
        nobody_has(cri, &rest, sources).await?;
    }
    if sources.programs.is_some() || sources.own.is_some() {
        sources.programs.iter().for_each(|folder| tell(&Event::Reading(folder.clone())));
        let (programs, own) = (sources.programs.clone(), sources.own.clone());
        // weft's own image is made only where it is missing: an image of its release knows more of itself.
        let mut makeable = Vec::new();
        for image in &rest {
            if image.what.program().is_some() || cri.find_image(&image.name).await?.is_none() {
                makeable.push(image.clone());
            }
        }
        let bundle = blocking(move || pack(&makeable, programs.as_deref(), own.as_ref())).await?;
        provided.imported.extend(bring_in(cri, &bundle, tell).await?);
        rest = without(&rest, &provided.imported);
    }
    let mut missing = Vec::new();
    for Wanted { name, .. } in &rest {
        if !sources.always && cri.find_image(name).await?.is_some() {
            tell(&Event::Present(name.clone()));
            provided.present.push(name.clone());
        } else {
            missing.push(name.clone());
        }
    }
    match &sources.pull {
        _ if missing.is_empty() => {}
        None => return Err(ImageError::Missing(missing)),
        Some(how) => pull(cri, &missing, how, tell).await?,
    }
    provided.pulled = missing;
    Ok(provided)
}

/// Refuses if an image is neither there nor can be made of a program.
async fn nobody_has(cri: &Cri, wanted: &[Wanted], sources: &Sources) -> Result<(), ImageError> {
    let mut missing = Vec::new();
    for image in wanted {
        let makeable = match image.what.program() {
            Some(program) => sources.programs.as_ref().is_some_and(|folder| folder.join(program).is_file()),
            None => sources.own.is_some(),
        };
        if !makeable && (sources.always || cri.find_image(&image.name).await?.is_none()) {
            missing.push(image.name.clone());
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(ImageError::Missing(missing)) }
}

/// The images that have not been brought in.
fn without(wanted: &[Wanted], imported: &[Imported]) -> Vec<Wanted> {
    let is_there = |image: &&Wanted| !imported.iter().any(|there| there.name == image.name);
    wanted.iter().filter(is_there).cloned().collect()
}

/// Imports a bundle and waits until CRI lists its images.
pub(super) async fn bring_in(
    cri: &Cri,
    bundle: &Bundle,
    tell: &(dyn Fn(&Event) + Sync),
) -> Result<Vec<Imported>, ImageError> {
    if bundle.images.is_empty() {
        return Ok(Vec::new());
    }
    let (total, done) = (bundle.size(), std::sync::atomic::AtomicU64::new(0));
    let wrote = |size: u64| {
        let done = done.fetch_add(size, std::sync::atomic::Ordering::Relaxed) + size;
        tell(&Event::Wrote { done, total });
    };
    let imported = Containerd::of(cri).import(bundle, &wrote).await?;
    for image in &imported {
        await_seen(cri, &image.name).await?;
        tell(&Event::Imported(image.clone()));
    }
    Ok(imported)
}

/// CRI hears of new images by an event.
pub(super) async fn await_seen(cri: &Cri, name: &str) -> Result<(), ImageError> {
    let end = Instant::now() + SEEN_LIMIT;
    while cri.find_image(name).await?.is_none() {
        if Instant::now() > end {
            return Err(ImageError::Unseen { name: name.to_owned(), seconds: SEEN_LIMIT.as_secs() });
        }
        tokio::time::sleep(SEEN_POLL).await;
    }
    Ok(())
}

/// Reads files where that holds nobody up.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(ImageError::read("the images")(std::io::Error::other(error))),
    }
}

/// Loads one archive into the runtime, whatever images are in it.
///
/// # Errors
/// As [`load`]; or the runtime refuses.
pub async fn load_into(
    cri: &Cri,
    archive: &Path,
    scratch: &Path,
    tell: &(dyn Fn(&Event) + Sync),
) -> Result<Vec<Imported>, ImageError> {
    tell(&Event::Reading(archive.to_owned()));
    let (archive, scratch) = (archive.to_owned(), scratch.to_owned());
    let bundle = blocking(move || load(&archive, &scratch)).await?;
    bring_in(cri, &bundle, tell).await
}
