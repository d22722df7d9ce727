//! Classes of backend lists: all lists of one class are served by one chain.

use std::fmt;

use crate::cluster::Family;

const LOCAL: u32 = 1 << 31;
const V6: u32 = 1 << 30;

/// What a chain that chooses a backend has to know beforehand, as it is written into the chain's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Class {
    /// The family of client and backends.
    pub(super) family: Family,
    /// Whether the list is that of the backends on this node.
    pub(super) local: bool,
    /// How many backends it has.
    pub(super) size: u32,
    /// How many seconds a client stays with its backend, below 2^30.
    pub(super) affinity: Option<u32>,
}

impl Class {
    /// The two numbers by which the kernel finds the chain of a list.
    #[must_use]
    pub(super) fn words(self) -> [u32; 2] {
        let local = if self.local { LOCAL } else { 0 };
        let family = if self.family == Family::V6 { V6 } else { 0 };
        [self.size, local | family | self.affinity.unwrap_or(0)]
    }

    /// The class with these two numbers.
    #[must_use]
    pub(super) fn from_words([size, kind]: [u32; 2]) -> Self {
        Self {
            family: if kind & V6 == 0 { Family::V4 } else { Family::V6 },
            local: kind & LOCAL != 0,
            size,
            affinity: Some(kind & !(LOCAL | V6)).filter(|seconds| *seconds != 0),
        }
    }

    /// The class whose chain has this name.
    #[must_use]
    pub(super) fn from_chain(name: &str) -> Option<Self> {
        let rest = name.strip_prefix("svc-lb")?;
        let (family, rest) = match rest.split_at_checked(2)? {
            ("4-", rest) => (Family::V4, rest),
            ("6-", rest) => (Family::V6, rest),
            _ => return None,
        };
        let (rest, affinity) = match rest.split_once("-sticky-") {
            Some((rest, seconds)) => (rest, Some(seconds.parse().ok()?)),
            None => (rest, None),
        };
        let (size, local) = rest.strip_suffix("-local").map_or((rest, false), |size| (size, true));
        let class = Self { family, local, size: size.parse().ok()?, affinity };
        // "+3" and "03" are numbers as well.
        (class.to_string() == name && Self::from_words(class.words()) == class).then_some(class)
    }
}

/// The name of the chain: `svc-lb4-3`, `svc-lb6-12-local-sticky-10800`.
impl fmt::Display for Class {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.family == Family::V4 { 4 } else { 6 };
        let local = if self.local { "-local" } else { "" };
        write!(out, "svc-lb{family}-{}{local}", self.size)?;
        self.affinity.map_or(Ok(()), |seconds| write!(out, "-sticky-{seconds}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_and_name_say_the_same(v6: bool, local: bool, size: u32, seconds in 0u32..86_401) {
            let family = if v6 { Family::V6 } else { Family::V4 };
            let class = Class { family, local, size, affinity: Some(seconds).filter(|seconds| *seconds > 0) };
            prop_assert_eq!(Class::from_words(class.words()), class);
            prop_assert_eq!(Class::from_chain(&class.to_string()), Some(class));
        }
    }

    #[test]
    fn other_names_are_no_class() {
        for name in
            ["svc-lb4-", "svc-lb4-03", "svc-lb5-3", "svc-lb4-3-sticky-0", "svc-lb4-3-sticky-", "svc-lb", "svc-ext"]
        {
            assert_eq!(Class::from_chain(name), None, "{name}");
        }
    }
}
