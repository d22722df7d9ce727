//! What a pass tells of a table: to log, metrics and health.

use std::fmt::Display;
use std::time::Instant;

use super::pass::Node;
use crate::reconcile::Pass;
use crate::serve::Component;

impl Node {
    /// Tells log, metrics and health of a table's pass.
    pub(super) fn report<K: Display>(
        &mut self,
        component: Component,
        table: &'static str,
        outcome: Result<Pass<K>, String>,
        words: impl FnOnce(&Pass<K>) -> String,
    ) -> Option<Instant> {
        self.count(table, &outcome);
        match outcome {
            Ok(pass) => {
                match pass.failed.first() {
                    None => self.health.good(component, words(&pass)),
                    Some((object, reason)) => {
                        self.health.bad(component, format!("{object}: {reason}{}", and_more(pass.failed.len())));
                    }
                }
                pass.retry_at
            }
            Err(reason) => {
                self.health.bad(component, reason);
                None
            }
        }
    }

    /// Tells log and metrics of a table's pass.
    pub(super) fn count<K: Display>(&mut self, table: &'static str, outcome: &Result<Pass<K>, String>) {
        let Ok(pass) = outcome else {
            self.metrics.failed(table, 1);
            return;
        };
        self.note_repairs(table, pass.repaired, || {
            let first = pass.repaired_first.as_ref().map(ToString::to_string).unwrap_or_default();
            format!("{first}{}", and_more(pass.repaired))
        });
        if pass.updated + pass.deleted > 0 {
            tracing::info!(table, updated = pass.updated, deleted = pass.deleted, "brought up to date");
        }
        self.metrics.wrote(table, pass.writes());
        self.metrics.failed(table, pass.failed.len());
    }

    /// Counts what somebody else had changed and is right again, and says so in one line, whatever it was made of.
    pub(super) fn note_repairs(&mut self, table: &'static str, objects: usize, what: impl FnOnce() -> String) {
        if objects > 0 {
            tracing::warn!(table, objects, "repaired what somebody else had changed: {}", what());
            self.metrics.repaired(table, objects);
            self.repaired += objects;
        }
    }
}

/// What is added to the first of so many.
fn and_more(objects: usize) -> String {
    if objects > 1 { format!(" (and {} more)", objects - 1) } else { String::new() }
}
