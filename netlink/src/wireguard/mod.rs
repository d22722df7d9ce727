//! WireGuard, the kernel's encrypted tunnels, over generic netlink: devices and their peers as values.
//!
//! * A [`Peer`] is who may send and receive through a device, and which addresses are his. A [`Change`] sets or removes one.
//! * [`Socket`] gives a device its key and port, carries out changes, each with its own verdict, and reads a device back.
//! * The device as a link is made like any other: [`crate::Wireguard`].
//!
//! A [`SecretKey`] is never shown: neither as text nor for debugging. Nobody is told by the kernel of a change to a device.
//!
//! Numbers are those of linux/wireguard.h; needs Linux 5.6 and `CAP_NET_ADMIN`, for reading too.

mod device;
mod key;
mod message;
mod peer;
mod socket;

pub use device::{DeviceInfo, DeviceSettings};
pub use key::{InvalidKey, PublicKey, SecretKey};
pub use peer::{Change, Peer, PeerInfo};
pub use socket::Socket;
