//! What the predecessors have left in this node's kernel, and its removal. For the network namespace of the calling thread.

use std::fs;
use std::net::IpAddr;

use weft_netlink::ipvs::{self, Target};
use weft_netlink::nft::{Batch, CommitError, Socket, Table, TableFamily};
use weft_netlink::{Errno, Error, RouteSocket, delete_link, ipset};

use super::plugins;
use super::rules::{Found, Removal};
use super::virtual_servers::{DEVICE, is_its_set};

/// The tables that iptables-nft makes.
const IPTABLES: [&str; 5] = ["raw", "mangle", "nat", "filter", "security"];
/// Families that iptables and ip6tables have.
const FAMILIES: [TableFamily; 2] = [TableFamily::Ip, TableFamily::Ip6];
/// kube-proxy's tables in nftables mode, one a family.
pub const KUBE_PROXY_TABLES: [&str; 1] = ["kube-proxy"];
/// flannel's tables with `EnableNFTables`, one a family.
pub const FLANNEL_TABLES: [&str; 2] = ["flannel-ipv4", "flannel-ipv6"];
/// Requests in one transaction: a proxy of ten thousand Services has fifty thousand chains.
const AT_ONCE: usize = 2000;
/// How often a removal is planned anew when somebody changed a table meanwhile.
const ATTEMPTS: u32 = 5;

/// The way to what others have in the kernel.
#[derive(Debug)]
pub struct Kernel {
    nft: Socket,
}

/// The device of kube-proxy's ipvs mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The kernel's number for it.
    pub index: u32,
    /// The addresses on it: those of all Services.
    pub addresses: Vec<IpAddr>,
}

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// How many chains.
    pub chains: usize,
    /// How many rules beside those in the chains.
    pub rules: usize,
    /// In words, those of the rules that others made.
    pub foreign: Vec<String>,
}

impl Kernel {
    /// Opens it.
    ///
    /// # Errors
    /// [`Error::Io`] if the kernel lacks nf_tables.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { nft: Socket::open()? })
    }

    /// iptables' tables, as far as they are in nf_tables.
    ///
    /// # Errors
    /// What the kernel says; then nothing is known.
    pub fn iptables(&mut self) -> Result<Vec<Found>, Error> {
        let is_iptables = |table: &Table| FAMILIES.contains(&table.family) && IPTABLES.contains(&&*table.name);
        let tables: Vec<Table> = self.nft.tables()?.into_iter().map(|info| info.table).filter(is_iptables).collect();
        tables.into_iter().map(|table| self.found(table)).collect()
    }

    fn found(&mut self, table: Table) -> Result<Found, Error> {
        Ok(Found { chains: self.nft.chains(&table)?, rules: self.nft.rules(&table, None)?, table })
    }

    /// The tables of these names, of iptables' families.
    ///
    /// # Errors
    /// As [`iptables`](Self::iptables).
    pub fn tables_named(&mut self, names: &[&str]) -> Result<Vec<Table>, Error> {
        let is_named = |table: &Table| FAMILIES.contains(&table.family) && names.contains(&&*table.name);
        Ok(self.nft.tables()?.into_iter().map(|info| info.table).filter(is_named).collect())
    }

    /// Removes tables with all that is in them.
    ///
    /// # Errors
    /// What the kernel says; one that is gone already is none.
    pub fn remove_tables(&mut self, tables: &[Table]) -> Result<(), Error> {
        let mut batch = Batch::new();
        tables.iter().for_each(|table| batch.remove_table(table));
        Ok(self.nft.commit(batch)?)
    }

    /// The plugins' tables of nftables, whatever their family is.
    ///
    /// # Errors
    /// As [`iptables`](Self::iptables).
    pub fn plugins(&mut self) -> Result<Vec<Found>, Error> {
        let is_theirs = |table: &Table| plugins::TABLES.contains(&&*table.name);
        let tables: Vec<Table> = self.nft.tables()?.into_iter().map(|info| info.table).filter(is_theirs).collect();
        tables.into_iter().map(|table| self.found(table)).collect()
    }

    /// Removes from each of these tables what `plan` finds in it, until it finds nothing; says what that was.
    ///
    /// # Errors
    /// What the kernel says; what was removed before stays removed, and the next run goes on.
    pub fn remove(&mut self, tables: Vec<Found>, plan: impl Fn(&Found) -> Removal) -> Result<Removed, Error> {
        let mut removed = Removed::default();
        for table in tables {
            let mut found = table;
            for attempt in 1.. {
                let removal = plan(&found);
                if removal.is_empty() {
                    break;
                }
                match self.apply(&removal) {
                    Ok(()) => {
                        removed.chains += removal.chains.len();
                        removed.rules += removal.rules.len();
                        removed.foreign.extend(removal.foreign);
                    }
                    // Somebody removed a rule, or led another one to a chain, since the table was read.
                    Err(CommitError::Refused { first, .. })
                        if attempt < ATTEMPTS && matches!(first.errno, Errno::ENOENT | Errno::EBUSY) => {}
                    Err(error) => return Err(error.into()),
                }
                if attempt >= ATTEMPTS {
                    break;
                }
                found = self.found(found.table)?;
            }
        }
        Ok(removed)
    }

    /// First what leads to the chains, then what is in them, then they themselves: so each transaction leaves something
    /// that holds together.
    fn apply(&mut self, removal: &Removal) -> Result<(), CommitError> {
        let Removal { table, rules, chains, .. } = removal;
        let mut batch = Batch::new();
        rules.iter().for_each(|(chain, handle)| batch.delete_rule(table, chain, *handle));
        for part in chains.chunks(AT_ONCE) {
            part.iter().for_each(|chain| batch.flush_chain(table, chain));
            self.nft.commit(std::mem::take(&mut batch))?;
        }
        if !batch.is_empty() {
            self.nft.commit(batch)?;
        }
        for part in chains.chunks(AT_ONCE) {
            let mut batch = Batch::new();
            part.iter().for_each(|chain| batch.delete_chain(table, chain));
            self.nft.commit(batch)?;
        }
        Ok(())
    }
}

