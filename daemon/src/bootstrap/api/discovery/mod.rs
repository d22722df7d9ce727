//! How a new node finds the cluster and comes to trust it: by a token, a kubeconfig, or an https URL of one (contract section
//! 1.15).

mod error;
mod fetch;
mod file;
mod judge;
mod token;

use kube::config::Kubeconfig;
use serde_json::{Value, json};

use super::cluster_info::ClusterInfo;
use super::error::ApiError;
use super::pin::Pin;
use super::server::Server;
use super::token::Token;
use crate::bootstrap::config::model::Discovery;
use crate::bootstrap::resolved::Limits;

pub use error::DiscoveryError;

/// Names of kubeadm's for a newcomer.
const USER: &str = "tls-bootstrap-token-user";
const CLUSTER: &str = "kubernetes";

/// By what a newcomer is known. Not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A bootstrap token.
    Token(Token),
    /// The `user` of a kubeconfig, with all that its files held.
    User(Value),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Token(token) => write!(out, "{token:?}"),
            Self::User(_) => out.write_str("User(…)"),
        }
    }
}

/// A cluster that may be trusted, and by what it knows us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovered {
    /// Where it is, and its authority.
    pub info: ClusterInfo,
    /// By what it knows us.
    pub credentials: Credentials,
    /// At which of the endpoints that were given it was found: `host:port`, or a URL.
    pub reached: String,
}

/// Finds the cluster. `tell` hears why it is not found yet: at once, when that changes, and every few seconds.
///
/// # Errors
/// [`DiscoveryError`]: at once what waiting does not mend, a token that is refused after three seconds (eight without a hash),
/// and what may come yet (no answer, nothing published) after `limits.discovery`.
pub async fn discover(
    given: &Discovery,
    limits: &Limits,
    tell: &mut (dyn FnMut(&DiscoveryError) + Send),
) -> Result<Discovered, DiscoveryError> {
    let parse = |text: &str| -> Result<Token, DiscoveryError> {
        text.parse().map_err(|error: super::TokenError| DiscoveryError::Given(error.to_string()))
    };
    let tls_token = given.tls_bootstrap_token.as_deref().filter(|text| !text.is_empty()).map(parse).transpose()?;
    match (&given.bootstrap_token, &given.file) {
        (Some(by), None) => {
            let search = plan(by)?;
            let (info, reached) = token::search(&search, limits.discovery, tell).await?;
            Ok(Discovered { info, credentials: Credentials::Token(tls_token.unwrap_or(search.token)), reached })
        }
        (None, Some(by)) => file::find(&by.kube_config_path, tls_token.as_ref()).await,
        _ => Err(DiscoveryError::Given("discovery: expected exactly one of bootstrapToken and file".to_owned())),
    }
}

fn plan(by: &crate::bootstrap::config::model::BootstrapTokenDiscovery) -> Result<token::Search, DiscoveryError> {
    let given = |text: String| DiscoveryError::Given(text);
    let endpoints = by.api_server_endpoint.as_deref().unwrap_or_default().split(',').map(str::trim);
    let endpoints: Vec<String> = endpoints.filter(|it| !it.is_empty()).map(str::to_owned).collect();
    if endpoints.is_empty() {
        return Err(given("discovery by a token needs the HOST:PORT of an API server".to_owned()));
    }
    for endpoint in &endpoints {
        let authority: Result<http::uri::Authority, _> = endpoint.parse();
        if !authority.is_ok_and(|it| it.port_u16().is_some() && !it.host().is_empty()) {
            return Err(given(format!(
                "{endpoint:?} is no HOST:PORT of an API server, as in 192.0.2.10:6443 or [2001:db8::1]:6443"
            )));
        }
    }
    let pins: Result<Vec<Pin>, _> = by.ca_cert_hashes.iter().map(|text| text.parse()).collect();
    let pins = pins.map_err(|error: super::PinError| given(error.to_string()))?;
    if pins.is_empty() && by.unsafe_skip_ca_verification != Some(true) {
        let words =
            "give --discovery-token-ca-cert-hash, or --discovery-token-unsafe-skip-ca-verification to do without";
        return Err(given(words.to_owned()));
    }
    let token = by.token.parse().map_err(|error: super::TokenError| given(error.to_string()))?;
    Ok(token::Search { endpoints, token, pins })
}

