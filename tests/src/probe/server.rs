//! A server that tells who it is, and whom it sees.
//!
//! Whatever arrives, on a connection or as a datagram, is answered by one line: the server's name, its port, and the
//! address and port of the client as they arrived. A connection stays open for further questions until the client closes it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::transport::Transport;
use crate::netns::Netns;

/// Sockets of a server that has not begun to serve.
#[derive(Debug)]
pub struct Listeners {
    name: String,
    streams: Vec<(TcpListener, u16)>,
    datagrams: Vec<(UdpSocket, u16)>,
}

/// A connection that is open.
struct Guest {
    stream: TcpStream,
    peer: SocketAddr,
    port: u16,
}

impl Listeners {
    /// Listens on ports, with every transport and family that the kernel has, in the namespace of the calling thread.
    ///
    /// # Errors
    /// When a port is taken.
    pub fn bind(name: &str, ports: &[u16]) -> Result<Self> {
        let mut this = Self { name: name.to_owned(), streams: Vec::new(), datagrams: Vec::new() };
        for &port in ports {
            for transport in Transport::ALL {
                for v6 in [false, true] {
                    let socket = match transport.listener(v6, port) {
                        Ok(socket) => socket,
                        Err(error) if error.kind() == ErrorKind::AddrInUse => {
                            return Err(error).with_context(|| format!("port {port}/{} of {name}", transport.name()));
                        }
                        // A kernel without SCTP or IPv6.
                        Err(_) => continue,
                    };
                    match transport {
                        Transport::Udp => this.datagrams.push((socket.into(), port)),
                        Transport::Tcp | Transport::Sctp => this.streams.push((socket.into(), port)),
                    }
                }
            }
        }
        Ok(this)
    }

    /// Serves until something can be read from `stop`.
    ///
    /// # Errors
    /// When the kernel refuses to wait.
    pub fn serve(&self, stop: BorrowedFd<'_>) -> io::Result<()> {
        let mut guests: Vec<Guest> = Vec::new();
        loop {
            let ready = {
                let sockets = self.streams.iter().map(|(socket, _)| socket.as_fd());
                let sockets = sockets.chain(self.datagrams.iter().map(|(socket, _)| socket.as_fd()));
                let all = [stop].into_iter().chain(sockets).chain(guests.iter().map(|guest| guest.stream.as_fd()));
                let mut waited: Vec<PollFd<'_>> = all.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
                match poll(&mut waited, PollTimeout::NONE) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(error) => return Err(error.into()),
                }
                waited.iter().map(|fd| fd.any().unwrap_or(false)).collect::<Vec<bool>>()
            };
            let mut ready = ready.into_iter();
            if ready.next() == Some(true) {
                return Ok(());
            }
            let mut news = Vec::new();
            for ((listener, port), _) in self.streams.iter().zip(&mut ready).filter(|(_, ready)| *ready) {
                while let Ok((stream, peer)) = listener.accept() {
                    if stream.set_nonblocking(true).is_ok() {
                        news.push(Guest { stream, peer, port: *port });
                    }
                }
            }
            for ((socket, port), _) in self.datagrams.iter().zip(&mut ready).filter(|(_, ready)| *ready) {
                let mut question = [0u8; 512];
                while let Ok((_, peer)) = socket.recv_from(&mut question) {
                    // A client that has gone is no fault of the server's.
                    let _ = socket.send_to(self.line(*port, peer).as_bytes(), peer);
                }
            }
            guests.retain_mut(|guest| ready.next() != Some(true) || self.answer(guest));
            guests.extend(news);
        }
    }

    /// Answers what a connection asks. Says whether it is still open.
    fn answer(&self, guest: &mut Guest) -> bool {
        let mut question = [0u8; 512];
        match guest.stream.read(&mut question) {
            Ok(0) => false,
            Ok(_) => guest.stream.write_all(self.line(guest.port, guest.peer).as_bytes()).is_ok(),
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
    }

    fn line(&self, port: u16, peer: SocketAddr) -> String {
        format!("{} {port} {} {}\n", self.name, peer.ip(), peer.port())
    }
}

/// A server in a thread of this process, that ends with its owner.
#[derive(Debug)]
pub struct ProbeServer {
    // Closing it is what the thread sees as its end.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl ProbeServer {
    /// Starts a server of that name inside a namespace.
    ///
    /// # Errors
    /// When a port is taken or the namespace is not there.
    pub fn start(netns: &Netns, name: &str, ports: &[u16]) -> Result<Self> {
        let listeners = netns.run(|| Listeners::bind(name, ports))??;
        let (stop, told) = UnixStream::pair()?;
        let thread = std::thread::spawn(move || {
            if let Err(error) = listeners.serve(told.as_fd()) {
                eprintln!("probe server {}: {error}", listeners.name);
            }
        });
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for ProbeServer {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
