//! Streams and datagrams between two namespaces, and who the server saw.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::netns::Netns;
use crate::wait;

/// Longer than any exchange here takes.
const LIMIT: Duration = Duration::from_secs(30);

/// What the server of a [`tcp_transfer`] saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    /// The client's address, as it arrived.
    pub client: IpAddr,
    /// How many bytes arrived.
    pub bytes: u64,
}

/// Sends `bytes` bytes over TCP from `client` to `address` in `server`, and has them all arrive.
///
/// # Errors
/// When the connection cannot be made or breaks.
pub fn tcp_transfer(client: &Netns, server: &Netns, address: IpAddr, bytes: u64) -> Result<Transfer> {
    let listener = server.run(|| TcpListener::bind(SocketAddr::new(address, 0)))?.context("cannot listen")?;
    let target = listener.local_addr()?;
    std::thread::scope(|scope| {
        let sending = scope.spawn(move || {
            client.run(|| -> Result<()> {
                let mut stream = TcpStream::connect_timeout(&target, LIMIT).context("cannot connect")?;
                stream.set_write_timeout(Some(LIMIT))?;
                let block = [0x77u8; 1 << 16];
                let mut left = bytes;
                while left > 0 {
                    let length = usize::try_from(left)?.min(block.len());
                    stream.write_all(block.get(..length).unwrap_or_default()).context("cannot send")?;
                    left -= u64::try_from(length)?;
                }
                Ok(())
            })?
        });
        let received = accept(&listener, || sending.is_finished()).and_then(|(mut stream, from)| {
            stream.set_read_timeout(Some(LIMIT))?;
            let (mut block, mut count) = ([0u8; 1 << 16], 0);
            loop {
                match wait::uninterrupted(|| stream.read(&mut block)).context("the stream broke")? {
                    0 => return Ok(Transfer { client: from.ip(), bytes: count }),
                    length => count += u64::try_from(length)?,
                }
            }
        });
        match sending.join() {
            // When both failed, who received knows why: that the other side hung up is all that the sender sees.
            Ok(sent) => received.and_then(|transfer| sent.map(|()| transfer)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Accepts one connection, unless the client has given up.
fn accept(listener: &TcpListener, gave_up: impl Fn() -> bool) -> Result<(TcpStream, SocketAddr)> {
    listener.set_nonblocking(true)?;
    let accepted = wait::until_ok(LIMIT, "a connection", || match listener.accept() {
        Err(error) if error.kind() == ErrorKind::WouldBlock && !gave_up() => Err(error),
        other => Ok(other),
    })?;
    let (stream, from) = accepted.context("no connection arrived")?;
    stream.set_nonblocking(false)?;
    Ok((stream, from))
}

/// Sends one datagram from `client` to `address` in `server`, has it echoed, and returns the address that the server
/// saw. Lost datagrams are sent again, for two seconds.
///
/// # Errors
/// When no echo comes back.
pub fn udp_echo(client: &Netns, server: &Netns, address: IpAddr) -> Result<IpAddr> {
    let served = server.run(|| UdpSocket::bind(SocketAddr::new(address, 0)))?.context("cannot listen")?;
    let target = served.local_addr()?;
    let any: IpAddr = if address.is_ipv6() { "::".parse()? } else { "0.0.0.0".parse()? };
    let asking = client.run(|| UdpSocket::bind(SocketAddr::new(any, 0)))?.context("cannot send")?;
    let pause = Some(Duration::from_millis(200));
    served.set_read_timeout(pause)?;
    asking.set_read_timeout(pause)?;
    let mut block = [0u8; 64];
    for _ in 0..10 {
        if asking.send_to(b"weft", target).is_err() {
            continue;
        }
        let Ok((length, from)) = wait::uninterrupted(|| served.recv_from(&mut block)) else { continue };
        served.send_to(block.get(..length).unwrap_or_default(), from)?;
        if wait::uninterrupted(|| asking.recv_from(&mut block)).is_ok() {
            return Ok(from.ip());
        }
    }
    bail!("no datagram came back from {target}")
}

/// Connects to a port at once, without a second try: `true` when somebody accepted, `false` when a refusal came back.
/// Both show that packets went there and back.
///
/// # Errors
/// When nothing came back within `limit`, or there is no route.
pub fn refused_or_accepted(client: &Netns, target: SocketAddr, limit: Duration) -> Result<bool> {
    match client.run(|| TcpStream::connect_timeout(&target, limit))? {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(false),
        Err(error) => Err(error).with_context(|| format!("no answer from {target}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::OwnedNetns;
    use crate::scratch::unique_name;

    #[test]
    fn bytes_and_datagrams_arrive_within_a_namespace_but_not_between_two() {
        let (here, there) = (OwnedNetns::new(unique_name()), OwnedNetns::new(unique_name()));
        let local: IpAddr = "127.0.0.1".parse().unwrap();
        assert_eq!(tcp_transfer(&here, &here, local, 300_000).unwrap(), Transfer { client: local, bytes: 300_000 });
        assert_eq!(udp_echo(&here, &here, local).unwrap(), local);
        assert!(tcp_transfer(&here, &there, local, 1).is_err());
        assert!(!refused_or_accepted(&here, "127.0.0.1:1".parse().unwrap(), Duration::from_secs(1)).unwrap());
    }
}
