//! Ports of the host that lead to a container, as an attachment's record keeps them.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use weft_netlink::protocol;

/// A transport protocol of a host port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// Its number in IP headers (`IPPROTO_*`, linux/in.h).
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => protocol::TCP,
            Self::Udp => protocol::UDP,
            Self::Sctp => protocol::SCTP,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// A port of the host that leads to a port of the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// Port on the host.
    pub host_port: u16,
    /// Port in the container.
    pub container_port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// The one address of the host that it applies to; all of one family if it is that family's unspecified address, all
    /// there are if absent.
    #[serde(default, rename = "hostIP", skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
}

impl PortMapping {
    /// Whether both claim the host's port for the same protocol; of which address is not looked at.
    #[must_use]
    pub fn has_port_of(&self, other: &Self) -> bool {
        (self.host_port, self.protocol) == (other.host_port, other.protocol)
    }
}

impl fmt::Display for PortMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host_port, self.protocol)?;
        self.host_ip.map_or(Ok(()), |ip| write!(f, " of {ip}"))
    }
}

/// The host ports of an attachment, and who is masqueraded on the way through them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostPorts {
    /// The ports.
    pub mappings: Vec<PortMapping>,
    /// Whether clients are masqueraded whose answers would else not come back through the host: the container itself,
    /// others on its bridge, the host by its loopback address.
    pub snat: bool,
    /// Whether all clients are masqueraded.
    pub masq_all: bool,
}

impl HostPorts {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.mappings.is_empty()
    }
}

impl Default for HostPorts {
    fn default() -> Self {
        Self { mappings: Vec::new(), snat: true, masq_all: false }
    }
}
