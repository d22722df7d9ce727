//! Virtual servers: what clients talk to.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::message::{read_address, read_version, write_address};
use super::{Scheduler, SchedulerFlags, Stats};
use crate::codec::{Attributes, Writer};
use crate::{IpVersion, protocol};

const AF: u16 = 1;
const PROTOCOL: u16 = 2;
const ADDR: u16 = 3;
const PORT: u16 = 4;
const FWMARK: u16 = 5;
const SCHED_NAME: u16 = 6;
const FLAGS: u16 = 7;
const TIMEOUT: u16 = 8;
const NETMASK: u16 = 9;
const STATS: u16 = 10;
const STATS64: u16 = 12;

const PERSISTENT: u32 = 0x1;
const ONE_PACKET: u32 = 0x4;

/// What identifies a virtual server: the packets that it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// Those to an address and port.
    Address {
        /// The address.
        address: IpAddr,
        /// The port; 0 for all, of a persistent server only.
        port: u16,
        /// TCP, UDP or SCTP ([`protocol`]).
        protocol: u8,
    },
    /// Those that carry a mark.
    Mark {
        /// The packet's mark, not 0.
        mark: u32,
        /// IPv4 or IPv6.
        version: IpVersion,
    },
}

impl Target {
    /// IPv4 or IPv6.
    #[must_use]
    pub fn version(&self) -> IpVersion {
        match self {
            Self::Address { address, .. } => IpVersion::of(*address),
            Self::Mark { version, .. } => *version,
        }
    }

    pub(super) fn write(&self, w: &mut Writer) {
        w.u16(AF, u16::from(self.version().number()));
        match *self {
            Self::Address { address, port, protocol } => {
                w.u16(PROTOCOL, u16::from(protocol));
                write_address(w, ADDR, address);
                w.be16(PORT, port);
            }
            Self::Mark { mark, .. } => w.u32(FWMARK, mark),
        }
    }

    pub(super) fn read(attributes: Attributes<'_>) -> Result<Self, String> {
        let version = read_version(attributes, AF).ok_or("a virtual server without address family")??;
        if let Some(mark) = attributes.u32(FWMARK) {
            return Ok(Self::Mark { mark, version });
        }
        let protocol = attributes.u16(PROTOCOL).ok_or("a virtual server without protocol")?;
        Ok(Self::Address {
            address: read_address(attributes, ADDR, version).ok_or("a virtual server without address")?,
            port: attributes.be16(PORT).ok_or("a virtual server without port")?,
            protocol: u8::try_from(protocol).map_err(|_| format!("protocol {protocol} is no IP protocol"))?,
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Address { address, port, protocol } => {
                write!(f, "{} {}", protocol::name(protocol), SocketAddr::new(address, port))
            }
            Self::Mark { mark, version } => write!(f, "mark {mark:#x} ({version})"),
        }
    }
}

/// How clients stay with their real server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Persistence {
    /// For so long after the last of a client's connections, in whole seconds.
    pub timeout: Duration,
    /// Clients that agree in so many leading bits of their addresses count as one (1 to 127 for IPv6, up to 31 for IPv4);
    /// `None`: each address is a client.
    pub prefix: Option<u8>,
}

/// A virtual server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualServer {
    /// What it takes.
    pub target: Target,
    /// How it chooses.
    pub scheduler: Scheduler,
    /// What its scheduler shall heed besides.
    pub scheduler_flags: SchedulerFlags,
    /// Whether clients stay with their real server.
    pub persistence: Option<Persistence>,
    /// UDP: every packet is scheduled for itself, and none makes a connection (`IP_VS_SVC_F_ONEPACKET`).
    pub one_packet: bool,
}

impl VirtualServer {
    /// A virtual server with nothing but a scheduler.
    #[must_use]
    pub fn new(target: Target, scheduler: Scheduler) -> Self {
        Self { target, scheduler, scheduler_flags: SchedulerFlags::default(), persistence: None, one_packet: false }
    }

    /// Writes all of it: IPVS has no default for anything.
    pub(super) fn write(&self, w: &mut Writer) {
        self.target.write(w);
        w.string(SCHED_NAME, self.scheduler.name());
        let one_packet = if self.one_packet { ONE_PACKET } else { 0 };
        let persistent = if self.persistence.is_some() { PERSISTENT } else { 0 };
        let flags = self.scheduler_flags.bits() | one_packet | persistent;
        // struct ip_vs_flags: the flags, and which of them count.
        let [a, b, c, d] = flags.to_ne_bytes();
        w.raw(FLAGS, &[a, b, c, d, 0xff, 0xff, 0xff, 0xff]);
        let timeout = self.persistence.map_or(0, |persistence| persistence.timeout.as_secs());
        w.u32(TIMEOUT, u32::try_from(timeout).unwrap_or(u32::MAX));
        let version = self.target.version();
        let prefix = self.persistence.and_then(|persistence| persistence.prefix).unwrap_or(version.bits());
        match version {
            IpVersion::V4 => {
                let mask = u32::MAX.checked_shl(32u32.saturating_sub(u32::from(prefix))).unwrap_or(0);
                w.be32(NETMASK, mask);
            }
            // A length in the place of a mask, and in the machine's order (`ip_vs_add_service`).
            IpVersion::V6 => w.u32(NETMASK, u32::from(prefix)),
        }
    }

