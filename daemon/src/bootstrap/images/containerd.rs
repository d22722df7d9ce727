//! Bringing images into containerd by its own API: content, then the image that names it, all under a lease.
//!
//! The lease keeps the garbage collector from blobs that no image names yet; should this process die, it expires. Unpacking is
//! left to the first container (CRI does it on demand). Sources: containerd `api/services/{content,images,leases}/v1`,
//! `docs/garbage-collection.md`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::leases_client::LeasesClient;
use containerd_client::services::v1::{
    CreateImageRequest, CreateRequest, DeleteRequest, GetImageRequest, Image, Info, InfoRequest, ListImagesRequest,
    ReadContentRequest, ReadContentResponse, UpdateImageRequest, UpdateRequest,
};
use containerd_client::types::Descriptor;
use serde::Serialize;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

use super::bundle::{Blob, Bundle, Entry};
use super::error::ImageError;
use super::names::is_wanted_name;
use super::upload::upload;
use crate::bootstrap::cri::{Cri, channel, socket_path};

/// The namespace of containerd that CRI works in.
const NAMESPACE: &str = "k8s.io";
/// How long a lease lives whose owner has died.
const LEASE_LIFE: Duration = Duration::from_secs(3600);
/// CRI's mark on an image that it must not remove to make room (containerd 1.7 and newer).
const PINNED: &str = "io.cri-containerd.pinned";
/// CRI's mark on an image that it has taken note of. A new target has to be taken note of again.
const MANAGED: &str = "io.cri-containerd.image";

/// Whether something had to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It was not there.
    Made,
    /// It was there.
    Kept,
    /// Something else was there under that name.
    Changed,
}

/// An image that has been brought in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// Its name.
    pub name: String,
    /// Digest of what the name points at.
    pub digest: String,
    /// Whether that is new.
    pub change: Change,
}

/// containerd behind a CRI socket.
#[derive(Debug, Clone)]
pub struct Containerd {
    socket: PathBuf,
    channel: Channel,
}

impl Containerd {
    /// The containerd that a CRI client speaks to.
    #[must_use]
    pub fn of(cri: &Cri) -> Self {
        Self { socket: cri.socket().to_owned(), channel: cri.channel() }
    }

    /// Connects to a socket: `unix:///run/containerd/containerd.sock` or an absolute path.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn connect(socket: &str) -> Result<Self, ImageError> {
        let socket = socket_path(socket)?;
        let channel = channel(&socket).await?;
        Ok(Self { socket, channel })
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    fn content(&self) -> ContentClient<Channel> {
        ContentClient::new(self.channel.clone())
    }

    fn images(&self) -> ImagesClient<Channel> {
        ImagesClient::new(self.channel.clone())
    }

    fn leases(&self) -> LeasesClient<Channel> {
        LeasesClient::new(self.channel.clone())
    }

    /// Brings in all images of a bundle; what is there already is not sent again. `wrote` hears of each blob's size once it is
    /// there.
    ///
    /// # Errors
    /// [`ImageError::NoImport`] when the runtime is not containerd; or it refuses. Images that were named before stay.
    pub async fn import(&self, bundle: &Bundle, wrote: &(dyn Fn(u64) + Sync)) -> Result<Vec<Imported>, ImageError> {
        let lease = self.lease().await?;
        let imported = self.import_under(&lease, bundle, wrote).await;
        let request = scoped(DeleteRequest { id: lease.clone(), sync: false }, None);
        // A lease that stays expires; the images are what counts.
        let _ = self.leases().delete(request).await;
        imported
    }

    async fn import_under(
        &self,
        lease: &str,
        bundle: &Bundle,
        wrote: &(dyn Fn(u64) + Sync),
    ) -> Result<Vec<Imported>, ImageError> {
        for blob in &bundle.blobs {
            let there = upload(self.content(), blob, lease).await.map_err(self.refused("a write", &blob.digest))?;
            // A blob that somebody else has brought may not say what it names.
            if there && !blob.children.is_empty() {
                self.label(blob).await.map_err(self.refused("labels", &blob.digest))?;
            }
            wrote(blob.size);
        }
        let mut imported = Vec::new();
        for image in &bundle.images {
            let change = self.name(image, Some(lease)).await.map_err(self.refused("the name", &image.name))?;
            imported.push(Imported { name: image.name.clone(), digest: image.digest.to_string(), change });
        }
        Ok(imported)
    }

    /// Gives what is there another name.
    pub(super) async fn point(&self, image: &Entry) -> Result<Change, ImageError> {
        self.name(image, None).await.map_err(self.refused("the name", &image.name))
    }

    async fn lease(&self) -> Result<String, ImageError> {
        let expires = jiff::Timestamp::try_from(SystemTime::now() + LEASE_LIFE).map(|time| format!("{time:.0}"));
        let labels = expires.ok().map(|time| ("containerd.io/gc.expire".to_owned(), time)).into_iter().collect();
        let id = format!("weft-{}-{:x}", std::process::id(), nanoseconds());
        let request = scoped(CreateRequest { id: id.clone(), labels }, None);
        match self.leases().create(request).await {
            Ok(_) => Ok(id),
            Err(status) if status.code() == Code::Unimplemented => Err(ImageError::NoImport(self.socket.clone())),
            Err(status) => Err(self.refused("a lease", &id)(status)),
        }
    }

