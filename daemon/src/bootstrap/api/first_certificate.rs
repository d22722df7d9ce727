//! kubelet's first certificate, asked for as kubelet's own TLS bootstrap does: a CertificateSigningRequest by whoever may join, which
//! the cluster's controllers approve and sign (Kubernetes, "TLS bootstrapping").
//!
//! Asked for before kubelet starts: a refusal is told at once and by its name, the token never lies on disk, and kubelet starts once,
//! with the credentials and the way to the API that it keeps.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::addons::{Hear, LOOK, Patience};
use super::error::ApiError;
use super::object::Place;
use super::server::Server;
use crate::bootstrap::resolved::Limits;

const VERSION: &str = "certificates.k8s.io/v1";
const KIND: &str = "CertificateSigningRequest";
/// Signs what says that it is a node, if it was asked by one who may join (Kubernetes, "Kubernetes signers").
const SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";

/// Sends a request (PKCS#10 as PEM) for a node's certificate in the name of `server`'s user, and waits for the certificate (PEM).
///
/// # Errors
/// [`ApiError::Denied`] if somebody denied it, [`ApiError::Refused`] if nobody approved it within `limits.tls_bootstrap` or the API
/// server does not answer.
pub async fn first_certificate(
    server: &Server,
    request: &str,
    limits: &Limits,
    hear: &Hear<'_>,
) -> Result<String, ApiError> {
    let object = json!({
        "apiVersion": VERSION, "kind": KIND, "metadata": {"generateName": "node-csr-"},
        "spec": {
            "request": STANDARD.encode(request), "signerName": SIGNER, "usages": ["digital signature", "client auth"],
        },
    });
    let made = server.persist("write", KIND, || server.create_once(&object)).await?;
    let place = Place::new(VERSION, KIND, "", made["metadata"]["name"].as_str().unwrap_or_default());
    let (server, patience) = (server.every(LOOK).within(limits.tls_bootstrap), Patience::new(hear));
    let wait = format!(
        "{} waits for approval; whoever administers the cluster: kubectl certificate approve {}",
        place.words, place.name
    );
    let decided = server.persist("have a certificate by", &place.words, || async {
        let found = server.get_once(&place).await?.unwrap_or_default();
        patience.judge(decision(&found).ok_or_else(|| wait.clone()))
    });
    decided.await?.map_err(|why| ApiError::Denied(format!("{}: {why}", place.words)))
}

/// The certificate, or why there will be none; `None` while nobody has decided.
fn decision(request: &Value) -> Option<Result<String, String>> {
    let status = &request["status"];
    let conditions = status["conditions"].as_array();
    let refusal = conditions.into_iter().flatten().find(|it| it["type"] == "Denied" || it["type"] == "Failed");
    if let Some(refusal) = refusal {
        let text = |key: &str| refusal[key].as_str().unwrap_or_default();
        return Some(Err(format!("{}: {} ({})", text("type"), text("message"), text("reason"))));
    }
    let certificate = STANDARD.decode(status["certificate"].as_str()?).ok()?;
    String::from_utf8(certificate).ok().map(Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j11_a_request_is_open_signed_or_refused() {
        assert_eq!(decision(&json!({})), None);
        let approved = json!({"status": {"conditions": [{"type": "Approved"}]}});
        assert_eq!(decision(&approved), None, "approved is not signed");
        let signed = json!({"status": {"conditions": [{"type": "Approved"}], "certificate": STANDARD.encode("PEM")}});
        assert_eq!(decision(&signed), Some(Ok("PEM".to_owned())));
        let denied = json!({"status": {"conditions": [{"type": "Denied", "reason": "No", "message": "not you"}]}});
        assert_eq!(decision(&denied), Some(Err("Denied: not you (No)".to_owned())));
    }
}
