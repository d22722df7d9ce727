//! The machine under a cluster: what stands in the way ([`checks`]), how it is made ready ([`prepare`]), and how it becomes what
//! it was ([`reset`]).
//!
//! ```text
//!   gather::facts ──▶ checks::judge ──▶ report      pure between the two
//!         │
//!         └────────▶ prepare ──▶ Hand ──▶ journal, then the machine
//!                                             │
//!                    reset::plan ◀────────────┘     pure from what was seen to steps
//! ```

pub mod checks;
pub mod containerd;
pub mod facts;
pub mod gather;
pub mod hand;
pub mod lines;
mod prepare;
mod report;
pub mod reset;
mod rewrite;
pub mod tools;
mod wanted;

pub use hand::{Hand, HostError, Outcome};
pub use prepare::{Prepared, prepare};
pub use report::{Finding, Ignored, IgnoredError, KubeletNeeds, PreflightReport, Severity};
pub use wanted::{Port, Role, SwapPolicy, Wanted};
