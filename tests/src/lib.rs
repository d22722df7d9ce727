//! The lab: a many-node cluster on one machine, and what tests need to judge it.
//!
//! ```text
//!   <lab>-underlay  ┌───────────────── br0 192.168.100.1/24, fd00:100::1/64 ─────────────────┐   etcd :2379
//!                   └──────┬──────────────────────────┬──────────────────────────┬───────────┘
//!                         p11                        p12                        p13
//!   <lab>-node1   eth0 .11 │  <lab>-node2   eth0 .12  │  <lab>-node3   eth0 .13  │        one `weft agent` each
//!                 flannel.1, cni0          flannel.1, cni0          flannel.1, cni0
//!                  │      │                 │      │                 │      │
//!                 eth0   eth0              eth0   eth0              eth0   eth0
//!   <lab>-node1-pod1   -pod2    <lab>-node2-pod1   -pod2    <lab>-node3-pod1   -pod2
//! ```
//!
//! Nodes and pods are network namespaces. Everything that is a name or a path begins with the lab's name, so labs and
//! tests run beside each other. [`lab`] builds it, [`runtime`] calls plugins as libcni does, [`probe`] asks what
//! gets through, [`chaos`] breaks all of it at random, [`cni`] is a single machine for tests of the plugin alone, [`guest`] a
//! virtual one with another kernel.
//!
//! The judges are the kernel's own tools (`ip`, `bridge`, `nft`): a test must not trust the code that it tests.

pub mod binaries;
pub mod chaos;
pub mod cni;
pub mod containerd;
pub mod cri;
pub mod etcd;
pub mod guest;
pub mod http;
pub mod kube;
pub mod lab;
pub mod netns;
pub mod node;
pub mod probe;
pub mod process;
pub mod runtime;
pub mod scratch;
pub mod skip;
pub mod svc;
pub mod tool;
pub mod trace;
pub mod wait;
