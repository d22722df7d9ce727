//! The token bucket filter: a queue at the root of a link that sends at a rate.

use netlink_packet_core::DefaultNla;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};

use super::request::{Request, Verb};
use crate::codec::{Attributes, Writer};

/// The length of `struct tcmsg`, linux/rtnetlink.h.
pub(super) const TC_HEADER: usize = 20;
/// linux/rtnetlink.h.
pub(super) const TCA_KIND: u16 = 1;
pub(super) const TCA_OPTIONS: u16 = 2;
/// linux/pkt_sched.h.
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
/// With it, the kernel reckons a packet's time from its length and needs no table for it (`TC_LINKLAYER_ETHERNET`).
const LINKLAYER_ETHERNET: u8 = 1;
/// The scheduler's tick in nanoseconds: `PSCHED_SHIFT`, net/pkt_sched.h, the same on all machines.
const TICK: u64 = 64;
const KIND: &str = "tbf";

/// A token bucket filter (net/sched/sch_tbf.c): whatever leaves through the link waits until there are tokens for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenBucket {
    /// Bytes a second.
    pub rate: u64,
    /// Bytes that may leave at once after a pause. A packet that is longer never leaves.
    pub burst: u32,
    /// Bytes that may wait; what comes when they do is dropped.
    pub limit: u32,
}

impl TokenBucket {
    /// The request that puts it at the root of the link with this index, in the place of the default queue.
    #[must_use]
    pub fn create(&self, link: u32) -> Request {
        let rate = u32::try_from(self.rate).unwrap_or(u32::MAX);
        // struct tc_tbf_qopt: two struct tc_ratespec (the second, for a peak rate, stays zero), limit, buffer, mtu.
        let mut parameters = [0; 36];
        parameters[1] = LINKLAYER_ETHERNET;
        parameters[8..12].copy_from_slice(&rate.to_ne_bytes());
        parameters[24..28].copy_from_slice(&self.limit.to_ne_bytes());
        let buffer = u32::try_from(self.buffer()).unwrap_or(u32::MAX);
        parameters[28..32].copy_from_slice(&buffer.to_ne_bytes());
        let options = options(|writer| {
            writer.raw(TCA_TBF_PARMS, &parameters);
            // The buffer in ticks has no room for a large burst at a small rate; this has.
            writer.u32(TCA_TBF_BURST, self.burst);
            if u64::from(rate) != self.rate {
                writer.raw(TCA_TBF_RATE64, &self.rate.to_ne_bytes());
            }
        });
        let mut message = message(link, TcHandle::ROOT, KIND);
        message.header.handle = TcHandle { major: 1, minor: 0 };
        message.attributes.push(options);
        let words = format!("limit link {link} to {} bytes a second, {} at once", self.rate, self.burst);
        Request::new(words, Verb::Create.flags(), RouteNetlinkMessage::NewQueueDiscipline(message))
    }

    /// How long the burst takes at this rate, in ticks.
    fn buffer(&self) -> u64 {
        u64::from(self.burst).saturating_mul(1_000_000_000) / self.rate.max(1) / TICK
    }

    /// Whether the kernel's report of a queue is of such a one.
    pub(super) fn is_shown_by(&self, payload: &[u8]) -> bool {
        let attributes = Attributes(payload.get(TC_HEADER..).unwrap_or_default());
        let Some(options) = attributes.nest(TCA_OPTIONS) else { return false };
        let Some(parameters) = options.raw(TCA_TBF_PARMS) else { return false };
        let word = |at: usize| parameters.get(at..).and_then(<[u8]>::first_chunk).map(|word| u32::from_ne_bytes(*word));
        let rate = options.u64(TCA_TBF_RATE64).or(word(8).map(u64::from));
        // The kernel cuts the buffer to 32 bits, and has lost a few ticks of a long one in reckoning.
        let away = |found: u32| {
            const CUT: u64 = 1 << 32;
            let distance = u64::from(found).wrapping_sub(self.buffer()) % CUT;
            distance.min(CUT - distance)
        };
        attributes.string(TCA_KIND).as_deref() == Some(KIND)
            && rate == Some(self.rate)
            && word(24) == Some(self.limit)
            && word(28).is_some_and(|found| away(found) <= 1 + (self.buffer() >> 28))
    }
}

/// Asks for the queue at the root of a link.
pub(super) fn root_of(link: u32) -> RouteNetlinkMessage {
    let mut message = TcMessage::with_index(link.cast_signed());
    message.header.parent = TcHandle::ROOT;
    RouteNetlinkMessage::GetQueueDiscipline(message)
}

/// A message about a queue or filter of this kind at a place of a link.
pub(super) fn message(link: u32, parent: TcHandle, kind: &str) -> TcMessage {
    let mut message = TcMessage::with_index(link.cast_signed());
    message.header.parent = parent;
    message.attributes.push(TcAttribute::Kind(kind.to_owned()));
    message
}

/// The options of a queue or filter.
pub(super) fn options(write: impl FnOnce(&mut Writer)) -> TcAttribute {
    let mut writer = Writer::default();
    write(&mut writer);
    TcAttribute::Other(DefaultNla::new(TCA_OPTIONS, writer.bytes().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t118_another_rate_burst_or_limit_is_another_queue() {
        let bucket = TokenBucket { rate: 1_250_000, burst: 100_000, limit: 131_250 };
        let shown = |rate: u32, limit: u32, buffer: u32, kind: &str| {
            let mut parameters = [0; 36];
            parameters[8..12].copy_from_slice(&rate.to_ne_bytes());
            parameters[24..28].copy_from_slice(&limit.to_ne_bytes());
            parameters[28..32].copy_from_slice(&buffer.to_ne_bytes());
            let mut writer = Writer::default();
            writer.string(TCA_KIND, kind);
            writer.nest(TCA_OPTIONS, |writer| writer.raw(TCA_TBF_PARMS, &parameters));
            bucket.is_shown_by(&[&[0; TC_HEADER], writer.bytes()].concat())
        };
        // 100000 bytes at 1250000 a second are 80 ms, of 64 ns each.
        assert!(shown(1_250_000, 131_250, 1_250_000, "tbf"));
        assert!(shown(1_250_000, 131_250, 1_250_001, "tbf"));
        assert!(!shown(1_250_001, 131_250, 1_250_000, "tbf"));
        assert!(!shown(1_250_000, 131_251, 1_250_000, "tbf"));
        assert!(!shown(1_250_000, 131_250, 1_200_000, "tbf"));
        assert!(!shown(1_250_000, 131_250, 1_250_000, "htb"));
        assert!(!bucket.is_shown_by(&[]));
    }
}
