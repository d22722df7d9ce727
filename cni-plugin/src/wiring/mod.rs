//! The kernel side of an attachment.
//!
//! `plan` says what an attachment looks like, and is pure; `bridge`, `veth`, `limits`, `ports` and `teardown` speak to the
//! kernel. Nothing here knows of files or of the runtime.

pub mod bridge;
pub mod limits;
pub mod plan;
pub mod ports;
pub mod teardown;
pub mod veth;
