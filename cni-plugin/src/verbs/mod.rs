//! One file a verb.
//!
//! A verb checks everything that it is given before it changes anything, and leaves nothing behind when it fails.

pub mod add;
pub mod check;
mod claims;
pub mod del;
mod foreign;
pub mod gc;
mod host;
pub mod loopback;
pub mod status;
pub mod version;
