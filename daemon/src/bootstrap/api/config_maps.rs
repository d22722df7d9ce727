//! What the cluster keeps of its configuration: `kubeadm-config` and `kubelet-config` (contract section 1.7).

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::error::ApiError;
use super::object::{Outcome, Place};
use super::rbac;
use super::server::{Existing, Server};
use super::token::DEFAULT_GROUP;
use crate::bootstrap::hex;

/// Says that kubelet's configuration is generated: it holds the hash of the data.
const HASH: &str = "kubeadm.kubernetes.io/component-config.hash";

const NAMESPACE: &str = "kube-system";
const KUBEADM: (&str, &str) = ("kubeadm-config", "ClusterConfiguration");
const KUBELET: (&str, &str) = ("kubelet-config", "kubelet");

/// Writes ConfigMap `kubeadm-config` with the ClusterConfiguration (YAML), and who may read it.
///
/// # Errors
/// [`ApiError::Refused`].
pub async fn upload_kubeadm_config(server: &Server, yaml: &str) -> Result<Outcome, ApiError> {
    let written = server.ensure(&config_map(KUBEADM, yaml, None), Existing::Update).await?;
    Ok(written.and(server.ensure_all(&rbac::for_kubeadm_config()).await?))
}

/// Writes ConfigMap `kubelet-config` with the KubeletConfiguration (YAML), and who may read it. One that is `generated`
/// carries the hash by which an upgrade sees that it may be generated anew.
///
/// # Errors
/// [`ApiError::Refused`].
pub async fn upload_kubelet_config(server: &Server, yaml: &str, generated: bool) -> Result<Outcome, ApiError> {
    let written = server.ensure(&config_map(KUBELET, yaml, Some(generated)), Existing::Update).await?;
    Ok(written.and(server.ensure_all(&rbac::for_kubelet_config()).await?))
}

/// Whether the KubeletConfiguration in the cluster is one that init has generated, and nobody has changed since.
///
/// # Errors
/// [`ApiError::Refused`].
pub async fn is_kubelet_config_generated(server: &Server) -> Result<bool, ApiError> {
    let found = server.get(&Place::new("v1", "ConfigMap", NAMESPACE, KUBELET.0)).await?.unwrap_or_default();
    let texts: Option<Vec<&str>> =
        found["data"].as_object().map(|data| data.values().filter_map(Value::as_str).collect());
    Ok(texts.is_some_and(|texts| found["metadata"]["annotations"][HASH] == hash(&texts)))
}

/// Reads the ClusterConfiguration, as YAML; with a newcomer's credentials, too.
///
/// # Errors
/// [`ApiError::Refused`], [`ApiError::Content`] if there is none.
pub async fn read_kubeadm_config(server: &Server) -> Result<String, ApiError> {
    read(server, KUBEADM).await
}

/// Reads the KubeletConfiguration, likewise.
///
/// # Errors
/// As [`read_kubeadm_config`].
pub async fn read_kubelet_config(server: &Server) -> Result<String, ApiError> {
    read(server, KUBELET).await
}

/// Hash of a ConfigMap's values in the order of their keys (kubeadm's `componentconfigs/checksums.go`).
pub(super) fn hash(texts: &[&str]) -> String {
    let mut hash = Sha256::new();
    texts.iter().for_each(|text| hash.update(text.as_bytes()));
    format!("sha256:{}", hex::encode(&hash.finalize()))
}

fn config_map((name, key): (&str, &str), yaml: &str, generated: Option<bool>) -> Value {
    let mut map = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"namespace": NAMESPACE, "name": name},
        "data": {key: yaml},
    });
    if let Some(generated) = generated {
        // Nothing, if it is a user's: the mark of an earlier one would be a lie.
        map["metadata"]["annotations"] = json!({HASH: generated.then(|| hash(&[yaml]))});
    }
    map
}

async fn read(server: &Server, (name, key): (&str, &str)) -> Result<String, ApiError> {
    let place = Place::new("v1", "ConfigMap", NAMESPACE, name);
    let found = server.get(&place).await.map_err(|error| match error.is(403) {
        true => ApiError::Denied(format!("{error}; a token for joining gives the group {DEFAULT_GROUP}")),
        false => error,
    })?;
    let Some(map) = found else {
        return Err(ApiError::content(place.words, "there is none: has `init` got as far as upload-config?"));
    };
    match map["data"][key].as_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(ApiError::content(place.words, format!("it has no {key}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_of_the_values_alone() {
        let known = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!((hash(&["abc"]), hash(&["a", "bc"])), (known.to_owned(), known.to_owned()));
        let annotated =
            |generated| config_map(KUBELET, "abc", Some(generated))["metadata"]["annotations"][HASH].clone();
        assert_eq!((annotated(true), annotated(false)), (json!(known), Value::Null));
        assert!(config_map(KUBEADM, "abc", None)["metadata"].get("annotations").is_none());
    }
}
