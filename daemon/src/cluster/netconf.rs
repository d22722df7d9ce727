//! flannel's `net-conf.json`, the value of `<prefix>/config`: which addresses there are to lease and how peers are reached.
//!
//! Keys match in any case. Defaults and rules are flannel's, but for the back end that an absent `Backend` means: vxlan,
//! as flannel's documentation says (its code says udp). A key that means nothing is reported as a warning, never silently dropped.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::{Value, json};

use super::family::{Family, PerFamily};
use super::fields::{Fields, NetConfError, kind_of, unknown, wrong};
use super::json::Caseless;
use super::pool::{Pool, address, number};
use crate::overlay::backend::{self, Chosen};

const KEYS: &[&str] = &[
    "Network",
    "EnableIPv4",
    "EnableIPv6",
    "IPv6Network",
    "EnableNFTables",
    "SubnetLen",
    "SubnetMin",
    "SubnetMax",
    "IPv6SubnetLen",
    "IPv6SubnetMin",
    "IPv6SubnetMax",
    "Backend",
];

/// The network configuration that all nodes share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetConf {
    /// What is leased, for each family in use; at least one.
    pub pools: PerFamily<Pool>,
    /// How the nodes reach each other.
    pub backend: Chosen,
}

impl NetConf {
    /// Reads a net-conf, and lists the keys that mean nothing.
    ///
    /// # Errors
    /// Names the first key whose value cannot be used.
    pub fn parse(text: &[u8]) -> Result<(Self, Vec<String>), NetConfError> {
        let value: Value = serde_json::from_slice(text).map_err(|e| NetConfError::NotAnObject(e.to_string()))?;
        let object = Caseless::new(&value).ok_or_else(|| NetConfError::NotAnObject(kind_of(&value).to_owned()))?;
        let mut warnings: Vec<String> = object.unknown(KEYS).map(|key| unknown(key, "", KEYS)).collect();
        let pools = pools(&Fields(object))?;
        let backend = backend(&Fields(object), &mut warnings)?;
        Ok((Self { pools, backend }, warnings))
    }

    /// The value to put at `<prefix>/config`, with every default written out that flannel would choose differently.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut out = serde_json::Map::new();
        if let Some(pool) = self.pools.v4 {
            out.insert("Network".into(), json!(pool.network().to_string()));
        } else {
            out.insert("EnableIPv4".into(), json!(false));
        }
        if let Some(pool) = self.pools.v6 {
            out.insert("EnableIPv6".into(), json!(true));
            out.insert("IPv6Network".into(), json!(pool.network().to_string()));
        }
        for (family, pool) in self.pools.iter() {
            let names = Names::of(family);
            out.insert(names.len.into(), json!(pool.subnet_len()));
            for (name, index) in [(names.min, 0), (names.max, pool.size() - 1)] {
                if let Some(subnet) = pool.nth(index) {
                    out.insert(name.into(), json!(subnet.ip().to_string()));
                }
            }
        }
        out.insert("Backend".into(), self.backend.to_json());
        Value::Object(out).to_string()
    }

    /// Bytes that the back end takes from the underlay's MTU. The larger family decides, because a node has one pod MTU.
    #[must_use]
    pub fn overhead(&self) -> u32 {
        self.backend.overhead(if self.pools.v6.is_some() { Family::V6 } else { Family::V4 })
    }
}

/// The spelling of one family's keys.
struct Names {
    network: &'static str,
    len: &'static str,
    min: &'static str,
    max: &'static str,
}

impl Names {
    const fn of(family: Family) -> Self {
        match family {
            Family::V4 => Self { network: "Network", len: "SubnetLen", min: "SubnetMin", max: "SubnetMax" },
            Family::V6 => {
                Self { network: "IPv6Network", len: "IPv6SubnetLen", min: "IPv6SubnetMin", max: "IPv6SubnetMax" }
            }
        }
    }
}

fn pools(fields: &Fields<'_>) -> Result<PerFamily<Pool>, NetConfError> {
    let mut pools = PerFamily::default();
    for (family, switch, default) in [(Family::V4, "EnableIPv4", true), (Family::V6, "EnableIPv6", false)] {
        if fields.boolean(switch)?.unwrap_or(default) {
            pools.set(family, Some(pool(fields, family)?));
        }
    }
    if pools.is_empty() {
        return Err(wrong("EnableIPv4", "false", "at least one of EnableIPv4 and EnableIPv6 to be true"));
    }
    Ok(pools)
}

