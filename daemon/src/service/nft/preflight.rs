//! Whether the kernel can do what the rules are made of, asked before any of them is written.
//!
//! Kernels are built without parts of nf_tables, or come without the modules. What such a kernel says to a rule ("No such
//! file or directory") names no part, and says it of one rule among hundreds; here each part has its name.

use std::collections::BTreeSet;
use std::fmt;

use weft_netlink::nft::expr::{self, AddressKind, CtKey, Expr, LimitPer, NatFlags, NatKind, Reject, Side};
use weft_netlink::nft::{Batch, Chain, CommitError, IpVersion, Register, Rule, Socket, Source, Table, TableFamily};
use weft_netlink::{Errno, Error};

use super::backend::NftError;
use super::chains;
use super::class::Class;
use super::options::Options;
use super::skeleton;
use crate::cluster::Family;

/// The table that is asked for, and that is never there.
const TABLE: &str = "weft-preflight";
const CHAIN: &str = "probe";

/// A part of nf_tables that a kernel may lack (net/netfilter/Kconfig).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Tables that see both families.
    Inet,
    /// Tables that see ARP.
    Arp,
    /// `ct`, `notrack`.
    Ct,
    /// `fib`.
    Fib,
    /// `numgen`.
    Numgen,
    /// `dnat`, `snat`; chains of type `nat` come with it.
    Nat,
    /// `masquerade`.
    Masquerade,
    /// `redirect`.
    Redirect,
    /// `reject`.
    Reject,
    /// `limit`.
    Limit,
    /// `counter`.
    Counter,
    /// `jhash`.
    Hash,
}

impl Part {
    /// The part that an expression belongs to; `None` for those that nf_tables always has.
    #[must_use]
    fn of(expression: &Expr) -> Option<Self> {
        match expression {
            Expr::Load { source, .. } => match source {
                Source::Ct { .. } => Some(Self::Ct),
                Source::Fib { .. } => Some(Self::Fib),
                Source::Number { .. } => Some(Self::Numgen),
                Source::Hash { .. } => Some(Self::Hash),
                Source::Meta(_) | Source::Address(..) | Source::Port(_) | Source::Payload { .. } => None,
            },
            Expr::SetCt { .. } | Expr::NoTrack => Some(Self::Ct),
            Expr::Nat { .. } => Some(Self::Nat),
            Expr::Masquerade(_) => Some(Self::Masquerade),
            Expr::Redirect { .. } => Some(Self::Redirect),
            Expr::Reject(_) => Some(Self::Reject),
            Expr::Limit { .. } => Some(Self::Limit),
            Expr::Counter { .. } => Some(Self::Counter),
            Expr::Immediate { .. }
            | Expr::SetMeta { .. }
            | Expr::Compare { .. }
            | Expr::Bitwise { .. }
            | Expr::ByteOrder { .. }
            | Expr::Lookup { .. }
            | Expr::ChangeSet { .. }
            | Expr::Verdict(_) => None,
        }
    }

    /// The kernel's option, and the module that it makes.
    #[must_use]
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Inet => ("CONFIG_NF_TABLES_INET", "nf_tables"),
            Self::Arp => ("CONFIG_NF_TABLES_ARP", "nf_tables"),
            Self::Ct => ("CONFIG_NFT_CT", "nft_ct"),
            Self::Fib => ("CONFIG_NFT_FIB_INET", "nft_fib_inet"),
            Self::Numgen => ("CONFIG_NFT_NUMGEN", "nft_numgen"),
            Self::Nat => ("CONFIG_NFT_NAT", "nft_nat"),
            Self::Masquerade => ("CONFIG_NFT_MASQ", "nft_masq"),
            Self::Redirect => ("CONFIG_NFT_REDIR", "nft_redir"),
            Self::Reject => ("CONFIG_NFT_REJECT_INET", "nft_reject_inet"),
            Self::Limit => ("CONFIG_NFT_LIMIT", "nft_limit"),
            Self::Counter => ("CONFIG_NFT_COUNTER", "nft_counter"),
            Self::Hash => ("CONFIG_NFT_HASH", "nft_hash"),
        }
    }

    /// What only a kernel with this part knows.
    ///
    /// Whoever holds an expression of connection tracking or translation holds conntrack's hooks, and to take and to leave
    /// them rewrites the kernel's own code. Where an expression can lack something, so that the kernel knows it and refuses it
    /// before that (`EINVAL`), it does.
    fn phrase(self) -> Vec<Expr> {
        let register = Register::FIRST;
        match self {
            Self::Inet | Self::Arp => Vec::new(),
            Self::Ct => {
                let key = CtKey::Address(IpVersion::V4, Side::Source);
                vec![Expr::Load { source: Source::Ct { key, direction: None }, register }]
            }
            Self::Fib => expr::fib_daddr_type(AddressKind::Local),
            Self::Numgen => vec![Expr::Load { source: Source::random(2), register }],
            Self::Nat => {
                let (kind, version, flags) = (NatKind::Destination, IpVersion::V4, NatFlags::default());
                vec![Expr::Nat { kind, version, address: None, port: None, flags }]
            }
            Self::Masquerade => vec![expr::masquerade()],
            Self::Redirect => vec![Expr::Redirect { port: None, flags: NatFlags::default() }],
            Self::Reject => vec![expr::reject(Reject::PortUnreachable)],
            Self::Limit => vec![expr::limit(1, LimitPer::Second, 1)],
            Self::Counter => vec![expr::counter()],
            Self::Hash => {
                let input = Source::mark();
                let hash = Source::Hash { input: register, length: 4, modulus: 2, seed: None, offset: 0 };
                vec![Expr::Load { source: input, register }, Expr::Load { source: hash, register }]
            }
        }
    }

    /// Asks for it in a table of that family.
    fn ask(self, family: TableFamily) -> Batch {
        let mut batch = Batch::new();
        let family = if self == Self::Arp { TableFamily::Arp } else { family };
        let table = Table::new(family, TABLE);
        batch.add_table(&table);
        batch.add_chain(&table, &Chain::regular(CHAIN));
        batch.add_rule(&table, &Rule::new(CHAIN).with(self.phrase()));
        batch
    }
}

