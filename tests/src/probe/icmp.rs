//! ICMP echoes of both families through raw sockets (RFC 792, RFC 4443).

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use socket2::{Domain, Protocol, Socket, Type};

use crate::netns::Netns;

/// How long the sweep waits for one answer before it asks the next address; a late answer still counts.
const PATIENCE: Duration = Duration::from_millis(20);

/// A raw socket for one family, in the namespace of the thread that made it. Echoes carry a sequence number, and the
/// identifier of this socket, so that two of them in one namespace do not hear each other.
#[derive(Debug)]
pub struct Echoes {
    socket: Socket,
    v6: bool,
    identifier: u16,
}

impl Echoes {
    /// A socket for the family of `target`.
    ///
    /// # Errors
    /// Without `CAP_NET_RAW`.
    pub fn open(target: IpAddr, identifier: u16) -> io::Result<Self> {
        let v6 = target.is_ipv6();
        let (domain, protocol) = if v6 { (Domain::IPV6, Protocol::ICMPV6) } else { (Domain::IPV4, Protocol::ICMPV4) };
        let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, v6, identifier })
    }

    /// Sends one echo request.
    ///
    /// # Errors
    /// When there is no route, for example.
    pub fn send(&self, target: IpAddr, sequence: u16) -> io::Result<()> {
        let mut packet = [0u8; 16];
        packet[0] = if self.v6 { 128 } else { 8 };
        packet[4..6].copy_from_slice(&self.identifier.to_be_bytes());
        packet[6..8].copy_from_slice(&sequence.to_be_bytes());
        if !self.v6 {
            // For ICMPv6 the kernel does it (RFC 3542 section 3.1).
            let sum = checksum(&packet);
            packet[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        self.socket.send_to(&packet, &SocketAddr::new(target, 0).into()).map(drop)
    }

    /// The sequence number of the next answer, or nothing when none came within `limit`.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn receive(&self, limit: Duration) -> io::Result<Option<u16>> {
        let deadline = Instant::now() + limit;
        let mut packet = [0u8; 2048];
        loop {
            match (&self.socket).read(&mut packet) {
                Ok(length) => {
                    if let Some(sequence) = self.answer(packet.get(..length).unwrap_or_default()) {
                        return Ok(Some(sequence));
                    }
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            // poll(2) and not a socket timeout: that one counts in ticks of the kernel's clock, 4 ms each.
            let milliseconds = u16::try_from(left.as_micros().div_ceil(1000)).unwrap_or(u16::MAX);
            match poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], milliseconds) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The sequence number, if the packet answers one of ours. A raw v4 socket yields the IP header too, a v6 one not.
    fn answer(&self, packet: &[u8]) -> Option<u16> {
        let (message, kind) =
            if self.v6 { (packet, 129) } else { (packet.get(usize::from(*packet.first()? & 15) * 4..)?, 0) };
        let word = |at: usize| Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]));
        (*message.first()? == kind && word(4)? == self.identifier).then(|| word(6)).flatten()
    }
}

/// Asks one address from inside a namespace until it answers, and returns the round-trip time.
///
/// # Errors
/// When the namespace or the socket fails. No answer within `limit` is `None`.
pub fn ping(netns: &Netns, target: IpAddr, limit: Duration) -> Result<Option<Duration>> {
    Ok(sweep(netns, &[target], limit)?.first().copied().flatten())
}

/// Asks many addresses from inside a namespace, again and again until each has answered or `limit` has passed. Returns
/// a round-trip time for each address that answered, in the order of `targets`.
///
/// # Errors
/// When the namespace or the socket fails.
pub fn sweep(netns: &Netns, targets: &[IpAddr], limit: Duration) -> Result<Vec<Option<Duration>>> {
    netns.run(|| {
        let mut times = vec![None; targets.len()];
        for v6 in [false, true] {
            let ours: Vec<usize> =
                targets.iter().enumerate().filter(|(_, t)| t.is_ipv6() == v6).map(|(i, _)| i).collect();
            sweep_family(targets, &ours, limit, &mut times)?;
        }
        Ok(times)
    })?
}

fn sweep_family(targets: &[IpAddr], ours: &[usize], limit: Duration, times: &mut [Option<Duration>]) -> Result<()> {
    let Some(first) = ours.first().and_then(|index| targets.get(*index)) else { return Ok(()) };
    let echoes = Echoes::open(*first, identifier())?;
    let deadline = Instant::now() + limit;
    let mut sent = vec![Instant::now(); targets.len()];
    let mut missing = ours.to_vec();
    while !missing.is_empty() {
        for &index in &missing {
            let (Some(target), Some(at)) = (targets.get(index), sent.get_mut(index)) else { continue };
            *at = Instant::now();
            if echoes.send(*target, u16::try_from(index)?).is_ok() {
                collect(&echoes, Some(index), PATIENCE, &sent, times)?;
            }
        }
        missing.retain(|index| times.get(*index).is_some_and(Option::is_none));
        if !missing.is_empty() {
            // The last answers of this round; also the pause before the next one where sending itself is refused.
            collect(&echoes, None, PATIENCE, &sent, times)?;
            missing.retain(|index| times.get(*index).is_some_and(Option::is_none));
        }
        if Instant::now() >= deadline {
            return Ok(());
        }
    }
    Ok(())
}

/// Takes in answers until that to `awaited` has come or none comes for `patience`.
fn collect(
    echoes: &Echoes,
    awaited: Option<usize>,
    patience: Duration,
    sent: &[Instant],
    times: &mut [Option<Duration>],
) -> Result<()> {
    while let Some(sequence) = echoes.receive(patience)? {
        let index = usize::from(sequence);
        if let (Some(slot @ None), Some(at)) = (times.get_mut(index), sent.get(index)) {
            *slot = Some(at.elapsed());
        }
        if awaited == Some(index) {
            break;
        }
    }
    Ok(())
}

/// An identifier that no other socket of this process has.
pub(super) fn identifier() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The Internet checksum of an even number of bytes (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::OwnedNetns;
    use crate::scratch::unique_name;

    #[test]
    fn checksum_matches_the_example_of_rfc_1071() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }

    #[test]
    fn a_sweep_tells_the_living_from_the_dead_in_both_families() {
        let netns = OwnedNetns::new(unique_name());
        let targets = ["127.0.0.1", "192.0.2.1", "::1", "127.0.0.2"].map(|text| text.parse().unwrap());
        let times = sweep(&netns, &targets, Duration::from_millis(50)).unwrap();
        let answered: Vec<bool> = times.iter().map(Option::is_some).collect();
        assert_eq!(answered, [true, false, true, true]);
    }
}
