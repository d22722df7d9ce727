//! Address ranges against the machine's own, and proxies that would be asked for the cluster's addresses.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::bootstrap::host::facts::HostFacts;
use crate::bootstrap::host::report::Finding;
use crate::bootstrap::host::wanted::{Role, Wanted};

pub(super) fn judge(facts: &HostFacts, wanted: &Wanted) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(own_address(facts, wanted));
    findings.extend(between(wanted));
    for (name, flag, subnets) in [
        ("PodSubnet", "--pod-network-cidr", &wanted.pod_subnets),
        ("ServiceSubnet", "--service-cidr", &wanted.service_subnets),
    ] {
        // Whoever joins has no choice of ranges.
        let fix = match wanted.role {
            Role::Init => format!("choose another range with {flag}"),
            Role::Join { .. } => "the cluster has this range: give the machine other addresses or routes".to_owned(),
        };
        findings.extend(subnets.iter().filter_map(|subnet| on_host(facts, name, &fix, *subnet)));
    }
    findings.extend(proxies(facts, wanted));
    findings
}

/// etcd and the API server listen on the address that they advertise: one that is a router's does not do.
fn own_address(facts: &HostFacts, wanted: &Wanted) -> Option<Finding> {
    let address = wanted.address.filter(|_| wanted.role.has_control_plane())?;
    let found = facts.addresses.as_ref().ok()?;
    if found.iter().any(|(_, network)| network.ip() == address) {
        return None;
    }
    let of_family = found.iter().filter(|(_, network)| network.is_ipv4() == address.is_ipv4());
    let candidates: Vec<String> = of_family.map(|(link, network)| format!("{} on {link}", network.ip())).collect();
    let fix = match candidates.as_slice() {
        [] => "give one of the machine's links this address; it has none of this family".to_owned(),
        candidates => format!("--apiserver-advertise-address with one of: {}", candidates.join(", ")),
    };
    Some(Finding::error("AdvertiseAddress", format!("{address} is no address of this machine"), fix))
}

fn overlap(a: IpNetwork, b: IpNetwork) -> bool {
    a.contains(b.network()) || b.contains(a.network())
}

fn between(wanted: &Wanted) -> Vec<Finding> {
    let pairs = wanted
        .pod_subnets
        .iter()
        .flat_map(|pods| wanted.service_subnets.iter().map(move |services| (*pods, *services)));
    let clashing = pairs.filter(|(pods, services)| overlap(*pods, *services));
    let findings = clashing.map(|(pods, services)| {
        Finding::error(
            "ServiceSubnet",
            format!("the Services' range {services} and the pods' range {pods} overlap"),
            "choose others with --service-cidr and --pod-network-cidr",
        )
    });
    findings.collect()
}

fn on_host(facts: &HostFacts, name: &'static str, fix: &str, subnet: IpNetwork) -> Option<Finding> {
    let addresses = facts.addresses.as_deref().unwrap_or_default();
    if let Some((link, address)) = addresses.iter().find(|(_, address)| subnet.contains(address.ip())) {
        return Some(Finding::error(
            name,
            format!("this machine's own address {} on {link} lies in {subnet}", address.ip()),
            fix.to_owned(),
        ));
    }
    let routes = facts.routes.as_deref().unwrap_or_default();
    let (link, route) = routes.iter().find(|(_, route)| overlap(*route, subnet))?;
    // A route to more than the range yields to the cluster's own, but whatever is really there cannot be reached any more.
    let hidden = route.prefix() < subnet.prefix();
    let make = if hidden { Finding::warning } else { Finding::error } as fn(_, _, String) -> Finding;
    Some(make(
        name,
        format!(
            "this machine has a route to {route} through {link}, which {} {subnet}",
            if hidden { "takes in" } else { "lies in" }
        ),
        fix.to_owned(),
    ))
}

/// Whether a proxy of the environment would be asked for an address (Go's `golang.org/x/net/http/httpproxy`, as kubeadm has it).
fn proxies(facts: &HostFacts, wanted: &Wanted) -> Vec<Finding> {
    let Some(proxy) = facts.proxies.get("https_proxy").or_else(|| facts.proxies.get("http_proxy")) else {
        return Vec::new();
    };
    let no_proxy = facts.proxies.get("no_proxy").map(String::as_str).unwrap_or_default();
    let advice = |what: &str| format!("add {what} to NO_PROXY, or unset the proxy for this call");
    let nodes = wanted.address.into_iter().chain(wanted.endpoints.iter().copied());
    let of_nodes = nodes.filter(|address| is_proxied(*address, no_proxy)).map(|address| {
        let cause = format!("connections to {address} would go through the proxy {}", without_password(proxy));
        Finding::warning("HTTPProxy", cause, advice(&address.to_string()))
    });
    let subnets = wanted.service_subnets.iter().chain(&wanted.pod_subnets);
    let of_subnets = subnets.filter(|subnet| is_proxied(first(**subnet), no_proxy)).map(|subnet| {
        let cause = format!("connections to {subnet} would go through the proxy {}", without_password(proxy));
        Finding::warning("HTTPProxyCIDR", cause, advice(&subnet.to_string()))
    });
    of_nodes.chain(of_subnets).collect()
}

