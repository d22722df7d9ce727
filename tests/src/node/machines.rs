//! Several [`Bare`] machines beside each other.

use anyhow::Result;

use super::bare::{Bare, programs_with};
use crate::lab::underlay::{self, Families};
use crate::netns::OwnedNetns;
use crate::scratch::{Scratch, unique_name};

/// Machines on one segment, switched off with their owner.
pub struct Machines {
    /// They, by their numbers: the first is n1.
    pub nodes: Vec<Bare>,
    _underlay: OwnedNetns,
    _scratch: Scratch,
}

impl Machines {
    /// Switches so many on. `config` is what `--config` is given.
    ///
    /// # Errors
    /// When a program is missing, or one does not start.
    pub fn boot(count: u8, families: Families, config: &str) -> Result<Self> {
        let scratch = Scratch::new();
        let underlay = OwnedNetns::new(format!("{}-underlay", unique_name()));
        underlay::ensure(&underlay)?;
        let programs = programs_with(scratch.path(), config)?;
        let boot = |number: u8| Bare::boot(&underlay, number, &scratch.join(format!("n{number}")), &programs, families);
        let nodes = (1..=count).map(boot).collect::<Result<_>>()?;
        Ok(Self { nodes, _underlay: underlay, _scratch: scratch })
    }

    /// The first two.
    ///
    /// # Panics
    /// When there are fewer.
    #[must_use]
    pub fn pair(&self) -> (&Bare, &Bare) {
        (&self.nodes[0], &self.nodes[1])
    }
}
