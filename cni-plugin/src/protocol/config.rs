//! The network configuration on standard input.
//!
//! [`Base`] is what every verb needs and DEL must find even in a configuration that ADD would refuse. [`NetConf`] is all
//! of it, checked.

use std::path::PathBuf;

use weft_netlink::MacAddr;

use super::env::{Args, is_identifier, is_link_name, unicast_mac};
use super::error::{CniError, Code, Result};
use super::ipam_config::{IpRequest, IpamConfig};
use super::json::{Fields, Json};
use super::result::Dns;
use super::version::Version;
use super::{bandwidth, capabilities};
use crate::formats::attachment::{Identity, Limits};
use crate::formats::conflist::{Etcd, STATE_DIR, SUBNET_FILE};
use crate::formats::host_local::{DATA_DIR, FLANNEL_DIR};
use crate::formats::host_port::HostPorts;

/// What every verb needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// Version of the protocol.
    pub version: Version,
    /// Network name.
    pub name: String,
    /// Plugin type, as which we are called.
    pub kind: String,
    /// Where attachments are recorded.
    pub state_dir: PathBuf,
    /// Where host-local recorded those that were there before.
    pub data_dir: PathBuf,
    /// Where flannel's plugin kept what it called the bridge plugin with.
    pub flannel_dir: PathBuf,
}

impl Base {
    /// Reads it.
    ///
    /// # Errors
    /// Code 7 for a missing or bad `name` or a relative `stateDir`, code 1 for the version.
    pub fn parse(json: &Json) -> Result<Self> {
        let fields = Fields::of(Some(json), "")?;
        let name = fields
            .string("name")?
            .ok_or_else(|| CniError::new(Code::InvalidConfig, "missing network name: name is empty"))?;
        if !is_identifier(name) {
            return Err(CniError::invalid(
                "name",
                format!("{name:?}"),
                "letters, digits, _, . and -, a letter or digit first",
            ));
        }
        Ok(Self {
            version: Version::of_config(fields.string("cniVersion")?.unwrap_or_default())?,
            name: name.to_owned(),
            kind: fields.string("type")?.unwrap_or_default().to_owned(),
            state_dir: absolute(&fields, "stateDir")?.unwrap_or_else(|| STATE_DIR.into()),
            // What ADD would refuse in them must not keep DEL from its work.
            data_dir: path_or(json.get("ipam").and_then(|ipam| ipam.get("dataDir")), DATA_DIR),
            flannel_dir: path_or(json.get("dataDir"), FLANNEL_DIR),
        })
    }

    /// The identity of one attachment in this network.
    #[must_use]
    pub fn identity(&self, container: &str, interface: &str) -> Identity {
        Identity { network: self.name.clone(), container: container.to_owned(), interface: interface.to_owned() }
    }
}

/// The bridge and how containers are plugged into it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of the configuration")]
pub struct BridgeConfig {
    /// Its name.
    pub name: String,
    /// Whether it bears the gateway's addresses.
    pub is_gateway: bool,
    /// Whether containers get a default route through it.
    pub is_default_gateway: bool,
    /// Whether an address of another subnet on it gives way; if absent, when the bridge is of our making.
    pub force_address: Option<bool>,
    /// MTU of both ends in bytes; if absent, the subnet file's.
    pub mtu: Option<u32>,
    /// Whether a container may reach itself through the bridge.
    pub hairpin: bool,
    /// Whether the bridge is set promiscuous.
    pub promiscuous: bool,
    /// Whether containers are kept from each other on the link layer.
    pub port_isolation: bool,
    /// Whether IPv6 duplicate address detection is waited for.
    pub detect_duplicates: bool,
}

/// All of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetConf {
    /// What every verb needs.
    pub base: Base,
    /// The bridge.
    pub bridge: BridgeConfig,
    /// Addresses and routes.
    pub ipam: IpamConfig,
    /// DNS settings to report.
    pub dns: Dns,
    /// Addresses that were asked for, out of the ranges.
    pub ips: Vec<IpRequest>,
    /// Address of the container's interface that was asked for.
    pub mac: Option<MacAddr>,
    /// Ports of the host that are to lead to the container.
    pub host_ports: HostPorts,
    /// Limits of the container's traffic.
    pub limits: Limits,
    /// The subnet file.
    pub subnet_file: PathBuf,
    /// The cluster's store, if the plugin may lease a subnet itself.
    pub etcd: Option<Etcd>,
    /// The command that leases a subnet.
    pub lease_command: Option<PathBuf>,
}

