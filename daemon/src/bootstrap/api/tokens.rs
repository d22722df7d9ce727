//! Bootstrap tokens in the cluster: made, listed, taken back.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::error::ApiError;
use super::object::{Outcome, Place};
use super::server::{Existing, Server};
use super::token::{SECRET_TYPE, Token, TokenError, TokenSpec, after};
use crate::cluster::kube::api::Refusal;

/// What the token is for that a Secret with certificates goes with.
const OWNER: &str = "Proxy for managing TTL for the kubeadm-certs secret";

/// How long uploaded certificates stay.
const OWNER_TTL: Duration = Duration::from_secs(2 * 3600);

/// Makes a token that must not be there yet; [`super::sign_cluster_info`] is another step.
///
/// # Errors
/// [`ApiError::Denied`] if there is one of that id; [`ApiError::Refused`].
pub async fn create_token(server: &Server, spec: &TokenSpec) -> Result<(), ApiError> {
    let place = place(spec.token.id());
    let secret = spec.to_secret();
    let tried = AtomicBool::new(false);
    let made = server
        .persist("write", &place.words, || async {
            match server.create_once(&secret).await {
                Ok(_) => Ok(true),
                // An attempt whose answer was lost may have made it.
                Err(refusal) if refusal.code == Some(409) => {
                    let found = server.get_once(&place).await?.unwrap_or_default();
                    let is_ours = TokenSpec::from_secret(&found).is_ok_and(|found| found.is_but_for_the_end(spec));
                    Ok(tried.load(Relaxed) && is_ours)
                }
                Err(refusal) => {
                    tried.store(true, Relaxed);
                    Err(refusal)
                }
            }
        })
        .await?;
    if !made {
        return Err(ApiError::Denied(format!(
            "a token with id {0} is there already; `weft token delete {0}` removes it",
            spec.token.id()
        )));
    }
    Ok(())
}

/// Sees to it that there is this token, as init does; the signature is another step. One that is there, differs in its
/// end only and has half of its time left, stays as it is.
///
/// # Errors
/// [`ApiError::Refused`].
pub async fn ensure_token(server: &Server, spec: &TokenSpec, now: Timestamp) -> Result<Outcome, ApiError> {
    let place = place(spec.token.id());
    let keep = |found: &Value| TokenSpec::from_secret(found).is_ok_and(|found| is_good_for(&found, spec, now));
    server
        .persist("write", &place.words, || async {
            match server.get_once(&place).await? {
                Some(found) if keep(&found) => Ok(Outcome::Kept),
                // Fields that are not wanted any more have to go, too.
                Some(found) => {
                    let keys: Vec<String> =
                        found["data"].as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect();
                    let mut patch = json!({"data": spec.to_secret()["data"]});
                    for key in keys.into_iter().filter(|key| spec.to_secret()["data"].get(key).is_none()) {
                        patch["data"][key] = Value::Null;
                    }
                    server.patch_once(&place, &found, patch).await.map(|_| Outcome::Changed)
                }
                None => server.ensure_once(&place, &spec.to_secret(), Existing::Keep).await,
            }
        })
        .await
}

fn is_good_for(found: &TokenSpec, wanted: &TokenSpec, now: Timestamp) -> bool {
    found.is_but_for_the_end(wanted)
        && match (found.left(now), wanted.left(now)) {
            (Some(left), Some(wanted)) => left >= wanted / 2,
            _ => true,
        }
}

/// All tokens, by id, and what is wrong with the Secrets that are none, by name.
///
/// # Errors
/// [`ApiError::Refused`].
pub async fn list_tokens(server: &Server) -> Result<(Vec<TokenSpec>, Vec<(String, TokenError)>), ApiError> {
    let path =
        format!("/api/v1/namespaces/kube-system/secrets?fieldSelector=type%3D{}", SECRET_TYPE.replace('/', "%2F"));
    let secrets = server.persist("read", "bootstrap tokens", || server.list_once(&path)).await?;
    let (mut tokens, mut broken) = (Vec::new(), Vec::new());
    for secret in secrets {
        match TokenSpec::from_secret(&secret) {
            Ok(token) => tokens.push(token),
            Err(error) => broken.push((secret["metadata"]["name"].as_str().unwrap_or_default().to_owned(), error)),
        }
    }
    tokens.sort_by(|one, other| one.token.id().cmp(other.token.id()));
    Ok((tokens, broken))
}

/// Removes a token; says whether there was one.
///
/// # Errors
/// [`ApiError::Refused`].
pub async fn delete_token(server: &Server, id: &str) -> Result<bool, ApiError> {
    let place = place(id);
    server.persist("delete", &place.words, || server.delete_once(&place)).await
}

/// The reference by which a Secret goes when a token of its own runs out, two hours from now; that token opens nothing.
pub(super) async fn make_owner(server: &Server, now: Timestamp) -> Result<Value, ApiError> {
    let wrong = |error: TokenError| ApiError::content("the token that certificates go with", error.to_string());
    let spec = TokenSpec {
        token: Token::generate().map_err(wrong)?,
        description: Some(OWNER.to_owned()),
        expires: Some(after(now, OWNER_TTL).map_err(wrong)?),
        usages: Vec::new(),
        groups: Vec::new(),
    };
    let place = place(spec.token.id());
    let secret = spec.to_secret();
    let made = server
        .persist("write", &place.words, || async {
            match server.create_once(&secret).await {
                Err(Refusal { code: Some(409), .. }) => Ok(server.get_once(&place).await?.unwrap_or_default()),
                answer => answer,
            }
        })
        .await?;
    Ok(json!([{
        "apiVersion": "v1", "kind": "Secret", "controller": true, "blockOwnerDeletion": true,
        "name": made["metadata"]["name"], "uid": made["metadata"]["uid"],
    }]))
}

/// Whether the token that owns this object is there and has half of its time left.
pub(super) async fn owner_lasts(server: &Server, owned: &Value, now: Timestamp) -> Result<bool, Refusal> {
    let reference = &owned["metadata"]["ownerReferences"][0];
    let name = reference["name"].as_str().unwrap_or_default();
    let place = Place::new("v1", "Secret", "kube-system", name);
    let Some(owner) = server.get_once(&place).await? else { return Ok(false) };
    let left = TokenSpec::from_secret(&owner).ok().and_then(|owner| owner.left(now));
    Ok(owner["metadata"]["uid"] == reference["uid"] && left.is_some_and(|left| left >= OWNER_TTL / 2))
}

fn place(id: &str) -> Place {
    Place::new("v1", "Secret", "kube-system", &TokenSpec::secret_name(id))
}
