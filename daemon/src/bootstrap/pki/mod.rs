//! The certificates and keys of a cluster, as kubeadm makes them.
//!
//! `table` says which there are, `profile` what each says, `issue` makes one, `certificate` and `key` read what is there,
//! `ensure` puts a node's there, `renew` makes new ones out of old ones, `expiry` tells how long they hold, `csr` has them
//! made by somebody else, `probe`, `restart` and `rollout` see to it that new ones are used, `upkeep` that all of it happens in
//! time.

pub mod certificate;
pub mod csr;
mod der;
pub mod ensure;
pub mod error;
pub mod expiry;
pub mod issue;
pub mod key;
mod oids;
pub mod probe;
pub mod profile;
pub mod renew;
pub mod restart;
pub mod rollout;
#[cfg(test)]
pub(crate) mod samples;
mod sec1;
pub mod secret;
pub(crate) mod store;
pub mod table;
pub mod upkeep;

pub use certificate::Certificate;
pub use ensure::{Options, Outcome, Step, ensure_all, ensure_join, ensure_one, missing_shared};
pub use error::PkiError;
pub use key::Key;
pub use secret::Secret;
