//! What others leave in a real kernel: rules of iptables-nft, IP sets.
//!
//! Each test has a network namespace of its own, that of its thread. They need root.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use weft_netlink::ipset;
use weft_netlink::nft::{Batch, Hook, Policy, Rule, Socket, Table, TableFamily, expr};
use weft_netlink::{IpVersion, LegacyFilter};

#[expect(clippy::disallowed_methods, reason = "a test has the usual tools leave something")]
fn tool(words: &str) {
    let mut words = words.split(' ');
    let status = Command::new(words.next().unwrap()).args(words).status();
    assert!(status.expect("iptables and ipset are installed").success());
}

#[test]
fn chains_of_iptables_are_read_and_removed() {
    unshare(CloneFlags::CLONE_NEWNET).expect("the tests need root");
    tool("iptables -t nat -N CNI-DN-1");
    tool("iptables -t nat -A CNI-DN-1 -p tcp --dport 80 -j DNAT --to-destination 10.0.0.2:8080");
    tool("iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -m comment --comment of:portmap -j CNI-DN-1");
    tool("iptables -t nat -A PREROUTING -m mark --mark 1 -j RETURN");
    let (table, mut socket) = (Table::new(TableFamily::Ip, "nat"), Socket::open().unwrap());
    let rules = socket.rules(&table, None).unwrap();
    let found: Vec<_> = rules.iter().map(|rule| (rule.leads_to(), rule.remark())).collect();
    let jump = (Some("CNI-DN-1".to_owned()), Some("of:portmap".to_owned()));
    assert!(found.contains(&jump) && found.iter().filter(|(to, _)| to.is_none()).count() == 2, "{found:?}");

    let handle = rules.iter().find(|rule| rule.leads_to().is_some()).unwrap().handle;
    let mut batch = Batch::new();
    batch.delete_rule(&table, "PREROUTING", handle);
    batch.flush_chain(&table, "CNI-DN-1");
    batch.delete_chain(&table, "CNI-DN-1");
    socket.commit(batch).unwrap();
    let left = socket.rules(&table, None).unwrap();
    assert_eq!(left.iter().map(|rule| rule.chain.as_str()).collect::<Vec<_>>(), ["PREROUTING"]);
}

#[test]
fn ip_sets_are_listed_by_name_and_removed_unless_they_are_in_use() {
    unshare(CloneFlags::CLONE_NEWNET).expect("the tests need root");
    let mut socket = ipset::Socket::open().unwrap();
    assert_eq!(socket.names().unwrap(), Vec::<String>::new());
    for name in ["KUBE-A", "KUBE-B", "KUBE-C"] {
        tool(&format!("ipset create {name} hash:ip,port"));
    }
    tool("ipset create list list:set");
    tool("ipset add list KUBE-B");
    let mut names = socket.names().unwrap();
    names.sort();
    assert_eq!(names, ["KUBE-A", "KUBE-B", "KUBE-C", "list"]);
    let doomed = ["KUBE-A", "KUBE-B", "absent", "KUBE-C"].map(str::to_owned);
    let verdicts = socket.destroy(&doomed).unwrap();
    assert_eq!(verdicts.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true, true], "{verdicts:?}");
    let mut names = socket.names().unwrap();
    names.sort();
    assert_eq!(names, ["KUBE-B", "list"]);
}

#[test]
fn iptables_understands_a_rule_of_ours_among_its_own() {
    unshare(CloneFlags::CLONE_NEWNET).expect("the tests need root");
    for (program, family, network) in
        [("iptables", TableFamily::Ip, "10.244.0.0/16"), ("ip6tables", TableFamily::Ip6, "fd00:244::/48")]
    {
        let (table, mut socket) = (Table::new(family, "filter"), Socket::open().unwrap());
        assert_eq!(socket.chain(&table, "FORWARD").unwrap(), None);
        tool(&format!("{program} -P FORWARD DROP"));
        let base = socket.chain(&table, "FORWARD").unwrap().unwrap().chain.base.unwrap();
        assert_eq!((base.hook, base.policy), (Hook::Forward, Policy::Drop));
        assert_eq!(socket.chain(&table, "ABSENT").unwrap(), None);
        let network: ipnetwork::IpNetwork = network.parse().unwrap();
        let mut batch = Batch::new();
        for phrase in [expr::saddr_in(network), expr::daddr_in(network)] {
            let rule = Rule::new("FORWARD").with(phrase).with(expr::counter()).with(expr::accept());
            batch.add_rule(&table, &rule.comment("weft"));
        }
        socket.commit(batch).unwrap();
        // iptables finds them by what they say, and takes them away.
        for side in ["-s", "-d"] {
            tool(&format!("{program} -C FORWARD {side} {network} -m comment --comment weft -j ACCEPT"));
            tool(&format!("{program} -D FORWARD {side} {network} -m comment --comment weft -j ACCEPT"));
        }
        assert_eq!(socket.rules(&table, Some("FORWARD")).unwrap(), []);
    }
}

#[test]
fn the_old_kind_of_iptables_tells_whether_it_drops_and_what_it_takes() {
    unshare(CloneFlags::CLONE_NEWNET).expect("the tests need root");
    for (program, version, [from, to, other]) in [
        ("iptables-legacy", IpVersion::V4, ["10.244.0.0/16", "10.9.0.0/20", "10.8.0.0/16"]),
        ("ip6tables-legacy", IpVersion::V6, ["fd00:244::/48", "fd00:9::/52", "fd00:8::/48"]),
    ] {
        assert_eq!(LegacyFilter::read(version).unwrap(), None, "nobody uses it, and to look does not change that");
        assert_eq!(LegacyFilter::read(version).unwrap(), None);
        tool(&format!("{program} -A FORWARD -s {from} -j ACCEPT"));
        let read = || LegacyFilter::read(version).unwrap().unwrap();
        assert!(!read().forward_drops);
        tool(&format!("{program} -P FORWARD DROP"));
        tool(&format!("{program} -A FORWARD -d {to} -m comment --comment mended -j ACCEPT"));
        for asks_more in ["-i eth0", "-p tcp", "-m mark --mark 1", "! -d 2.2.2.2 -p udp"] {
            if program.starts_with("ip6") && asks_more.contains("2.2.2.2") {
                continue;
            }
            tool(&format!("{program} -A FORWARD -s {other} {asks_more} -j ACCEPT"));
        }
        tool(&format!("{program} -A FORWARD -s {other} -j DROP"));
        tool(&format!("{program} -A INPUT -s {other} -j ACCEPT"));
        let expected = LegacyFilter {
            forward_drops: true,
            accepts_from: vec![from.parse().unwrap()],
            accepts_to: vec![to.parse().unwrap()],
        };
        assert_eq!(read(), expected);
        tool(&format!("{program} -F FORWARD"));
        tool(&format!("{program} -A FORWARD -j ACCEPT"));
        let all =
            |networks: Vec<ipnetwork::IpNetwork>| networks.iter().map(ipnetwork::IpNetwork::prefix).collect::<Vec<_>>();
        assert_eq!((all(read().accepts_from), all(read().accepts_to)), (vec![0], vec![0]));
    }
}
