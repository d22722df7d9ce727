//! The background flow: a thousand datagrams a second, and what gets lost of them.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::sys::socket::{setsockopt, sockopt};
use serde::Serialize;
use weft_tests::netns::Netns;

use crate::pause::pause;

/// Between two datagrams.
const TICK: Duration = Duration::from_millis(1);
/// Each so many ticks a datagram goes out from a port of its own too, which is a new flow to the node.
const FRESH: u64 = 10;
/// Bytes that may wait to be received: 10 s of the flow, as the kernel counts them.
const BUFFER: usize = 8 << 20;
/// How long the last answers may take.
const GRACE: Duration = Duration::from_secs(1);

/// What became of the flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Outcome {
    /// Datagrams of the one flow.
    pub(crate) sent: u64,
    /// Those of them that were not answered.
    pub(crate) lost: u64,
    /// Datagrams that began a flow.
    pub(crate) fresh: u64,
    /// Those of them that were not answered.
    pub(crate) fresh_lost: u64,
}

impl Outcome {
    /// Both taken together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            lost: self.lost + other.lost,
            fresh: self.fresh + other.fresh,
            fresh_lost: self.fresh_lost + other.fresh_lost,
        }
    }
}

/// A flow that runs.
pub(crate) struct Flow {
    stop: Arc<AtomicBool>,
    client: JoinHandle<Result<Outcome>>,
    server: JoinHandle<Result<()>>,
}

impl Flow {
    /// Starts it: `client` sends to `target`, which leads to `address` of `server`.
    pub(crate) fn start(client: &Netns, target: SocketAddr, server: &Netns, address: SocketAddr) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let server = server.run(|| UdpSocket::bind(address))?.context("cannot bind the server")?;
        // The server may have to wait for a processor, too: what has arrived is not lost.
        setsockopt(&server, sockopt::RcvBufForce, &BUFFER).context("cannot enlarge the server's buffer")?;
        server.set_read_timeout(Some(Duration::from_millis(50)))?;
        let until = Arc::clone(&stop);
        let server = std::thread::spawn(move || echo(&server, &until));
        let (netns, until) = (client.clone(), Arc::clone(&stop));
        let client = std::thread::spawn(move || netns.run(|| send(target, &until))?);
        Ok(Self { stop, client, server })
    }

    /// Ends it.
    pub(crate) fn finish(self) -> Result<Outcome> {
        self.stop.store(true, Ordering::Relaxed);
        let outcome = self.client.join().map_err(|_| anyhow!("the client has panicked"))??;
        self.server.join().map_err(|_| anyhow!("the server has panicked"))??;
        Ok(outcome)
    }
}

/// Answers every datagram with itself.
fn echo(socket: &UdpSocket, stop: &AtomicBool) -> Result<()> {
    let mut buffer = [0; 64];
    let mut end: Option<Instant> = None;
    // The client waits for its last answers; so must we.
    while end.is_none_or(|end| end.elapsed() < 2 * GRACE) {
        match socket.recv_from(&mut buffer) {
            Ok((length, from)) => {
                socket.send_to(buffer.get(..length).unwrap_or_default(), from)?;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("the server cannot receive"),
        }
        if stop.load(Ordering::Relaxed) {
            end.get_or_insert_with(Instant::now);
        }
    }
    Ok(())
}

fn send(target: SocketAddr, stop: &AtomicBool) -> Result<Outcome> {
    let one = open(target)?;
    let mut fresh: Vec<UdpSocket> = Vec::new();
    let (mut sent, mut answered, mut begun, mut fresh_answered) = (0u64, 0, 0, 0);
    let begin = Instant::now();
    let mut next = begin;
    while !stop.load(Ordering::Relaxed) {
        ask(&one);
        sent += 1;
        if sent % FRESH == 0 {
            let socket = open(target)?;
            ask(&socket);
            begun += 1;
            fresh.push(socket);
            fresh.retain(|socket| {
                let count = answers(socket);
                fresh_answered += count;
                count == 0
            });
        }
        answered += answers(&one);
        // Where this thread had to wait for a processor nothing is made up for: a burst would be no flow of 1 kHz.
        next = (next + TICK).max(Instant::now());
        pause(next.saturating_duration_since(Instant::now()));
    }
    let end = Instant::now();
    while end.elapsed() < GRACE && (answered < sent || fresh_answered < begun) {
        answered += answers(&one);
        fresh_answered += fresh.iter().map(answers).sum::<u64>();
        pause(TICK);
    }
    Ok(Outcome { sent, lost: sent - answered, fresh: begun, fresh_lost: begun - fresh_answered })
}

fn open(target: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
    socket.connect(target)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Sends a datagram. A refusal (the node has said that nobody is there) is a datagram lost.
fn ask(socket: &UdpSocket) {
    let _ = socket.send(&[0x77; 16]);
}

/// How many answers have come since the last look.
fn answers(socket: &UdpSocket) -> u64 {
    let mut buffer = [0; 64];
    let mut count = 0;
    loop {
        match socket.recv(&mut buffer) {
            Ok(_) => count += 1,
            // A refusal by the node: read away, more may be behind it.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            Err(_) => return count,
        }
    }
}
