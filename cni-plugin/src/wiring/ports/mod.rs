//! Ports of the host that lead to a container.
//!
//! The table `inet weft-cni` has a fixed set of chains (`layout`), and for each container some elements of its maps and sets
//! (`elements`); both are pure. [`PortTable`] brings elements into the kernel and out again, `flows` makes UDP clients that
//! the kernel remembers meet what has changed. Whose a port is when two want it is decided by the records, not here.

mod elements;
mod flows;
mod layout;
mod table;

pub use layout::TABLE;
pub use table::{Claim, PortTable, Rival, open_loopback};
