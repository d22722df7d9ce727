//! The kernel settings that an overlay node needs.

use weft_netlink::sysctl::Sysctl;

use super::owned::{Owned, OwnedError};
use crate::cluster::family::Family;

/// Sets what pods of these families need; returns the settings that had to be changed.
///
/// # Errors
/// The first setting that could not be made.
pub(super) fn ensure(
    owned: &mut Owned,
    sysctl: &Sysctl,
    families: impl Iterator<Item = Family>,
    uplink: &str,
) -> Result<Vec<String>, OwnedError> {
    let mut changed = Vec::new();
    let mut set = |name: String, value: &str| -> Result<(), OwnedError> {
        if owned.set(sysctl, &name, value)? {
            changed.push(format!("{name} = {value}"));
        }
        Ok(())
    };
    for family in families {
        match family {
            Family::V4 => set("net/ipv4/ip_forward".into(), "1")?,
            Family::V6 => {
                // A machine that forwards stops listening to router advertisements, and would lose its own address and
                // default route; 2 makes it listen all the same (ip-sysctl.rst, accept_ra).
                let accept_ra = format!("net/ipv6/conf/{uplink}/accept_ra");
                if sysctl.read(&accept_ra)?.as_deref() == Some("1") {
                    set(accept_ra, "2")?;
                }
                set("net/ipv6/conf/all/forwarding".into(), "1")?;
            }
        }
    }
    Ok(changed)
}
