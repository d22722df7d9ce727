//! What a field may hold, and the walk that compares a document with it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::finding::{Finding, Weight, place};
use super::secret::is_secret;
use super::tree::{Content, Entry, Node, Position};
use crate::bootstrap::duration;
use crate::cluster::json::nearest;

/// Versions of kubeadm's API that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    V1Beta2,
    V1Beta3,
    V1Beta4,
}

impl Version {
    pub(super) const ALL: [Self; 3] = [Self::V1Beta2, Self::V1Beta3, Self::V1Beta4];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V1Beta2 => "v1beta2",
            Self::V1Beta3 => "v1beta3",
            Self::V1Beta4 => "v1beta4",
        }
    }
}

/// What a field may hold.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// A string. An empty one is as good as none, as with Go's `omitempty`.
    Text,
    /// One of these strings.
    OneOf(&'static [&'static str]),
    /// An IP address.
    Address,
    /// `true` or `false`.
    Bool,
    /// A number from 0 to this.
    Whole(u64),
    /// Go's duration.
    Duration,
    /// A list of strings.
    Texts,
    /// Flags: a list of `{name, value}`; up to v1beta3 a mapping, which becomes such a list in the order of its names.
    Args,
    /// A mapping of names to `true` or `false`.
    Gates,
    /// Whatever there is: somebody else's type.
    Any,
    /// A mapping with these fields.
    Object(&'static [Field]),
    /// A list of such mappings.
    Objects(&'static [Field]),
}

/// A field of a mapping.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) first: Version,
    pub(super) last: Version,
}

impl Field {
    /// One that each version has.
    pub(super) const fn new(name: &'static str, shape: Shape) -> Self {
        Self { name, shape, first: Version::V1Beta2, last: Version::V1Beta4 }
    }

    pub(super) const fn since(mut self, version: Version) -> Self {
        self.first = version;
        self
    }

    pub(super) const fn until(mut self, version: Version) -> Self {
        self.last = version;
        self
    }

    fn is_in(&self, version: Version) -> bool {
        (self.first..=self.last).contains(&version)
    }
}

/// Walks a document of a version of the API.
pub(super) struct Walk<'a> {
    pub(super) file: &'a str,
    pub(super) version: Version,
    /// Where each value stands, by its path.
    pub(super) positions: &'a mut BTreeMap<String, Position>,
    pub(super) findings: &'a mut Vec<Finding>,
}

