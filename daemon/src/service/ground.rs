//! IPVS with the ground it stands on: its way into the node, and its doors in nf_tables.
//!
//! Coming in, frontends are last: sysctls, guard (a part of the nf_tables rules), ARP guard, local route, virtual server with
//! its real servers, door. Going out they are first.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ipnetwork::IpNetwork;
use weft_netlink::sysctl::Sysctl;

use super::ipvs::{self, ArpGuard, Door, IpvsConfig, IpvsServices, IpvsSysctls, LocalRoutes};
use super::nft::NftServices;
use super::outcome::Outcome;
use crate::node::{NodeFacts, Owned};
use crate::service::model::{FrontendKey, PortKey, PortPlan};

/// IPVS on this node.
#[derive(Debug)]
pub(super) struct Ground {
    services: IpvsServices,
    routes: LocalRoutes,
    arp: ArpGuard,
    ranges: Vec<IpNetwork>,
    sysctl: Sysctl,
}

/// Why IPVS cannot be had or used.
pub type GroundError = Box<dyn std::error::Error + Send + Sync>;

impl Ground {
    /// Asks for IPVS; loads its module where that is possible.
    ///
    /// # Errors
    /// [`ipvs::Error::is_unsupported`] where the kernel has none.
    pub(super) fn probe(config: IpvsConfig) -> Result<Result<Self, ipvs::Error>, GroundError> {
        let (ranges, sysctl) = (config.ranges.clone(), config.sysctl.clone());
        match IpvsServices::open(config) {
            Ok(services) => {
                let (routes, arp) = (LocalRoutes::open()?, ArpGuard::open()?);
                Ok(Ok(Self { services, routes, arp, ranges, sysctl }))
            }
            Err(error) => Ok(Err(error)),
        }
    }

    /// Prepares the node: settings, silence towards neighbours, the way in. The guard is there already.
    ///
    /// # Errors
    /// In words.
    pub(super) fn prepare(
        &mut self,
        owned: &mut Owned,
        settings: IpvsSysctls,
        facts: &NodeFacts,
    ) -> Result<usize, GroundError> {
        let mut written = ipvs::ensure_sysctls(owned, &self.sysctl, settings)?.len();
        written += self.keep(facts)?;
        Ok(written)
    }

    /// Takes other service networks: from now on they lead here, and those before them do not.
    ///
    /// # Errors
    /// In words.
    pub(super) fn set_ranges(&mut self, ranges: &[IpNetwork], facts: &NodeFacts) -> Result<usize, GroundError> {
        self.ranges = ranges.to_vec();
        self.services.set_ranges(ranges.to_vec());
        self.keep(facts)
    }

    /// Keeps what leads packets here; says how much had to be written.
    ///
    /// # Errors
    /// In words.
    pub(super) fn keep(&mut self, facts: &NodeFacts) -> Result<usize, GroundError> {
        let guarded = usize::from(self.arp.ensure(&self.ranges)?);
        Ok(guarded + self.routes.ensure(&self.ranges, &facts.addresses)?)
    }

    /// Whether an earlier run has left virtual servers, without asking IPVS.
    #[must_use]
    pub(super) fn has_record(run_dir: &Path) -> bool {
        ipvs::has_record(run_dir)
    }

    /// Whether the kernel has no virtual server, nor has had one of ours since it booted.
    ///
    /// # Errors
    /// In words.
    pub(super) fn is_untouched(&mut self) -> Result<bool, GroundError> {
        Ok(self.services.is_untouched()?)
    }

    /// Takes over what the kernel has, and writes what is different.
    pub(super) fn start(&mut self, nft: &mut NftServices, plans: &[Arc<PortPlan>], now: Instant) -> Outcome {
        let applied = self.services.start(plans, now);
        let mut outcome = self.settle(nft, applied, now);
        self.align(nft, &mut outcome);
        outcome
    }

    /// Takes changed ports.
    pub(super) fn sync(
        &mut self,
        nft: &mut NftServices,
        changed: &[Arc<PortPlan>],
        removed: &[PortKey],
        now: Instant,
    ) -> Outcome {
        let applied = self.services.sync(changed, removed, now);
        self.settle(nft, applied, now)
    }

    /// Looks for what others have changed.
    pub(super) fn audit(&mut self, nft: &mut NftServices, now: Instant) -> Outcome {
        let applied = self.services.audit(now);
        let mut outcome = self.settle(nft, applied, now);
        self.align(nft, &mut outcome);
        outcome
    }

