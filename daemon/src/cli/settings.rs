//! From configuration keys to what the rooms ask for.

use std::net::IpAddr;

use crate::cluster::family::PerFamily;
use crate::config::Settings;
use crate::overlay::uplink::{Uplink, UplinkSpec};
use crate::publish::Places;

/// How the interface under the overlay is chosen.
pub(super) fn uplink_spec(settings: &Settings) -> UplinkSpec {
    UplinkSpec {
        interfaces: settings.iface.clone(),
        patterns: settings.iface_regex.0.clone(),
        can_reach: settings.iface_can_reach,
        public_ips: PerFamily { v4: settings.public_ip.map(IpAddr::V4), v6: settings.public_ipv6.map(IpAddr::V6) },
    }
}

/// The addresses to publish: those given, else the uplink's.
pub(super) fn public_ips(settings: &Settings, uplink: &Uplink) -> PerFamily<IpAddr> {
    let (given, own) = (uplink_spec(settings).public_ips, uplink.addresses());
    PerFamily { v4: given.v4.or(own.v4), v6: given.v6.or(own.v6) }
}

/// Where the node's files go.
pub(super) fn places(settings: &Settings) -> Places {
    Places {
        subnet_file: settings.subnet_file.clone(),
        cni_conf_dir: settings.cni_conf_dir.clone(),
        cni_bin_dir: settings.cni_bin_dir.clone(),
        plugin_source: settings.cni_bin_source.clone(),
    }
}
