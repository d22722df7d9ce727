//! Leases and the source against a real etcd. Cases of group E are named by their number.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

#[path = "control_plane/authority.rs"]
#[expect(dead_code, reason = "these tests take less of it than others do")]
mod authority;
#[expect(dead_code, reason = "these tests take less of it than others do")]
mod etcd;

#[path = "lease_etcd/life.rs"]
mod life;
#[path = "lease_etcd/many.rs"]
mod many;
#[path = "lease_etcd/node.rs"]
mod node;
#[path = "lease_etcd/partition.rs"]
mod partition;
#[path = "lease_etcd/secured.rs"]
mod secured;
