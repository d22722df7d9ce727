//! Flags over file over defaults: each value, and where it is from.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::documents::{Documents, Kind};
use super::finding::{ConfigError, Finding, Weight, place};
use super::secret::{HIDDEN, hidden, is_secret};

/// Where a value is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A flag, with its dashes.
    Flag(&'static str),
    /// A place of the file, `kubeadm.yaml:3:7`.
    File(String),
    /// Nobody gave it; why it is what it is, if there is more to say than that it is the default.
    Default(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::File(place) => write!(f, "{place}"),
            Self::Default(why) if why.is_empty() => write!(f, "default"),
            Self::Default(why) => write!(f, "default: {why}"),
        }
    }
}

/// A value in effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InEffect {
    /// `ClusterConfiguration.networking.podSubnet`.
    pub path: String,
    /// The value; secrets are hidden.
    pub value: Value,
    /// Where it is from.
    pub origin: Origin,
}

/// A configuration, by paths such as `ClusterConfiguration.networking.podSubnet`.
#[derive(Clone)]
pub struct Layers {
    root: Map<String, Value>,
    origins: BTreeMap<String, Origin>,
}

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.listing()).finish()
    }
}

impl Layers {
    /// What the file says, of these kinds.
    pub(super) fn of(documents: &Documents, kinds: &[Kind]) -> Self {
        let mut layers = Self { root: Map::new(), origins: BTreeMap::new() };
        for kind in kinds {
            let Some(document) = documents.found.get(kind) else { continue };
            let value = Value::Object(document.value.clone());
            // Leaves first: what came in from elsewhere has no place of its own. Items of lists have one, for messages.
            let here = |at| Origin::File(place(&documents.file, at));
            leaves(&value, "", &mut |path, _| {
                layers.origins.insert(format!("{}.{path}", kind.name()), here(document.at));
            });
            for (path, at) in document.positions.iter().filter(|(path, _)| !path.is_empty()) {
                layers.origins.insert(format!("{}.{path}", kind.name()), here(*at));
            }
            layers.root.insert(kind.name().to_owned(), value);
        }
        layers
    }

    /// The value at a path.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Value> {
        let mut parts = path.split('.');
        let mut value = self.root.get(parts.next()?)?;
        for part in parts {
            value = value.get(part)?;
        }
        Some(value)
    }

    /// The text at a path.
    pub(super) fn text(&self, path: &str) -> Option<&str> {
        self.get(path)?.as_str()
    }

    /// Where the value at a path, or the mapping that it is in, is from.
    #[must_use]
    pub fn origin(&self, path: &str) -> Option<&Origin> {
        self.origins.get(path)
    }

    /// Whether a flag or the file gave the value at a path.
    #[must_use]
    pub fn is_given(&self, path: &str) -> bool {
        self.get(path).is_some() && !matches!(self.origin(path), Some(Origin::Default(_)))
    }

    /// Puts a value at a path, whatever was there.
    pub(super) fn set(&mut self, path: &str, value: Value, origin: Origin) {
        self.put(path, value);
        self.forget(path);
        self.origins.insert(path.to_owned(), origin);
    }

    fn put(&mut self, path: &str, value: Value) {
        let mut parts: Vec<&str> = path.split('.').collect();
        let Some(last) = parts.pop() else { return };
        let mut object = &mut self.root;
        for part in parts {
            let next = object.entry(part).or_insert_with(|| Value::Object(Map::new()));
            if !next.is_object() {
                *next = Value::Object(Map::new());
            }
            let Value::Object(next) = next else { return };
            object = next;
        }
        object.insert(last.to_owned(), value);
    }

    /// Puts what a flag says at a path, if it was given.
    pub(super) fn flag(&mut self, flag: &'static str, path: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.set(path, value.into(), Origin::Flag(flag));
        }
    }

    /// The same for a flag that can be given more than once.
    pub(super) fn flags(&mut self, flag: &'static str, path: &str, values: &[impl ToString]) {
        let values: Vec<Value> = values.iter().map(|value| Value::from(value.to_string())).collect();
        self.flag(flag, path, (!values.is_empty()).then_some(values));
    }

    /// Puts a default at a path where nothing is.
    pub(super) fn default(&mut self, path: &str, value: impl Into<Value>, why: impl Into<String>) {
        if self.get(path).is_none() {
            self.set(path, value.into(), Origin::Default(why.into()));
        }
    }

    /// Replaces a value by what it comes to; it, and what is in it, still is from where it was from.
    pub(super) fn refine(&mut self, path: &str, value: impl Into<Value>) {
        self.put(path, value.into());
    }

    /// Takes a value away.
    pub(super) fn remove(&mut self, path: &str) {
        take_away(&mut self.root, path);
        self.forget(path);
    }

    /// Forgets where a value and all in it are from.
    fn forget(&mut self, path: &str) {
        let is_in =
            |known: &str| known.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
        self.origins.retain(|known, _| !is_in(known));
    }

    /// A kind's document as a value of its type.
    ///
    /// # Errors
    /// A field is missing or does not suit, which the walk over the document should have found.
    pub(super) fn document<T: DeserializeOwned>(&self, kind: Kind) -> Result<T, ConfigError> {
        let value = self.root.get(kind.name()).cloned().unwrap_or_else(|| Value::Object(Map::new()));
        serde_json::from_value(value)
            .map_err(|error| ConfigError::Unsound { kind: kind.name(), message: error.to_string() })
    }

    /// Something wrong with the value at a path: its place is where the value, or the nearest that it is in, is from.
    pub(super) fn finding(&self, weight: Weight, path: &str, message: String) -> Finding {
        let mut above = path;
        let place = loop {
            match self.origins.get(above) {
                Some(Origin::Default(_)) => break String::new(),
                Some(origin) => break origin.to_string(),
                None => match above.rsplit_once(['.', '[']) {
                    Some((parent, _)) => above = parent,
                    None => break String::new(),
                },
            }
        };
        Finding { weight, place, message }
    }

    /// Every value in effect and where it is from, in the order of the paths; secrets are hidden.
    #[must_use]
    pub fn listing(&self) -> Vec<InEffect> {
        let mut listing = Vec::new();
        leaves(&Value::Object(self.root.clone()), "", &mut |path, value| {
            let origin = self.origins.get(path).cloned().unwrap_or(Origin::Default(String::new()));
            let name = path.rsplit('.').next().unwrap_or_default();
            let value = if is_secret(name) { Value::from(HIDDEN) } else { hidden(value) };
            listing.push(InEffect { path: path.to_owned(), value, origin });
        });
        listing
    }
}

