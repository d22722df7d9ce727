//! `v1.Service`.

use std::net::IpAddr;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::probe::Transport;

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name; empty for the only port of a Service.
    pub name: String,
    /// Its protocol.
    pub transport: Transport,
    /// The port that clients use.
    pub port: u16,
    /// The port that pods listen at.
    pub target: u16,
    /// The port of the nodes.
    pub node_port: Option<u16>,
}

impl Port {
    /// A TCP port without a name and node port.
    #[must_use]
    pub fn tcp(port: u16, target: u16) -> Self {
        Self { name: String::new(), transport: Transport::Tcp, port, target, node_port: None }
    }

    /// The same over UDP.
    #[must_use]
    pub fn udp(port: u16, target: u16) -> Self {
        Self { transport: Transport::Udp, ..Self::tcp(port, target) }
    }

    /// The same with a name.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// The same with a port of the nodes.
    #[must_use]
    pub fn on_nodes(mut self, node_port: u16) -> Self {
        self.node_port = Some(node_port);
        self
    }

    fn json(&self) -> Value {
        let mut port = json!({"protocol": self.transport.name(), "port": self.port, "targetPort": self.target});
        if !self.name.is_empty() {
            port["name"] = json!(self.name);
        }
        if let Some(node_port) = self.node_port {
            port["nodePort"] = json!(node_port);
        }
        port
    }

    fn parse(port: &Value) -> Option<Self> {
        let number = |value: &Value| value.as_u64().and_then(|number| u16::try_from(number).ok());
        let transport = serde_json::from_value(port["protocol"].clone()).unwrap_or(Transport::Tcp);
        let own = number(&port["port"])?;
        Some(Self {
            name: port["name"].as_str().unwrap_or_default().to_owned(),
            transport,
            port: own,
            target: number(&port["targetPort"]).unwrap_or(own),
            node_port: number(&port["nodePort"]),
        })
    }
}

/// A Service: the JSON of the API, and the fields that a lab has a use for.
#[derive(Debug, Clone, PartialEq)]
pub struct Service(Value);

