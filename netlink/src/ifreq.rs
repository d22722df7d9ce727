//! Questions about links that do not take the kernel's RTNL lock.
//!
//! `RTM_GETLINK` waits for RTNL, which a burst of pods keeps busy; `SIOCGIFINDEX` and `SIOCGIFFLAGS` (netdevice(7)) read
//! under RCU and answer at once.

#![expect(unsafe_code, reason = "two ioctls and the union in `struct ifreq` that they fill")]

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::MacAddr;
use crate::error::{Error, Result};

mod raw {
    use nix::libc::{SIOCGIFFLAGS, SIOCGIFHWADDR, SIOCGIFINDEX, ifreq};

    nix::ioctl_readwrite_bad!(siocgifindex, SIOCGIFINDEX, ifreq);
    nix::ioctl_readwrite_bad!(siocgifflags, SIOCGIFFLAGS, ifreq);
    nix::ioctl_readwrite_bad!(siocgifhwaddr, SIOCGIFHWADDR, ifreq);
}

/// A socket to ask about links with. It stays in the network namespace in which it was opened.
#[derive(Debug)]
pub struct LinkProbe(OwnedFd);

/// What a link is doing (`IFF_*`, linux/if.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkFlags {
    /// It is set up.
    pub up: bool,
    /// It is set up and has a carrier.
    pub running: bool,
    /// It is set promiscuous by name (`ip link set … promisc on`), not as a bridge port.
    pub promisc: bool,
}

impl LinkProbe {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`Error::Io`] if the process may not open sockets.
    pub fn open() -> Result<Self> {
        socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
            .map(Self)
            .map_err(|errno| Error::io("open a socket to look at links", errno))
    }

    /// The index of the link with this name; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Io`] with `EINVAL` if the name is longer than 15 bytes.
    pub fn index(&self, name: &str) -> Result<Option<u32>> {
        let mut request = named(name)?;
        // SAFETY: the descriptor is an open socket and `request` a valid `struct ifreq` that outlives the call.
        let result = unsafe { raw::siocgifindex(self.0.as_raw_fd(), &raw mut request) };
        if !exists(result, name)? {
            return Ok(None);
        }
        // SAFETY: SIOCGIFINDEX succeeded, so the kernel has filled `ifr_ifindex` (netdevice(7)).
        let index = unsafe { request.ifr_ifru.ifru_ifindex };
        u32::try_from(index)
            .map(Some)
            .map_err(|_| Error::decode(format!("look up link {name}"), format!("index {index}")))
    }

    /// What the link with this name is doing; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Io`] with `EINVAL` if the name is longer than 15 bytes.
    pub fn flags(&self, name: &str) -> Result<Option<LinkFlags>> {
        let mut request = named(name)?;
        // SAFETY: the descriptor is an open socket and `request` a valid `struct ifreq` that outlives the call.
        let result = unsafe { raw::siocgifflags(self.0.as_raw_fd(), &raw mut request) };
        if !exists(result, name)? {
            return Ok(None);
        }
        // SAFETY: SIOCGIFFLAGS succeeded, so the kernel has filled `ifr_flags` (netdevice(7)).
        let flags = libc::c_int::from(unsafe { request.ifr_ifru.ifru_flags });
        Ok(Some(LinkFlags {
            up: flags & libc::IFF_UP != 0,
            running: flags & libc::IFF_RUNNING != 0,
            promisc: flags & libc::IFF_PROMISC != 0,
        }))
    }

    /// The Ethernet address of the link with this name; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Io`] with `EINVAL` if the name is longer than 15 bytes.
    pub fn mac(&self, name: &str) -> Result<Option<MacAddr>> {
        let mut request = named(name)?;
        // SAFETY: the descriptor is an open socket and `request` a valid `struct ifreq` that outlives the call.
        let result = unsafe { raw::siocgifhwaddr(self.0.as_raw_fd(), &raw mut request) };
        if !exists(result, name)? {
            return Ok(None);
        }
        // SAFETY: SIOCGIFHWADDR succeeded, so the kernel has filled `ifr_hwaddr` (netdevice(7)).
        let [a, b, c, d, e, f, ..] = unsafe { request.ifr_ifru.ifru_hwaddr }.sa_data;
        // `c_char` is signed on some machines and not on others.
        Ok(Some(MacAddr([a, b, c, d, e, f].map(|byte| byte.to_ne_bytes()[0]))))
    }
}

pub(crate) fn named(name: &str) -> Result<libc::ifreq> {
    // SAFETY: `struct ifreq` is made of integers, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // One byte is left for the terminating NUL.
    if name.is_empty() || name.len() >= request.ifr_name.len() {
        return Err(Error::io(format!("look up link {name:?}"), Errno::EINVAL));
    }
    for (slot, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *slot = libc::c_char::from_ne_bytes([byte]);
    }
    Ok(request)
}

fn exists(result: nix::Result<libc::c_int>, name: &str) -> Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(Errno::ENODEV) => Ok(false),
        Err(errno) => Err(Error::io(format!("look up link {name}"), errno)),
    }
}
