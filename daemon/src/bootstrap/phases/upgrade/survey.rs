//! How the cluster is before it is changed: the same questions that `weft status` asks.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::plan::{Seen, Wanted};
use super::policy::Situation;
use crate::bootstrap::api::{self, NodeSeen, PodSeen, Server};
use crate::bootstrap::config::{UploadedConfig, versions};
use crate::bootstrap::images::{Names, What};
use crate::bootstrap::phases::error::PhaseError;
use crate::bootstrap::phases::ground::weft_name;
use crate::bootstrap::pki::expiry;
use crate::bootstrap::resolved::{Cluster, Paths};
use crate::status::control_plane::{self, Place};
use jiff::Timestamp;

/// Between two looks at something that is not well: it may have been busy.
const PAUSE: Duration = Duration::from_secs(1);
/// How long CoreDNS's image is asked for.
const ANSWER: Duration = Duration::from_secs(10);

/// Looks at the cluster, and again as long as something is not well and `patience` lasts; `say` is told what that is, once.
///
/// # Errors
/// The API server does not tell its version.
pub(super) async fn seen(
    place: &Place,
    paths: &Paths,
    server: &Server,
    uploaded: &UploadedConfig,
    patience: Duration,
    say: &dyn Fn(String),
) -> Result<Seen, PhaseError> {
    let end = Instant::now() + patience;
    let mut told = Vec::new();
    loop {
        let found = control_plane::look(place).await;
        let plane = control_plane::judge(&found);
        let mut problems: Vec<String> = plane.wrong.into_iter().chain(plane.unknown).collect();
        let (nodes, pods) = found.told.map_or((Ok(vec![]), Ok(vec![])), |answers| (answers.nodes, answers.pods));
        let (nodes, pods) = (nodes.unwrap_or_default(), pods.unwrap_or_default());
        problems.extend(not_ready(&nodes));
        if !problems.is_empty() && Instant::now() < end {
            if problems != told {
                let left = end.saturating_duration_since(Instant::now()).as_secs();
                say(format!("not all is well; looking again for up to {left} s: {}", problems.join("; ")));
                told = problems;
            }
            sleep(PAUSE).await;
            continue;
        }
        return finish(paths, server, uploaded, nodes, pods, problems).await;
    }
}

async fn finish(
    paths: &Paths,
    server: &Server,
    uploaded: &UploadedConfig,
    nodes: Vec<NodeSeen>,
    pods: Vec<PodSeen>,
    problems: Vec<String>,
) -> Result<Seen, PhaseError> {
    let cluster = &uploaded.cluster;
    let coredns = timeout(ANSWER, api::coredns_image(&server.within(Duration::ZERO))).await;
    let kubelets = nodes.iter().filter_map(|node| Some((node.name.clone(), node.kubelet.parse().ok()?)));
    Ok(Seen {
        situation: Situation {
            running: api::server_version(server).await?.parse().map_err(super::UpgradeError::from)?,
            kubelets: kubelets.collect(),
            build: versions::KUBERNETES.parse().map_err(super::UpgradeError::from)?,
        },
        coredns: coredns.ok().and_then(Result::ok).flatten(),
        wanted: Wanted { coredns: image_of(cluster, What::CoreDns), etcd: image_of(cluster, What::Etcd) },
        certificates: expiry::look(paths, Timestamp::now()),
        nodes,
        pods,
        problems,
    })
}

/// The image of a part that a cluster's nodes have.
pub(super) fn image_of(cluster: &Cluster, what: What) -> Option<String> {
    let wanted = Names::of(cluster, &weft_name()).wanted(true);
    wanted.into_iter().find(|wanted| wanted.what == what).map(|wanted| wanted.name)
}

/// A control plane that has lost a node has none to lose.
fn not_ready(nodes: &[NodeSeen]) -> Vec<String> {
    let missing = nodes.iter().filter(|node| node.control_plane && !node.ready);
    missing.map(|node| format!("control-plane node {} is not Ready", node.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_plane_node_that_is_not_ready_is_a_problem() {
        let node = |name: &str, control_plane, ready| NodeSeen {
            name: name.into(),
            ready,
            control_plane,
            kubelet: String::new(),
            cri_socket: None,
        };
        let nodes = [node("n1", true, true), node("n2", true, false), node("n3", false, false)];
        assert_eq!(not_ready(&nodes), ["control-plane node n2 is not Ready"]);
    }
}
