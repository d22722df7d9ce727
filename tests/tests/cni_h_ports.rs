//! Host ports: who gets through to a pod, by which way, and whom the pod sees.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};
use weft_tests::cni::{Conf, Host, Pod, Uplink, for_each_version};
use weft_tests::netns::Netns;
use weft_tests::probe::{self, Answer, Dialogue, ProbeServer, Question, Transport};
use weft_tests::wait;

const SUBNETS: [&str; 2] = ["10.88.0.0/24", "fd00:88::/64"];
const GATEWAYS: [&str; 2] = ["10.88.0.1", "fd00:88::1"];
const BOTH: [Transport; 2] = [Transport::Tcp, Transport::Udp];

fn mapping(host_port: u16, container_port: u16, transport: Transport, host_ip: &str) -> Value {
    json!({
        "hostPort": host_port, "containerPort": container_port, "protocol": transport.name().to_lowercase(),
        "hostIP": host_ip,
    })
}

fn with_ports(conf: &Conf, mappings: &[Value]) -> Conf {
    conf.clone().with_runtime("portMappings", mappings)
}

fn dual(host: &Host) -> Conf {
    host.conf("1.0.0").with_subnets(&SUBNETS)
}

fn target(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(Uplink::ip(ip), port)
}

/// Asks once, in a namespace.
fn ask(netns: &Netns, question: Question) -> Answer {
    let asked = || Dialogue::open(&question).map_or_else(|answer| answer, |open| open.ask());
    netns.run(asked).unwrap()
}

/// Whom the pod saw; it has to be this pod that answers.
#[track_caller]
fn seen_by(pod: &Pod, netns: &Netns, question: Question) -> IpAddr {
    match ask(netns, question) {
        Answer::Served { by, seen, .. } if by == pod.id => seen.ip(),
        other => panic!("{question:?} from {}: {other:?}, expected {}", netns.name(), pod.id),
    }
}

/// A server in the pod. A datagram is sent once, so the pod has to hear by all of its addresses: the kernel makes the routes of
/// IPv6 addresses a little later than these.
fn serve(host: &Host, pod: &Pod, ports: &[u16]) -> ProbeServer {
    for address in pod.addresses("eth0") {
        let ip = Uplink::ip(address.split('/').next().unwrap());
        let hears = || probe::ping(&host.netns, ip, Duration::from_millis(200)).unwrap().is_some();
        wait::until(Duration::from_secs(5), "the pod to hear", hears).unwrap();
    }
    ProbeServer::start(&pod.netns, &pod.id, ports).unwrap()
}

/// Who answered.
#[track_caller]
fn name(answer: Answer) -> String {
    match answer {
        Answer::Served { by, .. } => by,
        other => panic!("{other:?}"),
    }
}

/// A question that comes back empty.
fn impatient(target: SocketAddr, transport: Transport) -> Question {
    Question { transport, limit: Duration::from_millis(300), ..Question::new(target) }
}

#[test]
fn t105_the_conformance_trio_shares_a_port() {
    for_each_version(|host, conf| {
        let uplink = Uplink::new(host);
        let node = Uplink::HOST[0];
        let wanted = [(Transport::Tcp, "127.0.0.1"), (Transport::Tcp, node), (Transport::Udp, node)];
        let pods = wanted.map(|_| host.pod());
        let servers: Vec<_> = pods
            .iter()
            .zip(wanted)
            .map(|(pod, (transport, host_ip))| {
                let _ = host.add(&with_ports(conf, &[mapping(54323, 8080, transport, host_ip)]), pod).result();
                serve(host, pod, &[8080])
            })
            .collect();
        for (pod, (transport, host_ip)) in pods.iter().zip(wanted) {
            // As `curl --interface` does it.
            let source = Uplink::ip(node);
            let question = Question { transport, source: Some(source), ..Question::new(target(host_ip, 54323)) };
            assert_eq!(seen_by(pod, &host.netns, question), source);
        }
        // Without a source of its own a client of the loopback address is masqueraded.
        assert_eq!(seen_by(&pods[0], &host.netns, Question::new(target("127.0.0.1", 54323))), Uplink::ip(GATEWAYS[0]));
        for (pod, transport) in [(&pods[1], Transport::Tcp), (&pods[2], Transport::Udp)] {
            let question = Question { transport, ..Question::new(target(node, 54323)) };
            assert_eq!(seen_by(pod, &uplink.client, question), Uplink::ip(Uplink::CLIENT[0]));
        }
        drop(servers);
        for pod in &pods {
            host.del(conf, pod).done();
        }
        host.assert_no_ports();
        host.assert_nothing_left();
    });
}

