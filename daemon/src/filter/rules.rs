//! Rules that are known again by their comments.

use sha2::{Digest, Sha256};
use weft_netlink::nft::expr::Expr;
use weft_netlink::nft::{Chain, Name, Rule};

use super::plan::PlannedChain;

/// Collects the rules of one chain.
#[derive(Debug)]
pub struct Rules {
    chain: Name,
    rules: Vec<Rule>,
}

impl Rules {
    /// None yet, for this chain.
    #[must_use]
    pub fn of(chain: &Chain) -> Self {
        Self { chain: chain.name.clone(), rules: Vec::new() }
    }

    /// Adds a rule made of phrases, with a comment that says its purpose (at most 110 bytes) and identifies its content.
    pub fn add<P: IntoIterator<Item = Expr>>(&mut self, purpose: &str, phrases: impl IntoIterator<Item = P>) {
        let rule = Rule::new(self.chain.clone()).with(phrases.into_iter().flatten());
        let comment = format!("{purpose} [{}]", fingerprint(&rule));
        self.rules.push(rule.comment(comment));
    }

    /// The chain with its rules.
    #[must_use]
    pub fn finish(self, chain: Chain) -> PlannedChain {
        PlannedChain { chain, rules: self.rules }
    }
}

/// Identifies a rule's content. The kernel gives rules back in its own words, so after a restart this is how a rule is
/// known to be the one that was planned.
pub(super) fn fingerprint(rule: &Rule) -> String {
    let digest: [u8; 32] = Sha256::digest(format!("{rule:?}")).into();
    digest[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}
