//! Waiting on conditions, never on time.

use std::fmt::Display;
use std::io;
use std::time::{Duration, Instant};

/// The condition did not come true within its limit.
#[derive(Debug)]
pub struct TimedOut {
    what: String,
    limit: Duration,
    last: String,
}

impl Display for TimedOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "waited {:.1} s in vain for: {}", self.limit.as_secs_f64(), self.what)?;
        if self.last.is_empty() { Ok(()) } else { write!(f, " (last: {})", self.last) }
    }
}

impl std::error::Error for TimedOut {}

/// A limit of time; longer in a guest, whose processor is emulated.
#[must_use]
pub fn patience(limit: Duration) -> Duration {
    if in_guest() { limit * 8 } else { limit }
}

/// Whether this is a guest, on a kernel of its own.
#[must_use]
pub fn in_guest() -> bool {
    std::env::var_os("WEFT_GUEST_KERNEL").is_some()
}

/// Asks the kernel again as long as it was interrupted: reading from a socket with a time limit ends with `EINTR` when the
/// process is stopped and goes on, or its cgroup is frozen for a moment, handler or not (signal(7)).
///
/// # Errors
/// Every other error of `call`.
pub fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Polls until `condition` holds.
///
/// # Errors
/// [`TimedOut`] naming `what` once `limit` has passed.
pub fn until(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Result<(), TimedOut> {
    until_ok(limit, what, || if condition() { Ok(()) } else { Err("") })
}

/// Polls until `attempt` succeeds, and returns what it yields.
///
/// # Errors
/// [`TimedOut`] naming `what` and the last refusal once `limit` has passed.
pub fn until_ok<T, E: Display>(
    limit: Duration,
    what: &str,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> Result<T, TimedOut> {
    let begin = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        let last = match attempt() {
            Ok(value) => return Ok(value),
            Err(refusal) => refusal.to_string(),
        };
        let left = limit.saturating_sub(begin.elapsed());
        if left.is_zero() {
            return Err(TimedOut { what: what.to_owned(), limit, last });
        }
        rest(pause.min(left));
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Watches for the whole of `span` that `condition` keeps holding: for "nothing happens" statements.
///
/// # Errors
/// The first refusal.
pub fn throughout<E>(span: Duration, mut condition: impl FnMut() -> Result<(), E>) -> Result<(), E> {
    let begin = Instant::now();
    while begin.elapsed() < span {
        condition()?;
        rest(Duration::from_millis(20));
    }
    Ok(())
}

/// Leaves the processor to others between two actions of a load. Not a way to wait for anything.
pub fn pause(pause: Duration) {
    rest(pause);
}

#[expect(clippy::disallowed_methods, reason = "the pause between two looks at a condition; the only one of the tests")]
fn rest(pause: Duration) {
    std::thread::sleep(pause);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_comes_true_ends_the_wait() {
        let mut looks = 0;
        until(Duration::from_secs(5), "the third look", || {
            looks += 1;
            looks == 3
        })
        .unwrap();
        assert_eq!(looks, 3);
    }

    #[test]
    fn a_wait_in_vain_says_for_what_and_the_last_reason() {
        let refusal = until_ok::<(), _>(Duration::from_millis(5), "the moon", || Err("still dark")).unwrap_err();
        assert_eq!(refusal.to_string(), "waited 0.0 s in vain for: the moon (last: still dark)");
    }
}
