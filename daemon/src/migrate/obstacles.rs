//! What keeps a node from changing over, and what mends it. Pure.

use serde::Serialize;

use super::agent::{AgentState, Services};
use super::daemons::{KUBE_PROXY, Running, is_k3s};

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
            "kubectl label --overwrite node NODE weft/agent=true",
        )),
        AgentState::NotReady(lines) => found.push(Obstacle::new(
            format!("weft's agent does not serve yet: {}", lines.join("; ")),
            "kubectl --namespace kube-system logs daemonset/weft --selector app.kubernetes.io/name=weft",
        )),
        AgentState::Serves { services } => others_serve = *services == Services::Others,
    }
    let in_the_way = running.iter().filter(|running| !(others_serve && running.name == KUBE_PROXY));
    found.extend(in_the_way.map(|Running { name, pid }| {
        if is_k3s(name) {
            return Obstacle::new(
                format!("{name} runs on this node (process {pid}), and flannel and kube-proxy within it"),
                "start it with --flannel-backend=none --disable-kube-proxy --disable-network-policy, and then run this with \
                 --k3s-bare",
            );
        }
        Obstacle::new(
            format!("{name} runs on this node (process {pid}) and would put back what is removed"),
            "keep its DaemonSet off this node: weft migrate plan has the command",
        )
    }));
    found
}

/// Why weft may not let go of a node yet: its agent would put everything back, or nobody else serves. Of kube-proxy it says
/// whether it serves, if it is wanted.
#[must_use]
pub fn before_going_back(
    agent: &AgentState,
    running: &[Running],
    kube_proxy: Option<Result<(), String>>,
) -> Vec<Obstacle> {
    let mut found = Vec::new();
    if !matches!(agent, AgentState::Absent(_)) {
        found.push(Obstacle::new(
            "weft's agent runs on this node and would put back what is removed",
            "kubectl label node NODE weft/agent-",
        ));
    }
    let runs = |name: &str| running.iter().any(|running| running.name == name);
    let wanted = ["flanneld", KUBE_PROXY].into_iter().filter(|name| kube_proxy.is_some() || *name != KUBE_PROXY);
    for name in wanted.filter(|name| !runs(name)) {
        found.push(Obstacle::new(
            format!("{name} does not run on this node yet"),
            format!("let its DaemonSet put it there: {name}'s pods come to nodes without the label weft/agent"),
        ));
    }
    if let Some(Err(error)) = kube_proxy.filter(|_| runs(KUBE_PROXY)) {
        found.push(Obstacle::new(
            format!("kube-proxy runs on this node and does not serve yet: {error}"),
            "wait for it; if it answers elsewhere: --kube-proxy-healthz ADDRESS:PORT",
        ));
    }
    found
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
        let k3s = Running { name: "k3s-server", pid: 9 };
        let within = before_changing_over(&serves(Services::Nftables), &[k3s]);
        assert!(within[0].what.starts_with("k3s-server runs") && within[0].mend.contains("--disable-kube-proxy"));
        // Where Services are left to it, kube-proxy belongs there.
        assert_eq!(before_changing_over(&serves(Services::Others), &[PROXY]), []);
        let waiting = AgentState::NotReady(vec!["[-] services: x".to_owned()]);
        assert!(before_changing_over(&waiting, &[])[0].what.contains("[-] services: x"));
        assert_eq!(before_changing_over(&AgentState::Absent(String::new()), &[FLANNELD]).len(), 2);
    }

    #[test]
    fn weft_lets_go_when_the_others_are_there() {
        let absent = AgentState::Absent(String::new());
        let good = || Some(Ok(()));
        assert_eq!(before_going_back(&absent, &[PROXY, FLANNELD], good()), []);
        let waiting = || Some(Err("says 503".to_owned()));
        assert_eq!(whats(&before_going_back(&absent, &[], waiting())), ["flanneld", "kube-proxy"]);
        assert_eq!(before_going_back(&absent, &[FLANNELD], None), []);
        // A process is not enough.
        let early = before_going_back(&absent, &[PROXY, FLANNELD], waiting());
        assert!(whats(&early) == ["kube-proxy"] && early[0].what.contains("says 503"), "{early:?}");
        let still = AgentState::NotReady(Vec::new());
        assert_eq!(whats(&before_going_back(&still, &[PROXY, FLANNELD], good())), ["weft's"]);
    }
}
