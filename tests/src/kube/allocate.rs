//! Cluster IPs and node ports, as the API server would give them out.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, bail};

use super::Service;
use crate::probe::Transport;

/// The lab's Service network, as kubeadm has it.
pub const SERVICE_CIDR_V4: &str = "10.96.0.0/12";
/// The same of IPv6.
pub const SERVICE_CIDR_V6: &str = "fd00:10:96::/112";

/// The first addresses are left to those that ask for them, as `kubernetes` and DNS do.
const FIRST: u16 = 16;
/// How many addresses are given out without being asked for.
const COUNT: u16 = 4096;
/// Kubernetes' default range.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;

/// What is in use.
#[derive(Debug, Clone, Default)]
pub struct Taken {
    ips: BTreeSet<IpAddr>,
    node_ports: BTreeSet<(Transport, u16)>,
}

/// A way to an address or a node port: a given one, or any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allocation<T> {
    /// The first that is free.
    Any,
    /// This one.
    Given(T),
}

impl<T> From<Option<T>> for Allocation<T> {
    fn from(given: Option<T>) -> Self {
        given.map_or(Self::Any, Self::Given)
    }
}

impl Taken {
    /// What these Services use.
    #[must_use]
    pub fn by<'a>(services: impl IntoIterator<Item = &'a Service>) -> Self {
        let mut this = Self::default();
        for service in services {
            this.ips.extend(service.cluster_ips());
            let ports = service.ports().into_iter();
            this.node_ports.extend(ports.filter_map(|port| Some((port.transport, port.node_port?))));
        }
        this
    }

    /// Takes a cluster IP of a family.
    ///
    /// # Errors
    /// When the given one is in use or not in the Service network, or none is free.
    pub fn cluster_ip(&mut self, v6: bool, wanted: Allocation<IpAddr>) -> Result<IpAddr> {
        let ip = match wanted {
            Allocation::Given(ip) if ip.is_ipv6() != v6 || !in_network(ip) => {
                bail!("{ip} is not in the Service network {}", if v6 { SERVICE_CIDR_V6 } else { SERVICE_CIDR_V4 })
            }
            Allocation::Given(ip) if self.ips.contains(&ip) => bail!("{ip} is another Service's"),
            Allocation::Given(ip) => ip,
            Allocation::Any => {
                let mut all = (FIRST..FIRST + COUNT).map(|number| nth(v6, number));
                all.find(|ip| !self.ips.contains(ip)).context("no cluster IP is free")?
            }
        };
        self.ips.insert(ip);
        Ok(ip)
    }

    /// Takes a node port.
    ///
    /// # Errors
    /// When the given one is in use or out of range, or none is free.
    pub fn node_port(&mut self, transport: Transport, wanted: Allocation<u16>) -> Result<u16> {
        let port = match wanted {
            Allocation::Given(port) if !NODE_PORTS.contains(&port) => {
                bail!("node ports are {NODE_PORTS:?}, not {port}")
            }
            Allocation::Given(port) if self.node_ports.contains(&(transport, port)) => {
                bail!("node port {port}/{} is another Service's", transport.name())
            }
            Allocation::Given(port) => port,
            Allocation::Any => {
                let free = NODE_PORTS.into_iter().find(|port| !self.node_ports.contains(&(transport, *port)));
                free.context("no node port is free")?
            }
        };
        self.node_ports.insert((transport, port));
        Ok(port)
    }
}

/// The address of that number in the Service network.
fn nth(v6: bool, number: u16) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, number).into()
    } else {
        let [high, low] = number.to_be_bytes();
        Ipv4Addr::new(10, 96, high, low).into()
    }
}

fn in_network(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.octets()[0] == 10 && v4.octets()[1] & 0xf0 == 96,
        IpAddr::V6(v6) => v6.segments()[..7] == [0xfd00, 0x10, 0x96, 0, 0, 0, 0],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::Port;

    #[test]
    fn what_is_in_use_is_not_given_out_again() {
        let ips = ["10.96.0.16", "fd00:10:96::10"].map(|ip| ip.parse().unwrap());
        let service = Service::new("a", "b", &ips).port(&Port::tcp(80, 80).on_nodes(30000));
        let mut taken = Taken::by([&service]);
        assert_eq!(taken.cluster_ip(false, Allocation::Any).unwrap().to_string(), "10.96.0.17");
        assert_eq!(taken.cluster_ip(false, Allocation::Any).unwrap().to_string(), "10.96.0.18");
        assert_eq!(taken.cluster_ip(true, Allocation::Any).unwrap().to_string(), "fd00:10:96::11");
        assert!(taken.cluster_ip(false, Allocation::Given(ips[0])).is_err());
        assert!(taken.cluster_ip(false, Allocation::Given("10.112.0.1".parse().unwrap())).is_err());
        assert!(taken.cluster_ip(false, Allocation::Given("10.111.9.9".parse().unwrap())).is_ok());
        assert_eq!(taken.node_port(Transport::Tcp, Allocation::Any).unwrap(), 30001);
        assert_eq!(taken.node_port(Transport::Udp, Allocation::Any).unwrap(), 30000);
        assert!(taken.node_port(Transport::Tcp, Allocation::Given(30000)).is_err());
        assert!(taken.node_port(Transport::Tcp, Allocation::Given(80)).is_err());
    }
}