impl Service {
    /// A Service of type ClusterIP with the given addresses, the first of which is its primary one.
    #[must_use]
    pub fn new(namespace: &str, name: &str, cluster_ips: &[IpAddr]) -> Self {
        let families: Vec<&str> = cluster_ips.iter().map(|ip| if ip.is_ipv6() { "IPv6" } else { "IPv4" }).collect();
        let first = cluster_ips.first().map(ToString::to_string);
        Self(json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": name, "namespace": namespace, "uid": format!("{namespace}-{name}"),
                "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {}, "annotations": {},
            },
            "spec": {
                "type": "ClusterIP", "clusterIP": first, "clusterIPs": cluster_ips, "ipFamilies": families,
                "ipFamilyPolicy": if cluster_ips.len() > 1 { "RequireDualStack" } else { "SingleStack" },
                "ports": [], "selector": {"app": name}, "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
            },
            "status": {"loadBalancer": {}},
        }))
    }

    /// The Service that a JSON object is.
    ///
    /// # Errors
    /// When it has no namespace and name.
    pub fn from_json(object: Value) -> Result<Self> {
        let this = Self(object);
        this.0["metadata"]["name"].as_str().context("a Service without name")?;
        this.0["metadata"]["namespace"].as_str().context("a Service without namespace")?;
        Ok(this)
    }

    /// The same with a further port. One with a node port makes a NodePort Service of a ClusterIP one.
    #[must_use]
    pub fn port(mut self, port: &Port) -> Self {
        if port.node_port.is_some() && self.0["spec"]["type"] == "ClusterIP" {
            self = self.kind("NodePort");
        }
        if let Some(ports) = self.0["spec"]["ports"].as_array_mut() {
            ports.push(port.json());
        }
        self
    }

    /// The same of type `NodePort` or `LoadBalancer`, which have an external policy.
    #[must_use]
    pub fn kind(mut self, kind: &str) -> Self {
        if self.0["spec"]["externalTrafficPolicy"].is_null() {
            self.0["spec"]["externalTrafficPolicy"] = json!("Cluster");
        }
        self.with("/spec/type", kind)
    }

    /// The same with internal policy Local.
    #[must_use]
    pub fn internal_local(self) -> Self {
        self.with("/spec/internalTrafficPolicy", "Local")
    }

    /// The same with external policy Local.
    #[must_use]
    pub fn external_local(self) -> Self {
        self.with("/spec/externalTrafficPolicy", "Local")
    }

    /// The same with affinity of a client to its endpoint, in seconds.
    #[must_use]
    pub fn affinity(self, seconds: u32) -> Self {
        self.with("/spec/sessionAffinity", "ClientIP")
            .with("/spec/sessionAffinityConfig", json!({"clientIP": {"timeoutSeconds": seconds}}))
    }

    /// The same with addresses that lead to it from outside.
    #[must_use]
    pub fn external_ips(self, ips: &[IpAddr]) -> Self {
        self.with("/spec/externalIPs", json!(ips))
    }

    /// The same of type LoadBalancer with addresses that a load balancer has given it.
    #[must_use]
    pub fn load_balancer(self, ips: &[IpAddr], ip_mode: &str) -> Self {
        let ingress: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip, "ipMode": ip_mode})).collect();
        self.kind("LoadBalancer").with("/status/loadBalancer", json!({"ingress": ingress}))
    }

    /// The same with a field set, by JSON pointer (RFC 6901). What is above it is made if need be.
    #[must_use]
    pub fn with(mut self, pointer: &str, value: impl Into<Value>) -> Self {
        let mut place = &mut self.0;
        for word in pointer.split('/').skip(1) {
            let word = word.replace("~1", "/").replace("~0", "~");
            place = match (place.is_array(), word.parse::<usize>()) {
                (true, Ok(index)) => &mut place[index],
                _ => &mut place[word],
            };
        }
        *place = value.into();
        self
    }

    /// The object.
    #[must_use]
    pub fn json(&self) -> &Value {
        &self.0
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.0["metadata"]["namespace"].as_str().unwrap_or_default()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// `ClusterIP`, `NodePort`, `LoadBalancer`.
    #[must_use]
    pub fn type_name(&self) -> &str {
        self.0["spec"]["type"].as_str().unwrap_or("ClusterIP")
    }

    /// Its cluster IPs.
    #[must_use]
    pub fn cluster_ips(&self) -> Vec<IpAddr> {
        addresses(&self.0["spec"]["clusterIPs"])
    }

    /// Its external IPs, then its load balancer's.
    #[must_use]
    pub fn outer_ips(&self) -> Vec<IpAddr> {
        let ingress = self.0["status"]["loadBalancer"]["ingress"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut ips = addresses(&self.0["spec"]["externalIPs"]);
        ips.extend(ingress.iter().filter_map(|entry| entry["ip"].as_str()?.parse::<IpAddr>().ok()));
        ips
    }

    /// Its ports.
    #[must_use]
    pub fn ports(&self) -> Vec<Port> {
        let ports = self.0["spec"]["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
        ports.iter().filter_map(Port::parse).collect()
    }
}

fn addresses(list: &Value) -> Vec<IpAddr> {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(|ip| ip.as_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_what_the_api_would_hold() {
        let ips = ["10.96.0.7", "fd00:10:96::7"].map(|ip| ip.parse().unwrap());
        let service = Service::new("shop", "web", &ips)
            .port(&Port::tcp(80, 8080).named("http").on_nodes(30080))
            .port(&Port::udp(53, 53).named("dns"))
            .external_local()
            .affinity(60)
            .with("/metadata/annotations/a~1b", "c");
        let object = service.json();
        assert_eq!((service.namespace(), service.name(), service.type_name()), ("shop", "web", "NodePort"));
        assert_eq!(object["spec"]["clusterIP"], "10.96.0.7");
        assert_eq!(object["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
        assert_eq!(object["spec"]["externalTrafficPolicy"], "Local");
        assert_eq!(object["spec"]["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"], 60);
        assert_eq!(object["metadata"]["annotations"]["a/b"], "c");
        assert_eq!(service.ports()[0].node_port, Some(30080));
        assert_eq!(service.ports()[1], Port::udp(53, 53).named("dns"));
        assert_eq!(service.cluster_ips(), ips);
        assert!(Service::from_json(json!({"metadata": {"name": "x"}})).is_err());
    }
}
