//! The runtime's images.

use std::time::Duration;

use k8s_cri::v1::{ImageSpec, ImageStatusRequest, ListImagesRequest, PullImageRequest, RemoveImageRequest};

use super::connect::{ASK_LIMIT, Cri};
use super::error::CriError;

/// An image that the runtime has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Digest of its configuration.
    pub id: String,
    /// Its names with a tag.
    pub tags: Vec<String>,
    /// Its names with a digest.
    pub digests: Vec<String>,
    /// What it takes in bytes, compressed.
    pub size: u64,
    /// Whether kubelet must leave it when it makes room.
    pub pinned: bool,
}

/// A pull has come to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The image by its digest.
    pub reference: String,
}

impl From<k8s_cri::v1::Image> for Image {
    fn from(image: k8s_cri::v1::Image) -> Self {
        let k8s_cri::v1::Image { id, repo_tags: tags, repo_digests: digests, size, pinned, .. } = image;
        Self { id, tags, digests, size, pinned }
    }
}

fn spec(name: &str) -> Option<ImageSpec> {
    Some(ImageSpec { image: name.to_owned(), ..Default::default() })
}

impl Cri {
    /// All images.
    ///
    /// # Errors
    /// When the runtime does not answer.
    pub async fn images(&self) -> Result<Vec<Image>, CriError> {
        let request = ListImagesRequest::default();
        let answer = self.answer("ListImages", "", ASK_LIMIT, self.image().list_images(request)).await?;
        Ok(answer.images.into_iter().map(Into::into).collect())
    }

    /// The image of this name, if it is there. Asks nobody but the runtime.
    ///
    /// # Errors
    /// When the runtime does not answer, or the name is none.
    pub async fn find_image(&self, name: &str) -> Result<Option<Image>, CriError> {
        let request = ImageStatusRequest { image: spec(name), verbose: false };
        let answer = self.answer("ImageStatus", name, ASK_LIMIT, self.image().image_status(request)).await?;
        Ok(answer.image.map(Into::into))
    }

    /// Has the runtime fetch an image, once, with its own mirrors and credentials.
    ///
    /// # Errors
    /// When it cannot within `limit`.
    pub async fn pull_image(&self, name: &str, limit: Duration) -> Result<Pulled, CriError> {
        let request = PullImageRequest { image: spec(name), ..Default::default() };
        let answer = self.answer("PullImage", name, limit, self.image().pull_image(request)).await?;
        Ok(Pulled { reference: answer.image_ref })
    }

    /// Removes an image. One that is not there is no error.
    ///
    /// # Errors
    /// When the runtime refuses.
    pub async fn remove_image(&self, name: &str) -> Result<(), CriError> {
        let request = RemoveImageRequest { image: spec(name) };
        self.answer("RemoveImage", name, ASK_LIMIT, self.image().remove_image(request)).await.map(drop)
    }
}
