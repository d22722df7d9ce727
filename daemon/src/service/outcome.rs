//! What one pass over the Services did.

use std::ops::AddAssign;

use super::model::{Changes, HealthPort, Trigger};
use super::nft;
use crate::cluster::services::ObjectName;

/// What was done, and what is left undone.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// What was written to nf_tables.
    pub(super) nft: nft::Applied,
    /// Changes that IPVS was asked for.
    pub(super) ipvs_messages: usize,
    /// Objects that somebody else had changed, and that are right again.
    pub(super) repaired: usize,
    /// UDP flows deleted that held on to a backend that no longer serves.
    pub(super) flows: usize,
    /// Services that have changed.
    pub(super) service_changes: usize,
    /// Slices that have changed.
    pub(super) endpoint_changes: usize,
    /// What has caused the changes of slices.
    pub(super) triggers: Vec<Trigger>,
    /// Health check ports that are new or have changed.
    pub(super) health: Vec<(ObjectName, Option<HealthPort>)>,
    /// What users should know, each once.
    pub(super) problems: Vec<String>,
    /// What is left undone and will be tried again.
    pub(super) errors: Vec<String>,
}

impl Outcome {
    /// Whether something is left undone.
    #[must_use]
    pub(super) fn failed(&self) -> bool {
        !self.errors.is_empty()
    }
}

impl AddAssign for Outcome {
    fn add_assign(&mut self, other: Self) {
        self.nft += other.nft;
        self.ipvs_messages += other.ipvs_messages;
        self.repaired += other.repaired;
        self.flows += other.flows;
        self.service_changes += other.service_changes;
        self.endpoint_changes += other.endpoint_changes;
        self.triggers.extend(other.triggers);
        self.health.extend(other.health);
        self.problems.extend(other.problems);
        self.errors.extend(other.errors);
    }
}

impl Outcome {
    /// Takes what the table has told beside the ports.
    pub(super) fn note(&mut self, changes: &Changes) {
        self.problems.extend(changes.conflicts.iter().map(ToString::to_string));
        self.triggers.extend(&changes.triggers);
        self.health.extend(changes.health.iter().cloned());
        self.service_changes += changes.service_changes;
        self.endpoint_changes += changes.endpoint_changes;
    }

    /// Counts what was written to nf_tables, or keeps why it was not.
    pub(super) fn keep_nft(&mut self, written: Result<nft::Applied, nft::NftError>) {
        match written {
            Ok(applied) => self.nft += applied,
            Err(error) => self.errors.push(error.to_string()),
        }
    }

    /// Counts what was written beside it, or keeps why it was not.
    pub(super) fn keep<E: std::fmt::Display>(&mut self, written: Result<usize, E>) {
        match written {
            Ok(messages) => self.ipvs_messages += messages,
            Err(error) => self.errors.push(error.to_string()),
        }
    }
}
