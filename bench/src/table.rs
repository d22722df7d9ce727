//! Tables as Markdown has them.

use std::time::Duration;

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};

use crate::promise::Promise;
use crate::stats::Spread;

/// An empty table.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(header);
    table
}

/// Every column but the first `words` holds numbers.
pub(crate) fn numbers_to_the_right(table: &mut Table, words: usize) {
    for column in table.column_iter_mut().skip(words) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

/// What was promised, and whether it is kept.
pub(crate) fn promises(promises: &[Promise]) -> Table {
    let mut table = table(&["promise", "measured", "at most", ""]);
    for Promise { what, value, limit, kept } in promises {
        let kept = if *kept { "kept" } else { "BROKEN" };
        table.add_row([what, &format!("{value:.2}"), &format!("{limit:.2}"), kept]);
    }
    numbers_to_the_right(&mut table, 1);
    table
}

/// With two decimals.
pub(crate) fn milliseconds(duration: Duration) -> String {
    format!("{:.2}", duration.as_secs_f64() * 1000.0)
}

/// Median, and from where to where.
pub(crate) fn seconds(spread: Option<Spread>) -> String {
    or_dash(spread.map(|Spread { median, min, max }| {
        format!("{:.2} ({:.2} to {:.2})", median.as_secs_f64(), min.as_secs_f64(), max.as_secs_f64())
    }))
}

/// A figure, if there is one.
pub(crate) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}
