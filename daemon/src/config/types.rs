//! Kinds of values that only the configuration has.

use std::fmt;
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::value::{Scalar, Value};
use crate::overlay::uplink::Pattern;

/// Where leases and Services come from (`source`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// flannel's keys in etcd.
    Etcd,
    /// The Nodes of Kubernetes, with flannel's annotations.
    Kube,
}

impl SourceKind {
    /// The word of the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Kube => "kube",
        }
    }
}

impl Scalar for SourceKind {
    const EXPECTED: &'static str = "one of: etcd, kube";

    fn read(text: &str) -> Option<Self> {
        match text {
            "etcd" => Some(Self::Etcd),
            "kube" => Some(Self::Kube),
            _ => None,
        }
    }
}

/// How log lines look (`log-format`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Scalar for LogFormat {
    const EXPECTED: &'static str = "one of: text, json";

    fn read(text: &str) -> Option<Self> {
        match text {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// Which log lines are written (`log-level`): a level, or directives such as `warn,weft::lease=debug`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// The filter as tracing takes it. The Kubernetes client logs every try that fails as an error, where weft logs that an
    /// outage began and that it is over; it is heard only if it is asked for.
    #[must_use]
    pub fn to_filter(&self) -> EnvFilter {
        let filter = EnvFilter::new(&self.0);
        match "kube_client=off".parse() {
            Ok(quiet) if !self.0.contains("kube_client") => filter.add_directive(quiet),
            _ => filter,
        }
    }
}

impl Scalar for LogFilter {
    const EXPECTED: &'static str = "error, warn, info, debug or trace, or directives such as warn,weft::lease=debug";

    fn read(text: &str) -> Option<Self> {
        // A lone word that is no level would name a target, and leave everything else unlogged.
        let is_level = |item: &str| !item.is_empty() && item.parse::<LevelFilter>().is_ok();
        let is_meant = |item: &str| item.contains(['=', '[']) || is_level(item.trim());
        (text.split(',').all(is_meant) && EnvFilter::try_new(text).is_ok()).then(|| Self(text.to_owned()))
    }
}

/// Regular expressions for interfaces (`iface-regex`). A list like others, but a comma is a part of one and parts none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patterns(pub Vec<Pattern>);

impl Value for Patterns {
    const EXPECTED: &'static str = r"regular expressions such as ^eth\d+$ or ^192\.168\.";
    const IS_LIST: bool = true;
    const IS_SWITCH: bool = false;

    fn read(texts: &[String]) -> Option<Self> {
        let given = texts.iter().filter(|text| !text.is_empty());
        given.map(|text| text.parse().ok()).collect::<Option<_>>().map(Self)
    }
}

/// How long before its end a lease is renewed (`subnet-lease-renew-margin`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RenewMargin(Duration);

impl RenewMargin {
    /// The margin as a time: more than none, less than the lease's 24 hours.
    #[must_use]
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl Scalar for RenewMargin {
    const EXPECTED: &'static str = "minutes from 1 to 1439";

    fn read(text: &str) -> Option<Self> {
        let minutes = text.parse().ok().filter(|minutes: &u64| (1..24 * 60).contains(minutes))?;
        Some(Self(Duration::from_secs(minutes * 60)))
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $expected:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(&self.0)
            }
        }

        impl Scalar for $name {
            const EXPECTED: &'static str = $expected;

            fn read(text: &str) -> Option<Self> {
                let valid: fn(&str) -> bool = $valid;
                valid(text).then(|| Self(text.to_owned()))
            }
        }
    };
}

name!(
    /// The name of a network device as the kernel allows it (`IFNAMSIZ` is 16 with the final zero).
    InterfaceName,
    "the name of a network device: 1 to 15 characters without spaces, slashes or colons",
    |text| {
        let odd = |c: char| c.is_whitespace() || c == '/' || c == ':' || c.is_control();
        (1..=15).contains(&text.len()) && text != "." && text != ".." && !text.contains(odd)
    }
);

name!(
    /// The name of a CNI network (CNI specification 1.1, section 1).
    NetworkName,
    "the name of a CNI network: letters and digits, and after the first also '.', '_' and '-'",
    |text| {
        let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(inner)
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_word_in_a_log_filter_is_a_level() {
        for good in ["info", "WARN", "off", "warn,weft::lease=debug", "weft=trace", "info,[pass{n}]=debug"] {
            assert!(<LogFilter as Scalar>::read(good).is_some(), "{good}");
        }
        for bad in ["", "loud", "weft", "warn,weft::lease", "info,", "weft=loud"] {
            assert!(<LogFilter as Scalar>::read(bad).is_none(), "{bad}");
        }
    }
}
