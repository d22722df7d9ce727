//! The `ipam` block: host-local's keys.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnetwork::IpNetwork;

use super::config::absolute;
use super::error::{CniError, Result};
use super::json::{Fields, Json};
use crate::formats::attachment::AssignedRoute;
use crate::ipam::range::{self, Range, RangeSet};

/// What addresses to give and which routes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IpamConfig {
    /// One address is given of each set; empty for "the node's subnet".
    pub sets: Vec<RangeSet>,
    /// Routes of the container, as configured.
    pub routes: Vec<AssignedRoute>,
    /// A resolv.conf(5) to report as the container's.
    pub resolv_conf: Option<PathBuf>,
}

/// An address that somebody asked for. A prefix length is allowed and has no meaning: the subnet's counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpRequest(pub IpAddr);

impl IpRequest {
    /// Reads `ip` or `ip/prefix`; `key` is where it stands.
    ///
    /// # Errors
    /// Code 7 naming key and value.
    pub fn parse(key: &str, text: &str) -> Result<Self> {
        text.parse::<IpNetwork>()
            .map(|network| Self(network.ip()))
            .map_err(|_| CniError::invalid(key, format!("{text:?}"), "an IP address, with or without a prefix length"))
    }
}

impl IpamConfig {
    /// Reads the block, and `runtimeConfig.ipRanges`, which go before its own.
    ///
    /// # Errors
    /// Code 7 naming key and value.
    pub fn parse(ipam: Option<&Json>, runtime: &Fields<'_>) -> Result<Self> {
        let fields = Fields::of(ipam, "ipam")?;
        if let Some(kind) = fields.string("type")?.filter(|kind| *kind != "host-local") {
            return Err(CniError::invalid(
                "ipam.type",
                format!("{kind:?}"),
                "host-local, which is built in; other address managers work with the bridge plugin",
            ));
        }
        // Read in the base already, where a wrong one counts as none.
        absolute(&fields, "dataDir")?;
        let mut sets = read_sets(runtime.array("ipRanges")?, &runtime.name("ipRanges"))?;
        // host-local's older form: one range without a list around it, which comes first.
        if fields.raw("subnet").is_some() {
            sets.push(vec![read_range(&fields)?]);
        }
        sets.extend(read_sets(fields.array("ranges")?, "ipam.ranges")?);
        range::validate(&sets)
            .map_err(|error| CniError::invalid(&format!("ipam.{}", error.key), error.value, error.expected))?;
        let routes = fields.array("routes")?.iter().map(read_route).collect::<Result<_>>()?;
        Ok(Self { sets, routes, resolv_conf: absolute(&fields, "resolvConf")? })
    }
}

fn read_sets(values: &[Json], path: &str) -> Result<Vec<RangeSet>> {
    let set = |value: &Json| match value {
        Json::Array(ranges) => ranges.iter().map(|range| read_range(&Fields::of(Some(range), path)?)).collect(),
        other => Err(CniError::invalid(path, other, "a list of lists of ranges")),
    };
    values.iter().map(set).collect()
}

fn read_range(fields: &Fields<'_>) -> Result<Range> {
    let expected = "a network such as 10.244.1.0/24";
    // ipnetwork takes a bare address for a host route; here it is a mistake.
    let subnet = fields
        .string("subnet")?
        .ok_or_else(|| CniError::invalid(&fields.name("subnet"), "nothing", expected))
        .and_then(|text| {
            let network = text.parse::<IpNetwork>().ok().filter(|_| text.contains('/'));
            network.ok_or_else(|| CniError::invalid(&fields.name("subnet"), format!("{text:?}"), expected))
        })?;
    let ip = |key| fields.parsed::<IpAddr>(key, "an IP address");
    Range::new(subnet, ip("rangeStart")?, ip("rangeEnd")?, ip("gateway")?)
        .map_err(|error| CniError::invalid(&fields.name(error.key), error.value, error.expected))
}

