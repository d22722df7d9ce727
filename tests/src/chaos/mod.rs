//! Chaos: everything in a lab fails at random, and at every moment no two nodes have one subnet.
//!
//! `plan` draws the faults from a seed, without I/O; `run` carries them out; `observe` looks at the store and at the nodes all
//! the while; `aftermath` says what is not as it should be once everything is whole again.

mod aftermath;
mod observe;
mod plan;
mod run;

pub use aftermath::aftermath;
pub use observe::{Claim, overlaps};
pub use plan::{Fault, Step, plan};
pub use run::{Chaos, Failure, Outcome, run};
