//! JSON as Go's `encoding/json` reads it into structs, which is what runtimes are written against.
//!
//! Keys match whatever their case (containerd's go-cni sends `HostPort` where the specification says `hostPort`), `null`
//! is as good as absent, the last of several equal keys counts, unknown keys are passed over.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::error::{CniError, Code, Result};

/// A JSON value whose objects keep the order, and the repetitions, of their keys.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number that fits 64 bits.
    Integer(i128),
    /// Any other number.
    Float(f64),
    /// A string.
    String(String),
    /// An array.
    Array(Vec<Json>),
    /// An object.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Reads a whole document, which must be an object.
    ///
    /// # Errors
    /// Code 6 if it is not JSON, not an object, or followed by something.
    pub fn parse_object(bytes: &[u8]) -> Result<Self> {
        let value: Self = serde_json::from_slice(bytes).map_err(|error| {
            CniError::new(Code::Decode, format!("the network configuration on standard input is not JSON: {error}"))
        })?;
        match value {
            Self::Object(_) => Ok(value),
            other => Err(CniError::new(
                Code::Decode,
                format!("the network configuration on standard input is {}; expected an object", other.kind()),
            )),
        }
    }

    /// What it is, for messages.
    fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) | Self::Float(_) => "a number",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }

    /// The value of a key, if it is there and not `null`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Self::Object(members) = self else { return None };
        let found = members.iter().rev().filter(|(_, value)| *value != Self::Null);
        found
            .clone()
            .find(|(name, _)| name == key)
            .or_else(|| found.clone().find(|(name, _)| name.eq_ignore_ascii_case(key)))
            .map(|(_, value)| value)
    }

    /// Whether a key is there, be it `null`.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        matches!(self, Self::Object(members) if members.iter().any(|(name, _)| name.eq_ignore_ascii_case(key)))
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::String(value) => write!(f, "{value:?}"),
            Self::Array(values) => {
                f.write_str("[")?;
                for (index, value) in values.iter().enumerate() {
                    write!(f, "{}{value}", if index == 0 { "" } else { "," })?;
                }
                f.write_str("]")
            }
            Self::Object(members) => {
                f.write_str("{")?;
                for (index, (key, value)) in members.iter().enumerate() {
                    write!(f, "{}{key:?}:{value}", if index == 0 { "" } else { "," })?;
                }
                f.write_str("}")
            }
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> std::result::Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> std::result::Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> std::result::Result<Json, E> {
        Ok(Json::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> std::result::Result<Json, E> {
        Ok(Json::Integer(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> std::result::Result<Json, E> {
        Ok(Json::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> std::result::Result<Json, E> {
        Ok(Json::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> std::result::Result<Json, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = access.next_element()? {
            values.push(value);
        }
        Ok(Json::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> std::result::Result<Json, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = access.next_entry()? {
            members.push(member);
        }
        Ok(Json::Object(members))
    }
}

/// An object at a place in the configuration, for reading its fields with errors that name them.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    value: Option<&'a Json>,
    path: &'a str,
}

impl<'a> Fields<'a> {
    /// The fields of `value`, which is at `path` (empty for the document).
    ///
    /// # Errors
    /// Code 7 if it is neither absent nor an object.
    pub fn of(value: Option<&'a Json>, path: &'a str) -> Result<Self> {
        match value {
            None | Some(Json::Object(_)) => Ok(Self { value, path }),
            Some(other) => Err(CniError::invalid(path, other, "an object")),
        }
    }

    /// The full name of a key.
    #[must_use]
    pub fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The raw value of a key, `null` being absent.
    #[must_use]
    pub fn raw(&self, key: &str) -> Option<&'a Json> {
        self.value.and_then(|value| value.get(key))
    }

    fn wrong(&self, key: &str, value: &Json, expected: &str) -> CniError {
        CniError::invalid(&self.name(key), value, expected)
    }

    /// A string; empty is absent, as in Go.
    ///
    /// # Errors
    /// Code 7 if it is something else.
    pub fn string(&self, key: &str) -> Result<Option<&'a str>> {
        match self.raw(key) {
            None => Ok(None),
            Some(Json::String(text)) => Ok((!text.is_empty()).then_some(text)),
            Some(other) => Err(self.wrong(key, other, "a string")),
        }
    }

    /// A boolean.
    ///
    /// # Errors
    /// Code 7 if it is something else.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>> {
        match self.raw(key) {
            None => Ok(None),
            Some(Json::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(self.wrong(key, other, "true or false")),
        }
    }

    /// A whole number.
    ///
    /// # Errors
    /// Code 7 if it is something else, or does not fit.
    pub fn number<T: TryFrom<i128>>(&self, key: &str, expected: &str) -> Result<Option<T>> {
        let Some(value) = self.raw(key) else { return Ok(None) };
        let number = match value {
            Json::Integer(number) => Some(*number),
            // Go writes a float64 without an exponent up to 1e21; what has no fraction is a whole number all the same.
            #[expect(clippy::cast_possible_truncation, reason = "bounded and whole")]
            Json::Float(number) if number.fract() == 0.0 && number.abs() < 1e21 => Some(*number as i128),
            _ => None,
        };
        number.and_then(|number| T::try_from(number).ok()).map(Some).ok_or_else(|| self.wrong(key, value, expected))
    }

    /// An array; absent is empty.
    ///
    /// # Errors
    /// Code 7 if it is something else.
    pub fn array(&self, key: &str) -> Result<&'a [Json]> {
        match self.raw(key) {
            None => Ok(&[]),
            Some(Json::Array(values)) => Ok(values),
            Some(other) => Err(self.wrong(key, other, "an array")),
        }
    }

    /// An array of strings; absent is empty.
    ///
    /// # Errors
    /// Code 7 if it is something else.
    pub fn strings(&self, key: &str) -> Result<Vec<&'a str>> {
        self.array(key)?
            .iter()
            .map(|value| match value {
                Json::String(text) => Ok(text.as_str()),
                other => Err(self.wrong(key, other, "an array of strings")),
            })
            .collect()
    }

    /// A string that is parsed; empty is absent.
    ///
    /// # Errors
    /// Code 7 if it is not a string or cannot be parsed.
    pub fn parsed<T: std::str::FromStr>(&self, key: &str, expected: &str) -> Result<Option<T>> {
        self.string(key)?
            .map(|text| text.parse().map_err(|_| CniError::invalid(&self.name(key), format!("{text:?}"), expected)))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn object(text: &str) -> Json {
        Json::parse_object(text.as_bytes()).unwrap()
    }

    #[test]
    fn keys_match_as_in_go() {
        let json = object(r#"{"HostPort":1,"hostport":null,"a":1,"A":2,"n":null}"#);
        assert_eq!(json.get("hostPort"), Some(&Json::Integer(1)));
        assert_eq!(json.get("a"), Some(&Json::Integer(1)));
        assert_eq!(object(r#"{"X":1,"X":2}"#).get("x"), Some(&Json::Integer(2)));
        assert!(json.get("n").is_none() && json.has("N") && !json.has("m"));
    }

    #[test]
    fn t006_what_is_not_an_object_is_code_6() {
        for bytes in [&b""[..], b"{", b"[]", b"null", b"\xef\xbb\xbf{}", b"{} x", b"\0\xff\x01"] {
            assert_eq!(Json::parse_object(bytes).unwrap_err().code, Code::Decode, "{bytes:?}");
        }
        let deep = [vec![b'['; 200_000], b"{}".to_vec()].concat();
        assert_eq!(Json::parse_object(&deep).unwrap_err().code, Code::Decode);
    }

    #[test]
    fn numbers_of_any_writing_and_errors_that_name_key_and_value() {
        let json = object(r#"{"mtu":1450.0,"bad":1.5,"big":99999999999999999999,"s":"x"}"#);
        let fields = Fields::of(Some(&json), "ipam").unwrap();
        assert_eq!(fields.number::<u32>("mtu", "a number").unwrap(), Some(1450));
        assert_eq!(
            fields.number::<u32>("bad", "an MTU").unwrap_err().message,
            "ipam.bad: 1.5 is not valid; expected an MTU"
        );
        assert!(fields.number::<u32>("big", "x").is_err() && fields.number::<u32>("s", "x").is_err());
        assert_eq!(fields.number::<u32>("absent", "x").unwrap(), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_not_a_panic(bytes: Vec<u8>) {
            let _ = Json::parse_object(&bytes);
        }
    }
}
