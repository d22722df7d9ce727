//! What runtimes remember of the pods they have attached: libcni's cache, one file an attachment. Pure.
//!
//! A file holds the configuration that was used, what the runtime asked for (`capabilityArgs`), and the result of ADD
//! (containernetworking/cni, `libcni/api.go`, kind `cniCacheV1`). It is where the host ports of pods stand that portmap has
//! made: its own chains can be read by nobody but itself.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnetwork::IpNetwork;
use serde::Deserialize;
use serde_json::Value;
use weft_cni::formats::attachment::{AssignedIp, Attachment, Identity, Sandbox, Status};
use weft_cni::formats::conflist::Conflist;
use weft_cni::formats::host_port::{HostPorts, PortMapping, Protocol};

/// Where libcni keeps the files unless told otherwise (`CacheDir` and `results`).
pub const DIRECTORY: &str = "/var/lib/cni/results";
/// What a file says that it is.
const KIND: &str = "cniCacheV1";

/// A pod with host ports, as another plugin attached it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inherited {
    /// It in the terms of weft's plugin: as much of a record as host ports need.
    pub attachment: Attachment,
    /// The interfaces on the host by name, with their MAC addresses. One of them is the pod's, another the bridge.
    pub on_host: Vec<(String, Option<String>)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    container_id: String,
    #[serde(default)]
    config: String,
    if_name: String,
    network_name: String,
    #[serde(default)]
    capability_args: Option<CapabilityArgs>,
    #[serde(default)]
    result: ResultOfAdd,
}

/// What tells whose a file is, whatever else is in it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    #[serde(default)]
    kind: Value,
    #[serde(default)]
    network_name: Value,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct CapabilityArgs {
    #[serde(default)]
    port_mappings: Option<Vec<Mapping>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    host_port: u16,
    container_port: u16,
    #[serde(default)]
    protocol: String,
    #[serde(default, rename = "hostIP")]
    host_ip: String,
}

#[derive(Deserialize, Default)]
struct ResultOfAdd {
    #[serde(default)]
    interfaces: Vec<Interface>,
    #[serde(default)]
    ips: Vec<Ip>,
}

#[derive(Deserialize)]
struct Interface {
    name: String,
    #[serde(default)]
    mac: Option<String>,
    #[serde(default)]
    sandbox: Option<String>,
}

#[derive(Deserialize)]
struct Ip {
    address: IpNetwork,
    #[serde(default)]
    gateway: Option<IpAddr>,
}

#[derive(Deserialize, Default)]
struct Config {
    #[serde(default)]
    plugins: Vec<Plugin>,
}

#[derive(Deserialize)]
struct Plugin {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    snat: Option<bool>,
    #[serde(default, rename = "masqAll")]
    masq_all: bool,
}

/// Reads a file: a pod of this network with host ports that portmap made; `None` for all others.
///
/// # Errors
/// What is wrong with a file that ought to be one.
pub fn read(bytes: &[u8], network: &str) -> Result<Option<Inherited>, String> {
    let head: Head = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if head.kind != KIND || head.network_name != network {
        return Ok(None);
    }
    let file: File = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let asked = file.capability_args.and_then(|args| args.port_mappings).unwrap_or_default();
    if asked.is_empty() {
        return Ok(None);
    }
    let config = STANDARD.decode(&file.config).map_err(|error| format!("config: {error}"))?;
    if Conflist::is_ours(&config) {
        return Ok(None);
    }
    let config: Config = serde_json::from_slice(&config).map_err(|error| format!("config: {error}"))?;
    let Some(portmap) = config.plugins.iter().find(|plugin| plugin.kind == "portmap") else { return Ok(None) };
    let mappings = asked.iter().filter(|mapping| mapping.host_port != 0).map(mapping).collect::<Result<Vec<_>, _>>()?;
    let host_ports = HostPorts { mappings, snat: portmap.snat.unwrap_or(true), masq_all: portmap.masq_all };
    let is_on_host = |interface: &&Interface| interface.sandbox.as_deref().unwrap_or_default().is_empty();
    let on_host = file.result.interfaces.iter().filter(is_on_host);
    let on_host = on_host.map(|interface| (interface.name.clone(), interface.mac.clone())).collect();
    let ips = file.result.ips.iter().map(|ip| AssignedIp { address: ip.address, gateway: ip.gateway }).collect();
    let identity = Identity { network: file.network_name, container: file.container_id, interface: file.if_name };
    Ok(Some(Inherited { attachment: attachment(identity, ips, host_ports), on_host }))
}

