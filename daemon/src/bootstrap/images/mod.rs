//! The images that a node needs, without a registry if need be.
//!
//! ```text
//!   wanted (names, as kubeadm has them) ──┐
//!   --kubernetes-bin ──▶ pack ────────────┤            ┌─▶ containerd (content, image, under a lease)
//!   --images ──▶ store ──▶ oci, docker ───┴─▶ bundle ──┘            │
//!   registry ──▶ reach ──▶ pull (the runtime does it) ──────────────┴─▶ what kubelet finds
//! ```
//!
//! Nothing is fetched that is there, and nothing at all unless the caller allows it. A bundle is read and verified whole before
//! its first byte goes to containerd.

pub mod binaries;
mod bundle;
mod containerd;
mod docker;
mod error;
mod layout;
mod names;
mod oci;
mod pack;
mod provide;
mod pull;
mod reach;
mod sandbox;
mod save;
mod shared;
mod store;
mod upload;

pub use bundle::{Blob, Bundle, Entry};
pub use containerd::{Change, Containerd, Imported};
pub use error::ImageError;
pub use layout::load;
pub use names::{KUBERNETES_VERSION, Names, PAUSE_TAG, Wanted, What, is_wanted_name, weft_image};
pub use pack::{Own, pack};
pub use provide::{Event, Provided, Sources, load_into, provide};
pub use pull::{Pulls, pull};
pub use reach::{endpoints, registry};
pub use sandbox::name_sandbox_image;
pub use save::save;