/// The tables of iptables-legacy that the kernel has, as `ip nat`; what is in them cannot be seen by netlink.
#[must_use]
pub fn legacy_tables() -> Vec<String> {
    let of = |family: &'static str, file: &str| {
        let names = fs::read_to_string(file).unwrap_or_default();
        names.lines().map(|name| format!("{family} {name}")).collect::<Vec<_>>()
    };
    [of("ip", "/proc/net/ip_tables_names"), of("ip6", "/proc/net/ip6_tables_names")].concat()
}

/// All virtual servers. IPVS is not asked where it is not in use: to ask would load it.
///
/// # Errors
/// What the kernel says.
pub fn virtual_servers() -> Result<Vec<Target>, Error> {
    if !fs::exists("/proc/net/ip_vs").unwrap_or_default() {
        return Ok(Vec::new());
    }
    Ok(ipvs::Socket::open()?.virtual_servers()?.into_iter().map(|found| found.server.target).collect())
}

/// Removes virtual servers.
///
/// # Errors
/// What the kernel says of the first that it keeps.
pub fn remove_virtual_servers(targets: &[Target]) -> Result<(), Error> {
    let mut batch = ipvs::Batch::default();
    targets.iter().for_each(|target| batch.delete_virtual(target));
    let verdicts = ipvs::Socket::open()?.run(batch)?;
    let refused = verdicts.into_iter().filter_map(Result::err).find(|error| !error.is_absent());
    refused.map_or(Ok(()), |error| Err(error.into()))
}

/// kube-proxy's device, if it is there, and the addresses of all other links.
///
/// # Errors
/// What the kernel says.
pub fn device() -> Result<(Option<Device>, Vec<IpAddr>), Error> {
    let mut socket = RouteSocket::open()?;
    let index = socket.link(DEVICE)?.map(|link| link.index);
    let (on, off): (Vec<_>, Vec<_>) =
        socket.addresses(None)?.into_iter().partition(|address| Some(address.link) == index);
    let ips = |all: Vec<weft_netlink::AddressInfo>| all.into_iter().map(|info| info.network.ip()).collect();
    Ok((index.map(|index| Device { index, addresses: ips(on) }), ips(off)))
}

/// Removes a link; one that is gone already is no error.
///
/// # Errors
/// What the kernel says.
pub fn remove_link(index: u32) -> Result<(), Error> {
    match RouteSocket::open()?.one(delete_link(index)) {
        Err(error) if !error.is_absent() => Err(error),
        _ => Ok(()),
    }
}

/// kube-proxy's IP sets.
///
/// # Errors
/// What the kernel says.
pub fn ip_sets() -> Result<Vec<String>, Error> {
    let mut names = ipset::Socket::open()?.names()?;
    names.retain(|name| is_its_set(name));
    Ok(names)
}

/// Removes IP sets.
///
/// # Errors
/// What the kernel says of the first that it keeps.
pub fn remove_ip_sets(names: &[String]) -> Result<(), Error> {
    let verdicts = ipset::Socket::open()?.destroy(names)?;
    verdicts.into_iter().find_map(Result::err).map_or(Ok(()), |error| Err(error.into()))
}
