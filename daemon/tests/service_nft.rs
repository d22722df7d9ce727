//! The nftables back end of Services: the running kernel's tables, and what packets meet. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

#[path = "service_nft/kernel.rs"]
mod kernel;
#[path = "service_nft/lab.rs"]
mod lab;
#[path = "service_nft/packets.rs"]
mod packets;
#[path = "service_nft/support.rs"]
mod support;
