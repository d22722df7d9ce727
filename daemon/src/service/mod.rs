//! Services: what a node's kernel holds in the place of kube-proxy.
//!
//! `model` says what a Service means (pure): its frontends, backends and policies. `nft` and `ipvs` are the two back ends,
//! which put the same meaning into the kernel. In come changed Services from `cluster::services` and what is known of the
//! node; out go nf_tables elements, virtual servers, and the facts that `serve` tells.

pub mod conntrack;
pub mod conntrack_sysctls;
pub mod health_ports;
pub mod ipvs;
pub mod model;
pub mod nft;
