//! Where the objects are in etcd: `<prefix>/services/<namespace>/<name>`, `<prefix>/endpointslices/<namespace>/<name>`,
//! `<prefix>/nodes/<name>`.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Service;
use crate::etcd::Etcd;

/// The API objects below a prefix of an etcd.
#[derive(Debug, Clone, Copy)]
pub struct ApiStore<'a> {
    etcd: &'a Etcd,
    prefix: &'a str,
}

impl<'a> ApiStore<'a> {
    /// The objects below `prefix`.
    #[must_use]
    pub fn new(etcd: &'a Etcd, prefix: &'a str) -> Self {
        Self { etcd, prefix }
    }

    /// The key of an object.
    ///
    /// # Errors
    /// When it is neither a Service nor an EndpointSlice nor a Node, or has no name.
    pub fn key(&self, object: &Value) -> Result<String> {
        let word = |name: &str| object["metadata"][name].as_str().with_context(|| format!("no {name}: {object}"));
        let folder = match object["kind"].as_str() {
            Some("Service") => "services",
            Some("EndpointSlice") => "endpointslices",
            Some("Node") => return Ok(format!("{}/nodes/{}", self.prefix, word("name")?)),
            other => bail!("no place for a {other:?}"),
        };
        Ok(format!("{}/{folder}/{}/{}", self.prefix, word("namespace")?, word("name")?))
    }

    /// Writes an object.
    ///
    /// # Errors
    /// When etcd refuses.
    pub fn put(&self, object: &Value) -> Result<()> {
        self.etcd.put(&self.key(object)?, &object.to_string())
    }

    /// Removes an object.
    ///
    /// # Errors
    /// When etcd refuses.
    pub fn delete(&self, object: &Value) -> Result<()> {
        self.etcd.delete(&self.key(object)?)
    }

    /// Removes everything of a namespace.
    ///
    /// # Errors
    /// When etcd refuses.
    pub fn delete_namespace(&self, namespace: &str) -> Result<()> {
        // The Services first: no client shall meet one whose endpoints have just gone.
        self.etcd.delete(&format!("{}/services/{namespace}/", self.prefix))?;
        self.etcd.delete(&format!("{}/endpointslices/{namespace}/", self.prefix))
    }

    /// All Services, in the order of their names. What is no JSON of a Service is left out.
    ///
    /// # Errors
    /// When etcd refuses.
    pub fn services(&self) -> Result<Vec<Service>> {
        let pairs = self.etcd.get(&format!("{}/services/", self.prefix))?;
        let objects = pairs.iter().filter_map(|(_, text)| serde_json::from_str(text).ok());
        Ok(objects.filter_map(|object| Service::from_json(object).ok()).collect())
    }

    /// The slices of a Service.
    ///
    /// # Errors
    /// When etcd refuses.
    pub fn slices(&self, namespace: &str, service: &str) -> Result<Vec<Value>> {
        let pairs = self.etcd.get(&format!("{}/endpointslices/{namespace}/", self.prefix))?;
        let objects = pairs.iter().filter_map(|(_, text)| serde_json::from_str::<Value>(text).ok());
        Ok(objects.filter(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] == service).collect())
    }
}
