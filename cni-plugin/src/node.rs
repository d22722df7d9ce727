//! What a node has to give: its subnet, out of the configuration or the subnet file.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use ipnetwork::IpNetwork;
use nix::libc;

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
    match known(conf)? {
        Some(network) => Ok(network),
        None => leased(conf, lease::obtain(conf, || read(conf))?),
    }
}

/// What this node has to give, as far as it is known already; `None` if there is no subnet file.
///
/// # Errors
/// Code 11 for a bad subnet file, code 7 for a configuration that does not go with it.
pub(crate) fn known(conf: &NetConf) -> Result<Option<NodeNetwork>> {
    if !conf.ipam.sets.is_empty() || conf.ipam.fixed.is_some() {
        let mtu = match conf.bridge.mtu {
            // The file may well belong to somebody else; only its MTU is of interest.
            None => read(conf).ok().flatten().map(|env| env.mtu),
            mtu => mtu,
        };
        return checked(conf, NodeNetwork { sets: conf.ipam.sets.clone(), networks: Vec::new(), mtu }).map(Some);
    }
    read(conf)?.map(|env| leased(conf, env)).transpose()
}

fn leased(conf: &NetConf, env: SubnetEnv) -> Result<NodeNetwork> {
    let set = |subnet: &IpNetwork| {
        let network = IpNetwork::new(subnet.network(), subnet.prefix()).unwrap_or(*subnet);
        // The file names the gateway with the subnet; older writers gave the subnet alone.
        let gateway = (subnet.ip() != subnet.network()).then_some(subnet.ip());
        Range::new(network, None, None, gateway)
            .map(|range| vec![range])
            .map_err(|error| CniError::later(format!("subnet file {}: {error}", conf.subnet_file.display())))
    };
    let sets = env.subnets.iter().map(set).collect::<Result<_>>()?;
    checked(conf, NodeNetwork { sets, networks: env.networks, mtu: conf.bridge.mtu.or(Some(env.mtu)) })
}

/// The subnet file; `None` if it is not there.
///
/// # Errors
/// Code 11 if it cannot be read or understood: whoever writes it will write it again.
fn read(conf: &NetConf) -> Result<Option<SubnetEnv>> {
    let path = conf.subnet_file.display();
    match read_regular(&conf.subnet_file) {
        Ok(text) => text.parse().map(Some).map_err(|error| CniError::later(format!("{path} {error}"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CniError::later(format!("failed to load subnet file {path}: {error}"))),
    }
}

/// Reads a file, and never waits: a FIFO in its place is refused.
fn read_regular(path: &Path) -> io::Result<String> {
    let mut file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

fn checked(conf: &NetConf, network: NodeNetwork) -> Result<NodeNetwork> {
    let v6 = network.sets.iter().flatten().any(|range| range.subnet().is_ipv6())
        || conf.ipam.fixed.iter().flatten().any(|ip| ip.address.is_ipv6());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Code;
    use crate::protocol::env::Args;
    use crate::protocol::json::Json;

    fn conf(members: &str) -> NetConf {
        let text = format!(r#"{{"cniVersion":"1.1.0","name":"net","subnetFile":{members}}}"#);
        NetConf::parse(&Json::parse_object(text.as_bytes()).unwrap(), &Args::default()).unwrap()
    }

    #[test]
    fn t124_what_is_known_is_checked_and_nothing_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = known(&conf(&format!("{fifo:?}"))).unwrap_err();
        assert!(error.code == Code::TryAgainLater && error.message.contains("not a regular file"), "{error}");
        assert_eq!(known(&conf(r#""/nonexistent""#)).unwrap(), None);
        let ranges = r#""/nonexistent","mtu":1000,"ipam":{"ranges":[[{"subnet":"fd00::/64"}]]}"#;
        assert_eq!(known(&conf(ranges)).unwrap_err().code, Code::InvalidConfig);
    }
}
