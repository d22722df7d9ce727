//! STATUS: whether a container could be attached now.
//!
//! containerd asks every five seconds, without a deadline, in the call by which kubelet learns whether the node is ready.
//! So it takes no lock and waits for nothing; and an exhausted pool or an agent that restarts is not reported, as the
//! node's healthy pods would be evicted for it.

use std::path::Path;

use nix::unistd::{AccessFlags, access};

use crate::node;
use crate::protocol::config::NetConf;
use crate::protocol::env::Args;
use crate::protocol::json::Json;
use crate::protocol::{CniError, Code, Result};

/// Answers by returning.
///
/// # Errors
/// Code 50 if the node has no subnet or state cannot be written; what ADD would say about the configuration.
pub fn status(json: &Json) -> Result<()> {
    let conf = NetConf::parse(json, &Args::default())?;
    let unavailable = |error: CniError| match error.code {
        Code::TryAgainLater => CniError { code: Code::NotAvailable, ..error },
        _ => error,
    };
    let leases_itself = conf.etcd.is_some() && conf.lease_command.is_some();
    if node::known(&conf).map_err(unavailable)?.is_none() && !leases_itself {
        return Err(unavailable(node::missing(&conf)));
    }
    let directory = conf.base.state_dir.join(&conf.base.name);
    let existing = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    access(existing, AccessFlags::W_OK | AccessFlags::X_OK).map_err(|errno| {
        CniError::new(Code::NotAvailable, format!("stateDir: {} cannot be written: {errno}", existing.display()))
    })
}
