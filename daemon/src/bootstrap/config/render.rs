//! Configurations as YAML that kubeadm reads: keys in their order, and what YAML 1.1 would take for something else in quotes.

use serde_json::{Map, Value};

use super::documents::{Documents, Kind};
use super::finding::ConfigError;
use super::layers::Layers;
use super::model::ClusterConfiguration;
use crate::bootstrap::yaml;

/// The cluster's configuration as it is uploaded: key `ClusterConfiguration` of ConfigMap kube-system/kubeadm-config.
///
/// # Errors
/// [`ConfigError::Unsound`], a fault of weft's.
pub fn uploaded(config: &ClusterConfiguration) -> Result<String, ConfigError> {
    let kind = Kind::Cluster;
    let value = serde_json::to_value(config)
        .map_err(|error| ConfigError::Unsound { kind: kind.name(), message: error.to_string() })?;
    let Value::Object(fields) = value else {
        return Err(ConfigError::Unsound { kind: kind.name(), message: "it is no mapping".to_owned() });
    };
    Ok(document(kind, fields))
}

/// The documents of these kinds that there are, in their order.
pub(super) fn layers(layers: &Layers, kinds: &[Kind]) -> String {
    let found = kinds.iter().filter_map(|kind| Some((*kind, layers.get(kind.name())?.as_object()?.clone())));
    join(found)
}

/// A file's documents as they are written today. kubeadm takes the result unless the file had a document of weft's.
pub(super) fn documents(documents: &Documents) -> String {
    let given = documents.found.iter().filter(|(_, document)| !document.is_implied);
    join(given.map(|(kind, document)| (*kind, document.value.clone())))
}

fn join(documents: impl Iterator<Item = (Kind, Map<String, Value>)>) -> String {
    documents.map(|(kind, fields)| document(kind, fields)).collect::<Vec<_>>().join("---\n")
}

fn document(kind: Kind, mut fields: Map<String, Value>) -> String {
    fields.insert("apiVersion".to_owned(), kind.api_version().into());
    fields.insert("kind".to_owned(), kind.name().into());
    yaml::to_string(&Value::Object(fields))
}
