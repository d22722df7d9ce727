//! The container runtime, as kubelet speaks to it: CRI v1 over a unix socket.
//!
//! ```text
//!   connect ──▶ health (may kubelet use it?) ──▶ images (there? pull)       rehearse (a sandbox that comes and goes)
//!                                            └─▶ pods (what runs, what fell over, its last words) ──▶ remove (kubelet's alone)
//! ```
//!
//! Source of all names: k8s.io/cri-api `runtime/v1/api.proto`.

mod connect;
mod error;
mod health;
mod images;
mod logs;
mod pods;
mod rehearse;
mod remove;

pub use connect::{Cri, channel, socket_path};
pub use error::CriError;
pub use health::{CgroupDriver, Health};
pub use images::{Image, Pulled};
pub use logs::last_lines;
pub use pods::{Container, ContainerState, Ended, Sandbox, labels, pod_labels};
pub use rehearse::Rehearsal;
pub use remove::{Removal, belongs_to_kubelet};
