//! Keeps neighbours from getting an answer to an ARP request for a service address.
//!
//! The kernel answers for every address that a `local` route covers, though no interface has it (measured on 6.18; with
//! IPv6 it does not: neighbour discovery asks the interface). A neighbour seldom asks, but one that holds the service
//! network for on-link would find every node answering.
//!
//! `arp_ignore` would help, but it is one for the whole machine: 1 silences addresses of other interfaces as well, which
//! is a change that others may feel, and the greatest of all and device counts. So it is one rule in a table of nf_tables'
//! arp family, which speaks of these networks and of nothing else.

use ipnetwork::IpNetwork;
use weft_netlink::Error;
use weft_netlink::nft::expr::{self, Compare, Header};
use weft_netlink::nft::{
    Batch, Chain, ChainKind, CommitError, Expr, Hook, Register, Rule, Socket, Source, Table, TableFamily, Value,
};
use weft_netlink::priority;

const CHAIN: &str = "input";
/// `ARPOP_REQUEST`, linux/if_arp.h.
const REQUEST: [u8; 2] = [0, 1];

/// Why the rule could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ArpError {
    /// Reading failed.
    #[error(transparent)]
    Read(#[from] Error),
    /// The transaction failed, and changed nothing. Kernels without `CONFIG_NF_TABLES_ARP` say `EOPNOTSUPP`.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// The table that holds the rules.
#[derive(Debug)]
pub struct ArpGuard {
    socket: Socket,
}

/// What [`ArpGuard`] makes.
fn table() -> Table {
    Table::new(TableFamily::Arp, "weft")
}

impl ArpGuard {
    /// Opens the way to nf_tables in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`Error::Io`] if the kernel lacks nf_tables.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { socket: Socket::open()? })
    }

    /// Makes the rules those of the service networks; returns whether anything had to change.
    ///
    /// # Errors
    /// [`ArpError`]; nothing has changed then.
    pub fn ensure(&mut self, ranges: &[IpNetwork]) -> Result<bool, ArpError> {
        let wanted: Vec<Rule> = ranges.iter().filter_map(|range| rule(*range)).collect();
        if wanted.is_empty() {
            return self.remove();
        }
        let chain = chain();
        let is_there = self.socket.chains(&table())?.iter().any(|info| info.chain.base == chain.base);
        if is_there {
            // The rules are weft's own and never change but with their comments.
            let rules = self.socket.rules(&table(), Some(CHAIN))?;
            let actual = rules.iter().map(|rule| rule.comment.as_deref());
            if actual.eq(wanted.iter().map(|rule| rule.comment.as_deref())) {
                return Ok(false);
            }
        }
        let mut batch = Batch::new();
        batch.remove_table(&table());
        batch.add_table(&table());
        batch.add_chain(&table(), &chain);
        for rule in &wanted {
            batch.add_rule(&table(), rule);
        }
        self.socket.commit(batch)?;
        Ok(true)
    }

    /// Removes the table; returns whether there was one.
    ///
    /// # Errors
    /// [`ArpError`].
    pub fn remove(&mut self) -> Result<bool, ArpError> {
        let table = table();
        if !self.socket.tables()?.iter().any(|info| info.table == table) {
            return Ok(false);
        }
        let mut batch = Batch::new();
        batch.remove_table(&table);
        self.socket.commit(batch)?;
        Ok(true)
    }
}

fn chain() -> Chain {
    Chain::base(CHAIN, ChainKind::Filter, Hook::Input, priority::FILTER)
}

/// Drops ARP requests for the addresses of a network; none for IPv6, which has no ARP.
fn rule(range: IpNetwork) -> Option<Rule> {
    let IpNetwork::V4(range) = range else { return None };
    // RFC 826 with addresses of 6 and 4 bytes: the operation, and whose hardware address is asked for.
    let operation = Source::Payload { header: Header::Network, offset: 6, length: 2 };
    let asked = Source::Payload { header: Header::Network, offset: 24, length: 4 };
    let bytes = |address: std::net::Ipv4Addr| Value::bytes(&address.octets());
    let register = Register::FIRST;
    Some(
        Rule::new(CHAIN)
            .with(expr::is(operation, Value::bytes(&REQUEST)))
            .with(Expr::Load { source: asked, register })
            .with(Expr::Bitwise { from: register, to: register, mask: bytes(range.mask()), xor: Value::bytes(&[0; 4]) })
            .with(Expr::Compare { register, comparison: Compare::Equal, value: bytes(range.network()) })
            .with(expr::drop())
            .comment(format!("nobody has {range}")),
    )
}
