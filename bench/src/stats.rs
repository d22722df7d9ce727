//! Statistics of latencies.

use std::time::Duration;

use serde::{Serialize, Serializer};

/// The distribution of some latencies, in microseconds when serialised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Latency {
    /// The shortest: what the machine can do when nothing disturbs.
    #[serde(rename = "min_us", serialize_with = "micros")]
    pub(crate) min: Duration,
    /// The median.
    #[serde(rename = "p50_us", serialize_with = "micros")]
    pub(crate) p50: Duration,
    /// Nine of ten are not longer.
    #[serde(rename = "p90_us", serialize_with = "micros")]
    pub(crate) p90: Duration,
    /// 99 of 100 are not longer.
    #[serde(rename = "p99_us", serialize_with = "micros")]
    pub(crate) p99: Duration,
    /// The longest.
    #[serde(rename = "max_us", serialize_with = "micros")]
    pub(crate) max: Duration,
}

impl Latency {
    /// Of these samples; `None` if there are none.
    pub(crate) fn of(mut samples: Vec<Duration>) -> Option<Self> {
        samples.sort_unstable();
        // Nearest rank: a value that did occur.
        let percentile = |percent: usize| {
            let rank = (samples.len() * percent).div_ceil(100).max(1);
            samples.get(rank - 1).copied()
        };
        let (min, max) = (*samples.first()?, *samples.last()?);
        Some(Self { min, p50: percentile(50)?, p90: percentile(90)?, p99: percentile(99)?, max })
    }
}

/// Of a few samples.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Spread {
    #[serde(rename = "median_ms", serialize_with = "millis")]
    pub(crate) median: Duration,
    #[serde(rename = "min_ms", serialize_with = "millis")]
    pub(crate) min: Duration,
    #[serde(rename = "max_ms", serialize_with = "millis")]
    pub(crate) max: Duration,
}

impl Spread {
    /// `None` if there are none.
    pub(crate) fn of(samples: impl Iterator<Item = Duration>) -> Option<Self> {
        let Latency { min, p50, max, .. } = Latency::of(samples.collect())?;
        Some(Self { median: p50, min, max })
    }
}

fn micros<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}

fn millis<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let ms = Duration::from_millis;
        let latency = Latency::of((1..=300).rev().map(ms).collect()).unwrap();
        assert_eq!(latency, Latency { min: ms(1), p50: ms(150), p90: ms(270), p99: ms(297), max: ms(300) });
        let alone = Latency::of(vec![ms(7)]).unwrap();
        assert_eq!((alone.min, alone.p50, alone.max), (ms(7), ms(7), ms(7)));
        assert_eq!(Latency::of(Vec::new()), None);
    }
}
