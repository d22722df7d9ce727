//! The peers of WireGuard devices, read and written.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::SocketAddr;
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
    }

    /// The peers that the kernel has, whoever added them: the devices are ours. One whose endpoint is in order has the one that
    /// it has published.
    ///
    /// # Errors
    /// [`Error`] if a device cannot be read.
    pub fn dump(&mut self) -> Result<Vec<PeerObject>, Error> {
        let now = SystemTime::now();
        let mut seen = BTreeMap::new();
        let mut objects = Vec::new();
        for (link, found) in self.read()? {
            let of = (link, found.peer.public_key);
            let mut peer = found.peer.clone();
            if let Some(published) = self.published.get(&of) {
                match Seen::in_order(&found, *published, self.seen.get(&of), now) {
                    Some(in_order) => {
                        peer.endpoint = Some(*published);
                        seen.insert(of, in_order);
                    }
                    None => seen.extend(self.seen.get(&of).map(|before| (of, *before))),
                }
            }
            objects.push(PeerObject::Tunnel { link, peer });
        }
        self.seen = seen;
        Ok(objects)
    }

    /// The change that sets a peer. An endpoint that the kernel has found itself stays.
    #[must_use]
    pub fn set(&self, link: u32, peer: &Peer) -> Change {
        let found = self.seen.get(&(link, peer.public_key)).filter(|seen| Some(seen.published) == peer.endpoint);
        let endpoint = peer.endpoint.filter(|_| !found.is_some_and(Seen::is_elsewhere));
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
