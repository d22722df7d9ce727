//! The image of the sandbox is the runtime's own setting, which no cluster configuration reaches: where it names an image that is
//! not here, the pause image that is here gets that name, too.

use super::bundle::Entry;
use super::containerd::{Change, Containerd};
use super::error::ImageError;
use super::provide::await_seen;
use crate::bootstrap::cri::{Cri, Health};

/// Gives `pause` (its whole name; it has to be here) the name that the runtime looks for, if that is missing. `None` when the
/// runtime does not tell what it looks for; [`Cri::rehearse`] shows whether it finds it.
///
/// # Errors
/// [`ImageError::Missing`] without a pause image; or containerd refuses.
pub async fn name_sandbox_image(cri: &Cri, health: &Health, pause: &str) -> Result<Option<Change>, ImageError> {
    let Some(wanted) = &health.sandbox_image else { return Ok(None) };
    if cri.find_image(wanted).await?.is_some() {
        return Ok(Some(Change::Kept));
    }
    let containerd = Containerd::of(cri);
    let (media_type, digest, size) =
        containerd.target(pause).await?.ok_or_else(|| ImageError::Missing(vec![pause.to_owned()]))?;
    let digest = digest
        .parse()
        .map_err(|error: anyhow::Error| ImageError::Corrupt { digest: pause.to_owned(), found: error.to_string() })?;
    let change = containerd.point(&Entry { name: wanted.clone(), media_type, digest, size }).await?;
    await_seen(cri, wanted).await?;
    Ok(Some(change))
}
