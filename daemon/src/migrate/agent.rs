//! What the agent of this node says of itself, as the answer of its `/readyz`.

use std::net::SocketAddr;
use std::time::Duration;

use crate::status::fetch::{FetchError, from_own_node, get_blocking};

/// Longest time that the agent may take; it answers from memory.
const LIMIT: Duration = Duration::from_secs(5);
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
    match fetch(bind, "/readyz") {
        Ok((status, body)) => AgentState::read(status, &body),
        Err(error) => AgentState::Absent(error.to_string()),
    }
}

/// What whoever is bound to that address says, in the network namespace of the calling thread: a status and a body.
///
/// # Errors
/// [`FetchError`], with the address.
pub(super) fn fetch(bind: SocketAddr, path: &str) -> Result<(u16, String), FetchError> {
    let answer = get_blocking(from_own_node(bind), path, LIMIT)?;
    Ok((answer.status, String::from_utf8_lossy(&answer.body).into_owned()))
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
    fn what_does_not_speak_http_is_absent() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let other = std::thread::spawn(move || {
            use std::io::Write;
            listener.accept().unwrap().0.write_all(b"SSH-2.0\r\n").unwrap();
        });
        assert!(matches!(ask(address), AgentState::Absent(told) if told.contains(&address.to_string())));
        other.join().unwrap();
    }
}
