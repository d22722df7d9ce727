//! A node with pods, another node's pods, and somebody outside, each in a network namespace.
//!
//! ```text
//!   outside ---- node (the thread's own namespace) ---- elsewhere
//!  192.168.0.1   192.168.0.2      192.168.1.1      192.168.1.2, pods .256 and .257 on lo
//!                    | cni0
//!              pods .10 and .11
//! ```

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use weft::cluster::Family;
use weft::cluster::services::Protocol;
use weft_netlink::netns::{self, NetNs, NetNsGuard};

use crate::support::{Net, address, fresh, sh};

/// Where every pod listens.
pub(crate) const PORT: u16 = 8080;
/// How long nothing has to come before a packet counts as dropped: local round trips take far less than a millisecond.
const SILENCE: Duration = Duration::from_millis(700);

/// What became of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// This backend answered, and saw the question come from there.
    Answer { backend: IpAddr, source: IpAddr },
    /// The client was told that there is nobody.
    Refused,
    /// Nothing came back.
    Silence,
}

impl Outcome {
    pub(crate) fn backend(self) -> IpAddr {
        self.answer().0
    }

    pub(crate) fn answer(self) -> (IpAddr, IpAddr) {
        match self {
            Self::Answer { backend, source } => (backend, source),
            other => panic!("no answer, but {other:?}"),
        }
    }
}

pub(crate) struct Lab {
    names: Vec<String>,
    pub(crate) outside: NetNs,
    /// The pods of this node, numbers 10 and 11.
    pub(crate) pods: [NetNs; 2],
    pub(crate) node: NetNs,
    _home: NetNsGuard,
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = netns::delete(name);
        }
    }
}

static LABS: AtomicU32 = AtomicU32::new(0);

impl Lab {
    /// Builds it, with servers in every pod.
    pub(crate) fn new() -> Self {
        let (node, home) = fresh();
        let lab = LABS.fetch_add(1, Ordering::Relaxed);
        let names =
            ["out", "far", "pod10", "pod11"].map(|part| format!("weft-svc-{}-{lab}-{part}", std::process::id()));
        let made: Vec<NetNs> = names.iter().map(|name| netns::create(name).unwrap()).collect();
        let [outside, far, ten, eleven]: [NetNs; 4] = made.try_into().unwrap();
        let lab = Self { names: names.to_vec(), outside, pods: [ten, eleven], node, _home: home };
        sh("ip link set lo up; ip link add cni0 type bridge; ip link set cni0 up; \
            ip addr add 10.180.0.1/24 dev cni0; ip addr add fd00:180::1/64 dev cni0 nodad; \
            echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding");
        let [out, elsewhere, pod10, pod11] = &names;
        wire(out, "eth0", 0);
        wire(elsewhere, "eth1", 1);
        sh("ip route add default via 192.168.0.1; ip -6 route add default via 2001:db8::1; \
            ip route add 10.180.1.0/24 via 192.168.1.2; ip -6 route add fd00:180:0:1::/64 via 2001:db8:0:1::2");
        sh(&format!(
            "ip -n {out} route add 10.180.0.0/16 via 192.168.0.2; ip -n {out} -6 route add fd00:180::/48 via 2001:db8::2; \
             ip -n {out} route add 172.30.0.0/16 via 192.168.0.2; ip -n {out} route add 203.0.0.0/16 via 192.168.0.2; \
             ip -n {out} -6 route add fd00:30::/108 via 2001:db8::2; ip -n {out} -6 route add 2001:db8:1::/64 via 2001:db8::2; \
             ip -n {elsewhere} route add default via 192.168.1.1; ip -n {elsewhere} -6 route add default via 2001:db8:0:1::1"
        ));
        for number in [256, 257] {
            for family in Family::ALL {
                let pod = address(family, Net::Pod, number);
                sh(&format!("ip -n {elsewhere} addr add {pod} dev lo"));
                serve(&far, pod);
            }
        }
        for ((name, number), netns) in [(pod10, 10), (pod11, 11)].into_iter().zip(&lab.pods) {
            sh(&format!(
                "ip link add veth{number} type veth peer name eth0 netns {name}; \
                 ip link set veth{number} master cni0 up; ip link set veth{number} type bridge_slave hairpin on; ip -n {name} link set lo up; ip -n {name} link set eth0 up; \
                 ip -n {name} addr add 10.180.0.{number}/24 dev eth0; \
                 ip -n {name} addr add {}/64 dev eth0 nodad; \
                 ip -n {name} route add default via 10.180.0.1; ip -n {name} -6 route add default via fd00:180::1",
                address(Family::V6, Net::Pod, number)
            ));
            Family::ALL.into_iter().for_each(|family| serve(netns, address(family, Net::Pod, number)));
        }
        lab.wait();
        lab
    }