/// All ways to a pod with a port of all addresses, and of one.
fn every_way(bridged_packets_are_filtered: bool) {
    let host = Host::new();
    let uplink = Uplink::new(&host);
    let conf = dual(&host);
    let (pod, neighbour) = (host.pod(), host.pod());
    let ports: Vec<Value> = BOTH
        .into_iter()
        .flat_map(|transport| {
            [mapping(8080, 80, transport, ""), mapping(8081, 80, transport, Uplink::SECOND[0])]
                .into_iter()
                .chain([mapping(8081, 80, transport, Uplink::SECOND[1])])
        })
        .collect();
    let result = host.add(&with_ports(&conf, &ports), &pod).result();
    let other = host.add(&conf, &neighbour).result();
    let value = if bridged_packets_are_filtered { "1" } else { "0" };
    for tables in ["iptables", "ip6tables"] {
        host.netns.sysctl(&format!("net/bridge/bridge-nf-call-{tables}"), value).unwrap();
    }
    let _server = serve(&host, &pod, &[80]);
    let address = |result: &weft_tests::cni::Added, family: usize| -> IpAddr {
        result.addresses()[family].split('/').next().unwrap().parse().unwrap()
    };
    for (family, gateway) in GATEWAYS.map(Uplink::ip).into_iter().enumerate() {
        for transport in BOTH {
            for (ip, port) in [(Uplink::HOST[family], 8080), (Uplink::SECOND[family], 8081)] {
                let question = Question { transport, ..Question::new(target(ip, port)) };
                assert_eq!(seen_by(&pod, &uplink.client, question), Uplink::ip(Uplink::CLIENT[family]));
                // From the node: by the address that it chose itself.
                let own = [Uplink::HOST[family], Uplink::SECOND[family]].map(Uplink::ip);
                assert!(own.contains(&seen_by(&pod, &host.netns, question)));
                // Itself, and another on its bridge.
                assert_eq!(seen_by(&pod, &pod.netns, question), gateway);
                let seen = seen_by(&pod, &neighbour.netns, question);
                if bridged_packets_are_filtered {
                    assert_eq!(seen, address(&other, family), "its answer comes back, so there is no need to hide it");
                } else {
                    assert_eq!(seen, gateway);
                }
            }
            // Of the one address only.
            let elsewhere = impatient(target(Uplink::HOST[family], 8081), transport);
            assert_eq!(ask(&uplink.client, elsewhere), Answer::Refused);
            // The pod by its own address is not our business.
            let direct = Question { transport, ..Question::new(SocketAddr::new(address(&result, family), 80)) };
            assert_eq!(seen_by(&pod, &neighbour.netns, direct), address(&other, family));
        }
    }
    for transport in BOTH {
        let loopback = Question { transport, ..Question::new(target("127.0.0.1", 8080)) };
        assert_eq!(seen_by(&pod, &host.netns, loopback), Uplink::ip(GATEWAYS[0]));
        assert_eq!(ask(&host.netns, impatient(target("::1", 8080), transport)), Answer::Refused);
    }
    host.del(&conf, &pod).done();
    host.assert_no_ports();
    for family in 0..2 {
        let gone = impatient(target(Uplink::HOST[family], 8080), Transport::Tcp);
        assert_eq!(ask(&uplink.client, gone), Answer::Refused);
    }
}

#[test]
fn t105_every_way_leads_to_the_pod_and_clients_outside_keep_their_address() {
    every_way(false);
}

#[test]
fn t105_every_way_leads_to_the_pod_where_bridged_packets_are_filtered() {
    every_way(true);
}

#[test]
fn t106_a_host_address_of_a_family_that_the_pod_has_not_is_skipped() {
    for_each_version(|host, conf| {
        let pod = host.pod();
        let ports = [mapping(8080, 80, Transport::Tcp, "2001:db8::1"), mapping(8081, 80, Transport::Tcp, "::")];
        let _ = host.add(&with_ports(conf, &ports), &pod).result();
        assert!(host.netns.tool("nft", &["list", "table", "inet", "weft-cni"]).is_err(), "no port, no table");
        assert_eq!(host.netns.tool("cat", &["/proc/sys/net/ipv4/conf/cni0/route_localnet"]).unwrap(), "0\n");
        host.del(conf, &pod).done();
        host.assert_nothing_left();
    });
}

