//! The overlay's packets on the wire, as they come in before, and go out behind, all rules of this machine.
//!
//! A packet socket is a tap: what a rule at OUTPUT drops never gets to it, what a rule at INPUT drops has been there. So it
//! tells the three places apart where a packet of UDP can be lost: here on its way out, elsewhere, here on its way in.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use weft_netlink::diagnose::packets_lost;

use crate::cluster::Family;

/// `ETH_P_ALL`, linux/if_ether.h: also what goes out.
const EVERYTHING: u16 = 3;
/// Room for what comes in until it is looked at.
const BUFFER: usize = 8 * 1024 * 1024;
/// As much of a packet as is looked at: outer headers, VXLAN, Ethernet, inner headers, ICMP.
const LOOKED_AT: u32 = 160;

/// An echo of the overlay that was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// Who sent the outer packet.
    pub(super) source: IpAddr,
    /// To whom.
    pub(super) destination: IpAddr,
    /// The identifier of the echo in it, and whether it is an answer; `None` if there is something else in it.
    pub(super) echo: Option<(u16, bool)>,
}

/// What is tapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// Every packet of the overlay. Where there is much of it, some are missed.
    All,
    /// The echoes with this identifier inside, and their answers: so few that none is missed.
    Echoes(u16),
}

/// A tap.
#[derive(Debug)]
pub(super) struct Wire {
    socket: Socket,
    port: u16,
}

impl Wire {
    /// Opens it on all links for packets to this UDP port. Needs `CAP_NET_RAW`.
    pub(super) fn open(port: u16, what: What) -> io::Result<Self> {
        // Between the two calls anything comes in, and is passed over when it is read.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(i32::from(EVERYTHING.to_be()))))?;
        match what {
            What::All => socket.attach_filter(&filter(port))?,
            What::Echoes(identifier) => socket.attach_filter(&echoes(port, identifier))?,
        }
        socket.set_nonblocking(true)?;
        // Who may not go beyond the kernel's limit has what it allows.
        if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).is_err() {
            let _ = socket.set_recv_buffer_size(BUFFER);
        }
        Ok(Self { socket, port })
    }

    /// How many packets there was no room for since the last call.
    pub(super) fn lost(&self) -> u32 {
        packets_lost(&self.socket).unwrap_or_default()
    }

    /// Everything that was seen since the last call.
    pub(super) fn take(&self) -> Vec<Seen> {
        let mut seen = Vec::new();
        let mut packet = [0u8; LOOKED_AT as usize];
        loop {
            match (&self.socket).read(&mut packet) {
                Ok(length) => seen.extend(read(packet.get(..length).unwrap_or_default(), self.port)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return seen,
            }
        }
    }
}

const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE_BEHIND: u16 = 0x50;
const LOAD_HALF_BEHIND: u16 = 0x48;
const LOAD_HEADER_LENGTH: u16 = 0xb1;
const LOAD_X: u16 = 0x01;
const AND: u16 = 0x54;
const IF_EQUAL: u16 = 0x15;
const JUMP: u16 = 0x05;
const RETURN: u16 = 0x06;
const UDP: u32 = 17;

