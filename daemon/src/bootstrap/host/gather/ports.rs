//! Ports that somebody listens on, and who.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::path::Path;

use crate::bootstrap::host::facts::Holder;
use crate::bootstrap::host::wanted::Port;

/// State of a socket that listens (`TCP_LISTEN`, include/net/tcp_states.h).
const LISTEN: &str = "0A";

/// Those of the ports that cannot be listened on, as kubeadm tries it, and their holders as far as /proc tells.
pub(super) fn taken(root: &Path, ports: &[Port]) -> BTreeMap<u16, Holder> {
    let taken: Vec<&Port> = ports.iter().filter(|port| is_taken(port)).collect();
    if taken.is_empty() {
        return BTreeMap::new();
    }
    let inodes = inodes(root, &taken);
    let holders = holders(root, &inodes.keys().copied().collect());
    let holder = |port: u16| {
        let inodes = inodes.iter().filter(|(_, of)| **of == port);
        inodes.filter_map(|(inode, _)| holders.get(inode).cloned()).next().unwrap_or_default()
    };
    taken.into_iter().map(|port| (port.number, holder(port.number))).collect()
}

fn is_taken(port: &Port) -> bool {
    // Listening on all IPv6 addresses takes IPv4 in, unless the machine has no IPv6.
    let addresses: [IpAddr; 2] = match port.local {
        true => [Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()],
        false => [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()],
    };
    let refused = |error: io::Error| error.kind() == io::ErrorKind::AddrInUse;
    addresses.into_iter().any(|address| TcpListener::bind((address, port.number)).is_err_and(refused))
}

/// Sockets that listen on those ports, at an address at which they are in the way.
fn inodes(root: &Path, ports: &[&Port]) -> BTreeMap<u64, u16> {
    let texts = ["proc/net/tcp", "proc/net/tcp6"].map(|path| fs::read_to_string(root.join(path)).unwrap_or_default());
    let lines = texts.iter().flat_map(|text| text.lines().skip(1));
    let found = lines.filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (address, number) = words.get(1)?.rsplit_once(':')?;
        let (address, number) = (self::address(address)?, u16::from_str_radix(number, 16).ok()?);
        let inode = words.get(9)?.parse().ok()?;
        let is_in_the_way =
            |port: &&&Port| port.number == number && (!port.local || address.is_unspecified() || address.is_loopback());
        (*words.get(3)? == LISTEN && ports.iter().any(|port| is_in_the_way(&port))).then_some((inode, number))
    });
    found.collect()
}

/// An address as /proc/net/tcp and tcp6 have it: words of 32 bits in hexadecimal digits, each in this machine's byte order.
fn address(text: &str) -> Option<IpAddr> {
    let words = (0..text.len()).step_by(8).map(|at| u32::from_str_radix(text.get(at..at + 8)?, 16).ok());
    let bytes: Vec<u8> = words.collect::<Option<Vec<_>>>()?.into_iter().flat_map(u32::to_ne_bytes).collect();
    let v4 = <[u8; 4]>::try_from(bytes.as_slice()).map(IpAddr::from);
    let v6 = || <[u8; 16]>::try_from(bytes.as_slice()).map(IpAddr::from);
    v4.or_else(|_| v6()).ok().map(|address| address.to_canonical())
}

/// Processes that have one of those sockets open.
fn holders(root: &Path, inodes: &BTreeSet<u64>) -> BTreeMap<u64, Holder> {
    let mut holders = BTreeMap::new();
    let processes = fs::read_dir(root.join("proc")).into_iter().flatten().filter_map(Result::ok);
    for process in processes {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let open = fs::read_dir(process.path().join("fd")).into_iter().flatten().filter_map(Result::ok);
        for link in open.filter_map(|entry| fs::read_link(entry.path()).ok()) {
            let inode = link.to_str().and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            if let Some(inode) = inode.filter(|inode| inodes.contains(inode)) {
                let name = fs::read_to_string(process.path().join("comm")).ok().map(|name| name.trim().to_owned());
                holders.insert(inode, Holder { pid: Some(pid), name });
            }
        }
    }
    holders
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who is in the way of somebody at that port.
    fn asked(number: u16, local: bool) -> Option<Holder> {
        let port = Port { number, component: "etcd", program: "etcd", local };
        taken(Path::new("/"), &[port]).remove(&number)
    }

    #[test]
    fn a_port_that_is_taken_is_told_with_its_holder() {
        for address in ["0.0.0.0:0", "127.0.0.1:0", "[::]:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let port = listener.local_addr().unwrap().port();
            for local in [false, true] {
                let holder = asked(port, local).unwrap();
                assert_eq!(holder.pid, Some(std::process::id()), "{address} {local}");
                assert!(holder.name.is_some());
            }
            drop(listener);
            assert!(asked(port, false).is_none() && asked(port, true).is_none(), "{address}");
        }
    }

    #[test]
    fn who_listens_at_an_address_of_the_network_is_in_no_way_of_the_loopback_devices() {
        let root = tempfile::tempdir().unwrap();
        let line = |address: &str, inode: u64| {
            format!("   0: {address}:1D13 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 {inode} 1\n")
        };
        let hex = |bytes: &[u8]| -> String {
            let words = bytes.chunks(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap()));
            words.map(|word| format!("{word:08X}")).collect()
        };
        let text = |addresses: &[(&str, u64)]| -> String {
            let of = |address: &str| match address.parse().unwrap() {
                IpAddr::V4(address) => hex(&address.octets()),
                IpAddr::V6(address) => hex(&address.octets()),
            };
            "head\n".to_owned() + &addresses.iter().map(|(at, inode)| line(&of(at), *inode)).collect::<String>()
        };
        fs::create_dir_all(root.path().join("proc/net")).unwrap();
        fs::write(root.path().join("proc/net/tcp"), text(&[("192.0.2.10", 1), ("127.0.0.1", 2), ("0.0.0.0", 3)]))
            .unwrap();
        let v6 = text(&[("2001:db8::1", 4), ("::1", 5), ("::", 6), ("::ffff:127.0.0.1", 7)]);
        fs::write(root.path().join("proc/net/tcp6"), v6).unwrap();
        let found = |local| {
            let port = Port { number: 7443, component: "x", program: "x", local };
            inodes(root.path(), &[&port]).into_keys().collect::<Vec<_>>()
        };
        assert_eq!(found(true), [2, 3, 5, 6, 7]);
        assert_eq!(found(false), [1, 2, 3, 4, 5, 6, 7]);
    }
}
