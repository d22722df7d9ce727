//! What is wrong with an object, in words that lead to the place.

use std::fmt;

use serde::Deserialize;
use serde::de::Error;

use super::raw::{Metadata, Port, Text};
use crate::cluster::Family;
use crate::cluster::services::{Interner, ObjectName, Protocol};

/// Longest piece of a value that is shown, in bytes.
const SHOWN: usize = 80;

/// Why an object cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// No JSON, or JSON of something else.
    #[error("{object} is not readable{near}: {cause}")]
    Json {
        /// Kind and name.
        object: String,
        /// ` at "<member>"`, if it is known.
        near: String,
        /// What the JSON reader said: found, expected, line and column.
        cause: String,
    },
    /// A field's value is missing, or cannot be.
    #[error("{object}: {field} is {value}; expected {expected}")]
    Field {
        /// Kind and name.
        object: String,
        /// The field, as a path in the API.
        field: String,
        /// What stands there.
        value: String,
        /// What would be right.
        expected: String,
    },
}

/// An object under examination: what to call it, and what was left out of it so far.
pub(super) struct Examined {
    kind: &'static str,
    /// As its key in the store or its metadata say.
    pub(super) name: ObjectName,
    pub(super) warnings: Vec<String>,
}

impl Examined {
    /// Names the object: by its key if it was read from one, which its metadata may leave out but not contradict.
    pub(super) fn new(
        kind: &'static str,
        said: Option<&Text<'_>>,
        metadata: &Metadata<'_>,
        key: Option<&ObjectName>,
        strings: &mut Interner,
    ) -> Result<Self, ParseError> {
        let namespace = metadata.namespace.as_deref();
        let this = Self::called(kind, said, (namespace, metadata.name.as_deref()), key, strings)?;
        this.agrees("metadata.namespace", namespace, &this.name.namespace, key)?;
        this.agrees("metadata.name", metadata.name.as_deref(), &this.name.name, key)?;
        Ok(this)
    }

    /// The same of a kind whose objects are in no namespace.
    pub(super) fn cluster_wide(
        kind: &'static str,
        said: Option<&Text<'_>>,
        metadata: &Metadata<'_>,
        key: Option<&ObjectName>,
        strings: &mut Interner,
    ) -> Result<Self, ParseError> {
        let this = Self::called(kind, said, (None, metadata.name.as_deref()), key, strings)?;
        this.agrees("metadata.name", metadata.name.as_deref(), &this.name.name, key)?;
        Ok(this)
    }

    fn called(
        kind: &'static str,
        said: Option<&Text<'_>>,
        (namespace, name): (Option<&str>, Option<&str>),
        key: Option<&ObjectName>,
        strings: &mut Interner,
    ) -> Result<Self, ParseError> {
        let known = key.cloned().unwrap_or_else(|| {
            ObjectName::new(strings.get(namespace.unwrap_or_default()), strings.get(name.unwrap_or_default()))
        });
        let this = Self { kind, name: known, warnings: Vec::new() };
        match said.filter(|said| !said.is_empty() && &***said != kind) {
            Some(other) => Err(this.text("kind", other, kind)),
            None => Ok(this),
        }
    }

    /// Checks that a part of the name that the metadata say is there, and the one in the key.
    fn agrees(
        &self,
        field: &str,
        said: Option<&str>,
        expected: &str,
        key: Option<&ObjectName>,
    ) -> Result<(), ParseError> {
        let said = said.unwrap_or(if key.is_some() { expected } else { "" });
        if !said.is_empty() && said == expected {
            return Ok(());
        }
        Err(self.text(field, said, if expected.is_empty() { "a name" } else { "the name in the key" }))
    }

    /// The error for a field.
    pub(super) fn field(&self, field: impl fmt::Display, value: impl fmt::Display, expected: &str) -> ParseError {
        ParseError::Field {
            object: format!("{} {}", self.kind, self.name),
            field: field.to_string(),
            value: value.to_string(),
            expected: expected.to_owned(),
        }
    }

    /// The error for a field that holds a text.
    pub(super) fn text(&self, field: impl fmt::Display, value: &str, expected: &str) -> ParseError {
        self.field(field, quoted(value), expected)
    }

    /// Notes that the field's value was left out.
    pub(super) fn left_out(&mut self, field: impl fmt::Display, value: &str, expected: &str) {
        let error = self.text(field, value, expected);
        self.warnings.push(format!("{error}; left out"));
    }

    /// Reads a protocol; TCP if nothing stands there.
    pub(super) fn protocol(&self, field: impl fmt::Display, port: &Port<'_>) -> Result<Protocol, ParseError> {
        let text = port.protocol.as_deref().unwrap_or_default();
        if text.is_empty() {
            return Ok(Protocol::Tcp);
        }
        let known = Protocol::ALL.into_iter().find(|protocol| protocol.name() == text);
        known.ok_or_else(|| self.text(format_args!("{field}.protocol"), text, "TCP, UDP or SCTP"))
    }

    /// Reads a port number.
    pub(super) fn port(&self, field: impl fmt::Display, number: i64) -> Result<u16, ParseError> {
        let port = u16::try_from(number).ok().filter(|port| *port != 0);
        port.ok_or_else(|| self.field(field, number, "a port, 1 to 65535"))
    }

    /// Reads `IPv4` or `IPv6`.
    pub(super) fn family(&self, field: impl fmt::Display, text: &str) -> Result<Family, ParseError> {
        let known = Family::ALL.into_iter().find(|family| family.to_string() == text);
        known.ok_or_else(|| self.text(field, text, "IPv4 or IPv6"))
    }
}

/// Reads the JSON of an object of a kind.
pub(super) fn read<'a, T: Deserialize<'a>>(
    kind: &'static str,
    json: &'a [u8],
    key: Option<&ObjectName>,
) -> Result<T, ParseError> {
    // serde takes a list for a struct, member by member.
    let is_list = json.trim_ascii_start().starts_with(b"[");
    let parsed =
        if is_list { Err(Error::custom("it is a list, expected an object")) } else { serde_json::from_slice(json) };
    parsed.map_err(|error: serde_json::Error| ParseError::Json {
        object: match key {
            Some(name) => format!("{kind} {name}"),
            None => format!("a {kind}"),
        },
        near: near(json, &error).map(|member| format!(" at {}", quoted(&member))).unwrap_or_default(),
        cause: error.to_string(),
    })
}

/// The last member's name that stands before the place of an error.
fn near(json: &[u8], error: &serde_json::Error) -> Option<String> {
    let line_start: usize =
        json.split_inclusive(|byte| *byte == b'\n').take(error.line().checked_sub(1)?).map(<[u8]>::len).sum();
    let text = String::from_utf8_lossy(json.get(..line_start.checked_add(error.column())?)?).into_owned();
    let mut member = None;
    let mut rest = text.as_str();
    while let Some(start) = rest.find('"') {
        let after = rest.get(start + 1..)?;
        let length = end_of_string(after)?;
        let (string, tail) = (after.get(..length)?, after.get(length + 1..)?);
        if tail.trim_start().starts_with(':') {
            member = Some(string.to_owned());
        }
        rest = tail;
    }
    member
}

/// Where the closing quote stands.
fn end_of_string(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at),
            _ => {}
        }
    }
    None
}

/// A text in quotes, on one line, not too long.
fn quoted(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}
