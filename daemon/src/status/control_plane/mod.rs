//! The control plane in `weft status`: what `kubectl get cs` once told, and what it did not.
//!
//! [`look`] asks: the components of this node, the API server, etcd's members, the certificates' files. [`judge`] makes a section
//! of the report of the answers (pure), [`text`] lines for people.

mod etcd;
pub mod judge;
pub mod look;
pub mod text;

pub use judge::{ControlPlane, Found, judge};
pub use look::{Place, look};
pub use text::text;
