//! WireGuard devices: an encrypted tunnel to each peer, in one device that has its peers in itself.
//!
//! [`Tunnel`] and `roaming` plan; [`Tunnels`] is the part of [`PeerTable`](super::table::PeerTable) that reads and writes the peers
//! of devices.

mod peers;
mod roaming;

use weft_netlink::wireguard::{DeviceInfo, DeviceSettings, PublicKey};
use weft_netlink::{Link, LinkChange, LinkKind, Request};

pub use peers::Tunnels;

/// A WireGuard device as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// The link.
    pub link: weft_netlink::Wireguard,
    /// Its key, as the kernel keeps it, and the port at which it listens.
    pub settings: DeviceSettings,
    /// The key that its peers know it by.
    pub public_key: PublicKey,
}

impl Tunnel {
    /// What has to be changed of the link, which is kept with its peers whatever that is; set up last, as that is when it begins to
    /// listen.
    ///
    /// # Errors
    /// In words, if the link is none of WireGuard's.
    pub fn mend(&self, found: &Link) -> Result<Option<Request>, String> {
        if found.kind != LinkKind::Wireguard {
            return Err(format!(
                "{} is there and is no WireGuard device; weft needs that name for the overlay, so rename or delete it",
                self.link.name
            ));
        }
        let mtu = self.link.mtu.filter(|mtu| *mtu != found.mtu);
        if mtu.is_none() && found.up {
            return Ok(None);
        }
        let change = LinkChange::new(found.index);
        let change = mtu.into_iter().fold(change, LinkChange::mtu);
        Ok(Some(if found.up { change } else { change.up() }.request()))
    }

    /// Whether this is the device, by whatever name: one with its key that listens at its port.
    #[must_use]
    pub fn is(&self, found: &DeviceInfo) -> bool {
        let of = |settings: &DeviceSettings| (settings.private_key.clone(), settings.listen_port);
        of(&found.settings) == of(&self.settings)
    }
}

#[cfg(test)]
mod tests {
    use weft_netlink::wireguard::SecretKey;

    use super::*;

    fn tunnel() -> Tunnel {
        Tunnel {
            link: weft_netlink::Wireguard { name: "flannel-wg".into(), mtu: Some(1420) },
            settings: DeviceSettings {
                private_key: Some(SecretKey::new([7; 32]).clamped()),
                listen_port: 51820,
                fwmark: 0,
            },
            public_key: PublicKey([8; 32]),
        }
    }

    fn found() -> Link {
        Link {
            index: 9,
            name: "flannel-wg".into(),
            kind: LinkKind::Wireguard,
            mac: None,
            mtu: 1420,
            up: true,
            running: true,
            operational: false,
            loopback: false,
            master: None,
            promiscuity: 0,
            alias: None,
            peer_index: None,
            hairpin: None,
            isolated: None,
        }
    }

    fn words(found: &Link) -> String {
        let mended = tunnel().mend(found).map(|request| request.map(|request| request.operation().to_owned()));
        mended.map_or_else(|conflict| conflict, Option::unwrap_or_default)
    }

    #[test]
    fn d41_mtu_and_state_are_mended_in_place_and_what_is_right_is_kept() {
        assert_eq!(words(&found()), "");
        assert_eq!(words(&Link { mtu: 1500, ..found() }), "set link 9 mtu 1420");
        assert_eq!(words(&Link { mtu: 1500, up: false, ..found() }), "set link 9 mtu 1420, up");
        assert_eq!(words(&Link { up: false, ..found() }), "set link 9 up");
    }

    #[test]
    fn a_foreign_device_of_that_name_is_left_alone() {
        let foreign = Link { kind: LinkKind::Other("dummy".into()), ..found() };
        assert!(words(&foreign).contains("flannel-wg is there and is no WireGuard device"), "{}", words(&foreign));
    }

    #[test]
    fn a_renamed_device_is_known_by_key_and_port() {
        let device = |settings| DeviceInfo { settings, public_key: None, peers: Vec::new() };
        assert!(tunnel().is(&device(tunnel().settings)));
        let port = DeviceSettings { listen_port: 51821, ..tunnel().settings };
        let key = DeviceSettings { private_key: Some(SecretKey::new([6; 32]).clamped()), ..tunnel().settings };
        assert!(!tunnel().is(&device(port)) && !tunnel().is(&device(key)));
    }
}
