//! What a node has to give: its subnet, out of the configuration or the subnet file.

use std::io;

use ipnetwork::IpNetwork;

use crate::formats::SubnetEnv;
use crate::ipam::range::{Range, RangeSet};
use crate::lease;
use crate::protocol::config::NetConf;
use crate::protocol::{CniError, Result};

/// What containers of this node get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeNetwork {
    /// One address is given of each set.
    pub(crate) sets: Vec<RangeSet>,
    /// The cluster's networks, if the sets are the node's share of them.
    pub(crate) networks: Vec<IpNetwork>,
    /// MTU in bytes; the kernel's choice if absent.
    pub(crate) mtu: Option<u32>,
}

/// Finds out what this node has to give. Leases a subnet if there is none and the configuration says from where.
///
/// # Errors
/// Code 11 if there is no subnet file, or a bad one; it names the file and what writes it.
pub(crate) fn network(conf: &NetConf) -> Result<NodeNetwork> {
    if !conf.ipam.sets.is_empty() {
        let mtu = match conf.bridge.mtu {
            // The file may well belong to somebody else; only its MTU is of interest.
            None => read(conf).ok().flatten().map(|env| env.mtu),
            mtu => mtu,
        };
        return checked(NodeNetwork { sets: conf.ipam.sets.clone(), networks: Vec::new(), mtu });
    }
    let env = match read(conf)? {
        Some(env) => env,
        None => lease::obtain(conf, || read(conf))?,
    };
    let set = |subnet: &IpNetwork| {
        let network = IpNetwork::new(subnet.network(), subnet.prefix()).unwrap_or(*subnet);
        // The file names the gateway with the subnet; older writers gave the subnet alone.
        let gateway = (subnet.ip() != subnet.network()).then_some(subnet.ip());
        Range::new(network, None, None, gateway)
            .map(|range| vec![range])
            .map_err(|error| CniError::later(format!("subnet file {}: {error}", conf.subnet_file.display())))
    };
    let sets = env.subnets.iter().map(set).collect::<Result<_>>()?;
    checked(NodeNetwork { sets, networks: env.networks, mtu: conf.bridge.mtu.or(Some(env.mtu)) })
}

/// The subnet file; `None` if it is not there.
///
/// # Errors
/// Code 11 if it cannot be read or understood: whoever writes it will write it again.
pub(crate) fn read(conf: &NetConf) -> Result<Option<SubnetEnv>> {
    let path = conf.subnet_file.display();
    match std::fs::read_to_string(&conf.subnet_file) {
        Ok(text) => text.parse().map(Some).map_err(|error| CniError::later(format!("{path} {error}"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CniError::later(format!("failed to load subnet file {path}: {error}"))),
    }
}

fn checked(network: NodeNetwork) -> Result<NodeNetwork> {
    let v6 = network.sets.iter().flatten().any(|range| range.subnet().is_ipv6());
    match network.mtu {
        // The kernel takes IPv6 off a link with less (RFC 8200, section 5).
        Some(mtu) if v6 && mtu < 1280 => {
            Err(CniError::invalid("mtu", mtu, "at least 1280 where there are IPv6 ranges"))
        }
        _ => Ok(network),
    }
}

/// The error for a node without a subnet.
pub(crate) fn missing(conf: &NetConf) -> CniError {
    CniError::later(format!(
        "failed to load subnet file {}: it does not exist yet; the weft agent (DaemonSet weft) writes it when the node has its subnet, check the agent's log on this node",
        conf.subnet_file.display()
    ))
}
