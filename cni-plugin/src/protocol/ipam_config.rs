//! The `ipam` block: host-local's keys, and those of static.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnetwork::IpNetwork;

use super::config::absolute;
use super::error::{CniError, Result};
use super::json::{Fields, Json};
use crate::formats::attachment::{AssignedIp, AssignedRoute};
use crate::ipam::range::{self, Range, RangeSet};

/// What addresses to give and which routes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IpamConfig {
    /// One address is given of each set; empty for "the node's subnet".
    pub sets: Vec<RangeSet>,
    /// The addresses to give, where they stand in the configuration (type `static`).
    pub fixed: Option<Vec<AssignedIp>>,
    /// Routes of the container, as configured.
    pub routes: Vec<AssignedRoute>,
    /// A resolv.conf(5) to report as the container's.
    pub resolv_conf: Option<PathBuf>,
}

/// An address that somebody asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpRequest {
    /// The address.
    pub ip: IpAddr,
    /// The prefix length, if one was told. Of an address out of a range, the range's counts.
    pub prefix: Option<u8>,
}

impl IpRequest {
    /// Reads `ip` or `ip/prefix`; `key` is where it stands.
    ///
    /// # Errors
    /// Code 7 naming key and value.
    pub fn parse(key: &str, text: &str) -> Result<Self> {
        text.parse::<IpNetwork>()
            .map(|network| Self { ip: network.ip(), prefix: text.contains('/').then_some(network.prefix()) })
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
        let kind = fields.string("type")?.unwrap_or("host-local");
        if !["host-local", "static"].contains(&kind) {
            return Err(CniError::invalid(
                "ipam.type",
                format!("{kind:?}"),
                "host-local or static, which are built in; other address managers work with the bridge plugin",
            ));
        }
        // Read in the base already, where a wrong one counts as none.
        absolute(&fields, "dataDir")?;
        let routes = fields.array("routes")?.iter().map(read_route).collect::<Result<_>>()?;
        let resolv_conf = absolute(&fields, "resolvConf")?;
        if kind == "static" {
            let addresses = fields.array("addresses")?.iter().map(read_address).collect::<Result<_>>()?;
            return Ok(Self { sets: Vec::new(), fixed: Some(addresses), routes, resolv_conf });
        }
        let mut sets = read_sets(runtime.array("ipRanges")?, &runtime.name("ipRanges"))?;
        // host-local's older form: one range without a list around it, which comes first.
        if fields.raw("subnet").is_some() {
            sets.push(vec![read_range(&fields)?]);
        }
        sets.extend(read_sets(fields.array("ranges")?, "ipam.ranges")?);
        range::validate(&sets)
            .map_err(|error| CniError::invalid(&format!("ipam.{}", error.key), error.value, error.expected))?;
        Ok(Self { sets, fixed: None, routes, resolv_conf })
    }

    /// Where addresses are fixed, puts those that were asked for in their place, or beside them: the runtime's in the place
    /// of all others, those of `args.cni` in the place of the configuration's, those of `CNI_ARGS` beside these. Returns
    /// whether addresses are fixed. With `is_gateway`, an address without a gateway gets the first host of its subnet.
    ///
    /// # Errors
    /// Code 7 for an address without a prefix length, or if there is none at all.
    pub fn fix(&mut self, [environment, named, runtime]: [&[IpRequest]; 3], is_gateway: bool) -> Result<bool> {
        let Some(fixed) = &mut self.fixed else { return Ok(false) };
        let nearest = [runtime, named].into_iter().find(|asked| !asked.is_empty());
        if nearest.is_some() {
            fixed.clear();
        }
        for request in nearest.unwrap_or(environment) {
            let address =
                request.prefix.and_then(|prefix| IpNetwork::new(request.ip, prefix).ok()).ok_or_else(|| {
                    CniError::invalid("ips", request.ip, "an address with its prefix length, as ipam.type is static")
                })?;
            fixed.push(AssignedIp { address, gateway: None });
        }
        for ip in fixed.iter_mut().filter(|ip| is_gateway && ip.gateway.is_none()) {
            ip.gateway = Range::new(network_of(ip.address), None, None, None)
                .map(|range| range.gateway())
                .ok()
                .filter(|gateway| *gateway != ip.address.ip());
        }
        if fixed.is_empty() {
            return Err(CniError::invalid("ipam.addresses", "[]", "at least one address, as ipam.type is static"));
        }
        Ok(true)
    }
}