impl Discovered {
    /// Only ever in memory, so that its names are of no importance.
    fn kubeconfig(&self) -> Value {
        use base64::Engine as _;
        let user = match &self.credentials {
            Credentials::Token(token) => json!({"token": token.reveal()}),
            Credentials::User(user) => user.clone(),
        };
        json!({
            "apiVersion": "v1", "kind": "Config", "preferences": {},
            "clusters": [{"name": CLUSTER, "cluster": {
                "certificate-authority-data": base64::engine::general_purpose::STANDARD.encode(&self.info.ca),
                "server": self.info.server,
            }}],
            "users": [{"name": USER, "user": user}],
            "contexts": [{"name": USER, "context": {"cluster": CLUSTER, "user": USER}}],
            "current-context": USER,
        })
    }

    /// The API server as a newcomer sees it.
    ///
    /// # Errors
    /// Credentials that cannot be used.
    pub async fn server(&self, limits: &Limits) -> Result<Server, ApiError> {
        let kubeconfig: Kubeconfig = serde_json::from_value(self.kubeconfig())
            .map_err(|error| ApiError::content("the kubeconfig of the cluster", error.to_string()))?;
        Server::connect_as(kubeconfig, limits).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::config::model::BootstrapTokenDiscovery;

    fn given() -> BootstrapTokenDiscovery {
        BootstrapTokenDiscovery {
            token: "abcdef.0123456789abcdef".to_owned(),
            api_server_endpoint: Some("192.0.2.1:6443, [2001:db8::1]:6443,api.example:443".to_owned()),
            ca_cert_hashes: vec![format!("sha256:{}", "00".repeat(32))],
            unsafe_skip_ca_verification: None,
        }
    }

    #[test]
    fn j19_several_endpoints_are_tried_in_their_order() {
        let search = plan(&given()).unwrap();
        assert_eq!(search.endpoints, ["192.0.2.1:6443", "[2001:db8::1]:6443", "api.example:443"]);
    }

    #[test]
    fn what_cannot_be_is_refused_before_anybody_is_asked() {
        let refused = |change: fn(&mut BootstrapTokenDiscovery)| {
            let mut given = given();
            change(&mut given);
            plan(&given).unwrap_err().to_string()
        };
        assert!(refused(|it| it.api_server_endpoint = None).contains("HOST:PORT"));
        assert!(refused(|it| it.api_server_endpoint = Some("192.0.2.1".into())).contains("192.0.2.1"));
        assert!(refused(|it| it.api_server_endpoint = Some("https://192.0.2.1:6443".into())).contains("HOST:PORT"));
        assert!(refused(|it| it.ca_cert_hashes.clear()).contains("unsafe-skip"));
        assert!(refused(|it| it.ca_cert_hashes.push("x".into())).contains("sha256:"));
        let words = refused(|it| it.token = "abcdef.SECRET6789abcdef".into());
        assert!(words.contains("no bootstrap token") && !words.contains("SECRET"), "{words}");
    }

    #[test]
    fn debug_tells_no_secret() {
        let token: Token = "abcdef.0123456789abcdef".parse().unwrap();
        let info = ClusterInfo { server: "https://192.0.2.1:6443".to_owned(), ca: "PEM".to_owned() };
        let found = Discovered { info, credentials: Credentials::Token(token), reached: "192.0.2.1:6443".to_owned() };
        assert_eq!(found.kubeconfig()["users"][0]["user"], json!({"token": "abcdef.0123456789abcdef"}));
        assert!(!format!("{found:?}").contains("0123456789"));
    }
}
