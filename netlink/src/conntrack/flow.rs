//! What the kernel remembers of a flow.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::Status;
use super::message::{
    CTA_ID, CTA_MARK, CTA_PROTO_DST_PORT, CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_STATUS, CTA_TUPLE_IP, CTA_TUPLE_ORIG,
    CTA_TUPLE_PROTO, CTA_TUPLE_REPLY, CTA_ZONE,
};
use crate::codec::{Attributes, Writer};
use crate::{IpVersion, protocol};

/// Packets of one direction: where from, where to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// The IP protocol, one that has ports ([`protocol`]).
    pub protocol: u8,
    /// Where its packets come from.
    pub source: SocketAddr,
    /// Where its packets go; of the same IP version.
    pub destination: SocketAddr,
}

impl Tuple {
    pub(super) fn version(&self) -> IpVersion {
        IpVersion::of(self.source.ip())
    }

    /// The kinds of the addresses of source and destination (`CTA_IP_V4_SRC` …).
    fn address_kinds(version: IpVersion) -> (u16, u16) {
        match version {
            IpVersion::V4 => (1, 2),
            IpVersion::V6 => (3, 4),
        }
    }

    pub(super) fn write(&self, w: &mut Writer, kind: u16) {
        let (source, destination) = Self::address_kinds(self.version());
        w.nest(kind, |w| {
            w.nest(CTA_TUPLE_IP, |w| {
                write_address(w, source, self.source.ip());
                write_address(w, destination, self.destination.ip());
            });
            w.nest(CTA_TUPLE_PROTO, |w| {
                w.byte(CTA_PROTO_NUM, self.protocol);
                w.be16(CTA_PROTO_SRC_PORT, self.source.port());
                w.be16(CTA_PROTO_DST_PORT, self.destination.port());
            });
        });
    }

    /// `None` if it is not of this version of IP, or has no ports.
    pub(super) fn read(tuple: Attributes<'_>, version: IpVersion) -> Option<Self> {
        let (addresses, ports) = (tuple.nest(CTA_TUPLE_IP)?, tuple.nest(CTA_TUPLE_PROTO)?);
        let (source, destination) = Self::address_kinds(version);
        let source = SocketAddr::new(read_address(addresses, source, version)?, ports.be16(CTA_PROTO_SRC_PORT)?);
        let destination =
            SocketAddr::new(read_address(addresses, destination, version)?, ports.be16(CTA_PROTO_DST_PORT)?);
        Some(Self { protocol: ports.byte(CTA_PROTO_NUM)?, source, destination })
    }
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}", protocol::name(self.protocol), self.source, self.destination)
    }
}

fn write_address(w: &mut Writer, kind: u16, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => w.raw(kind, &v4.octets()),
        IpAddr::V6(v6) => w.raw(kind, &v6.octets()),
    }
}

fn read_address(addresses: Attributes<'_>, kind: u16, version: IpVersion) -> Option<IpAddr> {
    let bytes = addresses.raw(kind)?;
    match version {
        IpVersion::V4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        IpVersion::V6 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}

/// What identifies a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// The packets as their sender sends them.
    pub original: Tuple,
    /// The conntrack zone, 0 unless rules choose another.
    pub zone: u16,
    /// The kernel's number of just this flow, though a later one of the same packets may get it again (it is made from
    /// these and where in memory the flow is); `None`: whatever flow there is now with such packets.
    pub id: Option<u32>,
}

impl FlowKey {
    pub(super) fn write(&self, w: &mut Writer) {
        self.original.write(w, CTA_TUPLE_ORIG);
        // Kernels without zones refuse the attribute.
        if self.zone != 0 {
            w.be16(CTA_ZONE, self.zone);
        }
        if let Some(id) = self.id {
            w.be32(CTA_ID, id);
        }
    }
}

/// Whatever flow of zone 0 has such packets.
impl From<Tuple> for FlowKey {
    fn from(original: Tuple) -> Self {
        Self { original, zone: 0, id: None }
    }
}

/// A flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// What identifies it, and the packets as their sender sends them.
    pub key: FlowKey,
    /// The packets that answer, as their sender sends them: from the backend that the flow was translated to.
    pub reply: Tuple,
    /// Its mark.
    pub mark: u32,
    /// What has happened to it.
    pub status: Status,
}

impl Flow {
    /// `None` if it is not of this version of IP, or has no ports.
    pub(super) fn read(attributes: Attributes<'_>, version: IpVersion) -> Option<Self> {
        let key = FlowKey {
            original: Tuple::read(attributes.nest(CTA_TUPLE_ORIG)?, version)?,
            zone: attributes.be16(CTA_ZONE).unwrap_or_default(),
            id: attributes.be32(CTA_ID),
        };
        Some(Self {
            key,
            reply: Tuple::read(attributes.nest(CTA_TUPLE_REPLY)?, version)?,
            mark: attributes.be32(CTA_MARK).unwrap_or_default(),
            status: Status::from_bits(attributes.be32(CTA_STATUS).unwrap_or_default()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn any_tuple() -> impl Strategy<Value = Tuple> {
        let v4 = any::<[(Ipv4Addr, u16); 2]>().prop_map(|ends| ends.map(SocketAddr::from));
        let v6 = any::<[(Ipv6Addr, u16); 2]>().prop_map(|ends| ends.map(SocketAddr::from));
        (any::<u8>(), prop_oneof![v4, v6]).prop_map(|(protocol, [source, destination])| Tuple {
            protocol,
            source,
            destination,
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(original in any_tuple(), zone: u16, id: Option<u32>, mark: u32) {
            let key = FlowKey { original, zone, id };
            let reply = Tuple { source: original.destination, destination: original.source, ..original };
            let mut writer = Writer::default();
            key.write(&mut writer);
            reply.write(&mut writer, CTA_TUPLE_REPLY);
            writer.be32(CTA_MARK, mark);
            writer.be32(CTA_STATUS, 0x2a);
            prop_assert_eq!(writer.fault(), None);
            let flow = Flow::read(Attributes(writer.bytes()), original.version()).unwrap();
            prop_assert_eq!((flow.key, flow.reply, flow.mark), (key, reply, mark));
            prop_assert!(flow.status.contains(Status::DNAT | Status::SEEN_REPLY));
            prop_assert!(!flow.status.contains(Status::DNAT | Status::SNAT));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            let _ = (Flow::read(Attributes(&bytes), IpVersion::V4), Flow::read(Attributes(&bytes), IpVersion::V6));
        }
    }

    #[test]
    fn a_flow_without_ports_is_passed_over() {
        let mut ping = Writer::default();
        for kind in [CTA_TUPLE_ORIG, CTA_TUPLE_REPLY] {
            ping.nest(kind, |w| {
                w.nest(CTA_TUPLE_IP, |w| {
                    w.raw(1, &[10, 0, 0, 1]);
                    w.raw(2, &[10, 0, 0, 2]);
                });
                w.nest(CTA_TUPLE_PROTO, |w| {
                    w.byte(CTA_PROTO_NUM, protocol::ICMP);
                    w.be16(4, 77);
                });
            });
        }
        assert_eq!(Flow::read(Attributes(ping.bytes()), IpVersion::V4), None);
    }
}
