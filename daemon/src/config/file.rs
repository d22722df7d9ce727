//! The configuration file: YAML, keys to scalars or lists of scalars.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

use super::error::ConfigError;
use super::keys::{KEYS, find};
use crate::cluster::json::nearest;

/// The texts of a file by key; a key without a value is as good as none.
pub(super) fn read(path: &Path) -> Result<BTreeMap<&'static str, Vec<String>>, ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|cause| ConfigError::Unreadable { path: path.to_owned(), cause })?;
    parse(path, &text)
}

fn parse(path: &Path, text: &str) -> Result<BTreeMap<&'static str, Vec<String>>, ConfigError> {
    let given: Option<BTreeMap<String, Texts>> = serde_saphyr::from_str(text)
        .map_err(|error| ConfigError::Malformed { path: path.to_owned(), message: error.to_string() })?;
    let mut texts = BTreeMap::new();
    for (name, Texts(values)) in given.unwrap_or_default() {
        let Some(key) = find(&name) else {
            let names: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
            let nearest = nearest(&name, &names).map(str::to_owned);
            return Err(ConfigError::UnknownKey { path: path.to_owned(), key: name, nearest });
        };
        if !values.is_empty() {
            texts.insert(key.name, values);
        }
    }
    Ok(texts)
}

/// A scalar of any kind as text, or a list of them.
struct Texts(Vec<String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextsVisitor)
    }
}

struct TextsVisitor;

impl<'de> Visitor<'de> for TextsVisitor {
    type Value = Texts;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a value or a list of values")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Texts, E> {
        Ok(Texts(vec![value.to_string()]))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Texts, E> {
        Ok(Texts(vec![value.to_string()]))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Texts, E> {
        Ok(Texts(vec![value.to_string()]))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Texts, E> {
        Ok(Texts(vec![value.to_string()]))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Texts, E> {
        Ok(Texts(vec![value.to_owned()]))
    }

    fn visit_unit<E: Error>(self) -> Result<Texts, E> {
        Ok(Texts(vec![]))
    }

    fn visit_none<E: Error>(self) -> Result<Texts, E> {
        Ok(Texts(vec![]))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Texts, D::Error> {
        Texts::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Texts, A::Error> {
        let mut texts = Vec::new();
        while let Some(Texts(item)) = items.next_element()? {
            texts.extend(item);
        }
        Ok(Texts(texts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(text: &str) -> Result<BTreeMap<&'static str, Vec<String>>, String> {
        parse(Path::new("/etc/weft/config.yaml"), text).map_err(|e| e.to_string())
    }

    #[test]
    fn scalars_and_lists() {
        let read = texts("node-name: n1\nsubnet-len: 25\nip-masq: false\niface: [eth1, eth2]\npublic-ip:\nhealthz-bind: 0.0.0.0:80\n").unwrap();
        assert_eq!(read["node-name"], ["n1"]);
        assert_eq!(read["subnet-len"], ["25"]);
        assert_eq!(read["ip-masq"], ["false"]);
        assert_eq!(read["iface"], ["eth1", "eth2"]);
        assert_eq!(read["healthz-bind"], ["0.0.0.0:80"]);
        assert!(!read.contains_key("public-ip"));
        assert_eq!(texts("# nothing\n").unwrap().len(), 0);
        assert_eq!(texts("").unwrap().len(), 0);
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_the_nearest_and_the_file() {
        let error = texts("node_name: x\n").unwrap_err();
        assert!(error.contains("/etc/weft/config.yaml") && error.contains("did you mean \"node-name\"?"), "{error}");
        let error = texts("colour: red\n").unwrap_err();
        assert!(error.contains("no key \"colour\"") && !error.contains("did you mean"), "{error}");
    }

    #[test]
    fn what_is_no_mapping_is_refused() {
        for text in ["- a\n- b\n", "a: {b: c}\n", "node-name: n1\nnode-name: n2\n", "a: [\n"] {
            assert!(texts(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "\\PC*") {
            let _ = texts(&text);
        }
    }
}
