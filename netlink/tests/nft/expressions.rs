//! Every expression, as nft reads it back.

use std::time::Duration;

use weft_netlink::nft::expr::{self, protocol};
use weft_netlink::nft::{Batch, Chain, ChainKind, Expr, Field, Hook, IpVersion, Register, Rule, Set, Source, Value};
use weft_netlink::priority;

use super::{address, in_new_netns, nft, table};

/// Commits the rules into one chain, and gives what nft lists between that chain's braces.
fn rules_of(chain: &Chain, extra: &[Chain], sets: &[Set], rules: &[Rule]) -> Vec<String> {
    let mut socket = in_new_netns();
    let mut batch = Batch::new();
    batch.add_table(&table());
    sets.iter().for_each(|set| batch.add_set(&table(), set));
    extra.iter().chain([chain]).for_each(|chain| batch.add_chain(&table(), chain));
    rules.iter().for_each(|rule| batch.add_rule(&table(), rule));
    socket.commit(batch).unwrap_or_else(|error| panic!("{error}"));
    let text = nft(&["list", "chain", "inet", "weft", &chain.name]);
    let from = text.find(&format!("chain {} {{", chain.name)).unwrap();
    let lines = text[from..].lines().skip(if chain.base.is_some() { 2 } else { 1 });
    lines.map(|line| line.trim().to_owned()).take_while(|line| line != "}").collect()
}

#[test]
fn matches_are_listed_as_meant() {
    let net = |text: &str| text.parse().unwrap();
    let phrases: Vec<(Vec<Expr>, &str)> = vec![
        (expr::nfproto(IpVersion::V6), "meta nfproto ipv6"),
        (expr::l4proto(protocol::UDP), "meta l4proto udp"),
        (expr::iifname("cni0"), "iifname \"cni0\""),
        (expr::iifname_not("cni0"), "iifname != \"cni0\""),
        (expr::oifname("flannel*"), "oifname \"flannel*\""),
        (expr::oifname_not("eth0"), "oifname != \"eth0\""),
        (expr::ip_saddr_in(net("10.244.0.0/16")), "ip saddr 10.244.0.0/16"),
        (expr::ip_saddr_in(net("10.244.3.0/23")), "ip saddr 10.244.2.0/23"),
        (expr::ip_saddr_not_in(net("10.244.1.2")), "ip saddr != 10.244.1.2"),
        (expr::ip_daddr_in(net("fd00:10::/44")), "ip6 daddr fd00:10::/44"),
        (expr::ip_daddr_not_in(net("fd00::1")), "ip6 daddr != fd00::1"),
        (expr::ip_daddr_in(net("0.0.0.0/0")), "meta nfproto ipv4"),
        (expr::sport(protocol::UDP, 8472), "udp sport 8472"),
        (expr::dport(protocol::TCP, 443), "tcp dport 443"),
        (expr::mark_is(0x4000, 0x4000), "meta mark & 0x00004000 == 0x00004000"),
        (expr::mark_is_not(1, u32::MAX), "meta mark != 0x00000001"),
        (expr::ct_mark_is(2, 0xff), "ct mark & 0x000000ff == 0x00000002"),
        (expr::ct_state(expr::CtState::ESTABLISHED | expr::CtState::RELATED), "ct state established,related"),
        (expr::ct_state_not(expr::CtState::NEW), "ct state ! new"),
        (expr::ct_status(expr::CtStatus::DNAT), "ct status dnat"),
        (expr::ct_status_not(expr::CtStatus::SNAT), "ct status ! snat"),
        (expr::ct_direction(expr::Direction::Reply), "ct direction reply"),
        (expr::fib_daddr_type(expr::AddressKind::Local), "fib daddr type local"),
        (expr::fib_daddr_type_not(expr::AddressKind::Multicast), "fib daddr type != multicast"),
        (expr::fib_saddr_type(expr::AddressKind::Local), "fib saddr type local"),
        (expr::in_set(&[Source::daddr(IpVersion::V4), Source::dport()], "ports"), "ip daddr . th dport @ports"),
        (expr::not_in_set(&[Source::saddr(IpVersion::V6)], "six"), "ip6 saddr != @six"),
        (
            expr::is(
                Source::ct_address(expr::Direction::Original, IpVersion::V4, expr::Side::Destination),
                address("10.96.0.1"),
            ),
            "ct original ip daddr 10.96.0.1",
        ),
        (
            expr::is_not(
                Source::Ct { key: expr::CtKey::Port(expr::Side::Source), direction: Some(expr::Direction::Reply) },
                Value::port(53),
            ),
            "ct reply proto-src != 0x35 [invalid type]",
        ),
        (
            expr::is(
                Source::Payload { header: expr::Header::Transport, offset: 32, length: 4 },
                Value::bytes(&[1, 2, 3, 4]),
            ),
            "@th,256,32 0x1020304",
        ),
    ];
    let sets = [Set::new("ports", [Field::Ipv4, Field::Port]), Set::new("six", [Field::Ipv6])];
    let expected: Vec<&str> = phrases.iter().map(|(_, text)| *text).collect();
    let chain = Chain::base("forward", ChainKind::Filter, Hook::Forward, priority::FILTER);
    let rules: Vec<Rule> = phrases.iter().map(|(phrase, _)| Rule::new("forward").with(phrase.clone())).collect();
    assert_eq!(rules_of(&chain, &[], &sets, &rules), expected);
}

