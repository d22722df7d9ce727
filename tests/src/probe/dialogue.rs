//! A question to a [server](super::server) and what becomes of it.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::Result;
use socket2::Socket;

use super::transport::Transport;
use crate::netns::Netns;
use crate::wait;

/// Where to, and how.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    /// The address and port that the client knows.
    pub target: SocketAddr,
    /// The transport.
    pub transport: Transport,
    /// The client's address, if it has several.
    pub source: Option<IpAddr>,
    /// The client's port; 0 for any, over UDP and for a named client for one that no question had before.
    pub source_port: u16,
    /// After how long without an answer it counts as lost.
    pub limit: Duration,
}

impl Question {
    /// A question over TCP that waits for two seconds.
    #[must_use]
    pub fn new(target: SocketAddr) -> Self {
        let limit = Duration::from_secs(2);
        Self { target, transport: Transport::Tcp, source: None, source_port: 0, limit }
    }
}

/// What became of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Somebody answered.
    Served {
        /// The server's name.
        by: String,
        /// The server's port.
        port: u16,
        /// The client, as the server saw it.
        seen: SocketAddr,
    },
    /// Refused at once (RST, or ICMP port unreachable).
    Refused,
    /// Nothing came back.
    TimedOut,
    /// Connected, then broken off.
    Reset,
    /// Anything else.
    Failed(String),
}

/// A connection that is kept open, or a socket that keeps its port.
#[derive(Debug)]
pub struct Dialogue {
    socket: Socket,
}

impl Dialogue {
    /// Connects, in the namespace of the calling thread.
    ///
    /// # Errors
    /// What became of it instead.
    pub fn open(question: &Question) -> Result<Self, Answer> {
        let connected = || {
            let socket = question.transport.socket(question.target.is_ipv6())?;
            // Over TCP the kernel's choice may be one of a client's last ports, too, if the client is told which it is.
            let is_at_risk = question.transport == Transport::Udp || question.source.is_some();
            let source_port =
                if question.source_port == 0 && is_at_risk { unused_port() } else { question.source_port };
            if question.source.is_some() || source_port != 0 {
                let any: IpAddr = match question.target {
                    SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
                    SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
                };
                socket.set_reuse_address(true)?;
                socket.bind(&SocketAddr::new(question.source.unwrap_or(any), source_port).into())?;
            }
            if question.transport != Transport::Udp {
                // Closed by RST (ABORT): thousands of connections shall not leave their ports in TIME-WAIT.
                socket.set_linger(Some(Duration::ZERO))?;
            }
            socket.connect_timeout(&question.target.into(), question.limit)?;
            socket.set_read_timeout(Some(question.limit))?;
            Ok(socket)
        };
        connected().map(|socket| Self { socket }).map_err(|error| judge(&error))
    }

    /// As [`Dialogue::open`], in a namespace.
    ///
    /// # Errors
    /// When the namespace cannot be entered; the inner one as [`Dialogue::open`].
    pub fn open_in(netns: &Netns, question: &Question) -> Result<Result<Self, Answer>> {
        netns.run(|| Self::open(question))
    }

    /// Asks who is there.
    pub fn ask(&self) -> Answer {
        let exchanged = || {
            (&self.socket).write_all(b"?\n")?;
            let mut line = [0u8; 256];
            let length = wait::uninterrupted(|| (&self.socket).read(&mut line))?;
            Ok(String::from_utf8_lossy(line.get(..length).unwrap_or_default()).into_owned())
        };
        match exchanged() {
            Ok(line) if line.is_empty() => Answer::Reset,
            Ok(line) => parse(&line).unwrap_or_else(|| Answer::Failed(format!("a strange answer: {line:?}"))),
            Err(error) => judge(&error),
        }
    }

    /// The client's own address and port.
    #[must_use]
    pub fn local(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()?.as_socket()
    }
}

/// A port that this process did not ask from yet: one that the kernel chooses twice finds the flow of its predecessor, and
/// what that was led to. UDP has nothing to tell two flows by; a TCP connection that was reset is kept by IPVS for ten
/// seconds, and only one in TIME-WAIT gives way to a new one (`is_new_conn_expected` in net/netfilter/ipvs/ip_vs_core.c).
fn unused_port() -> u16 {
    static ASKED: AtomicU16 = AtomicU16::new(0);
    20_000 + ASKED.fetch_add(1, Ordering::Relaxed) % 40_000
}

fn judge(error: &std::io::Error) -> Answer {
    match error.kind() {
        ErrorKind::ConnectionRefused => Answer::Refused,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => Answer::Reset,
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Answer::TimedOut,
        _ => Answer::Failed(error.to_string()),
    }
}

fn parse(line: &str) -> Option<Answer> {
    let mut words = line.split_whitespace();
    let (by, port) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
    let seen = SocketAddr::new(words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some(Answer::Served { by, port, seen })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::OwnedNetns;
    use crate::probe::ProbeServer;
    use crate::scratch::unique_name;

    #[test]
    fn a_server_tells_who_it_is_and_whom_it_sees_over_every_transport_and_family() {
        let netns = OwnedNetns::new(unique_name());
        let server = ProbeServer::start(&netns, "here", &[8080, 8443]).unwrap();
        for target in ["127.0.0.1:8080", "127.0.0.1:8443", "[::1]:8443"] {
            for transport in Transport::ALL.into_iter().filter(|transport| transport.available()) {
                let target: SocketAddr = target.parse().unwrap();
                let question = Question { transport, source_port: 4711, ..Question::new(target) };
                let dialogue = Dialogue::open_in(&netns, &question).unwrap().unwrap();
                let seen = dialogue.local().unwrap();
                assert_eq!(seen.port(), 4711);
                let expected = Answer::Served { by: "here".into(), port: target.port(), seen };
                assert_eq!([dialogue.ask(), dialogue.ask()], [expected.clone(), expected]);
            }
        }
        drop(server);
        let gone = Question::new("127.0.0.1:8080".parse().unwrap());
        for transport in [Transport::Tcp, Transport::Udp] {
            let question = Question { transport, ..gone };
            let refused =
                netns.run(|| Dialogue::open(&question).map_or_else(|answer| answer, |open| open.ask())).unwrap();
            assert_eq!(refused, Answer::Refused);
        }
    }
}
