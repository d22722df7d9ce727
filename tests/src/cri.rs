//! Speaking CRI to a runtime over its socket: one unary call a connection, as little of HTTP/2 and protobuf as that takes.
//!
//! Debian has no crictl, and a gRPC library for five calls would be most of what these tests are built of. Sources: RFC 9113
//! (frames), RFC 7541 (header table), k8s.io/cri-api `runtime/v1/api.proto` (field numbers).

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// How long a runtime may take to answer.
const LIMIT: Duration = Duration::from_secs(60);
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// A protobuf message being written.
#[derive(Debug, Clone, Default)]
pub struct Message(Vec<u8>);

impl Message {
    /// The same with a string, or a message's bytes, in a field.
    #[must_use]
    pub fn bytes(mut self, field: u8, value: impl AsRef<[u8]>) -> Self {
        self.0.push(field << 3 | 2);
        put_number(&mut self.0, value.as_ref().len() as u64);
        self.0.extend_from_slice(value.as_ref());
        self
    }

    /// The same with a message in a field.
    #[must_use]
    pub fn message(self, field: u8, value: &Self) -> Self {
        self.bytes(field, &value.0)
    }

    /// The same with a number in a field.
    #[must_use]
    pub fn number(mut self, field: u8, value: u64) -> Self {
        self.0.push(field << 3);
        put_number(&mut self.0, value);
        self
    }
}

/// The first field of this number in a message that is a string or a message.
#[must_use]
pub fn field(mut bytes: &[u8], wanted: u64) -> Option<&[u8]> {
    while !bytes.is_empty() {
        let tag = take_number(&mut bytes)?;
        match tag & 7 {
            0 => drop(take_number(&mut bytes)?),
            1 => bytes = bytes.get(8..)?,
            5 => bytes = bytes.get(4..)?,
            2 => {
                let length = usize::try_from(take_number(&mut bytes)?).ok()?;
                let (value, rest) = bytes.split_at_checked(length)?;
                if tag >> 3 == wanted {
                    return Some(value);
                }
                bytes = rest;
            }
            _ => return None,
        }
    }
    None
}

fn put_number(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Calls `runtime.v1.RuntimeService/<method>` and returns the answer.
///
/// # Errors
/// When nobody listens, or the runtime refuses: its reason is in its log.
pub fn call(socket: &Path, method: &str, request: &Message) -> Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).with_context(|| format!("nobody listens at {}", socket.display()))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
    send(&mut stream, SETTINGS, 0, 0, &[])?;
    send(&mut stream, HEADERS, END_HEADERS, 1, &headers(method))?;
    let mut body = vec![0];
    body.extend_from_slice(&u32::try_from(request.0.len())?.to_be_bytes());
    body.extend_from_slice(&request.0);
    send(&mut stream, DATA, END_STREAM, 1, &body)?;
    let mut answer = Vec::new();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).with_context(|| format!("no answer to {method}"))?;
        let [a, b, c, kind, flags, ..] = head;
        let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, a, b, c]))?];
        stream.read_exact(&mut payload)?;
        match kind {
            SETTINGS if flags & ACK == 0 => send(&mut stream, SETTINGS, ACK, 0, &[])?,
            PING if flags & ACK == 0 => send(&mut stream, PING, ACK, 0, &payload)?,
            RESET | GO_AWAY => bail!("the runtime broke off {method}"),
            DATA => answer.extend_from_slice(&payload),
            _ => {}
        }
        if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            // A refusal is headers only; five bytes before the message are gRPC's.
            return answer.get(5..).map(<[u8]>::to_vec).with_context(|| format!("the runtime refused {method}"));
        }
    }
}

/// Static table: 3 is `:method: POST`, 6 `:scheme: http`, 4 `:path`, 1 `:authority`, 31 `content-type`.
fn headers(method: &str) -> Vec<u8> {
    let mut block = vec![0x83, 0x86, 0x04];
    let text = |block: &mut Vec<u8>, text: &str| {
        // All of them are shorter than the 127 bytes that one byte of length can say.
        block.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        block.extend_from_slice(text.as_bytes());
    };
    text(&mut block, &format!("/runtime.v1.RuntimeService/{method}"));
    block.push(0x01);
    text(&mut block, "localhost");
    block.extend_from_slice(&[0x0f, 31 - 15]);
    text(&mut block, "application/grpc");
    block.push(0x00);
    text(&mut block, "te");
    text(&mut block, "trailers");
    block
}

fn send(stream: &mut UnixStream, kind: u8, flags: u8, id: u32, payload: &[u8]) -> Result<()> {
    let [_, a, b, c] = u32::try_from(payload.len())?.to_be_bytes();
    let mut frame = vec![a, b, c, kind, flags];
    frame.extend_from_slice(&id.to_be_bytes());
    frame.extend_from_slice(payload);
    Ok(stream.write_all(&frame)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_back() {
        let inner = Message::default().number(3, 300).bytes(1, "10.1.0.5");
        let outer = Message::default().number(9, u64::MAX).message(5, &inner).bytes(1, "id");
        assert_eq!(field(&outer.0, 1), Some(&b"id"[..]));
        assert_eq!(field(&outer.0, 5).and_then(|inner| field(inner, 1)), Some(&b"10.1.0.5"[..]));
        assert_eq!((field(&outer.0, 2), field(&[0x0a, 9, 1], 1)), (None, None));
    }
}
