//! Who says that which subnet is his: in the store, and by himself.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::run::Failure;
use crate::etcd::Etcd;
use crate::lab::{NETWORK_PREFIX, agent_status};
use crate::netns::Netns;
use crate::wait;

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// A subnet that is somebody's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// The node, if it is known.
    pub node: Option<String>,
    /// The subnet.
    pub subnet: String,
    /// Who says so.
    pub by: &'static str,
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} (says {})", self.subnet, self.node.as_deref().unwrap_or("nobody known"), self.by)
    }
}

/// Two claims of different nodes on one address, in words; also two leases in the store, whosever they are.
#[must_use]
pub fn overlaps(claims: &[Claim]) -> Vec<String> {
    let mut found = Vec::new();
    for (index, one) in claims.iter().enumerate() {
        for other in claims.iter().skip(index + 1) {
            let same = one.node.is_some() && one.node == other.node && one.subnet == other.subnet;
            let Some((a, b)) = range(&one.subnet).zip(range(&other.subnet)) else { continue };
            if !same && a.0 == b.0 && a.1 <= b.2 && b.1 <= a.2 {
                found.push(format!("{one} and {other}"));
            }
        }
    }
    found
}

/// Family, first and last address of `10.244.1.0/24`.
fn range(subnet: &str) -> Option<(bool, u128, u128)> {
    let (address, length) = subnet.split_once('/')?;
    let length: u32 = length.parse().ok()?;
    let (v6, bits, first) = match address.parse().ok()? {
        IpAddr::V4(v4) => (false, 32, u128::from(v4.to_bits())),
        IpAddr::V6(v6) => (true, 128, v6.to_bits()),
    };
    let hosts = u128::MAX.checked_shr(128 - (bits - length.min(bits))).unwrap_or(0);
    Some((v6, first, first | hosts))
}

/// What the store says: each lease, and whose it is by the nodes' records.
///
/// # Errors
/// When it cannot be read.
pub(super) fn in_store(etcd: &Etcd) -> Result<Vec<Claim>> {
    // One read of one revision: leases and records side by side are what the promise is about.
    let pairs = etcd.get(&format!("{NETWORK_PREFIX}/"))?;
    let (leases, records) = (format!("{NETWORK_PREFIX}/subnets/"), format!("{NETWORK_PREFIX}/weft/nodes/"));
    let owner = |key: &str| {
        pairs.iter().find_map(|(name, value)| {
            let node = name.strip_prefix(&records)?;
            let record: Value = serde_json::from_str(value).ok()?;
            (record["subnet"] == key).then(|| node.to_owned())
        })
    };
    let claims = pairs.iter().filter_map(|(key, _)| key.strip_prefix(&leases)).flat_map(|key| {
        let subnets = key.split('&').map(|subnet| subnet.replace('-', "/"));
        subnets.map(|subnet| Claim { node: owner(key), subnet, by: "the store" }).collect::<Vec<_>>()
    });
    Ok(claims.collect())
}

/// What a node's agent says that the node runs; nothing while none answers.
pub(super) fn of_agent(name: &str, netns: &Netns) -> Vec<Claim> {
    let Ok(status) = agent_status(netns) else { return Vec::new() };
    let subnets = status["lease"]["subnets"].as_array().cloned().unwrap_or_default();
    let claim = |subnet: &Value| {
        Some(Claim { node: Some(name.to_owned()), subnet: subnet.as_str()?.to_owned(), by: "its agent" })
    };
    subnets.iter().filter_map(claim).collect()
}

/// What an observer has seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Looks at which the store could be read.
    pub(super) store: AtomicUsize,
    /// Agents that answered.
    pub(super) agents: AtomicUsize,
    /// The first thing that must not be.
    pub(super) wrong: Mutex<Option<String>>,
}

impl Seen {
    fn note(&self, claims: &[Claim]) {
        let found = overlaps(claims);
        if !found.is_empty() {
            let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
            wrong.get_or_insert_with(|| format!("two nodes have one subnet: {}", found.join("; ")));
        }
    }

    /// What must not be, as the failure of this step.
    pub(super) fn judge(&self, step: impl Fn(String) -> Failure) -> Result<(), Failure> {
        match &*self.wrong.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(wrong) => Err(step(wrong.clone())),
            None => Ok(()),
        }
    }
}

/// Looks at the store again and again until told to stop, or until something is wrong.
pub(super) fn watch_store(etcd: &Etcd, seen: &Seen, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        if let Ok(claims) = in_store(etcd) {
            seen.store.fetch_add(1, Ordering::Relaxed);
            seen.note(&claims);
        }
        wait::pause(PAUSE);
    }
}

/// The same at the nodes one after the other, beside what the store says then.
pub(super) fn watch_agents(etcd: &Etcd, nodes: &[(String, Netns)], seen: &Seen, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let mut claims = Vec::new();
        for (name, netns) in nodes {
            let said = of_agent(name, netns);
            seen.agents.fetch_add(usize::from(!said.is_empty()), Ordering::Relaxed);
            claims.extend(said);
        }
        // It may be away; then the nodes have only each other to contradict.
        claims.extend(in_store(etcd).unwrap_or_default());
        seen.note(&claims);
        wait::pause(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(node: &str, subnet: &str, by: &'static str) -> Claim {
        Claim { node: (!node.is_empty()).then(|| node.to_owned()), subnet: subnet.to_owned(), by }
    }

    #[test]
    fn a_node_may_say_what_the_store_says_and_no_other_may() {
        let store = claim("node1", "10.244.1.0/24", "the store");
        let other = |node, subnet| vec![store.clone(), claim(node, subnet, "its agent")];
        assert_eq!(overlaps(&other("node1", "10.244.1.0/24")), [""; 0]);
        assert_eq!(overlaps(&other("node2", "10.244.2.0/24")), [""; 0]);
        assert_eq!(overlaps(&other("node2", "10.244.1.0/24")).len(), 1);
        assert_eq!(overlaps(&other("node2", "10.244.0.0/16")).len(), 1, "one within the other");
        assert_eq!(overlaps(&other("node1", "10.244.1.128/25")).len(), 1, "a node with two");
        assert_eq!(overlaps(&other("", "10.244.1.0/24")).len(), 1, "a lease without an owner");
        let families = [claim("a", "fd00:244:0:1::/64", "x"), claim("b", "fd00:244:0:1:8::/80", "x")];
        assert_eq!(overlaps(&families).len(), 1);
        assert_eq!(overlaps(&[claim("a", "0.0.0.0/0", "x"), claim("b", "::/0", "x")]), [""; 0]);
    }
}
