//! What the cluster last said, kept in a file, for a node that starts while its store cannot be reached.
//!
//! Only what the data plane needs: the own subnet and the peers, in flannel's own formats.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use weft_cni::formats::files::{Durability, write_atomically};

use super::key::SubnetKey;
use super::lease_value::LeaseValue;
use super::model::{Lease, Snapshot};
use super::netconf::NetConf;
use super::node::NodeName;

/// Its name in the state directory.
pub const FILE: &str = "last-known.json";

/// Addresses of nodes are nobody else's business.
const MODE: u32 = 0o600;

/// What was known at one time.
#[derive(Debug, Clone, PartialEq)]
pub struct LastKnown {
    /// The node that knew it: a machine that is called otherwise now must not take another's subnet.
    pub node: NodeName,
    /// When it was still true, in seconds since 1970.
    pub at: u64,
    /// The own subnet.
    pub key: SubnetKey,
    /// What the own lease said.
    pub published: LeaseValue,
    /// The network configuration.
    pub config: NetConf,
    /// All leases.
    pub leases: BTreeMap<SubnetKey, Lease>,
}

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum LastKnownError {
    /// It cannot be read.
    #[error("{0}")]
    Unreadable(#[from] io::Error),
    /// It is not what this version writes.
    #[error("it holds {0}")]
    Garbage(String),
    /// It is another node's.
    #[error("it is of node {0}")]
    OtherNode(NodeName),
}

#[derive(Serialize, Deserialize)]
struct Wire {
    node: String,
    at: u64,
    subnet: String,
    value: String,
    config: String,
    leases: Vec<WireLease>,
}

#[derive(Serialize, Deserialize)]
struct WireLease {
    subnet: String,
    value: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    node: Option<String>,
    created: i64,
}

impl LastKnown {
    /// Reads what `node` knew.
    ///
    /// # Errors
    /// [`LastKnownError`]. A lease that cannot be read is left out.
    pub fn read(path: &Path, node: &NodeName) -> Result<Self, LastKnownError> {
        let known = Self::parse(&std::fs::read(path)?)?;
        if known.node == *node { Ok(known) } else { Err(LastKnownError::OtherNode(known.node)) }
    }

    fn parse(text: &[u8]) -> Result<Self, LastKnownError> {
        let garbage = |what: &dyn std::fmt::Display| LastKnownError::Garbage(what.to_string());
        let wire: Wire = serde_json::from_slice(text).map_err(|error| garbage(&error))?;
        let leases = wire.leases.iter().filter_map(lease).map(|lease| (lease.key, lease)).collect();
        Ok(Self {
            node: wire.node.parse().map_err(|_| garbage(&format!("a node {:?}", wire.node)))?,
            at: wire.at,
            key: wire.subnet.parse().map_err(|_| garbage(&format!("a subnet {:?}", wire.subnet)))?,
            published: LeaseValue::parse(wire.value.as_bytes()).map_err(|error| garbage(&error))?,
            config: NetConf::parse(wire.config.as_bytes()).map_err(|error| garbage(&error))?.0,
            leases,
        })
    }

    /// Writes it, so that it outlasts a reboot.
    ///
    /// # Errors
    /// What the file system says; what was there before stays.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let lease = |lease: &Lease| {
            let value = LeaseValue { public_ips: lease.public_ips, backend: lease.backend.clone() };
            let node = lease.node.as_ref().map(ToString::to_string);
            WireLease { subnet: lease.key.to_string(), value: value.to_json(), node, created: lease.create_revision }
        };
        let wire = Wire {
            node: self.node.to_string(),
            at: self.at,
            subnet: self.key.to_string(),
            value: self.published.to_json(),
            config: self.config.to_json(),
            leases: self.leases.values().map(lease).collect(),
        };
        // Strings and numbers have no way to fail.
        write_atomically(path, &serde_json::to_vec(&wire)?, MODE, Durability::Durable)
    }

    /// The leases, as a source would give them.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let config = Some(self.config.to_json().into_bytes());
        Snapshot { revision: 0, config, leases: self.leases.clone(), rejected: Vec::new() }
    }

    /// How long ago it was true; `None` if the clock has been set back since, so that nobody knows.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        age(self.at, seconds(SystemTime::now()))
    }
}

