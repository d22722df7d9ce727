//! Points in time as the Kubernetes API writes them (RFC 3339).

use std::time::{Duration, SystemTime};

const DAY: u64 = 24 * 60 * 60;

/// Reads such as `2026-01-31T12:00:00.123456Z` or `2026-01-31T13:00:00+01:00`; nothing before 1970.
pub(in crate::cluster) fn rfc3339(text: &str) -> Option<SystemTime> {
    let fixed = text.get(..19)?.as_bytes();
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if separators.iter().any(|(at, separator)| fixed[*at] != *separator) {
        return None;
    }
    let [year, month, day] = [(0, 4), (5, 7), (8, 10)].map(|(from, to)| number(text.get(from..to)));
    let [hour, minute, second] = [(11, 13), (14, 16), (17, 19)].map(|(from, to)| number(text.get(from..to)));
    let days = days_since_1970(year?, month?, day?)?;
    let (hour, minute, second) = (hour?, minute?, second?);
    // A leap second is written as 60.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (nanoseconds, zone) = fraction(text.get(19..)?)?;
    let local = days * DAY + hour * 3600 + minute * 60 + second;
    let utc = local.checked_add_signed(-offset(zone)?)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(utc, nanoseconds))
}

fn number(text: Option<&str>) -> Option<u64> {
    text.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()
}

/// Days from 1970-01-01 in the Gregorian calendar.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let february = if is_leap(year) { 29 } else { 28 };
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let month = usize::try_from(month.checked_sub(1)?).ok()?;
    if year < 1970 || day == 0 || day > *lengths.get(month)? {
        return None;
    }
    let years: u64 = (1970..year).map(|year| if is_leap(year) { 366 } else { 365 }).sum();
    Some(years + lengths.iter().take(month).sum::<u64>() + day - 1)
}

/// Nanoseconds of `.123` if it stands there, and what follows; digits beyond the ninth count for nothing.
fn fraction(text: &str) -> Option<(u32, &str)> {
    let Some(rest) = text.strip_prefix('.') else { return Some((0, text)) };
    let end = rest.find(|c: char| !c.is_ascii_digit())?;
    let (digits, zone) = rest.split_at(end);
    if digits.is_empty() {
        return None;
    }
    let nanoseconds =
        digits.bytes().chain(std::iter::repeat(b'0')).take(9).fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    Some((nanoseconds, zone))
}

/// Seconds that local time is ahead of UTC.
fn offset(zone: &str) -> Option<i64> {
    if zone == "Z" {
        return Some(0);
    }
    let sign = if zone.starts_with('+') { 1 } else { -1 };
    let (hours, minutes) = zone.strip_prefix(['+', '-'])?.split_once(':')?;
    let seconds = number(Some(hours))?.checked_mul(3600)?.checked_add(number(Some(minutes))?.checked_mul(60)?)?;
    Some(sign * i64::try_from(seconds).ok().filter(|seconds| *seconds < 86_400)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_the_api_writes() {
        let at = |seconds, nanoseconds| Some(SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds));
        assert_eq!(rfc3339("1970-01-01T00:00:00Z"), at(0, 0));
        assert_eq!(rfc3339("2000-02-29T00:00:00Z"), at(951_782_400, 0));
        assert_eq!(rfc3339("2026-01-31T12:34:56.5Z"), at(1_769_862_896, 500_000_000));
        assert_eq!(rfc3339("2026-01-31T13:34:56.000000001+01:00"), at(1_769_862_896, 1));
        for text in [
            "",
            "2026-01-31",
            "2026-13-31T12:34:56Z",
            "2026-02-29T12:34:56Z",
            "2026-01-31T12:34:56",
            "1969-01-01T00:00:00Z",
        ] {
            assert_eq!(rfc3339(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "[0-9TZ:+.-]{0,30}|\\PC*", date in "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.Z+-]{8,20}") {
            let _ = (rfc3339(&text), rfc3339(&date));
        }
    }
}
