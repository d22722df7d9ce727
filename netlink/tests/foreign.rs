//! What others leave in a real kernel: rules of iptables-nft, IP sets.
//!
//! Each test has a network namespace of its own, that of its thread. They need root.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use weft_netlink::ipset;
use weft_netlink::nft::{Batch, Socket, Table, TableFamily};

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
