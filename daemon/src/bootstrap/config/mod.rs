//! kubeadm's configuration files: what they say, and what weft makes of them.

pub mod model;
