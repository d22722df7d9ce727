//! The agent: whether it runs, and what it says of itself. What it says of peers and leases is [`super::cluster`]'s.

use super::check::Group;
use super::{Check, Told};
use crate::serve::Condition;
use crate::serve::document::NodeStatus;
use crate::status::judge::failed as failed_words;

const GROUP: Group = Group("agent");

/// What is asked of the agent.
#[derive(Debug, Clone)]
pub struct AgentFacts {
    /// Its document, or why there is none.
    pub status: Told<NodeStatus>,
    /// Version of this program.
    pub version: String,
    /// Name of the node.
    pub node: String,
}

/// Where to look when the agent has said why.
fn logs(node: &str) -> String {
    format!(
        "kubectl logs --namespace kube-system $(kubectl get pod --namespace kube-system --selector app.kubernetes.io/name=weft --field-selector spec.nodeName={node} --output name), or journalctl -u weft"
    )
}

/// The checks.
#[must_use]
pub fn judge(facts: &AgentFacts) -> Vec<Check> {
    let logs = logs(&facts.node);
    let status = match &facts.status {
        Ok(status) => status,
        Err(reason) => {
            let remedy = format!(
                "start it (kubectl get pod --namespace kube-system --output wide, or systemctl start weft); its log says why it ended: {logs}"
            );
            return vec![GROUP.problem("runs", format!("this node's agent does not answer: {reason}"), remedy)];
        }
    };
    let mut checks = vec![if status.alive {
        GROUP.good("runs", format!("version {}, for {} s", status.version, status.uptime_seconds))
    } else {
        GROUP.problem(
            "runs",
            "its loop hangs: no pass has ended for two minutes",
            "restart it; its liveness probe does",
        )
    }];
    checks.push(if status.version == facts.version {
        GROUP.good("version", format!("agent and doctor are both {}", facts.version))
    } else {
        let words = format!("the agent is {}, this program {}", status.version, facts.version);
        GROUP.problem(
            "version",
            words,
            "finish the update: install one version of weft everywhere, and restart the agent",
        )
    });
    for component in &status.components {
        let name = component.name.as_str();
        checks.push(match component.condition {
            Condition::Good => GROUP.good(name, &component.words),
            Condition::Waiting => GROUP.problem(
                name,
                format!("the agent waits: {}", component.words),
                format!("see to what it waits for; {logs}"),
            ),
            Condition::Bad => GROUP.problem(name, component.words.clone(), format!("see to the cause; {logs}")),
        });
    }
    let failed: Vec<String> =
        status.failed.iter().filter_map(|(table, count)| failed_words(status, table, *count)).collect();
    if !failed.is_empty() {
        let remedy = format!("the agent tries again by itself; what the kernel refuses is in its log: {logs}");
        checks.push(GROUP.problem("objects", failed.join("; "), remedy));
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Outcome;
    use crate::serve::ComponentStatus;

    fn outcomes(facts: &AgentFacts) -> Vec<(String, Outcome)> {
        judge(facts).into_iter().map(|check| (check.name, check.outcome)).collect()
    }

    #[test]
    fn an_agent_that_is_away_hangs_or_complains_is_a_problem() {
        let away = AgentFacts { status: Err("connection refused".into()), version: "1".into(), node: "n1".into() };
        assert_eq!(outcomes(&away), [("runs".to_owned(), Outcome::Problem)]);
        let remedy = judge(&away).remove(0).remedy.unwrap();
        // `kubectl logs` knows no field selector.
        assert!(remedy.contains("logs --namespace kube-system $(kubectl get pod "), "{remedy}");
        assert!(remedy.contains("spec.nodeName=n1 --output name)"), "{remedy}");

        let component =
            |name: &str, condition| ComponentStatus { name: name.into(), condition, words: "because".into() };
        let status = NodeStatus {
            version: "2".into(),
            components: vec![component("store", Condition::Bad), component("links", Condition::Good)],
            failed: [("links".to_owned(), 2)].into(),
            ..NodeStatus::default()
        };
        let found = outcomes(&AgentFacts { status: Ok(status), ..away });
        let expected = [
            ("runs", Outcome::Problem),
            ("version", Outcome::Problem),
            ("store", Outcome::Problem),
            ("links", Outcome::Good),
            ("objects", Outcome::Problem),
        ];
        assert_eq!(found, expected.map(|(name, outcome)| (name.to_owned(), outcome)));
    }
}
