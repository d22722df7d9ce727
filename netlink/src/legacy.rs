//! The chain FORWARD of iptables' old kind, which netlink does not show.
//!
//! Its rules are one block of memory, read by two options of a socket (linux/netfilter_ipv4/ip_tables.h,
//! linux/netfilter_ipv6/ip6_tables.h). Asking for a table makes it, and loads its module; so it is only asked for where
//! `/proc` says that it is there.

#![expect(unsafe_code, reason = "two socket options whose answers have no type in nix")]

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use ipnetwork::IpNetwork;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::error::{Error, Result};
use crate::ip_version::IpVersion;

/// `IPT_SO_GET_INFO`, `IP6T_SO_GET_INFO`.
const GET_INFO: libc::c_int = 64;
/// `IPT_SO_GET_ENTRIES`, `IP6T_SO_GET_ENTRIES`.
const GET_ENTRIES: libc::c_int = 65;
/// `NF_INET_FORWARD`, linux/netfilter.h.
const FORWARD: usize = 2;
/// `struct ipt_getinfo`: name (32 bytes), which hooks there are (4), where each begins (5 times 4) and where its policy is (5
/// times 4), number and size of rules (4 and 4).
const INFO: usize = 84;
/// `struct ipt_get_entries` before its rules: name and size, and on 64 bits what aligns them.
const ENTRIES: usize = 40;
/// `struct xt_entry_target`; the verdict of a standard target follows it.
const TARGET: usize = 32;
/// A verdict is -1 less what netfilter calls it (`NF_DROP` 0, `NF_ACCEPT` 1).
const DROP: i32 = -1;
const ACCEPT: i32 = -2;
/// How often the rules are read again that others change in between.
const ATTEMPTS: u32 = 4;

/// What is of interest of the table `filter` of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegacyFilter {
    /// Whether FORWARD drops what none of its rules takes.
    pub forward_drops: bool,
    /// The networks from which some rule takes packets, and asks for nothing else.
    pub accepts_from: Vec<IpNetwork>,
    /// The networks to which some rule takes packets, and asks for nothing else.
    pub accepts_to: Vec<IpNetwork>,
}

impl LegacyFilter {
    /// The table of this IP version in the network namespace of the calling thread; `None` if it is not in use there.
    ///
    /// # Errors
    /// [`Error::Io`] if the kernel refuses, [`Error::Decode`] if its answer cannot be read.
    pub fn read(version: IpVersion) -> Result<Option<Self>> {
        if !is_there(version)? {
            return Ok(None);
        }
        let operation = || format!("read the table filter of {}", version.iptables_legacy());
        let family = match version {
            IpVersion::V4 => AddressFamily::Inet,
            IpVersion::V6 => AddressFamily::Inet6,
        };
        // Any socket of the family does; a raw one, as iptables has it, would take one more capability.
        let socket = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
            .map_err(|errno| Error::io(operation(), errno))?;
        let mut attempt = 1;
        loop {
            match read(&socket, version) {
                // There are more rules, or fewer, than there were.
                Err(Errno::EAGAIN) if attempt < ATTEMPTS => attempt += 1,
                Err(errno) => return Err(Error::io(operation(), errno)),
                Ok((info, rules)) => {
                    return parse(version, &info, &rules)
                        .map(Some)
                        .ok_or_else(|| Error::decode(operation(), "rules are not as the kernel's headers say"));
                }
            }
        }
    }
}

impl IpVersion {
    /// The program whose tables these are.
    const fn iptables_legacy(self) -> &'static str {
        match self {
            Self::V4 => "iptables-legacy",
            Self::V6 => "ip6tables-legacy",
        }
    }
}

fn is_there(version: IpVersion) -> Result<bool> {
    let path = match version {
        IpVersion::V4 => "/proc/thread-self/net/ip_tables_names",
        IpVersion::V6 => "/proc/thread-self/net/ip6_tables_names",
    };
    match fs::read_to_string(path) {
        Ok(names) => Ok(names.lines().any(|name| name == "filter")),
        // A kernel without that kind of tables.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io(format!("read {path}"), error)),
    }
}

fn read(socket: &OwnedFd, version: IpVersion) -> Result<(Vec<u8>, Vec<u8>), Errno> {
    let mut info = named(INFO);
    option(socket, version, GET_INFO, &mut info)?;
    let size = number(&info, INFO - 4).unwrap_or_default();
    let mut rules = named(ENTRIES + size as usize);
    rules[32..36].copy_from_slice(&size.to_ne_bytes());
    option(socket, version, GET_ENTRIES, &mut rules)?;
    Ok((info, rules.split_off(ENTRIES)))
}

/// Room for an answer, with the table's name at its beginning.
fn named(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    bytes[..6].copy_from_slice(b"filter");
    bytes
}

