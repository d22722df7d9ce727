//! Which API servers there are, as files: one `host:port` a line.
//!
//! `start` is what the node was told when it joined, `known` what the cluster said last. Both are read at each start, so that
//! a node finds its cluster after a reboot though the server that it joined by is gone.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::str::FromStr;

use weft_cni::formats::files::{Durability, write_atomically};

/// Name of the list that init and join write.
pub const START: &str = "start";
/// Name of the list that the balancer writes.
pub const KNOWN: &str = "known";
/// Addresses of API servers are no secret.
pub const MODE: u32 = 0o644;
/// More servers than any cluster has: a damaged file must not make more work than that.
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

/// The list of that name in a directory; empty if there is none. Lines that name no server are passed over: a damaged line
/// must not cost the others.
///
/// # Errors
/// A file that is there and cannot be read.
pub fn read(directory: &Path, name: &str) -> io::Result<Vec<Place>> {
    let text = match fs::read(directory.join(name)) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut places: Vec<Place> = Vec::new();
    for place in text.lines().filter_map(|line| line.parse().ok()) {
        if places.len() < MOST && !places.contains(&place) {
            places.push(place);
        }
    }
    Ok(places)
}

/// A list as its file holds it.
#[must_use]
pub fn text(places: &[Place]) -> String {
    places.iter().map(|place| format!("{place}\n")).collect()
}

/// Puts what the cluster has said into the list [`KNOWN`], in one step that survives a power failure.
///
/// # Errors
/// Whatever the file system says.
pub fn write_known(directory: &Path, places: &[Place]) -> io::Result<()> {
    write_atomically(&directory.join(KNOWN), text(places).as_bytes(), MODE, Durability::Durable)
}

#[cfg(test)]
mod tests {
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
    fn a_list_survives_lines_that_are_none() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read(directory.path(), KNOWN).unwrap(), []);
        let places: Vec<Place> = ["192.0.2.1:6443", "[2001:db8::1]:6443"].map(|text| text.parse().unwrap()).to_vec();
        write_known(directory.path(), &places).unwrap();
        assert_eq!(read(directory.path(), KNOWN).unwrap(), places);
        let damaged = format!("# by hand\n{}\u{0}\u{fffd}:::\n192.0.2.1:6443\n", text(&places));
        fs::write(directory.path().join(KNOWN), damaged).unwrap();
        assert_eq!(read(directory.path(), KNOWN).unwrap(), places, "each once");
        assert!(read(Path::new("/dev/null"), KNOWN).is_err());
    }
}
