//! What only somebody who looks for a fault asks of the kernel: a device's checksum offload and driver, packets that
//! must not be taken apart, and what a packet socket has lost.

#![expect(unsafe_code, reason = "one ioctl of ethtool with a pointer in `struct ifreq`, and three socket options")]

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::error::{Error, Result};
use crate::ifreq::named;

/// `ETHTOOL_GDRVINFO`, linux/ethtool.h.
const GET_DRIVER: u32 = 3;
/// `ETHTOOL_GTXCSUM`, linux/ethtool.h.
const GET_TX_CHECKSUM: u32 = 0x16;
/// `IP_PMTUDISC_PROBE`, linux/in.h, and `IPV6_PMTUDISC_PROBE`, linux/in6.h: whatever the kernel knows of the path, the
/// packet goes out whole, and nobody on the way may take it apart.
static PROBE: i32 = 3;

/// linux/if_packet.h.
const PACKET_STATISTICS: libc::c_int = 6;

/// `struct tpacket_stats`, linux/if_packet.h.
#[repr(C)]
#[derive(Default)]
struct Statistics {
    packets: u32,
    lost: u32,
}

mod raw {
    use nix::libc::ifreq;

    /// `SIOCETHTOOL`, linux/sockios.h.
    const SIOCETHTOOL: u32 = 0x8946;

    nix::ioctl_readwrite_bad!(siocethtool, SIOCETHTOOL, ifreq);
}

/// `struct ethtool_value`, linux/ethtool.h.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// `struct ethtool_drvinfo`, linux/ethtool.h.
#[repr(C)]
struct Driver {
    command: u32,
    driver: [u8; 32],
    /// Versions, the bus, and numbers of other lists.
    rest: [u8; 160],
}

/// Whether a device leaves the checksums of what it sends to hardware or to whoever comes behind it; `None` if there is no
/// such device, or it cannot tell.
///
/// # Errors
/// [`Error::Io`] if the process may not open sockets, or the name is longer than 15 bytes.
pub fn tx_checksum(device: &str) -> Result<Option<bool>> {
    let mut value = Value { command: GET_TX_CHECKSUM, data: 0 };
    Ok(ask(device, &mut value)?.then_some(value.data != 0))
}

/// The name of a device's driver, such as `vmxnet3` or `veth`; `None` if there is no such device, or it cannot tell.
///
/// # Errors
/// As [`tx_checksum`].
pub fn driver(device: &str) -> Result<Option<String>> {
    let mut info = Driver { command: GET_DRIVER, driver: [0; 32], rest: [0; 160] };
    let told = ask(device, &mut info)?;
    let end = info.driver.iter().position(|byte| *byte == 0).unwrap_or(info.driver.len());
    let name = String::from_utf8_lossy(info.driver.get(..end).unwrap_or_default()).into_owned();
    Ok(told.then_some(name))
}

/// Has all packets of a socket go out whole, however small the path is believed to be, with the order not to take them apart
/// (DF). One that is larger than the device's MTU is refused with `EMSGSIZE`.
///
/// # Errors
/// [`Error::Io`] if it is no socket of that family.
pub fn never_fragment(socket: &impl AsFd, v6: bool) -> Result<()> {
    let (level, option) = match v6 {
        false => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
        true => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
    };
    let length = libc::socklen_t::try_from(size_of_val(&PROBE)).unwrap_or_default();
    let descriptor = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open, and pointer and length are those of a constant that lives for ever.
    let set = unsafe { libc::setsockopt(descriptor, level, option, (&raw const PROBE).cast(), length) };
    Errno::result(set).map(drop).map_err(|errno| Error::io("forbid fragments", errno))
}

/// How many packets a packet socket had no room for since this was asked last (`PACKET_STATISTICS`, packet(7)).
///
/// # Errors
/// [`Error::Io`] if it is no packet socket.
pub fn packets_lost(socket: &impl AsFd) -> Result<u32> {
    let mut statistics = Statistics::default();
    let mut length = libc::socklen_t::try_from(size_of::<Statistics>()).unwrap_or_default();
    let descriptor = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open; `statistics` is a `struct tpacket_stats` and `length` its size, and both outlive the call.
    let got = unsafe {
        libc::getsockopt(descriptor, libc::SOL_PACKET, PACKET_STATISTICS, (&raw mut statistics).cast(), &raw mut length)
    };
    Errno::result(got).map_err(|errno| Error::io("ask a packet socket for what it lost", errno))?;
    Ok(statistics.lost)
}

/// Has ethtool fill in `question`, a structure whose first member is the command; whether it did.
fn ask<T>(device: &str, question: &mut T) -> Result<bool> {
    let operation = || format!("ask {device} as ethtool does");
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .map_err(|errno| Error::io(operation(), errno))?;
    let mut request = named(device)?;
    request.ifr_ifru.ifru_data = std::ptr::from_mut(question).cast();
    // SAFETY: the descriptor is an open socket; `request` is a valid `struct ifreq` whose data points to a structure of the
    // size that its command asks for (linux/ethtool.h), and both outlive the call.
    match unsafe { raw::siocethtool(socket.as_raw_fd(), &raw mut request) } {
        Ok(_) => Ok(true),
        Err(Errno::ENODEV | Errno::EOPNOTSUPP) => Ok(false),
        Err(errno) => Err(Error::io(operation(), errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_kernels_sizes() {
        assert_eq!((size_of::<Value>(), size_of::<Driver>(), size_of::<Statistics>()), (8, 196, 8));
    }

    #[test]
    fn a_device_that_is_not_there_tells_nothing() {
        assert_eq!(tx_checksum("weft-absent").unwrap(), None);
        assert_eq!(driver("weft-absent").unwrap(), None);
        // It leaves checksums out altogether.
        assert_eq!(tx_checksum("lo").unwrap(), Some(true));
        assert!(tx_checksum("a-name-that-is-too-long").is_err());
    }

    #[test]
    fn a_socket_is_told_not_to_fragment() {
        let four = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        never_fragment(&four, false).unwrap();
        let error = four.send_to(&[0; 65507], "127.0.0.1:9").map(drop);
        // As large as the loopback's MTU allows, so it goes; what matters is that the option was taken.
        assert!(error.is_ok() || error.unwrap_err().raw_os_error() == Some(libc::EMSGSIZE));
    }
}
