//! A time without a watch: how long to wait between tries, and what to log of it: that it began, and that it is over.

use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::backoff::Backoff;

/// Failures in a row, and the watch that ended them.
#[derive(Debug)]
pub(in crate::cluster) struct Outage {
    /// What is not watched meanwhile, in the plural.
    what: &'static str,
    backoff: Backoff,
    /// The longest wait.
    limit: Duration,
    /// When the watch was opened, while there is one.
    watching_since: Option<Instant>,
    /// When the first failure came that no watch has followed.
    began: Option<Instant>,
}

impl Outage {
    /// No watch yet, and no failure. `waits` are the shortest and the longest wait after a failure.
    pub(in crate::cluster) const fn of(what: &'static str, waits: (Duration, Duration)) -> Self {
        Self { what, backoff: Backoff::new(waits.0, waits.1), limit: waits.1, watching_since: None, began: None }
    }

    /// A try failed, or a watch ended, for this reason; `known` says whether there is anything to go on with. Returns how
    /// long to wait.
    pub(in crate::cluster) fn failed(&mut self, reason: &str, known: bool) -> Duration {
        // A watch that lasted was no failure to back off from; one that ends as soon as it is open is, and so is a try
        // that takes long to fail.
        if self.watching_since.take().is_some_and(|since| since.elapsed() > self.limit) {
            self.backoff.reset();
        }
        let wait = self.backoff.next_wait();
        if self.began.is_some() {
            tracing::debug!(reason, retry_in = ?wait, "the {} are still not watched", self.what);
            return wait;
        }
        self.began = Some(Instant::now());
        let meanwhile = if known { "; all that is known is kept" } else { "" };
        tracing::warn!(reason, "the {} are not watched{meanwhile}", self.what);
        wait
    }

    /// A watch is open.
    pub(in crate::cluster) fn over(&mut self) {
        self.watching_since = Some(Instant::now());
        if let Some(began) = self.began.take() {
            tracing::info!(after = ?began.elapsed(), "the {} are watched again", self.what);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    const WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

    /// What is logged at `info` and above meanwhile, by line.
    fn logged(run: impl FnOnce()) -> Vec<String> {
        #[derive(Clone, Default)]
        struct Lines(Arc<Mutex<Vec<u8>>>);
        impl io::Write for Lines {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, run);
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn an_outage_is_logged_when_it_begins_and_when_it_is_over() {
        let mut outage = Outage::of("leases", WAITS);
        let lines = logged(|| {
            for _ in 0..5 {
                outage.failed("refused", false);
            }
            outage.over();
            outage.failed("the watch ended", true);
        });
        let [began, over, again] = lines.as_slice() else { panic!("{lines:?}") };
        assert!(began.contains("WARN") && began.contains("refused") && !began.contains("is kept"), "{began}");
        assert!(over.contains("INFO") && over.contains("watched again"), "{over}");
        assert!(again.contains("WARN") && again.contains("all that is known is kept"), "{again}");
    }

    #[test]
    fn only_a_watch_that_lasted_starts_the_back_off_over() {
        let mut outage = Outage::of("leases", WAITS);
        let waits: Vec<Duration> = (0..8).map(|_| outage.failed("no answer in time", true)).collect();
        assert!(waits[7] >= WAITS.1 / 2, "{waits:?}");
        outage.over();
        assert!(outage.failed("the watch ended", true) >= WAITS.1 / 2, "a watch that ends at once");
        outage.over();
        outage.watching_since = Instant::now().checked_sub(WAITS.1 * 2);
        assert!(outage.failed("the watch ended", true) <= WAITS.0);
    }
}
