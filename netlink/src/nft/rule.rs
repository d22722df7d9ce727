//! Rules.

use super::Name;
use super::expr::Expr;
use crate::codec::Attributes;
use crate::codec::Writer;

pub(super) const NFTA_RULE_CHAIN: u16 = 2;
pub(super) const NFTA_RULE_HANDLE: u16 = 3;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
pub(super) const NFTA_RULE_POSITION: u16 = 6;
pub(super) const NFTA_RULE_USERDATA: u16 = 7;

/// A rule: expressions that run one after the other until one of them says no.
///
/// ```
/// use weft_netlink::nft::{Rule, expr};
///
/// let network = "10.244.0.0/16".parse().unwrap();
/// let rule = Rule::new("postrouting")
///     .with(expr::ip_saddr_in(network))
///     .with(expr::ip_daddr_not_in(network))
///     .with(expr::masquerade())
///     .comment("pods to the outside");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The chain it stands in.
    pub chain: Name,
    /// What it does.
    pub expressions: Vec<Expr>,
    /// A comment for whoever lists it; at most 127 bytes.
    pub comment: Option<Name>,
}

impl Rule {
    /// An empty rule of a chain.
    pub fn new(chain: impl Into<Name>) -> Self {
        Self { chain: chain.into(), expressions: Vec::new(), comment: None }
    }

    /// The rule with more to test or to do: one expression, or what the functions in [`expr`](super::expr) return.
    #[must_use]
    pub fn with(mut self, expressions: impl IntoIterator<Item = Expr>) -> Self {
        self.expressions.extend(expressions);
        self
    }

    /// The rule with a comment.
    #[must_use]
    pub fn comment(mut self, comment: impl Into<Name>) -> Self {
        self.comment = Some(comment.into());
        self
    }

    pub(super) fn write(&self, w: &mut Writer) {
        w.string(NFTA_RULE_CHAIN, &self.chain);
        w.nest(NFTA_RULE_EXPRESSIONS, |w| self.expressions.iter().for_each(|expression| expression.write(w)));
        if let Some(comment) = &self.comment {
            w.comment(NFTA_RULE_USERDATA, comment);
        }
    }
}

/// A rule as the kernel holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleInfo {
    /// The chain it stands in.
    pub chain: String,
    /// The kernel's number for it, by which it is replaced or deleted.
    pub handle: u64,
    /// Its comment.
    pub comment: Option<String>,
    /// Its expressions as the kernel writes them (`NFTA_RULE_EXPRESSIONS`), counters and all.
    pub expressions: Vec<u8>,
}

impl RuleInfo {
    pub(super) fn read(attributes: Attributes<'_>) -> Result<Self, String> {
        Ok(Self {
            chain: attributes.string(NFTA_RULE_CHAIN).ok_or("a rule without a chain")?,
            handle: attributes.be64(NFTA_RULE_HANDLE).ok_or("a rule without a handle")?,
            comment: attributes.comment(NFTA_RULE_USERDATA),
            expressions: attributes.raw(NFTA_RULE_EXPRESSIONS).unwrap_or_default().to_vec(),
        })
    }
}
