//! What the verbs share: the host's namespace, and errors in the terms of the protocol.

use std::path::Path;
use std::time::SystemTime;

use weft_netlink::netns::NetNs;
use weft_netlink::{LinkProbe, RouteSocket};

use crate::ipam::record::Record;
use crate::ipam::store::{Store, StoreError};
use crate::protocol::config::Base;
use crate::protocol::env::Call;
use crate::protocol::{CniError, Code, Result};
use crate::wiring::ports::PortTable;
use crate::wiring::teardown::delete_all;

/// Sockets into the namespace that the plugin was started in. They stay there when the process goes elsewhere.
pub(super) struct Host {
    pub(super) probe: LinkProbe,
    pub(super) socket: RouteSocket,
    /// Opened by the first who needs it.
    pub(super) ports: PortTable,
}

impl Host {
    /// Opens them; the calling thread must still be in the host's namespace.
    pub(super) fn open() -> Result<Self> {
        Ok(Self { probe: LinkProbe::open()?, socket: RouteSocket::open()?, ports: PortTable::default() })
    }
}

/// Removes what a dead attachment has in the kernel. Its address may be freed then, and not before.
pub(super) fn undo(record: &Record, socket: &mut RouteSocket, ports: &mut PortTable) -> Result<()> {
    match &record.content {
        Ok(attachment) => ports.release(&[attachment])?,
        Err(_) => ports.release_of(&record.host_interface())?,
    }
    Ok(delete_all(&record.links(), socket)?)
}

/// The store of the configuration's network.
pub(super) fn store_of(base: &Base) -> Store {
    Store::new(&base.state_dir, &base.data_dir, &base.name)
}

/// Opens the container's namespace and refuses the plugin's own, `host`.
pub(super) fn open_sandbox(call: &Call, host: &NetNs) -> Result<NetNs> {
    let path = call.netns.as_deref().unwrap_or(Path::new(""));
    let named = |error: weft_netlink::Error| {
        CniError::new(Code::BadEnvironment, format!("CNI_NETNS={:?}: {error}", path.display().to_string()))
    };
    let sandbox = NetNs::open(path).map_err(named)?;
    if !call.netns_override && sandbox.id().map_err(named)? == host.id()? {
        let message = format!("CNI_NETNS={:?} is the plugin's own network namespace", path.display().to_string());
        return Err(CniError::new(Code::InvalidNamespace, message));
    }
    Ok(sandbox)
}

/// Milliseconds since 1970.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or_default()
}

impl From<StoreError> for CniError {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::Io { .. } => Code::Io,
            StoreError::Busy { .. } | StoreError::Overtaken { .. } | StoreError::Unknowable { .. } => {
                Code::TryAgainLater
            }
            StoreError::Allocate(error) if error.is_want_of_addresses() => Code::TryAgainLater,
            StoreError::TooLong { .. } | StoreError::Allocate(_) => Code::InvalidConfig,
        };
        Self::new(code, error.to_string())
    }
}
