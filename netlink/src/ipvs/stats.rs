//! What a server has served.

use crate::codec::Attributes;

const CONNS: u16 = 1;
const INPKTS: u16 = 2;
const OUTPKTS: u16 = 3;
const INBYTES: u16 = 4;
const OUTBYTES: u16 = 5;

/// Counters since the server was added (`IPVS_STATS_ATTR_*`). "In" is from the client.
///
/// The kernel's estimator brings them up to date every two seconds; where sysctl `net/ipv4/vs/run_estimation` (Linux 5.15)
/// is 0, they stand still. What [`RealServerInfo`](super::RealServerInfo) has besides is always right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Packets to clients; zero where answers do not come by here.
    pub packets_out: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
}

impl Stats {
    /// Reads the 64-bit counters, or where the kernel sends none (before 4.1) the older ones, of which three wrap at 32
    /// bits.
    pub(super) fn read(server: Attributes<'_>, stats: u16, stats64: u16) -> Self {
        // An older counter has half the length, and tells it by that.
        let counter = |from: Attributes<'_>, kind: u16| {
            from.u64(kind).or_else(|| from.u32(kind).map(u64::from)).unwrap_or_default()
        };
        let Some(from) = server.nest(stats64).or_else(|| server.nest(stats)) else { return Self::default() };
        Self {
            connections: counter(from, CONNS),
            packets_in: counter(from, INPKTS),
            packets_out: counter(from, OUTPKTS),
            bytes_in: counter(from, INBYTES),
            bytes_out: counter(from, OUTBYTES),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Writer;

    #[test]
    fn the_wide_counters_are_preferred_and_the_narrow_ones_read() {
        let mut narrow = Writer::default();
        narrow.nest(1, |w| {
            (CONNS..=OUTPKTS).for_each(|kind| w.u32(kind, u32::from(kind)));
            (INBYTES..=OUTBYTES).for_each(|kind| w.raw(kind, &u64::from(kind).to_ne_bytes()));
        });
        let expected = Stats { connections: 1, packets_in: 2, packets_out: 3, bytes_in: 4, bytes_out: 5 };
        assert_eq!(Stats::read(Attributes(narrow.bytes()), 1, 2), expected);

        let mut both = narrow.clone();
        both.nest(2, |w| w.raw(CONNS, &(1u64 << 40).to_ne_bytes()));
        let expected = Stats { connections: 1 << 40, ..Stats::default() };
        assert_eq!(Stats::read(Attributes(both.bytes()), 1, 2), expected);
        assert_eq!(Stats::read(Attributes(&[]), 1, 2), Stats::default());
    }
}
