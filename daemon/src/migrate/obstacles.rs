//! What keeps a node from changing over, and what mends it. Pure.

use serde::Serialize;

use super::agent::{AgentState, Services};
use super::daemons::{KUBE_PROXY, Running};

/// Something that has to be put right first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Obstacle {
    /// What is in the way.
    pub what: String,
    /// What mends it: a command where there is one.
    pub mend: String,
}

impl Obstacle {
    /// An obstacle.
    pub fn new(what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { what: what.into(), mend: mend.into() }
    }
}

/// Why nothing may be taken from the predecessors yet: weft does not serve, or they would put it back.
#[must_use]
pub fn before_changing_over(agent: &AgentState, running: &[Running]) -> Vec<Obstacle> {
    let mut found = Vec::new();
    let mut others_serve = false;
    match agent {
        AgentState::Absent(error) => found.push(Obstacle::new(
            format!("weft's agent does not answer on this node ({error})"),
            "kubectl label node NODE weft/agent=true",
        )),
        AgentState::NotReady(lines) => found.push(Obstacle::new(
            format!("weft's agent does not serve yet: {}", lines.join("; ")),
            "kubectl --namespace kube-system logs daemonset/weft --selector app.kubernetes.io/name=weft",
        )),
        AgentState::Serves { services } => others_serve = *services == Services::Others,
    }
    let in_the_way = running.iter().filter(|running| !(others_serve && running.name == KUBE_PROXY));
    found.extend(in_the_way.map(|Running { name, pid }| {
        Obstacle::new(
            format!("{name} runs on this node (process {pid}) and would put back what is removed"),
            keep_off(name),
        )
    }));
    found
}

/// Why weft may not let go of a node yet: its agent would put everything back, or nobody else serves.
#[must_use]
pub fn before_going_back(agent: &AgentState, running: &[Running], kube_proxy_wanted: bool) -> Vec<Obstacle> {
    let mut found = Vec::new();
    if !matches!(agent, AgentState::Absent(_)) {
        found.push(Obstacle::new(
            "weft's agent runs on this node and would put back what is removed",
            "kubectl label node NODE weft/agent-",
        ));
    }
    let wanted = ["flanneld", KUBE_PROXY].into_iter().filter(|name| kube_proxy_wanted || *name != KUBE_PROXY);
    for name in wanted.filter(|name| !running.iter().any(|running| running.name == *name)) {
        found.push(Obstacle::new(
            format!("{name} does not run on this node yet"),
            format!("let its DaemonSet put it there: {name}'s pods come to nodes without the label weft/agent"),
        ));
    }
    found
}

/// The patch that keeps a DaemonSet off the nodes that are weft's.
#[must_use]
pub fn keep_off(daemon: &str) -> String {
    let (namespace, name) =
        if daemon == KUBE_PROXY { ("kube-system", KUBE_PROXY) } else { ("kube-flannel", "kube-flannel-ds") };
    format!("kubectl --namespace {namespace} patch daemonset {name} --patch '{}'", affinity())
}

/// It as JSON, for a strategic merge.
fn affinity() -> serde_json::Value {
    let terms = serde_json::json!([{"matchExpressions": [
        {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]},
        {"key": "weft/agent", "operator": "DoesNotExist"},
    ]}]);
    let node = serde_json::json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}});
    serde_json::json!({"spec": {"template": {"spec": {"affinity": {"nodeAffinity": node}}}}})
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: Running = Running { name: KUBE_PROXY, pid: 7 };
    const FLANNELD: Running = Running { name: "flanneld", pid: 8 };

    fn whats(found: &[Obstacle]) -> Vec<&str> {
        found.iter().map(|obstacle| obstacle.what.split(' ').next().unwrap()).collect()
    }

    #[test]
    fn nothing_goes_before_weft_serves_and_the_others_are_gone() {
        let serves = |services| AgentState::Serves { services };
        assert_eq!(before_changing_over(&serves(Services::Ipvs), &[]), []);
        let both = before_changing_over(&serves(Services::Nftables), &[PROXY, FLANNELD]);
        assert_eq!(whats(&both), ["kube-proxy", "flanneld"]);
        assert!(both[0].mend.contains("kube-system") && both[1].mend.contains("kube-flannel-ds"));
        // Where Services are left to it, kube-proxy belongs there.
        assert_eq!(before_changing_over(&serves(Services::Others), &[PROXY]), []);
        let waiting = AgentState::NotReady(vec!["[-] services: x".to_owned()]);
        assert!(before_changing_over(&waiting, &[])[0].what.contains("[-] services: x"));
        assert_eq!(before_changing_over(&AgentState::Absent(String::new()), &[FLANNELD]).len(), 2);
    }

    #[test]
    fn weft_lets_go_when_the_others_are_there() {
        let absent = AgentState::Absent(String::new());
        assert_eq!(before_going_back(&absent, &[PROXY, FLANNELD], true), []);
        assert_eq!(whats(&before_going_back(&absent, &[], true)), ["flanneld", "kube-proxy"]);
        assert_eq!(before_going_back(&absent, &[FLANNELD], false), []);
        let still = AgentState::NotReady(Vec::new());
        assert_eq!(whats(&before_going_back(&still, &[PROXY, FLANNELD], true)), ["weft's"]);
    }
}
