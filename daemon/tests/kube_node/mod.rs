//! A node's source and lease, as the agent runs them, against a real API server; and Nodes for it to see.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use weft::cluster::kube::annotations::Annotations;
use weft::cluster::kube::nodes::{self, NodesHandle, NodesRequest};
use weft::cluster::kube::{Api, events as kube_events};
use weft::cluster::lease_value::LeaseValue;
use weft::cluster::{BackendData, Events, NetConf, PerFamily};
use weft::lease::kube::{KubeLeaseRequest, spawn as spawn_lease};
use weft::lease::{LeaseHandle, LeaseState};
use weft::overlay::backend::VxlanData;

use crate::apiserver::ApiServer;
use crate::etcd::LIMIT;

/// A Node of the API, with this podCIDR and these annotations.
pub(crate) async fn node(server: &ApiServer, name: &str, cidr: Option<&str>, annotations: Value) {
    let spec = cidr.map_or_else(|| json!({}), |cidr| json!({"podCIDR": cidr, "podCIDRs": [cidr]}));
    let labels = json!({"topology.kubernetes.io/zone": "a"});
    let body = json!({"apiVersion": "v1", "kind": "Node", "spec": spec,
        "metadata": {"name": name, "annotations": annotations, "labels": labels}});
    server.ask("POST", "/api/v1/nodes", Some(&body)).await;
}

/// The annotations of a node that runs flannel.
pub(crate) fn flannel(n: u8) -> Value {
    json!({
        "flannel.alpha.coreos.com/kube-subnet-manager": "true",
        "flannel.alpha.coreos.com/backend-type": "vxlan",
        "flannel.alpha.coreos.com/backend-data": format!(r#"{{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:{n:02x}"}}"#),
        "flannel.alpha.coreos.com/public-ip": format!("192.0.2.{n}"),
    })
}

/// A node's source and lease, as the agent runs them.
pub(crate) struct Node {
    /// All nodes.
    pub(crate) source: NodesHandle,
    /// The own one's lease.
    pub(crate) lease: LeaseHandle,
    /// What the lease is to say.
    pub(crate) value: watch::Sender<LeaseValue>,
    /// Whether the node is ready.
    pub(crate) ready: watch::Sender<bool>,
    _stop: DropGuard,
}

impl Node {
    /// The node `n1`, by this way to the API server.
    pub(crate) async fn start(api: Api) -> Self {
        let annotations: Annotations = "flannel.alpha.coreos.com".parse().unwrap();
        let network = Arc::new(NetConf::parse(br#"{"Network": "10.244.0.0/16"}"#).unwrap().0);
        let stop = CancellationToken::new();
        let (events, told) = Events::channel();
        let name: weft::cluster::NodeName = "n1".parse().unwrap();
        tokio::spawn(kube_events::run(api.clone(), name.clone(), told));
        let request = NodesRequest {
            node: name.clone(),
            annotations: annotations.clone(),
            network: Arc::clone(&network),
            events: events.clone(),
        };
        let source = nodes::spawn(&api, request, stop.clone());
        let public_ips = PerFamily { v4: Some("192.0.2.1".parse().unwrap()), v6: None };
        let (value, values) = watch::channel(LeaseValue { public_ips, backend: BackendData::default() });
        let (ready, readiness) = watch::channel(false);
        let lease = spawn_lease(
            api,
            KubeLeaseRequest {
                node: name,
                annotations,
                network: watch::channel(network).1,
                value: values,
                own: source.own.clone(),
                snapshots: source.leases.snapshots(),
                ready: Some(readiness),
                events,
            },
        );
        Self { source, lease, value, ready, _stop: stop.drop_guard() }
    }

    /// Waits until the lease is so.
    pub(crate) async fn state(&self, holds: impl Fn(&LeaseState) -> bool) -> LeaseState {
        let mut state = self.lease.state();
        let found = timeout(LIMIT, state.wait_for(holds)).await;
        found.unwrap_or_else(|_| panic!("still {:?}", *self.lease.state().borrow())).unwrap().clone()
    }

    /// Lets the node say that it is reached by this VXLAN device.
    pub(crate) fn says(&self, mac: &str) {
        let data = VxlanData { vni: Some(1), vtep_mac: mac.parse().unwrap() };
        self.value.send_modify(|value| value.backend = PerFamily { v4: Some(data), v6: None }.into());
    }

    /// Waits until so many nodes are known.
    pub(crate) async fn peers(&self, count: usize) {
        let mut snapshots = self.source.leases.snapshots();
        let reached = snapshots.wait_for(|now| now.as_ref().is_some_and(|now| now.leases.len() == count));
        let found = timeout(LIMIT, reached).await.map(drop);
        found.unwrap_or_else(|_| panic!("{:?}", *self.source.leases.snapshots().borrow()));
    }
}

/// What the API server knows of our Node, once `holds` is true of it.
pub(crate) async fn own_node(server: &ApiServer, holds: impl Fn(&Value) -> bool) -> Value {
    let wait = async {
        loop {
            let node = server.ask("GET", "/api/v1/nodes/n1", None).await;
            if holds(&node) {
                return node;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    timeout(LIMIT, wait).await.expect("the Node never got there")
}

/// Waits for an event about the Node `n1`; returns its note.
pub(crate) async fn event(server: &ApiServer, reason: &str) -> String {
    let wait = async {
        loop {
            let events = server.ask("GET", "/apis/events.k8s.io/v1/namespaces/default/events", None).await;
            let found = events["items"].as_array().unwrap().iter().find(|event| event["reason"] == reason).cloned();
            if let Some(event) = found {
                assert_eq!((&event["regarding"]["kind"], &event["regarding"]["name"]), (&json!("Node"), &json!("n1")));
                assert_eq!(event["reportingController"], "weft");
                return event["note"].as_str().unwrap().to_owned();
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("no event {reason}"))
}
