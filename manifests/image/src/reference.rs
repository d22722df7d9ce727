//! The image's name: `REPOSITORY/weft:VERSION`.

use std::fmt;
use std::str::FromStr;

use anyhow::{Error, ensure};

/// A repository's prefix, complete with the registry's host: `localhost`, `registry.example:5000/net`.
///
/// Without a host every runtime would fill in its own, and the name would lead to somebody else's image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository(String);

impl FromStr for Repository {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let host = text.split('/').next().unwrap_or_default();
        ensure!(
            host == "localhost" || host.contains(['.', ':']),
            "the repository {text:?} names no host; expected one such as localhost or registry.example/net"
        );
        let is_plain = |part: &str| {
            let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
            part.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()) && part.chars().all(inner)
        };
        let (name, port) = host.split_once(':').unwrap_or((host, "0"));
        ensure!(
            is_plain(name) && port.parse::<u16>().is_ok() && text.split('/').skip(1).all(is_plain),
            "the repository is {text:?}; expected lower-case letters, digits, '.', '_' and '-' between slashes"
        );
        Ok(Self(text.to_owned()))
    }
}

/// An image's full name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Where it is kept.
    pub repository: Repository,
    /// Its tag, weft's version.
    pub tag: String,
}

impl fmt::Display for Reference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/weft:{}", self.repository.0, self.tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_complete_names() {
        for good in ["localhost", "localhost:5000", "registry.example", "registry.example:5000/net/weft-ci"] {
            let reference = Reference { repository: good.parse().unwrap(), tag: "0.1.0".into() };
            assert_eq!(reference.to_string(), format!("{good}/weft:0.1.0"));
        }
        for bad in ["", "net", "library/net", "registry.example/", "registry.example/Net", "a.b:x", "a.b/c:d", "a.b/ c"]
        {
            assert!(bad.parse::<Repository>().is_err(), "{bad}");
        }
    }
}
