//! What the agent of this node says of itself, as the answer of its `/readyz`.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// Longest time that the agent may take; it answers from memory.
const LIMIT: Duration = Duration::from_secs(5);
/// Its answer is far shorter, in bytes.
const MAX_LENGTH: u64 = 64 * 1024;
/// Whose state must be good before anything of the predecessors' goes. A store or a peer that is away does not take the node
/// out of service.
const NEEDED: [&str; 4] = ["links", "filter", "publish", "services"];

/// What an agent says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentState {
    /// Nobody answers.
    Absent(String),
    /// It is there, and not all is well: its own lines.
    NotReady(Vec<String>),
    /// It serves the node.
    Serves {
        /// Who serves Services.
        services: Services,
    },
}

/// Who serves Services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Services {
    /// The agent, in mode ipvs.
    Ipvs,
    /// The agent, in mode nftables.
    Nftables,
    /// Others: the agent was told not to.
    Others,
}

impl AgentState {
    /// Reads an answer of `/readyz`. flanneld answers at the same port, in other words.
    #[must_use]
    pub fn read(status: u16, body: &str) -> Self {
        if !body.lines().any(|line| line.starts_with("revision ")) {
            return Self::Absent("somebody else answers there".to_owned());
        }
        let line = |name: &str| body.lines().find(|line| line.get(4..).is_some_and(|rest| rest.starts_with(name)));
        let is_good = |name: &&str| line(&format!("{name}: ")).is_some_and(|line| line.starts_with("[+]"));
        let services = line("services: ").unwrap_or_default();
        if status != 200 || !NEEDED.iter().all(is_good) {
            let told = body.lines().filter(|line| !line.starts_with("[+]") && line.starts_with('['));
            return Self::NotReady(told.map(str::to_owned).collect());
        }
        let services = match services.get("[+] services: ".len()..).and_then(|words| words.split(' ').next()) {
            Some("ipvs") => Services::Ipvs,
            Some("nftables") => Services::Nftables,
            _ => Services::Others,
        };
        Self::Serves { services }
    }
}

/// Asks the agent, in the network namespace of the calling thread.
#[must_use]
pub fn ask(bind: SocketAddr) -> AgentState {
    match get(reachable(bind), "/readyz") {
        Ok((status, body)) => AgentState::read(status, &body),
        Err(error) => AgentState::Absent(format!("{}: {error}", reachable(bind))),
    }
}

/// An address at which whoever listens there can be asked.
pub(super) fn reachable(bind: SocketAddr) -> SocketAddr {
    let ip: IpAddr = match bind.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, bind.port())
}

/// HTTP/1.0, so that the answer ends with the connection (RFC 1945).
pub(super) fn get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.take(MAX_LENGTH).read_to_string(&mut answer)?;
    parse(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
}

fn parse(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[+] uplink: eth0\n[-] store: away\n[+] links: flannel.1 and cni0\n[+] filter: masquerade on\n\
                        [+] publish: /etc/cni/net.d/10-weft.conflist\n[+] services: nftables mode (no IPVS)\nrevision 4\n";

    #[test]
    fn a_node_serves_when_all_that_pods_need_is_good() {
        let services = Services::Nftables;
        assert_eq!(AgentState::read(200, GOOD), AgentState::Serves { services });
        let others = GOOD.replace("nftables mode (no IPVS)", "left to others (proxy-mode none)");
        assert_eq!(AgentState::read(200, &others), AgentState::Serves { services: Services::Others });
        assert_eq!(AgentState::read(503, GOOD), AgentState::NotReady(vec!["[-] store: away".to_owned()]));
        // Once ready the agent stays so; Services that were lost later are still a reason to wait.
        let lost = GOOD.replace("[+] services: nftables mode (no IPVS)", "[-] services: lost");
        let told = ["[-] store: away", "[-] services: lost"].map(str::to_owned).to_vec();
        assert_eq!(AgentState::read(200, &lost), AgentState::NotReady(told));
        assert!(matches!(AgentState::read(200, "ok"), AgentState::Absent(_)), "flanneld");
    }

    #[test]
    fn answers_that_are_none_are_told() {
        assert_eq!(parse("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok"), Some((200, "ok".to_owned())));
        assert_eq!(parse("SSH-2.0\r\n\r\n"), None);
        let nobody = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 1));
        assert_eq!(reachable(nobody), SocketAddr::from((Ipv4Addr::LOCALHOST, 1)));
    }
}
