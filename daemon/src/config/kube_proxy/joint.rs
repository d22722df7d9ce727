//! What depends on more than one key of a `KubeProxyConfiguration`.

use std::net::IpAddr;

use super::texts::milliseconds;
use super::{Found, Layer, Wrong};

/// The mode that kube-proxy would run in, which decides whose section it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    /// Also where no mode is given.
    Iptables,
    Ipvs,
    Nftables,
}

impl Section {
    pub(super) fn of(mode: Option<&str>) -> Self {
        match mode {
            Some("ipvs") => Self::Ipvs,
            Some("nftables") => Self::Nftables,
            _ => Self::Iptables,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Ipvs => "ipvs",
            Self::Nftables => "nftables",
        }
    }
}

pub(super) fn map(found: &Found, section: Section, layer: &mut Layer) -> Result<(), Wrong> {
    mode(found, section, layer);
    bind_address(found, layer);
    detect_local(found, layer)?;
    [Section::Iptables, Section::Ipvs, Section::Nftables].into_iter().try_for_each(|section| periods(found, section))
}

fn put(layer: &mut Layer, key: &'static str, from: &str, text: &str) {
    layer.texts.insert(key, (from.to_owned(), vec![text.to_owned()]));
}

fn mode(found: &Found, section: Section, layer: &mut Layer) {
    let mode = if section == Section::Iptables { "auto" } else { section.name() };
    put(layer, "proxy-mode", "mode", mode);
    if section == Section::Iptables {
        let given = found.text("mode").map_or("no mode is given, which means iptables", |_| "mode is iptables");
        layer.warnings.push(format!("{given}: weft has no iptables mode and takes it for auto"));
    }
    if section != Section::Nftables && found.text("nodePortAddresses").is_none() {
        layer.warnings.push(format!(
            "nodePortAddresses is not given, so that kube-proxy's {} mode took node ports at every address of the node; \
             weft takes them at node-port-addresses, by default the node's primary address",
            section.name()
        ));
    }
}

/// An address of one family is also the default of the addresses to serve at.
fn bind_address(found: &Found, layer: &mut Layer) {
    let Some(address) = found.text("bindAddress").and_then(|text| text.parse::<IpAddr>().ok()) else { return };
    if address.is_ipv6() {
        for (given, key, default) in [
            ("healthzBindAddress", "proxy-healthz-bind", "[::]:10256"),
            ("metricsBindAddress", "proxy-metrics-bind", "[::1]:10249"),
        ] {
            if found.text(given).is_none() {
                put(layer, key, "bindAddress", default);
            }
        }
    }
    if !address.is_unspecified() {
        layer.warnings.push(format!(
            "bindAddress {address} does not choose the node's address: weft takes public-ip, public-ipv6, or the uplink's"
        ));
    }
}

fn detect_local(found: &Found, layer: &mut Layer) -> Result<(), Wrong> {
    let Some(mode) = found.text("detectLocalMode") else { return Ok(()) };
    let (prefix, from) = match mode.as_str() {
        "NodeCIDR" => {
            put(layer, "detect-local", "detectLocalMode", "node-cidr");
            return Ok(());
        }
        "BridgeInterface" => ("bridge", "detectLocal.bridgeInterface"),
        "InterfaceNamePrefix" => ("interface-prefix", "detectLocal.interfaceNamePrefix"),
        _ => {
            put(layer, "detect-local", "detectLocalMode", "cluster-cidr");
            return Ok(());
        }
    };
    let Some(name) = found.text(from) else {
        let expected = "the name that detectLocalMode asks for";
        return Err(Wrong { key: from.to_owned(), value: String::new(), expected });
    };
    put(layer, "detect-local", from, &format!("{prefix}:{name}"));
    Ok(())
}

/// kube-proxy's default for a period that is not given.
const SYNC_PERIOD: u64 = 30_000;

fn periods(found: &Found, section: Section) -> Result<(), Wrong> {
    let given = |key: &str| {
        let path = format!("{}.{key}", section.name());
        found.text(&path).map(|text| (path, text))
    };
    let Some((key, value)) = given("minSyncPeriod") else { return Ok(()) };
    let longest = given("syncPeriod").and_then(|(_, text)| milliseconds(&text)).unwrap_or(SYNC_PERIOD);
    if milliseconds(&value).is_some_and(|shortest| shortest > longest) {
        return Err(Wrong { key, value, expected: "a time not above the syncPeriod beside it" });
    }
    Ok(())
}
