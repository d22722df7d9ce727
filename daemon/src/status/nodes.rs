//! All nodes that the store tells of, for `weft status --all`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use http::Request;
use kube::Client;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::fetch;
use super::judge::{Agent, Answer, Sighting};
use crate::cluster::etcd::read::read_view;
use crate::cluster::etcd::{EtcdOptions, Store};
use crate::cluster::kube::annotations::Field;
use crate::cluster::kube::node::KubeNode;
use crate::cluster::kube::{self as kube_source, Annotations, KubeOptions, Servers, explain};
use crate::cluster::layout::Layout;
use crate::cluster::model::{Lease, Snapshot};
use crate::cluster::netconf::NetConf;

/// Nodes that are asked for at once: of 5,000 the text has 50 MiB.
const PAGE: u32 = 500;

/// Agents that are asked at the same time.
const AT_ONCE: usize = 64;

/// A node of the store, and where its agent is asked.
#[derive(Debug, Clone)]
pub struct Listed {
    /// What the store tells of it.
    pub sighting: Sighting,
    /// The address of its agent, if one is known.
    pub agent: Option<IpAddr>,
}

/// The nodes in etcd.
///
/// # Errors
/// In words, if it does not answer.
pub async fn in_etcd(options: &EtcdOptions, layout: &Layout, own: &str) -> Result<Vec<Listed>, String> {
    let store = Store::new(options.clone());
    let client = store.client().await.map_err(|error| error.to_string())?;
    let view = read_view(&client, layout)
        .await
        .map_err(|error| format!("etcd at {}: {}", options.endpoints.join(", "), store.explain(&error)))?;
    let snapshot = Snapshot::of(&view);
    let mut listed: Vec<Listed> = snapshot.leases.values().map(|lease| leased(lease, own)).collect();
    listed.extend(snapshot.rejected.iter().map(|rejected| Listed {
        sighting: Sighting {
            name: None,
            own: false,
            subnets: Vec::new(),
            addresses: Vec::new(),
            wrong: vec![format!("lease {}: {}", rejected.key, rejected.reason)],
            agent: Agent::NotAsked,
        },
        agent: None,
    }));
    Ok(listed)
}

fn leased(lease: &Lease, own: &str) -> Listed {
    let name = lease.node.as_ref().map(ToString::to_string);
    let addresses: Vec<IpAddr> = lease.public_ips.values().copied().collect();
    Listed {
        // A node without a record runs flannel, whose agent tells nothing.
        agent: name.as_ref().and(addresses.first().copied()),
        sighting: Sighting {
            own: name.as_deref() == Some(own),
            name,
            subnets: lease.key.subnets().values().copied().collect(),
            addresses,
            wrong: Vec::new(),
            agent: Agent::NotAsked,
        },
    }
}

