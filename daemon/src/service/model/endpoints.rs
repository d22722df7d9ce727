//! Which endpoints a Service port has, and which of them answer under each policy.

use std::sync::Arc;

use super::topology::Topology;
use super::types::{Backend, NodeView};
use crate::cluster::Family;
use crate::cluster::services::{EndpointSlice, ServicePort, SliceEndpoint, SlicePort};

/// An endpoint of one Service port.
#[derive(Debug, Clone, Copy)]
pub(super) struct Endpoint<'a> {
    /// As its slice has it.
    pub(super) slice: &'a SliceEndpoint,
    /// The port that it listens at.
    pub(super) port: u16,
    /// Whether it runs on this node.
    pub(super) is_local: bool,
}

impl Endpoint<'_> {
    /// Whether it still answers while it is being deleted: better than nobody.
    const fn answers_to_the_end(&self) -> bool {
        self.slice.serving && self.slice.terminating
    }

    const fn backend(&self) -> Backend {
        Backend { address: self.slice.address, port: self.port, local: self.is_local }
    }
}

/// The endpoints of a Service's port in a family, each address and port once. While a pod moves from one slice to another
/// it may be in both: the entry that is not terminating counts.
pub(super) fn of_port<'a>(
    slices: &'a [Arc<EndpointSlice>],
    family: Family,
    port: &ServicePort,
    node: &NodeView,
) -> Vec<Endpoint<'a>> {
    let is_ours = |listed: &&SlicePort| listed.protocol == port.protocol && listed.name == port.name;
    let mut out: Vec<Endpoint<'a>> = Vec::new();
    for slice in slices.iter().filter(|slice| slice.family == family) {
        for listed in slice.ports.iter().filter(is_ours) {
            let here = |endpoint| Endpoint { slice: endpoint, port: listed.port, is_local: is_local(endpoint, node) };
            out.extend(slice.endpoints.iter().map(here));
        }
    }
    out.sort_by_key(|endpoint| (endpoint.slice.address, endpoint.port));
    out.dedup_by(|later, kept| {
        let is_same = (later.slice.address, later.port) == (kept.slice.address, kept.port);
        if is_same && !later.slice.terminating {
            *kept = *later;
        }
        is_same
    });
    out
}

/// Whether an endpoint runs on this node.
pub(super) fn is_local(endpoint: &SliceEndpoint, node: &NodeView) -> bool {
    endpoint.node.as_ref() == Some(&node.name)
}

/// Who answers.
#[derive(Debug, Default)]
pub(super) struct Categories {
    /// Under policy Cluster, sorted; empty if nothing uses it.
    pub(super) cluster: Vec<Backend>,
    /// Under policy Local, sorted; empty if nothing uses it.
    pub(super) local: Vec<Backend>,
    /// Whether anybody answers anywhere.
    pub(super) has_any: bool,
}

impl Categories {
    /// Judges the endpoints for a Service port some of whose frontends lead to all nodes (`uses_cluster`) or to this node
    /// only (`uses_local`). Ready endpoints win over terminating ones, never a mix of both; hints count for Cluster only.
    pub(super) fn of(endpoints: &[Endpoint<'_>], node: &NodeView, uses_cluster: bool, uses_local: bool) -> Self {
        let mut out = Self::default();
        if uses_cluster {
            let topology = Topology::of(endpoints, node);
            out.cluster = ready_or_last(endpoints, |endpoint| topology.allows(endpoint, node), |_| true);
            out.has_any = !out.cluster.is_empty();
        }
        if uses_local {
            out.local = ready_or_last(endpoints, |endpoint| endpoint.is_local, |endpoint| endpoint.is_local);
            out.has_any |= endpoints.iter().any(|endpoint| endpoint.slice.ready || endpoint.answers_to_the_end());
        }
        out
    }
}

/// The ready endpoints that `of_ready` allows; if there are none, those that answer to the end and that `of_last` allows.
fn ready_or_last(
    endpoints: &[Endpoint<'_>],
    of_ready: impl Fn(&Endpoint<'_>) -> bool,
    of_last: impl Fn(&Endpoint<'_>) -> bool,
) -> Vec<Backend> {
    let ready = backends(endpoints, |endpoint| endpoint.slice.ready && of_ready(endpoint));
    if ready.is_empty() {
        return backends(endpoints, |endpoint| endpoint.answers_to_the_end() && of_last(endpoint));
    }
    ready
}

/// Everybody to whom an old flow may go on going, sorted.
pub(super) fn serving(endpoints: &[Endpoint<'_>]) -> Vec<Backend> {
    // One that is ready and not serving (publishNotReadyAddresses) is chosen for new flows, so its flows are not stale.
    backends(endpoints, |endpoint| endpoint.slice.serving || endpoint.slice.ready)
}

fn backends(endpoints: &[Endpoint<'_>], wanted: impl Fn(&Endpoint<'_>) -> bool) -> Vec<Backend> {
    let mut out: Vec<Backend> = endpoints.iter().filter(|endpoint| wanted(endpoint)).map(Endpoint::backend).collect();
    out.sort_unstable();
    out.shrink_to_fit();
    out
}
