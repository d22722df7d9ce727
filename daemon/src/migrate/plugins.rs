//! What portmap and the bridge plugin have left for containers of a network, in iptables' tables and in their own of nftables.
//! Pure.
//!
//! Theirs are told by what the rules say of themselves, as podman and nerdctl use these plugins, too: in iptables' tables the
//! network and the container; in `cni_plugins_masquerade` both, after a hash; in `cni_hostport` the container's id alone
//! (containernetworking/plugins, `plugins/meta/portmap` and `pkg/ip/ipmasq_nftables_linux.go`).

use std::collections::BTreeSet;

use weft_netlink::nft::RuleInfo;

use super::rules::{Found, Removal, without};

/// portmap's chain that leads to those of containers, and the two beside it.
const HOST_PORTS: &str = "CNI-HOSTPORT-DNAT";
const HOST_PORTS_BESIDE: [&str; 2] = ["CNI-HOSTPORT-MASQ", "CNI-HOSTPORT-SETMARK"];
/// What the names of the plugins' chains begin with.
const PLUGINS: &str = "CNI-";
/// portmap's tables of nftables, one a family, and the bridge plugin's, of both.
pub const TABLES: [&str; 2] = [PORTMAP_TABLE, MASQUERADE_TABLE];
const PORTMAP_TABLE: &str = "cni_hostport";
const MASQUERADE_TABLE: &str = "cni_plugins_masquerade";
/// portmap's chains with a rule a port, and the bridge plugin's with a rule an address.
const PORTMAP_CHAINS: [&str; 3] = ["hostports", "hostip_hostports", "masquerading"];
const MASQUERADE_CHAIN: &str = "masq_checks";

/// Which containers there are, for whom something may be needed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holders {
    /// Whose host ports are all in weft's table.
    pub taken: BTreeSet<String>,
    /// Who has an address of host-local's. An ADD that is under way has one before portmap makes anything.
    pub reserved: BTreeSet<String>,
}

impl Holders {
    /// Whether nobody needs portmap's rules for a container, whose id may be cut off.
    fn let_go(&self, container: &str) -> bool {
        let names = |all: &BTreeSet<String>| all.iter().any(|id| id.starts_with(container));
        !container.is_empty() && (names(&self.taken) || !names(&self.reserved))
    }
}

/// What portmap and the bridge plugin have left in a table for containers of this network, as far as `holders` let it go.
#[must_use]
pub fn plugins(found: &Found, network: &str, holders: &Holders) -> Removal {
    let is_theirs = |rule: &RuleInfo| {
        rule.remark()
            .as_deref()
            .and_then(attachment_of)
            .is_some_and(|(of, container)| of == network && holders.let_go(container))
    };
    let leads_to_theirs = |rule: &RuleInfo| {
        let chain = rule.leads_to().filter(|chain| chain.starts_with(PLUGINS) && chain != HOST_PORTS);
        chain.filter(|_| is_theirs(rule))
    };
    let mut doomed: BTreeSet<String> = found.rules.iter().filter_map(leads_to_theirs).collect();
    let stays = |rule: &&RuleInfo| rule.chain == HOST_PORTS && !is_theirs(rule);
    if !found.rules.iter().any(|rule| stays(&rule)) {
        doomed.extend([HOST_PORTS].into_iter().chain(HOST_PORTS_BESIDE).map(str::to_owned));
    }
    without(found, |name| doomed.contains(name), |rule| leads_to_theirs(rule).is_some())
}

/// The same of a table of nftables. As portmap's rules do not name the network, there only those of containers go that are
/// known to be ours.
#[must_use]
pub fn of_nftables(found: &Found, network: &str, holders: &Holders) -> Removal {
    let goes = |rule: &&RuleInfo| {
        let Some(remark) = rule.remark() else { return false };
        match found.table.name.as_str() {
            PORTMAP_TABLE => PORTMAP_CHAINS.contains(&&*rule.chain) && holders.taken.contains(&remark),
            MASQUERADE_TABLE => rule.chain == MASQUERADE_CHAIN && network_of(&remark) == Some(network),
            _ => false,
        }
    };
    let rules = found.rules.iter().filter(goes).map(|rule| (rule.chain.clone(), rule.handle)).collect();
    Removal { rules, ..Removal::none(found) }
}

/// The containers of this network whose host ports are portmap's still.
#[must_use]
pub fn kept(found: &Found, network: &str, holders: &Holders) -> BTreeSet<String> {
    let container = |rule: &RuleInfo| {
        let remark = rule.remark()?;
        if found.table.name == PORTMAP_TABLE {
            let is_ours = holders.reserved.contains(&remark) && !holders.taken.contains(&remark);
            return (PORTMAP_CHAINS.contains(&&*rule.chain) && is_ours).then_some(remark);
        }
        let (of, container) = attachment_of(&remark).filter(|_| rule.chain == HOST_PORTS)?;
        (of == network && !holders.let_go(container)).then(|| container.to_owned())
    };
    found.rules.iter().filter_map(container).collect()
}

/// The network that a rule of the bridge plugin's for nftables is for: `HASH-HASH, net: cbr0, if: eth0, id: 0123…`.
fn network_of(remark: &str) -> Option<&str> {
    let (_, rest) = remark.split_once(", net: ")?;
    rest.split_once(", if: ").map(|(network, _)| network)
}

