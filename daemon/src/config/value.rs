//! From text to typed values. The file, the environment and the command line all give text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

use crate::cluster::kube::Annotations;
use crate::cluster::layout::Layout;
use crate::cluster::node::NodeName;

/// A value that is one piece of text.
pub(super) trait Scalar: Sized {
    /// What is right, for error messages.
    const EXPECTED: &'static str;

    /// Whether a flag may stand alone, meaning `true`.
    const IS_SWITCH: bool = false;

    /// Reads the text.
    fn read(text: &str) -> Option<Self>;
}

/// A value of a key: one scalar, none or one, or a list.
pub(super) trait Value: Sized {
    /// What is right, for error messages.
    const EXPECTED: &'static str;

    /// Whether the key takes a list: a repeatable flag, commas, a YAML sequence.
    const IS_LIST: bool;

    /// Whether a flag may stand alone, meaning `true`.
    const IS_SWITCH: bool;

    /// Reads the texts; a list may be empty, for anything else exactly one text counts, and empty text is no value.
    fn read(texts: &[String]) -> Option<Self>;
}

impl<T: Scalar> Value for T {
    const EXPECTED: &'static str = T::EXPECTED;
    const IS_LIST: bool = false;
    const IS_SWITCH: bool = T::IS_SWITCH;

    fn read(texts: &[String]) -> Option<Self> {
        match texts {
            [text] => T::read(text),
            _ => None,
        }
    }
}

impl<T: Scalar> Value for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;
    const IS_LIST: bool = false;
    const IS_SWITCH: bool = T::IS_SWITCH;

    fn read(texts: &[String]) -> Option<Self> {
        match texts {
            [] => Some(None),
            [text] if text.is_empty() => Some(None),
            [text] => T::read(text).map(Some),
            _ => None,
        }
    }
}

impl<T: Scalar> Value for Vec<T> {
    const EXPECTED: &'static str = T::EXPECTED;
    const IS_LIST: bool = true;
    const IS_SWITCH: bool = false;

    fn read(texts: &[String]) -> Option<Self> {
        let items = texts.iter().flat_map(|text| text.split(',')).map(str::trim).filter(|item| !item.is_empty());
        items.map(T::read).collect()
    }
}

macro_rules! scalars {
    ($($type:ty: $expected:literal;)*) => {
        $(impl Scalar for $type {
            const EXPECTED: &'static str = $expected;

            fn read(text: &str) -> Option<Self> {
                text.parse().ok()
            }
        })*
    };
}

scalars! {
    u8: "a number from 0 to 255";
    u16: "a number from 0 to 65535";
    u32: "a number from 0 to 4294967295";
    IpAddr: "an IP address";
    Ipv4Addr: "an IPv4 address such as 192.0.2.1";
    Ipv6Addr: "an IPv6 address such as 2001:db8::1";
    SocketAddr: "an address and a port such as 0.0.0.0:8081 or [::]:8081";
    NodeName: "1 to 253 characters without spaces or slashes, such as node-1.example.org";
    Annotations: "a domain in lower case, and a word after a slash if wanted, such as flannel.alpha.coreos.com";
    Layout: "an absolute path such as /coreos.com/network";
}

/// In all the spellings that Go takes, in which flannel's users have written it.
impl Scalar for bool {
    const EXPECTED: &'static str = "true or false";
    const IS_SWITCH: bool = true;

    fn read(text: &str) -> Option<Self> {
        match text {
            "true" | "True" | "TRUE" | "t" | "T" | "1" => Some(true),
            "false" | "False" | "FALSE" | "f" | "F" | "0" => Some(false),
            _ => None,
        }
    }
}

impl Scalar for String {
    const EXPECTED: &'static str = "some text";

    fn read(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| text.to_owned())
    }
}

impl Scalar for PathBuf {
    const EXPECTED: &'static str = "a path";

    fn read(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self::from(text))
    }
}

impl Scalar for Ipv4Network {
    const EXPECTED: &'static str = "an IPv4 network such as 10.244.0.0/16";

