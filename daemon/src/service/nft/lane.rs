//! Which register holds what, in the rules that choose a backend.
//!
//! What one look-up gives is a part of the next one's key, so they lie one behind the other:
//!
//! ```text
//! | client | id | backend | port | filler | tag | list | index |
//!   affinity key                            tagged key
//!                                                 backends and tags key
//!                 backends and tagged data
//!                                  tags and affinity data
//!                                           frontends data
//!                                           sizes data ------->
//! ```
//!
//! IPv4 takes eight of the sixteen registers, IPv6 fourteen. Each rule loads whatever it uses itself: newer kernels refuse a
//! rule that reads a register which it has not written.
//!
//! nft 1.0 gives up on rules in which the data of a map is a part of another key. So that it can list ours, such data has
//! a word in front, nobody's, by which nft knows it; and where the word stands that counts, the packet's mark is loaded
//! first. The kernel overwrites it, and nft prints `meta mark` for "the number that the map in front gave".

use weft_netlink::nft::expr::{self, Expr, NatFlags, NatKind, SetChange};
use weft_netlink::nft::{IpVersion, Register, Source, Value};

use super::class::Class;
use super::layout::{Entrance, LOCAL_LIST, SetId};
use crate::cluster::Family;

/// What a packet is looked up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// Its destination address, protocol and port.
    Address,
    /// Its protocol and destination port: a node port.
    Port,
}

impl By {
    pub(super) const ALL: [Self; 2] = [Self::Address, Self::Port];
}

/// The kernel's word for the family.
pub(super) const fn version(family: Family) -> IpVersion {
    match family {
        Family::V4 => IpVersion::V4,
        Family::V6 => IpVersion::V6,
    }
}

/// The registers of one family.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lane {
    family: Family,
}

impl Lane {
    pub(super) const fn of(family: Family) -> Self {
        Self { family }
    }

    fn words(self) -> u32 {
        u32::from(self.family.bits()) / 32
    }

    fn at(self, word: u32) -> Register {
        Register::FIRST.behind(4 * word)
    }

    fn client(self) -> Register {
        Register::FIRST
    }

    fn id(self) -> Register {
        self.at(self.words())
    }

    fn backend(self) -> Register {
        self.at(self.words() + 1)
    }

    fn backend_port(self) -> Register {
        self.at(2 * self.words() + 1)
    }

    fn filler(self) -> Register {
        self.at(2 * self.words() + 2)
    }

    fn tag(self) -> Register {
        self.at(2 * self.words() + 3)
    }

    fn list(self) -> Register {
        self.at(2 * self.words() + 4)
    }

    fn index(self) -> Register {
        self.at(2 * self.words() + 5)
    }

    /// The number of the frontend that the packet is for, where the list's is to stand; the rule ends here for others.
    pub(super) fn frontend(self, by: By) -> Vec<Expr> {
        let version = version(self.family);
        let mut phrase = expr::nfproto(version);
        let (first, set) = match by {
            By::Address => (Source::daddr(version), SetId::Frontends(self.family)),
            By::Port => (Source::Meta(expr::MetaKey::Nfproto), SetId::NodePorts),
        };
        phrase.extend(expr::load(&[first, Source::protocol(), Source::dport()]));
        phrase.push(stand_in(self.list()));
        phrase.push(look_up(set, Register::FIRST, Some(self.tag())));
        phrase
    }

    /// Turns the frontend's number into that of its entrance, and goes there.
    pub(super) fn enter(self, by: By) -> Vec<Expr> {
        let set = if by == By::Address { SetId::Entrances } else { SetId::PortEntrances };
        vec![bits(self.list(), self.list(), Entrance::MASK, 0), look_up(set, self.list(), Some(Register::VERDICT))]
    }

    /// Turns the frontend's number into that of one of its lists.
    pub(super) fn to_list(self, local: bool) -> Expr {
        bits(self.list(), self.list(), !Entrance::MASK, if local { LOCAL_LIST } else { 0 })
    }

