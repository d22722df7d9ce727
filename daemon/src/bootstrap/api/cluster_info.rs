//! ConfigMap `kube-public/cluster-info`: what everybody may know of the cluster, and whom a token has signed it for.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::error::ApiError;
use super::object::{Outcome, Place};
use super::server::{Existing, Server};
use super::token::{Token, TokenSpec};
use super::{jws, rbac};
use crate::bootstrap::yaml;
use crate::cluster::kube::api::Refusal;

/// Path of the ConfigMap, for those who have no client yet.
pub(super) const PATH: &str = "/api/v1/namespaces/kube-public/configmaps/cluster-info";

/// Key of its kubeconfig.
pub(super) const KEY: &str = "kubeconfig";

pub(super) fn place() -> Place {
    Place::new("v1", "ConfigMap", "kube-public", "cluster-info")
}

/// The cluster's address and authority, as cluster-info has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterInfo {
    /// `https://host:port`.
    pub server: String,
    /// The certificate authority, PEM.
    pub ca: String,
}

impl ClusterInfo {
    /// The kubeconfig without any user that cluster-info holds.
    fn to_yaml(&self) -> String {
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "contexts": null, "current-context": "", "users": null,
            "clusters": [{"name": "", "cluster": {
                "certificate-authority-data": STANDARD.encode(&self.ca), "server": self.server,
            }}],
        });
        yaml::to_string(&kubeconfig)
    }

    /// Of the kubeconfig in cluster-info.
    ///
    /// # Errors
    /// What is not as expected.
    pub fn from_yaml(text: &str) -> Result<Self, String> {
        let kubeconfig: Value = yaml::read(text)?;
        let clusters = kubeconfig["clusters"].as_array().map(Vec::as_slice).unwrap_or_default();
        let [entry] = clusters else { return Err(format!("it has {} clusters; expected one", clusters.len())) };
        let cluster = &entry["cluster"];
        let server = cluster["server"].as_str().filter(|it| it.starts_with("https://"));
        let server = server.ok_or("its cluster has no server that begins with https://")?.to_owned();
        let coded = cluster["certificate-authority-data"].as_str().unwrap_or_default();
        let ca = STANDARD.decode(coded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let ca = ca.filter(|ca| !ca.is_empty()).ok_or("its cluster has no certificate-authority-data")?;
        Ok(Self { server, ca })
    }
}

/// Publishes where the cluster is and its authority (PEM), and lets everybody read it; the rights that joining needs, too.
///
/// # Errors
/// [`ApiError::Refused`].
pub async fn publish_cluster_info(server: &Server, info: &ClusterInfo) -> Result<Outcome, ApiError> {
    let rights = server.ensure_all(&rbac::for_joining()).await?;
    let place = place();
    let yaml = info.to_yaml();
    let written = server
        .persist("write", &place.words, || async {
            // One that says the same in other letters, as kubeadm's, keeps its signatures.
            let found = server.get_once(&place).await?;
            let text = found.as_ref().and_then(|map| map["data"][KEY].as_str());
            if text.is_some_and(|text| ClusterInfo::from_yaml(text).as_ref() == Ok(info)) {
                return Ok(Outcome::Kept);
            }
            let wanted = json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"namespace": "kube-public", "name": "cluster-info"}, "data": {KEY: yaml},
            });
            server.ensure_once(&place, &wanted, Existing::Update).await
        })
        .await?;
    let readers = server.ensure_all(&rbac::for_cluster_info()).await?;
    Ok(rights.and(written).and(readers))
}

/// Where the cluster is, as cluster-info says.
///
/// # Errors
/// [`ApiError::Refused`], [`ApiError::Content`].
pub async fn read_cluster_info(server: &Server) -> Result<ClusterInfo, ApiError> {
    let place = place();
    let map = server.get(&place).await?.unwrap_or_default();
    let text = map["data"][KEY].as_str().unwrap_or_default();
    ClusterInfo::from_yaml(text).map_err(|problem| ApiError::content(place.words, problem))
}

/// Signs cluster-info with a token, if it is one for signing and that has not been done.
///
/// The controller manager does so, too, but late (kubernetes#109233; ten seconds and more after its start), and the same
/// text with the same token has only one signature: a node can join at once, and the controller finds its work done. When
/// the token is gone it removes the signature.
///
/// # Errors
/// [`ApiError::Refused`]; `Content` if there is no cluster-info yet.
pub async fn sign_cluster_info(server: &Server, spec: &TokenSpec) -> Result<Outcome, ApiError> {
    // There is nothing to sign where nothing has been written.
    if !spec.has("signing") || server.is_dry() {
        return Ok(Outcome::Kept);
    }
    let place = place();
    let signed = server.persist("sign", &place.words, || sign_once(server, &place, &spec.token)).await?;
    signed.ok_or_else(|| {
        ApiError::content(place.words, "there is none to sign: has `init` got as far as bootstrap-token?")
    })
}

async fn sign_once(server: &Server, place: &Place, token: &Token) -> Result<Option<Outcome>, Refusal> {
    let Some(map) = server.get_once(place).await? else { return Ok(None) };
    let Some(text) = map["data"][KEY].as_str() else { return Ok(None) };
    let key = jws::key(token.id());
    let found = map["data"][&key].as_str();
    if found.is_some_and(|signature| jws::verify(text, signature, token)) {
        return Ok(Some(Outcome::Kept));
    }
    let outcome = if found.is_some() { Outcome::Changed } else { Outcome::Made };
    server.patch_once(place, &map, json!({"data": {key: jws::sign(text, token)}})).await?;
    Ok(Some(outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_read_and_nothing_else() {
        let info = ClusterInfo { server: "https://192.0.2.1:6443".to_owned(), ca: "PEM\n".to_owned() };
        let text = info.to_yaml();
        assert_eq!(ClusterInfo::from_yaml(&text).unwrap(), info);
        assert!(text.contains("name: \"\"") || text.contains("name: ''"), "{text}");
        let kubeadms = "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: UEVNCg==\n    server: https://192.0.2.1:6443\n  \
                        name: \"\"\ncontexts: null\ncurrent-context: \"\"\nkind: Config\npreferences: {}\nusers: null\n";
        assert_eq!(ClusterInfo::from_yaml(kubeadms).unwrap(), info);
        for (wrong, word) in [
            ("clusters: []", "0 clusters"),
            ("clusters: [{cluster: {server: 'http://x'}}]", "https"),
            ("clusters: [{cluster: {server: 'https://x', certificate-authority-data: '_'}}]", "authority"),
            ("[", ""),
        ] {
            assert!(ClusterInfo::from_yaml(wrong).unwrap_err().contains(word), "{wrong}");
        }
    }
}
