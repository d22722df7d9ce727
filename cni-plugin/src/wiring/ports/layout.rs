//! What stands in the table `inet weft-cni`, whatever containers there are: maps, sets, chains and their rules.
//!
//! ```text
//! prerouting, output -105  to an address of this host: host port -> container's address and port (DNAT)
//! postrouting          85  masquerade of clients whose answers would else not come back through this host
//! input                 0  the loopback addresses stay closed to what comes from outside
//! ```
//!
//! Containers are elements only. Whoever changes a rule or a map here renames what it concerns: an ADD that finds all of its
//! rules changes nothing but elements, and a table of an earlier version lives until the boot ends.

use ipnetwork::IpNetwork;
use weft_netlink::IpVersion;
use weft_netlink::nft::expr::{self, AddressKind, CtStatus, Expr, MetaKey, Source};
use weft_netlink::nft::{Batch, Chain, ChainKind, Field, Hook, Rule, Set, Table, TableFamily};
use weft_netlink::priority::{FILTER, HOST_PORT_DNAT, HOST_PORT_MASQUERADE};

/// Both families, one code.
pub(super) const VERSIONS: [IpVersion; 2] = [IpVersion::V4, IpVersion::V6];

/// Name of the plugin's table.
pub const TABLE: &str = "weft-cni";

const TRANSLATE: &str = "translate";
const POSTROUTING: &str = "postrouting";
const INPUT: &str = "input";

/// What a map or set is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Map: protocol and port of one address of the host.
    AddressPort,
    /// Map: protocol and port of all addresses of the host.
    Port,
    /// Set: a container that reaches itself, its address twice.
    Own,
    /// Set: a container's address behind the bridge that it is on.
    Home,
    /// Set: a container's address, protocol and port all of whose clients are masqueraded.
    All,
}

/// One of the maps and sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SetId {
    pub(super) kind: Kind,
    pub(super) version: IpVersion,
}

impl SetId {
    /// All of them.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let kinds = [Kind::AddressPort, Kind::Port, Kind::Own, Kind::Home, Kind::All];
        VERSIONS.into_iter().flat_map(move |version| kinds.into_iter().map(move |kind| Self { kind, version }))
    }

    /// Whether it says where host ports lead; each of its elements is one claim.
    pub(super) fn is_map(self) -> bool {
        matches!(self.kind, Kind::AddressPort | Kind::Port)
    }

    pub(super) fn name(self) -> &'static str {
        match (self.kind, self.version) {
            (Kind::AddressPort, IpVersion::V4) => "address-ports4",
            (Kind::AddressPort, IpVersion::V6) => "address-ports6",
            (Kind::Port, IpVersion::V4) => "ports4",
            (Kind::Port, IpVersion::V6) => "ports6",
            (Kind::Own, IpVersion::V4) => "own4",
            (Kind::Own, IpVersion::V6) => "own6",
            (Kind::Home, IpVersion::V4) => "home4",
            (Kind::Home, IpVersion::V6) => "home6",
            (Kind::All, IpVersion::V4) => "masquerade-all4",
            (Kind::All, IpVersion::V6) => "masquerade-all6",
        }
    }

    pub(super) fn set(self) -> Set {
        let address = match self.version {
            IpVersion::V4 => Field::Ipv4,
            IpVersion::V6 => Field::Ipv6,
        };
        match self.kind {
            Kind::AddressPort => {
                Set::new(self.name(), [address, Field::Protocol, Field::Port]).values([address, Field::Port])
            }
            Kind::Port => Set::new(self.name(), [Field::Protocol, Field::Port]).values([address, Field::Port]),
            Kind::Own => Set::new(self.name(), [address, address]),
            Kind::Home => Set::new(self.name(), [Field::InterfaceName, address]),
            Kind::All => Set::new(self.name(), [address, Field::Protocol, Field::Port]),
        }
    }
}

/// The table.
pub(super) fn table() -> Table {
    Table::new(TableFamily::Inet, TABLE).with_comment("host ports of containers, kept by weft-cni")
}

/// The table as it has to be, in one transaction. What is there already stays, and so do the elements of its maps.
pub(super) fn structure() -> Batch {
    let (table, mut batch) = (table(), Batch::new());
    batch.add_table(&table);
    for id in SetId::all() {
        batch.add_set(&table, &id.set());
    }
    for chain in chains() {
        batch.add_chain(&table, &chain);
        batch.flush_chain(&table, &chain.name);
    }
    for rule in rules() {
        batch.add_rule(&table, &rule);
    }
    batch
}

fn chains() -> [Chain; 5] {
    [
        Chain::regular(TRANSLATE),
        Chain::base("prerouting", ChainKind::Nat, Hook::Prerouting, HOST_PORT_DNAT),
        Chain::base("output", ChainKind::Nat, Hook::Output, HOST_PORT_DNAT),
        Chain::base(POSTROUTING, ChainKind::Nat, Hook::Postrouting, HOST_PORT_MASQUERADE),
        Chain::base(INPUT, ChainKind::Filter, Hook::Input, FILTER),
    ]
}

