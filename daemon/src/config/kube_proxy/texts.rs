//! Forms of kube-proxy's values: from JSON to the text that a key of weft's takes.

use std::net::{IpAddr, SocketAddr};

use ipnetwork::IpNetwork;
use serde_json::Value;

/// The texts of a value, `None` if it stands for "not given", or what was expected instead.
pub(super) type Texts = Result<Option<Vec<String>>, &'static str>;

/// How a value is read.
pub(super) type Form = fn(&Value) -> Texts;

fn one(text: impl Into<String>) -> Texts {
    Ok(Some(vec![text.into()]))
}

/// Whatever it is.
pub(super) fn anything(value: &Value) -> Texts {
    one(super::shown(value))
}

pub(super) fn text(value: &Value) -> Texts {
    value.as_str().map_or(Err("some text"), one)
}

/// kube-proxy takes a host name for a node's name as DNS does: without spaces around it, and in small letters.
pub(super) fn node_name(value: &Value) -> Texts {
    value.as_str().map_or(Err("some text"), |name| one(name.trim().to_lowercase()))
}

pub(super) fn switch(value: &Value) -> Texts {
    value.as_bool().map_or(Err("true or false"), |on| one(on.to_string()))
}

fn number_in(value: &Value, low: i64, high: i64) -> Option<Texts> {
    let number = value.as_i64().filter(|number| (low..=high).contains(number))?;
    Some(one(number.to_string()))
}

pub(super) fn count(value: &Value) -> Texts {
    number_in(value, 0, i32::MAX.into()).unwrap_or(Err("a number from 0 to 2147483647"))
}

pub(super) fn bit(value: &Value) -> Texts {
    number_in(value, 0, 31).unwrap_or(Err("a number from 0 to 31"))
}

pub(super) fn oom_score(value: &Value) -> Texts {
    number_in(value, -1000, 1000).unwrap_or(Err("a number from -1000 to 1000"))
}

/// One of kube-proxy's modes on Linux, as the key `proxy-mode` has it.
pub(super) fn mode(value: &Value) -> Texts {
    match value.as_str() {
        Some(mode @ ("iptables" | "ipvs" | "nftables")) => one(mode),
        _ => Err("one of: ipvs, nftables, iptables (which weft takes for auto)"),
    }
}

pub(super) fn detect_mode(value: &Value) -> Texts {
    match value.as_str() {
        Some(mode @ ("ClusterCIDR" | "NodeCIDR" | "BridgeInterface" | "InterfaceNamePrefix")) => one(mode),
        _ => Err("one of: ClusterCIDR, NodeCIDR, BridgeInterface, InterfaceNamePrefix"),
    }
}

pub(super) fn address(value: &Value) -> Texts {
    let address = value.as_str().filter(|text| text.parse::<IpAddr>().is_ok());
    address.map_or(Err("an IP address such as 0.0.0.0 or ::"), one)
}

pub(super) fn address_and_port(value: &Value) -> Texts {
    let is_good = |text: &&str| text.parse::<SocketAddr>().is_ok_and(|address| address.port() != 0);
    value.as_str().filter(is_good).map_or(Err("an address and a port such as 0.0.0.0:10256 or [::]:10256"), one)
}

fn is_network(text: &str) -> bool {
    text.contains('/') && text.parse::<IpNetwork>().is_ok()
}

fn list(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
}

/// A YAML list of networks.
pub(super) fn networks(value: &Value) -> Texts {
    let items = list(value).filter(|items| items.iter().all(|item| is_network(item)));
    items.map(Some).ok_or("a list of networks such as 10.0.0.0/8")
}

/// One network, or one of each family with a comma between them.
pub(super) fn network_or_pair(value: &Value) -> Texts {
    let is_v4 = |network: &&str| network.contains('.');
    let is_pair = |text: &&str| {
        let items: Vec<&str> = text.split(',').map(str::trim).collect();
        let both = items.len() == 2 && items.iter().filter(|item| is_v4(item)).count() == 1;
        items.iter().all(|item| is_network(item)) && (items.len() == 1 || both)
    };
    value.as_str().filter(is_pair).map_or(Err("a network, or one of each family with a comma between them"), one)
}

/// Networks, or the word `primary` alone.
pub(super) fn node_port_addresses(value: &Value) -> Texts {
    match list(value) {
        Some(items) if items == ["primary"] || items.iter().all(|item| is_network(item)) => Ok(Some(items)),
        _ => Err("a list of networks such as 192.0.2.0/24, or of the word primary alone"),
    }
}

const TIME: &str = "a time such as 30s, 15m or 24h0m0s, not below 0";

/// A time whose 0 means 0.
pub(super) fn time(value: &Value) -> Texts {
    match value.as_str().and_then(milliseconds) {
        None => Err(TIME),
        Some(0) => one("0"),
        Some(time) if time.is_multiple_of(1000) => one(format!("{}s", time / 1000)),
        Some(time) => one(format!("{time}ms")),
    }
}

/// A time whose 0 leaves it to the proxy: what the whole configuration is written out with where nothing was asked for.
pub(super) fn time_if_any(value: &Value) -> Texts {
    time(value).map(|texts| texts.filter(|texts| texts != &["0"]))
}

/// A time as Go's `time.ParseDuration` reads it, in milliseconds, rounded up.
pub(super) fn milliseconds(text: &str) -> Option<u64> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(0);
    }
    let mut nanoseconds: u128 = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at_checked(number_end)?;
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(unit_end)?;
        nanoseconds = nanoseconds.checked_add(parts(number, unit_nanoseconds(unit)?)?)?;
        rest = tail;
    }
    let known = !text.is_empty() && text != "+";
    known.then(|| u64::try_from(nanoseconds.div_ceil(1_000_000)).ok()).flatten()
}

fn unit_nanoseconds(unit: &str) -> Option<u128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// `number` times `unit`; digits of the number beyond a nanosecond count for nothing.
fn parts(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut sum = whole.checked_mul(unit)?;
    let mut place = unit;
    for digit in fraction.chars() {
        place /= 10;
        sum = sum.checked_add(u128::from(digit.to_digit(10)?) * place)?;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_gos() {
        for (text, expected) in [
            ("24h0m0s", 86_400_000),
            ("1m30s", 90_000),
            ("1.5h", 5_400_000),
            ("0s", 0),
            ("0", 0),
            ("100ms", 100),
            ("1us", 1),
            (".5s", 500),
        ] {
            assert_eq!(milliseconds(text), Some(expected), "{text}");
        }
        for text in ["", "+", "5", "-1s", "1d", "s", ".s", "1.2.3s", "1h5"] {
            assert_eq!(milliseconds(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in "[0-9.hmsµu+-]{0,40}") {
            let _ = milliseconds(&text);
        }
    }
}
