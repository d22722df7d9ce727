//! Durations as Go writes them: `8760h0m0s`, `1.5s` (Go, package time: ParseDuration and Duration.String); and as kubectl
//! shows them to people.

use std::time::Duration;

/// What a duration should look like, for error messages.
pub const EXPECTED: &str = "a duration such as 24h0m0s, 90m or 30s";

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// Reads a duration: numbers, each with a unit (`h`, `m`, `s`, `ms`, `us`, `ns`), one after the other; or `0`.
///
/// `None` for anything else, for negative durations, which none of kubeadm's fields has a use for, and for what is longer
/// than Go can tell (292 years).
#[must_use]
pub fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(number_end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        total = total.checked_add(nanos(number, unit_nanos(unit)?)?)?;
        rest = after;
    }
    let total = u64::try_from(total).ok().filter(|total| i64::try_from(*total).is_ok())?;
    Some(Duration::from_nanos(total))
}

fn unit_nanos(unit: &str) -> Option<u128> {
    Some(match unit {
        "ns" => 1,
        // The micro sign, and the Greek letter.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => NANOS_PER_SECOND,
        "m" => 60 * NANOS_PER_SECOND,
        "h" => 3_600 * NANOS_PER_SECOND,
        _ => return None,
    })
}

/// A number with or without a fraction, times a unit.
fn nanos(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // Digits beyond the nanosecond of an hour say nothing any more.
    let digits = fraction.get(..fraction.len().min(15))?;
    let scale = 10_u128.pow(u32::try_from(digits.len()).ok()?);
    let part: u128 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    whole.checked_mul(unit)?.checked_add(part * unit / scale)
}

/// Writes a duration as Go does.
#[must_use]
pub fn print(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    if nanos < NANOS_PER_SECOND {
        let (unit, name) = match nanos {
            0..1_000 => (1, "ns"),
            1_000..1_000_000 => (1_000, "\u{b5}s"),
            _ => (1_000_000, "ms"),
        };
        return format!("{}{name}", decimal(nanos, unit));
    }
    let (minutes, below) = (nanos / (60 * NANOS_PER_SECOND), nanos % (60 * NANOS_PER_SECOND));
    let seconds = decimal(below, NANOS_PER_SECOND);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// A fraction in decimals, without zeros at its end. `unit` is a power of ten.
fn decimal(value: u128, unit: u128) -> String {
    let width = unit.to_string().len() - 1;
    let text = format!("{}.{:0width$}", value / unit, value % unit);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// As kubectl shows how long something still holds: `23h`, `5d`, `1y`.
#[must_use]
pub fn short(left: Duration) -> String {
    let seconds = left.as_secs();
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        172_800..=63_071_999 => format!("{}d", seconds / 86_400),
        _ => format!("{}y", seconds / 31_536_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read_and_written_as_go_does() {
        for (given, written) in [
            ("0", "0s"),
            ("24h", "24h0m0s"),
            ("8760h0m0s", "8760h0m0s"),
            ("90m", "1h30m0s"),
            ("60s", "1m0s"),
            ("1.5h", "1h30m0s"),
            (".5s", "500ms"),
            ("1500us", "1.5ms"),
            ("1h0.25s", "1h0m0.25s"),
            ("1ns", "1ns"),
            ("1.5\u{b5}s", "1.5\u{b5}s"),
        ] {
            assert_eq!(parse(given).map(print).as_deref(), Some(written), "{given}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for given in ["", "+", "5", "h", ".h", "1.2.3s", "-1h", "1d", "1h 2m", "9999999999h", "1h2"] {
            assert_eq!(parse(given), None, "{given}");
        }
    }

    #[test]
    fn what_is_left_is_short() {
        let shown = [5, 300, 86_399, 864_000, 70_000_000].map(|seconds| short(Duration::from_secs(seconds)));
        assert_eq!(shown, ["5s", "5m", "23h", "10d", "2y"]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(nanos in 0..i64::MAX.unsigned_abs()) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse(&print(duration)), Some(duration));
        }

        #[test]
        fn no_text_is_too_much(text in "\\PC{0,24}") {
            let _read = parse(&text);
        }
    }
}
