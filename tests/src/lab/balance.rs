//! How a Service is spread over the pods behind it, asked from inside and from outside of the cluster.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use super::{Lab, Node};
use crate::kube::Service;
use crate::netns::Netns;
use crate::probe::{Outcome, Question, ask};
use crate::wait;

/// How many questions a pod is worth: that one of them gets none then is a chance of one in a hundred million.
const FOR_EACH_POD: usize = 24;
/// How many are asked at the same time.
const ASKING: usize = 4;

/// One way to a Service and what came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Way {
    /// What was asked, in words.
    pub to: String,
    /// From where, in words.
    pub from: String,
    /// Who answered how often.
    pub outcome: Outcome,
}

/// How a Service is spread.
#[derive(Debug, Clone, Serialize)]
pub struct Balance {
    /// The Service, `namespace/name`.
    pub service: String,
    /// The pods behind it, by name.
    pub pods: Vec<String>,
    /// The ways to it.
    pub ways: Vec<Way>,
}

impl Balance {
    /// What is wrong, in words: questions that nobody answered, pods that got none.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for way in &self.ways {
            let outcome = &way.outcome;
            if outcome.served() < outcome.asked() || outcome.asked() == 0 {
                let (refused, silent, odd) = (outcome.refused, outcome.timed_out, outcome.reset + outcome.failed.len());
                let served = format!("{} of {} answered", outcome.served(), outcome.asked());
                let example = outcome.failed.first().map(|reason| format!(" ({reason})")).unwrap_or_default();
                faults.push(format!(
                    "{} from {}: {served}, {refused} refused, {silent} without answer, {odd} otherwise{example}",
                    way.to, way.from
                ));
            }
            let idle = self.pods.iter().filter(|pod| !outcome.by.contains_key(*pod)).cloned().collect::<Vec<_>>();
            if !idle.is_empty() {
                faults.push(format!("{} from {}: nothing reached {}", way.to, way.from, idle.join(", ")));
            }
        }
        faults
    }
}

impl Lab {
    /// Asks the first port of a Service again and again: its cluster IPs from a pod of each node, its node port at each
    /// node from outside; of each that weft has. All pods are taken to be behind it. Waits up to `limit` until each way is open at first.
    ///
    /// # Errors
    /// When a namespace cannot be entered.
    pub fn balance(&self, service: &Service, limit: Duration) -> Result<Balance> {
        let port = service.ports().into_iter().next().context("a Service without port")?;
        let pods: Vec<String> =
            self.nodes().iter().flat_map(|node| node.pods.iter().map(|pod| pod.name.clone())).collect();
        // Where flannel is, nobody serves Services.
        let serving = || self.nodes().iter().filter(|node| !node.flannel);
        let each = (pods.len() * FOR_EACH_POD).div_ceil(serving().count().max(1));
        let mut ways = Vec::new();
        for ip in service.cluster_ips() {
            let target = SocketAddr::new(ip, port.port);
            let asking = serving().filter_map(|node| Some((node.pods.first()?.netns.clone(), target)));
            let outcome = sum(asking, each, limit)?;
            ways.push(Way { to: format!("cluster IP {target}"), from: "a pod of each node".into(), outcome });
        }
        let families = service.cluster_ips().into_iter().map(|ip| ip.is_ipv6());
        for (v6, node_port) in families.filter_map(|v6| Some((v6, port.node_port?))) {
            let outside = self.outside()?;
            let address = |node: &Node| -> IpAddr { if v6 { node.v6().into() } else { node.v4().into() } };
            let asking = serving().map(|node| (outside.clone(), SocketAddr::new(address(node), node_port)));
            let outcome = sum(asking, each, limit)?;
            let family = if v6 { "IPv6" } else { "IPv4" };
            ways.push(Way { to: format!("{family} port {node_port} of each node"), from: "outside".into(), outcome });
        }
        Ok(Balance { service: format!("{}/{}", service.namespace(), service.name()), pods, ways })
    }
}

fn sum(ways: impl Iterator<Item = (Netns, SocketAddr)>, times: usize, limit: Duration) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    for (netns, target) in ways {
        let first = Question { limit: Duration::from_millis(300), ..Question::new(target) };
        // Not open in time is not the end here: the questions below say how it is refused.
        let _ = wait::until(limit, "the way to open", || ask(&netns, &first, 1, 1).is_ok_and(|got| got.served() == 1));
        outcome.merge(ask(&netns, &Question::new(target), times, ASKING)?);
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Answer;

    #[test]
    fn an_idle_pod_and_a_lost_question_are_faults() {
        let served = || Answer::Served { by: "a".into(), port: 1, seen: "10.0.0.1:1".parse().unwrap() };
        let mut outcome = Outcome::default();
        outcome.add(served(), Duration::ZERO);
        let way = |outcome: &Outcome| Way { to: "x".into(), from: "y".into(), outcome: outcome.clone() };
        let pods = vec!["a".to_owned()];
        let good = Balance { service: "n/s".into(), pods: pods.clone(), ways: vec![way(&outcome)] };
        assert_eq!(good.faults(), [""; 0]);
        assert_eq!(Balance { pods: vec!["a".into(), "b".into()], ..good.clone() }.faults().len(), 1);
        outcome.add(Answer::TimedOut, Duration::ZERO);
        let bad = Balance { ways: vec![way(&outcome), way(&Outcome::default())], ..good };
        assert_eq!(bad.faults().len(), 3, "{:?}", bad.faults());
    }
}
