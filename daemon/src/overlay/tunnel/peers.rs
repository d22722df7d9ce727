//! The peers of WireGuard devices, read and written.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use weft_netlink::Error;
use weft_netlink::wireguard::{Change, Peer, PeerInfo, PublicKey, Socket};

use super::roaming::Seen;
use crate::overlay::peers::{PeerKey, PeerObject};

/// Device and peer.
type Of = (u32, PublicKey);

/// The WireGuard devices of the overlay.
#[derive(Debug, Default)]
pub struct Tunnels {
    /// Opened when there is a device, as without one the kernel need not have WireGuard.
    socket: Option<Socket>,
    /// Indexes of the devices.
    links: Vec<u32>,
    /// The endpoints that peers have published.
    published: BTreeMap<Of, SocketAddr>,
    /// The peers whose endpoints were in order.
    seen: BTreeMap<Of, Seen>,
    /// Those of them that are elsewhere than they have published, as the last dump found them.
    roaming: BTreeSet<Of>,
}

impl Tunnels {
    /// Says which devices there are, and how their peers should be: the endpoints decide which others may stay.
    pub fn expect(&mut self, links: Vec<u32>, objects: &BTreeMap<PeerKey, PeerObject>) {
        self.links = links;
        let endpoint = |object: &PeerObject| match object {
            PeerObject::Tunnel { link, peer } => Some(((*link, peer.public_key), peer.endpoint?)),
            _ => None,
        };
        self.published = objects.values().filter_map(endpoint).collect();
        // One that has published another since is to have that.
        let (published, seen) = (&self.published, &self.seen);
        self.roaming
            .retain(|of| published.get(of).is_some_and(|now| seen.get(of).is_some_and(|it| it.published == *now)));
    }

    /// Whether a peer is elsewhere than it has published. Whether it may stay there only another look can tell.
    #[must_use]
    pub fn is_any_roaming(&self) -> bool {
        !self.roaming.is_empty()
    }

    /// The peers that the kernel has, whoever added them: the devices are ours. One whose endpoint is in order has the one that
    /// it has published.
    ///
    /// # Errors
    /// [`Error`] if a device cannot be read.
    pub fn dump(&mut self) -> Result<Vec<PeerObject>, Error> {
        let found = self.read()?;
        Ok(self.judge(found, SystemTime::now()))
    }

    fn judge(&mut self, found: Vec<(u32, PeerInfo)>, now: SystemTime) -> Vec<PeerObject> {
        let all: BTreeSet<IpAddr> = self.published.values().map(SocketAddr::ip).collect();
        let mut seen = BTreeMap::new();
        self.roaming.clear();
        let mut objects = Vec::new();
        for (link, found) in found {
            let of = (link, found.peer.public_key);
            let before = self.seen.get(&of);
            let mut peer = found.peer.clone();
            if let Some(published) = self.published.get(&of) {
                let in_order = Seen::in_order(&found, *published, &all, before, now);
                if let Some(in_order) = in_order {
                    peer.endpoint = Some(*published);
                    self.roaming.extend(in_order.is_elsewhere().then_some(of));
                }
                // What is about to be put right is still compared with what was in order.
                seen.extend(in_order.or(before.copied()).map(|seen| (of, seen)));
            }
            objects.push(PeerObject::Tunnel { link, peer });
        }
        self.seen = seen;
        objects
    }

    /// The change that sets a peer. An endpoint that the kernel has found itself, and that is in order, stays.
    #[must_use]
    pub fn set(&self, link: u32, peer: &Peer) -> Change {
        let endpoint = peer.endpoint.filter(|_| !self.roaming.contains(&(link, peer.public_key)));
        Change::Set(Peer { endpoint, ..peer.clone() })
    }

    /// Makes changes to the peers of a device, in this order; one result each.
    pub fn run(&mut self, link: u32, changes: &[Change]) -> Vec<Result<(), Error>> {
        let made = self.socket().and_then(|socket| socket.run(link, changes));
        match made {
            Ok(verdicts) => verdicts.into_iter().map(|verdict| verdict.map_err(Error::from)).collect(),
            Err(error) => {
                // The socket may be what is wrong. What was done all the same, the next dump shows.
                self.socket = None;
                let failed = |change: &Change| Error::Io {
                    operation: change.to_string(),
                    source: io::Error::other(error.to_string()),
                };
                changes.iter().map(|change| Err(failed(change))).collect()
            }
        }
    }

    /// A number that stands for all peers of the devices: another one if any of them is another. Counters and times do not enter.
    ///
    /// # Errors
    /// [`Error`] if a device cannot be read.
    pub fn digest(&mut self) -> Result<u64, Error> {
        let mut hasher = DefaultHasher::new();
        for (link, found) in self.read()? {
            (link, &found.peer).hash(&mut hasher);
            // What has come by now has come from where it is now, and speaks for no endpoint that it has later.
            let seen = self.seen.get_mut(&(link, found.peer.public_key));
            if let Some(seen) = seen.filter(|seen| seen.endpoint == found.peer.endpoint) {
                seen.rx_bytes = found.rx_bytes;
            }
        }
        Ok(hasher.finish())
    }

