//! Which scheduler a virtual server gets.
//!
//! A Service may ask for one by annotation. What is no scheduler, or none of this kernel's, is said, and the Service gets
//! the global one: a typing error in an annotation must not take a Service off the network.

use std::collections::BTreeSet;
use std::fmt;

use weft_netlink::ipvs::{Scheduler, SchedulerFlags};

/// A name that no kernel has a scheduler for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("scheduler {name:?}: expected one of {}", Scheduler::KNOWN.join(", "))]
pub struct UnknownScheduler {
    /// What was given.
    pub name: String,
}

/// Reads the name of a scheduler. The empty name is `rr`, as in kube-proxy's configuration.
///
/// # Errors
/// [`UnknownScheduler`] if no kernel has one of that name.
pub fn parse_scheduler(name: &str) -> Result<Scheduler, UnknownScheduler> {
    if name.is_empty() {
        return Ok(Scheduler::ROUND_ROBIN);
    }
    let unknown = || UnknownScheduler { name: name.to_owned() };
    let known = Scheduler::KNOWN.into_iter().find(|known| *known == name).ok_or_else(unknown)?;
    Scheduler::new(known).map_err(|_| unknown())
}

/// What a scheduler shall heed besides.
///
/// `mh` counts the client's port, as kube-proxy has it: few clients would otherwise meet few backends. `sh` is chosen for
/// clients to stay where they are, so it must not; but it looks for another backend where the hash leads to one that
/// drains, because its table has a place for those too (`ip_vs_sh_reassign`) and clients would be refused.
pub(super) fn flags(scheduler: &Scheduler) -> SchedulerFlags {
    match scheduler {
        mh if *mh == Scheduler::MAGLEV_HASHING => SchedulerFlags::PORT,
        sh if *sh == Scheduler::SOURCE_HASHING => SchedulerFlags::FALLBACK,
        _ => SchedulerFlags::default(),
    }
}

/// Why a Service does not get the scheduler that it asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fallback {
    /// There is no such scheduler.
    Unknown(UnknownScheduler),
    /// This kernel does not have it.
    Missing(Scheduler),
}

impl fmt::Display for Fallback {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(error) => error.fmt(out),
            Self::Missing(scheduler) => {
                write!(out, "scheduler {:?}: this kernel has no module ip_vs_{scheduler}", scheduler.name())
            }
        }
    }
}

/// The schedulers to choose from.
#[derive(Debug, Clone)]
pub(super) struct Schedulers {
    global: Scheduler,
    /// Asked for, and the kernel did not have them.
    missing: BTreeSet<Scheduler>,
}

impl Schedulers {
    pub(super) fn new(global: Scheduler) -> Self {
        Self { global, missing: BTreeSet::new() }
    }

    /// Remembers that the kernel does not have a scheduler; whether there is another one to fall back to.
    pub(super) fn mark_missing(&mut self, scheduler: &Scheduler) -> bool {
        *scheduler != Scheduler::ROUND_ROBIN && self.missing.insert(scheduler.clone())
    }

    /// The scheduler of a Service that asks for `asked`, and why it is not that one.
    pub(super) fn choose(&self, asked: Option<&str>) -> (Scheduler, Option<Fallback>) {
        let asked = match asked.map(parse_scheduler) {
            Some(Ok(asked)) => asked,
            Some(Err(unknown)) => return (self.global(), Some(Fallback::Unknown(unknown))),
            None => self.global.clone(),
        };
        if self.missing.contains(&asked) {
            return (self.global(), Some(Fallback::Missing(asked)));
        }
        (asked, None)
    }

    /// The global scheduler, or round robin where the kernel does not have that: there is none more basic.
    fn global(&self) -> Scheduler {
        if self.missing.contains(&self.global) { Scheduler::ROUND_ROBIN } else { self.global.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_kernels_and_errors_say_which_those_are() {
        for name in Scheduler::KNOWN {
            assert_eq!(parse_scheduler(name).unwrap().name(), name);
        }
        assert_eq!(parse_scheduler("").unwrap(), Scheduler::ROUND_ROBIN);
        let error = parse_scheduler("wr").unwrap_err().to_string();
        assert!(error.contains("\"wr\"") && error.contains("rr, wrr"), "{error}");
    }

    #[test]
    fn a_service_falls_back_to_the_global_scheduler_and_that_to_round_robin() {
        let mut schedulers = Schedulers::new(Scheduler::LEAST_CONNECTIONS);
        let lc = Scheduler::LEAST_CONNECTIONS;
        assert_eq!(schedulers.choose(None), (lc.clone(), None));
        assert_eq!(schedulers.choose(Some("mh")), (Scheduler::MAGLEV_HASHING, None));
        assert!(matches!(schedulers.choose(Some("best")), (chosen, Some(Fallback::Unknown(_))) if chosen == lc));
        assert!(schedulers.mark_missing(&Scheduler::MAGLEV_HASHING));
        assert!(!schedulers.mark_missing(&Scheduler::MAGLEV_HASHING), "known already");
        let (chosen, fallback) = schedulers.choose(Some("mh"));
        assert_eq!(chosen, lc);
        assert_eq!(fallback.unwrap().to_string(), "scheduler \"mh\": this kernel has no module ip_vs_mh");
        assert!(schedulers.mark_missing(&lc));
        assert_eq!(schedulers.choose(Some("mh")).0, Scheduler::ROUND_ROBIN);
        assert_eq!(schedulers.choose(None).0, Scheduler::ROUND_ROBIN);
        assert!(!schedulers.mark_missing(&Scheduler::ROUND_ROBIN), "there is nothing below it");
    }
}
