//! Connection tracking on a real kernel: flows that nftables translates are listed, counted and forgotten.
//!
//! Each test has a network namespace of its own, that of its thread. They need root.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use weft_netlink::conntrack::{Filter, Flow, FlowKey, Socket, Status, Tuple};
use weft_netlink::nft::expr;
use weft_netlink::nft::{Batch, Chain, ChainKind, Hook, Rule, Table, TableFamily};
use weft_netlink::{Address, IpVersion, KernelError, LinkChange, RouteSocket, Verb, nft, priority, protocol};

const VERSIONS: [IpVersion; 2] = [IpVersion::V4, IpVersion::V6];

/// A namespace in which every address is one of `lo`, and what goes to a Service is marked and translated.
struct Net {
    conntrack: Socket,
    nft: nft::Socket,
}

fn client(version: IpVersion) -> IpAddr {
    address(version, 1)
}

fn service(version: IpVersion) -> SocketAddr {
    SocketAddr::new(address(version, 2), 53)
}

fn backend(version: IpVersion, number: u8) -> SocketAddr {
    SocketAddr::new(address(version, 2 + number), 5353)
}

fn address(version: IpVersion, number: u8) -> IpAddr {
    match version {
        IpVersion::V4 => [10, 96, 0, number].into(),
        IpVersion::V6 => [0xfd00, 0x96, 0, 0, 0, 0, 0, u16::from(number)].into(),
    }
}

impl Net {
    fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("the tests need root");
        let numbers = 1..=4;
        let own = VERSIONS.into_iter().flat_map(|version| numbers.clone().map(move |number| address(version, number)));
        let own = own.map(|address| Address::new(1, address.into()).request(Verb::Create));
        let up = LinkChange::new(1).up().request();
        RouteSocket::open().unwrap().all([up].into_iter().chain(own).collect()).unwrap();
        VERSIONS.into_iter().for_each(|version| numbers.clone().for_each(|number| reached(address(version, number))));
        Self { conntrack: Socket::open().unwrap(), nft: nft::Socket::open().unwrap() }
    }

    /// Sends what goes to the Service to this backend.
    fn balance(&mut self, number: u8) {
        let table = Table::new(TableFamily::Inet, "weft");
        let mut batch = Batch::new();
        batch.remove_table(&table);
        batch.add_table(&table);
        batch.add_chain(&table, &Chain::base("out", ChainKind::Nat, Hook::Output, priority::DSTNAT));
        for version in VERSIONS {
            let (service, backend) = (service(version), backend(version, number));
            let rule = Rule::new("out")
                .with(expr::ip_daddr_in(service.ip().into()))
                .with(expr::l4proto(protocol::UDP))
                .with(expr::set_ct_mark(7, u32::MAX))
                .with(expr::dnat(backend.ip(), Some(backend.port())));
            batch.add_rule(&table, &rule);
        }
        self.nft.commit(batch).unwrap();
    }

    fn flows(&mut self, version: IpVersion) -> Vec<Flow> {
        let mut flows = self.conntrack.flows(Filter { version, protocol: protocol::UDP, port: None }, Some).unwrap();
        flows.sort_by_key(|flow| flow.key);
        flows
    }
}

