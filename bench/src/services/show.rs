//! Tables, for people and for the README.

use std::time::Duration;

use comfy_table::Table;

use super::report::{Figures, Report};
use crate::table::{numbers_to_the_right, or_dash, promises, seconds, table};

/// All that the report says.
pub(crate) fn tables(report: &Report) -> String {
    let Report { machine, mode, rounds, seed, sources, remark, .. } = report;
    let mut parts = vec![
        format!(
            "{machine}\n{}, {rounds} rounds, interleaved, seed {seed}; median (shortest to longest)\n{sources}",
            mode.name()
        ),
        starts(&report.results).to_string(),
        changes(&report.results).to_string(),
        promises(&report.promises).to_string(),
    ];
    if !remark.is_empty() {
        parts.insert(0, (*remark).to_owned());
    }
    parts.join("\n\n") + "\n"
}

fn starts(results: &[Figures]) -> Table {
    let mut table = table(&[
        "services x endpoints",
        "",
        "cold, s",
        "own time, s",
        "processor, s",
        "restart, s",
        "transactions",
        "all changed, s",
        "lost",
    ]);
    for figures in results {
        let lost = figures.flow.map(|flow| format!("{} of {}", flow.lost + flow.fresh_lost, flow.sent + flow.fresh));
        table.add_row([
            figures.shape.to_string(),
            figures.name.to_owned(),
            seconds(figures.cold),
            seconds(figures.own),
            seconds(figures.cpu),
            seconds(figures.restart),
            or_dash(figures.restart_transactions),
            seconds(figures.resync),
            or_dash(lost),
        ]);
    }
    numbers_to_the_right(&mut table, 2);
    table
}

fn changes(results: &[Figures]) -> Table {
    let mut table = table(&[
        "services x endpoints",
        "",
        "change p50, ms",
        "p99",
        "max",
        "changes",
        "messages",
        "RSS, MiB",
        "peak, MiB",
    ]);
    for figures in results {
        let time = |pick: fn(&crate::stats::Latency) -> Duration| {
            or_dash(figures.change.as_ref().map(|change| format!("{:.2}", pick(change).as_secs_f64() * 1000.0)))
        };
        table.add_row([
            figures.shape.to_string(),
            figures.name.to_owned(),
            time(|change| change.p50),
            time(|change| change.p99),
            time(|change| change.max),
            figures.changes.to_string(),
            or_dash(figures.messages),
            or_dash(figures.rss_kib.map(|kib| kib.div_ceil(1024))),
            or_dash(figures.peak_kib.map(|kib| kib.div_ceil(1024))),
        ]);
    }
    numbers_to_the_right(&mut table, 2);
    table
}
