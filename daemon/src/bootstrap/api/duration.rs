//! Durations as Go writes and reads them (`time.ParseDuration`): `24h0m0s`, `90m`, `0`.

use std::time::Duration;

/// Reads one. Fractions and signs, which nobody gives for how long something holds, are not understood.
///
/// # Errors
/// What was expected, with the text.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration; expected one such as 24h, 1h30m or 0");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let unit = rest.find(|letter: char| letter.is_ascii_digit()).unwrap_or(rest.len());
        let part = match &rest[..unit] {
            "h" => number.checked_mul(3600).map(Duration::from_secs),
            "m" => number.checked_mul(60).map(Duration::from_secs),
            "s" => Some(Duration::from_secs(number)),
            "ms" => Some(Duration::from_millis(number)),
            _ => None,
        };
        total = part.and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
        rest = &rest[unit..];
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
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

    #[test]
    fn goes_durations_are_read() {
        for (text, seconds) in [("24h0m0s", 86_400), ("2h", 7200), ("1h30m", 5400), ("5s", 5), ("0", 0), ("0s", 0)] {
            assert_eq!(parse(text).unwrap(), Duration::from_secs(seconds), "{text}");
        }
        assert_eq!(parse("1500ms").unwrap(), Duration::from_millis(1500));
        for wrong in ["", "h", "5", "-1h", "1.5h", "1d", "99999999999999999999h", "18446744073709551615h", "1hé"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_left_is_short() {
        let shown = [5, 300, 86_399, 864_000, 70_000_000].map(|seconds| short(Duration::from_secs(seconds)));
        assert_eq!(shown, ["5s", "5m", "23h", "10d", "2y"]);
    }
}
