//! How nodes reach each other: one file for each back end.
//!
//! A new back end is a file with a [`Kind`], and its line in [`KINDS`]. It reads its options, plans its device, says what the
//! lease tells the other nodes, and plans the kernel objects that lead to a peer. All else is common: who is a peer and where
//! he may be routed to (`overlay::peers`), bringing devices and objects into the kernel and keeping them there, files, status.
//! Nothing in here does I/O. Only what no back end has had yet takes more: another kind of device is a [`Device`] and what
//! brings it into place (`overlay::links`), another kind of object of a peer's a [`PeerObject`] and its part of `overlay::table`.

mod end;
mod host_gw;
mod vxlan;
mod wireguard;

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde_json::{Map, Value, json};

pub use end::{Device, End, Here, Identity, LocalEnd, Peer, Site, Standpoint, ends, lease_value};
pub use host_gw::HostGw;
pub use vxlan::{Vxlan, VxlanData, overhead as vxlan_overhead};
pub(in crate::overlay) use wireguard::DEVICES as WIREGUARD_DEVICES;
pub use wireguard::{Wireguard, overhead as wireguard_overhead};

use super::peers::PeerObject;
use crate::cluster::family::Family;
use crate::cluster::fields::{Fields, NetConfError};
use crate::cluster::json::Json;

/// The back ends that there are; the first is that of a network configuration that names none.
const KINDS: &[&Kind] = &[&vxlan::KIND, &host_gw::KIND, &wireguard::KIND];

/// A back end, before it has its options.
pub struct Kind {
    /// `Type` in the network configuration, which matches in any case, and `BackendType` in leases.
    pub name: &'static str,
    /// The keys of its options in the network configuration, in flannel's spelling.
    pub(crate) keys: &'static [&'static str],
    /// Reads its options.
    pub(crate) parse: fn(&Fields<'_>) -> Result<Arc<dyn Backend>, NetConfError>,
    /// Judges what a node publishes of it for one family, `None` where it says nothing; an error is what was expected.
    pub(crate) check: fn(Option<&Value>) -> Result<(), &'static str>,
}

/// A back end with its options.
pub trait Backend: fmt::Debug + Send + Sync {
    /// Which it is.
    fn kind(&self) -> &'static Kind;

    /// Its options as they stand in a network configuration, those left out that have flannel's default.
    fn options(&self) -> Map<String, Value>;

    /// MTU of the underlay in bytes, where the options give one instead of the interface's.
    fn underlay_mtu(&self) -> Option<u32> {
        None
    }

    /// Bytes that it adds to each packet between two nodes of this family.
    fn overhead(&self, outer: Family) -> u32;

    /// The name of its device for a family; `None` if it has none.
    fn device_name(&self, family: Family) -> Option<String>;

    /// Whether peers on a link of this node are reached by plain routes, past the device.
    fn routes_directly(&self) -> bool {
        false
    }

    /// Whether it has a private key, which the node then keeps in the key file.
    fn needs_key(&self) -> bool {
        false
    }

    /// Its device on this node for one family. Both families may have one and the same.
    ///
    /// # Errors
    /// What this node lacks, in words.
    fn device(&self, site: &Site<'_>) -> Result<Device, String>;

    /// What the lease tells the other nodes of the device.
    fn data(&self, _device: &Device) -> Option<Json> {
        None
    }

    /// The kernel objects of one family that lead to no peer alone.
    fn common(&self, _from: &Standpoint<'_>) -> Vec<PeerObject> {
        Vec::new()
    }

    /// The kernel objects through which a peer is reached over one family.
    ///
    /// # Errors
    /// Why it cannot be, in words.
    fn reach(&self, from: &Standpoint<'_>, peer: &Peer<'_>) -> Result<Vec<PeerObject>, String>;
}

/// The back end that a network configuration has chosen. Equal to another with the same options.
#[derive(Debug, Clone)]
pub struct Chosen(pub Arc<dyn Backend>);

impl Chosen {
    /// The `Backend` of a network configuration.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut object = Map::from_iter([("Type".to_owned(), json!(self.kind().name))]);
        object.extend(self.options());
        Value::Object(object)
    }
}

impl Default for Chosen {
    fn default() -> Self {
        Self(Arc::new(Vxlan::default()))
    }
}

impl Deref for Chosen {
    type Target = dyn Backend;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl PartialEq for Chosen {
    fn eq(&self, other: &Self) -> bool {
        self.to_json() == other.to_json()
    }
}

impl Eq for Chosen {}

/// The back end of this name, in any case.
pub(crate) fn kind(name: &str) -> Option<&'static Kind> {
    KINDS.iter().copied().find(|kind| kind.name.eq_ignore_ascii_case(name))
}

/// That of a network configuration that names none: vxlan, as flannel's documentation says.
pub(crate) const fn default_kind() -> &'static Kind {
    &vxlan::KIND
}

/// The names of all.
pub(crate) fn names() -> Vec<&'static str> {
    KINDS.iter().map(|kind| kind.name).collect()
}
