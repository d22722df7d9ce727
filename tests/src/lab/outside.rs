//! A client outside of the cluster: a machine on the underlay that runs no agent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use super::{Lab, underlay};
use crate::netns::Netns;

/// Its addresses: below those of the nodes.
pub const OUTSIDE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 168, 100, 5)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0x100, 0, 0, 0, 0, 0, 5))];

const PORT: &str = "pext";
const MAC: &str = "02:00:c0:a8:64:05";

impl Lab {
    /// The namespace of the client outside, made if it is not there.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn outside(&self) -> Result<Netns> {
        let netns = Netns::ensure_machine(format!("{}-ext", self.spec().name))?;
        underlay::plug_in(&self.underlay_netns(), &netns, PORT, MAC, &OUTSIDE)?;
        Ok(netns)
    }
}
