//! The numbers of WireGuard's messages (linux/wireguard.h), and addresses in them.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use ipnetwork::IpNetwork;

use crate::IpVersion;
use crate::codec::{Attributes, Writer};

pub(super) const GET_DEVICE: u8 = 0;
pub(super) const SET_DEVICE: u8 = 1;

pub(super) const DEVICE_IFINDEX: u16 = 1;
pub(super) const DEVICE_PRIVATE_KEY: u16 = 3;
pub(super) const DEVICE_PUBLIC_KEY: u16 = 4;
pub(super) const DEVICE_LISTEN_PORT: u16 = 6;
pub(super) const DEVICE_FWMARK: u16 = 7;
pub(super) const DEVICE_PEERS: u16 = 8;

const ALLOWED_FAMILY: u16 = 1;
const ALLOWED_ADDRESS: u16 = 2;
const ALLOWED_PREFIX: u16 = 3;

/// `WG_GENL_VERSION`.
const VERSION: u8 = 1;

/// `struct genlmsghdr` of a command.
pub(super) const fn header(command: u8) -> [u8; 4] {
    [command, VERSION, 0, 0]
}

/// An endpoint as `struct sockaddr_in` or `struct sockaddr_in6`.
pub(super) fn write_endpoint(w: &mut Writer, kind: u16, endpoint: SocketAddr) {
    let mut bytes = Vec::with_capacity(28);
    bytes.extend(u16::from(family(endpoint.ip())).to_ne_bytes());
    bytes.extend(endpoint.port().to_be_bytes());
    match endpoint {
        SocketAddr::V4(v4) => {
            bytes.extend(v4.ip().octets());
            bytes.extend([0; 8]);
        }
        SocketAddr::V6(v6) => {
            bytes.extend(v6.flowinfo().to_be_bytes());
            bytes.extend(v6.ip().octets());
            bytes.extend(v6.scope_id().to_ne_bytes());
        }
    }
    w.raw(kind, &bytes);
}

/// `None` for a family that is neither IPv4 nor IPv6, which is how the kernel says that there is no endpoint.
pub(super) fn read_endpoint(bytes: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(*bytes.first_chunk()?);
    let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
    match version(family)? {
        IpVersion::V4 => Some(SocketAddr::new(IpAddr::from(*bytes.get(4..)?.first_chunk::<4>()?), port)),
        IpVersion::V6 => {
            let flow = u32::from_be_bytes(*bytes.get(4..)?.first_chunk()?);
            let ip = *bytes.get(8..)?.first_chunk::<16>()?;
            let scope = u32::from_ne_bytes(*bytes.get(24..)?.first_chunk()?);
            Some(SocketAddr::V6(SocketAddrV6::new(ip.into(), port, flow, scope)))
        }
    }
}

pub(super) fn write_network(w: &mut Writer, network: IpNetwork) {
    w.u16(ALLOWED_FAMILY, u16::from(family(network.ip())));
    match network.network() {
        IpAddr::V4(v4) => w.raw(ALLOWED_ADDRESS, &v4.octets()),
        IpAddr::V6(v6) => w.raw(ALLOWED_ADDRESS, &v6.octets()),
    }
    w.byte(ALLOWED_PREFIX, network.prefix());
}

pub(super) fn read_network(attributes: Attributes<'_>) -> Result<IpNetwork, String> {
    let family = attributes.u16(ALLOWED_FAMILY).ok_or("allowed addresses are of no family")?;
    let version = version(family).ok_or_else(|| format!("allowed addresses are of family {family}"))?;
    let bytes = attributes.raw(ALLOWED_ADDRESS).unwrap_or_default();
    let address = match version {
        IpVersion::V4 => bytes.first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
        IpVersion::V6 => bytes.first_chunk::<16>().map(|octets| IpAddr::from(*octets)),
    };
    let address = address.ok_or("allowed addresses are cut short")?;
    let prefix = attributes.byte(ALLOWED_PREFIX).ok_or("allowed addresses have no prefix length")?;
    IpNetwork::new(address, prefix).map_err(|error| format!("allowed addresses {address}/{prefix}: {error}"))
}

/// `AF_INET` or `AF_INET6`.
fn family(address: IpAddr) -> u8 {
    IpVersion::of(address).number()
}

fn version(family: u16) -> Option<IpVersion> {
    IpVersion::from_number(u8::try_from(family).ok()?)
}