#[test]
fn t107_bad_ports_are_refused_before_anything_is_changed() {
    for_each_version(|host, conf| {
        let pod = host.pod();
        for (bad, words) in [
            (json!({"hostPort": 0, "containerPort": 80}), ["hostPort", "0"]),
            (json!({"hostPort": -1, "containerPort": 80}), ["hostPort", "-1"]),
            (json!({"hostPort": 65536, "containerPort": 80}), ["hostPort", "65536"]),
            (json!({"hostPort": 8080, "containerPort": 0}), ["containerPort", "0"]),
            (json!({"hostPort": 8080, "containerPort": 80, "protocol": "foo"}), ["protocol", "foo"]),
            (json!({"hostPort": 8080, "containerPort": 80, "hostIP": "10.0.0.300"}), ["hostIP", "10.0.0.300"]),
        ] {
            let good = mapping(9090, 90, Transport::Tcp, "");
            host.add(&with_ports(conf, &[good, bad]), &pod).refused(7, &words);
        }
        host.assert_untouched();
        assert!(host.netns.tool("nft", &["list", "table", "inet", "weft-cni"]).is_err());
    });
}

#[test]
fn t011_port_mappings_mean_the_same_in_any_case() {
    for_each_version(|host, conf| {
        let uplink = Uplink::new(host);
        let go = json!([{"HostPort": 8080, "ContainerPort": 80, "Protocol": "TCP", "HostIP": ""}]);
        for (key, ports) in [("PortMappings", go), ("portMappings", json!([mapping(8080, 80, Transport::Tcp, "")]))] {
            let pod = host.pod();
            let _ = host.add(&conf.clone().with_runtime(key, ports), &pod).result();
            let _server = serve(host, &pod, &[80]);
            let question = Question::new(target(Uplink::HOST[0], 8080));
            assert_eq!(seen_by(&pod, &uplink.client, question), Uplink::ip(Uplink::CLIENT[0]));
            host.del(conf, &pod).done();
        }
    });
}

#[test]
fn t109_thirty_ports_lead_to_one_pod() {
    let host = Host::new();
    let uplink = Uplink::new(&host);
    let (conf, pod) = (dual(&host), host.pod());
    let ports: Vec<Value> = (0..30).map(|n| mapping(8000 + n, 9000 + n, Transport::Tcp, "")).collect();
    let _ = host.add(&with_ports(&conf, &ports), &pod).result();
    assert_eq!([host.nft_elements("ports4").len(), host.nft_elements("ports6").len()], [30, 30]);
    let inner: Vec<u16> = (9000..9030).collect();
    let _server = serve(&host, &pod, &inner);
    for number in 0..30 {
        let question = Question::new(target(Uplink::HOST[usize::from(number % 2)], 8000 + number));
        match ask(&uplink.client, question) {
            Answer::Served { by, port, .. } => assert_eq!((by, port), (pod.id.clone(), 9000 + number)),
            other => panic!("{question:?}: {other:?}"),
        }
    }
    host.del(&conf, &pod).done();
    host.assert_no_ports();
}

#[test]
fn t110_a_udp_flow_moves_to_the_pod_and_on_to_the_next() {
    for family in 0..2 {
        let host = Host::new();
        let uplink = Uplink::new(&host);
        let conf = with_ports(&dual(&host), &[mapping(5353, 53, Transport::Udp, "")]);
        let udp = Question { transport: Transport::Udp, ..Question::new(target(Uplink::HOST[family], 5353)) };
        let client = Dialogue::open_in(&uplink.client, &udp).unwrap().unwrap();
        // The node itself serves the port at first, so that there is a flow both ways.
        let node = ProbeServer::start(&host.netns, "node", &[5353]).unwrap();
        assert_eq!(name(client.ask()), "node");
        for _ in 0..2 {
            let pod = host.pod();
            let _ = host.add(&conf, &pod).result();
            let _server = serve(&host, &pod, &[53]);
            match client.ask() {
                Answer::Served { by, seen, .. } => {
                    assert_eq!((by, seen.ip()), (pod.id.clone(), Uplink::ip(Uplink::CLIENT[family])));
                }
                other => panic!("{other:?}"),
            }
            // Without a DEL its mapping would stay; with it, the flow goes back to the node.
            host.del(&conf, &pod).done();
            assert_eq!(name(client.ask()), "node");
        }
        drop(node);
    }
}

