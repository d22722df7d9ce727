//! The files in which weft's parts meet.
//!
//! The agent and the plugin share no memory and no socket: the agent writes the subnet file and the conflist, the plugin
//! reads both; the plugin writes attachment records, the agent reads them. [`host_local`] is the file format of those that
//! were there before. This module holds these formats and nothing
//! that acts on them. It is the only part of the crate that the agent uses.

pub mod attachment;
mod checksum;
pub mod conflist;
pub mod files;
pub mod host_local;
pub mod host_port;
pub mod subnet_env;

pub use attachment::Attachment;
pub use checksum::crc32c;
pub use conflist::Conflist;
pub use subnet_env::SubnetEnv;
