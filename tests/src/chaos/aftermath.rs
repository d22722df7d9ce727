//! What is not as it should be once everything is whole again.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use serde_json::Value;

use crate::lab::{Lab, LabView, NodeView};

/// Compares the kernel of each node with what the other nodes are: a route, a neighbour and a forwarding entry for each, and
/// nothing for anybody who is not there. Says what differs, by node.
///
/// # Errors
/// When a tool refuses.
pub fn aftermath(lab: &Lab) -> Result<Vec<String>> {
    let view = lab.view();
    let mut found = Vec::new();
    for node in &view.nodes {
        let wanted = expected(&view, node);
        for ((what, wanted), now) in wanted.iter().zip(actual(node)?.values()) {
            for lost in wanted.difference(now) {
                found.push(format!("{}: {what} of {lost} is missing", node.name));
            }
            for stale in now.difference(wanted) {
                found.push(format!("{}: {what} of {stale} is nobody's", node.name));
            }
        }
    }
    Ok(found)
}

type Objects = BTreeMap<&'static str, BTreeSet<String>>;

fn expected(view: &LabView, node: &NodeView) -> Objects {
    let others = || view.nodes.iter().filter(|other| other.name != node.name);
    let subnets = || others().flat_map(|other| other.subnets.clone());
    BTreeMap::from([
        (
            "forwarding entry",
            others().flat_map(|other| &other.vteps).map(|vtep| format!("{} {}", vtep.mac, vtep.ip)).collect(),
        ),
        ("neighbour", subnets().filter_map(|subnet| Some(subnet.split_once('/')?.0.to_owned())).collect()),
        ("route", subnets().collect()),
    ])
}

fn actual(node: &NodeView) -> Result<Objects> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut objects = Objects::from([
        ("forwarding entry", BTreeSet::new()),
        ("neighbour", BTreeSet::new()),
        ("route", BTreeSet::new()),
    ]);
    let mut add = |what, found: String| objects.entry(what).or_default().insert(found);
    for vtep in &node.vteps {
        for entry in node.netns.objects("bridge", &["fdb", "show", "dev", &vtep.device])? {
            if entry["dst"].is_string() {
                add("forwarding entry", format!("{} {}", text(&entry["mac"]), text(&entry["dst"])));
            }
        }
        let family = if vtep.ip.contains(':') { "-6" } else { "-4" };
        for neighbour in
            node.netns.objects("ip", &[family, "neigh", "show", "dev", &vtep.device, "nud", "permanent"])?
        {
            add("neighbour", text(&neighbour["dst"]));
        }
        for route in node.netns.objects("ip", &[family, "route", "show", "dev", &vtep.device, "proto", "119"])? {
            add("route", text(&route["dst"]));
        }
    }
    Ok(objects)
}
