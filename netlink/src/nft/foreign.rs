//! What can be said of rules that others made: where they lead, whether they refuse everything, and what they say of themselves.
//!
//! Of their expressions only these are read; all others are passed over, so that whatever a rule does besides does not
//! matter. iptables-nft writes comments in both ways that are read here, depending on its version.

use super::RuleInfo;
use crate::codec::Attributes;

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_IMMEDIATE_DATA: u16 = 2;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;
/// linux/netfilter.h.
const NF_DROP: u32 = 0;
/// linux/netfilter/nf_tables_compat.h.
const NFTA_MATCH_NAME: u16 = 1;
const NFTA_MATCH_INFO: u16 = 3;
const NFTA_TARGET_NAME: u16 = 1;

impl RuleInfo {
    /// The chain that the rule jumps or goes to; `None` if it does not, or only by way of a map.
    #[must_use]
    pub fn leads_to(&self) -> Option<String> {
        self.each().find_map(|(name, data)| {
            let verdict = data.nest(NFTA_IMMEDIATE_DATA).filter(|_| name == "immediate")?.nest(NFTA_DATA_VERDICT)?;
            verdict.string(NFTA_VERDICT_CHAIN)
        })
    }

    /// Whether the rule refuses every packet that comes to it: it drops or rejects, and asks for nothing before.
    #[must_use]
    pub fn refuses_all(&self) -> bool {
        let mut refuses = false;
        for (name, data) in self.each() {
            let verdict = || data.nest(NFTA_IMMEDIATE_DATA)?.nest(NFTA_DATA_VERDICT)?.be32(NFTA_VERDICT_CODE);
            let target = || data.string(NFTA_TARGET_NAME);
            match name.as_str() {
                "counter" | "log" => {}
                // iptables' match `comment` lets everything pass.
                "match" if data.string(NFTA_MATCH_NAME).as_deref() == Some("comment") => {}
                "reject" => refuses = true,
                "target" if matches!(target().as_deref(), Some("REJECT" | "DROP")) => refuses = true,
                "target" if matches!(target().as_deref(), Some("LOG" | "NFLOG")) => {}
                "immediate" if verdict() == Some(NF_DROP) => refuses = true,
                _ => return false,
            }
        }
        refuses
    }

    /// What the rule says of itself: its comment, or that of iptables' match `comment`.
    #[must_use]
    pub fn remark(&self) -> Option<String> {
        let in_match = || {
            self.each().find_map(|(name, data)| {
                let is_comment = name == "match" && data.string(NFTA_MATCH_NAME).as_deref() == Some("comment");
                // `struct xt_comment_info`: the text, ended by NUL.
                is_comment.then(|| data.string(NFTA_MATCH_INFO)).flatten()
            })
        };
        self.comment.clone().or_else(in_match)
    }

    /// Name and content of each expression.
    fn each(&self) -> impl Iterator<Item = (String, Attributes<'_>)> {
        Attributes(&self.expressions).iter().filter(|(kind, _)| *kind == NFTA_LIST_ELEM).filter_map(
            |(_, expression)| {
                let expression = Attributes(expression);
                Some((expression.string(NFTA_EXPR_NAME)?, expression.nest(NFTA_EXPR_DATA)?))
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::expr::{self, Verdict};
    use super::super::{Expr, Rule};
    use super::*;
    use crate::codec::Writer;

    fn read(write: impl FnOnce(&mut Writer)) -> RuleInfo {
        let mut writer = Writer::default();
        writer.nest(4, write);
        let expressions = Attributes(writer.bytes()).raw(4).unwrap().to_vec();
        RuleInfo { chain: "c".to_owned(), handle: 1, comment: None, expressions }
    }

    #[test]
    fn jumps_and_gotos_name_their_chain_and_verdicts_none() {
        let of = |expression: Expr| {
            let rule = Rule::new("c").with(expr::mark_is(1, 1)).with([expression]);
            read(|w| rule.expressions.iter().for_each(|expression| expression.write(w))).leads_to()
        };
        assert_eq!(of(Expr::Verdict(Verdict::Jump("KUBE-SERVICES".into()))).as_deref(), Some("KUBE-SERVICES"));
        assert_eq!(of(Expr::Verdict(Verdict::Goto("x".into()))).as_deref(), Some("x"));
        assert_eq!(of(expr::accept()), None);
    }

    #[test]
    fn only_a_rule_that_asks_for_nothing_refuses_all() {
        let of =
            |rule: Rule| read(|w| rule.expressions.iter().for_each(|expression| expression.write(w))).refuses_all();
        let drop = || [Expr::Verdict(Verdict::Drop)];
        assert!(of(Rule::new("c").with(drop())));
        assert!(!of(Rule::new("c").with(expr::mark_is(1, 1)).with(drop())));
        assert!(!of(Rule::new("c").with([expr::accept()])));
        assert!(!of(Rule::new("c").with([Expr::Verdict(Verdict::Jump("x".into()))])));
        assert!(!of(Rule::new("c")));
        // iptables -A FORWARD -m comment -j REJECT.
        let target = |name: &'static str| {
            read(move |w| {
                for (kind, inner) in [("match", "comment"), ("counter", ""), ("target", name)] {
                    w.nest(NFTA_LIST_ELEM, |w| {
                        w.string(NFTA_EXPR_NAME, kind);
                        w.nest(NFTA_EXPR_DATA, |w| w.string(NFTA_TARGET_NAME, inner));
                    });
                }
            })
        };
        assert!(target("REJECT").refuses_all());
        assert!(!target("MARK").refuses_all());
    }

    #[test]
    fn a_comment_is_found_wherever_iptables_put_it() {
        let in_match = read(|w| {
            w.nest(NFTA_LIST_ELEM, |w| {
                w.string(NFTA_EXPR_NAME, "match");
                w.nest(NFTA_EXPR_DATA, |w| {
                    w.string(NFTA_MATCH_NAME, "comment");
                    w.string(NFTA_MATCH_INFO, "of portmap");
                });
            });
        });
        assert_eq!(in_match.remark().as_deref(), Some("of portmap"));
        let in_user_data = RuleInfo { comment: Some("plain".to_owned()), ..in_match };
        assert_eq!(in_user_data.remark().as_deref(), Some("plain"));
        assert_eq!(read(|_| {}).remark(), None);
    }
}
