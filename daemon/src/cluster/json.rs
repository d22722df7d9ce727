//! JSON objects as flannel reads them: member names match whatever their case (Go's `encoding/json`).

use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// A JSON value as the text that it is published as. Two are equal if they say the same, however they are written.
#[derive(Debug, Clone)]
pub struct Json(Box<str>);

impl Json {
    /// The text that `value` becomes.
    pub(crate) fn of(value: &impl Serialize) -> Self {
        // Structs of strings and numbers, and values, have no way to fail; `null` says nothing, as whatever failed would.
        Self(serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned()).into())
    }

    /// What it says.
    #[must_use]
    pub fn value(&self) -> Value {
        // It was made of a value, or of one that could be written.
        serde_json::from_str(&self.0).unwrap_or_default()
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0 || self.value() == other.value()
    }
}

impl Eq for Json {}

impl fmt::Display for Json {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

/// A JSON object whose members are found by name in any case; the exact spelling wins over another one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caseless<'a>(&'a Map<String, Value>);

impl<'a> Caseless<'a> {
    /// The object in `value`, if it is one.
    pub(crate) fn new(value: &'a Value) -> Option<Self> {
        value.as_object().map(Self)
    }

    /// The member `name`; JSON `null` counts as absent.
    pub(crate) fn get(&self, name: &str) -> Option<&'a Value> {
        self.0
            .get(name)
            .or_else(|| self.0.iter().find(|(member, _)| member.eq_ignore_ascii_case(name)).map(|(_, value)| value))
            .filter(|value| !value.is_null())
    }

    /// The members whose name is none of `known`.
    pub(crate) fn unknown(&self, known: &[&str]) -> impl Iterator<Item = &'a str> {
        self.0
            .keys()
            .map(String::as_str)
            .filter(move |member| !known.iter().any(|name| name.eq_ignore_ascii_case(member)))
    }
}

/// The known name nearest to `given`, if one is near enough to be what was meant.
pub(crate) fn nearest<'a>(given: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&given.to_ascii_lowercase(), &name.to_ascii_lowercase()), *name))
        .filter(|(distance, name)| *distance <= 1 + name.len() / 4)
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn members_match_in_any_case_and_null_is_absent() {
        let value = json!({"network": 1, "NETWORK": 2, "Backend": null, "subnetlen": 24});
        let object = Caseless::new(&value).unwrap();
        assert_eq!(object.get("SubnetLen"), Some(&json!(24)));
        assert_eq!(object.get("network"), Some(&json!(1)));
        assert_eq!(object.get("Backend"), None);
        assert_eq!(object.unknown(&["Network", "Backend"]).collect::<Vec<_>>(), ["subnetlen"]);
    }

    #[test]
    fn the_same_said_in_other_words_is_equal() {
        let text = |text: &str| Json::of(&serde_json::from_str::<Value>(text).unwrap());
        assert_eq!(text(r#"{"Port": 1, "PublicKey": "x"}"#), text(r#"{"PublicKey":"x","Port":1}"#));
        assert_ne!(text(r#"{"Port": 1}"#), text(r#"{"Port": 2}"#));
        assert_eq!(serde_json::to_string(&text("[1, 2]")).unwrap(), "[1,2]");
    }

    #[test]
    fn a_near_name_is_found_and_a_far_one_is_not() {
        assert_eq!(nearest("Netwrok", &["Network", "Backend"]), Some("Network"));
        assert_eq!(nearest("zzz", &["Network", "Backend"]), None);
    }
}
