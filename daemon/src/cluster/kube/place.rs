//! Where API servers are: as text, as a list of lines, and as EndpointSlice `default/kubernetes`, in which each API server
//! enters itself. Pure.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use http::Uri;
use serde_json::Value;

/// More servers than any cluster has: a damaged list must not make more work than that.
const MOST: usize = 64;

/// Where an API server is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// A name, or an address without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// A text that names no server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no API server; expected HOST:PORT, as in 192.0.2.10:6443 or [2001:db8::1]:6443")]
pub struct PlaceError(String);

impl FromStr for Place {
    type Err = PlaceError;

    /// Reads `host:port`, with `https://` before it or not.
    fn from_str(text: &str) -> Result<Self, PlaceError> {
        let wrong = || PlaceError(text.to_owned());
        let bare = text.trim().trim_start_matches("https://").trim_end_matches('/');
        let (host, port) = bare.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        let host = match host.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
            Some(inner) => inner.filter(|inner| inner.parse::<IpAddr>().is_ok()).ok_or_else(wrong)?,
            None => host,
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if host.is_empty() || (host.parse::<IpAddr>().is_err() && !host.chars().all(is_name)) {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(out, "[{}]:{}", self.host, self.port)
        } else {
            write!(out, "{}:{}", self.host, self.port)
        }
    }
}

impl From<SocketAddr> for Place {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

impl From<&Uri> for Place {
    /// Where a URL leads; one without a host, which no client could use, leads nowhere.
    fn from(uri: &Uri) -> Self {
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let usual = if uri.scheme_str() == Some("http") { 80 } else { 443 };
        Self { host: host.to_owned(), port: uri.port_u16().unwrap_or(usual) }
    }
}

/// The servers in a list of one `host:port` a line, each once, and how many lines name none: a damaged line must not cost the
/// others.
#[must_use]
pub fn of_lines(bytes: &[u8]) -> (Vec<Place>, usize) {
    let text = String::from_utf8_lossy(bytes);
    let mut places: Vec<Place> = Vec::new();
    let mut refused = 0;
    for line in text.lines() {
        match line.parse() {
            Ok(place) if places.len() < MOST && !places.contains(&place) => places.push(place),
            Ok(_) => {}
            Err(_) => refused += 1,
        }
    }
    (places, refused)
}

/// A list as [`of_lines`] reads it.
#[must_use]
pub fn lines<'a>(places: impl IntoIterator<Item = &'a Place>) -> String {
    places.into_iter().map(|place| format!("{place}\n")).collect()
}

/// The servers in an EndpointSlice, in a fixed order.
#[must_use]
pub fn of_slice(slice: &Value) -> Vec<Place> {
    let ports = slice["ports"].as_array().map_or(&[][..], Vec::as_slice);
    let port = ports.iter().find(|port| port["name"] == "https").or(ports.first());
    let Some(port) = port.and_then(|port| u16::try_from(port["port"].as_u64()?).ok()) else { return Vec::new() };
    let endpoints = slice["endpoints"].as_array().map_or(&[][..], Vec::as_slice);
    let serving = endpoints.iter().filter(|endpoint| endpoint["conditions"]["ready"] != false);
    let hosts = serving.filter_map(|endpoint| endpoint["addresses"].as_array()).flatten().filter_map(Value::as_str);
    let mut places: Vec<Place> = hosts.map(|host| Place { host: host.to_owned(), port }).collect();
    places.sort_unstable();
    places.dedup();
    places.truncate(MOST);
    places
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_server_is_read_in_each_form_and_written_in_one() {
        let cases = [
            ("192.0.2.10:6443", "192.0.2.10:6443"),
            ("https://192.0.2.10:6443/", "192.0.2.10:6443"),
            ("[2001:db8::1]:8443", "[2001:db8::1]:8443"),
            (" api.example:443\r", "api.example:443"),
        ];
        for (text, wanted) in cases {
            let place: Place = text.parse().unwrap();
            assert_eq!(place.to_string(), wanted, "{text}");
            assert_eq!(wanted.parse(), Ok(place), "{text}");
        }
        for text in ["", ":1", "a", "a:0", "a:70000", "a b:1", "[a]:1", "[2001:db8::1:1", "# a:b c:1"] {
            let error = text.parse::<Place>().unwrap_err().to_string();
            assert!(error.contains("192.0.2.10:6443"), "{text}");
        }
    }

    #[test]
    fn a_url_leads_to_a_place() {
        let cases = [
            ("https://192.0.2.10:6443", "192.0.2.10:6443"),
            ("https://[2001:db8::1]:6443/", "[2001:db8::1]:6443"),
            ("https://api.example/k8s/clusters/c", "api.example:443"),
            ("http://127.0.0.1/", "127.0.0.1:80"),
        ];
        for (url, wanted) in cases {
            assert_eq!(Place::from(&url.parse::<Uri>().unwrap()).to_string(), wanted, "{url}");
        }
    }

    #[test]
    fn a_list_survives_lines_that_are_none() {
        let places: Vec<Place> = ["192.0.2.1:6443", "[2001:db8::1]:6443"].map(|text| text.parse().unwrap()).to_vec();
        let good = lines(&places);
        assert_eq!(of_lines(good.as_bytes()), (places.clone(), 0));
        let damaged = [b"# by hand\n", good.as_bytes(), b"\xff\0:::\n192.0.2.1:6443\n"].concat();
        assert_eq!(of_lines(&damaged), (places, 2), "each once");
        assert_eq!(of_lines(b""), (Vec::new(), 0));
        let many: String = (0..200).map(|n| format!("192.0.2.{n}:6443\n")).collect();
        assert_eq!(of_lines(many.as_bytes()).0.len(), MOST);
    }

    #[test]
    fn each_server_enters_itself_with_its_address() {
        let slice = json!({
            "addressType": "IPv4",
            "endpoints": [
                {"addresses": ["192.0.2.11"], "conditions": {"ready": true}},
                {"addresses": ["192.0.2.10"]},
                {"addresses": ["192.0.2.12"], "conditions": {"ready": false}},
            ],
            "ports": [{"name": "other", "port": 1}, {"name": "https", "port": 6443, "protocol": "TCP"}],
        });
        let found: Vec<String> = of_slice(&slice).iter().map(Place::to_string).collect();
        assert_eq!(found, ["192.0.2.10:6443", "192.0.2.11:6443"]);
        for nothing in
            [json!({}), json!({"endpoints": [{"addresses": ["192.0.2.1"]}]}), json!({"ports": [{"port": 1}]})]
        {
            assert!(of_slice(&nothing).is_empty(), "{nothing}");
        }
    }
}