impl NetConf {
    /// Reads it. `args` is what the environment asks for.
    ///
    /// # Errors
    /// Code 7 for a bad value, code 2 for one that is understood and not supported, each naming key and value.
    pub fn parse(json: &Json, args: &Args) -> Result<Self> {
        let fields = Fields::of(Some(json), "")?;
        let base = Base::parse(json)?;
        let runtime = Fields::of(fields.raw("runtimeConfig"), "runtimeConfig")?;
        let named = Fields::of(fields.raw("args"), "args")?;
        let named = Fields::of(named.raw("cni"), "args.cni")?;
        let bridge = read_bridge(&fields)?;
        let mut ipam = IpamConfig::parse(fields.raw("ipam"), &runtime)?;
        refuse_unsupported(&fields)?;
        let limits = bandwidth::limits(&fields, &runtime)?;

        let asked = args.ips.iter().map(|ip| IpRequest::parse("CNI_ARGS.IP", ip)).collect::<Result<Vec<_>>>()?;
        let ips_of = |source: &Fields<'_>| -> Result<Vec<IpRequest>> {
            source.strings("ips")?.into_iter().map(|ip| IpRequest::parse(&source.name("ips"), ip)).collect()
        };
        let sources = [asked, ips_of(&named)?, ips_of(&runtime)?];
        let ips = if ipam.fix(sources.each_ref().map(Vec::as_slice), bridge.is_gateway)? {
            Vec::new()
        } else {
            sources.concat()
        };
        let mac = |source: &Fields<'_>| -> Result<Option<MacAddr>> {
            let text = source.string("mac")?;
            let bad = |error| CniError::new(Code::InvalidConfig, format!("{}: {error}", source.name("mac")));
            text.map(|text| unicast_mac(text).map_err(bad)).transpose()
        };
        Ok(Self {
            // All of them are checked, and the runtime has the last word.
            mac: [mac(&runtime)?, mac(&named)?, args.mac].into_iter().flatten().next(),
            host_ports: read_host_ports(&fields, &runtime)?,
            limits,
            base,
            bridge,
            ipam,
            dns: read_dns(&fields)?,
            ips,
            subnet_file: absolute(&fields, "subnetFile")?.unwrap_or_else(|| SUBNET_FILE.into()),
            etcd: read_etcd(&fields)?,
            lease_command: absolute(&fields, "leaseCommand")?,
        })
    }
}

fn read_bridge(fields: &Fields<'_>) -> Result<BridgeConfig> {
    let name = fields.string("bridge")?.unwrap_or("cni0");
    if !is_link_name(name) {
        return Err(CniError::invalid("bridge", format!("{name:?}"), "an interface name of 1 to 15 bytes"));
    }
    let expected = "a number of bytes from 68 to 65535, or 0 for the subnet file's";
    let mtu = fields.number::<u32>("mtu", expected)?.filter(|mtu| *mtu != 0);
    if let Some(mtu) = mtu.filter(|mtu| !(68..=65535).contains(mtu)) {
        return Err(CniError::invalid("mtu", mtu, expected));
    }
    let is_default_gateway = fields.boolean("isDefaultGateway")?.unwrap_or(false);
    let promiscuous = fields.boolean("promiscMode")?.unwrap_or(false);
    let hairpin = fields.boolean("hairpinMode")?;
    if promiscuous && hairpin == Some(true) {
        return Err(CniError::invalid("promiscMode", true, "false with hairpinMode: true; a bridge cannot be both"));
    }
    // Accepted and without effect here: the agent masquerades once a node, not once a pod.
    fields.boolean("ipMasq")?;
    fields.string("ipMasqBackend")?;
    Ok(BridgeConfig {
        name: name.to_owned(),
        is_gateway: fields.boolean("isGateway")?.unwrap_or(true) || is_default_gateway,
        is_default_gateway,
        force_address: fields.boolean("forceAddress")?,
        mtu,
        hairpin: hairpin.unwrap_or(!promiscuous),
        promiscuous,
        port_isolation: fields.boolean("portIsolation")?.unwrap_or(false),
        detect_duplicates: fields.boolean("enabledad")?.unwrap_or(false),
    })
}

fn read_host_ports(fields: &Fields<'_>, runtime: &Fields<'_>) -> Result<HostPorts> {
    // Accepted and without effect here: nf_tables it is, whatever else is on the machine, and no mark is needed.
    fields.string("backend")?;
    fields.number::<u8>("markMasqBit", "a bit from 0 to 31")?;
    Ok(HostPorts {
        mappings: capabilities::port_mappings(runtime)?,
        snat: fields.boolean("snat")?.unwrap_or(true),
        masq_all: fields.boolean("masqAll")?.unwrap_or(false),
    })
}

