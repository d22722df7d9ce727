//! The names of nodes, and what a node records about itself at `<prefix>/weft/nodes/<name>`.
//!
//! flannel knows a node by its public address alone, so an address that changes, or that two machines share, loses or
//! steals a subnet. weft's identity is the node's name; the record ties it to the lease.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::family::{Family, PerFamily};
use super::key::SubnetKey;

/// A node's name: not empty, at most 253 bytes, without white space, control characters or `/`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(String);

/// A text that cannot name a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot name a node; expected 1 to 253 characters without spaces or slashes, such as node-1.example.org")]
pub struct NodeNameError(String);

impl NodeName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = NodeNameError;

    fn from_str(text: &str) -> Result<Self, NodeNameError> {
        let odd = |c: char| c.is_whitespace() || c.is_control() || c == '/';
        if text.is_empty() || text.len() > 253 || text.contains(odd) {
            return Err(NodeNameError(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// The record of a node: which lease is its own, and the addresses it published with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    /// The lease, by its key.
    pub key: SubnetKey,
    /// The public addresses in the lease's value.
    pub public_ips: PerFamily<IpAddr>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    subnet: String,
    #[serde(rename = "publicIP")]
    public_ip: Option<IpAddr>,
    #[serde(rename = "publicIPv6")]
    public_ipv6: Option<IpAddr>,
}

impl NodeRecord {
    /// The JSON form, such as `{"subnet":"10.244.3.0-24","publicIP":"192.0.2.3","publicIPv6":null}`.
    #[must_use]
    pub fn to_json(&self) -> String {
        let wire =
            Wire { subnet: self.key.to_string(), public_ip: self.public_ips.v4, public_ipv6: self.public_ips.v6 };
        // Strings and addresses always serialize.
        serde_json::to_string(&wire).unwrap_or_default()
    }

    /// Reads the JSON form; `None` if it is not one, which a reader treats as if there were no record.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let wire: Wire = serde_json::from_slice(text).ok()?;
        let public_ips = PerFamily {
            v4: wire.public_ip.filter(|ip| Family::of(*ip) == Family::V4),
            v6: wire.public_ipv6.filter(|ip| Family::of(*ip) == Family::V6),
        };
        Some(Self { key: wire.subnet.parse().ok()?, public_ips })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names() {
        for good in ["n1", "node-1.example.org", "Ä"] {
            assert_eq!(good.parse::<NodeName>().unwrap().as_str(), good);
        }
        for bad in ["", "a/b", "a b", "a\n", &"x".repeat(254)] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn records() {
        let record = NodeRecord {
            key: "10.244.3.0-24".parse().unwrap(),
            public_ips: PerFamily { v4: Some("192.0.2.3".parse().unwrap()), v6: None },
        };
        assert_eq!(record.to_json(), r#"{"subnet":"10.244.3.0-24","publicIP":"192.0.2.3","publicIPv6":null}"#);
        assert_eq!(NodeRecord::parse(record.to_json().as_bytes()), Some(record));
        assert_eq!(NodeRecord::parse(b"{}"), None);
        assert_eq!(NodeRecord::parse(br#"{"subnet":"10"}"#), None);
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "\\PC*") {
            let _ = NodeRecord::parse(text.as_bytes());
            let _ = text.parse::<NodeName>();
        }
    }
}