    /// The peers of all devices. One that is gone has none.
    fn read(&mut self) -> Result<Vec<(u32, PeerInfo)>, Error> {
        let mut peers = Vec::new();
        for link in self.links.clone() {
            let device = self.socket()?.device(link)?;
            peers.extend(device.into_iter().flat_map(|device| device.peers).map(|peer| (link, peer)));
        }
        Ok(peers)
    }

    fn socket(&mut self) -> Result<&mut Socket, Error> {
        match &mut self.socket {
            Some(socket) => Ok(socket),
            closed => Ok(closed.insert(Socket::open()?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LINK: u32 = 4;
    const PUBLISHED: &str = "192.0.2.2:51820";
    const ELSEWHERE: &str = "203.0.113.9:4711";

    fn peer(endpoint: &str) -> Peer {
        Peer {
            public_key: PublicKey([1; 32]),
            preshared_key: None,
            endpoint: Some(endpoint.parse().unwrap()),
            keepalive: 0,
            allowed_ips: ["10.244.2.0/24".parse().unwrap()].into(),
        }
    }

    /// What is found out of a peer there, and which endpoint would be set.
    fn look(tunnels: &mut Tunnels, endpoint: &str, age: u64, rx_bytes: u64) -> (Peer, Option<SocketAddr>) {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(10_000);
        let last_handshake = Some(now - Duration::from_secs(age));
        let found = PeerInfo { peer: peer(endpoint), last_handshake, rx_bytes, tx_bytes: 0 };
        let objects = tunnels.judge(vec![(LINK, found)], now);
        let [PeerObject::Tunnel { peer: told, .. }] = objects.as_slice() else { panic!("{objects:?}") };
        let Change::Set(set) = tunnels.set(LINK, &peer(PUBLISHED)) else { panic!() };
        (told.clone(), set.endpoint)
    }

    fn expect(tunnels: &mut Tunnels, endpoints: &[(u32, &str)]) {
        let object = |(link, endpoint): &(u32, &str)| PeerObject::Tunnel { link: *link, peer: peer(endpoint) };
        let objects = endpoints.iter().map(object).map(|object| (object.key(), object)).collect();
        tunnels.expect(vec![LINK], &objects);
    }

    #[test]
    fn an_endpoint_that_is_in_order_is_neither_a_difference_nor_overwritten() {
        let mut tunnels = Tunnels::default();
        expect(&mut tunnels, &[(LINK, PUBLISHED)]);
        assert_eq!(look(&mut tunnels, PUBLISHED, 5, 1), (peer(PUBLISHED), peer(PUBLISHED).endpoint));
        assert_eq!(look(&mut tunnels, ELSEWHERE, 5, 2), (peer(PUBLISHED), None));
    }

    #[test]
    fn a_newly_published_endpoint_is_set_before_anything_is_read() {
        let mut tunnels = Tunnels::default();
        expect(&mut tunnels, &[(LINK, PUBLISHED)]);
        look(&mut tunnels, ELSEWHERE, 5, 2);
        let endpoint = |tunnels: &Tunnels, to: &str| match tunnels.set(LINK, &peer(to)) {
            Change::Set(set) => set.endpoint,
            Change::Remove(key) => panic!("{key}"),
        };
        assert!(tunnels.is_any_roaming());
        assert_eq!(endpoint(&tunnels, PUBLISHED), None);
        let new = "192.0.2.3:51820";
        expect(&mut tunnels, &[(LINK, new)]);
        assert_eq!(endpoint(&tunnels, new), peer(new).endpoint);
        // It goes, and comes back within a moment.
        look(&mut tunnels, ELSEWHERE, 5, 3);
        expect(&mut tunnels, &[]);
        expect(&mut tunnels, &[(LINK, PUBLISHED)]);
        assert_eq!(endpoint(&tunnels, PUBLISHED), peer(PUBLISHED).endpoint);
    }

    #[test]
    fn one_that_was_in_order_once_is_put_right_when_it_is_not_any_more() {
        let mut tunnels = Tunnels::default();
        expect(&mut tunnels, &[(LINK, PUBLISHED)]);
        assert_eq!(look(&mut tunnels, ELSEWHERE, 5, 2), (peer(PUBLISHED), None));
        // Nothing has got through for too long.
        assert_eq!(look(&mut tunnels, ELSEWHERE, 200, 2), (peer(ELSEWHERE), peer(PUBLISHED).endpoint));
        // It turns out to be that of another device.
        assert_eq!(look(&mut tunnels, ELSEWHERE, 5, 3), (peer(PUBLISHED), None));
        expect(&mut tunnels, &[(LINK, PUBLISHED), (6, ELSEWHERE)]);
        assert_eq!(look(&mut tunnels, ELSEWHERE, 5, 4), (peer(ELSEWHERE), peer(PUBLISHED).endpoint));
    }
}