impl fmt::Display for Part {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (option, module) = self.names();
        write!(out, "{option} (module {module})")
    }
}

/// Parts that a kernel lacks; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing(Vec<Part>);

impl fmt::Display for Missing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, part) in self.0.iter().enumerate() {
            write!(out, "{}{part}", if position == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// Asks whether the kernel has all parts that the rules of Services need; ARP's with those of ipvs mode. Nothing is written.
///
/// # Errors
/// [`NftError::Lacks`] if it does not; [`NftError::Read`] if it could not be asked.
pub fn preflight(with_arp: bool) -> Result<(), NftError> {
    let mut needed = needed();
    if with_arp {
        needed.insert(Part::Arp);
    }
    let mut socket = Socket::open()?;
    let missing = missing(&mut socket, TableFamily::Inet, &needed)?;
    if missing.is_empty() { Ok(()) } else { Err(NftError::Lacks(Missing(missing))) }
}

/// What the rules of both modes are made of.
fn needed() -> BTreeSet<Part> {
    let modes = [true, false].map(|proxy_cluster_ips| Options { proxy_cluster_ips, ..Options::default() });
    let affinities = [None, Some(1)];
    let classes = affinities.map(|affinity| Class { family: Family::V4, local: false, size: 2, affinity });
    let chains = modes.iter().flat_map(skeleton::chains).chain(classes.into_iter().map(chains::plan));
    let rules = chains.flat_map(|planned| planned.rules);
    let mut parts: BTreeSet<Part> =
        rules.flat_map(|rule| rule.expressions.iter().filter_map(Part::of).collect::<Vec<_>>()).collect();
    parts.insert(Part::Inet);
    parts
}

/// Those of the parts that the kernel lacks in tables of that family.
fn missing(socket: &mut Socket, family: TableFamily, needed: &BTreeSet<Part>) -> Result<Vec<Part>, Error> {
    let mut missing = Vec::new();
    for part in needed {
        if is_lacking(socket.check(part.ask(family)))? {
            missing.push(*part);
        }
        // Nothing else can be in a table that cannot be.
        if missing == [Part::Inet] {
            break;
        }
    }
    Ok(missing)
}

/// Whether a refusal says that the kernel does not know what is asked of it. Other refusals say that it does, or (no
/// permission, somebody else's transaction) nothing of that, and then the rules themselves will meet them.
fn is_lacking(checked: Result<(), CommitError>) -> Result<bool, Error> {
    match checked {
        Ok(()) => Ok(false),
        Err(CommitError::Refused { first, .. }) => {
            Ok(matches!(first.errno, Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT | Errno::EPROTONOSUPPORT))
        }
        Err(CommitError::Failed(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t101_what_the_rules_are_made_of_has_a_name() {
        let parts: Vec<String> = needed().iter().map(ToString::to_string).collect();
        let expected = [
            "CONFIG_NF_TABLES_INET (module nf_tables)",
            "CONFIG_NFT_CT (module nft_ct)",
            "CONFIG_NFT_FIB_INET (module nft_fib_inet)",
            "CONFIG_NFT_NUMGEN (module nft_numgen)",
            "CONFIG_NFT_NAT (module nft_nat)",
            "CONFIG_NFT_MASQ (module nft_masq)",
            "CONFIG_NFT_REJECT_INET (module nft_reject_inet)",
        ];
        assert_eq!(parts, expected);
    }

    #[test]
    fn each_part_is_asked_for_by_an_expression_of_its_own() {
        let all = [
            Part::Ct,
            Part::Fib,
            Part::Numgen,
            Part::Nat,
            Part::Masquerade,
            Part::Redirect,
            Part::Reject,
            Part::Limit,
            Part::Counter,
            Part::Hash,
        ];
        for part in all {
            let phrase = part.phrase();
            let found: BTreeSet<Part> = phrase.iter().filter_map(Part::of).collect();
            assert_eq!(found, [part].into(), "{phrase:?}");
        }
    }

    #[test]
    fn t101_missing_parts_are_all_named() {
        let missing = NftError::Lacks(Missing(vec![Part::Fib, Part::Numgen]));
        assert_eq!(
            missing.to_string(),
            "the kernel lacks what the rules of Services need: CONFIG_NFT_FIB_INET (module nft_fib_inet), \
             CONFIG_NFT_NUMGEN (module nft_numgen); load the modules, or use a kernel that has them"
        );
    }

    /// Needs root.
    #[test]
    fn t101_a_kernel_is_asked_without_leaving_anything_in_it() {
        let work = || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("needs root");
            let mut socket = Socket::open().unwrap();
            let before = socket.generation().unwrap();
            preflight(true).unwrap();
            // No kernel has sources to masquerade, or looks up routes, for ARP: the refusal of a kernel without these.
            let asked = needed();
            let lacking = missing(&mut socket, TableFamily::Arp, &asked).unwrap();
            assert_eq!(lacking, [Part::Fib, Part::Masquerade, Part::Reject]);
            assert_eq!((socket.tables().unwrap().len(), socket.generation().unwrap()), (0, before));
        };
        std::thread::spawn(work).join().unwrap();
    }
}