fn read_route(value: &Json) -> Result<AssignedRoute> {
    let fields = Fields::of(Some(value), "ipam.routes")?;
    let dst: IpNetwork = fields
        .parsed("dst", "a network such as 0.0.0.0/0")?
        .ok_or_else(|| CniError::invalid("ipam.routes.dst", "nothing", "a network such as 0.0.0.0/0"))?;
    let gw: Option<IpAddr> = fields.parsed("gw", "an IP address")?;
    if let Some(gw) = gw.filter(|gw| gw.is_ipv4() != dst.is_ipv4()) {
        return Err(CniError::invalid("ipam.routes.gw", gw, format!("an address of the same family as dst {dst}")));
    }
    let number = |key, expected: &str| fields.number::<u32>(key, expected).map(|number| number.filter(|n| *n != 0));
    Ok(AssignedRoute {
        // Go's library, which most configurations were tried with, drops host bits here.
        dst: IpNetwork::new(dst.network(), dst.prefix()).unwrap_or(dst),
        gw,
        mtu: number("mtu", "a number of bytes")?,
        advmss: number("advmss", "a number of bytes")?,
        priority: number("priority", "a number from 0 to 4294967295")?,
        // Table 0 and scope 0 are meant, where they are written.
        table: fields.number("table", "a number from 0 to 4294967295")?,
        scope: fields.number("scope", "a number from 0 to 255")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Code;

    fn read(ipam: &str, runtime: &str) -> Result<IpamConfig> {
        let (ipam, runtime) = (Json::parse_object(ipam.as_bytes())?, Json::parse_object(runtime.as_bytes())?);
        IpamConfig::parse(Some(&ipam), &Fields::of(Some(&runtime), "runtimeConfig")?)
    }

    #[test]
    fn ranges_of_every_origin_in_order() {
        let config = read(
            r#"{"type":"host-local","subnet":"10.2.0.0/24","ranges":[[{"subnet":"10.3.0.0/24","gateway":"10.3.0.9"}]],
                "routes":[{"dst":"0.0.0.0/0"},{"dst":"10.9.1.1/16","gw":"10.3.0.9","mtu":1400,"priority":0}]}"#,
            r#"{"ipRanges":[[{"subnet":"10.1.0.0/24"}]]}"#,
        )
        .unwrap();
        let subnets: Vec<_> = config.sets.iter().map(|set| set[0].subnet().to_string()).collect();
        assert_eq!(subnets, ["10.1.0.0/24", "10.2.0.0/24", "10.3.0.0/24"]);
        assert_eq!(config.routes[1].dst.to_string(), "10.9.0.0/16");
        assert_eq!((config.routes[1].mtu, config.routes[1].priority), (Some(1400), None));
        assert_eq!(read(r#"{"ranges":null,"routes":null}"#, "{}").unwrap(), IpamConfig::default());
    }

    #[test]
    fn t071_wrong_blocks_are_code_7_with_key_and_value() {
        for (ipam, words) in [
            (r#"{"type":"dhcp"}"#, r#"ipam.type: "dhcp""#),
            (r#"{"ranges":[{"subnet":"10.1.0.0/24"}]}"#, "ipam.ranges: "),
            (r#"{"ranges":[[{"subnet":"10.1.0.0"}]]}"#, r#"ipam.ranges.subnet: "10.1.0.0""#),
            (r#"{"ranges":[[{}]]}"#, "ipam.ranges.subnet: nothing"),
            (r#"{"ranges":[[]]}"#, "ipam.ranges: set 0"),
            (r#"{"ranges":[[{"subnet":"10.1.0.5/24"}]]}"#, "ipam.ranges.subnet: 10.1.0.5/24"),
            (r#"{"subnet":"10.1.0.0/24","rangeStart":"10.2.0.1"}"#, "ipam.rangeStart: 10.2.0.1"),
            (r#"{"subnet":"10.1.0.0/24","ranges":[[{"subnet":"10.1.0.0/16"}]]}"#, "ipam.ranges: "),
            (r#"{"resolvConf":"resolv.conf"}"#, r#"ipam.resolvConf: "resolv.conf""#),
            (r#"{"dataDir":"networks"}"#, r#"ipam.dataDir: "networks""#),
            (r#"{"routes":[{"dst":"nowhere"}]}"#, r#"ipam.routes.dst: "nowhere""#),
            (r#"{"routes":[{"dst":"0.0.0.0/0","gw":"fd00::1"}]}"#, "ipam.routes.gw: fd00::1"),
            (r#"{"routes":[{"dst":"0.0.0.0/0","scope":256}]}"#, "ipam.routes.scope: 256"),
        ] {
            let error = read(ipam, "{}").unwrap_err();
            assert_eq!(error.code, Code::InvalidConfig, "{ipam}");
            assert!(error.message.starts_with(words), "{error}");
        }
    }
}
