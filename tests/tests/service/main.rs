//! Services as packets feel them: the cases of section 4 of the contract, in the mode that `WEFT_TEST_PROXY_MODE` names
//! (nftables if it names none). The topology is drawn at [`weft_tests::svc`]; a test's name begins with its case.
//!
//! Not here: T101 is `guest_preflight`, as it takes a kernel that lacks something.

#![cfg_attr(
    feature = "guest",
    allow(dead_code, unused_imports, reason = "what is left out of a guest's run has its helpers here")
)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

mod a_frontends;
mod b_policies;
#[cfg(any(feature = "whole", not(feature = "guest")))]
mod c_endpoints;
#[cfg(any(feature = "whole", not(feature = "guest")))]
mod d_external;
mod e_flows;
#[cfg(any(feature = "whole", not(feature = "guest")))]
mod f_robustness;
mod g_ipvs;
#[cfg(any(feature = "whole", not(feature = "guest")))]
mod h_node;
#[cfg(any(feature = "whole", not(feature = "guest")))]
mod i_host;
#[cfg(any(feature = "whole", not(feature = "guest")))]
mod monitor;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use weft_tests::kube::{Port, Service};
use weft_tests::svc::{Bench, Shared, mode};

/// Agents as they come.
static USUAL: Shared = Shared::new(&[]);
/// Agents that cannot tell pods from other clients, with node ports at some addresses of one family.
static BLIND: Shared = Shared::new(&["--detect-local", "none", "--node-port-addresses", "192.168.100.0/24"]);
/// Agents that masquerade all, take node ports at every address, and serve no external IPs.
static OPEN: Shared = Shared::new(&[
    "--masquerade-all",
    "--node-port-addresses",
    "0.0.0.0/0,::/0",
    "--allow-external-ips=false",
    "--ipvs-drain-limit",
    "5s",
]);

fn usual() -> Arc<Bench> {
    USUAL.get()
}

fn is_ipvs() -> bool {
    mode() == "ipvs"
}

/// Port 80, which leads to the pods' 8080.
fn web() -> [Port; 1] {
    [Port::tcp(80, 8080)]
}

/// A port at each of these addresses.
fn at(ips: impl IntoIterator<Item = IpAddr>, port: u16) -> Vec<SocketAddr> {
    ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()
}

/// The first port of a Service at its external addresses.
fn outer(service: &Service) -> Vec<SocketAddr> {
    at(service.outer_ips(), service.ports()[0].port)
}
