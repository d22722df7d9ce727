//! Registers, and loading a key into them.

use super::{Expr, Source};

/// One of sixteen registers of four bytes each (`enum nft_registers`); longer values take several in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Register(u32);

impl Register {
    /// Where a verdict goes (`NFT_REG_VERDICT`).
    pub const VERDICT: Self = Self(0);
    /// The first of the sixteen (`NFT_REG32_00`).
    pub const FIRST: Self = Self(8);

    /// The register so many bytes behind this one, in whole registers.
    #[must_use]
    pub fn behind(self, bytes: u32) -> Self {
        Self(self.0 + bytes.div_ceil(4))
    }

    pub(super) fn number(self) -> u32 {
        self.0
    }
}

/// Loads a key of one or more fields, from the first register on.
#[must_use]
pub fn load(sources: &[Source]) -> Vec<Expr> {
    let mut register = Register::FIRST;
    sources
        .iter()
        .map(|source| {
            let here = register;
            register = register.behind(source.length());
            Expr::Load { source: *source, register: here }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::IpVersion;
    use super::*;

    #[test]
    fn each_field_takes_whole_registers() {
        let key = [Source::saddr(IpVersion::V6), Source::protocol(), Source::dport(), Source::daddr(IpVersion::V4)];
        let registers: Vec<u32> = load(&key)
            .into_iter()
            .map(|expression| match expression {
                Expr::Load { register, .. } => register.number(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(registers, [8, 12, 13, 14]);
    }
}
