//! Tables, for people and for the README.

use comfy_table::{CellAlignment, Table};

use super::report::{Program, Report};
use crate::table::{milliseconds, numbers_to_the_right, promises, table};

/// All that the report says.
pub(crate) fn tables(report: &Report) -> String {
    let Report { machine, rounds, warm_up, standing, prefix, .. } = report;
    let mut parts = vec![
        format!(
            "{machine}\n{rounds} rounds after {warm_up} to warm up, {standing} pods standing in a /{prefix}; times in ms, from start to reaped"
        ),
        latencies(report).to_string(),
        costs(report).to_string(),
        promises(&report.promises).to_string(),
        format!(
            "DEL p50, of which nothing is promised: {:.2} times the floor, {:.2} times bridge + host-local",
            report.del_over_floor, report.del_over_peer
        ),
    ];
    parts.push(match report.floor_sends_the_same {
        Some(true) => "the floor sends the requests that weft-cni sends: yes".to_owned(),
        Some(false) => format!("the floor sends the requests that weft-cni sends: NO\n{}", requests(report)),
        None => "SKIP: whether the floor sends what weft-cni sends, and all counts: there is no strace".to_owned(),
    });
    parts.join("\n\n") + "\n"
}

fn latencies(report: &Report) -> Table {
    let mut table = table(&["", "ADD min", "p50", "p90", "p99", "DEL min", "p50", "p90", "p99"]);
    for program in &report.programs {
        let figures = [program.add, program.del].into_iter().flat_map(|all| [all.min, all.p50, all.p90, all.p99]);
        table.add_row([program.name.to_owned()].into_iter().chain(figures.map(milliseconds)));
    }
    numbers_to_the_right(&mut table, 1);
    table
}

fn costs(report: &Report) -> Table {
    let mut table = table(&[
        "",
        "size, KiB",
        "peak RSS, KiB",
        "processes",
        "threads",
        "calls ADD",
        "calls DEL",
        "requests of an ADD",
    ]);
    for program in &report.programs {
        let bytes: u64 = program.binaries.iter().map(|binary| binary.bytes).sum();
        let mut row = vec![program.name.to_owned(), bytes.div_ceil(1024).to_string(), program.peak_kib.to_string()];
        row.extend(traced(program));
        table.add_row(row);
    }
    numbers_to_the_right(&mut table, 1);
    // Words, not numbers.
    if let Some(column) = table.column_mut(7) {
        column.set_cell_alignment(CellAlignment::Left);
    }
    table
}

/// Processes, threads, calls, requests.
fn traced(program: &Program) -> [String; 5] {
    let Some(traces) = &program.traces else { return ["?"; 5].map(str::to_owned) };
    let add = &traces.add;
    let [processes, threads, calls, del_calls] =
        [add.processes, add.threads, add.syscalls, traces.del.syscalls].map(|count| count.to_string());
    // More would not fit, and would not say more.
    let requests = match add.requests.len() {
        0..=8 => add.requests_in_words(),
        many => many.to_string(),
    };
    [processes, threads, calls, del_calls, requests]
}

/// All requests of all programs, to see where the floor differs.
fn requests(report: &Report) -> String {
    let line = |program: &Program| {
        let traces = program.traces.as_ref()?;
        let (add, del) = (&traces.add.requests, &traces.del.requests);
        Some(format!("{}\n  ADD {add:?}\n  DEL {del:?}", program.name))
    };
    report.programs.iter().filter_map(line).collect::<Vec<_>>().join("\n")
}
