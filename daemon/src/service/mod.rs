//! Services: what a node's kernel holds in the place of kube-proxy.
//!
//! `model` says what a Service means (pure): its frontends, backends and policies. `nft` and `ipvs` are the two back ends,
//! which put the same meaning into the kernel; `ground` is what IPVS needs beside its virtual servers, `conntrack` and `flows`
//! move UDP clients. `engine` orders them, `run` says when, `tell` passes on what was done. In come changed Services from
//! `cluster::services` and what is known of the node; out go nf_tables elements, virtual servers, and the facts that `serve`
//! tells.

pub mod conntrack;
pub mod conntrack_sysctls;
mod engine;
mod flows;
mod ground;
pub mod health_ports;
pub mod ipvs;
pub mod model;
pub mod nft;
mod options;
mod outcome;
mod run;
mod tell;

pub use engine::retire;
pub use ground::{GroundError, cleanup as cleanup_ipvs};

pub use options::{ProxyOptions, families};
pub use run::{Inputs, run};
pub use tell::Teller;

/// The record of the settings that were changed for Services, in the run directory.
pub const SERVICES_RECORD: &str = "services.owned.json";
