//! Bringing a cluster up and taking it down: what `weft init`, `weft join` and `weft reset` do, kubeadm's way.
//!
//! One room a concern, each pure where it can be; `phases` puts them in kubeadm's order.

pub mod api;
pub mod config;
pub mod converge;
pub mod cri;
pub mod duration;
pub(crate) mod hex;
pub mod host;
pub mod images;
pub mod journal;
pub mod kubeconfig;
pub mod kubelet;
pub mod patches;
pub mod phases;
pub mod pki;
pub mod resolved;
pub mod stable_name;
pub mod static_pods;
mod unverified;
pub mod version;
pub mod waiting;
pub mod yaml;
