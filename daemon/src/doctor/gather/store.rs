//! The store: etcd, or the API server.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use http::{Request, header};
use kube::client::Body;
use kube::config::Kubeconfig;
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::LIMIT;
use crate::cluster::kube::explain;
use crate::cluster::{etcd, kube as kube_source};
use crate::config::{AgentConfig, ProxyMode, SourceKind};
use crate::doctor::Told;
use crate::doctor::clock::Ahead;
use crate::doctor::store::{StoreFacts, expiry};
use crate::status::fetch;

/// The token of a pod's ServiceAccount.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// How long the store may take: its client's own limits are shorter for each single step.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is known of the store.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) facts: StoreFacts,
    /// How far its clock is ahead; nothing if it cannot be asked.
    pub(super) ahead: Told<Option<Ahead>>,
}

/// Asks it.
pub(super) async fn ask(config: &AgentConfig) -> Asked {
    match config.settings.source {
        SourceKind::Etcd => ask_etcd(config).await,
        SourceKind::Kube => ask_kube(config).await,
    }
}

/// How many seconds a clock that says this is ahead. Whoever says it drops what is less than a second, so that half of one is
/// added.
pub(super) fn ahead(date: SystemTime) -> Option<f64> {
    let seconds = |time: SystemTime| Some(time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs_f64());
    Some(seconds(date)? + 0.5 - seconds(SystemTime::now())?)
}

async fn ask_etcd(config: &AgentConfig) -> Asked {
    let endpoints = config.etcd.endpoints.join(", ");
    let begun = Instant::now();
    let exchange = async {
        let view = etcd::Store::new(config.etcd.clone()).view(&config.settings.etcd_prefix).await?;
        Ok(format!("{} leases at revision {} in {} ms", view.subnets.len(), view.revision, begun.elapsed().as_millis()))
    };
    let answer = timeout(PATIENCE, exchange).await.unwrap_or_else(|_| Err("no answer".to_owned()));
    let facts = StoreFacts { what: format!("etcd at {endpoints}"), answer, token: None, by_own_service: false };
    Asked { facts, ahead: etcd_clock(&config.etcd.endpoints).await }
}

/// etcd's clock, from its HTTP end point; with TLS it wants a certificate there, too, and the peers have to do.
async fn etcd_clock(endpoints: &[String]) -> Told<Option<Ahead>> {
    let mut reason = None;
    for endpoint in endpoints {
        let Some(host) = endpoint.strip_prefix("http://") else { continue };
        match date_of(host.trim_end_matches('/')).await {
            Ok(seconds) => return Ok(Some(Ahead { whose: format!("etcd at {endpoint}"), seconds })),
            Err(error) => reason = Some(error),
        }
    }
    reason.map_or(Ok(None), Err)
}

async fn date_of(host: &str) -> Told<f64> {
    let addresses: Vec<SocketAddr> = lookup_host(host).await.map_err(|error| format!("{host}: {error}"))?.collect();
    let address = addresses.first().ok_or_else(|| format!("{host} has no address"))?;
    let answer = fetch::get(*address, "/health", LIMIT).await.map_err(|error| error.to_string())?;
    answer.date.and_then(ahead).ok_or_else(|| format!("{host} does not say what time it is"))
}

async fn ask_kube(config: &AgentConfig) -> Asked {
    let settings = &config.settings;
    let in_cluster = settings.kubeconfig.is_none();
    let what = match (&settings.kube_api_server, &settings.kubeconfig) {
        (Some(endpoint), _) => format!("the API server at {}", endpoint.0),
        (None, Some(path)) => format!("the API server of {}", path.display()),
        (None, None) => "the API server at its Service's address".to_owned(),
    };
    let exchange = async {
        let client = kube_source::connect(&config.kube).await.map_err(|error| error.to_string())?;
        let begun = Instant::now();
        let request = Request::get("/version").body(Body::empty()).map_err(|error| error.to_string())?;
        let response = client.send(request).await.map_err(|error| explain(&error))?;
        let date = response.headers().get(header::DATE).and_then(|value| value.to_str().ok());
        let seconds = date.and_then(|text| httpdate::parse_http_date(text).ok()).and_then(ahead);
        let version = client.apiserver_version().await.map_err(|error| explain(&error))?.git_version;
        // What it is asked for with credentials, and what for without, are two things.
        let path = format!("/api/v1/nodes/{}", settings.node_name);
        let request = Request::get(path).body(Vec::new()).map_err(|error| error.to_string())?;
        client.request_text(request).await.map_err(|error| explain(&error))?;
        Ok((format!("{version}, own Node read, {} ms", begun.elapsed().as_millis()), seconds))
    };
    let answer = timeout(PATIENCE, exchange).await.unwrap_or_else(|_| Err("no answer".to_owned()));
    let seconds = answer.as_ref().map(|(_, seconds)| *seconds).map_err(Clone::clone);
    let by_own_service = in_cluster && settings.kube_api_server.is_none() && settings.proxy_mode != ProxyMode::None;
    let token = if in_cluster { Some(pod_token()) } else { settings.kubeconfig.as_deref().and_then(kubeconfig_token) };
    Asked {
        ahead: seconds.and_then(|seconds| {
            let seconds = seconds.ok_or_else(|| format!("{what} does not say what time it is"))?;
            Ok(Some(Ahead { whose: what.clone(), seconds }))
        }),
        facts: StoreFacts { what, answer: answer.map(|(words, _)| words), token, by_own_service },
    }
}

fn pod_token() -> Told<i64> {
    let text = fs::read_to_string(TOKEN).map_err(|error| format!("{TOKEN}: {error}"))?;
    left(&text).ok_or_else(|| format!("{TOKEN} does not tell when it ends"))
}

/// Of a kubeconfig with a token; one with a certificate has none.
fn kubeconfig_token(path: &Path) -> Option<Told<i64>> {
    let kubeconfig = Kubeconfig::read_from(path).ok()?;
    let users = kubeconfig.auth_infos.into_iter().filter_map(|named| named.auth_info);
    let file = users.filter_map(|user| user.token_file).next()?;
    let text = fs::read_to_string(&file).map_err(|error| format!("{file}: {error}"));
    Some(text.and_then(|text| left(&text).ok_or_else(|| format!("{file} does not tell when it ends"))))
}

fn left(token: &str) -> Option<i64> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
    Some(expiry(token)? - i64::try_from(now).ok()?)
}
