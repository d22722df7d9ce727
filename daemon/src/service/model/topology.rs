//! Hints: which endpoints a node should use because they are near, if enough is known of all of them.

use std::sync::Arc;

use super::endpoints::Endpoint;
use super::types::NodeView;

/// What the hints of a Service port's endpoints come to on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Topology {
    /// All endpoints.
    Anywhere,
    /// Those that name this node (`hints.forNodes`).
    SameNode,
    /// Those that name this node's zone (`hints.forZones`).
    SameZone,
}

impl Topology {
    /// Judges by the ready endpoints only: hints count if every one has them and at least one of them is for us. A node's
    /// hints win over a zone's.
    pub(super) fn of(endpoints: &[Endpoint<'_>], node: &NodeView) -> Self {
        let ready = || endpoints.iter().filter(|endpoint| endpoint.slice.ready);
        let (mut all_nodes, mut all_zones) = (true, true);
        let (mut ours, mut our_zones) = (false, false);
        for endpoint in ready() {
            all_nodes &= !endpoint.slice.node_hints.is_empty();
            all_zones &= !endpoint.slice.zone_hints.is_empty();
            ours |= endpoint.slice.node_hints.contains(&node.name);
            our_zones |= is_in_zone(endpoint, node);
        }
        if all_nodes && ours {
            Self::SameNode
        } else if all_zones && our_zones {
            Self::SameZone
        } else {
            Self::Anywhere
        }
    }

    /// Whether an endpoint is to be used.
    pub(super) fn allows(self, endpoint: &Endpoint<'_>, node: &NodeView) -> bool {
        match self {
            Self::Anywhere => true,
            Self::SameNode => endpoint.slice.node_hints.contains(&node.name),
            Self::SameZone => is_in_zone(endpoint, node),
        }
    }
}

fn is_in_zone(endpoint: &Endpoint<'_>, node: &NodeView) -> bool {
    node.zone.as_ref().is_some_and(|zone: &Arc<str>| endpoint.slice.zone_hints.contains(zone))
}