#[derive(Deserialize)]
struct Page {
    metadata: PageMetadata,
    items: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct PageMetadata {
    #[serde(rename = "continue", default)]
    next: String,
}

#[derive(Default, Deserialize)]
struct Addresses {
    #[serde(default)]
    status: AddressStatus,
}

#[derive(Default, Deserialize)]
struct AddressStatus {
    #[serde(default)]
    addresses: Vec<Address>,
}

#[derive(Deserialize)]
struct Address {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

/// The Nodes of Kubernetes, as the configured API server says, or else another of these.
///
/// # Errors
/// In words, if the API server does not answer, or forbids it.
pub async fn in_kube(
    options: &KubeOptions,
    servers: &Arc<Servers>,
    annotations: &Annotations,
    network: &NetConf,
    own: &str,
) -> Result<Vec<Listed>, String> {
    let client = kube_source::connect_through(options, servers).await.map_err(|error| error.to_string())?;
    let mut listed = Vec::new();
    let mut next = String::new();
    loop {
        let page = page(&client, &next).await?;
        for item in &page.items {
            let node = KubeNode::parse(item.get().as_bytes(), annotations, &network.pools);
            let node = node.map_err(|error| format!("a Node cannot be read: {error}"))?;
            let internal = serde_json::from_str::<Addresses>(item.get()).unwrap_or_default();
            listed.push(of_kube(&node, &internal, own));
        }
        if page.metadata.next.is_empty() {
            return Ok(listed);
        }
        next = page.metadata.next;
    }
}

async fn page(client: &Client, next: &str) -> Result<Page, String> {
    let mut path = format!("/api/v1/nodes?limit={PAGE}");
    if !next.is_empty() {
        path.push_str("&continue=");
        path.push_str(next);
    }
    let request = Request::get(path).body(Vec::new()).map_err(|error| error.to_string())?;
    let text = client.request_text(request).await.map_err(|error| explain(&error))?;
    serde_json::from_str(&text).map_err(|error| format!("the list of Nodes cannot be read: {error}"))
}

fn of_kube(node: &KubeNode, addresses: &Addresses, own: &str) -> Listed {
    let mut wrong = Vec::new();
    if let Some((status, reason)) = node.condition.as_ref().filter(|(status, _)| status != "False") {
        wrong.push(format!("its condition NetworkUnavailable is {status} ({reason})"));
    }
    let lease = node.lease();
    match &lease {
        None => wrong.push(format!(
            "it takes no part in the overlay: annotation {} is not \"true\"",
            Field::SubnetManager.suffix()
        )),
        Some(Err(rejected)) => wrong.push(rejected.reason.clone()),
        Some(Ok(_)) => {}
    }
    let internal = addresses.status.addresses.iter().filter(|address| address.kind == "InternalIP");
    let lease = lease.and_then(Result::ok);
    Listed {
        agent: internal.filter_map(|address| address.address.parse().ok()).next(),
        sighting: Sighting {
            name: Some(node.name.to_string()),
            own: node.name.as_str() == own,
            subnets: node.subnets.iter().flat_map(|key| key.subnets().values().copied()).collect(),
            addresses: lease.iter().flat_map(|lease| lease.public_ips.values().copied()).collect(),
            wrong,
            agent: Agent::NotAsked,
        },
    }
}

/// How long asking may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A single agent.
    pub each: Duration,
    /// All of them together; who has not had his turn until then is not asked.
    pub all: Duration,
}

/// Asks the agents of all nodes at `port`; the own one at `own`. Of each answer only what a row needs is kept.
pub async fn ask(listed: Vec<Listed>, own: SocketAddr, port: u16, limits: Limits) -> Vec<Sighting> {
    let end = Instant::now() + limits.all;
    let asked = stream::iter(listed).map(|Listed { mut sighting, agent }| async move {
        let address = if sighting.own { Some(own) } else { agent.map(|ip| SocketAddr::new(ip, port)) };
        let left = limits.each.min(end.saturating_duration_since(Instant::now()));
        if let Some(address) = address {
            sighting.agent = if left.is_zero() {
                Agent::Silent(format!("not asked, as {} s were over", limits.all.as_secs()))
            } else {
                match fetch::brief(address, left).await {
                    Ok(status) => Agent::Answered(Box::new(Answer::from(&status))),
                    Err(error) => Agent::Silent(error.to_string()),
                }
            };
        }
        sighting
    });
    asked.buffer_unordered(AT_ONCE).collect().await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(json: &str) -> Listed {
        let network = NetConf::parse(br#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}"#).unwrap().0;
        let annotations: Annotations = "flannel.alpha.coreos.com".parse().unwrap();
        let node = KubeNode::parse(json.as_bytes(), &annotations, &network.pools).unwrap();
        of_kube(&node, &serde_json::from_str(json).unwrap(), "n1")
    }

    #[test]
    fn a_node_is_what_its_object_says() {
        let found = listed(
            r#"{"metadata":{"name":"n1","annotations":{
                "flannel.alpha.coreos.com/kube-subnet-manager":"true",
                "flannel.alpha.coreos.com/backend-type":"vxlan",
                "flannel.alpha.coreos.com/backend-data":"{\"VNI\":1,\"VtepMAC\":\"ee:8b:00:00:00:01\"}",
                "flannel.alpha.coreos.com/public-ip":"198.51.100.1"}},
                "spec":{"podCIDR":"10.244.1.0/24"},
                "status":{"conditions":[{"type":"NetworkUnavailable","status":"False","reason":"FlannelIsUp"}],
                    "addresses":[{"type":"Hostname","address":"n1"},{"type":"InternalIP","address":"192.0.2.1"}]}}"#,
        );
        assert_eq!(found.agent, Some("192.0.2.1".parse().unwrap()));
        assert!(found.sighting.own && found.sighting.wrong.is_empty(), "{found:?}");
        assert_eq!(found.sighting.addresses, ["198.51.100.1".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn a_node_without_network_says_why() {
        let found = listed(
            r#"{"metadata":{"name":"n2"},"status":{"conditions":
                [{"type":"NetworkUnavailable","status":"True","reason":"NoRouteCreated"}]}}"#,
        );
        let wrong = found.sighting.wrong.join("; ");
        assert!(wrong.contains("NetworkUnavailable is True (NoRouteCreated)"), "{wrong}");
        assert!(wrong.contains("kube-subnet-manager"), "{wrong}");
    }

    #[tokio::test]
    async fn who_has_had_no_turn_in_time_is_not_asked_and_that_is_unknown() {
        let node = |number: u8| {
            let text = format!(
                r#"{{"metadata":{{"name":"n{number}"}},"status":{{"addresses":[{{"type":"InternalIP","address":"127.0.0.{number}"}}]}}}}"#
            );
            listed(&text)
        };
        let limits = Limits { each: Duration::from_secs(3), all: Duration::ZERO };
        let found = ask(vec![node(2), node(3)], SocketAddr::from(([127, 0, 0, 1], 9)), 9, limits).await;
        assert_eq!(found.len(), 2);
        for sighting in found {
            assert!(matches!(&sighting.agent, Agent::Silent(why) if why.starts_with("not asked")), "{sighting:?}");
        }
    }
}
