//! A device with its peers, put together of as many messages as the kernel needed.

use super::PeerInfo;
use super::key::{received, sent};
use super::message::{DEVICE_FWMARK, DEVICE_LISTEN_PORT, DEVICE_PEERS, DEVICE_PRIVATE_KEY, DEVICE_PUBLIC_KEY};
use super::{PublicKey, SecretKey};
use crate::codec::{Attributes, Writer};

/// What a device has beside peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceSettings {
    /// Its key, as [`SecretKey::clamped`] has it; without one it can talk to nobody.
    pub private_key: Option<SecretKey>,
    /// The UDP port at which it listens while it is up; written, 0 is one that the kernel chooses.
    pub listen_port: u16,
    /// The mark of the packets that it sends; 0 for none.
    pub fwmark: u32,
}

/// A device as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Key, port and mark.
    pub settings: DeviceSettings,
    /// The key that its peers know it by.
    pub public_key: Option<PublicKey>,
    /// Its peers, in the order in which they were added.
    pub peers: Vec<PeerInfo>,
}

impl DeviceSettings {
    pub(super) fn write(&self, w: &mut Writer) {
        w.raw(DEVICE_PRIVATE_KEY, sent(self.private_key.as_ref()));
        w.u16(DEVICE_LISTEN_PORT, self.listen_port);
        w.u32(DEVICE_FWMARK, self.fwmark);
    }
}

impl DeviceInfo {
    /// Puts a dump together. The first message alone tells of the device; a peer whose addresses do not fit goes on in the next,
    /// which then begins with his key (`wg_get_device_dump`, drivers/net/wireguard/netlink.c).
    pub(super) fn read<'a>(messages: impl IntoIterator<Item = Attributes<'a>>) -> Result<Self, String> {
        let mut device: Option<Self> = None;
        for message in messages {
            let device = device.get_or_insert_with(|| Self {
                settings: DeviceSettings {
                    private_key: message.raw(DEVICE_PRIVATE_KEY).and_then(received).map(SecretKey::new),
                    listen_port: message.u16(DEVICE_LISTEN_PORT).unwrap_or_default(),
                    fwmark: message.u32(DEVICE_FWMARK).unwrap_or_default(),
                },
                public_key: message.raw(DEVICE_PUBLIC_KEY).and_then(received).map(PublicKey),
                peers: Vec::new(),
            });
            for (_, peer) in message.nest(DEVICE_PEERS).iter().flat_map(|list| list.iter()) {
                let more = PeerInfo::read(Attributes(peer))?;
                match device.peers.last_mut() {
                    Some(last) if last.peer.public_key == more.peer.public_key => {
                        last.peer.allowed_ips.extend(more.peer.allowed_ips);
                    }
                    _ => device.peers.push(more),
                }
            }
        }
        device.ok_or_else(|| "the answer holds no device".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Change, Peer};
    use super::*;

    fn peer(number: u8, networks: &[&str]) -> Peer {
        Peer {
            public_key: PublicKey([number; 32]),
            preshared_key: None,
            endpoint: None,
            keepalive: u16::from(number),
            allowed_ips: networks.iter().map(|net| net.parse().unwrap()).collect(),
        }
    }

    fn message(settings: Option<&DeviceSettings>, peers: &[Peer]) -> Vec<u8> {
        let mut w = Writer::default();
        if let Some(settings) = settings {
            settings.write(&mut w);
        }
        let changes = peers.iter().cloned().map(Change::Set);
        w.nest(DEVICE_PEERS, |w| changes.for_each(|change| w.nest(0, |w| change.write(w))));
        w.bytes().to_vec()
    }

    #[test]
    fn a_peer_that_is_cut_in_two_is_one() {
        let settings = DeviceSettings { private_key: Some(SecretKey::new([64; 32])), listen_port: 51820, fwmark: 0 };
        let first = message(Some(&settings), &[peer(1, &["10.244.1.0/24"]), peer(2, &["10.244.2.0/24"])]);
        let rest = message(None, &[peer(2, &["10.244.7.0/24", "fd00::/64"]), peer(3, &[])]);
        let device = DeviceInfo::read([Attributes(&first), Attributes(&rest)]).unwrap();
        assert_eq!(device.settings, settings);
        let peers: Vec<Peer> = device.peers.into_iter().map(|info| info.peer).collect();
        let whole = peer(2, &["10.244.2.0/24", "10.244.7.0/24", "fd00::/64"]);
        assert_eq!(peers, [peer(1, &["10.244.1.0/24"]), whole, peer(3, &[])]);
    }

    #[test]
    fn an_answer_without_a_message_is_no_device() {
        assert!(DeviceInfo::read([]).unwrap_err().contains("no device"));
    }
}