fn mapping(asked: &Mapping) -> Result<PortMapping, String> {
    let protocol = match asked.protocol.to_ascii_lowercase().as_str() {
        "" | "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        other => return Err(format!("portMappings: protocol is {other:?}, expected tcp, udp or sctp")),
    };
    let host_ip = match asked.host_ip.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| format!("portMappings: hostIP is {text:?}, expected an address"))?),
    };
    Ok(PortMapping { host_port: asked.host_port, container_port: asked.container_port, protocol, host_ip })
}

/// Of the rest of a record nothing is known, and nothing is needed: it is never written.
fn attachment(identity: Identity, ips: Vec<AssignedIp>, host_ports: HostPorts) -> Attachment {
    Attachment {
        identity,
        status: Status::default(),
        pid: 0,
        created: 0,
        sandbox: Sandbox { path: String::new(), device: 0, inode: 0 },
        host_interface: String::new(),
        host_mac: String::new(),
        container_mac: String::new(),
        bridge: String::new(),
        mtu: None,
        ips,
        routes: Vec::new(),
        pod: None,
        host_ports,
        limits: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn file(plugins: &Value, mappings: &Value) -> Vec<u8> {
        let config = json!({"cniVersion": "0.3.1", "name": "cbr0", "plugins": plugins}).to_string();
        json!({
            "kind": "cniCacheV1", "containerId": "c1", "ifName": "eth0", "networkName": "cbr0",
            "config": STANDARD.encode(config), "capabilityArgs": {"portMappings": mappings},
            "result": {"cniVersion": "0.3.1", "dns": {},
                "interfaces": [{"name": "cni0", "mac": "02:00:00:00:00:01"}, {"name": "veth1", "mac": "02:00:00:00:00:02"},
                    {"name": "eth0", "mac": "02:00:00:00:00:03", "sandbox": "/var/run/netns/x"}],
                "ips": [{"version": "4", "interface": 2, "address": "10.244.1.7/24", "gateway": "10.244.1.1"}]},
        })
        .to_string()
        .into_bytes()
    }

    #[test]
    fn host_ports_of_portmap_are_read_with_all_that_they_need() {
        let plugins = json!([{"type": "flannel", "delegate": {}}, {"type": "portmap", "masqAll": true}]);
        let ports = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""},
            {"hostPort": 53, "containerPort": 5353, "protocol": "UDP", "hostIP": "192.0.2.1"},
            {"hostPort": 0, "containerPort": 9, "protocol": "tcp"}]);
        let found = read(&file(&plugins, &ports), "cbr0").unwrap().unwrap();
        assert_eq!(found.attachment.identity.container, "c1");
        assert_eq!(found.attachment.ips[0].address.to_string(), "10.244.1.7/24");
        assert_eq!(found.on_host.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["cni0", "veth1"]);
        let HostPorts { mappings, snat, masq_all } = &found.attachment.host_ports;
        assert_eq!(mappings.iter().map(ToString::to_string).collect::<Vec<_>>(), ["8080/tcp", "53/udp of 192.0.2.1"]);
        assert!(*snat && *masq_all);
    }

    #[test]
    fn pods_without_ports_of_portmap_are_passed_over() {
        let ports = json!([{"hostPort": 8080, "containerPort": 80}]);
        let chain = json!([{"type": "flannel"}, {"type": "portmap"}]);
        assert!(read(&file(&chain, &ports), "cbr0").unwrap().is_some());
        assert_eq!(read(&file(&chain, &ports), "podman"), Ok(None));
        assert_eq!(read(&file(&chain, &Value::Null), "cbr0"), Ok(None));
        assert_eq!(read(&file(&json!([{"type": "weft-cni"}]), &ports), "cbr0"), Ok(None));
        assert_eq!(read(&file(&json!([{"type": "bridge"}]), &ports), "cbr0"), Ok(None));
    }

    #[test]
    fn what_cannot_be_understood_is_named() {
        let chain = json!([{"type": "portmap"}]);
        let wrong = read(&file(&chain, &json!([{"hostPort": 1, "containerPort": 1, "protocol": "icmp"}])), "cbr0");
        assert!(wrong.unwrap_err().contains("icmp"));
        assert!(read(b"{", "cbr0").is_err());
        assert!(read(br#"{"kind": "cniCacheV1", "networkName": "cbr0"}"#, "cbr0").is_err());
        // What others keep there, in whatever shape, is theirs.
        for other in [r#"{"kind": "cniCacheV1", "networkName": "podman", "containerId": 1}"#, r#"{"kind": 2}"#, "{}"] {
            assert_eq!(read(other.as_bytes(), "cbr0"), Ok(None), "{other}");
        }
    }
}
