//! The store: whether this node reaches it, by which address, and with which credentials.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::check::Group;
use super::{Check, Told};

const GROUP: Group = Group("store");

/// A token that ends within so many seconds should have been replaced: kubelet does at four fifths of its life.
const SOON: i64 = 300;

/// What is asked of the store.
#[derive(Debug, Clone)]
pub struct StoreFacts {
    /// What it is and where: `etcd at http://192.0.2.10:2379`, `the API server at https://…`.
    pub what: String,
    /// What it said, or why it says nothing.
    pub answer: Told<String>,
    /// Seconds until the token ends; `None` if there is none that tells. Only with the API server.
    pub token: Option<Told<i64>>,
    /// Whether the API server is asked by the address of its Service, which weft itself is to serve.
    pub by_own_service: bool,
}

/// The checks.
#[must_use]
pub fn judge(facts: &StoreFacts) -> Vec<Check> {
    let mut checks = vec![match &facts.answer {
        Ok(said) => GROUP.good("answers", format!("{}: {said}", facts.what)),
        Err(reason) => GROUP.problem(
            "answers",
            format!("{}: {reason}", facts.what),
            "curl -k its URL/healthz from this node; the pod network goes on without it, and the agent with another of its servers, if it knows one that answers (weft status); else nothing changes until it is back",
        ),
    }];
    match &facts.token {
        None => {}
        Some(Err(reason)) => checks.push(GROUP.unknown("token", reason.clone())),
        Some(Ok(left)) if *left <= 0 => checks.push(GROUP.problem(
            "token",
            format!("the ServiceAccount's token has expired {} s ago", left.unsigned_abs()),
            "kubelet renews it: systemctl status kubelet and its log; check the clock; else restart the pod",
        )),
        Some(Ok(left)) if *left < SOON => checks.push(GROUP.problem(
            "token",
            format!("the ServiceAccount's token ends in {left} s and has not been renewed"),
            "kubelet renews it: systemctl status kubelet and its log",
        )),
        Some(Ok(left)) => checks.push(GROUP.good("token", format!("lasts for {left} s"))),
    }
    if facts.by_own_service {
        checks.push(GROUP.note(
            "address",
            "kube-api-server is not set, so the API server is asked by its Service, which after a reboot nobody serves before weft does; set it to the API server's own address",
        ));
    }
    checks
}

/// The check where this program was given another source than the agent: what it would ask is not what the agent asks.
#[must_use]
pub fn another_source(agent: &str, given: &str) -> Check {
    GROUP.unknown(
        "answers",
        format!("the agent's source is {agent}, this program was given {given}; give it the agent's settings (--source {agent}, for kube with --kubeconfig), or run it in the agent's pod"),
    )
}

/// The end of a token's life (`exp`, RFC 7519), in seconds since 1970; `None` if it is no JWT, or has no end.
#[must_use]
pub fn expiry(token: &str) -> Option<i64> {
    let claims = URL_SAFE_NO_PAD.decode(token.trim().split('.').nth(1)?.trim_end_matches('=')).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    claims.get("exp")?.as_i64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Outcome;

    fn facts() -> StoreFacts {
        StoreFacts {
            what: "the API server at https://192.0.2.10:6443".into(),
            answer: Ok("v1.36.0".into()),
            token: Some(Ok(3000)),
            by_own_service: false,
        }
    }

    fn outcomes(facts: &StoreFacts) -> Vec<Outcome> {
        judge(facts).iter().map(|check| check.outcome).collect()
    }

    #[test]
    fn a_store_that_is_reached_with_a_living_token_is_good() {
        assert_eq!(outcomes(&facts()), [Outcome::Good; 2]);
        assert_eq!(outcomes(&StoreFacts { token: None, ..facts() }), [Outcome::Good]);
    }

    #[test]
    fn what_fails_is_told_apart() {
        assert_eq!(outcomes(&StoreFacts { answer: Err("refused".into()), ..facts() })[0], Outcome::Problem);
        for (token, outcome) in
            [(Ok(-5), Outcome::Problem), (Ok(20), Outcome::Problem), (Err("?".into()), Outcome::Unknown)]
        {
            assert_eq!(outcomes(&StoreFacts { token: Some(token), ..facts() })[1], outcome);
        }
        assert_eq!(outcomes(&StoreFacts { by_own_service: true, ..facts() })[2], Outcome::Note);
    }

    #[test]
    fn a_token_tells_its_end() {
        // {"alg":"none"} . {"exp":1700000000,"x":"~~~???"} . nothing
        assert_eq!(expiry("eyJhbGciOiJub25lIn0.eyJleHAiOjE3MDAwMDAwMDAsIngiOiJ-fn4_Pz8ifQ."), Some(1_700_000_000));
        assert_eq!(expiry("eyJhbGciOiJub25lIn0.e30."), None);
        assert_eq!(expiry("opaque"), None);
        assert_eq!(expiry("a.b!c.d"), None);
    }
}