fn option(socket: &OwnedFd, version: IpVersion, name: libc::c_int, answer: &mut [u8]) -> Result<(), Errno> {
    let level = match version {
        IpVersion::V4 => libc::IPPROTO_IP,
        IpVersion::V6 => libc::IPPROTO_IPV6,
    };
    let mut length = libc::socklen_t::try_from(answer.len()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the descriptor is an open socket; `answer` has room for `length` bytes and outlives the call, and the kernel
    // writes no more than that.
    let got = unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, answer.as_mut_ptr().cast(), &raw mut length) };
    Errno::result(got).map(drop)
}

/// Where things are in a rule (`struct ipt_entry`, `struct ip6t_entry`).
struct Layout {
    /// Bytes of an address.
    address: usize,
    /// The names of the interfaces that it asks for begin here, and their masks end where the protocol begins.
    interfaces: usize,
    /// The protocol, and after it what else is asked for.
    protocol: usize,
    /// Which of the questions are turned round.
    inverted: usize,
    /// The place of its target, and the rule's length.
    offsets: usize,
    /// Its matches begin here.
    matches: usize,
}

const V4: Layout = Layout { address: 4, interfaces: 16, protocol: 80, inverted: 83, offsets: 88, matches: 112 };
const V6: Layout = Layout { address: 16, interfaces: 64, protocol: 128, inverted: 132, offsets: 140, matches: 168 };

/// `None` if the bytes cannot be rules.
fn parse(version: IpVersion, info: &[u8], rules: &[u8]) -> Option<LegacyFilter> {
    let layout = match version {
        IpVersion::V4 => V4,
        IpVersion::V6 => V6,
    };
    let hooks = number(info, 32)?;
    // Where a hook's rules begin, and where its policy is, which is the last of them.
    let range = |hook: usize| Some(number(info, 36 + hook * 4)? as usize..=number(info, 56 + hook * 4)? as usize);
    let policy = *range(FORWARD)?.end();
    let others = (0..5).filter(|hook| *hook != FORWARD && hooks & (1 << hook) != 0);
    let others = others.map(range).collect::<Option<Vec<_>>>()?;
    let mut filter = LegacyFilter { forward_drops: false, accepts_from: Vec::new(), accepts_to: Vec::new() };
    let mut at = 0;
    while at < rules.len() {
        let rule = rules.get(at..)?;
        let (target, length) = (short(rule, layout.offsets)?, short(rule, layout.offsets + 2)?);
        let rule = rule.get(..length).filter(|_| length > target && target >= layout.matches)?;
        let verdict = verdict(rule.get(target..)?);
        if at == policy {
            filter.forward_drops = verdict == Some(DROP);
        } else if verdict == Some(ACCEPT) && !others.iter().any(|range| range.contains(&at)) {
            let asks_more = target > layout.matches && !only_comments(rule.get(layout.matches..target)?);
            let fields = rule.get(layout.interfaces..layout.interfaces + 64)?;
            let asks_more = asks_more || fields.iter().any(|byte| *byte != 0);
            let asks_more = asks_more || rule.get(layout.protocol..layout.inverted + 1)?.iter().any(|byte| *byte != 0);
            if !asks_more {
                // A mask may have holes: what such a rule takes is no network.
                if let (Some(from), Some(to)) = (network(rule, &layout, 0), network(rule, &layout, 1)) {
                    // A rule that asks for nothing at all takes packets both from and to anywhere.
                    if from.prefix() == 0 {
                        filter.accepts_to.push(to);
                    }
                    if to.prefix() == 0 {
                        filter.accepts_from.push(from);
                    }
                }
            }
        }
        at += length;
    }
    Some(filter)
}

/// The verdict of a standard target, which has no name.
fn verdict(target: &[u8]) -> Option<i32> {
    let has_name = target.get(2).is_none_or(|byte| *byte != 0);
    if has_name { None } else { number(target, TARGET).map(u32::cast_signed) }
}

/// Whether the matches are comments, which ask for nothing (`struct xt_entry_match`: its size, its name).
fn only_comments(mut matches: &[u8]) -> bool {
    while !matches.is_empty() {
        let Some(size) = short(matches, 0).filter(|size| *size > 0) else { return false };
        if !matches.get(2..).is_some_and(|name| name.starts_with(b"comment\0")) {
            return false;
        }
        matches = matches.get(size..).unwrap_or_default();
    }
    true
}

/// The source (0) or destination (1) of a rule: two addresses, then their masks.
fn network(rule: &[u8], layout: &Layout, which: usize) -> Option<IpNetwork> {
    let address = |place: usize| -> Option<IpAddr> {
        let bytes = rule.get(place * layout.address..(place + 1) * layout.address)?;
        match layout.address {
            4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
            _ => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        }
    };
    IpNetwork::with_netmask(address(which)?, address(which + 2)?).ok()
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_ne_bytes(*chunk))
}

fn short(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..)?.first_chunk().map(|chunk| usize::from(u16::from_ne_bytes(*chunk)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(info: Vec<u8>, rules: Vec<u8>) {
            let _ = parse(IpVersion::V4, &info, &rules);
            let _ = parse(IpVersion::V6, &info, &rules);
        }
    }
}
