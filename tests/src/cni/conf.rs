//! A network configuration, built by saying what differs from the usual one.

use serde_json::{Value, json};

/// What a plugin gets on stdin.
#[derive(Debug, Clone, PartialEq)]
pub struct Conf(Value);

impl Conf {
    /// A configuration as it stands.
    #[must_use]
    pub fn raw(value: Value) -> Self {
        Self(value)
    }

    /// The same with a top-level key set.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0[key] = value.into();
        self
    }

    /// The same with a key of `ipam` set.
    #[must_use]
    pub fn with_ipam(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0["ipam"][key] = value.into();
        self
    }

    /// The same without a top-level key.
    #[must_use]
    pub fn without(mut self, key: &str) -> Self {
        if let Some(object) = self.0.as_object_mut() {
            object.remove(key);
        }
        self
    }

    /// The same with one range set for each of `subnets`.
    #[must_use]
    pub fn with_subnets(self, subnets: &[&str]) -> Self {
        let sets: Vec<Value> = subnets.iter().map(|subnet| json!([{ "subnet": subnet }])).collect();
        self.with_ipam("ranges", sets)
    }

    /// The same with a key of `runtimeConfig` set.
    #[must_use]
    pub fn with_runtime(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0["runtimeConfig"][key] = value.into();
        self
    }

    /// `cniVersion`.
    #[must_use]
    pub fn version(&self) -> &str {
        self.0["cniVersion"].as_str().unwrap_or_default()
    }

    /// Whether `cniVersion` is at least this (all are one-digit triples).
    #[must_use]
    pub fn is_at_least(&self, version: &str) -> bool {
        self.version() >= version
    }

    /// As bytes for stdin.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.0.to_string().into_bytes()
    }
}
