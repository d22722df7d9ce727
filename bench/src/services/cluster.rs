//! The cluster that every contender is given: Services and EndpointSlices as the API has them, and how they change.
//!
//! All of it follows from a shape and a seed, so that each contender sees the same objects in the same order.

use std::net::Ipv4Addr;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::{Value, json};

use crate::site::SERVER;

/// The namespace of all objects.
pub(crate) const NAMESPACE: &str = "bench";
/// The port that the server of the background flow listens at; the Service's too.
pub(crate) const FLOW_PORT: u16 = 7777;
/// Where clients find Service 0, which the background flow goes through.
pub(crate) const FLOW_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 96, 1, 0);
/// The cluster IP of Service 0; the others follow.
const FIRST_SERVICE: u32 = FLOW_ADDRESS.to_bits();
/// Endpoints live in 100.64.0.0/10 (RFC 6598).
const FIRST_ENDPOINT: u32 = Ipv4Addr::new(100, 64, 0, 0).to_bits();
/// Addresses that each Service has for its endpoints.
const ADDRESSES: u32 = 32;
/// Endpoints that a Service may have: each has a second address to move to.
pub(crate) const MOST_ENDPOINTS: u32 = ADDRESSES / 2;
/// Services at most, so that all addresses fit.
pub(crate) const MOST_SERVICES: u32 = (1 << 22) / ADDRESSES;
/// Nodes that endpoints are spread over. None of them is the one that is measured.
const NODES: u32 = 100;

/// How large a cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Shape {
    /// Services with one port each.
    pub(crate) services: u32,
    /// Endpoints of each.
    pub(crate) endpoints: u32,
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.services, self.endpoints)
    }
}

impl FromStr for Shape {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (services, endpoints) = text.split_once('x').context("expected SERVICESxENDPOINTS, such as 10000x4")?;
        let shape = Self { services: services.parse()?, endpoints: endpoints.parse()? };
        let fits = (2..=MOST_SERVICES).contains(&shape.services) && (1..=MOST_ENDPOINTS).contains(&shape.endpoints);
        if !fits {
            bail!("expected 2 to {MOST_SERVICES} services and 1 to {MOST_ENDPOINTS} endpoints each");
        }
        Ok(shape)
    }
}

/// The objects as they are now.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    shape: Shape,
    /// Of each Service: bit i says that endpoint i has moved to its second address.
    moved: Vec<u32>,
    random: u64,
}

impl Cluster {
    /// All endpoints at their first addresses.
    pub(crate) fn new(shape: Shape, seed: u64) -> Self {
        Self { shape, moved: vec![0; shape.services as usize], random: seed }
    }

    /// Its shape.
    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    /// Moves one endpoint of some Service to its other address, and returns the Service's number. Never Service 0.
    pub(crate) fn change(&mut self) -> u32 {
        let number = 1 + self.next_below(self.shape.services - 1);
        let endpoint = self.next_below(self.shape.endpoints);
        self.toggle(number, 1 << endpoint);
        number
    }

    /// Moves all endpoints of all Services but 0.
    pub(crate) fn change_all(&mut self) {
        for number in 1..self.shape.services {
            self.toggle(number, (1 << self.shape.endpoints) - 1);
        }
    }

    fn toggle(&mut self, number: u32, endpoints: u32) {
        if let Some(moved) = self.moved.get_mut(number as usize) {
            *moved ^= endpoints;
        }
    }

    /// splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
    fn next_below(&mut self, limit: u32) -> u32 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((mixed ^ (mixed >> 31)) % u64::from(limit)).unwrap_or_default()
    }

    /// How many endpoints all Services have; 0 has one.
    pub(crate) fn total_endpoints(&self) -> usize {
        ((self.shape.services - 1) * self.shape.endpoints + 1) as usize
    }

    /// The addresses of a Service's endpoints.
    pub(crate) fn endpoints(&self, number: u32) -> Vec<Ipv4Addr> {
        if number == 0 {
            return vec![SERVER];
        }
        let moved = self.moved.get(number as usize).copied().unwrap_or_default();
        let address = |i| FIRST_ENDPOINT + number * ADDRESSES + 2 * i + (moved >> i & 1);
        (0..self.shape.endpoints).map(|i| Ipv4Addr::from_bits(address(i))).collect()
    }
}

