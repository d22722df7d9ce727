//! The agent: whether it runs, and what it says of itself. What it says of peers and leases is [`super::cluster`]'s.

use super::check::Group;
use super::{Check, Told};
use crate::serve::Condition;
use crate::serve::document::NodeStatus;

const GROUP: Group = Group("agent");

/// Where to look when the agent has said why.
const LOGS: &str = "kubectl -n kube-system logs -l app.kubernetes.io/name=weft --field-selector spec.nodeName=$(hostname), or journalctl -u weft";

/// What is asked of the agent.
#[derive(Debug, Clone)]
pub struct AgentFacts {
    /// Its document, or why there is none.
    pub status: Told<NodeStatus>,
    /// Version of this program.
    pub version: String,
}

/// The checks.
#[must_use]
pub fn judge(facts: &AgentFacts) -> Vec<Check> {
    let status = match &facts.status {
        Ok(status) => status,
        Err(reason) => {
            let remedy = format!(
                "start it (kubectl -n kube-system get pods -o wide, or systemctl start weft); its log says why it ended: {LOGS}"
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
                format!("see to what it waits for; {LOGS}"),
            ),
            Condition::Bad => GROUP.problem(name, component.words.clone(), format!("see to the cause; {LOGS}")),
        });
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
        let away = AgentFacts { status: Err("connection refused".into()), version: "1".into() };
        assert_eq!(outcomes(&away), [("runs".to_owned(), Outcome::Problem)]);

        let component =
            |name: &str, condition| ComponentStatus { name: name.into(), condition, words: "because".into() };
        let status = NodeStatus {
            version: "2".into(),
            components: vec![component("store", Condition::Bad), component("links", Condition::Good)],
            ..NodeStatus::default()
        };
        let found = outcomes(&AgentFacts { status: Ok(status), version: "1".into() });
        let expected = [
            ("runs", Outcome::Problem),
            ("version", Outcome::Problem),
            ("store", Outcome::Problem),
            ("links", Outcome::Good),
        ];
        assert_eq!(found, expected.map(|(name, outcome)| (name.to_owned(), outcome)));
    }
}