    /// Until everybody reaches everybody: what a new link and its neighbours need takes a while.
    fn wait(&self) {
        let limit = Instant::now() + Duration::from_secs(20);
        let pods =
            Family::ALL.into_iter().flat_map(|family| [10, 11, 256, 257].map(|pod| address(family, Net::Pod, pod)));
        for pod in pods {
            for from in [&self.pods[0], &self.pods[1], &self.node, &self.outside] {
                while ask(from, Protocol::Udp, pod, PORT) == Outcome::Silence {
                    assert!(Instant::now() < limit, "{pod} is not reached");
                }
            }
        }
    }

    /// The addresses of this node.
    pub(crate) fn own(address: IpAddr) -> bool {
        let own = ["192.168.0.2", "192.168.1.1", "10.180.0.1", "2001:db8::2", "2001:db8:0:1::1", "fd00:180::1"];
        own.iter().any(|own| address == own.parse::<IpAddr>().unwrap())
    }
}

/// Connects a namespace to the node.
fn wire(name: &str, device: &str, network: u32) {
    let (node, other) = if network == 0 { (2, 1) } else { (1, 2) };
    let v6 = if network == 0 { "2001:db8:".to_owned() } else { format!("2001:db8:0:{network}:") };
    sh(&format!(
        "ip link add {device} type veth peer name eth0 netns {name}; ip link set {device} up; \
         ip -n {name} link set eth0 up; ip -n {name} link set lo up; \
         ip addr add 192.168.{network}.{node}/24 dev {device}; ip addr add {v6}:{node}/64 dev {device} nodad; \
         ip -n {name} addr add 192.168.{network}.{other}/24 dev eth0; ip -n {name} addr add {v6}:{other}/64 dev eth0 nodad"
    ));
}

/// Answers at an address, on both protocols, with that address and the client's. Ends with the process.
fn serve(netns: &NetNs, address: IpAddr) {
    let at = SocketAddr::new(address, PORT);
    let bind = || Ok::<_, io::Error>((TcpListener::bind(at)?, UdpSocket::bind(at)?));
    // An IPv6 address can be used a moment after it was added.
    let limit = Instant::now() + Duration::from_secs(10);
    let (tcp, udp) = loop {
        match netns.run(bind).unwrap() {
            Ok(sockets) => break sockets,
            Err(error) => assert!(Instant::now() < limit, "{at}: {error}"),
        }
    };
    std::thread::spawn(move || {
        while let Ok((mut stream, peer)) = tcp.accept() {
            let _ = stream.write_all(format!("{address} {}", peer.ip()).as_bytes());
        }
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 16];
        while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(format!("{address} {}", peer.ip()).as_bytes(), peer);
        }
    });
}

/// A question from a namespace.
pub(crate) fn ask(from: &NetNs, protocol: Protocol, address: IpAddr, port: u16) -> Outcome {
    let to = SocketAddr::new(address, port);
    let answer = from.run(|| match protocol {
        Protocol::Udp => ask_udp(to),
        _ => ask_tcp(to),
    });
    match answer.unwrap() {
        Ok(text) => {
            let (backend, source) = text.split_once(' ').unwrap();
            Outcome::Answer { backend: backend.parse().unwrap(), source: source.parse().unwrap() }
        }
        // What is rejected on its way out of this machine is not sent at all: TCP takes the kernel's own message for the
        // answer, UDP is told that it may not send.
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::PermissionDenied) => {
            Outcome::Refused
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) => Outcome::Silence,
        Err(error) => panic!("{protocol} {to}: {error}"),
    }
}

fn ask_tcp(to: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, SILENCE)?;
    stream.set_read_timeout(Some(SILENCE))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn ask_udp(to: SocketAddr) -> io::Result<String> {
    // A port that was used a moment ago would find its flow again, and the flow its backend: each has another.
    static PORT: AtomicU16 = AtomicU16::new(20_000);
    let any: IpAddr = if to.is_ipv4() { "0.0.0.0".parse().unwrap() } else { "::".parse().unwrap() };
    let socket = UdpSocket::bind((any, PORT.fetch_add(1, Ordering::Relaxed)))?;
    socket.set_read_timeout(Some(SILENCE))?;
    socket.connect(to)?;
    socket.send(b"?")?;
    let mut buffer = [0; 128];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}