    /// Makes the doors in nf_tables those of IPVS, where an earlier run, or a transaction that failed, has left others: behind
    /// a door that leads to no virtual server is whatever the host listens at.
    fn align(&self, nft: &mut NftServices, outcome: &mut Outcome) {
        let open = self.services.doors().filter(|(_, door)| *door == Door::Open);
        let wanted: BTreeSet<FrontendKey> = open.map(|(key, _)| key).collect();
        let missing: Vec<FrontendKey> = wanted.difference(nft.open_doors()).copied().collect();
        let stale: Vec<FrontendKey> = nft.open_doors().difference(&wanted).copied().collect();
        if missing.is_empty() && stale.is_empty() {
            return;
        }
        match nft.doors(&missing, &stale) {
            Ok(written) => outcome.nft += written,
            Err(error) => outcome.errors.push(format!("doors of virtual servers: {error}")),
        }
    }

    /// Goes on with what drains.
    pub(super) fn tick(&mut self, nft: &mut NftServices, now: Instant) -> Outcome {
        if self.services.wake().is_none_or(|wake| wake > now) {
            return Outcome::default();
        }
        let applied = self.services.tick(now);
        self.settle(nft, applied, now)
    }

    /// When [`tick`](Self::tick) is due.
    #[must_use]
    pub(super) fn wake(&self) -> Option<Instant> {
        self.services.wake()
    }

    /// How many real servers drain.
    #[must_use]
    pub(super) fn draining(&self) -> usize {
        self.services.draining()
    }

    /// Whether no virtual server of ours is left, not even one that drains.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// Takes everything out, the way in first.
    ///
    /// # Errors
    /// All that failed.
    pub(super) fn remove(mut self) -> Result<(), Vec<String>> {
        let mut problems = Vec::new();
        problems.extend(self.routes.remove().err().map(|error| error.to_string()));
        problems.extend(self.arp.remove().err().map(|error| error.to_string()));
        let left = self.services.remove_all().err().into_iter().flatten();
        problems.extend(left.map(|error| error.to_string()));
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// Turns the doors after each step of IPVS's, until there is no next.
    fn settle(
        &mut self,
        nft: &mut NftServices,
        mut applied: Result<ipvs::Applied, ipvs::Error>,
        now: Instant,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        loop {
            let step = match applied {
                Ok(step) => step,
                Err(error) => {
                    outcome.errors.push(error.to_string());
                    return outcome;
                }
            };
            outcome.ipvs_messages += step.messages;
            outcome.repaired += step.repaired;
            outcome.problems.extend(step.problems.iter().map(ToString::to_string));
            match turn(nft, &step.doors) {
                Ok(written) => outcome.nft += written,
                Err(error) => {
                    outcome.errors.push(format!("doors of virtual servers: {error}"));
                    return outcome;
                }
            }
            if !step.more {
                return outcome;
            }
            applied = self.services.proceed(now);
        }
    }
}

/// Removes what a record says to be ours, for a node on which no agent runs: the way in first.
///
/// # Errors
/// All that went wrong; the rest is gone.
pub fn cleanup(run_dir: &Path) -> Result<(), Vec<GroundError>> {
    let mut problems: Vec<GroundError> = Vec::new();
    let way_in = LocalRoutes::open().and_then(|mut routes| routes.remove());
    problems.extend(way_in.err().map(GroundError::from));
    match ArpGuard::open() {
        Ok(mut arp) => problems.extend(arp.remove().err().map(GroundError::from)),
        Err(error) => problems.push(error.into()),
    }
    problems.extend(ipvs::cleanup(run_dir).err().into_iter().flatten().map(GroundError::from));
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// Opens and closes doors. That a blocked frontend's packets are dropped is the port's own element in nf_tables.
fn turn(nft: &mut NftServices, doors: &[(FrontendKey, Door)]) -> Result<super::nft::Applied, super::nft::NftError> {
    if doors.is_empty() {
        return Ok(super::nft::Applied::default());
    }
    let (open, close): (Vec<_>, Vec<_>) = doors.iter().partition(|(_, door)| *door == Door::Open);
    let keys = |doors: Vec<&(FrontendKey, Door)>| doors.into_iter().map(|(key, _)| *key).collect::<Vec<_>>();
    nft.doors(&keys(open), &keys(close))
}
