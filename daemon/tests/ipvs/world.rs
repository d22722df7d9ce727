//! A node, three pods on it, and a neighbour on its LAN, each a network namespace:
//!
//! ```text
//!   one, two, three 10.244.N.2, fd10:N::2 ── vN 10.244.N.1, fd10:N::1 ┐
//!                                                                   node ── lan 192.0.2.1, fd02::1 ── neighbour .2
//! ```
//!
//! Service networks are 10.96.0.0/12 and fd96::/108. The neighbour routes them, and the pods, through the node.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use weft::cluster::family::Family;
use weft_netlink::netns::{self, NetNs};

/// Longer than any answer takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// The namespaces. They go with their owner.
pub(crate) struct World {
    prefix: String,
}

impl World {
    pub(crate) fn new() -> Self {
        let world = Self { prefix: format!("wt{}x{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)) };
        for who in ["node", "lan", "one", "two", "three"] {
            netns::create(&world.name(who)).expect("needs root");
            world.ip(who, "link set lo up");
        }
        world.set("node", "net/ipv4/ip_forward", "1");
        world.set("node", "net/ipv6/conf/all/forwarding", "1");
        world.connect("lan", "lan", ["192.0.2.1/24", "fd02::1/64"], ["192.0.2.2/24", "fd02::2/64"]);
        for (number, pod) in ["one", "two", "three"].into_iter().enumerate() {
            let n = number + 1;
            let [node, own] = [1, 2].map(|host| [format!("10.244.{n}.{host}/24"), format!("fd10:{n}::{host}/64")]);
            world.connect(pod, &format!("v{n}"), [&node[0], &node[1]], [&own[0], &own[1]]);
        }
        world
    }

    fn name(&self, who: &str) -> String {
        format!("{}{who}", self.prefix)
    }

    /// A namespace of this world.
    pub(crate) fn netns(&self, who: &str) -> NetNs {
        NetNs::named(&self.name(who)).unwrap()
    }

    /// A veth to the node, and the default route through it.
    fn connect(&self, who: &str, device: &str, node: [&str; 2], own: [&str; 2]) {
        self.ip("node", &format!("link add {device} type veth peer name eth0 netns {}", self.name(who)));
        for (netns, device, addresses) in [("node", device, node), (who, "eth0", own)] {
            self.set(netns, &format!("net/ipv6/conf/{device}/accept_dad"), "0");
            self.ip(netns, &format!("link set {device} up"));
            for address in addresses {
                self.ip(netns, &format!("address add {address} dev {device}"));
            }
        }
        for gateway in node {
            let gateway = gateway.split('/').next().unwrap();
            let family = if gateway.contains(':') { "-6" } else { "-4" };
            self.ip(who, &format!("{family} route add default via {gateway}"));
        }
    }

    /// Runs `ip` in a namespace and returns what it prints.
    pub(crate) fn ip(&self, who: &str, words: &str) -> String {
        run(Command::new("ip").arg("-n").arg(self.name(who)).args(words.split_whitespace()))
    }

    /// Feeds nft with a ruleset in the node.
    pub(crate) fn nft(&self, ruleset: &str) -> String {
        self.netns("node").run(|| run(Command::new("nft").arg(ruleset))).unwrap()
    }

    /// Writes a setting of a namespace.
    pub(crate) fn set(&self, who: &str, name: &str, value: &str) {
        self.netns(who).run(|| std::fs::write(format!("/proc/sys/{name}"), value).unwrap()).unwrap();
    }

    /// The first line that a server says to a TCP client, which is its name and the client's address; or why not.
    pub(crate) fn ask(&self, client: &str, target: SocketAddr) -> std::io::Result<(String, IpAddr)> {
        self.open(client, target).map(|conversation| (conversation.name.clone(), conversation.seen))
    }

    /// The names of the servers that answer so many connections.
    pub(crate) fn ask_often(&self, client: &str, target: SocketAddr, count: usize) -> Vec<String> {
        (0..count).map(|_| self.ask(client, target).unwrap().0).collect()
    }

    /// A TCP connection that stays open.
    pub(crate) fn open(&self, client: &str, target: SocketAddr) -> std::io::Result<Conversation> {
        self.netns(client).run(|| Conversation::begin(target)).unwrap()
    }

    /// A UDP client in a namespace, on a port of its own.
    pub(crate) fn udp(&self, client: &str, target: SocketAddr) -> UdpSocket {
        let any: IpAddr = if target.is_ipv6() { "::".parse().unwrap() } else { "0.0.0.0".parse().unwrap() };
        let socket = self.netns(client).run(|| UdpSocket::bind((any, 0)).unwrap()).unwrap();
        socket.connect(target).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        socket
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for who in ["one", "two", "three", "lan", "node"] {
            let _ = netns::delete(&self.name(who));
        }
    }
}

/// Runs a command to its end and returns what it prints.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The address of a pod.
pub(crate) fn pod(number: u8, family: Family) -> IpAddr {
    match family {
        Family::V4 => format!("10.244.{number}.2").parse().unwrap(),
        Family::V6 => format!("fd10:{number}::2").parse().unwrap(),
    }
}

/// The node's address towards a pod.
pub(crate) fn gateway(number: u8, family: Family) -> IpAddr {
    match family {
        Family::V4 => format!("10.244.{number}.1").parse().unwrap(),
        Family::V6 => format!("fd10:{number}::1").parse().unwrap(),
    }
}

/// A cluster IP.
pub(crate) fn cluster_ip(number: u8, family: Family) -> IpAddr {
    match family {
        Family::V4 => format!("10.96.0.{number}").parse().unwrap(),
        Family::V6 => format!("fd96::{number:x}").parse().unwrap(),
    }
}

/// The node's own address.
pub(crate) fn node_ip(family: Family) -> IpAddr {
    match family {
        Family::V4 => "192.0.2.1".parse().unwrap(),
        Family::V6 => "fd02::1".parse().unwrap(),
    }
}

/// A TCP connection to a [`Server`].
pub(crate) struct Conversation {
    stream: BufReader<TcpStream>,
    /// Who answers.
    pub(crate) name: String,
    /// The client's address, as the server sees it.
    pub(crate) seen: IpAddr,
}

impl Conversation {
    fn begin(target: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect_timeout(&target, Duration::from_secs(3))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut this = Self { stream: BufReader::new(stream), name: String::new(), seen: target.ip() };
        let line = this.read()?;
        let (name, seen) = line.split_once(' ').ok_or_else(|| std::io::Error::other(format!("{line:?}")))?;
        (this.name, this.seen) = (name.to_owned(), seen.parse().map_err(std::io::Error::other)?);
        Ok(this)
    }

    fn read(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line)? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }

    /// Says something and hears it again.
    pub(crate) fn echo(&mut self) -> std::io::Result<()> {
        self.stream.get_mut().write_all(b"echo\n")?;
        let heard = self.read()?;
        if heard == "echo" { Ok(()) } else { Err(std::io::Error::other(heard)) }
    }

    /// Ends it by a reset, so that nobody waits for stray packets.
    pub(crate) fn reset(self) {
        nix::sys::socket::setsockopt(
            self.stream.get_ref(),
            nix::sys::socket::sockopt::Linger,
            &nix::libc::linger { l_onoff: 1, l_linger: 0 },
        )
        .unwrap();
    }
}

/// A server at a port of a namespace, TCP and UDP, both families: it tells its name and whom it sees, and then says again
/// what is said to it.
pub(crate) struct Server {
    stop: Arc<AtomicBool>,
    netns: NetNs,
    port: u16,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Server {
    pub(crate) fn start(world: &World, who: &str, port: u16) -> Self {
        let netns = world.netns(who);
        let (listener, socket) =
            netns.run(|| (TcpListener::bind(("::", port)).unwrap(), UdpSocket::bind(("::", port)).unwrap())).unwrap();
        let this = Self { stop: Arc::default(), netns, port, streams: Arc::default() };
        let (stop, streams, name) = (Arc::clone(&this.stop), Arc::clone(&this.streams), who.to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                streams.lock().unwrap().extend(stream.try_clone());
                let name = name.clone();
                std::thread::spawn(move || serve(stream, &name));
            }
        });
        let (stop, name) = (Arc::clone(&this.stop), who.to_owned());
        std::thread::spawn(move || {
            let mut block = [0; 64];
            while let Ok((_, from)) = socket.recv_from(&mut block) {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let _ = socket.send_to(format!("{name} {}", from.ip().to_canonical()).as_bytes(), from);
            }
        });
        this
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        // Both wait for somebody.
        let port = self.port;
        let _ = self.netns.run(|| {
            let _ = TcpStream::connect(("::1", port));
            UdpSocket::bind(("::", 0)).and_then(|socket| socket.send_to(b"", ("::1", port)))
        });
    }
}

fn serve(mut stream: TcpStream, name: &str) -> Option<()> {
    let peer = stream.peer_addr().ok()?.ip().to_canonical();
    writeln!(stream, "{name} {peer}").ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    while reader.read_line(&mut line).ok()? > 0 {
        stream.write_all(line.as_bytes()).ok()?;
        line.clear();
    }
    Some(())
}

/// What answers a datagram, if anything does: who, and the client's address as it is seen there.
pub(crate) fn datagram(socket: &UdpSocket) -> std::io::Result<(String, IpAddr)> {
    let mut block = [0; 64];
    socket.send(b"?")?;
    let length = socket.recv(&mut block)?;
    let text = String::from_utf8_lossy(&block[..length]).into_owned();
    let (name, seen) = text.split_once(' ').unwrap();
    Ok((name.to_owned(), seen.parse().unwrap()))
}
