//! JSON objects as flannel reads them: member names match whatever their case (Go's `encoding/json`).

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// A JSON object whose members are found by name in any case; the exact spelling wins over another one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caseless<'a>(&'a Map<String, Value>);

impl<'a> Caseless<'a> {
    /// The object in `value`, if it is one.
    pub(super) fn new(value: &'a Value) -> Option<Self> {
        value.as_object().map(Self)
    }

    /// The member `name`; JSON `null` counts as absent.
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.0
            .get(name)
            .or_else(|| self.0.iter().find(|(member, _)| member.eq_ignore_ascii_case(name)).map(|(_, value)| value))
            .filter(|value| !value.is_null())
    }

    /// The members whose name is none of `known`.
    pub(super) fn unknown(&self, known: &[&str]) -> impl Iterator<Item = &'a str> {
        self.0
            .keys()
            .map(String::as_str)
            .filter(move |member| !known.iter().any(|name| name.eq_ignore_ascii_case(member)))
    }
}

/// The member `name` of a JSON object, byte for byte as it stands there; found as [`Caseless::get`] finds it.
pub(super) fn raw_member(object: &[u8], name: &str) -> Option<String> {
    let members: BTreeMap<String, &RawValue> = serde_json::from_slice(object).ok()?;
    let any_case = || members.iter().find(|(member, _)| member.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    let value = members.get(name).or_else(any_case)?.get();
    Some(value.to_owned()).filter(|text| text != "null")
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
    fn a_raw_member_is_the_one_that_is_read_and_keeps_its_text() {
        let text = br#"{"backenddata": 1, "BackendData": { "b": 1.50, "a":[ ] }, "X": null}"#;
        assert_eq!(raw_member(text, "BackendData").as_deref(), Some(r#"{ "b": 1.50, "a":[ ] }"#));
        assert_eq!(raw_member(text, "BACKENDDATA").as_deref(), Some(r#"{ "b": 1.50, "a":[ ] }"#));
        assert_eq!((raw_member(text, "x"), raw_member(text, "y"), raw_member(b"[", "y")), (None, None, None));
    }

    #[test]
    fn a_near_name_is_found_and_a_far_one_is_not() {
        assert_eq!(nearest("Netwrok", &["Network", "Backend"]), Some("Network"));
        assert_eq!(nearest("zzz", &["Network", "Backend"]), None);
    }
}
