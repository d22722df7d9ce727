//! The peers of a device.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use ipnetwork::IpNetwork;

use super::key::{received, sent};
use super::message::{read_endpoint, read_network, write_endpoint, write_network};
use super::{PublicKey, SecretKey};
use crate::codec::{Attributes, Writer};

const PUBLIC_KEY: u16 = 1;
const PRESHARED_KEY: u16 = 2;
const FLAGS: u16 = 3;
const ENDPOINT: u16 = 4;
const KEEPALIVE: u16 = 5;
const LAST_HANDSHAKE: u16 = 6;
const RX_BYTES: u16 = 7;
const TX_BYTES: u16 = 8;
const ALLOWED_IPS: u16 = 9;

/// `WGPEER_F_REMOVE_ME`, `WGPEER_F_REPLACE_ALLOWEDIPS`.
const REMOVE: u32 = 1;
const REPLACE_ALLOWED_IPS: u32 = 2;

/// Who may send and receive through a device.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Peer {
    /// His key, which names him.
    pub public_key: PublicKey,
    /// The key that he shares with this device beside it.
    pub preshared_key: Option<SecretKey>,
    /// Where he listens. The kernel takes the address for it that he last sent from. Written, `None` leaves what is there.
    pub endpoint: Option<SocketAddr>,
    /// Seconds of silence after which an empty packet is sent; 0 for never.
    pub keepalive: u16,
    /// The inner addresses that are his: what is sent to them goes to him, and from him nothing else is taken. An address is one
    /// peer's only; given to another, it leaves the one that had it.
    pub allowed_ips: BTreeSet<IpNetwork>,
}

/// A peer as the kernel has him.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerInfo {
    /// The peer.
    pub peer: Peer,
    /// When both last agreed on keys, by this machine's clock; `None` if they never did.
    pub last_handshake: Option<SystemTime>,
    /// Bytes that have come from him, of packets that were his.
    pub rx_bytes: u64,
    /// Bytes that were sent to him.
    pub tx_bytes: u64,
}

/// A change to the peers of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Adds a peer, or gives the one of this key all that is said of him.
    Set(Peer),
    /// Removes the peer of this key. One that is not there is no error.
    Remove(PublicKey),
}

impl Change {
    pub(super) fn write(&self, w: &mut Writer) {
        match self {
            Self::Remove(key) => {
                w.raw(PUBLIC_KEY, &key.0);
                w.u32(FLAGS, REMOVE);
            }
            Self::Set(peer) => {
                w.raw(PUBLIC_KEY, &peer.public_key.0);
                w.u32(FLAGS, REPLACE_ALLOWED_IPS);
                w.raw(PRESHARED_KEY, sent(peer.preshared_key.as_ref()));
                if let Some(endpoint) = peer.endpoint {
                    write_endpoint(w, ENDPOINT, endpoint);
                }
                w.u16(KEEPALIVE, peer.keepalive);
                w.nest(ALLOWED_IPS, |w| {
                    for network in &peer.allowed_ips {
                        w.nest(0, |w| write_network(w, *network));
                    }
                });
            }
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set(peer) => write!(f, "set WireGuard peer {}", peer.public_key),
            Self::Remove(key) => write!(f, "remove WireGuard peer {key}"),
        }
    }
}

impl PeerInfo {
    /// What one message says of a peer: all but his allowed addresses may be in an earlier one.
    pub(super) fn read(attributes: Attributes<'_>) -> Result<Self, String> {
        let key = attributes.raw(PUBLIC_KEY).and_then(|value| value.try_into().ok());
        let mut allowed_ips = BTreeSet::new();
        for (_, network) in attributes.nest(ALLOWED_IPS).iter().flat_map(|list| list.iter()) {
            allowed_ips.insert(read_network(Attributes(network))?);
        }
        Ok(Self {
            peer: Peer {
                public_key: PublicKey(key.ok_or("a peer has no key")?),
                preshared_key: attributes.raw(PRESHARED_KEY).and_then(received).map(SecretKey::new),
                endpoint: attributes.raw(ENDPOINT).and_then(read_endpoint),
                keepalive: attributes.u16(KEEPALIVE).unwrap_or_default(),
                allowed_ips,
            },
            last_handshake: attributes.raw(LAST_HANDSHAKE).and_then(read_time),
            rx_bytes: attributes.u64(RX_BYTES).unwrap_or_default(),
            tx_bytes: attributes.u64(TX_BYTES).unwrap_or_default(),
        })
    }
}

/// `struct __kernel_timespec`: seconds and nanoseconds since 1970; zero is never.
fn read_time(bytes: &[u8]) -> Option<SystemTime> {
    let seconds = i64::from_ne_bytes(*bytes.first_chunk()?);
    let nanoseconds = i64::from_ne_bytes(*bytes.get(8..)?.first_chunk()?);
    let since = Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanoseconds).ok()?);
    (!since.is_zero()).then(|| SystemTime::UNIX_EPOCH.checked_add(since)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_back(change: &Change) -> PeerInfo {
        let mut writer = Writer::default();
        change.write(&mut writer);
        assert_eq!(writer.fault(), None);
        PeerInfo::read(Attributes(writer.bytes())).unwrap()
    }

    #[test]
    fn what_is_written_of_a_peer_is_what_is_read() {
        for endpoint in [None, Some("192.0.2.2:51820"), Some("[2001:db8::2]:51821")] {
            let peer = Peer {
                public_key: PublicKey([7; 32]),
                preshared_key: endpoint.map(|_| SecretKey::new([9; 32])),
                endpoint: endpoint.map(|text| text.parse().unwrap()),
                keepalive: 25,
                allowed_ips: ["10.244.2.0/24", "fd00:10:244:2::/64"].map(|net| net.parse().unwrap()).into(),
            };
            assert_eq!(read_back(&Change::Set(peer.clone())).peer, peer);
        }
        assert_eq!(read_back(&Change::Remove(PublicKey([7; 32]))).peer.public_key, PublicKey([7; 32]));
    }

    #[test]
    fn a_handshake_that_never_was_is_none() {
        let time = |seconds: i64| [seconds.to_ne_bytes(), 0_i64.to_ne_bytes()].concat();
        assert_eq!(read_time(&time(0)), None);
        assert_eq!(read_time(&time(5)), Some(SystemTime::UNIX_EPOCH + Duration::from_secs(5)));
        assert_eq!(read_time(&time(-1)), None);
        assert_eq!(read_time(&[1, 2]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            let _ = PeerInfo::read(Attributes(&bytes));
            let _ = (read_endpoint(&bytes), read_network(Attributes(&bytes)), read_time(&bytes));
        }
    }
}