/// Waits until the address can be reached: the kernel makes the routes of IPv6 addresses a little later than these, even of
/// those without duplicate address detection.
fn reached(address: IpAddr) {
    let socket = UdpSocket::bind((address, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while socket.send_to(b"?", socket.local_addr().unwrap()).and_then(|_| socket.recv(&mut [0; 1])).is_err() {
        assert!(Instant::now() < end, "{address} is not reached");
    }
}

fn listen(version: IpVersion, number: u8) -> UdpSocket {
    let socket = UdpSocket::bind(backend(version, number)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

/// One datagram to the Service, of which the backend hears.
fn ask(client: &UdpSocket, version: IpVersion, backend: &UdpSocket) {
    client.send_to(b"hello", service(version)).unwrap();
    backend.recv(&mut [0; 16]).unwrap();
}

/// The kernel's own list, which has a line a flow.
fn lines(wanted: &str) -> usize {
    let text = std::fs::read_to_string("/proc/thread-self/net/nf_conntrack").unwrap();
    text.lines().filter(|line| line.contains(wanted)).count()
}

#[test]
fn a_flow_is_read_with_its_translation_and_deleted() {
    let mut net = Net::new();
    net.balance(1);
    for version in VERSIONS {
        let backends = [listen(version, 1), listen(version, 2)];
        let socket = UdpSocket::bind((client(version), 0)).unwrap();
        ask(&socket, version, &backends[0]);
        let flows = net.flows(version);
        let from = socket.local_addr().unwrap();
        let original = Tuple { protocol: protocol::UDP, source: from, destination: service(version) };
        let reply = Tuple { source: backend(version, 1), destination: from, ..original };
        assert_eq!(
            flows.iter().map(|flow| (flow.key.original, flow.reply, flow.mark)).collect::<Vec<_>>(),
            [(original, reply, 7)]
        );
        let status = flows[0].status;
        assert!(status.contains(Status::DNAT) && !status.contains(Status::SEEN_REPLY), "{status:?}");
        assert_eq!(lines("udp"), 1);
        assert!(net.conntrack.count().unwrap().flows >= 1);

        // The Service has another backend now, of which the flow takes no notice.
        net.balance(2);
        ask(&socket, version, &backends[0]);
        let verdicts = net.conntrack.delete(&[flows[0].key]).unwrap();
        assert_eq!(verdicts, [Ok(())]);
        assert_eq!((net.flows(version), lines("udp")), (vec![], 0));
        ask(&socket, version, &backends[1]);

        // Another flow of the same packets is not meant.
        let other = FlowKey { id: flows[0].key.id.map(|id| !id), ..flows[0].key };
        let refusal = net.conntrack.delete(&[other]).unwrap().remove(0).unwrap_err();
        assert!(refusal.is_absent(), "{refusal}");
        assert!(
            refusal.to_string().starts_with(&format!("delete flow UDP {from} -> {}: ", service(version))),
            "{refusal}"
        );
        assert_eq!(net.flows(version)[0].reply.source, backend(version, 2));
        // By its packets alone it is found.
        assert_eq!(net.conntrack.delete(&[original.into()]).unwrap(), [Ok(())]);
        assert_eq!(net.flows(version), []);
        net.balance(1);
    }
}

#[test]
fn only_what_is_asked_for_is_listed() {
    let mut net = Net::new();
    net.balance(1);
    let sockets = VERSIONS.map(|version| {
        let backend = listen(version, 1);
        let socket = UdpSocket::bind((client(version), 0)).unwrap();
        ask(&socket, version, &backend);
        socket
    });
    // A TCP flow, even if nobody answers.
    assert!(std::net::TcpStream::connect(backend(IpVersion::V4, 1)).is_err());
    for (version, socket) in VERSIONS.into_iter().zip(&sockets) {
        let sources: Vec<_> = net.flows(version).into_iter().map(|flow| flow.key.original.source).collect();
        assert_eq!(sources, [socket.local_addr().unwrap()]);
        for (port, count) in [(service(version).port(), 1), (backend(version, 1).port(), 0)] {
            let to_port = Filter { version, protocol: protocol::UDP, port: Some(port) };
            assert_eq!(net.conntrack.flows(to_port, Some).unwrap().len(), count, "{port}");
        }
    }
    let tcp = Filter { version: IpVersion::V4, protocol: protocol::TCP, port: None };
    let kept = net.conntrack.flows(tcp, |flow| Some(flow.key.original.destination)).unwrap();
    assert_eq!(kept, vec![backend(IpVersion::V4, 1); lines("tcp")]);
    assert!(net.conntrack.flows(tcp, |_| None::<()>).unwrap().is_empty());
}

#[test]
fn thousands_of_flows_are_listed_and_deleted_at_once() {
    const FLOWS: u16 = 3000;
    let mut net = Net::new();
    net.balance(1);
    for version in VERSIONS {
        let backend = listen(version, 1);
        for port in 10_000..10_000 + FLOWS {
            ask(&UdpSocket::bind((client(version), port)).unwrap(), version, &backend);
        }
        let flows = net.flows(version);
        assert_eq!(flows.len(), usize::from(FLOWS));
        assert!(net.conntrack.count().unwrap().flows >= u32::from(FLOWS));
        // Every other one; the first of them twice.
        let mut keys: Vec<_> = flows.iter().step_by(2).map(|flow| flow.key).collect();
        keys.push(keys[0]);
        let verdicts = net.conntrack.delete(&keys).unwrap();
        let (last, others) = verdicts.split_last().unwrap();
        assert!(others.iter().all(Result::is_ok) && last.as_ref().is_err_and(KernelError::is_absent));
        let kept: Vec<_> = flows.iter().skip(1).step_by(2).map(|flow| flow.key).collect();
        assert_eq!(net.flows(version).into_iter().map(|flow| flow.key).collect::<Vec<_>>(), kept);
    }
}
