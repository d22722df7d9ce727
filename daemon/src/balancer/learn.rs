//! What the cluster itself says of its API servers: EndpointSlice `default/kubernetes`, in which each enters itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::Kubeconfig;
use serde_json::{Value, json};

use super::SERVER_NAME;
use crate::cluster::kube::place::{Place, of_slice};
use crate::cluster::kube::{Api, connect_as};

/// The object. Nodes may read it by the Role that init makes (`bootstrap/api/rbac`).
const SLICE: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(5);

/// By what the API servers know this node, and the node them. Files, as kubelet's certificate is another one every few months.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    /// The cluster's authority, PEM.
    pub(super) authority: PathBuf,
    /// Certificate and key in one file, PEM.
    pub(super) certificate: PathBuf,
}

/// Asks for the servers. The connection is kept for as long as it answers.
pub(super) struct Learner {
    identity: Identity,
    connected: Option<(Place, Api)>,
}

impl Learner {
    pub(super) fn new(identity: Identity) -> Self {
        Self { identity, connected: None }
    }

    /// The servers that the first of `order` knows who answers; the one that answered last is asked first.
    ///
    /// # Errors
    /// Why nobody answers: the words of the last. Nothing is learnt from that.
    pub(super) async fn ask(&mut self, order: Vec<Place>) -> Result<Vec<Place>, String> {
        let mut last = "there is nobody to ask".to_owned();
        if let Some((place, api)) = self.connected.take().filter(|(place, _)| order.contains(place)) {
            match read(&api).await {
                Ok(found) => {
                    self.connected = Some((place, api));
                    return Ok(found);
                }
                Err(words) => last = format!("{place}: {words}"),
            }
        }
        for place in order {
            match self.connect(&place).await {
                Ok((api, found)) => {
                    self.connected = Some((place, api));
                    return Ok(found);
                }
                Err(words) => last = format!("{place}: {words}"),
            }
        }
        Err(last)
    }

    async fn connect(&self, place: &Place) -> Result<(Api, Vec<Place>), String> {
        let Identity { authority, certificate } = &self.identity;
        let kubeconfig = kubeconfig(place, authority, certificate).map_err(|error| error.to_string())?;
        let api = Api::new(connect_as(kubeconfig).await.map_err(|error| error.to_string())?);
        let found = read(&api).await?;
        Ok((api, found))
    }
}

fn kubeconfig(place: &Place, authority: &Path, certificate: &Path) -> Result<Kubeconfig, serde_json::Error> {
    serde_json::from_value(json!({
        "clusters": [{"name": "it", "cluster": {
            "server": format!("https://{place}"), "certificate-authority": authority, "tls-server-name": SERVER_NAME,
        }}],
        "users": [{"name": "node", "user": {"client-certificate": certificate, "client-key": certificate}}],
        "contexts": [{"name": "node@it", "context": {"cluster": "it", "user": "node"}}],
        "current-context": "node@it",
    }))
}

async fn read(api: &Api) -> Result<Vec<Place>, String> {
    let slice: Value = api.read("balancer", SLICE, LIMIT).await.map_err(|refusal| refusal.words)?;
    let found = of_slice(&slice);
    if found.is_empty() { Err("the EndpointSlice default/kubernetes names no server".to_owned()) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_goes_by_an_address_and_knows_the_server_by_its_name() {
        let place = "[2001:db8::1]:6443".parse().unwrap();
        let config = kubeconfig(&place, Path::new("/ca.crt"), Path::new("/node.pem")).unwrap();
        let cluster = config.clusters[0].cluster.as_ref().unwrap();
        assert_eq!(cluster.server.as_deref(), Some("https://[2001:db8::1]:6443"));
        assert_eq!(cluster.tls_server_name.as_deref(), Some("kubernetes"));
        let user = config.auth_infos[0].auth_info.as_ref().unwrap();
        assert_eq!(
            (user.client_certificate.as_deref(), user.client_key.as_deref()),
            (Some("/node.pem"), Some("/node.pem"))
        );
    }
}
