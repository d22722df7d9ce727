//! The node-local balancer of the API: a loopback address behind which all API servers of the cluster stand, so that a node
//! does not hang on one of them, and control-plane nodes come and go without a change on the others.
//!
//! It forwards TCP and reads nothing of it: TLS is between the client and the API server, which a name in its certificate
//! stands for ([`crate::bootstrap::stable_name`]). `lists` keeps the servers on disk, `learn` asks the cluster for them,
//! `health` looks at each, `pool` chooses (pure), `forward` connects and copies, `run` drives them, `stand_in` is one
//! for the moments until the node's own has started.

mod forward;
mod health;
mod learn;
pub mod lists;
mod pool;
mod reach;
mod run;
mod stand_in;

pub use reach::first_reachable;
pub use run::{BalancerError, Options, run};
pub use stand_in::StandIn;

/// The name by which each API server is known in its certificate, kubeadm's or weft's (kubeadm `util/pkiutil`): whichever
/// address it is dialled by.
pub(crate) const SERVER_NAME: &str = "kubernetes";