    /// Goes to the chain of the list's class; the rule ends here for an empty list.
    pub(super) fn balance(self) -> Vec<Expr> {
        vec![
            stand_in(self.index()),
            look_up(SetId::Sizes, self.list(), Some(self.tag())),
            look_up(SetId::Balancers, self.list(), Some(Register::VERDICT)),
        ]
    }

    /// Whether nobody serves the port anywhere: the number of the frontend becomes its id, which is looked up.
    pub(super) fn has_no_endpoints(self) -> Vec<Expr> {
        vec![self.to_list(false), look_up(SetId::NoEndpoints, self.list(), None)]
    }

    /// Whether there is a frontend: no port has id 0.
    pub(super) fn is_known(self) -> Vec<Expr> {
        let nothing = Value::number(0);
        let compare = Expr::Compare { register: self.list(), comparison: expr::Compare::NotEqual, value: nothing };
        vec![self.to_list(false), compare]
    }

    /// Chooses one of the list's backends at random.
    pub(super) fn choose(self, size: u32) -> Vec<Expr> {
        vec![
            Expr::Load { source: Source::random(size), register: self.index() },
            look_up(SetId::Backends(self.family), self.list(), Some(self.backend())),
        ]
    }

    /// Chooses the tag of one of the list's backends at random.
    pub(super) fn choose_tag(self, size: u32) -> Vec<Expr> {
        vec![
            Expr::Load { source: Source::random(size), register: self.index() },
            stand_in(self.tag()),
            look_up(SetId::Tags, self.list(), Some(self.filler())),
        ]
    }

    /// Finds the tag of the backend that the client stays with, whether it is still there or not.
    pub(super) fn remember(self) -> Vec<Expr> {
        let mut phrase = self.client_and_id();
        phrase.push(stand_in(self.tag()));
        phrase.push(look_up(SetId::Affinity(self.family), self.client(), Some(self.filler())));
        phrase
    }

    /// Finds the backend by its tag; the rule ends here if it is not in the list.
    pub(super) fn tagged(self) -> Expr {
        look_up(SetId::Tagged(self.family), self.tag(), Some(self.backend()))
    }

    /// Loads client and id.
    pub(super) fn client_and_id(self) -> Vec<Expr> {
        vec![
            bits(self.list(), self.id(), !LOCAL_LIST, 0),
            Expr::Load { source: Source::saddr(version(self.family)), register: self.client() },
        ]
    }

    /// Changes what is known of the client; keeping it as long as the class says.
    pub(super) fn note(self, change: SetChange, class: Class) -> Vec<Expr> {
        let lasts = class.affinity.map(|seconds| std::time::Duration::from_secs(seconds.into()));
        let change = Expr::ChangeSet {
            set: SetId::Affinity(self.family).name().into(),
            change,
            key: self.client(),
            data: Some(self.filler()),
            timeout: lasts.filter(|_| change == SetChange::Update),
        };
        vec![stand_in(self.filler()), change]
    }

    /// Leads the connection to the backend.
    pub(super) fn translate(self) -> Expr {
        Expr::Nat {
            kind: NatKind::Destination,
            version: version(self.family),
            address: Some(self.backend()),
            port: Some(self.backend_port()),
            flags: NatFlags::default(),
        }
    }
}

fn look_up(set: SetId, key: Register, data: Option<Register>) -> Expr {
    Expr::Lookup { set: set.name().into(), key, data, inverted: false }
}

/// What nft takes for that which the kernel will have looked up.
fn stand_in(register: Register) -> Expr {
    Expr::Load { source: Source::mark(), register }
}

/// `to = from & mask | set`, for bits to set that are not in the mask.
fn bits(from: Register, to: Register, mask: u32, set: u32) -> Expr {
    Expr::Bitwise { from, to, mask: Value::number(mask), xor: Value::number(set) }
}
