//! Kubeconfigs: those of a control-plane node as kubeadm makes them, and reading and writing any.
//!
//! `document` is one kubeconfig, `files` the five of a control-plane node, `finalize` what becomes of kubelet's once it has a
//! certificate of its own, `joined` kubelet's on a node that joins, `user` one for a person.

mod document;
mod files;
mod finalize;
pub mod joined;
mod user;

pub use document::{Credentials, Kubeconfig, Login, cluster_info};
pub use files::{FILES, File, INIT, JOIN, ensure, find};
pub use finalize::{finalize, kubelet_certificate};
pub use user::{UserRequest, for_user};
