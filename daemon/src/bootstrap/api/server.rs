//! The API server, as bring-up speaks to it: an object is made, or brought to what is wanted, and asked again while the
//! control plane is still getting up.
//!
//! kubeadm's manner (`cmd/kubeadm/app/util/apiclient/idempotency.go`): each step tries again every half second, whatever
//! the reason, until its time is over. Two differences: what is as wanted is not written, so that a second run leaves no
//! trace, and what no repetition mends is said at once.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use kube::config::Kubeconfig;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::error::ApiError;
use super::object::{Outcome, Place, covers, without_nulls};
use crate::bootstrap::resolved::Limits;
use crate::cluster::kube::api::{Refusal, Write};
use crate::cluster::kube::{Api, KubeOptions, connect, connect_as};

/// Between two attempts, as kubeadm has it.
pub(super) const PAUSE: Duration = Duration::from_millis(500);

/// Longest time that one request may take.
const REQUEST: Duration = Duration::from_secs(10);

/// In whose name the API server records what bring-up applies.
pub const FIELD_MANAGER: &str = "weft-init";

/// What is done with an object that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It is brought to what is wanted.
    Update,
    /// It stays as it is.
    Keep,
}

/// Sees what would be written: the method with its path, and the object.
pub type Witness = Arc<dyn Fn(&str, &Value) + Send + Sync>;

/// An API server and how long is waited for it.
#[derive(Debug, Clone)]
pub struct Server {
    way: Way,
    limit: Duration,
    pause: Duration,
}

#[derive(Clone)]
enum Way {
    Api(Api),
    /// Nobody is asked; nothing is there but the node of this name, and what would be written is shown.
    Dry {
        node: String,
        witness: Witness,
    },
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Api(api) => api.fmt(f),
            Self::Dry { node, .. } => write!(f, "Dry({node})"),
        }
    }
}

impl Server {
    /// With the credentials of a kubeconfig; `endpoint` takes the place of its server (during init the node's own, not
    /// the load balancer in front). Nothing is asked yet.
    ///
    /// # Errors
    /// A file that is not there or cannot be used.
    pub async fn connect(kubeconfig: &Path, endpoint: Option<&str>, limits: &Limits) -> Result<Self, ApiError> {
        let options =
            KubeOptions { kubeconfig: Some(kubeconfig.to_owned()), kube_api_server: endpoint.map(str::to_owned) };
        Ok(Self { way: Way::Api(Api::new(connect(&options).await?)), limit: limits.api_call, pause: PAUSE })
    }

    /// The same with a kubeconfig that is in no file.
    ///
    /// # Errors
    /// One that cannot be used.
    pub async fn connect_as(kubeconfig: Kubeconfig, limits: &Limits) -> Result<Self, ApiError> {
        Ok(Self { way: Way::Api(Api::new(connect_as(kubeconfig).await?)), limit: limits.api_call, pause: PAUSE })
    }

    /// One that is not there, for `--dry-run`: it has the node of this name and nothing else, and shows what would be written.
    #[must_use]
    pub fn dry(node: &str, witness: Witness) -> Self {
        Self { way: Way::Dry { node: node.to_owned(), witness }, limit: Duration::ZERO, pause: PAUSE }
    }

    /// Whether it is one that is not there.
    #[must_use]
    pub fn is_dry(&self) -> bool {
        matches!(self.way, Way::Dry { .. })
    }

    /// The same server, waited for so long.
    #[must_use]
    pub fn within(&self, limit: Duration) -> Self {
        Self { limit, ..self.clone() }
    }

    /// The same server, asked again so long after an answer that is not the wanted one.
    #[must_use]
    pub fn every(&self, pause: Duration) -> Self {
        Self { pause, ..self.clone() }
    }

    /// How long is waited for a step.
    #[must_use]
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Makes an object, or does with the one that is there what `existing` says.
    ///
    /// # Errors
    /// [`ApiError::Refused`] when the time is over, or at once if the object is not a valid one.
    pub async fn ensure(&self, object: &Value, existing: Existing) -> Result<Outcome, ApiError> {
        let place = Place::of(object);
        self.persist("write", &place.words, || self.ensure_once(&place, object, existing)).await
    }

    /// All of them, one after the other.
    ///
    /// # Errors
    /// The first that fails.
    pub async fn ensure_all(&self, objects: &[Value]) -> Result<Outcome, ApiError> {
        let mut outcome = None;
        for object in objects {
            let one = self.ensure(object, Existing::Update).await?;
            outcome = Some(outcome.map_or(one, |all: Outcome| all.and(one)));
        }
        Ok(outcome.unwrap_or(Outcome::Kept))
    }

    pub(super) async fn ensure_once(
        &self,
        place: &Place,
        wanted: &Value,
        existing: Existing,
    ) -> Result<Outcome, Refusal> {
        let Some(found) = self.get_once(place).await? else {
            self.create_once(wanted).await?;
            return Ok(Outcome::Made);
        };
        if existing == Existing::Keep || covers(&found, wanted) {
            return Ok(Outcome::Kept);
        }
        self.patch_once(place, &found, wanted.clone()).await?;
        Ok(Outcome::Changed)
    }

