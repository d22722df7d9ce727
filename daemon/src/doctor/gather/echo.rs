//! ICMP echoes of any size that nobody may take apart (RFC 792, RFC 4443).

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use socket2::{Domain, Protocol, Socket, Type};
use weft_netlink::diagnose::never_fragment;

use crate::cluster::Family;

/// Bytes before the data of an echo.
const ICMP_HEADER: usize = 8;

/// Room for answers that come at once.
const BUFFER: usize = 4 * 1024 * 1024;

/// A raw socket for one family. Its echoes carry its identifier, so that it hears its own answers alone.
#[derive(Debug)]
pub(super) struct Echoes {
    socket: Socket,
    family: Family,
    identifier: u16,
    sequence: u16,
}

impl Echoes {
    /// Opens it. Needs `CAP_NET_RAW`.
    pub(super) fn open(family: Family) -> io::Result<Self> {
        let (domain, protocol) = match family {
            Family::V4 => (Domain::IPV4, Protocol::ICMPV4),
            Family::V6 => (Domain::IPV6, Protocol::ICMPV6),
        };
        let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
        socket.set_nonblocking(true)?;
        // The kernel's limit may be lower; then some answers are lost, and asked for again.
        let _ = socket.set_recv_buffer_size(BUFFER);
        never_fragment(&socket, family == Family::V6).map_err(io::Error::other)?;
        // Which of two doctors asks, the other one's pid tells.
        let identifier = u16::try_from(std::process::id() & 0xffff).unwrap_or_default();
        Ok(Self { socket, family, identifier, sequence: 0 })
    }

    /// The identifier that its echoes carry.
    pub(super) const fn identifier(&self) -> u16 {
        self.identifier
    }

    /// Asks each address with a packet of so many bytes, IP header and all, and waits until all have answered, at most for
    /// `limit`. Says which did, and with which error those were refused that could not even be sent.
    pub(super) fn ask(&mut self, targets: &[(IpAddr, u32)], limit: Duration) -> Vec<io::Result<bool>> {
        let first = self.sequence;
        let mut outcomes: Vec<io::Result<bool>> = Vec::with_capacity(targets.len());
        for (address, bytes) in targets {
            outcomes.push(self.send(*address, *bytes).map(|()| false));
            self.sequence = self.sequence.wrapping_add(1);
        }
        let deadline = Instant::now() + limit;
        let mut missing = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        while missing > 0 {
            let Some(sequence) = self.receive(deadline) else { break };
            let answered = outcomes.get_mut(usize::from(sequence.wrapping_sub(first)));
            if let Some(outcome @ Ok(false)) = answered {
                *outcome = Ok(true);
                missing -= 1;
            }
        }
        outcomes
    }

    fn send(&self, target: IpAddr, bytes: u32) -> io::Result<()> {
        let ip_header = if self.family == Family::V4 { 20 } else { 40 };
        let length = usize::try_from(bytes).unwrap_or_default().saturating_sub(ip_header).max(ICMP_HEADER);
        let mut packet = vec![0u8; length];
        if let Some(header) = packet.first_chunk_mut::<ICMP_HEADER>() {
            header[0] = if self.family == Family::V4 { 8 } else { 128 };
            header[4..6].copy_from_slice(&self.identifier.to_be_bytes());
            header[6..8].copy_from_slice(&self.sequence.to_be_bytes());
            if self.family == Family::V4 {
                // Zeroes follow, which add nothing. For ICMPv6 the kernel does it (RFC 3542, section 3.1).
                let sum = checksum(header);
                header[2..4].copy_from_slice(&sum.to_be_bytes());
            }
        }
        self.socket.send_to(&packet, &SocketAddr::new(target, 0).into()).map(drop)
    }

    /// The sequence number of the next answer; `None` if there is none before the deadline.
    fn receive(&self, deadline: Instant) -> Option<u16> {
        let mut packet = [0u8; 128];
        loop {
            match (&self.socket).read(&mut packet) {
                Ok(length) => {
                    if let Some(sequence) = self.answer(packet.get(..length)?) {
                        return Some(sequence);
                    }
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // What the network says of one packet (no route to host) is no answer to any other.
                Err(_) if Instant::now() < deadline => continue,
                Err(_) => return None,
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let milliseconds = u16::try_from(left.as_micros().div_ceil(1000)).unwrap_or(u16::MAX);
            match poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], milliseconds) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return None,
            }
        }
    }

    /// The sequence number, if the packet answers one of ours. A raw IPv4 socket gives the IP header along, an IPv6 one not.
    fn answer(&self, packet: &[u8]) -> Option<u16> {
        let (message, kind) = match self.family {
            Family::V4 => (packet.get(usize::from(*packet.first()? & 15) * 4..)?, 0),
            Family::V6 => (packet, 129),
        };
        let word = |at: usize| Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]));
        (*message.first()? == kind && word(4)? == self.identifier).then(|| word(6)).flatten()
    }
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(*pair.first().unwrap_or(&0)) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_a_message_with_its_checksum_is_zero() {
        let mut message = [8u8, 0, 0, 0, 0x12, 0x34, 0, 7];
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(checksum(&message), 0);
    }

    /// Needs root.
    #[test]
    fn this_machine_answers_itself_at_any_size() {
        for (family, own) in [(Family::V4, "127.0.0.1"), (Family::V6, "::1")] {
            let own: IpAddr = own.parse().unwrap();
            let Ok(mut echoes) = Echoes::open(family) else { continue };
            let answers = echoes.ask(&[(own, 64), (own, 1400)], Duration::from_secs(2));
            // A machine without IPv6 has no ::1 to ask.
            if answers.iter().all(Result::is_ok) {
                assert!(answers.iter().all(|answer| *answer.as_ref().unwrap()), "{own}");
            } else {
                assert_eq!(family, Family::V6);
            }
        }
    }
}
