//! As much HTTP as health end points and etcd's JSON gateway need.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::netns::Netns;

/// Longer than any answer here takes, so that a hang is told from slowness.
const LIMIT: Duration = Duration::from_secs(20);

/// A status, headers and a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The status line and the headers.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Answer {
    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

/// `GET path` from inside a namespace.
///
/// # Errors
/// When nobody answers.
pub fn get(netns: &Netns, server: SocketAddr, path: &str) -> Result<Answer> {
    netns.run(|| exchange(server, &format!("GET {path} HTTP/1.0\r\nHost: {server}\r\n\r\n")))?
}

/// `POST path` with a JSON body from inside a namespace.
///
/// # Errors
/// When nobody answers.
pub fn post(netns: &Netns, server: SocketAddr, path: &str, body: &str) -> Result<Answer> {
    let head = format!("POST {path} HTTP/1.0\r\nHost: {server}\r\nContent-Type: application/json\r\n");
    netns.run(|| exchange(server, &format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())))?
}

/// One request, one answer: HTTP/1.0, so that the end of the stream is the end of the body.
fn exchange(server: SocketAddr, request: &str) -> Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&server, LIMIT).with_context(|| format!("cannot reach {server}"))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(request.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text).with_context(|| format!("no answer from {server}"))?;
    parse(&text).with_context(|| format!("{server} did not answer in HTTP: {text}"))
}

fn parse(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    Some(Answer { status, head: head.to_owned(), body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_its_status_and_body() {
        let answer = parse("HTTP/1.0 503 Service Unavailable\r\nA: b\r\n\r\nnot yet\r\n\r\n").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (503, "not yet\r\n\r\n"));
        assert_eq!(answer.header("a"), Some("b"));
        assert_eq!(parse("nonsense"), None);
    }
}
