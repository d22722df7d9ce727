//! The messages of IPVS (`IPVS_CMD_*`, `IPVS_CMD_ATTR_*`, linux/ip_vs.h), and what several of them hold.

use std::net::IpAddr;

use crate::IpVersion;
use crate::codec::{Attributes, Writer};

pub(super) const NEW_SERVICE: u8 = 1;
pub(super) const SET_SERVICE: u8 = 2;
pub(super) const DEL_SERVICE: u8 = 3;
pub(super) const GET_SERVICE: u8 = 4;
pub(super) const NEW_DEST: u8 = 5;
pub(super) const SET_DEST: u8 = 6;
pub(super) const DEL_DEST: u8 = 7;
pub(super) const GET_DEST: u8 = 8;
pub(super) const SET_CONFIG: u8 = 12;
pub(super) const GET_CONFIG: u8 = 13;
pub(super) const GET_INFO: u8 = 15;

pub(super) const ATTR_SERVICE: u16 = 1;
pub(super) const ATTR_DEST: u16 = 2;

/// `IPVS_GENL_VERSION`.
const VERSION: u8 = 1;

/// `struct genlmsghdr` of a command.
pub(super) const fn header(command: u8) -> [u8; 4] {
    [command, VERSION, 0, 0]
}

/// Writes an address as `union nf_inet_addr`: sixteen bytes, of which IPv4 has the first four.
pub(super) fn write_address(w: &mut Writer, kind: u16, address: IpAddr) {
    let mut union = [0; 16];
    match address {
        IpAddr::V4(v4) => union[..4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => union = v6.octets(),
    }
    w.raw(kind, &union);
}

pub(super) fn read_address(attributes: Attributes<'_>, kind: u16, version: IpVersion) -> Option<IpAddr> {
    let bytes = attributes.raw(kind)?;
    match version {
        IpVersion::V4 => bytes.first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
        IpVersion::V6 => bytes.first_chunk::<16>().map(|octets| IpAddr::from(*octets)),
    }
}

/// The version of an address family as IPVS sends it, in 16 bits.
pub(super) fn read_version(attributes: Attributes<'_>, kind: u16) -> Option<Result<IpVersion, String>> {
    let number = attributes.u16(kind)?;
    let version = u8::try_from(number).ok().and_then(IpVersion::from_number);
    Some(version.ok_or_else(|| format!("address family {number} is neither IPv4 nor IPv6")))
}
