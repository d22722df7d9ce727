//! What is measured: ways between two pods.

use std::net::IpAddr;

use anyhow::{Context, Result};
use serde_json::Value;
use weft_tests::netns::Netns;

/// A pod with its address.
pub(crate) struct Pod<'a> {
    pub(crate) netns: &'a Netns,
    pub(crate) address: IpAddr,
}

/// A network with two pods on two nodes.
pub(crate) trait Network {
    /// What it is called in the report.
    fn name(&self) -> &'static str;
    /// The one that asks, and the one that answers.
    fn pods(&self) -> [Pod<'_>; 2];
}

/// The first address in a plugin's result.
pub(crate) fn address_of(result: &Value) -> Result<IpAddr> {
    let text = result.pointer("/ips/0/address").and_then(Value::as_str);
    let address = text.and_then(|text| text.split('/').next()?.parse().ok());
    address.with_context(|| format!("a result without address: {result}"))
}
