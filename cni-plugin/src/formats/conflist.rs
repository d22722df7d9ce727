//! The network configuration list, `/etc/cni/net.d/10-weft.conflist`, that makes a runtime call weft-cni.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::json;

/// The plugin's type, which is also its binary's name.
pub const PLUGIN_TYPE: &str = "weft-cni";
/// File name under `net.d`.
pub const FILE_NAME: &str = "10-weft.conflist";
/// Mode of the file: it may name a password.
pub const MODE: u32 = 0o600;
/// Where the subnet file is unless told otherwise.
pub const SUBNET_FILE: &str = "/run/flannel/subnet.env";
/// Where attachments are recorded unless told otherwise; one directory a network below it.
pub const STATE_DIR: &str = "/run/weft/cni";
/// The mark (`IFLA_IFALIAS`) on a bridge that weft made, be it the plugin or the agent: it may be changed and removed.
pub const BRIDGE_ALIAS: &str = "weft";

/// How the plugin reaches the cluster's store when it has to lease a subnet itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Etcd {
    /// URLs of the members.
    pub endpoints: Vec<String>,
    /// Prefix of all keys; `/coreos.com/network` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// CA bundle that signs the members' certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    /// Key of the client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// User name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The user's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

/// What is written into weft's conflist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflist {
    /// Network name; `cbr0`, as flannel's, so that a node can change over in place.
    pub name: String,
    /// The bridge that pods are plugged into.
    pub bridge: String,
    /// MTU of pods in bytes; that of the subnet file if absent.
    pub mtu: Option<u32>,
    /// The subnet file.
    pub subnet_file: PathBuf,
    /// Where attachments are recorded.
    pub state_dir: PathBuf,
    /// The cluster's store, for a node without a subnet file.
    pub etcd: Option<Etcd>,
    /// The absolute path of the command that leases a subnet: `weft`.
    pub lease_command: Option<PathBuf>,
}

impl Default for Conflist {
    fn default() -> Self {
        Self {
            name: "cbr0".to_owned(),
            bridge: "cni0".to_owned(),
            mtu: None,
            subnet_file: SUBNET_FILE.into(),
            state_dir: STATE_DIR.into(),
            etcd: None,
            lease_command: None,
        }
    }
}

impl Conflist {
    /// The file's text.
    ///
    /// `cniVersion` is one that containerd 1.6 understands; newer runtimes choose 1.1.0 out of `cniVersions` and then call
    /// STATUS and GC.
    #[must_use]
    pub fn render(&self) -> String {
        let mut plugin = json!({
            "type": PLUGIN_TYPE,
            "bridge": self.bridge,
            "isDefaultGateway": true,
            "forceAddress": true,
            "hairpinMode": true,
            "subnetFile": self.subnet_file,
            "stateDir": self.state_dir,
            "capabilities": {"portMappings": true, "bandwidth": true, "ips": true, "mac": true},
        });
        let optional = [
            ("mtu", self.mtu.map(|mtu| json!(mtu))),
            ("etcd", self.etcd.as_ref().map(|etcd| json!(etcd))),
            ("leaseCommand", self.lease_command.as_ref().map(|command| json!(command))),
        ];
        for (key, value) in optional {
            if let Some(value) = value {
                plugin[key] = value;
            }
        }
        let list = json!({
            "cniVersion": "1.0.0",
            "cniVersions": ["0.4.0", "1.0.0", "1.1.0"],
            "name": self.name,
            "plugins": [plugin],
        });
        format!("{list:#}\n")
    }

    /// Whether a configuration file (list or single plugin) is one that calls weft-cni. Nothing else in `net.d` is ours to
    /// replace or remove.
    #[must_use]
    pub fn is_ours(bytes: &[u8]) -> bool {
        #[derive(Deserialize)]
        struct File {
            #[serde(default, rename = "type")]
            kind: Option<String>,
            #[serde(default)]
            plugins: Option<Vec<Plugin>>,
        }
        #[derive(Deserialize)]
        struct Plugin {
            #[serde(default, rename = "type")]
            kind: Option<String>,
        }
        serde_json::from_slice::<File>(bytes).is_ok_and(|file| {
            let listed = file.plugins.into_iter().flatten().filter_map(|plugin| plugin.kind);
            file.kind.into_iter().chain(listed).any(|kind| kind == PLUGIN_TYPE)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_and_new_runtimes_both_find_their_version() {
        let list: serde_json::Value = serde_json::from_str(&Conflist::default().render()).unwrap();
        assert_eq!(list["cniVersion"], "1.0.0");
        assert_eq!(list["cniVersions"], json!(["0.4.0", "1.0.0", "1.1.0"]));
        assert_eq!(list["name"], "cbr0");
        let plugin = &list["plugins"][0];
        assert_eq!(plugin["type"], "weft-cni");
        assert_eq!(plugin["bridge"], "cni0");
        assert_eq!(plugin["isDefaultGateway"], true);
        assert!(plugin.get("mtu").is_none() && plugin.get("etcd").is_none());
    }

    #[test]
    fn the_store_stands_in_a_block_of_its_own() {
        let etcd = Etcd { endpoints: vec!["http://a:2379".to_owned()], ca_file: Some("/ca".into()), ..Etcd::default() };
        let conflist = Conflist {
            etcd: Some(etcd),
            lease_command: Some("/bin/weft".into()),
            mtu: Some(1400),
            ..Conflist::default()
        };
        let list: serde_json::Value = serde_json::from_str(&conflist.render()).unwrap();
        assert_eq!(list["plugins"][0]["etcd"], json!({"endpoints": ["http://a:2379"], "caFile": "/ca"}));
        assert_eq!(list["plugins"][0]["leaseCommand"], "/bin/weft");
        assert_eq!(list["plugins"][0]["mtu"], 1400);
    }

    #[test]
    fn tells_its_own_files_from_others() {
        assert!(Conflist::is_ours(Conflist::default().render().as_bytes()));
        assert!(Conflist::is_ours(br#"{"name":"x","type":"weft-cni"}"#));
        for other in [&br#"{"plugins":[{"type":"flannel"}]}"#[..], b"", b"[]", b"weft-cni", br#"{"plugins":null}"#] {
            assert!(!Conflist::is_ours(other), "{}", String::from_utf8_lossy(other));
        }
    }
}
