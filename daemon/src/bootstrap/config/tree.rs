//! YAML as a tree that knows where each of its values stands, and keeps keys that are there twice.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::options::DuplicateKeyPolicy;
use serde_saphyr::{Location, Spanned};

/// A place in a file. Both begin at 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: u64,
    /// The character of the line.
    pub column: u64,
}

impl From<Location> for Position {
    fn from(location: Location) -> Self {
        Self { line: location.line(), column: location.column() }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A value, and where it begins.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) content: Content,
}

/// What a value may be.
#[derive(Debug)]
pub(super) enum Content {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Mapping(Vec<Entry>),
}

/// A key and its value.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) at: Position,
    pub(super) key: String,
    pub(super) value: Node,
}

/// Why a text is no YAML, and where.
#[derive(Debug)]
pub(super) struct NotYaml {
    pub(super) at: Option<Position>,
    pub(super) message: String,
}

/// Reads all documents of a text; empty ones are left out. JSON is YAML, too.
pub(super) fn documents(text: &str) -> Result<Vec<Node>, NotYaml> {
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        with_snippet: false,
    };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
        let at = error.location().filter(|location| *location != Location::UNKNOWN).map(Position::from);
        // The first line says it all, and its place is told apart.
        let message = error.without_snippet().to_string();
        NotYaml { at, message: message.lines().next().unwrap_or_default().to_owned() }
    })
}

impl Node {
    /// The entry of that name; the last, if there are several.
    pub(super) fn get(&self, name: &str) -> Option<&Node> {
        let Content::Mapping(entries) = &self.content else { return None };
        entries.iter().rev().find(|entry| entry.key == name).map(|entry| &entry.value)
    }

    /// Its text, if it is one.
    pub(super) fn text(&self) -> Option<&str> {
        if let Content::Text(text) = &self.content { Some(text) } else { None }
    }

    /// The value without its place. Of a key that is there twice the last one counts.
    pub(super) fn to_value(&self) -> Value {
        match &self.content {
            Content::Null => Value::Null,
            Content::Bool(value) => Value::Bool(*value),
            Content::Number(value) => Value::Number(value.clone()),
            Content::Text(value) => Value::String(value.clone()),
            Content::List(items) => items.iter().map(Node::to_value).collect(),
            Content::Mapping(entries) => {
                let entries = entries.iter().map(|entry| (entry.key.clone(), entry.value.to_value()));
                Value::Object(entries.collect::<Map<_, _>>())
            }
        }
    }

    /// What it is, in words and with its value if that is short.
    pub(super) fn describe(&self) -> String {
        match &self.content {
            Content::Null => "nothing".to_owned(),
            Content::Bool(value) => format!("{value}"),
            Content::Number(value) => format!("the number {value}"),
            Content::Text(value) => format!("{value:?}"),
            Content::List(_) => "a list".to_owned(),
            Content::Mapping(_) => "a mapping".to_owned(),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, .. } = Spanned::<Content>::deserialize(deserializer)?;
        Ok(Self { at: referenced.into(), content: value })
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Content, E> {
        Ok(Content::Null)
    }

    fn visit_none<E>(self) -> Result<Content, E> {
        Ok(Content::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Content, D::Error> {
        Content::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Content, E> {
        Ok(Content::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Content, E> {
        Ok(Content::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Content, E> {
        Ok(Content::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Content, E> {
        Number::from_f64(value).map(Content::Number).ok_or_else(|| E::custom("a number without a value"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Content, E> {
        Ok(Content::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Content, E> {
        Ok(Content::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Content, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Content::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Content, A::Error> {
        let mut mapping = Vec::new();
        while let Some((key, value)) = entries.next_entry::<Spanned<String>, Node>()? {
            mapping.push(Entry { at: key.referenced.into(), key: key.value, value });
        }
        Ok(Content::Mapping(mapping))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_knows_its_place_and_no_key_gets_lost() {
        let found = documents("a: 1\nb:\n  c: x\n---\n---\nd: [true, 'y']\nd: null\n").unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].get("b").unwrap().get("c").unwrap().at, Position { line: 3, column: 6 });
        let Content::Mapping(entries) = &found[1].content else { panic!("{found:?}") };
        let places: Vec<_> = entries.iter().map(|entry| (entry.key.as_str(), entry.at.line)).collect();
        assert_eq!(places, [("d", 6), ("d", 7)]);
        assert_eq!(found[1].to_value(), serde_json::json!({"d": null}));
    }

    #[test]
    fn json_is_read_as_well() {
        let found = documents("{\n\t\"a\": {\"b\": [1.5, \"\\u00e9\\/\"]}\n}\n").unwrap();
        assert_eq!(found[0].to_value(), serde_json::json!({"a": {"b": [1.5, "\u{e9}/"]}}));
    }

    #[test]
    fn what_is_no_yaml_is_told_with_its_place() {
        let error = documents("a: 1\nb: [1,\nc: }\n").unwrap_err();
        assert!(error.at.is_some_and(|at| at.line >= 2), "{error:?}");
        assert!(!error.message.is_empty());
    }
}
