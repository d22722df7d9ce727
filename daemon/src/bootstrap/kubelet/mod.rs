//! kubelet: its configuration and flags, its unit, and whoever keeps it running.
//!
//! What is the cluster's ([`config::cluster_wide`]) is uploaded; what is this node's ([`config::Host`]) is worked out on
//! each node and is never uploaded, as a joiner with another resolver or cgroup driver would inherit it.

pub mod config;
pub mod files;
pub mod flags;
pub mod log;
pub mod service;
pub mod supervise;
pub mod unit;
