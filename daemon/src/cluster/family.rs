//! The two address families as one type, so that nothing is written once for IPv4 and again for IPv6.

use std::fmt;
use std::net::IpAddr;

/// An Internet address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4, 32-bit addresses.
    V4,
    /// IPv6, 128-bit addresses.
    V6,
}

impl Family {
    /// Both families, IPv4 first: the order in which flannel's formats name them.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Bits in an address: 32 or 128.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// One value for each family that is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PerFamily<T> {
    /// The IPv4 value.
    pub v4: Option<T>,
    /// The IPv6 value.
    pub v6: Option<T>,
}

impl<T> Default for PerFamily<T> {
    fn default() -> Self {
        Self { v4: None, v6: None }
    }
}

impl<T> PerFamily<T> {
    /// The value of `family`.
    pub const fn get(&self, family: Family) -> Option<&T> {
        match family {
            Family::V4 => self.v4.as_ref(),
            Family::V6 => self.v6.as_ref(),
        }
    }

    /// Sets the value of `family`.
    pub fn set(&mut self, family: Family, value: Option<T>) {
        match family {
            Family::V4 => self.v4 = value,
            Family::V6 => self.v6 = value,
        }
    }

    /// Whether neither family has a value.
    pub const fn is_empty(&self) -> bool {
        self.v4.is_none() && self.v6.is_none()
    }

    /// The families that have a value, with it, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = (Family, &T)> {
        Family::ALL.into_iter().filter_map(|family| self.get(family).map(|value| (family, value)))
    }

    /// The values, IPv4 first.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.iter().map(|(_, value)| value)
    }

    /// The families in use, IPv4 first.
    pub fn families(&self) -> impl Iterator<Item = Family> {
        self.iter().map(|(family, _)| family)
    }

    /// Whether `self` and `other` use the same families.
    pub fn same_families<U>(&self, other: &PerFamily<U>) -> bool {
        Family::ALL.into_iter().all(|family| self.get(family).is_some() == other.get(family).is_some())
    }

    /// Converts each value; a value for which `convert` has no answer is left out.
    pub fn filter_map<U>(&self, mut convert: impl FnMut(Family, &T) -> Option<U>) -> PerFamily<U> {
        let mut out = PerFamily::default();
        for (family, value) in self.iter() {
            out.set(family, convert(family, value));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iterates_in_the_order_of_flannels_formats() {
        let both = PerFamily { v4: Some(1), v6: Some(2) };
        assert_eq!(both.iter().collect::<Vec<_>>(), vec![(Family::V4, &1), (Family::V6, &2)]);
        assert!(both.same_families(&PerFamily { v4: Some('a'), v6: Some('b') }));
        assert!(!both.same_families(&PerFamily { v4: Some('a'), v6: None }));
    }
}
