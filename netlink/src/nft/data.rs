//! `struct nft_data` on the wire: a value or a verdict (`NFTA_DATA_*`, linux/netfilter/nf_tables.h).

use super::expr::Verdict;
use super::value::Value;
use crate::codec::Attributes;
use crate::codec::Writer;

const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;

/// `enum nft_verdicts`, and `NF_ACCEPT`, `NF_DROP` of linux/netfilter.h.
const DROP: i32 = 0;
const ACCEPT: i32 = 1;
const CONTINUE: i32 = -1;
const JUMP: i32 = -3;
const GOTO: i32 = -4;
const RETURN: i32 = -5;

pub(super) fn write_value(w: &mut Writer, value: &Value) {
    w.raw(NFTA_DATA_VALUE, value.as_slice());
}

pub(super) fn write_verdict(w: &mut Writer, verdict: &Verdict) {
    let (code, chain) = match verdict {
        Verdict::Accept => (ACCEPT, None),
        Verdict::Drop => (DROP, None),
        Verdict::Continue => (CONTINUE, None),
        Verdict::Return => (RETURN, None),
        Verdict::Jump(chain) => (JUMP, Some(chain)),
        Verdict::Goto(chain) => (GOTO, Some(chain)),
    };
    w.nest(NFTA_DATA_VERDICT, |w| {
        w.be32(NFTA_VERDICT_CODE, code.cast_unsigned());
        if let Some(chain) = chain {
            w.string(NFTA_VERDICT_CHAIN, chain);
        }
    });
}

pub(super) fn read_value(data: Attributes<'_>) -> Option<Value> {
    data.raw(NFTA_DATA_VALUE).map(Value::bytes)
}

pub(super) fn read_verdict(data: Attributes<'_>) -> Option<Verdict> {
    let verdict = data.nest(NFTA_DATA_VERDICT)?;
    let chain = || verdict.string(NFTA_VERDICT_CHAIN).map(Into::into);
    Some(match verdict.be32(NFTA_VERDICT_CODE)?.cast_signed() {
        ACCEPT => Verdict::Accept,
        DROP => Verdict::Drop,
        CONTINUE => Verdict::Continue,
        RETURN => Verdict::Return,
        JUMP => Verdict::Jump(chain()?),
        GOTO => Verdict::Goto(chain()?),
        _ => return None,
    })
}