fn network_of(address: IpNetwork) -> IpNetwork {
    IpNetwork::new(address.network(), address.prefix()).unwrap_or(address)
}

fn read_address(value: &Json) -> Result<AssignedIp> {
    let fields = Fields::of(Some(value), "ipam.addresses")?;
    let expected = "an address with prefix length, such as 10.1.0.5/24";
    let text = fields.string("address")?.unwrap_or_default();
    let address = text.contains('/').then(|| text.parse().ok()).flatten();
    let address: IpNetwork =
        address.ok_or_else(|| CniError::invalid("ipam.addresses.address", format!("{text:?}"), expected))?;
    let gateway: Option<IpAddr> = fields.parsed("gateway", "an IP address")?;
    if let Some(gateway) = gateway.filter(|gateway| !address.contains(*gateway) || *gateway == address.ip()) {
        let expected = format!("another address in the subnet of {address}");
        return Err(CniError::invalid("ipam.addresses.gateway", gateway, expected));
    }
    Ok(AssignedIp { address, gateway })
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
    fn t041_fixed_addresses_give_way_to_nearer_wishes() {
        let block = r#"{"type":"static","addresses":[{"address":"10.1.0.5/24","gateway":"10.1.0.254"},{"address":"fd00::5/64"}]}"#;
        let fix = |environment: &[&str], named: &[&str], runtime: &[&str]| {
            let requests = [environment, named, runtime]
                .map(|all| all.iter().map(|ip| IpRequest::parse("ips", ip).unwrap()).collect::<Vec<_>>());
            let mut config = read(block, "{}").unwrap();
            config.fix(requests.each_ref().map(Vec::as_slice), true)?;
            let show = |ip: &AssignedIp| format!("{} via {}", ip.address, ip.gateway.unwrap());
            Ok::<Vec<String>, CniError>(config.fixed.unwrap().iter().map(show).collect())
        };
        let own = ["10.1.0.5/24 via 10.1.0.254", "fd00::5/64 via fd00::1"];
        assert_eq!(fix(&[], &[], &[]).unwrap(), own);
        let beside = fix(&["10.2.0.5/24"], &[], &[]).unwrap();
        assert_eq!(beside, [&own[..], &["10.2.0.5/24 via 10.2.0.1"]].concat());
        assert_eq!(fix(&["10.2.0.5/24"], &["10.3.0.5/24"], &[]).unwrap(), ["10.3.0.5/24 via 10.3.0.1"]);
        assert_eq!(fix(&[], &["10.3.0.5/24"], &["10.4.0.5/24"]).unwrap(), ["10.4.0.5/24 via 10.4.0.1"]);
        assert_eq!(fix(&[], &[], &["10.4.0.5"]).unwrap_err().code, Code::InvalidConfig);
        let none = read(r#"{"type":"static"}"#, "{}").unwrap().fix([&[], &[], &[]], true).unwrap_err();
        assert!(none.message.starts_with("ipam.addresses: "), "{none}");
    }

    #[test]
    fn t071_wrong_blocks_are_code_7_with_key_and_value() {
        for (ipam, words) in [
            (r#"{"type":"dhcp"}"#, r#"ipam.type: "dhcp""#),
            (r#"{"type":"static","addresses":[{"address":"10.1.0.5"}]}"#, r#"ipam.addresses.address: "10.1.0.5""#),
            (
                r#"{"type":"static","addresses":[{"address":"10.1.0.5/24","gateway":"10.2.0.1"}]}"#,
                "ipam.addresses.gateway: 10.2.0.1",
            ),
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