/// Takes the echoes with that identifier, and their answers, out of the overlay's packets to that port. Behind the outer IP
/// header stand UDP 8, VXLAN 8 and Ethernet 14 bytes, then the inner header, which in our echoes and their answers has no
/// options.
fn echoes(port: u16, identifier: u16) -> [SockFilter; 23] {
    const INNER: u32 = 30;
    let step = SockFilter::new;
    let identifier = u32::from(identifier);
    [
        step(LOAD_BYTE, 0, 0, 0),
        step(AND, 0, 0, 0xf0),
        step(IF_EQUAL, 0, 4, 0x40),
        step(LOAD_BYTE, 0, 0, 9),
        step(IF_EQUAL, 0, 17, UDP),
        step(LOAD_HEADER_LENGTH, 0, 0, 0),
        step(JUMP, 0, 0, 4),
        // Not IPv4.
        step(IF_EQUAL, 0, 14, 0x60),
        step(LOAD_BYTE, 0, 0, 6),
        step(IF_EQUAL, 0, 12, UDP),
        step(LOAD_X, 0, 0, 40),
        // X is the length of the outer header.
        step(LOAD_HALF_BEHIND, 0, 0, 2),
        step(IF_EQUAL, 0, 9, u32::from(port)),
        step(LOAD_BYTE_BEHIND, 0, 0, INNER),
        step(AND, 0, 0, 0xf0),
        step(IF_EQUAL, 0, 2, 0x40),
        step(LOAD_HALF_BEHIND, 0, 0, INNER + 20 + 4),
        step(JUMP, 0, 0, 2),
        step(IF_EQUAL, 0, 3, 0x60),
        step(LOAD_HALF_BEHIND, 0, 0, INNER + 40 + 4),
        step(IF_EQUAL, 0, 1, identifier),
        step(RETURN, 0, 0, LOOKED_AT),
        step(RETURN, 0, 0, 0),
    ]
}

/// Takes UDP packets to that port, without options or extension headers (linux/filter.h; the packet begins with its network
/// header).
fn filter(port: u16) -> [SockFilter; 15] {
    let step = SockFilter::new;
    [
        step(LOAD_BYTE, 0, 0, 0),
        step(AND, 0, 0, 0xf0),
        step(IF_EQUAL, 0, 5, 0x40),
        // IPv4: the port stands behind a header of any length.
        step(LOAD_BYTE, 0, 0, 9),
        step(IF_EQUAL, 0, 9, UDP),
        step(LOAD_HEADER_LENGTH, 0, 0, 0),
        step(LOAD_HALF_BEHIND, 0, 0, 2),
        step(JUMP, 0, 0, 4),
        // Not IPv4.
        step(IF_EQUAL, 0, 5, 0x60),
        step(LOAD_BYTE, 0, 0, 6),
        step(IF_EQUAL, 0, 3, UDP),
        step(LOAD_HALF, 0, 0, 42),
        step(IF_EQUAL, 0, 1, u32::from(port)),
        step(RETURN, 0, 0, LOOKED_AT),
        step(RETURN, 0, 0, 0),
    ]
}

/// Reads an outer packet.
fn read(packet: &[u8], port: u16) -> Option<Seen> {
    let outer = Header::read(packet)?;
    let udp = packet.get(outer.length..)?;
    let to = u16::from_be_bytes([*udp.get(2)?, *udp.get(3)?]);
    if outer.protocol != 17 || to != port {
        return None;
    }
    // UDP 8, VXLAN 8, Ethernet 14 bytes.
    let echo = udp.get(30..).and_then(|inner| {
        let header = Header::read(inner)?;
        let icmp = inner.get(header.length..)?;
        let answer = match (header.protocol, *icmp.first()?) {
            (1, 8) | (58, 128) => false,
            (1, 0) | (58, 129) => true,
            _ => return None,
        };
        Some((u16::from_be_bytes([*icmp.get(4)?, *icmp.get(5)?]), answer))
    });
    Some(Seen { source: outer.source, destination: outer.destination, echo })
}

struct Header {
    length: usize,
    protocol: u8,
    source: IpAddr,
    destination: IpAddr,
}

