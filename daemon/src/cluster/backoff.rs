//! How long to wait before trying again: longer each time, and never the same for two nodes.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Exponential back-off with full jitter over the upper half: wait number n is drawn from [b/2, b), b = first·2ⁿ, at most
/// `limit`. The jitter keeps the nodes of a cluster, which all lose the store at the same moment, from all coming back at one.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    limit: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits from `first` to `limit`.
    #[must_use]
    pub const fn new(first: Duration, limit: Duration) -> Self {
        Self { first, limit, failures: 0 }
    }

    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        let bound = self.first.saturating_mul(2_u32.saturating_pow(self.failures)).min(self.limit);
        self.failures = self.failures.saturating_add(1);
        jittered(bound)
    }

    /// Starts over after a success.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A random time from half of `bound` to `bound`.
#[must_use]
pub fn jittered(bound: Duration) -> Duration {
    // Each RandomState has keys of its own, drawn from the operating system: the standard library's only random source.
    let random = RandomState::new().hash_one(bound);
    let half = bound / 2;
    half + half.mul_f64(f64::from(u32::try_from(random >> 32).unwrap_or_default()) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_the_limit_and_starts_over() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        let waits: Vec<Duration> = (0..100).map(|_| backoff.next_wait()).collect();
        for (n, wait) in waits.iter().enumerate() {
            let bound = Duration::from_millis(100 * (1 << n.min(6))).min(Duration::from_secs(5));
            assert!(*wait >= bound / 2 && *wait <= bound, "{n}: {wait:?}");
        }
        backoff.reset();
        assert!(backoff.next_wait() <= Duration::from_millis(100));
    }

    #[test]
    fn two_waits_differ() {
        let waits: std::collections::BTreeSet<Duration> = (0..10).map(|_| jittered(Duration::from_secs(5))).collect();
        assert!(waits.len() > 5);
    }
}
