//! The machine's clock, set wrong for a while, and the time that it really is.

use std::time::{Duration, Instant, SystemTime};

use weft_tests::tool;

/// The time that it is, by a clock that nobody sets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RightTime {
    began: SystemTime,
    since: Instant,
}

impl RightTime {
    /// The machine's clock, which is right as yet.
    pub(crate) fn here() -> Self {
        Self { began: SystemTime::now(), since: Instant::now() }
    }

    pub(crate) fn now(&self) -> SystemTime {
        self.began + self.since.elapsed()
    }
}

/// A clock that is wrong, until it is dropped.
pub(crate) struct WrongClock(RightTime);

impl WrongClock {
    pub(crate) fn set(right: RightTime, time: SystemTime) -> Self {
        let this = Self(right);
        set(time).unwrap();
        let late = SystemTime::now().duration_since(time).unwrap();
        assert!(late < Duration::from_secs(5), "the clock is not set: {late:?}");
        this
    }
}

impl Drop for WrongClock {
    fn drop(&mut self) {
        set(self.0.now()).unwrap();
    }
}

/// As weft says that it is done.
fn set(time: SystemTime) -> anyhow::Result<()> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH)?;
    tool::call("date", &["-s", &format!("@{}.{:09}", since.as_secs(), since.subsec_nanos())]).map(drop)
}