    fn read(text: &str) -> Option<Self> {
        text.contains('/').then(|| text.parse().ok()).flatten()
    }
}

impl Scalar for Ipv6Network {
    const EXPECTED: &'static str = "an IPv6 network such as 2001:db8:42::/56";

    fn read(text: &str) -> Option<Self> {
        text.contains('/').then(|| text.parse().ok()).flatten()
    }
}

/// Bits of the address beyond the prefix are dropped, as everybody who writes networks for Services does.
impl Scalar for IpNetwork {
    const EXPECTED: &'static str = "networks such as 10.96.0.0/12 or fd00:10:96::/108";

    fn read(text: &str) -> Option<Self> {
        let network: Self = text.contains('/').then(|| text.parse().ok()).flatten()?;
        Self::new(network.network(), network.prefix()).ok()
    }
}

impl Scalar for Duration {
    const EXPECTED: &'static str = "a time with its unit, such as 500ms, 10s, 2m or 24h";

    fn read(text: &str) -> Option<Self> {
        let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = text.split_at_checked(unit_at)?;
        let number: u64 = number.parse().ok()?;
        let time = match unit {
            "ms" => Self::from_millis(number),
            "s" => Self::from_secs(number),
            "m" => Self::from_secs(number.checked_mul(60)?),
            "h" => Self::from_secs(number.checked_mul(3600)?),
            _ => return None,
        };
        (!time.is_zero()).then_some(time)
    }
}

/// Reads a time with its unit, as the keys of the configuration take it, for an argument of a command.
///
/// # Errors
/// What would be right.
pub fn time(text: &str) -> Result<Duration, String> {
    <Duration as Scalar>::read(text).ok_or_else(|| format!("expected {}", <Duration as Scalar>::EXPECTED))
}

/// The URL of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(pub String);

impl Scalar for Endpoint {
    const EXPECTED: &'static str = "URLs such as http://127.0.0.1:2379, separated by commas";

    fn read(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"))?;
        let host = rest.strip_suffix('/').unwrap_or(rest);
        (!host.is_empty() && !host.contains(['/', ' '])).then(|| Self(text.trim_end_matches('/').to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_need_a_unit() {
        assert_eq!(<Duration as Scalar>::read("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(<Duration as Scalar>::read("2m"), Some(Duration::from_secs(120)));
        assert_eq!(<Duration as Scalar>::read("24h"), Some(Duration::from_secs(86_400)));
        for text in ["", "10", "s", "0s", "1d", "-1s", "1.5s", "99999999999999999999s", "9999999999999999999m"] {
            assert_eq!(<Duration as Scalar>::read(text), None, "{text}");
        }
    }

    #[test]
    fn lists_come_apart_at_commas_and_may_be_empty() {
        let read =
            |texts: &[&str]| <Vec<u8> as Value>::read(&texts.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(read(&["1,2", " 3 "]), Some(vec![1, 2, 3]));
        assert_eq!(read(&[""]), Some(vec![]));
        assert_eq!(read(&["1,x"]), None);
    }

    #[test]
    fn networks_of_both_families_lose_what_is_beyond_their_prefix() {
        let read = |text| <IpNetwork as Scalar>::read(text).map(|network| network.to_string());
        assert_eq!(read("10.96.0.1/12").as_deref(), Some("10.96.0.0/12"));
        assert_eq!(read("fd00::1/108").as_deref(), Some("fd00::/108"));
        for text in ["", "10.96.0.0", "10.96.0.0/33", "::/129", "10.96.0.0/12/1"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn endpoints_are_urls_without_a_path() {
        let read = |text| <Endpoint as Scalar>::read(text).map(|endpoint| endpoint.0);
        assert_eq!(read("http://127.0.0.1:2379/").as_deref(), Some("http://127.0.0.1:2379"));
        for text in ["127.0.0.1:2379", "ftp://x", "http://", "http://a/b", "https://a b"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
