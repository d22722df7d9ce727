//! The way to the Kubernetes API, for an agent that has one: its client, its events, and what its own Node asks for.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use super::agent::until_good;
use crate::cluster::kube::node::KubeNode;
use crate::cluster::kube::{self, Api, Servers, node_path, servers};
use crate::cluster::{Events, PerFamily};
use crate::config::{AgentConfig, ProxyMode, SourceKind};
use crate::serve::{Component, Health, Metrics};

/// Where a pod is told the address of the API server's Service.
const SERVICE_HOST: &str = "KUBERNETES_SERVICE_HOST";

/// How long the start waits for the own Node, which most often asks for nothing: long enough for two API servers that are away
/// to be passed over.
const OWN_NODE: Duration = Duration::from_secs(7);

/// The Kubernetes API, if the agent's source is that.
pub(super) struct Cluster {
    /// `None` for another source.
    pub(super) api: Option<Api>,
    /// Where events go.
    pub(super) events: Events,
}

impl Cluster {
    /// Makes a client, as soon as that is possible.
    pub(super) async fn start(
        config: &AgentConfig,
        health: &Arc<Health>,
        metrics: &Metrics,
        stop: &CancellationToken,
    ) -> Self {
        if config.settings.source != SourceKind::Kube {
            return Self { api: None, events: Events::default() };
        }
        if let Some(words) = own_service(config, std::env::var(SERVICE_HOST).ok().as_deref()) {
            tracing::warn!("{words}");
        }
        let servers = Arc::new(Servers::last_known(&config.settings.state_dir, metrics.api.clone()));
        let connect = async || kube::connect_through(&config.kube, &servers).await;
        let client = until_good(health, Component::Store, connect).await;
        let api = Api { client, metrics: metrics.api.clone(), servers: Some(Arc::clone(&servers)) };
        if config.settings.proxy_mode == ProxyMode::None {
            servers::watch(&api, servers, stop.clone());
        }
        let (events, told) = Events::channel();
        tokio::spawn(kube::events::run(api.clone(), config.settings.node_name.clone(), told));
        Self { api: Some(api), events }
    }

    /// The configuration, with the interface that the own Node's annotations ask for, if they do: they win over everything
    /// else, as they are this node's alone.
    pub(super) async fn chosen(&self, config: &AgentConfig) -> AgentConfig {
        let mut config = config.clone();
        let Some(api) = &self.api else { return config };
        let chosen = own_addresses(api, &config).await;
        let settings = &mut config.settings;
        if !chosen.is_empty() {
            let words: Vec<String> = chosen.values().map(ToString::to_string).collect();
            tracing::info!(addresses = words.join(","), "the own Node's annotations choose the underlay's addresses");
            settings.iface = words;
        }
        for address in chosen.values() {
            match address {
                IpAddr::V4(v4) => settings.public_ip = Some(*v4),
                IpAddr::V6(v6) => settings.public_ipv6 = Some(*v6),
            }
        }
        config
    }
}

/// What is wrong with an API server that is reached by its Service, of an agent that serves the Services itself: it goes on
/// only as long as somebody else's rules, such as those that kube-proxy left, lead there. The next boot has none.
fn own_service(config: &AgentConfig, host: Option<&str>) -> Option<String> {
    let (kube, settings) = (&config.kube, &config.settings);
    let is_given = kube.kube_api_server.is_some() || kube.kubeconfig.is_some();
    let address: IpAddr = host?.parse().ok()?;
    let serves = settings.proxy_mode != ProxyMode::None;
    (!is_given && serves && settings.service_cidr.iter().any(|network| network.contains(address))).then(|| {
        format!(
            "the API server is asked by way of its Service {address}, which weft cannot serve before it has been asked: \
             set kube-api-server to the API server's own address"
        )
    })
}

async fn own_addresses(api: &Api, config: &AgentConfig) -> PerFamily<IpAddr> {
    let settings = &config.settings;
    let node = match api.read::<Box<RawValue>>("node", &node_path(&settings.node_name), OWN_NODE).await {
        Ok(node) => node,
        // kubelet may make it later, and then it asks for nothing yet.
        Err(refusal) if refusal.code == Some(404) => return PerFamily::default(),
        Err(refusal) => {
            let reason = refusal.words;
            tracing::warn!(reason, "the own Node is not asked for the underlay's addresses; the next start does it");
            return PerFamily::default();
        }
    };
    let node = KubeNode::parse(node.get().as_bytes(), &settings.kube_annotation_prefix, &config.network.pools);
    node.map(|node| node.chosen_addresses()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::*;
    use crate::config::AgentFlags;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        flags: AgentFlags,
    }

    #[test]
    fn an_api_server_behind_its_own_service_is_warned_of() {
        let config = |words: &[&str]| {
            let line = ["agent", "--source=kube", "--node-name=n1"].iter().chain(words);
            AgentConfig::load_from(&Line::parse_from(line).flags, |_| None, Path::new("/nonexistent")).unwrap()
        };
        let warning = own_service(&config(&[]), Some("10.96.0.1")).unwrap();
        assert!(warning.contains("10.96.0.1") && warning.contains("kube-api-server"), "{warning}");
        assert_eq!(own_service(&config(&[]), Some("192.0.2.10")), None, "the server's own address");
        assert_eq!(own_service(&config(&[]), None), None, "no pod");
        for words in ["--proxy-mode=none", "--kube-api-server=https://192.0.2.10:6443", "--kubeconfig=/etc/kubeconfig"]
        {
            assert_eq!(own_service(&config(&[words]), Some("10.96.0.1")), None, "{words}");
        }
    }
}
