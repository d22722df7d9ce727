//! Tables for people, JSON for programs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::Result;
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use serde::Serialize;
use serde_json::{Value, json};
use weft_tests::kube::{Port, Service};
use weft_tests::lab::{Balance, LabView, Matrix, NodeView, Pair};
use weft_tests::probe::Outcome;

use crate::Output;

/// Up to so many pods each pair has a cell; above, nodes are summed up.
const MOST_PODS: usize = 12;
/// Up to so many nodes each pair of nodes has a cell; above, each node has a line.
const MOST_NODES: usize = 12;

/// The nodes, what they have, and how they are.
pub(crate) fn lab(view: &LabView, output: Output) -> Result<()> {
    if output == Output::Json {
        return json(view);
    }
    let mut table = table(&["node", "subnet", "VTEP", "pods", "agent"]);
    for node in &view.nodes {
        let vteps: Vec<String> = node.vteps.iter().map(|vtep| format!("{} {}", vtep.ip, vtep.mac)).collect();
        let pods: Vec<String> =
            node.pods.iter().map(|pod| pod.ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")).collect();
        table.add_row([node.name.clone(), node.subnets.join("\n"), vteps.join("\n"), pods.join("\n"), health(node)]);
    }
    println!("{table}");
    Ok(())
}

fn health(node: &NodeView) -> String {
    let agent = match (&node.agent, &node.ready) {
        (None, _) => "not running".to_owned(),
        (Some(_), Ok(())) if node.flannel => "ready (flannel)".to_owned(),
        (Some(_), Ok(())) => "ready".to_owned(),
        (Some(_), Err(reason)) => reason.lines().next().unwrap_or("not ready").to_owned(),
    };
    if node.cut { format!("{agent}, cut off") } else { agent }
}

/// Who reaches whom, and how fast.
pub(crate) fn matrix(matrix: &Matrix) {
    let pods = names(matrix, |pair| &pair.from);
    let nodes = names(matrix, |pair| &pair.from_node);
    println!(
        "{}",
        match (pods.len(), nodes.len()) {
            (..=MOST_PODS, _) => grid(&pods, matrix, |pair| (&pair.from, &pair.to)),
            (_, ..=MOST_NODES) => grid(&nodes, matrix, |pair| (&pair.from_node, &pair.to_node)),
            _ => lines(&nodes, matrix),
        }
    );
}

/// How a Service is spread: how often each pod answered, or the pods of each node if there are many.
pub(crate) fn balance(balance: &Balance, view: &LabView) {
    let node_of = |pod: &str| pod.rsplit_once('-').map_or(pod, |(node, _)| node).to_owned();
    let by_pod = balance.pods.len() <= MOST_PODS;
    let heads: Vec<String> =
        if by_pod { balance.pods.clone() } else { view.nodes.iter().map(|n| n.name.clone()).collect() };
    let title = format!("Service {}", balance.service);
    let mut table =
        table(&[&[title.as_str(), "from"], &heads.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat());
    for way in &balance.ways {
        let count = |head: &String| -> usize {
            let answered = way.outcome.by.iter().filter(|(pod, _)| *pod == head || !by_pod && node_of(pod) == *head);
            answered.map(|(_, tally)| tally.count).sum()
        };
        let cells = heads.iter().map(|head| count(head).to_string());
        table.add_row([way.to.clone(), way.from.clone()].into_iter().chain(cells));
    }
    println!("{table}");
}

/// Services, each with its slices.
pub(crate) fn services(services: &[Service], slices: &[Vec<Value>], output: Output) -> Result<()> {
    if output == Output::Json {
        let objects =
            services.iter().zip(slices).map(|(service, slices)| json!({"service": service.json(), "slices": slices}));
        return json(&objects.collect::<Vec<_>>());
    }
    let mut table = table(&["Service", "type", "cluster IP", "external", "ports", "endpoints"]);
    let list = |ips: Vec<IpAddr>| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    for (service, slices) in services.iter().zip(slices) {
        let ports: Vec<String> = service.ports().iter().map(port).collect();
        let endpoints: usize = slices.iter().filter_map(|slice| Some(slice["endpoints"].as_array()?.len())).sum();
        table.add_row([
            format!("{}/{}", service.namespace(), service.name()),
            service.type_name().to_owned(),
            list(service.cluster_ips()),
            list(service.outer_ips()),
            ports.join("\n"),
            endpoints.to_string(),
        ]);
    }
    println!("{table}");
    Ok(())
}

fn port(port: &Port) -> String {
    let node_port = port.node_port.map(|number| format!(", node port {number}")).unwrap_or_default();
    format!("{}/{} to {}{node_port}", port.port, port.transport.name(), port.target)
}

/// Who answered, and whom he saw.
pub(crate) fn outcome(outcome: &Outcome, output: Output) -> Result<()> {
    if output == Output::Json {
        return json(outcome);
    }
    let mut table = table(&["answer", "times", "client as seen there"]);
    for (pod, tally) in &outcome.by {
        let sources: Vec<String> = tally.sources.iter().map(ToString::to_string).collect();
        table.add_row([pod.clone(), tally.count.to_string(), sources.join("\n")]);
    }
    for (what, times) in [("refused", outcome.refused), ("no answer", outcome.timed_out), ("broken off", outcome.reset)]
    {
        if times > 0 {
            table.add_row([what.to_owned(), times.to_string(), String::new()]);
        }
    }
    for reason in outcome.failed.iter().collect::<BTreeSet<_>>() {
        let times = outcome.failed.iter().filter(|failed| *failed == reason).count();
        table.add_row([reason.clone(), times.to_string(), String::new()]);
    }
    println!("{table}");
    Ok(())
}

/// JSON and a line break.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// A cell for each pair of names.
fn grid<'a>(all: &[&'a str], matrix: &'a Matrix, of: impl Fn(&'a Pair) -> (&'a String, &'a String)) -> Table {
    let mut cells: BTreeMap<(&str, &str), Vec<&Pair>> = BTreeMap::new();
    for pair in &matrix.pairs {
        let (from, to) = of(pair);
        cells.entry((from, to)).or_default().push(pair);
    }
    let mut table = table(&["RTT in ms"].iter().chain(all).copied().collect::<Vec<_>>());
    for from in all {
        let row = all.iter().map(|to| cells.get(&(*from, *to)).map_or_else(|| "-".to_owned(), |pairs| cell(pairs)));
        table.add_row(std::iter::once((*from).to_owned()).chain(row));
    }
    table
}

