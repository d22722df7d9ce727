//! Whether an endpoint that is not the published one may stay: the kernel sends to where a peer last sent from.
//!
//! That is right for a peer behind address translation, or one that sends from another of its addresses, and to put the published
//! endpoint back would cut it off until it sends again. What somebody has set by hand looks the same, but for two things: nothing
//! has come from there, and the tunnel soon stops to work.
//!
//! A node's devices have one key. If a peer's packets get to the wrong one of them, as when the ports have just changed, it takes
//! them all the same, and sends back to the wrong one of the peer's: from there on each passes for the other, and nothing gets
//! through. So an endpoint at an address that a node has published, but not this peer's on this device, is never in order: no
//! translation is in the way where the address is the published one.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use weft_netlink::wireguard::PeerInfo;

/// After this time without a new handshake neither side takes packets any more (`REJECT_AFTER_TIME`, WireGuard's paper,
/// section 6.1): a younger one says that the tunnel works.
const WORKS: Duration = Duration::from_secs(180);

/// How a peer was when its endpoint was last found in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// The endpoint that it has published.
    pub(super) published: SocketAddr,
    /// The one that the kernel had.
    pub(super) endpoint: Option<SocketAddr>,
    /// What had come from it.
    pub(super) rx_bytes: u64,
}

impl Seen {
    /// What is to be remembered of a peer if its endpoint is in order; `None` if the published one has to be set. `all` are the
    /// addresses that all peers have published on all devices.
    pub(super) fn in_order(
        found: &PeerInfo,
        published: SocketAddr,
        all: &BTreeSet<IpAddr>,
        before: Option<&Self>,
        now: SystemTime,
    ) -> Option<Self> {
        let endpoint = found.peer.endpoint;
        let handshake = found.last_handshake.map(|then| now.duration_since(then).unwrap_or_default());
        let works =
            endpoint.is_some_and(|endpoint| !all.contains(&endpoint.ip())) && handshake.is_some_and(|age| age < WORKS);
        // After a restart nothing is remembered, and what works stays.
        let roamed = before.is_none_or(|before| {
            let moved = before.endpoint != endpoint;
            before.published == published && (!moved || before.rx_bytes < found.rx_bytes)
        });
        let in_order = endpoint == Some(published) || works && roamed;
        in_order.then_some(Self { published, endpoint, rx_bytes: found.rx_bytes })
    }

    /// Whether the kernel has found another endpoint than the published one, which is to stay.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.endpoint != Some(self.published)
    }
}

#[cfg(test)]
mod tests {
    use weft_netlink::wireguard::{Peer, PublicKey};

    use super::*;

    const PUBLISHED: &str = "192.0.2.2:51820";
    const ELSEWHERE: &str = "203.0.113.9:4711";
    const OTHERS: &str = "[2001:db8::2]:51821";
    const NOW: u64 = 10_000;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn found(endpoint: &str, handshake: Option<u64>, rx_bytes: u64) -> PeerInfo {
        let peer = Peer {
            public_key: PublicKey([1; 32]),
            preshared_key: None,
            endpoint: Some(endpoint.parse().unwrap()),
            keepalive: 0,
            allowed_ips: BTreeSet::new(),
        };
        PeerInfo { peer, last_handshake: handshake.map(at), rx_bytes, tx_bytes: 0 }
    }

    fn stays(found: &PeerInfo, before: Option<Seen>) -> bool {
        let all = [PUBLISHED, OTHERS].map(|endpoint| endpoint.parse::<SocketAddr>().unwrap().ip()).into();
        Seen::in_order(found, PUBLISHED.parse().unwrap(), &all, before.as_ref(), at(NOW)).is_some()
    }

    fn before(endpoint: &str, rx_bytes: u64) -> Option<Seen> {
        let (published, endpoint) = (PUBLISHED.parse().unwrap(), Some(endpoint.parse().unwrap()));
        Some(Seen { published, endpoint, rx_bytes })
    }

    #[test]
    fn the_published_endpoint_is_in_order() {
        assert!(stays(&found(PUBLISHED, None, 0), None));
        assert!(stays(&found(PUBLISHED, None, 0), before(ELSEWHERE, 9)));
    }

    #[test]
    fn a_peer_that_sends_from_elsewhere_is_followed_while_the_tunnel_works() {
        let fresh = Some(NOW - 100);
        assert!(stays(&found(ELSEWHERE, fresh, 10), None), "after a restart of the agent");
        assert!(stays(&found(ELSEWHERE, fresh, 10), before(PUBLISHED, 5)), "it has sent since");
        assert!(stays(&found(ELSEWHERE, fresh, 5), before(ELSEWHERE, 5)), "it is where it was");
        assert!(!stays(&found(ELSEWHERE, Some(NOW - 200), 10), before(ELSEWHERE, 5)), "it works no more");
        assert!(!stays(&found(ELSEWHERE, None, 0), None), "it never has");
        assert!(stays(&found(ELSEWHERE, Some(NOW + 50), 10), None), "the clock was set back");
    }

    #[test]
    fn an_endpoint_set_by_hand_is_put_right() {
        assert!(!stays(&found(ELSEWHERE, Some(NOW - 1), 5), before(PUBLISHED, 5)), "nothing has come from there");
        let none =
            PeerInfo { peer: Peer { endpoint: None, ..found(PUBLISHED, None, 0).peer }, ..found(PUBLISHED, None, 0) };
        assert!(!stays(&none, before(PUBLISHED, 0)));
    }

    #[test]
    fn the_endpoint_of_another_device_is_put_right_however_well_it_works() {
        assert!(!stays(&found(OTHERS, Some(NOW - 1), 10), None));
        assert!(!stays(&found(OTHERS, Some(NOW - 1), 10), before(PUBLISHED, 5)));
        assert!(!stays(&found("192.0.2.2:51821", Some(NOW - 1), 10), None), "where a device of the peer's was before");
    }

    #[test]
    fn a_newly_published_endpoint_is_set_at_once() {
        let old =
            Seen { published: ELSEWHERE.parse().unwrap(), endpoint: Some(ELSEWHERE.parse().unwrap()), rx_bytes: 1 };
        assert!(!stays(&found(ELSEWHERE, Some(NOW - 1), 9), Some(old)));
    }
}
