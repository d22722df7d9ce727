//! The agent itself beside a real etcd that fails in every way: what its kernel has, what it says, how it ends. Cases are
//! those of the overlay's contract.
//!
//! Outages are as short as they can be and still be noticed; `WEFT_TEST_OUTAGES=full` makes them as long as the contract has
//! them.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

#[expect(dead_code, reason = "these tests take less of it than others do")]
mod agent;
#[expect(dead_code, reason = "these tests take less of it than others do")]
mod etcd;

#[path = "agent_etcd/end.rs"]
mod end;
#[path = "agent_etcd/garbage.rs"]
mod garbage;
#[path = "agent_etcd/gate.rs"]
mod gate;
#[path = "agent_etcd/many.rs"]
mod many;
#[path = "agent_etcd/outage.rs"]
mod outage;
#[path = "agent_etcd/subnet.rs"]
mod subnet;
#[path = "agent_etcd/world.rs"]
mod world;
