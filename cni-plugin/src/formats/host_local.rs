//! host-local's store: which address belongs to which container, one file an address.
//!
//! It lies at `<dataDir>/<network>/`. A file is named like the address and holds the container's id and, after CR LF, the
//! name of its interface there; very old ones hold the id alone. Beside them lie `lock` (flock(2)) and
//! `last_reserved_ip.<set>`. (containernetworking/plugins, `plugins/ipam/host-local/backend/disk`.)
//!
//! weft keeps no addresses there. It reads the store when it takes a node over from flannel, or from the bridge plugin, and
//! writes it on the way back: with `weft export`, and from then on with each ADD.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::attachment::Attachment;

/// Where the store is unless told otherwise; one directory a network below it.
pub const DATA_DIR: &str = "/var/lib/cni/networks";
/// Where flannel's plugin keeps, by container id, the configuration that it called the bridge plugin with.
pub const FLANNEL_DIR: &str = "/var/lib/cni/flannel";
/// The file whose lock guards a network's directory.
pub const LOCK: &str = "lock";
/// Mode of an address's file.
pub const MODE: u32 = 0o600;
/// A file is far smaller, in bytes; what is longer is not one.
pub const MAX_LENGTH: u64 = 4096;

/// Whose address it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The runtime's id of the container.
    pub container: String,
    /// Name of the interface in the container; absent in files of very old versions.
    pub interface: Option<String>,
}

impl Owner {
    /// Reads a file's bytes; `None` if nobody is named, as after a kill between creating and writing.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?.trim();
        let (container, interface) = match text.split_once('\n') {
            Some((container, interface)) => (container.trim(), Some(interface.trim())),
            None => (text, None),
        };
        let interface = interface.filter(|interface| !interface.is_empty()).map(str::to_owned);
        (!container.is_empty()).then(|| Self { container: container.to_owned(), interface })
    }

    /// The file's text.
    #[must_use]
    pub fn render(&self) -> String {
        match &self.interface {
            Some(interface) => format!("{}\r\n{interface}", self.container),
            None => self.container.clone(),
        }
    }

    /// Whether this is the owner. A file that names no interface stands for any of the container's.
    #[must_use]
    pub fn is(&self, container: &str, interface: &str) -> bool {
        self.container == container && self.interface.as_deref().is_none_or(|own| own == interface)
    }
}

/// The directory of one network.
#[must_use]
pub fn directory(data_dir: &Path, network: &str) -> PathBuf {
    data_dir.join(network)
}

/// The address that a file stands for; `None` for the other files of the directory.
#[must_use]
pub fn address_of(file_name: &str) -> Option<IpAddr> {
    file_name.parse().ok()
}

/// What flannel's plugin must find on DEL to call the bridge plugin for a container that weft has attached: without it, it
/// takes the container for one that it never had, and its addresses stay taken until the next boot. `data_dir` is where
/// host-local finds them.
#[must_use]
pub fn flannel_delegate(attachment: &Attachment, data_dir: &Path) -> String {
    let subnet = |ip: &super::attachment::AssignedIp| format!("{}/{}", ip.address.network(), ip.address.prefix());
    let ranges: Vec<_> = attachment.ips.iter().map(|ip| json!([{"subnet": subnet(ip)}])).collect();
    let delegate = json!({
        // A version that each release of those plugins speaks.
        "cniVersion": "0.3.1",
        "name": attachment.identity.network,
        "type": "bridge",
        "bridge": attachment.bridge,
        "isGateway": true,
        "ipMasq": false,
        "ipam": {"type": "host-local", "dataDir": data_dir, "ranges": ranges},
    });
    delegate.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t078_files_of_every_age_name_their_owner() {
        let owner = |interface: Option<&str>| Owner { container: "c1".into(), interface: interface.map(str::to_owned) };
        assert_eq!(Owner::parse(b"c1\r\neth0"), Some(owner(Some("eth0"))));
        assert_eq!(Owner::parse(b"c1\neth0\n"), Some(owner(Some("eth0"))));
        assert_eq!(Owner::parse(b" c1\r\n"), Some(owner(None)));
        for nobody in [&b""[..], b"\r\n", b" ", b"\xff"] {
            assert_eq!(Owner::parse(nobody), None, "{nobody:?}");
        }
        assert_eq!(owner(Some("eth0")).render(), "c1\r\neth0");
        assert!(owner(None).is("c1", "net1") && owner(Some("eth0")).is("c1", "eth0"));
        assert!(!owner(Some("eth0")).is("c1", "net1") && !owner(None).is("c2", "eth0"));
    }

    #[test]
    fn t078_only_addresses_are_addresses() {
        assert_eq!(address_of("10.1.0.5"), Some([10, 1, 0, 5].into()));
        assert!(address_of("fd00::5").is_some());
        for other in ["lock", "last_reserved_ip.0", ".10.1.0.5.7.tmp", "10.1.0"] {
            assert_eq!(address_of(other), None, "{other}");
        }
    }
}
