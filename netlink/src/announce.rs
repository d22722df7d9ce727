//! Telling the neighbours on a link which MAC address an IP address has now.
//!
//! Where an IP has moved to another MAC, machines that remember the old one would send into the void until they ask again.
//! A gratuitous ARP (RFC 5227, section 2.3) or an unsolicited neighbour advertisement (RFC 4861, section 7.2.6) corrects
//! them at once.
//!
//! The two are not alike: closing a packet socket, which ARP needs, waits for an RCU grace period (`packet_release`; 6 to
//! 18 ms), closing a raw ICMPv6 socket does not (3 µs). So an IPv4 announcement is for where it is really needed.

#![expect(unsafe_code, reason = "one `sendto` with an address that nix cannot make")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::sockopt::Ipv6MulticastHops;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, bind, sendto, setsockopt, socket,
};

use crate::MacAddr;
use crate::error::{Error, Result};

/// `ETH_P_ARP`, linux/if_ether.h.
const ARP: u16 = 0x0806;
/// All nodes on the link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// RFC 4861 has receivers drop what could have been forwarded.
const HOP_LIMIT: i32 = 255;

/// Announces that `ip`, which the link with this index bears in the namespace of the calling thread, is at `mac`.
///
/// # Errors
/// [`Error::Io`] if the frame cannot be sent.
pub fn announce(link: u32, mac: MacAddr, ip: IpAddr) -> Result<()> {
    let sent = match ip {
        IpAddr::V4(ip) => send_arp(link, mac, ip),
        IpAddr::V6(ip) => send_advertisement(link, mac, ip),
    };
    sent.map_err(|errno| Error::io(format!("announce {ip} at {mac}"), errno))
}

fn send_arp(link: u32, mac: MacAddr, ip: Ipv4Addr) -> nix::Result<()> {
    // Protocol 0: sends only, and is not handed a copy of every frame meanwhile.
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
    let frame = gratuitous_arp(mac, ip);
    // SAFETY: `struct sockaddr_ll` is made of integers, for which all zeroes is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or_default();
    address.sll_protocol = ARP.to_be();
    address.sll_ifindex = i32::try_from(link).map_err(|_| Errno::ENODEV)?;
    let length = u32::try_from(size_of_val(&address)).unwrap_or_default();
    // SAFETY: the pointers and lengths are those of `frame` and `address`, which outlive the call.
    let sent = unsafe {
        libc::sendto(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0, (&raw const address).cast(), length)
    };
    Errno::result(sent).map(drop)
}

fn send_advertisement(link: u32, mac: MacAddr, ip: Ipv6Addr) -> nix::Result<()> {
    let socket = socket(AddressFamily::Inet6, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::IcmpV6)?;
    setsockopt(&socket, Ipv6MulticastHops, &HOP_LIMIT)?;
    bind(socket.as_raw_fd(), &SockaddrIn6::from(SocketAddrV6::new(ip, 0, 0, link)))?;
    let everyone = SockaddrIn6::from(SocketAddrV6::new(ALL_NODES, 0, 0, link));
    sendto(socket.as_raw_fd(), &advertisement(mac, ip), &everyone, MsgFlags::empty()).map(drop)
}

/// An Ethernet frame with an ARP request for the own address (RFC 826, RFC 5227).
fn gratuitous_arp(mac: MacAddr, ip: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::with_capacity(42);
    frame.extend_from_slice(&[0xff; 6]);
    frame.extend_from_slice(&mac.0);
    frame.extend_from_slice(&ARP.to_be_bytes());
    // Ethernet and IPv4, their lengths, request.
    frame.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend_from_slice(&mac.0);
    frame.extend_from_slice(&ip.octets());
    frame.extend_from_slice(&[0; 6]);
    frame.extend_from_slice(&ip.octets());
    frame
}

/// A neighbour advertisement with the override flag and the target's link-layer address (RFC 4861, section 4.4). The
/// kernel fills in the checksum of a raw ICMPv6 socket.
fn advertisement(mac: MacAddr, ip: Ipv6Addr) -> Vec<u8> {
    let mut message = Vec::with_capacity(32);
    message.extend_from_slice(&[136, 0, 0, 0, 0x20, 0, 0, 0]);
    message.extend_from_slice(&ip.octets());
    message.extend_from_slice(&[2, 1]);
    message.extend_from_slice(&mac.0);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frames_of_the_rfcs() {
        let mac = MacAddr([0x0a, 0x58, 10, 1, 0, 2]);
        let frame = gratuitous_arp(mac, Ipv4Addr::new(10, 1, 0, 2));
        assert_eq!(frame.len(), 42);
        assert_eq!(frame[12..22], [8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        assert_eq!(frame[28..32], frame[38..42]);
        let message = advertisement(mac, "fd00::2".parse().unwrap());
        assert_eq!((message.len(), message[0], message[4]), (32, 136, 0x20));
        assert_eq!(message[26..], mac.0);
    }
}
