//! Masquerade and forward rules, in the agent's own nf_tables table.
//!
//! `plan` says which rules there should be; `table` puts them into the kernel, a chain at a time, each change one atomic
//! transaction. The plugin's table and everybody else's are never touched, but for iptables' chain FORWARD where it drops: `forward`
//! has pods let through there, and `legacy` says so where only its owner can.

pub mod forward;
pub mod legacy;
pub mod plan;
mod rules;
pub mod table;

pub use rules::Rules;

use weft_netlink::nft::{Table, TableFamily};

/// Chains and sets of the agent's table whose names begin so belong to the room `service::nft`; nobody else touches them.
pub const SERVICE_PREFIX: &str = "svc-";

/// The agent's table.
#[must_use]
pub fn agent_table() -> Table {
    Table::new(TableFamily::Inet, "weft")
}

/// The plugin's table, which the agent only removes, and only when it cleans up.
#[must_use]
pub fn plugin_table() -> Table {
    Table::new(TableFamily::Inet, "weft-cni")
}
