//! The transports that a Service can carry, as sockets.

use std::io;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

/// How a question is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP, one association a question (RFC 6458 section 4). Not every kernel has it.
    Sctp,
}

/// `IPPROTO_SCTP`.
const SCTP: i32 = 132;

impl Transport {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// As the Kubernetes API writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }

    /// Whether this kernel has it.
    #[must_use]
    pub fn available(self) -> bool {
        self.socket(false).is_ok()
    }

    /// A socket in the namespace of the calling thread.
    ///
    /// # Errors
    /// When the kernel lacks the transport or the family.
    pub fn socket(self, v6: bool) -> io::Result<Socket> {
        let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
        let socket = match self {
            Self::Tcp => Socket::new(domain, Type::STREAM, Some(Protocol::TCP)),
            Self::Udp => Socket::new(domain, Type::DGRAM, Some(Protocol::UDP)),
            Self::Sctp => Socket::new(domain, Type::STREAM, Some(Protocol::from(SCTP))),
        }?;
        if v6 {
            // Each family has its own socket, so that an address is seen in the family that it was sent in.
            socket.set_only_v6(true)?;
        }
        Ok(socket)
    }

    /// A socket bound to a port of every address of a family, that takes connections if the transport has them.
    ///
    /// # Errors
    /// When the port is taken, or as [`Transport::socket`].
    pub(super) fn listener(self, v6: bool, port: u16) -> io::Result<Socket> {
        let any: IpAddr =
            if v6 { std::net::Ipv6Addr::UNSPECIFIED.into() } else { std::net::Ipv4Addr::UNSPECIFIED.into() };
        let socket = self.socket(v6)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::new(any, port).into())?;
        if self != Self::Udp {
            socket.listen(4096)?;
        }
        Ok(socket)
    }
}
