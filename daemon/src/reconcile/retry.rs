//! When an object that failed is tried again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The wait after the first failure; it doubles with each further one.
pub const FIRST_DELAY: Duration = Duration::from_millis(500);
/// The longest wait: the time within which weft promises to repair anything.
pub const LONGEST_DELAY: Duration = Duration::from_secs(10);

/// What is known of objects that failed.
#[derive(Debug)]
pub(super) struct Failures<K> {
    failed: BTreeMap<K, Failure>,
}

#[derive(Debug)]
struct Failure {
    attempts: u32,
    again_at: Instant,
    reason: String,
}

impl<K: Ord + Clone> Failures<K> {
    pub(super) fn new() -> Self {
        Self { failed: BTreeMap::new() }
    }

    /// Whether the object may be tried now.
    pub(super) fn due(&self, key: &K, now: Instant) -> bool {
        self.failed.get(key).is_none_or(|failure| failure.again_at <= now)
    }

    pub(super) fn record(&mut self, key: &K, reason: String, now: Instant) {
        let attempts = self.failed.get(key).map_or(1, |failure| failure.attempts.saturating_add(1));
        let delay = FIRST_DELAY.saturating_mul(1 << (attempts - 1).min(16)).min(LONGEST_DELAY);
        self.failed.insert(key.clone(), Failure { attempts, again_at: now + delay, reason });
    }

    pub(super) fn clear(&mut self, key: &K) {
        self.failed.remove(key);
    }

    /// Forgets what nobody wants or has any more.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&K) -> bool) {
        self.failed.retain(|key, _| keep(key));
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.failed.values().map(|failure| failure.again_at).min()
    }

    pub(super) fn reasons(&self) -> impl Iterator<Item = (&K, &str)> {
        self.failed.iter().map(|(key, failure)| (key, failure.reason.as_str()))
    }
}