    /// Makes an object, once; code 409 if it is there.
    pub(super) async fn create_once(&self, object: &Value) -> Result<Value, Refusal> {
        let body = without_nulls(object);
        self.send(Method::POST, Place::of(object).all, "application/json", body).await
    }

    /// Changes what was found, unless somebody has meanwhile (code 409).
    pub(super) async fn patch_once(&self, place: &Place, found: &Value, mut patch: Value) -> Result<Value, Refusal> {
        patch["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"].clone();
        self.send(Method::PATCH, place.path(), "application/merge-patch+json", patch).await
    }

    pub(super) async fn delete_once(&self, place: &Place) -> Result<bool, Refusal> {
        match self.send(Method::DELETE, place.path(), "application/json", json!({})).await {
            Ok(_) => Ok(true),
            Err(refusal) if refusal.code == Some(404) => Ok(false),
            Err(refusal) => Err(refusal),
        }
    }

    pub(super) async fn get_once(&self, place: &Place) -> Result<Option<Value>, Refusal> {
        let api = match &self.way {
            Way::Api(api) => api,
            // As kubelet would have made it by then.
            Way::Dry { node, .. } if *place == Place::new("v1", "Node", "", node) => {
                let labels = json!({"kubernetes.io/hostname": node});
                return Ok(Some(json!({"metadata": {"name": node, "labels": labels}})));
            }
            Way::Dry { .. } => return Ok(None),
        };
        match api.read("bootstrap", &place.path(), REQUEST).await {
            Ok(object) => Ok(Some(object)),
            Err(refusal) if refusal.code == Some(404) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// The answer at a path, whatever it is.
    pub(super) async fn read_once(&self, path: &str) -> Result<Value, Refusal> {
        match &self.way {
            Way::Api(api) => api.read("bootstrap", path, REQUEST).await,
            Way::Dry { .. } => Ok(Value::Null),
        }
    }

    /// What lies below a path with a query.
    pub(super) async fn list_once(&self, path: &str) -> Result<Vec<Value>, Refusal> {
        let Way::Api(api) = &self.way else { return Ok(Vec::new()) };
        let mut answer: Value = api.read("bootstrap", path, REQUEST).await?;
        match answer["items"].take() {
            Value::Array(items) => Ok(items),
            _ => Err(Refusal { code: None, words: "the answer is no list".to_owned() }),
        }
    }

    /// An object, or `None` if there is none.
    ///
    /// # Errors
    /// [`ApiError::Refused`].
    pub(super) async fn get(&self, place: &Place) -> Result<Option<Value>, ApiError> {
        self.persist("read", &place.words, || self.get_once(place)).await
    }

    /// Applies an object (server-side apply). Fields that somebody else has set meanwhile are taken over with `force`,
    /// and stay without ([`Outcome::Retained`]).
    ///
    /// # Errors
    /// [`ApiError::Refused`].
    pub async fn apply(&self, object: &Value, force: bool) -> Result<Outcome, ApiError> {
        let place = Place::of(object);
        self.persist("apply", &place.words, || self.apply_once(&place, object, force)).await
    }

    async fn apply_once(&self, place: &Place, object: &Value, force: bool) -> Result<Outcome, Refusal> {
        let before = self.get_once(place).await?;
        let path = format!("{}?fieldManager={FIELD_MANAGER}&force={force}", place.path());
        let after = match self.send(Method::PATCH, path, "application/apply-patch+yaml", object.clone()).await {
            Ok(after) => after,
            Err(refusal) if refusal.code == Some(409) && before.is_some() && !force => return Ok(Outcome::Retained),
            Err(refusal) => return Err(refusal),
        };
        Ok(match before.map(own) {
            None => Outcome::Made,
            Some(before) if before == own(after) => Outcome::Kept,
            Some(_) => Outcome::Changed,
        })
    }

    async fn send(
        &self,
        method: Method,
        path: String,
        content_type: &'static str,
        body: Value,
    ) -> Result<Value, Refusal> {
        match &self.way {
            Way::Api(api) => api.change("bootstrap", &Write { method, path, content_type, body }, REQUEST).await,
            Way::Dry { witness, .. } => {
                witness(&format!("{method} {path}"), &body);
                Ok(body)
            }
        }
    }

    /// Tries until it succeeds, the time is over, or the answer is one that stays.
    pub(super) async fn persist<T, F: Future<Output = Result<T, Refusal>>>(
        &self,
        verb: &'static str,
        what: &str,
        attempt: impl Fn() -> F,
    ) -> Result<T, ApiError> {
        let end = Instant::now() + self.limit;
        loop {
            match attempt().await {
                Ok(value) => return Ok(value),
                Err(refusal) if is_final(&refusal) || Instant::now() >= end => {
                    return Err(ApiError::refused(verb, what, refusal));
                }
                Err(refusal) => tracing::debug!(what, "{}", refusal.words),
            }
            sleep(self.pause).await;
        }
    }
}

/// An object without what the API server and the controllers write in it meanwhile.
fn own(mut object: Value) -> Value {
    object["status"] = Value::Null;
    for key in ["resourceVersion", "managedFields"] {
        object["metadata"][key] = Value::Null;
    }
    object
}

/// Whether asking again is of no use: the object itself, or the question, is not understood.
fn is_final(refusal: &Refusal) -> bool {
    matches!(refusal.code, Some(400 | 405 | 413 | 415 | 422))
}