fn age(at: u64, now: Option<u64>) -> Option<Duration> {
    now?.checked_sub(at).map(Duration::from_secs)
}

/// Now, as [`LastKnown::at`] has it.
#[must_use]
pub fn now() -> u64 {
    seconds(SystemTime::now()).unwrap_or_default()
}

fn seconds(time: SystemTime) -> Option<u64> {
    time.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_secs())
}

fn lease(wire: &WireLease) -> Option<Lease> {
    let value = LeaseValue::parse(wire.value.as_bytes()).ok()?;
    Some(Lease {
        key: wire.subnet.parse().ok()?,
        public_ips: value.public_ips,
        backend: value.backend,
        node: wire.node.as_ref().and_then(|node| node.parse().ok()),
        create_revision: wire.created,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE: &[u8] =
        br#"{"PublicIP":"192.0.2.1","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}}"#;

    fn known() -> LastKnown {
        let value = LeaseValue::parse(VALUE).unwrap();
        let lease = |text: &str, node: Option<&str>| {
            let key: SubnetKey = text.parse().unwrap();
            let lease = Lease {
                key,
                public_ips: value.public_ips,
                backend: value.backend.clone(),
                node: node.map(|node| node.parse().unwrap()),
                create_revision: 7,
            };
            (key, lease)
        };
        LastKnown {
            node: "n1".parse().unwrap(),
            at: now() - 60,
            key: "10.244.1.0-24".parse().unwrap(),
            published: value.clone(),
            config: NetConf::parse(br#"{"Network": "10.244.0.0/16"}"#).unwrap().0,
            leases: [lease("10.244.1.0-24", Some("n1")), lease("10.244.2.0-24", None)].into(),
        }
    }

    #[test]
    fn what_was_written_is_read_again_by_the_same_node_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state").join(FILE);
        let mut known = known();
        let foreign = br#"{"PublicIP":"192.0.2.3","BackendType":"xyz","BackendData":{"PublicKey":"x"}}"#;
        let lease = known.leases.values_mut().next_back().unwrap();
        lease.backend = LeaseValue::parse(foreign).unwrap().backend;
        known.write(&path).unwrap();
        let read = LastKnown::read(&path, &known.node).unwrap();
        assert_eq!(read, known);
        assert_eq!(read.snapshot().leases.len(), 2);
        let age = read.age().unwrap();
        assert!(age >= Duration::from_secs(60) && age < Duration::from_secs(600));
        let other = LastKnown::read(&path, &"n2".parse().unwrap()).unwrap_err();
        assert!(matches!(other, LastKnownError::OtherNode(_)), "{other}");
    }

    #[test]
    fn nobody_knows_the_age_once_the_clock_has_gone_back() {
        assert_eq!(age(100, Some(160)), Some(Duration::from_secs(60)));
        assert_eq!(age(100, Some(100)), Some(Duration::ZERO));
        assert_eq!(age(100, Some(99)), None);
        assert_eq!(age(100, None), None);
    }

    #[test]
    fn garbage_is_named() {
        for text in ["", "{}", "[1]", r#"{"node":"n1","at":1,"subnet":"x","value":"","config":"","leases":[]}"#] {
            assert!(matches!(LastKnown::parse(text.as_bytes()), Err(LastKnownError::Garbage(_))), "{text}");
        }
        assert!(matches!(
            LastKnown::read(Path::new("/nonexistent/x"), &"n1".parse().unwrap()),
            Err(LastKnownError::Unreadable(_))
        ));
    }
}
