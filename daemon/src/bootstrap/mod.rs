//! Bringing a cluster up and taking it down: what `weft init`, `weft join` and `weft reset` do, kubeadm's way.
//!
//! One room a concern, each pure where it can be; `phases` puts them in kubeadm's order.

pub mod api;
pub mod config;
pub mod resolved;
