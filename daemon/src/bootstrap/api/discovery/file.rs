//! Finding a cluster by a kubeconfig, in a file or behind an https URL (kubeadm's `discovery/file` and `discovery/https`).

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::error::DiscoveryError;
use super::fetch::{Failure, Trust, get};
use super::judge::{kubeconfig, skew};
use super::{Credentials, Discovered};
use crate::bootstrap::api::cluster_info::{ClusterInfo, PATH};
use crate::bootstrap::api::token::Token;
use crate::bootstrap::yaml;

/// Reads the kubeconfig and completes it: files that it names are taken in, the authority is the one that the cluster has
/// now.
pub(super) async fn find(place: &str, tls_token: Option<&Token>) -> Result<Discovered, DiscoveryError> {
    let wrong = |what: String| DiscoveryError::Given(format!("{place}: {what}"));
    let (text, folder) = read(place).await?;
    let value = yaml::read(&text).map_err(wrong)?;
    let (cluster, user) = pick(&value).map_err(wrong)?;
    let server = cluster["server"].as_str().filter(|server| server.starts_with("https://"));
    let server = server.ok_or_else(|| wrong("its cluster has no server that begins with https://".to_owned()))?;
    let ca = embedded(cluster, "certificate-authority", folder.as_deref()).map_err(wrong)?;
    let ca = ca.and_then(|ca| String::from_utf8(ca).ok());
    let ca = ca.ok_or_else(|| wrong("its cluster has no certificate authority".to_owned()))?;
    let credentials = match credentials(user, folder.as_deref()).map_err(wrong)? {
        Some(user) => Credentials::User(user),
        None => match tls_token {
            Some(token) => Credentials::Token(token.clone()),
            None => return Err(wrong("it has no credentials; give --tls-bootstrap-token".to_owned())),
        },
    };
    let mut info = ClusterInfo { server: server.to_owned(), ca };
    // A file may be older than the authority; where cluster-info is not to be had, the file's own has to do.
    let url = format!("{}{PATH}", info.server.trim_end_matches('/'));
    match get(&url, &Trust::Authorities(info.ca.clone()), None).await {
        Ok(answer) => {
            skew(&answer, &info.server, SystemTime::now())?;
            let text = kubeconfig(&answer, &info.server).map(|(_, text)| text);
            if let Some(now) = text.ok().and_then(|text| ClusterInfo::from_yaml(&text).ok()) {
                info.ca = now.ca;
            }
        }
        Err(Failure::NotNow(words)) => {
            // Whoever it is may say what time it is: only words depend on it.
            if let Ok(answer) = get(&url, &Trust::Anybody, None).await {
                skew(&answer, &info.server, SystemTime::now())?;
            }
            return Err(DiscoveryError::NotNow { endpoint: info.server, words });
        }
        Err(_) => {}
    }
    let reached = info.server.clone();
    Ok(Discovered { info, credentials, reached })
}

/// The text, and the folder that its relative paths begin at.
async fn read(place: &str) -> Result<(String, Option<PathBuf>), DiscoveryError> {
    let wrong = |what: String| DiscoveryError::Given(format!("{place}: {what}"));
    if place.contains("://") {
        let answer = get(place, &Trust::System, None).await.map_err(|failure| wrong(failure.to_string()))?;
        if answer.status != 200 {
            return Err(wrong(format!("the server says {}", answer.status)));
        }
        return String::from_utf8(answer.body).map(|text| (text, None)).map_err(|error| wrong(error.to_string()));
    }
    let text = std::fs::read_to_string(place).map_err(|error| wrong(error.to_string()))?;
    Ok((text, Path::new(place).parent().map(Path::to_owned)))
}

/// The cluster and the user of the current context; without one, the only cluster, as cluster-info has it, and no user.
fn pick(kubeconfig: &Value) -> Result<(&Value, &Value), String> {
    let of = |list: &str, name: &Value, key: &str| -> Option<&Value> {
        kubeconfig[list].as_array()?.iter().find(|entry| entry["name"] == *name).map(|entry| &entry[key])
    };
    if let Some(name) = kubeconfig["current-context"].as_str().filter(|name| !name.is_empty()) {
        let context = of("contexts", &json!(name), "context").ok_or_else(|| format!("it has no context {name:?}"))?;
        let cluster = of("clusters", &context["cluster"], "cluster");
        let cluster = cluster.ok_or_else(|| format!("it has no cluster {}", context["cluster"]))?;
        return Ok((cluster, of("users", &context["user"], "user").unwrap_or(&Value::Null)));
    }
    match kubeconfig["clusters"].as_array().map(Vec::as_slice) {
        Some([only]) => Ok((&only["cluster"], &Value::Null)),
        _ => Err("it has no current-context, and not exactly one cluster".to_owned()),
    }
}

/// The user with what his files hold; `None` if there is nothing by which he could be known.
fn credentials(user: &Value, folder: Option<&Path>) -> Result<Option<Value>, String> {
    if user.get("exec").is_some() || user.get("auth-provider").is_some() {
        return Ok(Some(user.clone()));
    }
    let certificate = embedded(user, "client-certificate", folder)?;
    if let (Some(certificate), Some(key)) = (certificate, embedded(user, "client-key", folder)?) {
        return Ok(Some(json!({
            "client-certificate-data": STANDARD.encode(certificate), "client-key-data": STANDARD.encode(key),
        })));
    }
    if let Some(token) = user["token"].as_str().filter(|token| !token.is_empty()) {
        return Ok(Some(json!({"token": token})));
    }
    let Some(file) = user["tokenFile"].as_str() else { return Ok(None) };
    Ok(Some(json!({"token": String::from_utf8_lossy(&from(file, folder)?).trim()})))
}

/// What is there under `key`-data, or in the file under `key`.
fn embedded(entry: &Value, key: &str, folder: Option<&Path>) -> Result<Option<Vec<u8>>, String> {
    if let Some(coded) = entry[format!("{key}-data")].as_str().filter(|coded| !coded.is_empty()) {
        return STANDARD.decode(coded).map(Some).map_err(|error| format!("{key}-data: {error}"));
    }
    entry[key].as_str().filter(|path| !path.is_empty()).map(|path| from(path, folder)).transpose()
}

fn from(path: &str, folder: Option<&Path>) -> Result<Vec<u8>, String> {
    let folder = folder.ok_or_else(|| format!("it names the file {path}, and is itself in none"))?;
    std::fs::read(folder.join(path)).map_err(|error| format!("{path}: {error}"))
}
