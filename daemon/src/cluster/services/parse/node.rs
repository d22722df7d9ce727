//! `v1.Node`.

use super::Parsed;
use super::fault::{Examined, ParseError, read};
use super::raw::{Metadata, NodeSpec, RawNode};
use super::time::rfc3339;
use crate::cluster::services::{Interner, NodeObject, ObjectName};

/// The taint by which the cluster autoscaler says that it is about to remove a node, whatever its effect.
const LEAVING: &str = "ToBeDeletedByClusterAutoscaler";

/// Reads a Node. `key` is its name if the source knows it, with an empty namespace; else its metadata must tell.
///
/// # Errors
/// JSON that is none of a Node. A time of deletion that is none is only left out.
pub fn node(json: &[u8], key: Option<&ObjectName>, strings: &mut Interner) -> Result<Parsed<NodeObject>, ParseError> {
    let RawNode { kind, metadata, spec } = read("Node", json, key)?;
    let metadata = metadata.unwrap_or_default();
    let mut object = Examined::cluster_wide("Node", kind.as_ref(), &metadata, key, strings)?;
    let zone = metadata.labels.as_ref().and_then(|labels| labels.zone.as_deref()).filter(|zone| !zone.is_empty());
    let is_leaving = is_deleted(&mut object, &metadata) || is_to_be_deleted(&spec.unwrap_or_default());
    let node = NodeObject { zone: zone.map(|zone| strings.get(zone)), is_leaving };
    Ok(Parsed { name: object.name, object: Some(node), warnings: object.warnings })
}

fn is_deleted(object: &mut Examined, metadata: &Metadata<'_>) -> bool {
    let Some(at) = metadata.deletion_timestamp.as_deref() else { return false };
    let is_time = rfc3339(at).is_some();
    if !is_time {
        object.left_out("metadata.deletionTimestamp", at, "a time such as 2026-01-31T12:00:00Z");
    }
    is_time
}

fn is_to_be_deleted(spec: &NodeSpec<'_>) -> bool {
    spec.taints.as_deref().unwrap_or_default().iter().any(|taint| taint.key.as_deref() == Some(LEAVING))
}
