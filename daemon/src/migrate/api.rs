//! The API server, as `weft migrate plan` and `finish` ask it: with an operator's rights, a few times.

use std::collections::BTreeMap;

use http::Request;
use kube::{Client, Error};
use serde_json::{Value, json};

use super::cluster::{CONFIG_MAPS, FLANNEL_CONFIG, Objects, SAVED};

/// Objects in one answer.
const PAGE: usize = 500;

/// Reads what the cluster has.
///
/// # Errors
/// The first request that fails; what is not there is no error.
pub async fn read(client: &Client) -> Result<Objects, Error> {
    let daemon_sets = list(client, "/apis/apps/v1/daemonsets").await?;
    let mut config_maps = BTreeMap::new();
    let of_daemon_sets = daemon_sets.iter().filter_map(|set| set["metadata"]["namespace"].as_str());
    let mut wanted: Vec<(String, String)> =
        of_daemon_sets.map(|namespace| (namespace.to_owned(), FLANNEL_CONFIG.to_owned())).collect();
    wanted.extend(CONFIG_MAPS.map(|(namespace, name)| (namespace.to_owned(), name.to_owned())));
    wanted.sort();
    wanted.dedup();
    for (namespace, name) in wanted {
        if let Some(map) = get(client, &config_map(&namespace, &name)).await? {
            config_maps.insert((namespace, name), map);
        }
    }
    let nodes = list(client, "/api/v1/nodes").await?;
    Ok(Objects { nodes, daemon_sets, pods: list(client, "/api/v1/pods").await?, config_maps })
}

async fn list(client: &Client, path: &str) -> Result<Vec<Value>, Error> {
    let mut items = Vec::new();
    let mut token = String::new();
    loop {
        let more = if token.is_empty() { String::new() } else { format!("&continue={token}") };
        let mut page: Value = client.request(request("GET", &format!("{path}?limit={PAGE}{more}"), None)?).await?;
        if let Value::Array(found) = page["items"].take() {
            items.extend(found);
        }
        match page["metadata"]["continue"].as_str() {
            Some(next) if !next.is_empty() => next.clone_into(&mut token),
            _ => return Ok(items),
        }
    }
}

async fn get(client: &Client, path: &str) -> Result<Option<Value>, Error> {
    absent_is_none(client.request(request("GET", path, None)?).await)
}

/// Keeps the DaemonSets in a ConfigMap, so that they can be had back, and deletes them.
///
/// # Errors
/// The first request that fails. One that is gone already is none.
pub async fn delete(client: &Client, daemon_sets: &[(String, String)]) -> Result<(), Error> {
    let mut data = serde_json::Map::new();
    for (namespace, name) in daemon_sets {
        let path = daemon_set(namespace, name);
        let Some(mut set) = get(client, &path).await? else { continue };
        for of_the_server in ["uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"] {
            if let Some(metadata) = set["metadata"].as_object_mut() {
                metadata.remove(of_the_server);
            }
        }
        if let Some(set) = set.as_object_mut() {
            set.remove("status");
            set.insert("apiVersion".to_owned(), json!("apps/v1"));
            set.insert("kind".to_owned(), json!("DaemonSet"));
        }
        data.insert(format!("{namespace}.{name}.json"), json!(set.to_string()));
    }
    if data.is_empty() {
        return Ok(());
    }
    save(client, &data.into()).await?;
    for (namespace, name) in daemon_sets {
        let gone: Result<Value, Error> = client.request(request("DELETE", &daemon_set(namespace, name), None)?).await;
        absent_is_none(gone)?;
    }
    Ok(())
}

/// Creates a DaemonSet. One that is there already stays as it is.
///
/// # Errors
/// That the request failed.
pub async fn create(client: &Client, set: &Value) -> Result<(), Error> {
    let namespace = set["metadata"]["namespace"].as_str().unwrap_or_default();
    let all = format!("/apis/apps/v1/namespaces/{namespace}/daemonsets");
    match client.request::<Value>(request("POST", &all, Some(set))?).await {
        Err(Error::Api(status)) if status.code == 409 => Ok(()),
        answer => answer.map(drop),
    }
}

async fn save(client: &Client, data: &Value) -> Result<(), Error> {
    let (namespace, name) = SAVED;
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": namespace, "name": name}, "data": data});
    let path = config_map(namespace, name);
    if get(client, &path).await?.is_some() {
        return client.request::<Value>(request("PATCH", &path, Some(&json!({"data": data})))?).await.map(drop);
    }
    let all = format!("/api/v1/namespaces/{namespace}/configmaps");
    client.request::<Value>(request("POST", &all, Some(&object))?).await.map(drop)
}

/// Writes kubeadm's ClusterConfiguration, if nobody has changed it since it was read to be `before`.
///
/// # Errors
/// That the request failed, or that somebody was faster.
pub async fn set_kubeadm(client: &Client, before: &str, text: &str) -> anyhow::Result<()> {
    let path = config_map("kube-system", "kubeadm-config");
    let found = get(client, &path).await?.unwrap_or_default();
    anyhow::ensure!(
        found["data"]["ClusterConfiguration"] == before,
        "kubeadm-config has been changed meanwhile; run it again"
    );
    let version = &found["metadata"]["resourceVersion"];
    let patch = json!({"metadata": {"resourceVersion": version}, "data": {"ClusterConfiguration": text}});
    client.request::<Value>(request("PATCH", &path, Some(&patch))?).await?;
    Ok(())
}

fn config_map(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps/{name}")
}

fn daemon_set(namespace: &str, name: &str) -> String {
    format!("/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}")
}

fn absent_is_none(answer: Result<Value, Error>) -> Result<Option<Value>, Error> {
    match answer {
        Err(Error::Api(status)) if status.code == 404 => Ok(None),
        answer => answer.map(Some),
    }
}

/// A patch is a merge patch (RFC 7386).
fn request(method: &str, path: &str, body: Option<&Value>) -> Result<Request<Vec<u8>>, Error> {
    let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
    Request::builder().method(method).uri(path).header("content-type", kind).body(body).map_err(Error::HttpError)
}