fn take_away(object: &mut Map<String, Value>, path: &str) {
    match path.split_once('.') {
        None => drop(object.remove(path)),
        Some((name, rest)) => {
            if let Some(Value::Object(below)) = object.get_mut(name) {
                take_away(below, rest);
            }
        }
    }
}

/// Calls with each value that is no mapping, and with empty mappings; lists are taken as a whole.
fn leaves(value: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
    match value {
        Value::Object(object) if !object.is_empty() => {
            for (name, value) in object {
                leaves(value, &super::shape::below(path, name), visit);
            }
        }
        _ if path.is_empty() => {}
        value => visit(path, value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nearer_to_the_user_counts() {
        let text = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nnetworking:\n  podSubnet: a\n  dnsDomain: b\n";
        let documents = Documents::parse("f.yaml", text).unwrap();
        let mut layers = Layers::of(&documents, &[Kind::Cluster]);
        let path = |field: &str| format!("ClusterConfiguration.networking.{field}");
        layers.flag("--pod-network-cidr", &path("podSubnet"), Some("x"));
        for field in ["podSubnet", "dnsDomain", "serviceSubnet"] {
            layers.default(&path(field), "d", "");
        }
        let listing: Vec<_> =
            layers.listing().into_iter().map(|found| format!("{} {}", found.value, found.origin)).collect();
        assert_eq!(listing, ["\"b\" f.yaml:5:14", "\"x\" --pod-network-cidr", "\"d\" default"]);
        assert!(layers.is_given(&path("podSubnet")) && !layers.is_given(&path("serviceSubnet")));
    }

    #[test]
    fn no_secret_is_listed() {
        let mut layers = Layers { root: Map::new(), origins: BTreeMap::new() };
        layers.flag("--token", "JoinConfiguration.discovery.tlsBootstrapToken", Some("s3cret"));
        layers.flag("--token", "InitConfiguration.bootstrapTokens", Some(serde_json::json!([{"token": "s3cret"}])));
        layers.flag("--certificate-key", "InitConfiguration.certificateKey", Some("s3cret"));
        let shown = format!("{layers:?}");
        assert!(!shown.contains("s3cret") && shown.contains("<hidden>"), "{shown}");
    }
}
