//! Real servers: who answers.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::Stats;
use super::message::{read_address, read_version, write_address};
use crate::IpVersion;
use crate::codec::{Attributes, Writer};

const ADDR: u16 = 1;
const PORT: u16 = 2;
const FWD_METHOD: u16 = 3;
const WEIGHT: u16 = 4;
const U_THRESH: u16 = 5;
const L_THRESH: u16 = 6;
const ACTIVE_CONNS: u16 = 7;
const INACT_CONNS: u16 = 8;
const PERSIST_CONNS: u16 = 9;
const STATS: u16 = 10;
const ADDR_FAMILY: u16 = 11;
const STATS64: u16 = 12;
/// `IP_VS_CONN_F_FWD_MASK`.
const FORWARD: u32 = 7;

/// How packets reach a real server (`IP_VS_CONN_F_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Forward {
    /// With the destination rewritten, and on the way back the source.
    #[default]
    Masquerade,
    /// To this machine itself.
    Local,
    /// In another IP packet.
    Tunnel,
    /// As they are, to the neighbour of this address.
    Direct,
    /// As they are, by the routing table.
    Bypass,
}

impl Forward {
    fn number(self) -> u32 {
        match self {
            Self::Masquerade => 0,
            Self::Local => 1,
            Self::Tunnel => 2,
            Self::Direct => 3,
            Self::Bypass => 4,
        }
    }

    fn from_number(number: u32) -> Result<Self, String> {
        Ok(match number & FORWARD {
            0 => Self::Masquerade,
            1 => Self::Local,
            2 => Self::Tunnel,
            3 => Self::Direct,
            4 => Self::Bypass,
            other => return Err(format!("{other} is no way to forward to a real server (0 to 4)")),
        })
    }
}

/// A real server, identified among those of its virtual server by [`socket_address`](Self::socket_address).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RealServer {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// How packets get there.
    pub forward: Forward,
    /// Its share of new connections beside the others'; 0 for none: connections that it has go on. At most `i32::MAX`.
    pub weight: u32,
    /// It gets no new connections while it has so many; 0: no limit.
    pub upper_threshold: u32,
    /// After the upper threshold was reached, it gets none until it has fewer than so many; 0: three quarters of that one.
    pub lower_threshold: u32,
}

impl RealServer {
    /// A real server of this weight behind address translation, without limits.
    #[must_use]
    pub fn new(address: IpAddr, port: u16, weight: u32) -> Self {
        Self { address, port, forward: Forward::default(), weight, upper_threshold: 0, lower_threshold: 0 }
    }

    /// What identifies it.
    #[must_use]
    pub fn socket_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }

    /// Writes all of it: IPVS has no default for anything.
    pub(super) fn write(&self, w: &mut Writer) {
        write_identity(w, self.socket_address());
        w.u32(FWD_METHOD, self.forward.number());
        w.u32(WEIGHT, self.weight);
        w.u32(U_THRESH, self.upper_threshold);
        w.u32(L_THRESH, self.lower_threshold);
    }

    /// `version` is that of the virtual server: kernels before 3.18 do not say a real server's own.
    fn read(attributes: Attributes<'_>, version: IpVersion) -> Result<Self, String> {
        let identity = read_identity(attributes, version)?;
        let number = |kind: u16, what: &str| {
            attributes.u32(kind).ok_or_else(|| format!("the real server {identity} without {what}"))
        };
        Ok(Self {
            address: identity.ip(),
            port: identity.port(),
            forward: Forward::from_number(number(FWD_METHOD, "forwarding method")?)?,
            weight: number(WEIGHT, "weight")?,
            upper_threshold: number(U_THRESH, "upper threshold")?,
            lower_threshold: number(L_THRESH, "lower threshold")?,
        })
    }
}

impl fmt::Display for RealServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket_address().fmt(f)
    }
}

pub(super) fn write_identity(w: &mut Writer, identity: SocketAddr) {
    write_address(w, ADDR, identity.ip());
    w.be16(PORT, identity.port());
    w.u16(ADDR_FAMILY, u16::from(IpVersion::of(identity.ip()).number()));
}

pub(super) fn read_identity(attributes: Attributes<'_>, version: IpVersion) -> Result<SocketAddr, String> {
    let version = read_version(attributes, ADDR_FAMILY).unwrap_or(Ok(version))?;
    let address = read_address(attributes, ADDR, version).ok_or("a real server without address")?;
    let port = attributes.be16(PORT).ok_or("a real server without port")?;
    Ok(SocketAddr::new(address, port))
}

/// A real server as the kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RealServerInfo {
    /// What it is.
    pub server: RealServer,
    /// Connections that are established.
    pub active: u32,
    /// Connections that are in any other state, such as half closed; all of UDP's.
    pub inactive: u32,
    /// Clients that persistence keeps here.
    pub persistent: u32,
    /// What it has served.
    pub stats: Stats,
}

impl RealServerInfo {
    pub(super) fn read(attributes: Attributes<'_>, version: IpVersion) -> Result<Self, String> {
        let count = |kind: u16| attributes.u32(kind).unwrap_or_default();
        Ok(Self {
            server: RealServer::read(attributes, version)?,
            active: count(ACTIVE_CONNS),
            inactive: count(INACT_CONNS),
            persistent: count(PERSIST_CONNS),
            stats: Stats::read(attributes, STATS, STATS64),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_server() -> impl Strategy<Value = RealServer> {
        let forward = prop_oneof![
            Just(Forward::Masquerade),
            Just(Forward::Local),
            Just(Forward::Tunnel),
            Just(Forward::Direct),
            Just(Forward::Bypass),
        ];
        (any::<(IpAddr, u16, u32, u32, u32)>(), forward).prop_map(
            |((address, port, weight, upper_threshold, lower_threshold), forward)| RealServer {
                address,
                port,
                forward,
                weight,
                upper_threshold,
                lower_threshold,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(server in any_server()) {
            let mut writer = Writer::default();
            server.write(&mut writer);
            prop_assert_eq!(writer.fault(), None);
            // The version of the virtual server is not that of a tunnelled real server.
            for version in [IpVersion::V4, IpVersion::V6] {
                prop_assert_eq!(RealServer::read(Attributes(writer.bytes()), version), Ok(server));
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            let _ = RealServerInfo::read(Attributes(&bytes), IpVersion::V4);
        }
    }

    #[test]
    fn without_a_family_it_is_that_of_the_virtual_server() {
        let mut writer = Writer::default();
        writer.raw(ADDR, &[10, 244, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        writer.be16(PORT, 8080);
        // Beside the method other bits may be set.
        writer.u32(FWD_METHOD, 0x100);
        [WEIGHT, U_THRESH, L_THRESH].into_iter().for_each(|kind| writer.u32(kind, 1));
        writer.u32(ACTIVE_CONNS, 3);
        let info = RealServerInfo::read(Attributes(writer.bytes()), IpVersion::V4).unwrap();
        assert_eq!((info.server.to_string().as_str(), info.active), ("10.244.1.2:8080", 3));
        assert_eq!(info.server.forward, Forward::Masquerade);
    }
}
