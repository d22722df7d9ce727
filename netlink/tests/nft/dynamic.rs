//! Maps that packets change.

use std::net::UdpSocket;
use std::time::Duration;

use weft_netlink::nft::expr::{self, SetChange, protocol};
use weft_netlink::nft::{
    Batch, Chain, ChainKind, Element, Expr, Field, Hook, IpVersion, Register, Rule, Set, Source, Value,
};
use weft_netlink::{Errno, LinkChange, RouteSocket};

use super::{address, in_new_netns, nft, refused, table};

/// What a packet to this port does to the map `seen`: where it goes, and for whom, with the mark 7.
fn rule(port: u16, change: SetChange, data: bool) -> Rule {
    let key = [Source::daddr(IpVersion::V4), Source::mark()];
    let behind = Register::FIRST.behind(8);
    let data = data.then_some(behind);
    Rule::new("out")
        .with(expr::nfproto(IpVersion::V4))
        .with(expr::dport(protocol::UDP, port))
        .with(expr::load(&key))
        .with(
            data.map(|register| Expr::Immediate { register, value: Value::number(7) }).into_iter().collect::<Vec<_>>(),
        )
        .with(Expr::ChangeSet { set: "seen".into(), change, key: Register::FIRST, data, timeout: None })
}

#[test]
fn packets_put_elements_into_a_map_and_take_them_out() {
    let mut socket = in_new_netns();
    RouteSocket::open().unwrap().one(LinkChange::new(1).up().request()).unwrap();
    let hour = Duration::from_secs(3600);
    let seen = Set::new("seen", [Field::Ipv4, Field::Mark]).values([Field::Mark]).dynamic().timeout(hour).size(100);
    let mut batch = Batch::new();
    batch.add_table(&table());
    batch.add_set(&table(), &seen);
    batch.add_chain(&table(), &Chain::base("out", ChainKind::Filter, Hook::Output, 0));
    batch.add_rule(&table(), &rule(1001, SetChange::Add, true));
    batch.add_rule(&table(), &rule(1002, SetChange::Update, true));
    batch.add_rule(&table(), &rule(1003, SetChange::Delete, true));
    socket.commit(batch).unwrap();
    let listed = nft(&["list", "chain", "inet", "weft", "out"]);
    assert!(listed.contains("delete @seen { ip daddr . meta mark : 0x00000007 }"), "{listed}");

    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let send = |port: u16| {
        // Nobody listens there; what the kernel says of that to one packet, the next one is told in its place.
        (0..2).for_each(|_| drop(client.send_to(b"hello", ("127.0.0.1", port))));
    };
    let key = Value::from(address("127.0.0.1")).and(Value::number(0));
    let element = Element::new(key).value(Value::number(7));
    for port in [1001, 1002] {
        send(port);
        let found = socket.elements(&table(), &seen).unwrap();
        let found: Vec<Element> = found.into_iter().map(|found| Element { timeout: None, ..found }).collect();
        assert_eq!(found, std::slice::from_ref(&element), "port {port}");
        send(1003);
        assert_eq!(socket.elements(&table(), &seen).unwrap(), [], "port {port}");
    }
}

#[test]
fn a_map_is_not_changed_without_data() {
    let mut socket = in_new_netns();
    for change in [SetChange::Add, SetChange::Update, SetChange::Delete] {
        let seen = Set::new("seen", [Field::Ipv4, Field::Mark]).values([Field::Mark]).dynamic().timeouts().size(100);
        let mut batch = Batch::new();
        batch.add_table(&table());
        batch.add_set(&table(), &seen);
        batch.add_chain(&table(), &Chain::base("out", ChainKind::Filter, Hook::Output, 0));
        batch.add_rule(&table(), &rule(1001, change, false));
        assert_eq!(refused(socket.commit(batch)).0.errno, Errno::EINVAL, "{change:?}");
    }
}
