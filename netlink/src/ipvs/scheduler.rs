//! How a virtual server chooses among its real servers.

use std::fmt;
use std::ops::BitOr;
use std::str::FromStr;

use crate::nft::Name;

/// `IP_VS_SCHEDNAME_MAXLEN` less the closing NUL.
const LONGEST: usize = 15;

/// The name of a scheduler, which is that of its module without `ip_vs_`. Whether the kernel has it shows when a server is
/// added: `ENOENT` if it cannot be loaded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scheduler(Name);

impl Scheduler {
    /// Round robin.
    pub const ROUND_ROBIN: Self = Self(Name::Borrowed("rr"));
    /// Weighted round robin.
    pub const WEIGHTED_ROUND_ROBIN: Self = Self(Name::Borrowed("wrr"));
    /// Least connections.
    pub const LEAST_CONNECTIONS: Self = Self(Name::Borrowed("lc"));
    /// Weighted least connections.
    pub const WEIGHTED_LEAST_CONNECTIONS: Self = Self(Name::Borrowed("wlc"));
    /// Source hashing: the same client meets the same real server.
    pub const SOURCE_HASHING: Self = Self(Name::Borrowed("sh"));
    /// Maglev hashing: as source hashing, and a change of the real servers moves few clients.
    pub const MAGLEV_HASHING: Self = Self(Name::Borrowed("mh"));

    /// Every scheduler of Linux 6.1 by its name.
    pub const KNOWN: [&str; 14] =
        ["rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh", "twos"];

    /// A scheduler of this name, whether known or not.
    ///
    /// # Errors
    /// [`InvalidScheduler`] if it cannot be a scheduler's name: that is 1 to 15 bytes, none of them NUL.
    pub fn new(name: impl Into<Name>) -> Result<Self, InvalidScheduler> {
        let name = name.into();
        if name.is_empty() || name.len() > LONGEST || name.contains('\0') {
            return Err(InvalidScheduler(name.into_owned()));
        }
        Ok(Self(name))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl FromStr for Scheduler {
    type Err = InvalidScheduler;

    fn from_str(name: &str) -> Result<Self, InvalidScheduler> {
        Self::new(name.to_owned())
    }
}

impl fmt::Display for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What cannot be the name of a scheduler.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("scheduler {0:?}: a name of 1 to {LONGEST} bytes is expected, such as rr, wrr, lc or mh")]
pub struct InvalidScheduler(String);

/// What only some schedulers heed (`IP_VS_SVC_F_SCHED1` to `3`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct SchedulerFlags(u32);

impl SchedulerFlags {
    /// `sh`, `mh`: another real server takes the place of one that has no weight or too many connections.
    pub const FALLBACK: Self = Self(0x8);
    /// `sh`, `mh`: the client's port counts too.
    pub const PORT: Self = Self(0x10);
    /// The third, without a meaning so far.
    pub const THIRD: Self = Self(0x20);

    const ALL: u32 = 0x38;

    pub(super) fn bits(self) -> u32 {
        self.0
    }

    pub(super) fn from_bits(bits: u32) -> Self {
        Self(bits & Self::ALL)
    }
}

impl BitOr for SchedulerFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_would_cut_is_no_name() {
        assert_eq!("wrr".parse::<Scheduler>().unwrap(), Scheduler::WEIGHTED_ROUND_ROBIN);
        for name in ["", "sixteen_bytes_xx", "r\0r"] {
            let error = name.parse::<Scheduler>().unwrap_err().to_string();
            assert!(error.contains(&format!("{name:?}")) && error.contains("1 to 15 bytes"), "{error}");
        }
    }
}