fn first(subnet: IpNetwork) -> IpAddr {
    subnet.iter().nth(1).unwrap_or(subnet.network())
}

fn is_proxied(address: IpAddr, no_proxy: &str) -> bool {
    let excepted = no_proxy.split(',').map(str::trim).any(|entry| {
        let cidr = entry.contains('/').then(|| entry.parse::<IpNetwork>().ok()).flatten();
        entry == "*" || entry == address.to_string() || cidr.is_some_and(|cidr| cidr.contains(address))
    });
    !excepted && !address.is_loopback()
}

/// A proxy's URL may hold a password.
fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://…@{host}"),
        (None, Some((_, host))) => format!("…@{host}"),
        (_, None) => url.to_owned(),
    }
}

/// Ports that others have to reach on this node: what a firewall must let through.
#[must_use]
pub fn open_ports(wanted: &Wanted) -> Vec<String> {
    let mut ports = vec!["10250/tcp".to_owned(), "8472/udp".to_owned()];
    if wanted.role.has_control_plane() {
        ports.push(format!("{}/tcp", wanted.bind_port));
    }
    if wanted.etcd_data.is_some() {
        ports.push("2379-2380/tcp".to_owned());
    }
    ports
}

#[cfg(test)]
mod tests {
    use super::super::testing::{WORKER, facts, init, names, report};
    use super::*;

    fn routed(route: &str) -> HostFacts {
        HostFacts { routes: Ok(vec![("eth1".into(), route.parse().unwrap())]), ..facts() }
    }

    #[test]
    fn ranges_that_the_machine_uses_are_refused() {
        let own = HostFacts { addresses: Ok(vec![("eth0".into(), "10.244.3.7/24".parse().unwrap())]), ..facts() };
        let found = report(&own, &Wanted { address: None, ..init() });
        assert_eq!(names(&found), ["PodSubnet"]);
        assert!(found.get("PodSubnet").unwrap().cause.contains("10.244.3.7 on eth0"));
        let joins = Wanted { role: WORKER, etcd_data: None, address: None, ..init() };
        assert!(report(&own, &joins).get("PodSubnet").unwrap().fix.contains("the cluster has this range"));
        assert_eq!(names(&report(&routed("10.100.0.0/16"), &init())), ["ServiceSubnet"]);
        let wide = report(&routed("10.0.0.0/8"), &init());
        assert!(wide.is_passed() && wide.warnings == 2, "{wide}");
        assert!(report(&routed("10.200.0.0/16"), &init()).findings.is_empty());
    }

    #[test]
    fn p0_10_an_address_that_is_not_the_machines_is_refused_with_those_that_are() {
        let wanted = Wanted { address: Some("203.0.113.9".parse().unwrap()), ..init() };
        let found = report(&facts(), &wanted);
        assert_eq!(names(&found), ["AdvertiseAddress"]);
        assert!(found.get("AdvertiseAddress").unwrap().fix.ends_with("one of: 192.0.2.10 on eth0"), "{found}");
        let worker = Wanted { role: WORKER, etcd_data: None, ..wanted };
        assert!(report(&facts(), &worker).is_passed());
    }

    #[test]
    fn ranges_that_overlap_are_refused() {
        let wanted = Wanted { service_subnets: vec!["10.244.128.0/20".parse().unwrap()], ..init() };
        assert_eq!(names(&report(&facts(), &wanted)), ["ServiceSubnet"]);
    }

    #[test]
    fn proxies_are_told_without_their_password() {
        let mut machine = facts();
        machine.proxies.insert("https_proxy".into(), "http://me:secret@proxy:3128".into());
        let found = report(&machine, &init());
        assert_eq!(found.warnings, 3);
        let text = found.to_string();
        assert!(text.contains("http://…@proxy:3128") && !text.contains("secret"), "{text}");
        machine.proxies.insert("no_proxy".into(), "192.0.2.10, 10.96.0.0/12,10.244.0.0/16".into());
        assert!(report(&machine, &init()).findings.is_empty());
    }
}
