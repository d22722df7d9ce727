//! Tables for people, JSON for programs.

use std::collections::BTreeMap;

use anyhow::Result;
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use serde::Serialize;
use weft_tests::lab::{LabView, Matrix, NodeView, Pair};

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