    /// Says on a blob that is there what it names, next to what others have said of it.
    async fn label(&self, blob: &Blob) -> Result<(), Status> {
        let request = scoped(InfoRequest { digest: blob.digest.to_string() }, None);
        let mut info = self.content().info(request).await?.into_inner().info.unwrap_or_default();
        let mut changed = false;
        for (label, value) in &blob.children {
            changed |= info.labels.insert(label.clone(), value.clone()).as_ref() != Some(value);
        }
        if changed {
            let info = Info { digest: blob.digest.to_string(), labels: info.labels, ..Default::default() };
            self.content().update(scoped(UpdateRequest { info: Some(info), update_mask: None }, None)).await?;
        }
        Ok(())
    }

    /// Points a name at its target.
    async fn name(&self, image: &Entry, lease: Option<&str>) -> Result<Change, Status> {
        let target = Descriptor {
            media_type: image.media_type.clone(),
            digest: image.digest.to_string(),
            size: i64::try_from(image.size).unwrap_or(i64::MAX),
            ..Default::default()
        };
        let pin = is_wanted_name(&image.name).then(|| (PINNED.to_owned(), "pinned".to_owned()));
        let there = self.find(&image.name).await?;
        let mut new =
            Image { name: image.name.clone(), target: Some(target), labels: HashMap::new(), ..Default::default() };
        let Some(there) = there else {
            new.labels.extend(pin);
            let request = CreateImageRequest { image: Some(new), source_date_epoch: None };
            self.images().create(scoped(request, lease)).await?;
            return Ok(Change::Made);
        };
        let is_same = there.target.as_ref().is_some_and(|target| target.digest == image.digest.to_string());
        let is_pinned = pin.iter().all(|(label, value)| there.labels.get(label) == Some(value));
        if is_same && is_pinned {
            return Ok(Change::Kept);
        }
        new.labels = there.labels;
        if !is_same {
            new.labels.remove(MANAGED);
        }
        new.labels.extend(pin);
        let request = UpdateImageRequest { image: Some(new), update_mask: None, source_date_epoch: None };
        self.images().update(scoped(request, lease)).await?;
        Ok(if is_same { Change::Kept } else { Change::Changed })
    }

    /// The image of this name.
    async fn find(&self, name: &str) -> Result<Option<Image>, Status> {
        match self.images().get(scoped(GetImageRequest { name: name.to_owned() }, None)).await {
            Ok(answer) => Ok(answer.into_inner().image),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// What a name points at: media type, digest, size.
    pub(super) async fn target(&self, name: &str) -> Result<Option<(String, String, u64)>, ImageError> {
        let found = self.find(name).await.map_err(self.refused("the image", &name))?;
        let target = found.and_then(|image| image.target);
        Ok(target.map(|target| (target.media_type, target.digest, u64::try_from(target.size).unwrap_or_default())))
    }

    /// The names of all images that CRI sees, without those by which it finds configurations.
    pub(super) async fn names(&self) -> Result<Vec<String>, ImageError> {
        let request = scoped(ListImagesRequest::default(), None);
        let answer = self.images().list(request).await.map_err(self.refused("the list", &"images"))?;
        let names = answer.into_inner().images.into_iter().map(|image| image.name);
        let mut names: Vec<String> = names.filter(|name| !name.starts_with("sha256:") && !name.contains('@')).collect();
        names.sort();
        Ok(names)
    }

    /// Whether a blob is there.
    pub(super) async fn has(&self, digest: &str) -> Result<bool, ImageError> {
        match self.content().info(scoped(InfoRequest { digest: digest.to_owned() }, None)).await {
            Ok(_) => Ok(true),
            Err(status) if status.code() == Code::NotFound => Ok(false),
            Err(status) => Err(self.refused("the blob", &digest)(status)),
        }
    }

    /// A blob's bytes, in parts.
    pub(super) async fn read(&self, digest: &str) -> Result<Streaming<ReadContentResponse>, ImageError> {
        let request = scoped(ReadContentRequest { digest: digest.to_owned(), offset: 0, size: 0 }, None);
        Ok(self.content().read(request).await.map_err(self.refused("the blob", &digest))?.into_inner())
    }

    pub(super) fn refused(&self, call: &'static str, object: &impl ToString) -> impl FnOnce(Status) -> ImageError {
        let (socket, object) = (self.socket.clone(), object.to_string());
        move |status| match status.code() {
            Code::Unimplemented => ImageError::NoImport(socket),
            _ => ImageError::Containerd { call, object, status: Box::new(status) },
        }
    }
}

/// A request in CRI's namespace, and under a lease.
pub(super) fn scoped<T>(message: T, lease: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("containerd-namespace", MetadataValue::from_static(NAMESPACE));
    // Our own leases have names that a header can hold.
    if let Some(lease) = lease.and_then(|lease| lease.parse().ok()) {
        request.metadata_mut().insert("containerd-lease", lease);
    }
    request
}

fn nanoseconds() -> u128 {
    std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos())
}
