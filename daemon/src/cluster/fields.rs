//! The members of a network configuration, each with its type; whatever is wrong is told with key, value, and what was expected.

use serde_json::Value;
use weft_netlink::wireguard::SecretKey;

use super::json::{Caseless, nearest};

/// Why a network configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetConfError {
    /// Not JSON at all, or JSON but no object.
    #[error("the network configuration is not a JSON object: {0}")]
    NotAnObject(String),
    /// One key's value is missing, of the wrong type, or out of range.
    #[error("the network configuration's {key} is {value}; expected {expected}")]
    Field {
        /// The key, in flannel's spelling.
        key: &'static str,
        /// What stands there.
        value: String,
        /// What would be right.
        expected: String,
    },
}

/// Typed look-ups that name the key when a value is wrong.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a>(pub(super) Caseless<'a>);

impl<'a> Fields<'a> {
    pub(crate) fn string(&self, key: &'static str) -> Result<Option<&'a str>, NetConfError> {
        let text = |value: &'a Value| value.as_str().ok_or_else(|| wrong(key, &shown(value), "a string"));
        self.0.get(key).map(text).transpose()
    }

    /// A key of WireGuard's in base64; none if it is empty. What stands there is not shown.
    pub(crate) fn secret(&self, key: &'static str) -> Result<Option<SecretKey>, NetConfError> {
        let refused = || wrong(key, "no key", "32 bytes in base64, as wg genpsk writes them (the value is not shown)");
        let text = self.0.get(key).map(|value| value.as_str().ok_or_else(refused)).transpose()?;
        text.filter(|text| !text.is_empty()).map(|text| text.parse().map_err(|_| refused())).transpose()
    }

    pub(crate) fn boolean(&self, key: &'static str) -> Result<Option<bool>, NetConfError> {
        let truth = |value: &Value| value.as_bool().ok_or_else(|| wrong(key, &shown(value), "true or false"));
        self.0.get(key).map(truth).transpose()
    }

    pub(crate) fn integer(&self, key: &'static str, max: u64, expected: &str) -> Result<Option<u64>, NetConfError> {
        let number = |value: &Value| {
            value.as_u64().filter(|number| *number <= max).ok_or_else(|| wrong(key, &shown(value), expected))
        };
        self.0.get(key).map(number).transpose()
    }

    /// The `MTU` of a back end: the underlay's, in bytes; `None` to take it from the interface.
    pub(crate) fn mtu(&self) -> Result<Option<u32>, NetConfError> {
        let mtu = self.integer("MTU", 65_535, "the underlay's MTU in bytes, 0 to take it from the interface")?;
        Ok(mtu.and_then(|mtu| u32::try_from(mtu).ok()).filter(|mtu| *mtu != 0))
    }
}

pub(crate) fn wrong(key: &'static str, value: &str, expected: &str) -> NetConfError {
    NetConfError::Field { key, value: value.to_owned(), expected: expected.to_owned() }
}

/// A value in an error message, cut short.
pub(crate) fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 60 { text } else { text.chars().take(60).chain("…".chars()).collect() }
}

/// What a value is, where a part of it may be a secret.
pub(super) const fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

pub(super) fn unknown(key: &str, path: &str, known: &[&str]) -> String {
    let hint = nearest(key, known).map(|name| format!(", did you mean {path}{name}?")).unwrap_or_default();
    format!("the network configuration's {path}{key} is no key that is known, and is ignored{hint}")
}
