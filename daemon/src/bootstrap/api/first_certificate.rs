//! kubelet's first certificate, asked for as kubelet's own TLS bootstrap does: a CertificateSigningRequest by whoever may join, which
//! the cluster's controllers approve and sign (Kubernetes, "TLS bootstrapping").
//!
//! Asked for before kubelet starts: a refusal is told at once and by its name, the token never lies on disk, and kubelet starts once,
//! with the credentials and the way to the API that it keeps.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::error::ApiError;
use super::object::Place;
use super::server::Server;
use crate::bootstrap::resolved::Limits;

const VERSION: &str = "certificates.k8s.io/v1";
const KIND: &str = "CertificateSigningRequest";
/// Signs what says that it is a node, if it was asked by one who may join (Kubernetes, "Kubernetes signers").
const SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";

/// Between two looks: the controllers take a tenth of a second.
const LOOK: Duration = Duration::from_millis(100);
/// What takes so long is told of.
const WORTH_A_LINE: Duration = Duration::from_secs(5);

/// Sends a request (PKCS#10 as PEM) for a node's certificate in the name of `server`'s user, and waits for the certificate (PEM).
///
/// # Errors
/// [`ApiError::Denied`] if somebody denied it, [`ApiError::Content`] if nobody approved it within `limits.tls_bootstrap`,
/// [`ApiError::Refused`].
pub async fn first_certificate(
    server: &Server,
    request: &str,
    limits: &Limits,
    hear: &(dyn Fn(&str) + Sync),
) -> Result<String, ApiError> {
    let object = json!({
        "apiVersion": VERSION, "kind": KIND, "metadata": {"generateName": "node-csr-"},
        "spec": {
            "request": STANDARD.encode(request), "signerName": SIGNER, "usages": ["digital signature", "client auth"],
        },
    });
    let made = server.persist("write", KIND, || server.create_once(&object)).await?;
    let place = Place::new(VERSION, KIND, "", made["metadata"]["name"].as_str().unwrap_or_default());
    let began = Instant::now();
    let mut told = false;
    loop {
        let found = server.get(&place).await?.unwrap_or_default();
        match judge(&found) {
            State::Signed(certificate) => return Ok(certificate),
            State::Refused(why) => return Err(ApiError::Denied(format!("{}: {why}", place.words))),
            State::Open => {}
        }
        let wait = format!(
            "{} waits for approval; whoever administers the cluster: kubectl certificate approve {}",
            place.words, place.name
        );
        if began.elapsed() >= limits.tls_bootstrap {
            return Err(ApiError::content("kubelet's first certificate", wait));
        }
        if !told && began.elapsed() >= WORTH_A_LINE {
            told = true;
            hear(&wait);
        }
        sleep(LOOK).await;
    }
}

enum State {
    Open,
    Signed(String),
    Refused(String),
}

fn judge(request: &Value) -> State {
    let status = &request["status"];
    let conditions = status["conditions"].as_array();
    let refusal = conditions.into_iter().flatten().find(|it| it["type"] == "Denied" || it["type"] == "Failed");
    if let Some(refusal) = refusal {
        let text = |key: &str| refusal[key].as_str().unwrap_or_default().to_owned();
        return State::Refused(format!("{}: {} ({})", text("type"), text("message"), text("reason")));
    }
    let certificate = status["certificate"].as_str().and_then(|text| STANDARD.decode(text).ok());
    certificate.and_then(|bytes| String::from_utf8(bytes).ok()).map_or(State::Open, State::Signed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j11_a_request_is_open_signed_or_refused() {
        assert!(matches!(judge(&json!({})), State::Open));
        let approved = json!({"status": {"conditions": [{"type": "Approved"}]}});
        assert!(matches!(judge(&approved), State::Open), "approved is not signed");
        let signed = json!({"status": {"conditions": [{"type": "Approved"}], "certificate": STANDARD.encode("PEM")}});
        assert!(matches!(judge(&signed), State::Signed(text) if text == "PEM"));
        let denied = json!({"status": {"conditions": [{"type": "Denied", "reason": "No", "message": "not you"}]}});
        assert!(matches!(judge(&denied), State::Refused(why) if why == "Denied: not you (No)"));
    }
}
