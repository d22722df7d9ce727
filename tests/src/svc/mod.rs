//! The bench for Services: two nodes, pods that tell who they are, a client outside, and words to ask with.
//!
//! ```text
//!                 192.168.100.0/24, fd00:100::/64
//!        ┌───────────────┬────────────────┬──────────────── underlay
//!   .11  │          .12  │            .5  │
//!   node1: node     node2            ext: ext, and the clients 10.250.0.1 … 40
//!    ├ l1  ├ l2      ├ r1  ├ r2           routes to Services and load balancers: by node1
//!    └ pod           └ far
//! ```
//!
//! `l1` and `l2` run on the node under test, `r1` and `r2` on the other; `pod` and `far` only ask. Every [`Case`] has a
//! Kubernetes namespace and addresses of its own, so tests share a bench and run beside each other. A test reads as a
//! sentence:
//!
//! ```ignore
//! let web = case.service("web", &[Port::tcp(80, 8080)]).internal_local();
//! case.apply(&web, &[bench.l1.ready(), bench.r1.ready()]);
//! bench.pod.to(vip).is_served_by(&["l1"]).keeps_its_source();
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench is test code: a panic is how a test fails")]

mod ask;
mod bench;
mod case;
mod shared;

pub use ask::{Ask, Place, Served};
pub use bench::{Bench, CLIENTS_V4, CLIENTS_V6, client, mode};
pub use case::{Case, vips};
pub use shared::Shared;

pub use crate::wait::patience;
