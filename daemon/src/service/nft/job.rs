//! The comparison of all elements, a piece at a time.

use std::collections::HashSet;

use weft_netlink::nft::{Batch, CommitError};

use super::backend::{Applied, ELEMENTS_PER_TRANSACTION, NftError, NftServices};
use super::changes::Changes;
use super::entry::{Datum, Key};
use super::image::Image;
use super::skeleton;
use super::state::Draft;
use crate::service::model::PortKey;

/// After so many ports that are right already, others get a turn.
const PORTS_PER_PIECE: usize = 20_000;

/// A comparison under way.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) image: Image,
    /// Whether ids of ports that are gone become free at the end.
    pub(super) adopts: bool,
    stage: Stage,
    /// Chains that are nobody's.
    strays: Vec<String>,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    /// Elements that do not depend on Services.
    Fixed,
    /// Those of the ports from this position on.
    Ports(usize),
    /// Those that nobody wanted.
    Leftovers,
}

impl Job {
    pub(super) fn new(image: Image, strays: Vec<String>) -> Self {
        Self { image, adopts: false, stage: Stage::Fixed, strays }
    }
}

impl NftServices {
    pub(super) fn proceed_job(&mut self, mut job: Job) -> Result<Applied, NftError> {
        let mut changes = Changes::default();
        let mut ports: Vec<PortKey> = Vec::new();
        let before = job.stage;
        if let Stage::Fixed = job.stage {
            self.compare_fixed(&mut job.image, &mut changes);
            job.stage = Stage::Ports(0);
        } else if let Stage::Ports(mut position) = job.stage {
            job.stage = Stage::Leftovers;
            let width = self.width.min(PORTS_PER_PIECE);
            for (behind, port) in self.state.ports_from(position) {
                if ports.len() >= width || changes.keys() >= ELEMENTS_PER_TRANSACTION {
                    job.stage = Stage::Ports(position);
                    break;
                }
                for (key, datum) in self.state.entries(port) {
                    match key {
                        Key::ClusterIp(_) | Key::Hairpin(_) => job.image.want_once((key, datum), &mut changes),
                        _ => job.image.want((key, datum), &mut changes),
                    }
                }
                ports.push(port.plan.key.clone());
                position = behind;
            }
        } else {
            job.image.leftovers(ELEMENTS_PER_TRANSACTION, &mut changes);
        }
        match self.commit_changes(&changes) {
            Ok(applied) => {
                job.image.settle();
                if matches!(job.stage, Stage::Leftovers) && job.image.is_empty() {
                    return Ok(self.end_job(&job, applied));
                }
                self.job = Some(job);
                Ok(applied)
            }
            Err(error) => self.fail_job(job, before, error, &ports),
        }
    }

    fn compare_fixed(&self, image: &mut Image, changes: &mut Changes) {
        let fixed = skeleton::entries(&self.options);
        // A range that is wanted no more may overlap one that is, and the kernel refuses to have both: those go at once.
        let of_ports = self.state.ports_from(0).filter(|(_, port)| !port.plan.source_ranges.is_empty());
        let entries = of_ports.flat_map(|(_, port)| self.state.entries(port));
        let wanted: HashSet<Key> =
            entries.chain(fixed.iter().copied()).map(|(key, _)| key).filter(Key::is_range).collect();
        image.drop_all(|key| key.is_range() && !wanted.contains(key), changes);
        image.drop_stray_ranges(changes);
        for entry in fixed {
            image.want(entry, changes);
        }
        for class in &self.built {
            image.want((Key::Balancer(*class), Datum::Chain), changes);
        }
        for door in &self.doors {
            image.want((Key::Door(*door), Datum::None), changes);
        }
        // A class that is made later finds its place free.
        image.drop_all(|key| matches!(key, Key::Balancer(_)), changes);
    }

    fn end_job(&mut self, job: &Job, mut applied: Applied) -> Applied {
        if job.adopts {
            self.state.adoption_ends();
        }
        self.doubted &= self.is_busy();
        self.width = usize::MAX;
        for name in &job.strays {
            let mut batch = Batch::new();
            batch.delete_chain(&self.table, name);
            // If somebody's rule leads there, it stays, empty.
            if let Ok(deleted) = self.commit(batch, 0, 1) {
                applied += deleted;
            }
        }
        applied
    }

    /// After a first refusal the kernel is read anew: it may not be what it was. If it still refuses, some port is at fault,
    /// and is searched for by halves.
    fn fail_job(
        &mut self,
        mut job: Job,
        before: Stage,
        error: CommitError,
        ports: &[PortKey],
    ) -> Result<Applied, NftError> {
        let refused = matches!(error, CommitError::Refused { .. });
        let again = std::mem::replace(&mut self.doubted, true);
        if !refused || !again || ports.is_empty() {
            if job.adopts {
                self.state.adoption_ends();
            }
            self.begin_comparison(true);
            return if refused && !again { Ok(Applied::default()) } else { Err(error.into()) };
        }
        job.image.unsettle();
        job.stage = before;
        self.job = Some(job);
        let [key] = ports else {
            self.width = ports.len().div_ceil(2);
            return Ok(Applied::default());
        };
        let plan = self.state.plans().find(|plan| plan.key == *key).cloned();
        self.state.set(key, None, &mut Draft::default());
        self.failures.insert(key.clone(), (plan, error.to_string()));
        self.width = usize::MAX;
        self.stale = true;
        Ok(Applied { failed: 1, ..Applied::default() })
    }
}