/// The network and the container that a rule of portmap's or the bridge plugin's says it is for:
/// `dnat name: "cbr0" id: "0123…"`.
fn attachment_of(remark: &str) -> Option<(&str, &str)> {
    let (_, rest) = remark.split_once("name: \"")?;
    let (network, rest) = rest.split_once("\" id: \"")?;
    // Cut off at 255 characters, perhaps within the container's name.
    Some((network, rest.split('"').next()?))
}

#[cfg(test)]
mod tests {
    use super::super::rules::tests::found;
    use super::*;

    fn holders(taken: &[&str], reserved: &[&str]) -> Holders {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Holders { taken: set(taken), reserved: set(reserved) }
    }

    #[test]
    fn the_plugins_chains_go_by_network_and_container() {
        let nat = found(
            "nat",
            &[
                "PREROUTING",
                "POSTROUTING",
                "CNI-HOSTPORT-DNAT",
                "CNI-HOSTPORT-MASQ",
                "CNI-DN-a",
                "CNI-DN-b",
                "CNI-DN-c",
                "CNI-m",
            ],
            &[
                "PREROUTING > CNI-HOSTPORT-DNAT",
                r#"CNI-HOSTPORT-DNAT # dnat name: "cbr0" id: "a" > CNI-DN-a"#,
                r#"CNI-HOSTPORT-DNAT # dnat name: "cbr0" id: "b" > CNI-DN-b"#,
                r#"CNI-HOSTPORT-DNAT # dnat name: "podman" id: "c" > CNI-DN-c"#,
                r#"POSTROUTING # name: "cbr0" id: "a" > CNI-m"#,
                "POSTROUTING > CNI-HOSTPORT-MASQ",
                "CNI-DN-a > CNI-HOSTPORT-SETMARK",
            ],
        );
        let rule = |chain: &str, handle| (chain.to_owned(), handle);
        let some = plugins(&nat, "cbr0", &holders(&[], &["b"]));
        assert_eq!(some.chains, ["CNI-DN-a", "CNI-m"]);
        assert_eq!(kept(&nat, "cbr0", &holders(&[], &["b"])), BTreeSet::from(["b".to_owned()]));
        assert_eq!(some.rules, [rule("CNI-HOSTPORT-DNAT", 2), rule("POSTROUTING", 5)]);

        // Once nobody has ports any more, what is common to all goes, too.
        let mut alone = nat;
        alone.rules.retain(|rule| rule.handle != 4);
        let all = plugins(&alone, "cbr0", &holders(&["b"], &["b"]));
        assert_eq!(all.chains, ["CNI-HOSTPORT-DNAT", "CNI-HOSTPORT-MASQ", "CNI-DN-a", "CNI-DN-b", "CNI-m"]);
        assert_eq!(all.rules, [rule("PREROUTING", 1), rule("POSTROUTING", 5), rule("POSTROUTING", 6)]);
        assert!(plugins(&found("nat", &["PREROUTING"], &[]), "cbr0", &Holders::default()).is_empty());
    }

    #[test]
    fn remarks_of_others_name_no_attachment() {
        assert_eq!(attachment_of(r#"dnat name: "cbr0" id: "abc""#), Some(("cbr0", "abc")));
        assert_eq!(attachment_of(r#"name: "cbr0" id: "cut"#), Some(("cbr0", "cut")));
        for other in ["kubernetes service portals", "name: cbr0", r#"name: "x""#] {
            assert_eq!(attachment_of(other), None, "{other}");
        }
    }

    #[test]
    fn the_plugins_rules_of_nftables_go_by_their_comments() {
        let ports = found(
            "cni_hostport",
            &["PREROUTING", "hostports", "masquerading"],
            &[
                "PREROUTING > hostports",
                "hostports # a > x",
                "hostports # b > x",
                "hostports # podmans > x",
                "masquerading # a > x",
            ],
        );
        let some = holders(&["a"], &["a", "b"]);
        let removal = of_nftables(&ports, "cbr0", &some);
        assert_eq!(removal.rules, [("hostports".to_owned(), 2), ("masquerading".to_owned(), 5)]);
        assert!(removal.chains.is_empty());
        assert_eq!(kept(&ports, "cbr0", &some), BTreeSet::from(["b".to_owned()]));
        let masquerade = found(
            "cni_plugins_masquerade",
            &["POSTROUTING", "masq_checks"],
            &[
                "POSTROUTING > masq_checks",
                "masq_checks # 0123-4567, net: cbr0, if: eth0, id: a > x",
                "masq_checks # 0123-4567, net: podman, if: eth0, id: c > x",
            ],
        );
        assert_eq!(of_nftables(&masquerade, "cbr0", &some).rules, [("masq_checks".to_owned(), 2)]);
        assert!(of_nftables(&found("x", &["hostports"], &["hostports # a > x"]), "cbr0", &some).is_empty());
    }

    #[test]
    fn an_id_that_is_cut_off_stands_for_whoever_it_may_be() {
        let some = holders(&["taken"], &["reserved", "taken"]);
        let told = ["tak", "reser", "reserved", "gone", ""].map(|id| some.let_go(id));
        assert_eq!(told, [true, false, false, true, false]);
    }
}
