//! nf_tables on a real kernel: what we write is what `nft list ruleset` reads.
//!
//! Each test has a network namespace of its own, that of its thread. They need root and the `nft` of the distribution.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

#[path = "nft/dynamic.rs"]
mod dynamic;
#[path = "nft/expressions.rs"]
mod expressions;

use std::process::Command;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use weft_netlink::nft::expr::{self, protocol};
use weft_netlink::nft::{
    Batch, Chain, ChainKind, CommitError, Element, Field, Hook, Policy, Position, Rule, Set, Socket, Table,
    TableFamily, Value, Verdict,
};
use weft_netlink::{Errno, Error, priority};

/// The thread of the test leaves the machine's network for a new one, and ends with it.
fn in_new_netns() -> Socket {
    unshare(CloneFlags::CLONE_NEWNET).expect("the tests need root");
    Socket::open().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "the distribution's nft is the judge of what we encode")]
fn nft(arguments: &[&str]) -> String {
    let output = Command::new("nft").args(arguments).output().expect("nft is installed");
    assert!(output.status.success(), "nft {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn listed() -> String {
    nft(&["list", "ruleset"])
}

fn table() -> Table {
    Table::new(TableFamily::Inet, "weft")
}

fn refused(result: Result<(), CommitError>) -> (weft_netlink::KernelError, usize) {
    match result {
        Err(CommitError::Refused { first, others }) => (first, others),
        other => panic!("not refused, but {other:?}"),
    }
}

fn address(text: &str) -> std::net::IpAddr {
    text.parse().unwrap()
}

#[test]
fn every_kind_of_object_is_listed_as_meant() {
    let mut socket = in_new_netns();
    let table = table().with_comment("weft 1");
    let pods = Set::new("pods", [Field::Ipv4]).intervals();
    let pods6 = Set::new("pods6", [Field::Ipv6]).intervals();
    let ports = Set::new("ports", [Field::Ipv4, Field::Port]).intervals();
    let seen = Set::new("seen", [Field::Ipv4]).dynamic().timeout(Duration::from_secs(90)).size(1000);
    let macs = Set::new("macs", [Field::Mac]).constant();
    let names = Set::new("names", [Field::InterfaceName]).timeouts();
    let services = Set::new("services", [Field::Ipv4, Field::Protocol, Field::Port]).verdicts();
    let backends = Set::new("backends", [Field::Ipv6, Field::Protocol, Field::Port, Field::Mark])
        .values([Field::Ipv6, Field::Port]);
    let marks = Set::new("marks", [Field::Interface]).values([Field::Mark]);
    let mut batch = Batch::new();
    batch.create_table(&table);
    batch.create_chain(&table, &Chain::regular("lb"));
    batch.add_chain(&table, &Chain::base("dnat", ChainKind::Nat, Hook::Prerouting, priority::HOST_PORT_DNAT));
    let forward = Chain::base("forward", ChainKind::Filter, Hook::Forward, priority::FILTER).policy(Policy::Drop);
    batch.add_chain(&table, &forward);
    batch.add_chain(&table, &Chain::base("out", ChainKind::Route, Hook::Output, priority::MANGLE));
    batch.add_chain(&table, &Chain::base("in", ChainKind::Filter, Hook::Ingress, 5).device("lo"));
    for set in [&pods, &pods6, &ports, &seen, &macs, &names, &services, &backends, &marks] {
        batch.create_set(&table, set);
    }
    let network = |text: &str| Element::network(text.parse().unwrap());
    batch.add_elements(&table, &pods, &[network("10.244.1.0/24"), network("10.244.0.0/24").comment("first")]);
    batch.add_elements(&table, &pods, &[Element::range(address("10.0.0.3"), address("10.0.0.9"))]);
    batch.add_elements(&table, &pods, &[network("255.255.255.0/24")]);
    batch.add_elements(&table, &pods6, &[network("fd00:10::/32")]);
    let range = Element::range(
        Value::from(address("10.0.0.0")).and(Value::port(80)),
        Value::from(address("10.0.0.255")).and(Value::port(90)),
    );
    let single = Element::new(Value::from(address("10.0.1.1")).and(Value::port(443)));
    batch.add_elements(&table, &ports, &[range, single]);
    batch.add_elements(&table, &seen, &[Element::new(address("10.9.9.9")).timeout(Duration::from_secs(3600))]);
    batch.add_elements(&table, &macs, &[Element::new(weft_netlink::MacAddr([2, 0, 0, 0, 0, 7]))]);
    batch.add_elements(&table, &names, &[Element::new(Value::interface("cni0"))]);
    let key = |ip: &str, port: u16| Value::from(address(ip)).and(Value::byte(protocol::TCP)).and(Value::port(port));
    let verdicts = [
        Element::new(key("10.96.0.1", 443)).verdict(Verdict::Goto("lb".into())).comment("default/kubernetes"),
        Element::new(key("10.96.0.2", 80)).verdict(Verdict::Drop),
        Element::new(key("10.96.0.3", 80)).verdict(Verdict::Jump("lb".into())),
    ];
    batch.add_elements(&table, &services, &verdicts[..1]);
    let backend = Value::from(address("fd00::5")).and(Value::port(8443));
    batch.add_elements(&table, &backends, &[Element::new(key("fd00::1", 443).and(Value::number(1))).value(backend)]);
    batch.add_elements(&table, &marks, &[Element::new(Value::number(1)).value(Value::number(0x4000))]);
    socket.commit(batch).unwrap_or_else(|error| panic!("{error}"));

    let expected = include_str!("nft/objects.nft");
    assert_eq!(mask_expiry(&listed()), expected);

    let dumped: Vec<Set> = socket.sets(&table).unwrap().into_iter().map(|info| info.set).collect();
    assert_eq!(dumped, [pods.clone(), pods6, ports.clone(), seen, macs, names, services.clone(), backends, marks]);
    // nft lists the elements of a hash table in no order, so that only the first was there until now.
    let mut batch = Batch::new();
    batch.create_elements(&table, &services, &verdicts[1..]);
    socket.commit(batch).unwrap();
    assert_eq!(socket.elements(&table, &services).unwrap(), verdicts);
    let keys: Vec<_> =
        socket.elements(&table, &pods).unwrap().into_iter().map(|e| (e.key, e.key_end, e.comment)).collect();
    let expected = [
        (address("10.0.0.3").into(), Some(address("10.0.0.9").into()), None),
        (address("10.244.0.0").into(), Some(address("10.244.0.255").into()), Some("first".into())),
        (address("10.244.1.0").into(), Some(address("10.244.1.255").into()), None),
        (address("255.255.255.0").into(), Some(address("255.255.255.255").into()), None),
    ];
    assert_eq!(keys, expected);
    assert_eq!(socket.elements(&table, &ports).unwrap().len(), 2);
    let tables = socket.tables().unwrap();
    assert_eq!(tables.iter().map(|info| &info.table).collect::<Vec<_>>(), [&table]);
    let chains = socket.chains(&table).unwrap();
    let found = chains.iter().find(|info| info.chain.name == "forward").unwrap();
    assert_eq!(found.chain, forward);
    assert_eq!(chains.len(), 5);
}

/// What is left of an element's time differs from run to run.
fn mask_expiry(text: &str) -> String {
    let mut masked = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once(" expires ") {
        masked.push_str(before);
        rest = behind.trim_start_matches(|c: char| c.is_ascii_alphanumeric());
    }
    masked + rest
}

#[test]
fn every_family_has_its_hooks() {
    let mut socket = in_new_netns();
    let mut batch = Batch::new();
    for (family, hook) in [
        (TableFamily::Ip, Hook::Input),
        (TableFamily::Ip6, Hook::Postrouting),
        (TableFamily::Bridge, Hook::Forward),
        (TableFamily::Netdev, Hook::Ingress),
        (TableFamily::Netdev, Hook::Egress),
    ] {
        let table = Table::new(family, "t");
        batch.add_table(&table);
        let chain = Chain::base(format!("{hook:?}").to_lowercase(), ChainKind::Filter, hook, 0);
        batch.add_chain(&table, &if family == TableFamily::Netdev { chain.device("lo") } else { chain });
    }
    socket.commit(batch).unwrap();
    let hooks: Vec<String> = listed().lines().filter(|l| l.contains("hook")).map(|l| l.trim().to_owned()).collect();
    assert_eq!(
        hooks,
        [
            "type filter hook input priority filter; policy accept;",
            "type filter hook postrouting priority filter; policy accept;",
            "type filter hook forward priority 0; policy accept;",
            "type filter hook ingress device \"lo\" priority filter; policy accept;",
            "type filter hook egress device \"lo\" priority filter; policy accept;",
        ]
    );
}

#[test]
fn a_refused_transaction_changes_nothing_and_says_what_was_wrong() {
    let mut socket = in_new_netns();
    let mut batch = Batch::new();
    batch.add_table(&table());
    batch.add_chain(&table(), &Chain::regular("lb"));
    socket.commit(batch).unwrap();
    let before = (listed(), socket.generation().unwrap());

    let mut batch = Batch::new();
    batch.add_chain(&table(), &Chain::regular("new"));
    batch.add_rule(&table(), &Rule::new("lb").with(expr::jump("nowhere")).comment("to nowhere"));
    batch.add_rule(&table(), &Rule::new("absent").with(expr::accept()));
    let (first, others) = refused(socket.commit(batch));
    assert_eq!(first.errno, Errno::ENOENT);
    assert_eq!(first.operation, "add a rule to chain lb of table inet weft (to nowhere)");
    assert_eq!(others, 1);
    assert_eq!((listed(), socket.generation().unwrap()), before);

    let mut batch = Batch::new();
    batch.create_chain(&table(), &Chain::base("n", ChainKind::Nat, Hook::Forward, 0));
    let error: Error = socket.commit(batch).unwrap_err().into();
    assert_eq!(error.errno(), Some(Errno::EOPNOTSUPP));
    assert!(error.to_string().starts_with("add chain n to table inet weft: "), "{error}");

    let mut batch = Batch::new();
    batch.delete_table(&Table::new(TableFamily::Ip, "absent"));
    let error: Error = socket.commit(batch).unwrap_err().into();
    assert!(error.is_absent());
    assert_eq!((listed(), socket.generation().unwrap()), before);
}

#[test]
fn a_refusal_carries_the_kernels_sentence_and_the_element() {
    let mut socket = in_new_netns();
    let marks = Set::new("marks", [Field::Port]).values([Field::Mark]);
    let mut batch = Batch::new();
    batch.add_table(&table());
    batch.add_set(&table(), &marks);
    batch.add_elements(&table(), &marks, &[Element::new(Value::port(80)).value(Value::number(1))]);
    socket.commit(batch).unwrap();

    let elements = [81, 80, 82].map(|port| Element::new(Value::port(port)).value(Value::number(2)));
    let mut batch = Batch::new();
    batch.add_elements(&table(), &marks, &elements);
    let (first, _) = refused(socket.commit(batch));
    assert_eq!(first.operation, "add elements to set marks of table inet weft (key 0x0050)");
    assert!(matches!(first.errno, Errno::EEXIST | Errno::EBUSY), "{first}");

    let mut batch = Batch::new();
    batch.add_chain(&table(), &Chain::regular("x".repeat(300)));
    let (first, _) = refused(socket.commit(batch));
    assert_eq!(first.errno, Errno::ERANGE, "{first:?}");
    // The guests' kernels, 6.1 and 6.12, keep the policy's words to themselves.
    if std::env::var_os("WEFT_GUEST_KERNEL").is_none() {
        assert_eq!(first.message.as_deref(), Some("Attribute failed policy validation"), "{first:?}");
        assert_eq!(first.offset, Some(32), "the name behind the headers and the table's name");
    }
}

#[test]
fn a_check_judges_like_a_commit_and_changes_nothing() {
    let mut socket = in_new_netns();
    let before = socket.generation().unwrap();
    let batch = |family, phrase| {
        let table = Table::new(family, "weft");
        let mut batch = Batch::new();
        batch.add_table(&table);
        batch.add_chain(&table, &Chain::regular("c"));
        batch.add_rule(&table, &Rule::new("c").with([phrase]));
        batch
    };
    socket.check(batch(TableFamily::Inet, expr::masquerade())).unwrap();
    // ARP has no sources that could be masqueraded: no kernel has this.
    let (first, _) = refused(socket.check(batch(TableFamily::Arp, expr::masquerade())));
    assert_eq!(first.errno, Errno::ENOENT);
    assert_eq!((listed(), socket.generation().unwrap()), (String::new(), before));
    socket.commit(batch(TableFamily::Inet, expr::masquerade())).unwrap();
}

#[test]
fn a_transaction_for_an_old_generation_is_refused() {
    let mut socket = in_new_netns();
    let generation = socket.generation().unwrap();
    let mut batch = Batch::only_at(generation);
    batch.add_table(&table());
    socket.commit(batch.clone()).unwrap();
    let (first, _) = refused(socket.commit(batch));
    assert_eq!(first.errno, Errno::ERESTART);
    assert_eq!(first.operation, "commit an nftables transaction");
    assert!(socket.generation().unwrap() != generation);
}

#[test]
fn what_netlink_cannot_say_never_reaches_the_kernel() {
    let mut socket = in_new_netns();
    let mut batch = Batch::new();
    batch.add_table(&table().with_comment("x".repeat(200)));
    let error = socket.commit(batch).unwrap_err();
    assert!(matches!(&error, CommitError::Failed(_)) && error.to_string().contains("127 bytes"), "{error}");
    assert_eq!(listed(), "");
}

#[test]
fn seventy_thousand_elements_go_in_one_transaction() {
    let mut socket = in_new_netns();
    // A guest is emulated: a tenth there.
    let many = if std::env::var_os("WEFT_GUEST_KERNEL").is_some() { 7_000 } else { 70_000u32 };
    let set = Set::new("many", [Field::Ipv4, Field::Protocol, Field::Port]).values([Field::Ipv4, Field::Port]);
    let ranges = Set::new("ranges", [Field::Ipv4]).intervals();
    let elements: Vec<Element> = (0..many)
        .map(|number| {
            let ip = address(&std::net::Ipv4Addr::from(0x0a60_0000 + number).to_string());
            let key = Value::from(ip).and(Value::byte(protocol::TCP)).and(Value::port(80));
            Element::new(key).value(Value::from(address("10.244.1.2")).and(Value::port(8080)))
        })
        .collect();
    let networks: Vec<Element> =
        (0..2_000u32).map(|n| Element::network(format!("10.{}.{}.0/24", n / 256, n % 256).parse().unwrap())).collect();
    let mut batch = Batch::new();
    batch.add_table(&table());
    batch.add_set(&table(), &set);
    batch.add_set(&table(), &ranges);
    batch.add_elements(&table(), &set, &elements);
    batch.add_elements(&table(), &ranges, &networks);
    socket.commit(batch).unwrap();
    // Not assert_eq: nobody reads 70 000 elements.
    assert!(socket.elements(&table(), &set).unwrap() == elements);
    assert_eq!(socket.elements(&table(), &ranges).unwrap(), networks);

    let mut batch = Batch::new();
    batch.delete_elements(&table(), &set, &elements[1..]);
    batch.delete_elements(&table(), &ranges, &networks[..1000]);
    socket.commit(batch).unwrap();
    assert_eq!(socket.elements(&table(), &set).unwrap(), elements[..1]);
    assert_eq!(socket.elements(&table(), &ranges).unwrap(), networks[1000..]);

    let mut batch = Batch::new();
    batch.flush_set(&table(), "ranges");
    socket.commit(batch).unwrap();
    assert_eq!(socket.elements(&table(), &ranges).unwrap(), []);
}

#[test]
fn elements_are_found_by_their_keys() {
    let mut socket = in_new_netns();
    let set = Set::new("some", [Field::Mark, Field::Mark]).values([Field::Ipv4, Field::Port]);
    let key = |number: u32| Value::number(number).and(Value::number(7));
    let element = |number: u32| {
        let ip = address(&std::net::Ipv4Addr::from(0x0af4_0000 + number).to_string());
        Element::new(key(number)).value(Value::from(ip).and(Value::port(8080)))
    };
    // Every third is missing, and a hundred in a row.
    let is_there = |number: &u32| !number.is_multiple_of(3) && !(1000..1100).contains(number);
    let there: Vec<Element> = (0..2000).filter(is_there).map(element).collect();
    let keys: Vec<Value> = (0..2000).map(key).collect();
    assert_eq!(socket.elements_of(&table(), &set, &keys[..3]).unwrap(), [None, None, None], "there is no table");
    let mut batch = Batch::new();
    batch.add_table(&table());
    batch.add_set(&table(), &set);
    batch.add_elements(&table(), &set, &there);
    socket.commit(batch).unwrap();
    let found = socket.elements_of(&table(), &set, &keys).unwrap();
    let wanted: Vec<_> = (0..2000).map(|number| is_there(&number).then(|| element(number))).collect();
    assert!(found == wanted);
    assert_eq!(socket.elements_of(&table(), &set, &[]).unwrap(), []);
    assert_eq!(socket.elements_of(&table(), &set, &keys[1..2]).unwrap(), [Some(element(1))]);
}

#[test]
fn a_thousand_refusals_are_still_a_refusal() {
    let mut socket = in_new_netns();
    let mut batch = Batch::new();
    batch.add_table(&table());
    (0..1000).for_each(|_| batch.delete_chain(&table(), "absent"));
    let (first, others) = refused(socket.commit(batch));
    assert_eq!(first.operation, "delete chain absent of table inet weft");
    assert!(first.is_absent() && others > 0);
    assert_eq!(listed(), "");
}

#[test]
fn what_may_not_exist_is_removed() {
    let mut socket = in_new_netns();
    let set = Set::new("pods", [Field::Ipv4]).intervals();
    let pod = Element::network("10.244.1.0/24".parse().unwrap());
    let mut remove = Batch::new();
    remove.add_table(&table());
    remove.add_set(&table(), &set);
    remove.remove_elements(&table(), &set, std::slice::from_ref(&pod));
    remove.remove_set(&table(), &set);
    remove.remove_chain(&table(), "forward");
    remove.remove_table(&table());

    socket.commit(remove.clone()).unwrap();
    assert_eq!(listed(), "");

    let mut add = Batch::new();
    add.add_table(&table());
    add.add_set(&table(), &set);
    add.add_elements(&table(), &set, &[pod]);
    add.add_chain(&table(), &Chain::base("forward", ChainKind::Filter, Hook::Forward, 0));
    add.add_rule(&table(), &Rule::new("forward").with(expr::accept()));
    socket.commit(add.clone()).unwrap();
    // A second time changes nothing but the rules, of which there may be many alike.
    socket.commit(add).unwrap();
    assert_eq!(socket.rules(&table(), None).unwrap().len(), 2);
    socket.commit(remove).unwrap();
    assert_eq!(listed(), "");
}

#[test]
fn rules_are_placed_replaced_and_deleted_by_handle() {
    let mut socket = in_new_netns();
    let rule = |comment: &'static str| Rule::new("c").with(expr::counter()).comment(comment);
    let comments = |socket: &mut Socket| -> Vec<String> {
        let rules = socket.rules(&table(), Some("c")).unwrap();
        rules.into_iter().filter_map(|rule| rule.comment).collect()
    };
    let handle = |socket: &mut Socket, comment: &str| {
        let rules = socket.rules(&table(), Some("c")).unwrap();
        rules.iter().find(|rule| rule.comment.as_deref() == Some(comment)).unwrap().handle
    };
    let mut batch = Batch::new();
    batch.add_table(&table());
    batch.add_chain(&table(), &Chain::regular("c"));
    batch.add_chain(&table(), &Chain::regular("d"));
    batch.add_rule(&table(), &Rule::new("d").with(expr::accept()));
    batch.add_rule(&table(), &rule("b"));
    batch.insert_rule(&table(), &rule("a"));
    socket.commit(batch).unwrap();
    assert_eq!(comments(&mut socket), ["a", "b"]);

    let b = handle(&mut socket, "b");
    let mut batch = Batch::new();
    batch.add_rule_at(&table(), &rule("b-"), Position::Before(b));
    batch.add_rule_at(&table(), &rule("b+"), Position::After(b));
    socket.commit(batch).unwrap();
    assert_eq!(comments(&mut socket), ["a", "b-", "b", "b+"]);

    let mut batch = Batch::new();
    batch.replace_rule(&table(), b, &rule("B"));
    let first = handle(&mut socket, "a");
    batch.delete_rule(&table(), "c", first);
    socket.commit(batch).unwrap();
    assert_eq!(comments(&mut socket), ["b-", "B", "b+"]);
    assert!(!socket.rules(&table(), Some("d")).unwrap()[0].expressions.is_empty());

    let mut batch = Batch::new();
    batch.flush_chain(&table(), "c");
    socket.commit(batch).unwrap();
    assert_eq!(socket.rules(&table(), None).unwrap().len(), 1);
    let mut batch = Batch::new();
    batch.flush_table(&table());
    socket.commit(batch).unwrap();
    assert!(socket.rules(&table(), None).unwrap().is_empty());
}

#[test]
fn what_is_not_there_is_read_as_absent() {
    let mut socket = in_new_netns();
    assert!(socket.tables().unwrap().is_empty());
    assert!(socket.chains(&table()).unwrap().is_empty());
    assert!(socket.rules(&table(), None).unwrap().is_empty());
    assert!(socket.sets(&table()).unwrap_err().is_absent());
    assert!(socket.elements(&table(), &Set::new("s", [Field::Ipv4])).unwrap_err().is_absent());
}