/// The rules, those of one chain in their order. Each has a comment of its own, by which CHECK knows it.
pub(super) fn rules() -> Vec<Rule> {
    let to_host = |chain: &'static str, comment: &'static str| {
        let local = expr::fib_daddr_type(AddressKind::Local);
        Rule::new(chain).with(local).with(expr::jump(TRANSLATE)).comment(comment)
    };
    let mut rules = vec![to_host("prerouting", "to this host"), to_host("output", "from this host to itself")];
    // No answer could come back to ::1, as there is no route_localnet for IPv6.
    let loopback = IpNetwork::from(std::net::IpAddr::V6(std::net::Ipv6Addr::LOCALHOST));
    rules.push(
        Rule::new(TRANSLATE)
            .with(expr::ip_daddr_in(loopback))
            .with(expr::return_())
            .comment("the IPv6 loopback address has no host ports"),
    );
    for version in VERSIONS {
        rules.extend(translations(version));
    }
    rules.push(
        Rule::new(POSTROUTING)
            .with(expr::ct_status_not(CtStatus::DNAT))
            .with(expr::return_())
            .comment("whatever was not translated"),
    );
    for version in VERSIONS {
        rules.extend(masquerades(version));
    }
    // Where route_localnet is set, a container could else reach what listens on a loopback address only.
    rules.push(
        Rule::new(INPUT)
            .with(expr::ip_daddr_in(loopback_v4()))
            .with(expr::iifname_not("lo"))
            .with(expr::ct_status_not(CtStatus::DNAT))
            .with(expr::drop())
            .comment("loopback addresses are for this host alone"),
    );
    rules
}

fn translations(version: IpVersion) -> [Rule; 2] {
    let (address, any) = (SetId { kind: Kind::AddressPort, version }, SetId { kind: Kind::Port, version });
    let (daddr, port) = (Source::daddr(version), [Source::protocol(), Source::dport()]);
    let comments = match version {
        IpVersion::V4 => ["ports of one IPv4 address", "ports of all IPv4 addresses"],
        IpVersion::V6 => ["ports of one IPv6 address", "ports of all IPv6 addresses"],
    };
    [
        Rule::new(TRANSLATE)
            .with(expr::dnat_by_map(version, &[daddr, port[0], port[1]], address.name()))
            .comment(comments[0]),
        Rule::new(TRANSLATE)
            .with(expr::nfproto(version))
            .with(expr::dnat_by_map(version, &port, any.name()))
            .comment(comments[1]),
    ]
}

fn masquerades(version: IpVersion) -> Vec<Rule> {
    let name = |kind| SetId { kind, version }.name();
    let daddr = Source::daddr(version);
    let key = |source| [Source::Meta(source), daddr];
    let rule = |phrase: Vec<Expr>, comments: [&'static str; 2]| {
        let comment = comments[usize::from(version == IpVersion::V6)];
        Rule::new(POSTROUTING).with(phrase).with(expr::masquerade()).comment(comment)
    };
    let mut rules = vec![
        rule(
            expr::in_set(&[daddr, Source::protocol(), Source::dport()], name(Kind::All)),
            ["all IPv4 clients, as configured", "all IPv6 clients, as configured"],
        ),
        rule(
            expr::in_set(&[Source::saddr(version), daddr], name(Kind::Own)),
            ["a container to itself by IPv4", "a container to itself by IPv6"],
        ),
        // It was routed in and out by one bridge, so the answer would take the short way. Where br_netfilter sees bridged
        // packets, such a one is never routed: it has no incoming interface here, and its answer is translated on the bridge.
        rule(
            expr::in_set(&key(MetaKey::IifName), name(Kind::Home)),
            ["to another on its bridge by IPv4", "to another on its bridge by IPv6"],
        ),
    ];
    if version == IpVersion::V4 {
        let mut phrase = expr::ip_saddr_in(loopback_v4());
        phrase.extend(expr::in_set(&key(MetaKey::OifName), name(Kind::Home)));
        rules.push(rule(phrase, ["from the loopback address", ""]));
    }
    rules
}

fn loopback_v4() -> IpNetwork {
    let first = std::net::IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 0));
    IpNetwork::new(first, 8).unwrap_or_else(|_| first.into())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_and_comments_are_each_their_own() {
        let names: HashSet<_> = SetId::all().map(SetId::name).collect();
        assert_eq!(names.len(), SetId::all().count());
        let rules = rules();
        let comments: HashSet<_> = rules.iter().filter_map(|rule| rule.comment.clone()).collect();
        assert_eq!(comments.len(), rules.len());
        let chains = chains();
        assert!(rules.iter().all(|rule| chains.iter().any(|chain| chain.name == rule.chain)));
    }
}
