//! The IPVS back end: cluster IPs as virtual servers of the kernel's layer 4 balancer.
//!
//! * What there should be: [`plan`] makes of a port's plan a virtual server, [`scheduler`] chooses its scheduler.
//! * What has to change: [`diff`] compares it with what there is; [`drain`] is the machine by which real servers go.
//! * Doing it: [`backend`] and [`work`], over the seam in [`kernel`], with [`ownership`] as memory of what is ours.
//! * The ground on which it stands: [`sysctls`], [`timeouts`], [`route`] for the way of packets to it, [`arp`] against
//!   its side effect.
//!
//! Node ports, external addresses, and all that is refused or dropped, are nf_tables' in this mode too. The two meet in
//! the [`Door`] of each virtual server: an element of a set without which no packet gets there.

mod arp;
mod backend;
#[cfg(test)]
mod backend_tests;
#[cfg(test)]
mod bench_node;
mod diff;
mod drain;
#[cfg(test)]
mod fake;
mod kernel;
mod ownership;
mod plan;
mod problem;
mod route;
mod scheduler;
#[cfg(test)]
mod sequence_tests;
mod sysctls;
mod timeouts;
mod work;

pub use arp::ArpGuard;
pub use backend::{Applied, Door, IpvsConfig, IpvsServices, cleanup};
pub use drain::DrainLimits;
pub use ownership::JournalError;
pub use problem::{Error, Problem, Reason};
pub use route::LocalRoutes;
pub use scheduler::{Fallback, UnknownScheduler, parse_scheduler};
pub use sysctls::{IpvsSysctls, ensure as ensure_sysctls};
pub use timeouts::TimeoutSettings;

/// Whether the record in a run directory names virtual servers of ours.
#[must_use]
pub fn has_record(run_dir: &std::path::Path) -> bool {
    // A record that cannot be read is looked into by whoever opens IPVS.
    ownership::Ownership::load(run_dir).map_or(true, |journal| !journal.is_blank())
}

/// Forgets which virtual servers are ours, for a node on which kube-proxy keeps them from now on.
///
/// # Errors
/// If the record in the run directory is there and cannot be removed.
pub fn forget_record(run_dir: &std::path::Path) -> std::io::Result<()> {
    match std::fs::remove_file(run_dir.join(ownership::FILE)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