/// A line for each node.
fn lines(nodes: &[&str], matrix: &Matrix) -> Table {
    let mut table = table(&["from", "reachable", "RTT in ms: least", "median", "most"]);
    for node in nodes {
        let pairs: Vec<&Pair> = matrix.pairs.iter().filter(|pair| pair.from_node == *node).collect();
        let times = times(&pairs);
        let reached = pairs.iter().filter(|pair| pair.reachable).count();
        let [least, median, most] = [times.first(), times.get(times.len() / 2), times.last()]
            .map(|time| time.map_or_else(|| "-".to_owned(), |us| ms(*us)));
        table.add_row([(*node).to_owned(), format!("{reached} of {}", pairs.len()), least, median, most]);
    }
    table
}

/// The median time of the pairs; how many are reachable if not all are.
fn cell(pairs: &[&Pair]) -> String {
    let reached = pairs.iter().filter(|pair| pair.reachable).count();
    let times = times(pairs);
    match times.get(times.len() / 2) {
        Some(median) if reached == pairs.len() => ms(*median),
        Some(median) => format!("{} ({reached} of {})", ms(*median), pairs.len()),
        None => "unreachable".to_owned(),
    }
}

fn times(pairs: &[&Pair]) -> Vec<u64> {
    let mut times: Vec<u64> = pairs.iter().filter_map(|pair| pair.rtt_us).collect();
    times.sort_unstable();
    times
}

/// Microseconds as milliseconds.
fn ms(us: u64) -> String {
    format!("{}.{:03}", us / 1000, us % 1000)
}

/// The names in the order of their first appearance.
fn names<'a>(matrix: &'a Matrix, of: impl Fn(&'a Pair) -> &'a String) -> Vec<&'a str> {
    let mut seen: Vec<&str> = Vec::new();
    for name in matrix.pairs.iter().map(of) {
        if !seen.contains(&name.as_str()) {
            seen.push(name);
        }
    }
    seen
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(header.iter().copied());
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(from: (&str, &str), to: (&str, &str), rtt_us: Option<u64>) -> Pair {
        Pair {
            from: from.1.into(),
            from_node: from.0.into(),
            to: to.1.into(),
            to_node: to.0.into(),
            reachable: rtt_us.is_some(),
            rtt_us,
        }
    }

    #[test]
    fn a_cell_shows_the_median_and_what_is_missing() {
        let (a, b) = (("n1", "p1"), ("n2", "p2"));
        let (fast, slow, lost) = (pair(a, b, Some(90)), pair(a, b, Some(1230)), pair(a, b, None));
        assert_eq!(cell(&[&fast]), "0.090");
        assert_eq!(cell(&[&fast, &slow, &slow]), "1.230");
        assert_eq!(cell(&[&slow, &lost]), "1.230 (1 of 2)");
        assert_eq!(cell(&[&lost]), "unreachable");
    }

    #[test]
    fn a_small_lab_has_a_cell_for_each_pair_of_pods() {
        let matrix =
            Matrix { pairs: vec![pair(("n1", "p1"), ("n2", "p2"), Some(100)), pair(("n2", "p2"), ("n1", "p1"), None)] };
        let pods = names(&matrix, |pair| &pair.from);
        assert_eq!(pods, ["p1", "p2"]);
        let text = grid(&pods, &matrix, |pair| (&pair.from, &pair.to)).to_string();
        assert!(text.contains("0.100") && text.contains("unreachable"), "{text}");
    }
}
