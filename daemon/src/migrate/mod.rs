//! A node's way from flannel and kube-proxy to weft, and back.
//!
//! What is there is read (of this node by `kernel`, `daemons`, `agent`, `proxy`, `cache`; of the API server by `api`), compared with
//! what should be there by pure functions (`rules`, `plugins`, `legacy`, `conflists`, `virtual_servers`, `obstacles`; `cluster`,
//! `keep_off`, `kubeadm`, `plan`, `unfinish`), and changed a step at a time (`node`, `back`). Each step looks at what
//! there is and not at what was done before, so that a second run finishes what a first one left.
//!
//! Of others' objects those are removed that bear the names which kube-proxy, flannel, portmap and the bridge plugin give,
//! and rules that lead to them; nothing else in their tables. This room is entered by `weft migrate` alone: the agent
//! touches none of it.

pub mod agent;
pub mod api;
pub mod back;
pub mod cache;
pub mod cluster;
pub mod conflists;
pub mod daemons;
pub mod keep_off;
pub mod kernel;
pub mod kubeadm;
pub mod legacy;
pub mod node;
pub mod obstacles;
pub mod plan;
pub mod plugins;
pub mod ports;
pub mod proxy;
pub mod report;
pub mod rules;
pub mod unfinish;
pub mod virtual_servers;