#[test]
fn actions_are_listed_as_meant() {
    let register = Register::FIRST;
    let chain = Chain::base("pre", ChainKind::Filter, Hook::Prerouting, priority::RAW);
    let other = Chain::regular("other");
    let phrases: Vec<(Vec<Expr>, &str)> = vec![
        (vec![expr::counter(), expr::accept()], "counter packets 0 bytes 0 accept"),
        (vec![expr::counter_from(3, 180), expr::drop()], "counter packets 3 bytes 180 drop"),
        (vec![expr::continue_()], "continue"),
        (vec![expr::return_()], "return"),
        (vec![expr::jump("other")], "jump other"),
        (vec![expr::goto("other")], "goto other"),
        (vec![expr::limit(10, expr::LimitPer::Minute, 6), expr::drop()], "limit rate 10/minute burst 6 packets drop"),
        (
            vec![Expr::Limit { packets: 7, per: expr::LimitPer::Second, burst: 9, over: true }],
            "limit rate over 7/second burst 9 packets",
        ),
        (vec![expr::limit(100, expr::LimitPer::Hour, 20)], "limit rate 100/hour burst 20 packets"),
        (expr::set_mark(0x4000, 0xc000), "meta mark set meta mark & 0xffff7fff | 0x00004000"),
        (expr::set_mark(0x4000, 0x4000), "meta mark set meta mark | 0x00004000"),
        (expr::set_mark(7, u32::MAX), "meta mark set 0x00000007"),
        (expr::set_ct_mark(0x10, u32::MAX), "ct mark set 0x00000010"),
        (expr::set_ct_mark(1, 1), "ct mark set ct mark | 0x00000001"),
        (vec![expr::notrack()], "notrack"),
        (vec![expr::reject(expr::Reject::PortUnreachable)], "reject"),
        (vec![expr::reject(expr::Reject::NoRoute)], "reject with icmpx no-route"),
        (vec![expr::reject(expr::Reject::HostUnreachable)], "reject with icmpx host-unreachable"),
        (vec![expr::reject(expr::Reject::AdminProhibited)], "reject with icmpx admin-prohibited"),
        (
            [expr::l4proto(protocol::TCP), vec![expr::reject(expr::Reject::TcpReset)]].concat(),
            "meta l4proto tcp reject with tcp reset",
        ),
        (
            expr::verdict_by_map(&[Source::daddr(IpVersion::V4), Source::protocol(), Source::dport()], "services"),
            "ip daddr . meta l4proto . th dport vmap @services",
        ),
        (
            expr::add_to_set(&[Source::saddr(IpVersion::V4)], "seen", Some(Duration::from_secs(30))),
            "update @seen { ip saddr timeout 30s }",
        ),
        (
            vec![
                Expr::Load {
                    source: Source::Number { kind: expr::NumGen::Incremental, modulus: 3, offset: 4 },
                    register,
                },
                Expr::SetMeta { key: expr::MetaKey::Mark, register },
            ],
            "meta mark set numgen inc mod 3 offset 4",
        ),
        (
            [
                expr::nfproto(IpVersion::V4),
                expr::load(&[Source::saddr(IpVersion::V4)]),
                vec![
                    Expr::Load {
                        source: Source::Hash { input: register, length: 4, modulus: 16, seed: Some(0xbeef), offset: 1 },
                        register,
                    },
                    Expr::SetMeta { key: expr::MetaKey::Mark, register },
                ],
            ]
            .concat(),
            "meta mark set jhash ip saddr mod 16 seed 0xbeef offset 1",
        ),
        (
            vec![
                Expr::Load {
                    source: Source::Fib {
                        of: expr::FibOf { side: expr::Side::Source, mark: true, iif: true },
                        result: expr::Fib::Oif,
                    },
                    register,
                },
                Expr::Compare { register, comparison: expr::Compare::Equal, value: Value::number(0) },
            ],
            "fib saddr . mark . iif oif 0",
        ),
        (
            vec![
                Expr::Load { source: Source::mark(), register },
                Expr::ByteOrder {
                    from: register,
                    to: register,
                    direction: expr::ByteOrder::ToNetwork,
                    length: 4,
                    size: 4,
                },
                Expr::Compare { register, comparison: expr::Compare::Greater, value: Value::bytes(&[0, 0, 0, 9]) },
            ],
            "meta mark > 0x00000009",
        ),
    ];
    let sets = [
        Set::new("services", [Field::Ipv4, Field::Protocol, Field::Port]).verdicts(),
        Set::new("seen", [Field::Ipv4]).dynamic().timeouts().size(100),
    ];
    let expected: Vec<&str> = phrases.iter().map(|(_, text)| *text).collect();
    let rules: Vec<Rule> = phrases.iter().map(|(phrase, _)| Rule::new("pre").with(phrase.clone())).collect();
    assert_eq!(rules_of(&chain, &[other], &sets, &rules), expected);
}