/// Refuses what would change who reaches whom if it were passed over.
fn refuse_unsupported(fields: &Fields<'_>) -> Result<()> {
    const CHAIN: &str = "chain the plugin that does it behind this one, or use the bridge plugin";
    // The conditions and the chain are portmap's keys, the last two firewall's.
    let keys = [
        "macspoofchk",
        "vlan",
        "vlanTrunk",
        "preserveDefaultVlan",
        "disableContainerInterface",
        "conditionsV4",
        "conditionsV6",
        "externalSetMarkChain",
        "delegate",
        "ingressPolicy",
        "firewalldZone",
    ];
    for key in keys {
        match fields.raw(key) {
            None | Some(Json::Bool(false) | Json::Integer(0)) => {}
            Some(Json::String(text)) if text.is_empty() => {}
            Some(Json::Array(list)) if list.is_empty() => {}
            Some(value) => return Err(CniError::unsupported(key, value, CHAIN)),
        }
    }
    Ok(())
}

fn read_dns(fields: &Fields<'_>) -> Result<Dns> {
    let dns = Fields::of(fields.raw("dns"), "dns")?;
    let list = |key| -> Result<Vec<String>> { Ok(dns.strings(key)?.into_iter().map(str::to_owned).collect()) };
    Ok(Dns {
        nameservers: list("nameservers")?,
        domain: dns.string("domain")?.unwrap_or_default().to_owned(),
        search: list("search")?,
        options: list("options")?,
    })
}

fn read_etcd(fields: &Fields<'_>) -> Result<Option<Etcd>> {
    let etcd = Fields::of(fields.raw("etcd"), "etcd")?;
    let endpoints: Vec<String> = etcd.strings("endpoints")?.into_iter().map(str::to_owned).collect();
    for endpoint in &endpoints {
        // They are handed on in one argument, separated by commas.
        if !(endpoint.starts_with("http://") || endpoint.starts_with("https://")) || endpoint.contains([',', ' ']) {
            return Err(CniError::invalid(
                "etcd.endpoints",
                format!("{endpoint:?}"),
                "a URL such as https://10.0.0.1:2379",
            ));
        }
    }
    let text = |key| -> Result<Option<String>> { Ok(etcd.string(key)?.map(str::to_owned)) };
    let etcd = Etcd {
        endpoints,
        prefix: text("prefix")?,
        ca_file: absolute(&etcd, "caFile")?,
        cert_file: absolute(&etcd, "certFile")?,
        key_file: absolute(&etcd, "keyFile")?,
        username: text("username")?,
        password: text("password")?,
    };
    Ok((!etcd.endpoints.is_empty()).then_some(etcd))
}

fn path_or(value: Option<&Json>, default: &str) -> PathBuf {
    match value {
        Some(Json::String(path)) if path.starts_with('/') && !path.contains('\0') => path.into(),
        _ => default.into(),
    }
}

/// A path that does not depend on where the runtime happens to be.
pub(super) fn absolute(fields: &Fields<'_>, key: &str) -> Result<Option<PathBuf>> {
    let Some(path) = fields.string(key)?.map(PathBuf::from) else { return Ok(None) };
    if path.is_absolute() && !path.as_os_str().as_encoded_bytes().contains(&0) {
        return Ok(Some(path));
    }
    Err(CniError::invalid(&fields.name(key), format!("{:?}", path.display().to_string()), "an absolute path"))
}

/// The attachments that GC must keep: `cni.dev/valid-attachments`, or the older `cni.dev/attachments`.
///
/// `null` and `[]` say that nothing is valid (a runtime in Go passes a nil slice for a network without pods).
///
/// # Errors
/// Code 7 if neither key is there: then it is not known what is valid, and nothing may be deleted.
pub fn valid_attachments(base: &Base, json: &Json) -> Result<Vec<Identity>> {
    let keys = ["cni.dev/valid-attachments", "cni.dev/attachments"];
    let Some(key) = keys.into_iter().find(|key| json.has(key)) else {
        let message = format!("{}: missing; without it GC cannot know what to keep, and deletes nothing", keys[0]);
        return Err(CniError::new(Code::InvalidConfig, message));
    };
    let attachment = |value: &Json| {
        let fields = Fields::of(Some(value), key)?;
        let text =
            |name| fields.string(name)?.ok_or_else(|| CniError::invalid(&fields.name(name), "nothing", "a name"));
        Ok(base.identity(text("containerID")?, text("ifname")?))
    };
    Fields::of(Some(json), "")?.array(key)?.iter().map(attachment).collect()
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
