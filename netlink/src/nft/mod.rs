//! nf_tables over nfnetlink: what stands in a table as values, and one atomic transaction to put it there.
//!
//! * [`Table`], [`Chain`], [`Rule`], [`Set`] and [`Element`] say what there is to be; [`expr`] says what a rule does.
//! * A [`Batch`] collects changes; [`Socket::commit`] makes all of them or none.
//! * [`Socket`] also reads back what the kernel has.
//!
//! Nothing here decides what weft's tables hold: that is for those who plan them. Hook priorities stand in
//! [`crate::priority`].
//!
//! Needs Linux 5.15. `NFT_MSG_DESTROY*` (6.3) is not used: what may not exist is added first, then deleted.

mod batch;
mod chain;
mod data;
mod dump;
mod element;
pub mod expr;
mod foreign;
mod get;
mod message;
mod rule;
mod set;
mod socket;
mod table;
mod value;
mod words;

use std::borrow::Cow;
use std::time::Duration;

pub use batch::{Batch, Position};
pub use chain::{BaseChain, Chain, ChainInfo, ChainKind, Hook, Policy};
pub use element::{Element, ElementData};
pub use expr::{Expr, IpVersion, Register, Source, Verdict};
pub use rule::{Rule, RuleInfo};
pub use set::{Field, MapData, Set, SetInfo};
pub use socket::{CommitError, Socket};
pub use table::{Table, TableFamily, TableInfo};
pub use value::Value;

/// A name or comment: most are known when the program is built, and cost nothing.
pub type Name = Cow<'static, str>;

/// nf_tables counts time in milliseconds.
fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
