//! A Node as leases see it: its pod networks, and what flannel's annotations say of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

use ipnetwork::IpNetwork;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::annotations::{Annotations, Field};
use crate::cluster::family::{Family, PerFamily};
use crate::cluster::key::SubnetKey;
use crate::cluster::lease_value::LeaseValue;
use crate::cluster::model::{Lease, Rejected, check_value};
use crate::cluster::node::NodeName;
use crate::cluster::services::parse::time::rfc3339;

/// The condition of a Node that says that it has no network.
pub const CONDITION: &str = "NetworkUnavailable";

/// What of a Node concerns leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeNode {
    /// Its name.
    pub name: NodeName,
    /// When it was made, in seconds since 1970; 0 if it does not say.
    pub created: i64,
    /// Its pod networks, of the families that the cluster network has (it may lack one of them), or why there are none.
    pub subnets: Result<SubnetKey, String>,
    /// flannel's annotations.
    pub annotations: BTreeMap<Field, String>,
    /// Status and reason of its condition [`CONDITION`].
    pub condition: Option<(String, String)>,
}

#[derive(Deserialize)]
struct Raw {
    metadata: RawMetadata,
    #[serde(default)]
    spec: RawSpec,
    #[serde(default)]
    status: RawStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawMetadata {
    name: String,
    creation_timestamp: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
struct RawSpec {
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<String>,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
struct RawStatus {
    conditions: Option<Vec<RawCondition>>,
}

#[derive(Deserialize)]
struct RawCondition {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    reason: String,
}

impl KubeNode {
    /// Reads a Node. `families` are those of the cluster network; a pod network of another one is passed over.
    ///
    /// # Errors
    /// JSON that is none of a Node.
    pub fn parse<T>(json: &[u8], annotations: &Annotations, families: &PerFamily<T>) -> Result<Self, String> {
        let Raw { metadata, spec, status } = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let ours = metadata.annotations.unwrap_or_default();
        let ours = ours.into_iter().filter_map(|(name, value)| Some((annotations.field(&name)?, value))).collect();
        let conditions = status.conditions.unwrap_or_default();
        let condition = conditions.into_iter().find(|condition| condition.kind == CONDITION);
        Ok(Self {
            name: metadata.name.parse().map_err(|error: crate::cluster::node::NodeNameError| error.to_string())?,
            created: metadata.creation_timestamp.as_deref().and_then(seconds).unwrap_or_default(),
            subnets: subnets(&spec, families),
            annotations: ours,
            condition: condition.map(|condition| (condition.status, condition.reason)),
        })
    }

    /// Whether it takes part in the overlay: nothing is known of one that does not say so.
    #[must_use]
    pub fn takes_part(&self) -> bool {
        self.annotations.get(&Field::SubnetManager).is_some_and(|text| text == "true")
    }

    /// What the annotations say to peers.
    ///
    /// # Errors
    /// Names the annotation that cannot be used.
    pub fn value(&self) -> Result<LeaseValue, String> {
        let mut members = Map::new();
        for (field, member) in MEMBERS {
            let Some(text) = self.annotations.get(&field) else { continue };
            let value = match field {
                Field::BackendData | Field::BackendV6Data => serde_json::from_str(text)
                    .map_err(|error| format!("annotation {}: {text:?} is no JSON: {error}", field.suffix()))?,
                _ => Value::String(text.clone()),
            };
            members.insert(member.to_owned(), value);
        }
        // By way of the JSON in etcd, so that its rules stand in one place.
        LeaseValue::parse(Value::Object(members).to_string().as_bytes()).map_err(|error| {
            let text = error.to_string();
            // The longer names come first.
            let known = MEMBERS.iter().rev().find(|(_, member)| text.starts_with(member));
            match known {
                Some((field, member)) => format!("annotation {}{}", field.suffix(), &text[member.len()..]),
                None => text,
            }
        })
    }

    /// What the user wants to have published instead of the node's own addresses; what is no address of its family is passed over.
    #[must_use]
    pub fn overwrites(&self) -> PerFamily<IpAddr> {
        self.addresses(Field::PublicIpOverwrite, Field::PublicIpv6Overwrite)
    }

    /// The user's addresses that are none of their family, one line each.
    #[must_use]
    pub fn refused_overwrites(&self, names: &Annotations) -> Vec<String> {
        let refused = |(field, family)| {
            let text = self.annotations.get(&field).filter(|_| self.overwrites().get(family).is_none())?;
            Some(format!("annotation {} is {text:?}; expected an {family} address", names.name(field)))
        };
        [(Field::PublicIpOverwrite, Family::V4), (Field::PublicIpv6Overwrite, Family::V6)]
            .into_iter()
            .filter_map(refused)
            .collect()
    }

    /// The addresses that the user says this node's interface has, by which it is found.
    #[must_use]
    pub fn chosen_addresses(&self) -> PerFamily<IpAddr> {
        self.addresses(Field::NodePublicIp, Field::NodePublicIpv6)
    }

    fn addresses(&self, v4: Field, v6: Field) -> PerFamily<IpAddr> {
        let address = |field, family| {
            let address: IpAddr = self.annotations.get(&field)?.parse().ok()?;
            (Family::of(address) == family).then_some(address)
        };
        PerFamily { v4: address(v4, Family::V4), v6: address(v6, Family::V6) }
    }

    /// The node as a lease; `None` if it takes no part.
    ///
    /// # Errors
    /// Why it cannot be a peer.
    pub fn lease(&self) -> Option<Result<Lease, Rejected>> {
        let refused = |reason| Rejected { key: format!("node {}", self.name), reason };
        self.takes_part().then(|| self.judge().map_err(refused))
    }

    fn judge(&self) -> Result<Lease, String> {
        let key = self.subnets.clone()?;
        let value = self.value()?;
        let key = families_in_use(&key, &value);
        check_value(&key, &value)?;
        Ok(Lease {
            key,
            public_ips: value.public_ips,
            backend: value.backend,
            node: Some(self.name.clone()),
            create_revision: self.created,
            // What a Node says of itself in other fields changes all the time, and is no change of its lease.
        })
    }
}

/// The subnets without those of a family that the node does not speak: where a cluster gets its second family, its nodes get
/// it one after the other. A node that speaks none is left as it is, for the check to say what is missing.
fn families_in_use(key: &SubnetKey, value: &LeaseValue) -> SubnetKey {
    if value.backend.is_none() {
        return *key;
    }
    let is_silent = |family| value.backend.data.get(family).is_none() && value.public_ips.get(family).is_none();
    let spoken = key.subnets().filter_map(|family, subnet| (!is_silent(family)).then_some(*subnet));
    SubnetKey::new(spoken).unwrap_or(*key)
}

/// The annotations that make up a lease's value, and what they are called in it.
const MEMBERS: [(Field, &str); 5] = [
    (Field::BackendType, "BackendType"),
    (Field::BackendData, "BackendData"),
    (Field::BackendV6Data, "BackendV6Data"),
    (Field::PublicIp, "PublicIP"),
    (Field::PublicIpv6, "PublicIPv6"),
];

fn seconds(text: &str) -> Option<i64> {
    let since = rfc3339(text)?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_secs()).ok()
}

fn subnets<T>(spec: &RawSpec, families: &PerFamily<T>) -> Result<SubnetKey, String> {
    let listed = spec.pod_cidrs.iter().flatten();
    let listed: Vec<&String> = if spec.pod_cidrs.is_some() { listed.collect() } else { spec.pod_cidr.iter().collect() };
    let mut found = PerFamily::default();
    for text in listed {
        let network: Option<IpNetwork> = text.parse().ok().filter(|_| text.contains('/'));
        let network = network.ok_or_else(|| format!("spec.podCIDRs has {text:?}; expected such as 10.244.1.0/24"))?;
        let family = Family::of(network.ip());
        if families.get(family).is_some() && found.get(family).is_none() {
            found.set(family, Some(network));
        }
    }
    if found.families().next().is_none() {
        return Err("has no pod network in spec.podCIDRs yet".to_owned());
    }
    SubnetKey::new(found).ok_or_else(|| format!("spec.podCIDRs of {found:?} are no networks for pods"))
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;