#[test]
fn t110_flows_that_only_look_alike_stay() {
    let host = Host::new();
    let uplink = Uplink::new(&host);
    // The host forwards, and masquerades, what goes out to the same port of another machine.
    let conf = host.conf("1.0.0");
    let (asker, pod) = (host.pod(), host.pod());
    let _ = host.add(&conf, &asker).result();
    host.netns.tool("nft", &["add table ip nat; add chain ip nat p { type nat hook postrouting priority 100; }; add rule ip nat p oifname up0 masquerade random"]).unwrap();
    let _outer = ProbeServer::start(&uplink.client, "outer", &[53]).unwrap();
    let udp = Question { transport: Transport::Udp, ..Question::new(target(Uplink::CLIENT[0], 53)) };
    let flow = Dialogue::open_in(&asker.netns, &udp).unwrap().unwrap();
    let before = flow.ask();
    assert!(matches!(&before, Answer::Served { by, .. } if by == "outer"), "{before:?}");
    let ports = with_ports(&conf, &[mapping(53, 53, Transport::Udp, "")]);
    let _ = host.add(&ports, &pod).result();
    // The same answer: the same port on the way, so the flow was not forgotten.
    assert_eq!(flow.ask(), before);
    host.del(&ports, &pod).done();
    assert_eq!(flow.ask(), before);
}

#[test]
fn t115_route_localnet_is_set_on_our_bridge_alone() {
    for_each_version(|host, conf| {
        let _uplink = Uplink::new(host);
        let setting = |link: &str| {
            let file = format!("/proc/sys/net/ipv4/conf/{link}/route_localnet");
            host.netns.tool("cat", &[&file]).unwrap().trim().to_owned()
        };
        let (plain, pod) = (host.pod(), host.pod());
        let _ = host.add(conf, &plain).result();
        assert_eq!(setting("cni0"), "0", "nobody has asked for it");
        let result = host.add(&with_ports(conf, &[mapping(8080, 80, Transport::Tcp, "")]), &pod).result();
        assert_eq!(setting("cni0"), "1");
        for other in ["all", "default", "up0", "lo", result.host_end()] {
            assert_eq!(setting(other), "0", "{other}");
        }
    });
}

#[test]
fn t115_what_listens_on_the_loopback_address_stays_closed_to_pods() {
    let host = Host::new();
    let (conf, pod) = (host.conf("1.0.0"), host.pod());
    let conf = with_ports(&conf, &[mapping(8080, 80, Transport::Tcp, "")]);
    let _ = host.add(&conf, &pod).result();
    let _node = ProbeServer::start(&host.netns, "node", &[7070]).unwrap();
    // A pod that may set routes sends to the node's loopback address.
    pod.netns.sysctl("net/ipv4/conf/eth0/route_localnet", "1").unwrap();
    pod.netns.tool("ip", &["route", "add", "127.0.0.1/32", "via", GATEWAYS[0]]).unwrap();
    let question =
        Question { source: Some("10.88.0.2".parse().unwrap()), ..impatient(target("127.0.0.1", 7070), Transport::Tcp) };
    assert_eq!(ask(&pod.netns, question), Answer::TimedOut);
    // It is our rule that keeps it out.
    host.netns.tool("nft", &["flush", "chain", "inet", "weft-cni", "input"]).unwrap();
    assert!(matches!(ask(&pod.netns, question), Answer::Served { by, .. } if by == "node"));
}

#[test]
fn masquerade_as_portmap_would_be_told() {
    let host = Host::new();
    let uplink = Uplink::new(&host);
    let conf = host.conf("1.0.0");
    let ports = |port| [mapping(port, 80, Transport::Tcp, "")];
    let (hidden, open) = (host.pod(), host.pod());
    let all = conf.clone().with("masqAll", true).with("backend", "iptables").with("markMasqBit", 13);
    let _ = host.add(&with_ports(&all, &ports(8080)), &hidden).result();
    let none = conf.clone().with("snat", false);
    let _ = host.add(&with_ports(&none, &ports(8081)), &open).result();
    let _servers = [serve(&host, &hidden, &[80]), serve(&host, &open, &[80])];
    let node = Uplink::HOST[0];
    assert_eq!(seen_by(&hidden, &uplink.client, Question::new(target(node, 8080))), Uplink::ip(GATEWAYS[0]));
    let outside = Question::new(target(node, 8081));
    assert_eq!(seen_by(&open, &uplink.client, outside), Uplink::ip(Uplink::CLIENT[0]));
    // Nobody masquerades it, so it never hears its own answer.
    assert_eq!(ask(&open.netns, impatient(target(node, 8081), Transport::Tcp)), Answer::TimedOut);
    assert_eq!(host.nft_elements("own4").len(), 1);
    for (pod, conf) in [(&hidden, &all), (&open, &none)] {
        host.del(conf, pod).done();
    }
    host.assert_no_ports();
}
