//! kubeadm's phases in kubeadm's order, each of them the work of the rooms beside this one.
//!
//! A phase finds what is done already and leaves it as it is, so that a run can be repeated, goes on where another was ended, and
//! mends what somebody has taken away. The journal says which phases have ended well, and with what.

mod error;
mod ground;
pub mod init;
pub mod join;
pub mod reset;
mod runtime;
mod scratch;
mod tell;
mod tree;
pub mod upgrade;

pub use error::{Exit, PhaseError};
pub use scratch::scratch;
pub use tell::{Format, Teller};
pub use tree::{INIT, JOIN, Phase, SelectError, select};
