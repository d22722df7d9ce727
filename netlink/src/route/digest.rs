//! Whether anything has changed behind a link, at a fraction of what reading it costs.

use std::hash::{DefaultHasher, Hash, Hasher};

use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Route, RouteFilter, RouteSocket, wire};
use crate::codec::Attributes;
use crate::error::Result;

/// `struct rtmsg` and `struct ndmsg` are of one length (linux/rtnetlink.h, linux/neighbour.h).
const HEADER: usize = 12;
/// `RTA_CACHEINFO`: ages.
const ROUTE_VOLATILE: &[u16] = &[12];
/// `NDA_CACHEINFO` and `NDA_PROBES`: ages and counts.
const NEIGHBOUR_VOLATILE: &[u16] = &[3, 4];

impl RouteSocket {
    /// A number that stands for all main-table routes, permanent neighbours and permanent FDB entries of these links: with
    /// overwhelming probability another one if any of them is another. Ages and counts do not enter, nor does the order.
    ///
    /// Reading 5,000 peers takes some ten times as long.
    ///
    /// # Errors
    /// [`crate::Error`] if a dump fails.
    pub fn digest(&mut self, links: &[u32]) -> Result<u64> {
        let mut whole = 0;
        for &link in links {
            for v6 in [false, true] {
                let (link, table) = (Some(link), Some(Route::MAIN));
                let filter = RouteFilter { link, table, v6: Some(v6), ..RouteFilter::default() };
                let sum = self.digest_of("sum up routes", &wire::routes(filter), |_| true, ROUTE_VOLATILE);
                whole = fold(whole, wire::found_routes(sum)?);
            }
            for family in [AddressFamily::Unspec, AddressFamily::Bridge] {
                let request = wire::neighbours(link, family);
                let sum = self.digest_of("sum up neighbours", &request, is_permanent, NEIGHBOUR_VOLATILE)?;
                whole = fold(whole, sum);
            }
        }
        Ok(whole)
    }

    fn digest_of(
        &mut self,
        operation: &str,
        request: &RouteNetlinkMessage,
        counts: impl Fn(&[u8]) -> bool,
        volatile: &[u16],
    ) -> Result<u64> {
        let mut sum: u64 = 0;
        self.0.dump_frames(operation, request, |frame| {
            // A sum, for it does not ask in which order.
            match frame {
                None => sum = 0,
                Some(frame) if !counts(frame.payload()) => {}
                Some(frame) => sum = sum.wrapping_add(of_message(frame.kind, frame.payload(), volatile)),
            }
            Ok(())
        })?;
        Ok(sum)
    }
}

/// Whether a neighbour or FDB entry stays until it is deleted (`ndm_state` of `struct ndmsg`).
fn is_permanent(payload: &[u8]) -> bool {
    const NUD_PERMANENT: u16 = 0x80;
    let state = payload.get(8..10).and_then(|state| state.first_chunk::<2>());
    state.is_some_and(|state| u16::from_ne_bytes(*state) & NUD_PERMANENT != 0)
}

fn fold(before: u64, next: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (before, next).hash(&mut hasher);
    hasher.finish()
}

fn of_message(kind: u16, payload: &[u8], volatile: &[u16]) -> u64 {
    let (header, attributes) = payload.split_at(HEADER.min(payload.len()));
    let mut hasher = DefaultHasher::new();
    (kind, header).hash(&mut hasher);
    for attribute in Attributes(attributes).iter().filter(|(kind, _)| !volatile.contains(kind)) {
        attribute.hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(attributes: &[(u16, u32)]) -> Vec<u8> {
        let mut bytes = vec![2; HEADER];
        for (kind, value) in attributes {
            bytes.extend([8, 0]);
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(value.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn ages_do_not_count_and_all_else_does() {
        let of = |kind, attributes: &[(u16, u32)]| of_message(kind, &message(attributes), NEIGHBOUR_VOLATILE);
        let before = of(28, &[(1, 7), (3, 100), (4, 1)]);
        assert_eq!(of(28, &[(1, 7), (3, 200), (4, 9)]), before);
        for other in [of(29, &[(1, 7)]), of(28, &[(1, 8)]), of(28, &[(2, 7)]), of(28, &[(1, 7), (5, 0)]), of(28, &[])] {
            assert_ne!(other, before);
        }
    }

    #[test]
    fn what_is_cut_short_has_a_digest_too() {
        assert_ne!(of_message(28, &[1, 2], &[]), of_message(28, &[1, 3], &[]));
    }
}
