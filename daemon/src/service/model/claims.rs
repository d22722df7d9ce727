//! Who claims which frontend: where several Services' ports do, one has it, and which one is the same on every node and
//! after every restart.

use std::collections::HashMap;
use std::sync::Arc;

use super::types::{FrontendKey, FrontendKind, PortKey};

/// A port that claims frontends, in the order of precedence: the older Service, then the name, then the port's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claimant {
    /// A Service of unknown age is nobody's elder.
    has_no_age: bool,
    created: Box<str>,
    /// The port.
    pub(super) key: PortKey,
}

impl Claimant {
    pub(super) fn new(created: &str, key: PortKey) -> Self {
        Self { has_no_age: created.is_empty(), created: created.into(), key }
    }

    pub(super) fn created(&self) -> &str {
        &self.created
    }
}

/// A claim, in the order of precedence: who has an address as its cluster IP was given it by the cluster, all others only
/// ask for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    is_asked_for: bool,
    by: Arc<Claimant>,
}

/// All claims.
#[derive(Debug, Default)]
pub(super) struct Claims(HashMap<FrontendKey, Claimed>);

#[derive(Debug)]
struct Claimed {
    first: Claim,
    /// Nearly always empty.
    others: Vec<Claim>,
}

impl Claims {
    /// Who has the frontend.
    pub(super) fn winner(&self, frontend: &FrontendKey) -> Option<&Arc<Claimant>> {
        self.0.get(frontend).map(|claimed| &claimed.first.by)
    }

    /// Claims that were lost to another; looks at every frontend.
    pub(super) fn lost(&self) -> usize {
        self.0.values().map(|claimed| claimed.others.len()).sum()
    }

    /// Adds a claim.
    pub(super) fn claim(&mut self, frontend: FrontendKey, kind: FrontendKind, by: Arc<Claimant>) {
        let mut claim = Claim { is_asked_for: kind != FrontendKind::ClusterIp, by };
        match self.0.get_mut(&frontend) {
            Some(claimed) => {
                if claim < claimed.first {
                    std::mem::swap(&mut claim, &mut claimed.first);
                }
                claimed.others.push(claim);
            }
            None => {
                self.0.insert(frontend, Claimed { first: claim, others: Vec::new() });
            }
        }
    }

    /// Takes a claim back.
    pub(super) fn withdraw(&mut self, frontend: &FrontendKey, by: &PortKey) {
        let Some(claimed) = self.0.get_mut(frontend) else { return };
        if claimed.first.by.key != *by {
            claimed.others.retain(|claim| claim.by.key != *by);
            return;
        }
        let next = claimed.others.iter().enumerate().min_by_key(|(_, claim)| *claim).map(|(at, _)| at);
        match next {
            Some(at) => claimed.first = claimed.others.swap_remove(at),
            None => {
                self.0.remove(frontend);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Family;
    use crate::cluster::services::{ObjectName, Protocol};

    #[test]
    fn t77_the_winner_does_not_depend_on_the_order_of_claims() {
        let key = |name: &str, port: &str| PortKey {
            service: ObjectName::new("default", name),
            port: port.into(),
            protocol: Protocol::Tcp,
            family: Family::V4,
        };
        let frontend = FrontendKey::Address { address: [192, 0, 2, 7].into(), protocol: Protocol::Tcp, port: 80 };
        // In the order of precedence.
        let ranked = [
            (FrontendKind::ClusterIp, Claimant::new("2026-01-03T00:00:00Z", key("z", ""))),
            (FrontendKind::ExternalIp, Claimant::new("2026-01-01T00:00:00Z", key("z", ""))),
            (FrontendKind::LoadBalancer, Claimant::new("2026-01-02T00:00:00Z", key("a", "a"))),
            (FrontendKind::ExternalIp, Claimant::new("2026-01-02T00:00:00Z", key("a", "b"))),
            (FrontendKind::ExternalIp, Claimant::new("2026-01-02T00:00:00Z", key("b", ""))),
            (FrontendKind::ExternalIp, Claimant::new("", key("0", ""))),
        ];
        for start in 0..ranked.len() {
            let mut claims = Claims::default();
            let rotated = ranked.iter().cycle().skip(start).take(ranked.len());
            for (n, (kind, claimant)) in rotated.enumerate() {
                let mut claimant = claimant.clone();
                claimant.key.service.namespace = format!("{n}").into();
                claims.claim(frontend, *kind, Arc::new(claimant));
            }
            for (_, expected) in &ranked {
                let winner = Arc::clone(claims.winner(&frontend).unwrap());
                assert_eq!(winner.created(), expected.created());
                claims.withdraw(&frontend, &winner.key);
            }
            assert!(claims.0.is_empty());
        }
    }
}
