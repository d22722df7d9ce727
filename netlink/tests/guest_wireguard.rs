//! WireGuard on a kernel that has it: what we write is what `wg` reads, and the other way round.
//!
//! Each test has a network namespace of its own, that of its thread. `tests/guest.sh` runs them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::io::Write;
use std::net::UdpSocket;
use std::process::{Command, Stdio};

use ipnetwork::IpNetwork;
use nix::sched::{CloneFlags, unshare};
use weft_netlink::wireguard::{Change, DeviceSettings, Peer, PublicKey, SecretKey, Socket};
use weft_netlink::{Bridge, Errno, LinkChange, LinkKind, RouteSocket, Wireguard};

/// The thread of the test leaves the machine's network for a new one with a device in it, and ends with it.
fn device() -> (Socket, RouteSocket, u32) {
    unshare(CloneFlags::CLONE_NEWNET).expect("the tests need root");
    let mut route = RouteSocket::open().unwrap();
    route.one(Wireguard { name: "wg".into(), mtu: Some(1420) }.create()).unwrap();
    let link = route.link("wg").unwrap().unwrap();
    assert_eq!((link.kind, link.mtu, link.up), (LinkKind::Wireguard, 1420, false));
    (Socket::open().unwrap(), route, link.index)
}

fn settings(listen_port: u16) -> DeviceSettings {
    DeviceSettings { private_key: Some(SecretKey::new([3; 32])), listen_port, fwmark: 0 }
}

fn peer(number: u16, networks: &[&str]) -> Peer {
    let mut key = [1; 32];
    key[..2].copy_from_slice(&number.to_be_bytes());
    Peer {
        public_key: PublicKey(key),
        preshared_key: None,
        endpoint: Some(format!("192.0.2.2:{number}").parse().unwrap()),
        keepalive: 0,
        allowed_ips: networks.iter().map(|net| net.parse().unwrap()).collect(),
    }
}

fn set(socket: &mut Socket, link: u32, peers: &[Peer]) {
    let changes: Vec<Change> = peers.iter().cloned().map(Change::Set).collect();
    for verdict in socket.run(link, &changes).unwrap() {
        verdict.unwrap();
    }
}

fn peers(socket: &mut Socket, link: u32) -> Vec<Peer> {
    socket.device(link).unwrap().unwrap().peers.into_iter().map(|info| info.peer).collect()
}

#[expect(clippy::disallowed_methods, reason = "the distribution's wg is the judge of what we encode")]
fn wg(arguments: &str, input: &str) -> String {
    let mut command = Command::new("wg");
    command.args(arguments.split(' ')).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("wg is installed (Debian's wireguard-tools)");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "wg {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn wg_reads_what_we_write() {
    let (mut socket, _, link) = device();
    let settings = DeviceSettings { fwmark: 0x77, ..settings(51820) };
    socket.configure(link, &settings).unwrap();
    let two = Peer {
        preshared_key: Some(SecretKey::new([5; 32])),
        endpoint: Some("[2001:db8::2]:51821".parse().unwrap()),
        keepalive: 25,
        ..peer(2, &["10.244.2.0/24", "fd00:10:244:2::/64"])
    };
    set(&mut socket, link, &[peer(1, &["10.244.1.0/24"]), two.clone()]);

    let text = wg("show wg dump", "");
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let private = SecretKey::new([3; 32]).clamped().to_base64();
    let public = wg("pubkey", &private);
    assert_eq!(rows[0], [&*private, &public, "51820", "0x77"]);
    let (one_key, two_key) = (peer(1, &[]).public_key.to_string(), two.public_key.to_string());
    assert_eq!(rows[1][..4], [&*one_key, "(none)", "192.0.2.2:1", "10.244.1.0/24"]);
    let shared = SecretKey::new([5; 32]).to_base64();
    let networks = "10.244.2.0/24,fd00:10:244:2::/64";
    assert_eq!(rows[2][..4], [&*two_key, &shared, "[2001:db8::2]:51821", networks]);
    assert_eq!(rows[2][4..], ["0", "0", "0", "25"]);

    let read = socket.device(link).unwrap().unwrap();
    assert_eq!(read.public_key.unwrap().to_string(), public);
    assert_eq!(read.settings, DeviceSettings { private_key: Some(SecretKey::new([3; 32]).clamped()), ..settings });
    assert_eq!(peers(&mut socket, link), [peer(1, &["10.244.1.0/24"]), two]);
    assert!(read.peers.iter().all(|peer| (peer.last_handshake, peer.rx_bytes, peer.tx_bytes) == (None, 0, 0)));
}

