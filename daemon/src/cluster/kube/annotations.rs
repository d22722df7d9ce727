//! The names of flannel's annotations on Nodes, which are its interface to other nodes, and to others who take part.

use std::fmt;
use std::str::FromStr;

/// What an annotation tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// `true` on a Node that takes part.
    SubnetManager,
    /// The back end, such as `vxlan`.
    BackendType,
    /// JSON of what peers need to know, IPv4.
    BackendData,
    /// The same for IPv6.
    BackendV6Data,
    /// Where the node receives encapsulated packets, IPv4.
    PublicIp,
    /// The same, IPv6.
    PublicIpv6,
    /// What the user wants to have published instead of the node's own address, IPv4.
    PublicIpOverwrite,
    /// The same, IPv6.
    PublicIpv6Overwrite,
    /// The address of the interface that the user wants under the overlay, IPv4.
    NodePublicIp,
    /// The same, IPv6.
    NodePublicIpv6,
}

impl Field {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::SubnetManager,
        Self::BackendType,
        Self::BackendData,
        Self::BackendV6Data,
        Self::PublicIp,
        Self::PublicIpv6,
        Self::PublicIpOverwrite,
        Self::PublicIpv6Overwrite,
        Self::NodePublicIp,
        Self::NodePublicIpv6,
    ];

    /// The last part of the annotation's name.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::SubnetManager => "kube-subnet-manager",
            Self::BackendType => "backend-type",
            Self::BackendData => "backend-data",
            Self::BackendV6Data => "backend-v6-data",
            Self::PublicIp => "public-ip",
            Self::PublicIpv6 => "public-ipv6",
            Self::PublicIpOverwrite => "public-ip-overwrite",
            Self::PublicIpv6Overwrite => "public-ipv6-overwrite",
            Self::NodePublicIp => "node-public-ip",
            Self::NodePublicIpv6 => "node-public-ipv6",
        }
    }
}

/// What the names of the annotations begin with, such as `flannel.alpha.coreos.com/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotations(String);

/// A text that annotations cannot begin with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot begin annotations; expected a domain in lower case, and a word after a slash if wanted")]
pub struct PrefixError(String);

impl Annotations {
    /// The whole name of an annotation.
    #[must_use]
    pub fn name(&self, field: Field) -> String {
        format!("{}{}", self.0, field.suffix())
    }

    /// What an annotation of this name tells; `None` if it is none of flannel's.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<Field> {
        let suffix = name.strip_prefix(&self.0)?;
        Field::ALL.into_iter().find(|field| field.suffix() == suffix)
    }
}

impl FromStr for Annotations {
    type Err = PrefixError;

    /// flannel's rule: a domain of at least two parts, then perhaps a slash and one word. What is missing at the end is put
    /// there, so that `org.com/9` stands for `org.com/9-backend-type`.
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (domain, word) = text.split_once('/').unwrap_or((text, ""));
        let is_word = |text: &str| {
            text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_')) && !text.is_empty()
        };
        if !domain.contains('.') || !domain.split('.').all(is_word) || !(word.is_empty() || is_word(word)) {
            return Err(PrefixError(text.to_owned()));
        }
        let dash = if word.is_empty() || word.ends_with('-') { "" } else { "-" };
        Ok(Self(format!("{domain}/{word}{dash}")))
    }
}

impl fmt::Display for Annotations {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h90_prefixes_give_flannels_names() {
        for (prefix, name) in [
            ("flannel.alpha.coreos.com", "flannel.alpha.coreos.com/backend-type"),
            ("flannel.alpha.coreos.com/", "flannel.alpha.coreos.com/backend-type"),
            ("org.com", "org.com/backend-type"),
            ("org9.com", "org9.com/backend-type"),
            ("org.com/9", "org.com/9-backend-type"),
            ("org.com/9-", "org.com/9-backend-type"),
            ("org-1.sub.com/a_b", "org-1.sub.com/a_b-backend-type"),
        ] {
            let annotations: Annotations = prefix.parse().unwrap();
            assert_eq!(annotations.name(Field::BackendType), name);
            assert_eq!(annotations.field(name), Some(Field::BackendType));
        }
        for bad in ["", "org", "org/", "org/prefix", "org.COM", "org.com/PREFIX", "org.com/a/b", ".com", "org..com"] {
            assert!(bad.parse::<Annotations>().is_err(), "{bad}");
        }
    }

    #[test]
    fn other_annotations_are_none_of_ours() {
        let annotations: Annotations = "org.com/9".parse().unwrap();
        assert_eq!(annotations.field("org.com/backend-type"), None);
        assert_eq!(annotations.field("org.com/9-backend"), None);
    }
}
