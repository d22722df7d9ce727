//! Clocks: this node's against the store's, and the peers' against this node's.

use super::check::Group;
use super::{Check, Told};

const GROUP: Group = Group("clock");

/// Beyond so many seconds certificates, tokens and leases begin to fail in ways that nobody understands.
const MOST: f64 = 5.0;

const NOBODY: &str = "etcd by TLS tells no time, and there is no peer to compare with";

/// How far somebody's clock is ahead of this node's, in seconds. It is known to one second.
#[derive(Debug, Clone, PartialEq)]
pub struct Ahead {
    /// Whose clock.
    pub whose: String,
    /// By how much; negative if it is behind.
    pub seconds: f64,
}

/// What is asked of clocks.
#[derive(Debug, Clone)]
pub struct ClockFacts {
    /// The store's; nothing if it is one that cannot be asked.
    pub store: Told<Option<Ahead>>,
    /// The peers', as far as their agents answer.
    pub peers: Vec<Ahead>,
}

/// The checks.
#[must_use]
pub fn judge(facts: &ClockFacts) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut reference = false;
    match &facts.store {
        Ok(Some(ahead)) => {
            reference = ahead.seconds.abs() <= MOST;
            checks.push(if reference {
                GROUP.good("this node", format!("within {MOST} s of {}", ahead.whose))
            } else {
                GROUP.problem(
                    "this node",
                    format!("it is {} {}", apart(-ahead.seconds), ahead.whose),
                    remedy("this node, or there"),
                )
            });
        }
        Ok(None) if facts.peers.is_empty() => checks.push(GROUP.moot("this node", NOBODY)),
        Err(reason) if facts.peers.is_empty() => checks.push(GROUP.unknown("this node", reason.clone())),
        Ok(None) | Err(_) => {}
    }
    let known = matches!(facts.store, Ok(Some(_)));
    let wrong: Vec<&Ahead> = facts.peers.iter().filter(|peer| peer.seconds.abs() > MOST).collect();
    // Who is at odds with most others is himself wrong; without a store there is no better judge.
    if !reference && !facts.peers.is_empty() && wrong.len() * 2 > facts.peers.len() {
        if !known {
            let words = format!("it is more than {MOST} s apart from {} of {} peers", wrong.len(), facts.peers.len());
            checks.push(GROUP.problem("this node", words, remedy("this node")));
        }
        return checks;
    }
    if !known && !facts.peers.is_empty() {
        checks.push(GROUP.good("this node", format!("within {MOST} s of most peers")));
    }
    for peer in wrong {
        let words = format!("it is {} this node", apart(peer.seconds));
        checks.push(GROUP.problem(&peer.whose, words, remedy(&peer.whose)));
    }
    checks
}

fn apart(seconds: f64) -> String {
    format!("{:.0} s {}", seconds.abs(), if seconds > 0.0 { "ahead of" } else { "behind" })
}

fn remedy(whose: &str) -> String {
    format!(
        "on {whose}: timedatectl set-ntp true, and chronyc tracking (or timedatectl timesync-status) shows whether it follows"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Outcome;

    fn ahead(whose: &str, seconds: f64) -> Ahead {
        Ahead { whose: whose.into(), seconds }
    }

    fn judged(store: Told<Option<Ahead>>, peers: &[Ahead]) -> Vec<(String, Outcome, String)> {
        let checks = judge(&ClockFacts { store, peers: peers.to_vec() });
        checks.into_iter().map(|check| (check.name, check.outcome, check.words)).collect()
    }

    #[test]
    fn the_store_is_the_judge() {
        let good = judged(Ok(Some(ahead("etcd", 1.0))), &[ahead("n2", -0.5)]);
        assert_eq!((good.len(), good[0].1), (1, Outcome::Good));
        let behind = judged(Ok(Some(ahead("etcd", 60.0))), &[ahead("n2", 60.0)]);
        assert_eq!((behind.len(), behind[0].1), (1, Outcome::Problem));
        assert_eq!(behind[0].2, "it is 60 s behind etcd");
        let other = judged(Ok(Some(ahead("etcd", 0.0))), &[ahead("n2", 0.0), ahead("n3", -9.0)]);
        assert_eq!((other[1].0.as_str(), other[1].1), ("n3", Outcome::Problem));
        assert_eq!(other[1].2, "it is 9 s behind this node");
    }

    #[test]
    fn without_the_store_the_peers_are() {
        let away = || Err("connection refused".to_owned());
        assert_eq!(judged(away(), &[])[0].1, Outcome::Unknown);
        // A single node whose etcd has TLS has nobody to compare with, ever.
        assert_eq!(judged(Ok(None), &[])[0].1, Outcome::Moot);
        assert_eq!(judged(Ok(None), &[ahead("n2", 0.0)])[0].1, Outcome::Good);
        assert_eq!(judged(away(), &[ahead("n2", 0.0)])[0].1, Outcome::Good);
        let alone = judged(away(), &[ahead("n2", 30.0), ahead("n3", 31.0)]);
        assert_eq!((alone.len(), alone[0].0.as_str(), alone[0].1), (1, "this node", Outcome::Problem));
    }
}
