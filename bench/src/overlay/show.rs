//! Tables, for people and for the README.

use std::time::Duration;

use comfy_table::Table;

use super::report::{Figures, Report};
use crate::stats::Latency;
use crate::table::{milliseconds, numbers_to_the_right, or_dash, promises, seconds, table};

/// All that the report says.
pub(crate) fn tables(report: &Report) -> String {
    let Report { machine, rounds, renewed_within, results, .. } = report;
    let parts = [
        format!("{machine}\n{rounds} rounds, interleaved; median (shortest to longest)"),
        starts(results).to_string(),
        format!("Renewed: every other node its lease, once within {renewed_within} s."),
        changes(results).to_string(),
        promises(&report.promises).to_string(),
    ];
    parts.join("\n\n") + "\n"
}

fn starts(results: &[Figures]) -> Table {
    let mut table =
        table(&["peers", "", "cold, s", "own time, s", "processor, s", "restart, s", "objects changed", "messages"]);
    for figures in results {
        table.add_row([
            figures.peers.to_string(),
            figures.name.to_owned(),
            seconds(figures.cold),
            seconds(figures.own),
            seconds(figures.cpu),
            seconds(figures.restart),
            or_dash(figures.restart_changes),
            or_dash(figures.restart_messages),
        ]);
    }
    numbers_to_the_right(&mut table, 2);
    table
}

fn changes(results: &[Figures]) -> Table {
    let mut table = table(&[
        "peers",
        "",
        "change p50, ms",
        "p99",
        "max",
        "changes",
        "messages",
        "renewed: a core, %",
        "objects changed",
        "messages",
        "RSS, MiB",
        "peak, MiB",
    ]);
    for figures in results.iter().filter(|figures| figures.cold.is_some()) {
        let time =
            |pick: fn(&Latency) -> Duration| or_dash(figures.change.as_ref().map(|change| milliseconds(pick(change))));
        table.add_row([
            figures.peers.to_string(),
            figures.name.to_owned(),
            time(|change| change.p50),
            time(|change| change.p99),
            time(|change| change.max),
            figures.changes.to_string(),
            or_dash(figures.messages),
            or_dash(figures.idle_percent.map(|percent| format!("{percent:.2}"))),
            or_dash(figures.idle_changes),
            or_dash(figures.idle_messages),
            or_dash(figures.rss_kib.map(|kib| kib.div_ceil(1024))),
            or_dash(figures.peak_kib.map(|kib| kib.div_ceil(1024))),
        ]);
    }
    numbers_to_the_right(&mut table, 2);
    table
}
