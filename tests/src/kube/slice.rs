//! `discovery.k8s.io/v1` EndpointSlice.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::{Port, Service};

/// An endpoint of a slice. Conditions that are `None` are left out, as old controllers did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// Its node; `None` for what runs on no node.
    pub node: Option<String>,
    /// Condition `ready`.
    pub ready: Option<bool>,
    /// Condition `serving`.
    pub serving: Option<bool>,
    /// Condition `terminating`.
    pub terminating: Option<bool>,
    /// `hints.forZones`.
    pub zones: Vec<String>,
    /// `hints.forNodes`.
    pub nodes: Vec<String>,
}

impl Endpoint {
    /// A ready endpoint on a node.
    #[must_use]
    pub fn ready(address: IpAddr, node: &str) -> Self {
        Self {
            address,
            node: Some(node.to_owned()),
            ready: Some(true),
            serving: Some(true),
            terminating: Some(false),
            zones: Vec::new(),
            nodes: Vec::new(),
        }
    }

    /// The same, being deleted, and serving until then or not.
    #[must_use]
    pub fn terminating(mut self, serving: bool) -> Self {
        (self.ready, self.serving, self.terminating) = (Some(false), Some(serving), Some(true));
        self
    }

    /// The same, running but not ready.
    #[must_use]
    pub fn not_ready(mut self) -> Self {
        (self.ready, self.serving, self.terminating) = (Some(false), Some(false), Some(false));
        self
    }

    /// The same with no condition told.
    #[must_use]
    pub fn untold(mut self) -> Self {
        (self.ready, self.serving, self.terminating) = (None, None, None);
        self
    }

    /// The same with zones that should use it.
    #[must_use]
    pub fn for_zones(mut self, zones: &[&str]) -> Self {
        self.zones = zones.iter().map(|zone| (*zone).to_owned()).collect();
        self
    }

    /// The same with nodes that should use it.
    #[must_use]
    pub fn for_nodes(mut self, nodes: &[&str]) -> Self {
        self.nodes = nodes.iter().map(|node| (*node).to_owned()).collect();
        self
    }

    fn json(&self) -> Value {
        let told = [("ready", self.ready), ("serving", self.serving), ("terminating", self.terminating)];
        let conditions: Map<String, Value> =
            told.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value?)))).collect();
        let mut endpoint = json!({"addresses": [self.address], "conditions": conditions});
        if let Some(node) = &self.node {
            endpoint["nodeName"] = json!(node);
        }
        let hints = |names: &[String]| Value::Array(names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>());
        if !self.zones.is_empty() {
            endpoint["hints"]["forZones"] = hints(&self.zones);
        }
        if !self.nodes.is_empty() {
            endpoint["hints"]["forNodes"] = hints(&self.nodes);
        }
        endpoint
    }
}

/// A slice of one family: its ports are those of the Service, at the numbers that pods listen at.
#[must_use]
pub fn slice(service: &Service, name: &str, v6: bool, ports: &[Port], endpoints: &[Endpoint]) -> Value {
    let of_family = endpoints.iter().filter(|endpoint| endpoint.address.is_ipv6() == v6);
    let port = |port: &Port| json!({"name": port.name, "protocol": port.transport.name(), "port": port.target});
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name, "namespace": service.namespace(), "uid": format!("{}-{name}", service.namespace()),
            "labels": {
                "kubernetes.io/service-name": service.name(),
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            },
            "annotations": {},
        },
        "addressType": if v6 { "IPv6" } else { "IPv4" },
        "ports": ports.iter().map(port).collect::<Vec<_>>(),
        "endpoints": of_family.map(Endpoint::json).collect::<Vec<_>>(),
    })
}

/// The slices of a Service: one for each family that it has an address of.
#[must_use]
pub fn slices_of(service: &Service, endpoints: &[Endpoint]) -> Vec<Value> {
    let families = service.cluster_ips().into_iter().map(|ip| ip.is_ipv6());
    let name = |v6| format!("{}-{}", service.name(), if v6 { "v6" } else { "v4" });
    families.map(|v6| slice(service, &name(v6), v6, &service.ports(), endpoints)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_holds_the_endpoints_of_its_family() {
        let ips = ["10.96.0.7", "fd00:10:96::7"].map(|ip| ip.parse().unwrap());
        let service = Service::new("shop", "web", &ips).port(&Port::tcp(80, 8080));
        let pods = ["10.244.1.2", "fd00:244::2"].map(|ip| Endpoint::ready(ip.parse().unwrap(), "node1"));
        let slices = slices_of(&service, &pods);
        let addresses: Vec<&Value> = slices.iter().map(|slice| &slice["endpoints"][0]["addresses"][0]).collect();
        assert_eq!(addresses, ["10.244.1.2", "fd00:244::2"]);
        assert_eq!(slices[1]["addressType"], "IPv6");
        assert_eq!(slices[0]["metadata"]["labels"]["kubernetes.io/service-name"], "web");
        assert_eq!(slices[0]["ports"][0]["port"], 8080);
        assert_eq!(slices[0]["endpoints"][0]["conditions"]["ready"], true);
        let hinted = pods[0].clone().untold().for_zones(&["a"]).json();
        assert_eq!((&hinted["conditions"], &hinted["hints"]["forZones"][0]["name"]), (&json!({}), &json!("a")));
    }
}
