//! The parts of the API objects that weft reads, as they stand in the JSON.
//!
//! As in Go, `null` is as good as nothing, and a member that is not known is passed over. Texts are borrowed from the JSON
//! where it has no escapes, because most of them are only looked at.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

/// A text of the JSON.
pub(super) struct Text<'a>(Cow<'a, str>);

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Borrow;
        impl<'de> Visitor<'de> for Borrow {
            type Value = Text<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a string")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        from.deserialize_str(Borrow)
    }
}

/// `metadata` of any object.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Metadata<'a> {
    #[serde(borrow)]
    pub(super) name: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) namespace: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) creation_timestamp: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) deletion_timestamp: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) labels: Option<Labels<'a>>,
    #[serde(borrow)]
    pub(super) annotations: Option<Annotations<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Labels<'a> {
    #[serde(borrow, rename = "service.kubernetes.io/service-proxy-name")]
    pub(super) proxy_name: Option<Text<'a>>,
    #[serde(borrow, rename = "kubernetes.io/service-name")]
    pub(super) service_name: Option<Text<'a>>,
    #[serde(borrow, rename = "service.kubernetes.io/headless")]
    pub(super) headless: Option<Text<'a>>,
    #[serde(borrow, rename = "topology.kubernetes.io/zone")]
    pub(super) zone: Option<Text<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Annotations<'a> {
    #[serde(borrow, rename = "weft.dev/ipvs-scheduler")]
    pub(super) scheduler: Option<Text<'a>>,
    #[serde(borrow, rename = "kube-router.io/service.scheduler")]
    pub(super) kube_router_scheduler: Option<Text<'a>>,
    #[serde(borrow, rename = "endpoints.kubernetes.io/last-change-trigger-time")]
    pub(super) triggered: Option<Text<'a>>,
}

/// `v1.Service`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct RawService<'a> {
    #[serde(borrow)]
    pub(super) kind: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) metadata: Option<Metadata<'a>>,
    #[serde(borrow)]
    pub(super) spec: Option<Spec<'a>>,
    #[serde(borrow)]
    pub(super) status: Option<Status<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Spec<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Option<Text<'a>>,
    #[serde(borrow, rename = "clusterIP")]
    pub(super) cluster_ip: Option<Text<'a>>,
    #[serde(borrow, rename = "clusterIPs")]
    pub(super) cluster_ips: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    pub(super) ip_families: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    pub(super) ports: Option<Vec<Port<'a>>>,
    #[serde(borrow, rename = "externalIPs")]
    pub(super) external_ips: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    pub(super) load_balancer_source_ranges: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    pub(super) internal_traffic_policy: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) external_traffic_policy: Option<Text<'a>>,
    pub(super) health_check_node_port: Option<i64>,
    #[serde(borrow)]
    pub(super) session_affinity: Option<Text<'a>>,
    pub(super) session_affinity_config: Option<AffinityConfig>,
}

/// A port of a Service (`port`, `nodePort`) or of a slice (`port`).
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Port<'a> {
    #[serde(borrow)]
    pub(super) name: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) protocol: Option<Text<'a>>,
    pub(super) port: Option<i64>,
    pub(super) node_port: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct AffinityConfig {
    #[serde(rename = "clientIP")]
    pub(super) client_ip: Option<ClientIp>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ClientIp {
    pub(super) timeout_seconds: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Status<'a> {
    #[serde(borrow)]
    pub(super) load_balancer: Option<LoadBalancer<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct LoadBalancer<'a> {
    #[serde(borrow)]
    pub(super) ingress: Option<Vec<Ingress<'a>>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Ingress<'a> {
    #[serde(borrow)]
    pub(super) ip: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) ip_mode: Option<Text<'a>>,
}

/// `discovery.k8s.io/v1` EndpointSlice.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RawSlice<'a> {
    #[serde(borrow)]
    pub(super) kind: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) metadata: Option<Metadata<'a>>,
    #[serde(borrow)]
    pub(super) address_type: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) ports: Option<Vec<Port<'a>>>,
    #[serde(borrow)]
    pub(super) endpoints: Option<Vec<Endpoint<'a>>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Endpoint<'a> {
    #[serde(borrow)]
    pub(super) addresses: Option<Vec<Text<'a>>>,
    pub(super) conditions: Option<Conditions>,
    #[serde(borrow)]
    pub(super) node_name: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) hints: Option<Hints<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Conditions {
    pub(super) ready: Option<bool>,
    pub(super) serving: Option<bool>,
    pub(super) terminating: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Hints<'a> {
    #[serde(borrow)]
    pub(super) for_zones: Option<Vec<Hint<'a>>>,
    #[serde(borrow)]
    pub(super) for_nodes: Option<Vec<Hint<'a>>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Hint<'a> {
    #[serde(borrow)]
    pub(super) name: Option<Text<'a>>,
}

/// `v1.Node`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct RawNode<'a> {
    #[serde(borrow)]
    pub(super) kind: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) metadata: Option<Metadata<'a>>,
    #[serde(borrow)]
    pub(super) spec: Option<NodeSpec<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct NodeSpec<'a> {
    #[serde(borrow)]
    pub(super) taints: Option<Vec<Taint<'a>>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Taint<'a> {
    #[serde(borrow)]
    pub(super) key: Option<Text<'a>>,
}
