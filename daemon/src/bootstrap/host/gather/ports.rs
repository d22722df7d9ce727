//! Ports that somebody listens on, and who.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::path::Path;

use crate::bootstrap::host::facts::Holder;

/// State of a socket that listens (`TCP_LISTEN`, include/net/tcp_states.h).
const LISTEN: &str = "0A";

/// Those of the ports that cannot be listened on, as kubeadm tries it, and their holders as far as /proc tells.
pub(super) fn taken(root: &Path, ports: &BTreeSet<u16>) -> BTreeMap<u16, Holder> {
    let taken: BTreeSet<u16> = ports.iter().copied().filter(|port| is_taken(*port)).collect();
    if taken.is_empty() {
        return BTreeMap::new();
    }
    let inodes = inodes(root, &taken);
    let holders = holders(root, &inodes.keys().copied().collect());
    let holder = |port: u16| {
        let inodes = inodes.iter().filter(|(_, of)| **of == port);
        inodes.filter_map(|(inode, _)| holders.get(inode).cloned()).next().unwrap_or_default()
    };
    taken.into_iter().map(|port| (port, holder(port))).collect()
}

fn is_taken(port: u16) -> bool {
    let refused = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
    // Listening on all IPv6 addresses takes IPv4 in, unless the machine has no IPv6.
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)) {
        Ok(_) => false,
        Err(error) if refused(&error) => true,
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_err_and(|error| refused(&error)),
    }
}

/// Sockets that listen on those ports.
fn inodes(root: &Path, ports: &BTreeSet<u16>) -> BTreeMap<u64, u16> {
    let texts = ["proc/net/tcp", "proc/net/tcp6"].map(|path| fs::read_to_string(root.join(path)).unwrap_or_default());
    let lines = texts.iter().flat_map(|text| text.lines().skip(1));
    let found = lines.filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (_, port) = words.get(1)?.rsplit_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        let inode = words.get(9)?.parse().ok()?;
        (*words.get(3)? == LISTEN && ports.contains(&port)).then_some((inode, port))
    });
    found.collect()
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

    #[test]
    fn a_port_that_is_taken_is_told_with_its_holder() {
        for address in ["0.0.0.0:0", "127.0.0.1:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let port = listener.local_addr().unwrap().port();
            let found = taken(Path::new("/"), &[port].into());
            assert_eq!(found[&port].pid, Some(std::process::id()), "{address}");
            assert!(found[&port].name.is_some());
            drop(listener);
            assert!(taken(Path::new("/"), &[port].into()).is_empty(), "{address}");
        }
    }
}
