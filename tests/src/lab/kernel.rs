//! What weft has put into a node's kernel, as the kernel's own tools show it, and what an agent says of its repairs.

use std::collections::BTreeSet;

use anyhow::Result;
use serde_json::Value;

use super::Lab;
use crate::http;
use crate::netns::Netns;

/// Everything of the overlay's, one object a line, without what counts by itself. Equal, if nothing has changed.
///
/// # Errors
/// When a tool refuses.
pub fn kernel(node: &Netns) -> Result<Vec<String>> {
    let links = node.objects("ip", &["-d", "link", "show"])?;
    let is_ours = |link: &&Value| {
        let name = link["ifname"].as_str().unwrap_or_default();
        name.starts_with("flannel") || name == "cni0"
    };
    let device = |link: &Value| {
        let (mac, mtu, local) = (&link["address"], &link["mtu"], &link["linkinfo"]["info_data"]["local"]);
        let up = link["flags"].as_array().is_some_and(|flags| flags.iter().any(|flag| flag == "UP"));
        format!("{}: {} mac {mac} mtu {mtu} local {local} up {up}", link["ifindex"], link["ifname"])
    };
    let mut found: Vec<String> = links.iter().filter(is_ours).map(device).collect();
    for (program, words) in [
        ("ip", &["route", "show", "table", "all"][..]),
        ("ip", &["-6", "route", "show", "table", "all"]),
        ("ip", &["neigh", "show", "nud", "permanent"]),
        ("bridge", &["fdb", "show"]),
        ("ip", &["addr", "show", "dev", "cni0"]),
        ("nft", &["-s", "list", "ruleset"]),
    ] {
        let mut lines: Vec<String> = node.tool(program, words)?.lines().map(str::to_owned).collect();
        lines.sort();
        // Routes learnt from router advertisements, and lifetimes, come and go; link-local addresses, and the routes that the
        // kernel makes of addresses on the overlay's devices, nobody needs.
        let is_kernels = |line: &str| line.contains("dev flannel") && line.contains("proto kernel metric 256");
        let comes_and_goes = ["valid_lft", "proto ra", "fe80::"];
        lines.retain(|line| !is_kernels(line) && !comes_and_goes.iter().any(|word| line.contains(word)));
        found.extend(lines);
    }
    Ok(found)
}

/// The same without the numbers of devices, which a device that was deleted does not get back.
#[must_use]
pub fn without_numbers(kernel: &[String]) -> Vec<String> {
    let rest = |line: &String| match line.split_once(": ") {
        Some((number, rest)) if number.bytes().all(|byte| byte.is_ascii_digit()) => rest.to_owned(),
        _ => line.clone(),
    };
    let mut lines: Vec<String> = kernel.iter().map(rest).collect();
    lines.sort();
    lines
}

/// What was there and is not any more, and what is new, in words.
#[must_use]
pub fn difference(before: &[String], now: &[String]) -> String {
    let of = |lines: &[String], others: &[String]| {
        let others: BTreeSet<&String> = others.iter().collect();
        lines.iter().filter(|line| !others.contains(line)).cloned().collect::<Vec<_>>().join(" | ")
    };
    format!("gone: {}; new: {}", of(before, now), of(now, before))
}

/// What the agent in a namespace says at `/status`.
///
/// # Errors
/// When nobody answers, or not in JSON.
pub fn agent_status(node: &Netns) -> Result<Value> {
    Ok(serde_json::from_str(&http::get(node, super::agent::health(), "/status")?.body)?)
}

impl Lab {
    /// What a node's agent says at `/status`.
    ///
    /// # Errors
    /// When nobody answers, or not in JSON.
    pub fn status(&self, name: &str) -> Result<Value> {
        agent_status(&self.node(name)?.netns)
    }

    /// How many objects of a table a node's agent has put back since its start, by its metrics.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn repairs(&self, name: &str, table: &str) -> Result<u64> {
        let metrics = self.metrics(name)?.body;
        let line = format!("weft_repairs_total{{table=\"{table}\"}} ");
        Ok(metrics.lines().find_map(|found| found.strip_prefix(&line)?.parse().ok()).unwrap_or(0))
    }

    /// The lines in which a node's agent tells of repairs.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn told_repairs(&self, name: &str) -> Result<Vec<String>> {
        Ok(self.log(name)?.lines().filter(|line| line.contains("repaired")).map(str::to_owned).collect())
    }
}