#[test]
fn we_read_what_wg_writes_and_a_set_peer_has_nothing_of_the_old_one() {
    let (mut socket, _, link) = device();
    let key = peer(1, &[]).public_key;
    wg(&format!("set wg peer {key} endpoint 192.0.2.9:9 persistent-keepalive 9 allowed-ips 10.9.0.0/16,fd09::/64"), "");
    let expected =
        Peer { endpoint: Some("192.0.2.9:9".parse().unwrap()), keepalive: 9, ..peer(1, &["10.9.0.0/16", "fd09::/64"]) };
    assert_eq!(peers(&mut socket, link), [expected]);
    set(&mut socket, link, &[peer(1, &["10.244.1.0/24"])]);
    assert_eq!(peers(&mut socket, link), [peer(1, &["10.244.1.0/24"])]);
    // An endpoint alone stays where none is said: the kernel may know better.
    set(&mut socket, link, &[Peer { endpoint: None, ..peer(1, &[]) }]);
    assert_eq!(peers(&mut socket, link), [peer(1, &[])]);
}

#[test]
fn peers_go_alone_and_the_others_stay() {
    let (mut socket, _, link) = device();
    set(&mut socket, link, &[peer(1, &["10.244.1.0/24"]), peer(2, &["10.244.2.0/24"])]);
    let gone = [Change::Remove(peer(1, &[]).public_key), Change::Remove(peer(7, &[]).public_key)];
    assert!(socket.run(link, &gone).unwrap().into_iter().all(|verdict| verdict.is_ok()));
    assert_eq!(peers(&mut socket, link), [peer(2, &["10.244.2.0/24"])]);
    // What belongs to one peer is taken from the other.
    set(&mut socket, link, &[peer(3, &["10.244.2.0/24"])]);
    assert_eq!(peers(&mut socket, link), [peer(2, &[]), peer(3, &["10.244.2.0/24"])]);
    // Another key is another device to its peers, but they stay.
    socket.configure(link, &settings(51820)).unwrap();
    socket.configure(link, &DeviceSettings { private_key: Some(SecretKey::new([4; 32])), ..settings(1) }).unwrap();
    assert_eq!(peers(&mut socket, link).len(), 2);
}

#[test]
fn a_device_that_takes_many_messages_is_read_whole() {
    let (mut socket, _, link) = device();
    let networks = |number: u16| -> BTreeSet<IpNetwork> {
        (0..100).map(|n| format!("10.{number}.{n}.0/24").parse().unwrap()).collect()
    };
    let all: Vec<Peer> = (0..200).map(|n| Peer { allowed_ips: networks(n), ..peer(n + 1, &[]) }).collect();
    // One datagram takes so much, and no more.
    all.chunks(16).for_each(|some| set(&mut socket, link, some));
    assert!(peers(&mut socket, link) == all, "200 peers with 100 networks each");
}

#[test]
fn what_is_refused_says_why() {
    let (mut socket, mut route, link) = device();
    assert!(socket.device(4711).unwrap().is_none());
    let absent = socket.configure(4711, &settings(1)).unwrap_err();
    assert!(absent.is_absent(), "{absent}");
    route.one(Bridge { name: "br".into(), mac: None, mtu: None, up: false }.create()).unwrap();
    let bridge = route.link("br").unwrap().unwrap().index;
    assert_eq!(socket.device(bridge).unwrap_err().errno(), Some(Errno::EOPNOTSUPP));

    // A device listens while it is up, and only then is there somebody in the way.
    let other = UdpSocket::bind("0.0.0.0:51820").unwrap();
    socket.configure(link, &settings(51820)).unwrap();
    let taken = route.one(LinkChange::new(link).up().request()).unwrap_err();
    assert_eq!(taken.errno(), Some(Errno::EADDRINUSE), "{taken}");
    drop(other);
    route.one(LinkChange::new(link).up().request()).unwrap();
    let key = SecretKey::new([3; 32]).to_base64();
    for text in [absent.to_string(), taken.to_string(), format!("{:?}", socket.device(link).unwrap())] {
        assert!(!text.contains(&key) && !text.contains("3, 3, 3"), "{text}");
    }
}