    pub(super) fn read(attributes: Attributes<'_>) -> Result<Self, String> {
        let target = Target::read(attributes)?;
        let name = attributes.string(SCHED_NAME).ok_or_else(|| format!("{target} has no scheduler"))?;
        let flags = attributes.u32(FLAGS).ok_or_else(|| format!("{target} has no flags"))?;
        let version = target.version();
        let prefix = match version {
            IpVersion::V4 => attributes.be32(NETMASK).map(|mask| Ipv4Addr::from(mask).to_bits().leading_ones()),
            IpVersion::V6 => attributes.u32(NETMASK),
        };
        let prefix = prefix.and_then(|prefix| u8::try_from(prefix).ok()).filter(|prefix| *prefix < version.bits());
        let timeout = Duration::from_secs(attributes.u32(TIMEOUT).unwrap_or_default().into());
        Ok(Self {
            target,
            scheduler: Scheduler::new(name).map_err(|error| format!("{target}: {error}"))?,
            scheduler_flags: SchedulerFlags::from_bits(flags),
            // Timeout and mask of a server that is not persistent mean nothing.
            persistence: (flags & PERSISTENT != 0).then_some(Persistence { timeout, prefix }),
            one_packet: flags & ONE_PACKET != 0,
        })
    }
}

/// A virtual server as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualServerInfo {
    /// What it is.
    pub server: VirtualServer,
    /// What it has served.
    pub stats: Stats,
}

impl VirtualServerInfo {
    pub(super) fn read(attributes: Attributes<'_>) -> Result<Self, String> {
        let server = VirtualServer::read(attributes)?;
        Ok(Self { server, stats: Stats::read(attributes, STATS, STATS64) })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    pub(in crate::ipvs) fn any_target() -> impl Strategy<Value = Target> {
        let version = prop_oneof![Just(IpVersion::V4), Just(IpVersion::V6)];
        prop_oneof![
            4 => any::<(IpAddr, u16, u8)>().prop_map(|(address, port, protocol)| Target::Address { address, port, protocol }),
            1 => (1u32.., version).prop_map(|(mark, version)| Target::Mark { mark, version }),
        ]
    }

    fn any_server() -> impl Strategy<Value = VirtualServer> {
        let persistence = (any::<u32>(), option::of(1u8..32))
            .prop_map(|(seconds, prefix)| Persistence { timeout: Duration::from_secs(seconds.into()), prefix });
        let flags = (0u32..8).prop_map(|bits| SchedulerFlags::from_bits(bits << 3));
        (any_target(), "[a-z]{1,15}", flags, option::of(persistence), any::<bool>()).prop_map(
            |(target, scheduler, scheduler_flags, persistence, one_packet)| VirtualServer {
                scheduler: scheduler.parse().unwrap(),
                scheduler_flags,
                persistence,
                one_packet,
                target,
            },
        )
    }

    fn written(server: &VirtualServer) -> Vec<u8> {
        let mut writer = Writer::default();
        server.write(&mut writer);
        assert_eq!(writer.fault(), None);
        writer.bytes().to_vec()
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(server in any_server()) {
            prop_assert_eq!(VirtualServer::read(Attributes(&written(&server))), Ok(server));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            let _ = VirtualServerInfo::read(Attributes(&bytes));
        }
    }

    #[test]
    fn a_server_is_written_as_the_kernel_wants_it() {
        let target = Target::Address { address: "10.96.0.1".parse().unwrap(), port: 80, protocol: protocol::TCP };
        let server = VirtualServer {
            persistence: Some(Persistence { timeout: Duration::from_secs(10_800), prefix: Some(24) }),
            scheduler_flags: SchedulerFlags::PORT,
            ..VirtualServer::new(target, Scheduler::MAGLEV_HASHING)
        };
        let bytes = written(&server);
        let attributes = Attributes(&bytes);
        assert_eq!(attributes.u16(AF), Some(2));
        assert_eq!(attributes.u16(PROTOCOL), Some(6));
        assert_eq!(attributes.raw(ADDR), Some(&[10, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..]));
        assert_eq!(attributes.raw(PORT), Some(&[0, 80][..]));
        assert_eq!(attributes.raw(SCHED_NAME), Some(&b"mh\0"[..]));
        assert_eq!(attributes.raw(FLAGS), Some(&[0x11u32.to_ne_bytes(), [0xff; 4]].concat()[..]));
        assert_eq!(attributes.u32(TIMEOUT), Some(10_800));
        assert_eq!(attributes.raw(NETMASK), Some(&[255, 255, 255, 0][..]));

        let target = Target::Address { address: "fd00::1".parse().unwrap(), port: 53, protocol: protocol::UDP };
        let bytes = written(&VirtualServer::new(target, Scheduler::ROUND_ROBIN));
        let attributes = Attributes(&bytes);
        assert_eq!((attributes.u16(AF), attributes.u32(NETMASK)), (Some(10), Some(128)));
        assert_eq!(attributes.raw(FLAGS), Some(&[[0; 4], [0xff; 4]].concat()[..]));
    }

    #[test]
    fn what_the_kernel_adds_makes_no_difference() {
        let target = Target::Mark { mark: 7, version: IpVersion::V6 };
        let server = VirtualServer::new(target, Scheduler::ROUND_ROBIN);
        let mut writer = Writer::default();
        target.write(&mut writer);
        writer.string(SCHED_NAME, "rr");
        // Hashed (2), a timeout although not persistent.
        writer.raw(FLAGS, &[2u32.to_ne_bytes(), [0xff; 4]].concat());
        writer.u32(TIMEOUT, 300);
        writer.u32(NETMASK, 64);
        writer.string(11, "sip");
        assert_eq!(VirtualServer::read(Attributes(writer.bytes())), Ok(server));
    }

    #[test]
    fn a_target_is_said_in_words() {
        let target = Target::Address { address: "fd00::1".parse().unwrap(), port: 53, protocol: protocol::UDP };
        assert_eq!(target.to_string(), "UDP [fd00::1]:53");
        assert_eq!(Target::Mark { mark: 16, version: IpVersion::V4 }.to_string(), "mark 0x10 (IPv4)");
    }
}
