//! containerd's configuration: what it says of pods ([`read`]), the same with what was wrong mended ([`mend`]), and the
//! mirrors of registries ([`mirrors`]).
//!
//! Three versions of the file are about (containerd's `docs/cri/config.md`): 1 with `[plugins.cri]`, 2 with
//! `[plugins."io.containerd.grpc.v1.cri"]`, and 3, where the runtime's part and the images' part are plugins of their own.

mod keys;
pub mod mend;
pub mod mirrors;
mod read;

pub use read::{Containerd, Place, Setting, read};

/// Where containerd looks for its configuration, under the root.
pub const CONFIG: &str = "etc/containerd/config.toml";

/// Where its registries' directories are by convention, as containerd is told.
pub const CERTS_D: &str = "/etc/containerd/certs.d";