impl Header {
    fn read(packet: &[u8]) -> Option<Self> {
        let first = *packet.first()?;
        let family = match first >> 4 {
            4 => Family::V4,
            6 => Family::V6,
            _ => return None,
        };
        Some(match family {
            Family::V4 => {
                let address =
                    |at: usize| packet.get(at..)?.first_chunk::<4>().map(|bytes| Ipv4Addr::from(*bytes).into());
                Self {
                    length: usize::from(first & 15) * 4,
                    protocol: *packet.get(9)?,
                    source: address(12)?,
                    destination: address(16)?,
                }
            }
            Family::V6 => {
                let address =
                    |at: usize| packet.get(at..)?.first_chunk::<16>().map(|bytes| Ipv6Addr::from(*bytes).into());
                Self { length: 40, protocol: *packet.get(6)?, source: address(8)?, destination: address(24)? }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(protocol: u8, source: u8, destination: u8) -> Vec<u8> {
        let mut header = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
        header.extend([192, 0, 2, source, 192, 0, 2, destination]);
        header
    }

    fn vxlan(port: u16, inner: &[u8]) -> Vec<u8> {
        let mut packet = v4(17, 1, 2);
        packet.extend([0x30, 0x39]);
        packet.extend(port.to_be_bytes());
        packet.extend([0; 4]);
        packet.extend([8, 0, 0, 0, 0, 0, 1, 0]);
        packet.extend([0; 14]);
        packet.extend(inner);
        packet
    }

    #[test]
    fn an_echo_inside_is_seen_by_its_identifier() {
        let mut echo = v4(1, 7, 8);
        echo.extend([0, 0, 0, 0, 0x12, 0x34, 0, 1]);
        let seen = read(&vxlan(8472, &echo), 8472).unwrap();
        assert_eq!((seen.source, seen.echo), ("192.0.2.1".parse().unwrap(), Some((0x1234, true))));
        let mut udp = v4(17, 7, 8);
        udp.extend([0; 8]);
        assert_eq!(read(&vxlan(8472, &udp), 8472).unwrap().echo, None);
        assert_eq!(read(&vxlan(4789, &echo), 8472), None);
        assert_eq!(read(&[], 8472), None);
        for length in 0..vxlan(8472, &echo).len() {
            let _ = read(&vxlan(8472, &echo)[..length], 8472);
        }
    }

    /// Needs root.
    #[test]
    fn the_filter_takes_packets_to_its_port_alone() {
        let wire = Wire::open(28472, What::All).unwrap();
        let from = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for port in [28471, 28472, 28473] {
            // Nobody listens; that it was on the wire is enough.
            let _ = from.send_to(b"x", ("127.0.0.1", port));
        }
        let seen = wire.take();
        assert!(
            !seen.is_empty() && seen.iter().all(|seen| seen.destination == IpAddr::from([127, 0, 0, 1])),
            "{seen:?}"
        );
    }

    /// Needs root.
    #[test]
    fn only_echoes_of_ones_own_are_tapped_and_what_does_not_fit_is_counted() {
        let port = 28482;
        let tap = Wire::open(port, What::Echoes(0x1234)).unwrap();
        let from = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut v6 = vec![0x60, 0, 0, 0, 0, 8, 58, 64];
        v6.extend([0; 32]);
        let echo = |header: &[u8], kind: u8, identifier: u16| {
            // Without the outer headers, which the kernel makes.
            let mut payload = vec![8, 0, 0, 0, 0, 0, 1, 0];
            payload.extend([0; 14]);
            payload.extend(header);
            payload.extend([kind, 0, 0, 0]);
            payload.extend(identifier.to_be_bytes());
            payload.extend([0, 1]);
            payload
        };
        for (header, kind) in [(v4(1, 7, 8), 0), (v6, 129)] {
            for identifier in [0x1233, 0x1234] {
                let _ = from.send_to(&echo(&header, kind, identifier), ("127.0.0.1", port));
            }
            let seen = tap.take();
            // Once on its way out, and once on its way in.
            assert!(!seen.is_empty(), "{kind}");
            assert!(seen.iter().all(|seen| seen.echo == Some((0x1234, true))), "{seen:?}");
        }
        let _ = from.send_to(b"short", ("127.0.0.1", port));
        assert!(tap.take().is_empty());
        assert_eq!(tap.lost(), 0);

        tap.socket.set_recv_buffer_size(1).unwrap();
        for _ in 0..100 {
            let _ = from.send_to(&echo(&v4(1, 7, 8), 0, 0x1234), ("127.0.0.1", port));
        }
        assert!(tap.lost() > 0);
        assert_eq!(tap.lost(), 0, "they are counted once");
    }
}
