//! The API server as all parts of the source see it: one client, what is counted of it, and questions with one answer.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, header};
use kube::{Client, Error};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{Instant, timeout};

use super::explain::explain;
use super::metrics::ApiMetrics;
use super::servers::Servers;

/// The API server.
#[derive(Clone)]
pub struct Api {
    /// How it is asked.
    pub client: Client,
    /// What is counted of that.
    pub metrics: ApiMetrics,
    /// Where it is asked; `None` for a client that is not there long enough to need another server.
    pub servers: Option<Arc<Servers>>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status, if the API server answered at all.
    pub code: Option<u16>,
    /// What it said, or what happened.
    pub words: String,
}

/// Something to write.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    /// `POST`, `PATCH` or `DELETE`.
    pub method: Method,
    /// The path, encoded, with its query.
    pub path: String,
    /// What kind of body it is.
    pub content_type: &'static str,
    /// The body.
    pub body: Value,
}

impl Api {
    /// A client of one server, of which nobody reads what is counted.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, metrics: ApiMetrics::default(), servers: None }
    }

    /// Reads an object.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn read<T: DeserializeOwned>(
        &self,
        what: &'static str,
        path: &str,
        limit: Duration,
    ) -> Result<T, Refusal> {
        self.ask(what, Request::get(path).body(Vec::new()), limit).await
    }

    /// Writes; what the API server answers to it, but whether it has done so, is of no interest.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn write(&self, what: &'static str, write: &Write, limit: Duration) -> Result<(), Refusal> {
        self.change::<serde::de::IgnoredAny>(what, write, limit).await.map(drop)
    }

    /// Writes, and returns what the API server then has.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn change<T: DeserializeOwned>(
        &self,
        what: &'static str,
        write: &Write,
        limit: Duration,
    ) -> Result<T, Refusal> {
        let Write { method, path, content_type, body } = write;
        let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, *content_type);
        let request = request.body(body.to_string().into_bytes());
        self.ask(what, request, limit).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        what: &'static str,
        request: http::Result<Request<Vec<u8>>>,
        limit: Duration,
    ) -> Result<T, Refusal> {
        let request = request.map_err(|error| Refusal { code: None, words: error.to_string() })?;
        let began = Instant::now();
        let answer = timeout(limit, self.client.request::<T>(request)).await;
        self.metrics.asked(what, code(&answer), began.elapsed());
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                let code = if let Error::Api(status) = &error { Some(status.code) } else { None };
                Err(Refusal { code, words: explain(&error) })
            }
            Err(_) => Err(Refusal { code: None, words: "no answer in time".to_owned() }),
        }
    }
}

impl std::fmt::Debug for Api {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Api").finish_non_exhaustive()
    }
}

/// The status of an answer; 0 if there was none.
pub(super) fn code<T, E>(answer: &Result<Result<T, Error>, E>) -> u16 {
    match answer {
        Ok(Ok(_)) => 200,
        Ok(Err(Error::Api(status))) => status.code,
        Ok(Err(_)) | Err(_) => 0,
    }
}