fn pool(fields: &Fields<'_>, family: Family) -> Result<Pool, NetConfError> {
    let names = Names::of(family);
    let network = fields.network(&names, family)?;
    let (bits, prefix) = (family.bits(), network.prefix());
    // flannel's defaults: a /24 or a /64 where the network has room for four of them, else a quarter of the network.
    let usual = if bits == 32 { 24 } else { 64 };
    let len = match fields.integer(names.len, u64::from(bits - 2), "a prefix length of at most /30 (IPv6: /126)")? {
        None | Some(0) if prefix > bits - 4 => {
            let expected = format!("a network of at least a /{}, so that four nodes get a subnet each", bits - 4);
            return Err(wrong(names.network, &network.to_string(), &expected));
        }
        None | Some(0) if prefix <= usual - 2 => usual,
        None | Some(0) => prefix + 2,
        Some(len) => u8::try_from(len).unwrap_or(bits),
    };
    if len < prefix.saturating_add(2) {
        let expected = format!("at least {}, so that four subnets fit into {network}", prefix.saturating_add(2));
        return Err(wrong(names.len, &len.to_string(), &expected));
    }
    let step = 1_u128 << (bits - len);
    // The first subnet is left out: its .0 is the cluster network's own address.
    let given_min = fields.bound(names.min, network, step)?;
    let min = given_min.unwrap_or_else(|| number(network.network()) + step);
    let max = fields.bound(names.max, network, step)?.unwrap_or_else(|| number(network.broadcast()) - (step - 1));
    if min > max {
        let (low, high) = (address(family, min).to_string(), address(family, max).to_string());
        return Err(match given_min {
            Some(_) => wrong(names.min, &low, &format!("an address not beyond {}, {high}", names.max)),
            None => wrong(names.max, &high, &format!("an address not before {}, {low}", names.min)),
        });
    }
    Ok(Pool::new(network, len, address(family, min), address(family, max)))
}

fn backend(fields: &Fields<'_>, warnings: &mut Vec<String>) -> Result<Chosen, NetConfError> {
    let Some(value) = fields.0.get("Backend") else { return Ok(Chosen::default()) };
    let object = Caseless::new(value).ok_or_else(|| wrong("Backend", kind_of(value), "an object with a Type"))?;
    let options = Fields(object);
    let kind = match options.string("Type")? {
        None => backend::default_kind(),
        Some(name) => backend::kind(name).ok_or_else(|| {
            let expected = format!("one of the supported back ends: {}", backend::names().join(", "));
            wrong("Backend.Type", &format!("{name:?}"), &expected)
        })?,
    };
    let known: Vec<&str> = ["Type"].into_iter().chain(kind.keys.iter().copied()).collect();
    warnings.extend(object.unknown(&known).map(|key| unknown(key, "Backend.", &known)));
    (kind.parse)(&options).map(Chosen)
}

/// Look-ups of what a pool is made of.
impl Fields<'_> {
    /// The family's network, without host bits, as Go's `net.ParseCIDR` gives it.
    fn network(&self, names: &Names, family: Family) -> Result<IpNetwork, NetConfError> {
        let expected = format!("the cluster's {family} network, such as {}", example(family));
        let text = self.string(names.network)?.ok_or_else(|| wrong(names.network, "missing", &expected))?;
        let refused = || wrong(names.network, &format!("{text:?}"), &expected);
        if !text.contains('/') {
            return Err(refused());
        }
        let given: IpNetwork = text.parse().map_err(|_| refused())?;
        let network = IpNetwork::new(given.network(), given.prefix()).map_err(|_| refused())?;
        if Family::of(network.ip()) == family && network.prefix() > 0 { Ok(network) } else { Err(refused()) }
    }

    /// `SubnetMin` or `SubnetMax` as a number: in the network, on a subnet boundary.
    fn bound(&self, key: &'static str, network: IpNetwork, step: u128) -> Result<Option<u128>, NetConfError> {
        let Some(text) = self.string(key)?.filter(|text| !text.is_empty()) else { return Ok(None) };
        let refused = |expected: String| wrong(key, &format!("{text:?}"), &expected);
        let bound: IpAddr = text.parse().map_err(|_| refused("an address without a length".into()))?;
        if !network.contains(bound) {
            return Err(refused(format!("an address in the network {network}")));
        }
        if !number(bound).is_multiple_of(step) {
            let near = address(Family::of(bound), number(bound) - number(bound) % step);
            return Err(refused(format!("the first address of a subnet, such as {near}")));
        }
        Ok(Some(number(bound)))
    }
}

const fn example(family: Family) -> &'static str {
    match family {
        Family::V4 => "10.244.0.0/16",
        Family::V6 => "2001:cafe:42::/56",
    }
}

#[cfg(test)]
#[path = "netconf_tests.rs"]
mod tests;