/// The name of a Service.
pub(crate) fn service_name(number: u32) -> String {
    format!("service-{number:05}")
}

/// The name of its slice.
pub(crate) fn slice_name(number: u32) -> String {
    format!("service-{number:05}-{:05x}", number.wrapping_mul(0x9_e377) & 0xf_ffff)
}

/// The cluster IP of a Service.
pub(crate) fn cluster_ip(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(FIRST_SERVICE + number)
}

/// A Service as the API shows it.
pub(crate) fn service(number: u32, version: u64) -> Value {
    let (address, name) = (cluster_ip(number), service_name(number));
    let (protocol, port, target) = if number == 0 { ("UDP", FLOW_PORT, FLOW_PORT) } else { ("TCP", 80, 8080) };
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": name, "namespace": NAMESPACE, "uid": uid(1, number), "resourceVersion": version.to_string(),
            "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"app": name},
        },
        "spec": {
            "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster",
            "ports": [{"name": "main", "protocol": protocol, "port": port, "targetPort": target}],
            "selector": {"app": name}, "sessionAffinity": "None",
        },
        "status": {"loadBalancer": {}},
    })
}

impl Cluster {
    /// A Service's EndpointSlice as the API shows it. `triggered` is when it has changed, RFC 3339.
    pub(crate) fn slice(&self, number: u32, version: u64, triggered: Option<&str>) -> Value {
        let service = service_name(number);
        let (protocol, port) = if number == 0 { ("UDP", FLOW_PORT) } else { ("TCP", 8080) };
        let endpoints = self.endpoints(number).into_iter().zip(0..).map(|(address, i)| {
            json!({
                "addresses": [address], "conditions": {"ready": true, "serving": true, "terminating": false},
                "nodeName": format!("node-{:03}", (number + i) % NODES), "zone": "zone-a",
                "targetRef": {
                    "kind": "Pod", "namespace": NAMESPACE, "name": format!("{service}-{i}"), "uid": uid(3 + i, number),
                },
            })
        });
        let annotations = triggered.map(|time| json!({"endpoints.kubernetes.io/last-change-trigger-time": time}));
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": slice_name(number), "namespace": NAMESPACE, "uid": uid(2, number),
                "resourceVersion": version.to_string(), "generation": version,
                "creationTimestamp": "2026-01-01T00:00:00Z", "annotations": annotations,
                "labels": {
                    "app": service, "kubernetes.io/service-name": service,
                    "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                },
                "ownerReferences": [{
                    "apiVersion": "v1", "kind": "Service", "name": service, "uid": uid(1, number),
                    "controller": true, "blockOwnerDeletion": true,
                }],
            },
            "endpoints": endpoints.collect::<Vec<_>>(),
            "ports": [{"name": "main", "protocol": protocol, "port": port}],
        })
    }
}

fn uid(kind: u32, number: u32) -> String {
    format!("{number:08x}-0000-4000-8000-{kind:012x}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_shape_is_two_numbers() {
        assert_eq!("10000x4".parse::<Shape>().unwrap(), Shape { services: 10_000, endpoints: 4 });
        for text in ["", "10000", "x", "1x1", "10x0", "10x99", "9999999x1"] {
            assert!(text.parse::<Shape>().is_err(), "{text}");
        }
    }

    #[test]
    fn no_two_endpoints_share_an_address_wherever_they_move() {
        let mut cluster = Cluster::new(Shape { services: 50, endpoints: MOST_ENDPOINTS }, 1);
        let mut seen = BTreeSet::new();
        for _ in 0..2 {
            (1..50).for_each(|number| seen.extend(cluster.endpoints(number)));
            cluster.change_all();
        }
        assert_eq!(seen.len(), 2 * 49 * MOST_ENDPOINTS as usize);
    }

    #[test]
    fn a_change_moves_one_endpoint_and_the_seed_says_which() {
        let shape = Shape { services: 100, endpoints: 4 };
        let (mut one, mut other) = (Cluster::new(shape, 7), Cluster::new(shape, 7));
        for _ in 0..50 {
            let before = one.clone();
            let number = one.change();
            assert_eq!(number, other.change());
            assert_ne!(number, 0);
            let differ = one.endpoints(number).into_iter().zip(before.endpoints(number)).filter(|(a, b)| a != b);
            assert_eq!(differ.count(), 1);
        }
    }
}