#[test]
fn translations_are_listed_as_meant() {
    let all = expr::NatFlags { random: true, fully_random: false, persistent: true };
    let key = |version| [Source::daddr(version), Source::protocol(), Source::dport(), Source::random(3)];
    let tcp = || expr::l4proto(protocol::TCP);
    let sources: Vec<(Vec<Expr>, &str)> = vec![
        (vec![expr::masquerade()], "masquerade fully-random"),
        (vec![Expr::Masquerade(expr::NatFlags::default())], "masquerade"),
        (expr::snat(address("192.0.2.1"), None, all), "snat ip to 192.0.2.1 random,persistent"),
        (
            expr::snat(address("2001:db8::1"), None, expr::NatFlags::FULLY_RANDOM),
            "snat ip6 to 2001:db8::1 fully-random",
        ),
    ];
    let destinations: Vec<(Vec<Expr>, &str)> = vec![
        (expr::dnat(address("10.244.1.2"), None), "dnat ip to 10.244.1.2"),
        ([tcp(), expr::dnat(address("10.244.1.2"), Some(80))].concat(), "meta l4proto tcp dnat ip to 10.244.1.2:80"),
        ([tcp(), expr::dnat(address("fd00::2"), Some(80))].concat(), "meta l4proto tcp dnat ip6 to [fd00::2]:80"),
        ([tcp(), expr::redirect(8080)].concat(), "meta l4proto tcp redirect to :8080"),
        (
            expr::dnat_by_map(IpVersion::V4, &key(IpVersion::V4), "four"),
            "dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 3 map @four",
        ),
        (
            expr::dnat_by_map(IpVersion::V6, &key(IpVersion::V6), "six"),
            "dnat ip6 to ip6 daddr . meta l4proto . th dport . numgen random mod 3 map @six",
        ),
    ];
    let sets = [
        Set::new("four", [Field::Ipv4, Field::Protocol, Field::Port, Field::Mark]).values([Field::Ipv4, Field::Port]),
        Set::new("six", [Field::Ipv6, Field::Protocol, Field::Port, Field::Mark]).values([Field::Ipv6, Field::Port]),
    ];
    let post = Chain::base("post", ChainKind::Nat, Hook::Postrouting, priority::POD_MASQUERADE);
    let pre = Chain::base("pre", ChainKind::Nat, Hook::Prerouting, priority::DSTNAT);
    for (chain, phrases) in [(post, sources), (pre, destinations)] {
        let expected: Vec<&str> = phrases.iter().map(|(_, text)| *text).collect();
        let rules: Vec<Rule> =
            phrases.iter().map(|(phrase, _)| Rule::new(chain.name.clone()).with(phrase.clone())).collect();
        assert_eq!(rules_of(&chain, &[], &sets, &rules), expected);
    }
}
