//! The configuration: every key of every command, read in one place before any socket opens.
//!
//! A key has one name: `--node-name` on the command line, `WEFT_NODE_NAME` in the environment, `node-name` in the file.
//! The command line wins over the environment, that over the file, that over kube-proxy's configuration if one is given
//! (`kube-proxy-config`), that over the default. A new key is one entry in
//! [`keys`]; nothing else has to know of it. flannel's names for flags and variables are understood as well (`flannel`); weft's own
//! win over them, on the command line and in the environment.

mod error;
mod file;
mod flags;
mod flannel;
pub mod keys;
mod kube_proxy;
mod load;
mod rule;
mod service_types;
mod types;
mod value;

pub use error::ConfigError;
pub use flags::Flags;
pub use flannel::with_two_dashes;
pub use keys::Settings;
pub use load::{AgentConfig, Effective, Origin};
pub use service_types::{DetectLocal, NodePortAddresses, ProxyMode, SchedulerName, TimeOrZero};
pub use types::{InterfaceName, LogFilter, LogFormat, NetworkName, Patterns, RenewMargin, SourceKind};
pub use value::{Endpoint, time};

/// The flags of the commands that run or undo the agent: all keys.
pub type AgentFlags = Flags<true>;

/// The flags of `weft lease`: the keys that a lease and the subnet file depend on.
pub type LeaseFlags = Flags<false>;
