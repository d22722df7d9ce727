//! Columns of text, as wide as their contents.

use std::fmt::Write as _;

use super::control_plane;
use super::judge::{Report, Row, Verdict};
use crate::serve::document::ServicesStatus;

/// Rows as lines, the cells of a column under each other.
#[must_use]
pub fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // Writing into a String cannot fail.
            let _ = write!(line, "{cell:<width$}   ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The report for a person; `wide` adds the ends of the overlay and how often agents have looked.
#[must_use]
pub fn text(report: &Report, wide: bool) -> String {
    let head = ["NODE", "READY", "SUBNETS", "ADDRESSES", "PEERS", "SERVICES", "REPAIRS", "VERSION"];
    let more: &[&str] = if wide { &["OVERLAY", "PASSES"] } else { &[] };
    let mut rows = vec![head.iter().chain(more).chain(&["STATE"]).map(|word| (*word).to_owned()).collect()];
    rows.extend(report.nodes.iter().map(|row| cells(row, wide)));
    let mut text = columns(&rows);
    let mut said = false;
    for row in &report.nodes {
        for words in row.wrong.iter().chain(&row.unknown) {
            if !said {
                text.push('\n');
            }
            said = true;
            let _ = writeln!(text, "{}: {words}", name(row));
        }
    }
    for note in &report.notes {
        let _ = writeln!(text, "note: {note}");
    }
    if let Some(plane) = &report.control_plane {
        text.push('\n');
        text.push_str(&control_plane::text(plane));
    }
    text
}

fn cells(row: &Row, wide: bool) -> Vec<String> {
    let repairs = row.repairs.as_ref().map(|repairs| {
        let kinds: Vec<String> = repairs.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        if kinds.is_empty() { "none".to_owned() } else { kinds.join(", ") }
    });
    let mut cells = vec![
        format!("{}{}", name(row), if row.own { " *" } else { "" }),
        told(row.ready.map(|ready| if ready { "yes" } else { "no" }.to_owned())),
        list(&row.subnets),
        list(&row.addresses),
        told(row.peers.map(|peers| format!("{}/{}", peers.programmed, peers.all))),
        told(row.ready.map(|_| services(row.services.as_ref()))),
        told(repairs),
        told(row.version.clone()),
    ];
    if wide {
        cells.push(told(row.overlay.clone()));
        cells.push(told(row.revision.map(|revision| revision.to_string())));
    }
    let state = match (row.verdict, row.ready) {
        (Verdict::Wrong, _) => "wrong",
        (Verdict::Unknown, _) => "unknown",
        (Verdict::Well, Some(_)) => "well",
        (Verdict::Well, None) => "-",
    };
    cells.push(state.to_owned());
    cells
}

fn services(services: Option<&ServicesStatus>) -> String {
    services.map_or_else(
        || "none".to_owned(),
        |services| format!("{} {} @{}", services.mode, services.count, services.revision),
    )
}

fn name(row: &Row) -> String {
    row.node.clone().unwrap_or_else(|| "(unnamed)".to_owned())
}

fn told(cell: Option<String>) -> String {
    cell.filter(|cell| !cell.is_empty()).unwrap_or_else(|| "-".to_owned())
}

fn list<T: ToString>(values: &[T]) -> String {
    told(Some(values.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::document::NodeStatus;
    use crate::status::judge::{judge, seen_by};

    #[test]
    fn columns_are_as_wide_as_their_contents() {
        let rows = [vec!["a".to_owned(), "bb".to_owned()], vec!["ccc".to_owned(), "d".to_owned()]];
        assert_eq!(columns(&rows), "a     bb\nccc   d\n");
    }

    #[test]
    fn what_is_wrong_stands_under_the_table() {
        let status = NodeStatus { node: "n1".into(), version: "1.0.0".into(), ..NodeStatus::default() };
        let text = text(&judge(&seen_by(&status)), true);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("NODE") && lines[0].contains("OVERLAY"), "{text}");
        assert!(lines[1].starts_with("n1 *   no") && lines[1].ends_with("wrong"), "{text}");
        assert!(text.contains("\n\nn1: the agent's loop hangs"), "{text}");
    }
}
