//! weft's agent and the commands around it, as a library: the binary is a thin shell, the tests use the same rooms.
//!
//! Data flows one way: `cluster` (what the cluster says) to plans (what the kernel should hold) to `netlink`.

pub mod balancer;
pub mod bootstrap;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod doctor;
pub mod filter;
pub mod lease;
pub mod migrate;
pub mod node;
pub mod overlay;
pub mod publish;
pub mod reconcile;
pub mod serve;
pub mod service;
pub mod status;