impl Walk<'_> {
    /// The value of a node, if it holds what it may; what does not suit is found and left out.
    pub(super) fn read(&mut self, shape: Shape, node: &Node, path: &str) -> Option<Value> {
        self.positions.insert(path.to_owned(), node.at);
        if matches!(node.content, Content::Null) {
            return None;
        }
        match shape {
            Shape::Text => self.text(node, path).filter(|text| !text.is_empty()).map(Value::String),
            Shape::OneOf(words) => self.one_of(node, path, words),
            Shape::Address => self.address(node, path),
            Shape::Bool => self.bool(node, path).map(Value::Bool),
            Shape::Whole(most) => self.whole(node, path, most).map(Value::from),
            Shape::Duration => self.duration(node, path).map(Value::String),
            Shape::Texts => self.list(node, path, Self::text),
            Shape::Args if self.version < Version::V1Beta4 => self.flags_of_mapping(node, path),
            Shape::Args => self.list(node, path, |walk, item, path| walk.object(FLAG, item, path)),
            Shape::Gates => self.gates(node, path),
            Shape::Any => {
                self.repeated_within(node, path);
                Some(node.to_value())
            }
            Shape::Object(fields) => self.object(fields, node, path),
            Shape::Objects(fields) => self.list(node, path, |walk, item, path| walk.object(fields, item, path)),
        }
    }

    fn object(&mut self, fields: &'static [Field], node: &Node, path: &str) -> Option<Value> {
        let Content::Mapping(entries) = &node.content else {
            return self.wrong(node, path, "a mapping of fields to values");
        };
        self.repeated(entries, path);
        let mut object = Map::new();
        for entry in entries {
            let name = entry.key.as_str();
            // A document's type has been looked at before.
            if path.is_empty() && matches!(name, "apiVersion" | "kind") {
                continue;
            }
            let path = below(path, name);
            match fields.iter().find(|field| field.name == name && field.is_in(self.version)) {
                Some(field) => match self.read(field.shape, &entry.value, &path) {
                    Some(value) => drop(object.insert(name.to_owned(), value)),
                    // The last one counts, even when it takes away what an earlier one said.
                    None => drop(object.remove(name)),
                },
                None => self.unknown(fields, entry, &path),
            }
        }
        Some(Value::Object(object))
    }

    fn unknown(&mut self, fields: &'static [Field], entry: &Entry, path: &str) {
        let version = self.version;
        let known: Vec<&str> = fields.iter().filter(|field| field.is_in(version)).map(|field| field.name).collect();
        let elsewhere = fields.iter().find(|field| field.name == entry.key);
        let hint = match (elsewhere, nearest(&entry.key, &known)) {
            (Some(field), _) if field.first > version => {
                format!("; it came with {}", field.first.name())
            }
            (Some(field), _) => format!("; it went after {}", field.last.name()),
            (None, Some(known)) => format!("; did you mean {known}?"),
            (None, None) => String::new(),
        };
        self.find(Weight::Sloppy, entry.at, format!("there is no field {path}{hint}"));
    }

    /// Finds keys that are there more than once.
    fn repeated(&mut self, entries: &[Entry], path: &str) {
        for (index, entry) in entries.iter().enumerate() {
            if let Some(first) = entries.get(..index).and_then(|before| before.iter().find(|e| e.key == entry.key)) {
                let (line, path) = (first.at.line, below(path, &entry.key));
                self.find(
                    Weight::Sloppy,
                    entry.at,
                    format!("{path} is there twice (first in line {line}); the last one counts"),
                );
            }
        }
    }

    /// The same, in what is otherwise not looked into.
    fn repeated_within(&mut self, node: &Node, path: &str) {
        match &node.content {
            Content::Mapping(entries) => {
                self.repeated(entries, path);
                entries.iter().for_each(|entry| self.repeated_within(&entry.value, &below(path, &entry.key)));
            }
            Content::List(items) => {
                items.iter().enumerate().for_each(|(n, item)| self.repeated_within(item, &format!("{path}[{n}]")));
            }
            Content::Null | Content::Bool(_) | Content::Number(_) | Content::Text(_) => {}
        }
    }

    fn text(&mut self, node: &Node, path: &str) -> Option<String> {
        match &node.content {
            Content::Text(text) => Some(text.clone()),
            Content::Bool(_) | Content::Number(_) => self.wrong(node, path, "text; put it in quotes"),
            Content::Null | Content::List(_) | Content::Mapping(_) => self.wrong(node, path, "text"),
        }
    }

    fn one_of(&mut self, node: &Node, path: &str, words: &[&str]) -> Option<Value> {
        match self.text(node, path)?.as_str() {
            "" => None,
            word if words.contains(&word) => Some(word.into()),
            _ => self.wrong(node, path, &format!("one of {}", words.join(", "))),
        }
    }

    fn address(&mut self, node: &Node, path: &str) -> Option<Value> {
        match self.text(node, path)?.as_str() {
            "" => None,
            text => match text.parse::<IpAddr>() {
                Ok(address) => Some(address.to_string().into()),
                Err(_) => self.wrong(node, path, "an IP address"),
            },
        }
    }

    fn bool(&mut self, node: &Node, path: &str) -> Option<bool> {
        match &node.content {
            Content::Bool(value) => Some(*value),
            // What YAML 1.1, which kubeadm reads, takes for one.
            Content::Text(text) => match text.to_ascii_lowercase().as_str() {
                "yes" | "y" | "on" => Some(true),
                "no" | "n" | "off" => Some(false),
                _ => self.wrong(node, path, "true or false"),
            },
            Content::Null | Content::Number(_) | Content::List(_) | Content::Mapping(_) => {
                self.wrong(node, path, "true or false")
            }
        }
    }

    fn whole(&mut self, node: &Node, path: &str, most: u64) -> Option<u64> {
        let found = if let Content::Number(number) = &node.content { number.as_u64() } else { None };
        match found.filter(|number| *number <= most) {
            Some(number) => Some(number),
            None => self.wrong(node, path, &format!("a whole number from 0 to {most}")),
        }
    }

    fn duration(&mut self, node: &Node, path: &str) -> Option<String> {
        match node.text().and_then(duration::parse) {
            Some(found) => Some(duration::print(found)),
            None => self.wrong(node, path, duration::EXPECTED),
        }
    }

    fn gates(&mut self, node: &Node, path: &str) -> Option<Value> {
        let Content::Mapping(entries) = &node.content else {
            return self.wrong(node, path, "a mapping of names to true or false");
        };
        self.repeated(entries, path);
        let gates = entries.iter().filter_map(|entry| {
            let value = self.bool(&entry.value, &below(path, &entry.key))?;
            Some((entry.key.clone(), Value::Bool(value)))
        });
        Some(Value::Object(gates.collect()))
    }

    fn flags_of_mapping(&mut self, node: &Node, path: &str) -> Option<Value> {
        let Content::Mapping(entries) = &node.content else {
            return self.wrong(node, path, &format!("a mapping of flags to values in {}", self.version.name()));
        };
        self.repeated(entries, path);
        let mut flags = BTreeMap::new();
        for entry in entries {
            if let Some(text) = self.text(&entry.value, &below(path, &entry.key)) {
                flags.insert(entry.key.as_str(), text);
            }
        }
        Some(flags.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect())
    }

    fn list<T: Into<Value>>(
        &mut self,
        node: &Node,
        path: &str,
        mut read: impl FnMut(&mut Self, &Node, &str) -> Option<T>,
    ) -> Option<Value> {
        let Content::List(items) = &node.content else { return self.wrong(node, path, "a list") };
        let mut list = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let path = format!("{path}[{index}]");
            self.positions.insert(path.clone(), item.at);
            list.extend(read(self, item, &path).map(Into::into));
        }
        Some(Value::Array(list))
    }

    fn wrong<T>(&mut self, node: &Node, path: &str, expected: &str) -> Option<T> {
        let is_hidden = is_secret(path.rsplit('.').next().unwrap_or_default());
        let given = if is_hidden { "not what it should be".to_owned() } else { node.describe() };
        self.find(Weight::Wrong, node.at, format!("{path} is {given}; expected {expected}"));
        None
    }

    pub(super) fn find(&mut self, weight: Weight, at: Position, message: String) {
        self.findings.push(Finding { weight, place: place(self.file, at), message });
    }
}

const FLAG: &[Field] = &[Field::new("name", Shape::Text), Field::new("value", Shape::Text)];

/// The path of a field of a mapping.
pub(super) fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
