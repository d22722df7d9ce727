//! The table of Services and the back ends that hold it in the kernel: who does what, and in which order.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ipnetwork::IpNetwork;

use super::SERVICES_RECORD;
use super::flows::Flows;
use super::ground::{self, Ground, GroundError};
use super::ipvs::IpvsSysctls;
use super::model::{Changes, PortKey, PortPlan, ServiceTable, lead};
use super::nft::{self, NftError, NftServices};
use super::options::ProxyOptions;
use super::outcome::Outcome;
use crate::cluster::services::Changed;
use crate::config::ProxyMode;
use crate::node::{NodeFacts, Owned};
use crate::serve::proxy::ServingMode;

/// Services in the kernel.
#[derive(Debug)]
pub(super) struct Engine {
    options: ProxyOptions,
    facts: NodeFacts,
    /// The zone that the Node object says.
    zone: Option<Arc<str>>,
    table: ServiceTable,
    nft: NftServices,
    /// ipvs mode.
    ipvs: Option<Ground>,
    /// nftables mode, after ipvs mode: virtual servers whose connections have not ended yet.
    retiring: Option<Ground>,
    flows: Flows,
    /// UDP flows may have been begun while the kernel was not as it should be: all are to be looked at once it is.
    flows_due: bool,
    mode: ServingMode,
    /// Why `auto` chose as it did.
    because: String,
}

impl Engine {
    /// Takes over what the kernel has, and writes what is different. Everything there is given as changed.
    ///
    /// # Errors
    /// In words, if the kernel lacks what the mode needs.
    pub(super) fn start(
        options: &ProxyOptions,
        facts: &NodeFacts,
        zone: Option<Arc<str>>,
        services: Vec<Changed>,
        now: Instant,
    ) -> Result<(Self, Outcome), GroundError> {
        // In nftables mode IPVS is only of interest where it was in use before: to ask for it loads its module.
        let asks = options.mode != ProxyMode::Nftables || Ground::has_record(&options.run_dir);
        let ground = if asks { Some(Ground::probe(options.ipvs())?) } else { None };
        let (mode, because, ground) = match (options.mode, ground) {
            (ProxyMode::Ipvs, Some(Ok(ground))) => (ServingMode::Ipvs, "asked for".to_owned(), Some(ground)),
            (ProxyMode::Ipvs, Some(Err(error))) => return Err(error.into()),
            (ProxyMode::Auto, Some(Ok(ground))) => (ServingMode::Ipvs, "the kernel has IPVS".to_owned(), Some(ground)),
            (ProxyMode::Auto, Some(Err(error))) => (ServingMode::Nftables, error.to_string(), None),
            (_, ground) => (ServingMode::Nftables, "asked for".to_owned(), ground.and_then(Result::ok)),
        };
        let mut engine = Self {
            options: options.clone(),
            facts: facts.clone(),
            table: ServiceTable::new(options.view(facts, zone.as_ref()), options.plan()),
            zone,
            nft: NftServices::open()?,
            ipvs: None,
            retiring: None,
            flows: Flows::open()?,
            flows_due: false,
            mode,
            because,
        };
        let outcome = engine.take_over(services, ground, now)?;
        Ok((engine, outcome))
    }

    /// Where nothing has to be taken over, the API server's Service does not wait for those of everybody.
    fn take_over(
        &mut self,
        services: Vec<Changed>,
        mut ground: Option<Ground>,
        now: Instant,
    ) -> Result<Outcome, GroundError> {
        let mut is_untouched = self.nft.is_untouched()?;
        if let Some(ground) = &mut ground {
            is_untouched &= ground.is_untouched()?;
        }
        let (first, rest) = if is_untouched { lead(services) } else { (services, Vec::new()) };
        let mut outcome = self.take_over_first(first, ground, now)?;
        outcome += self.sync(rest, now);
        Ok(outcome)
    }

    fn take_over_first(
        &mut self,
        services: Vec<Changed>,
        ground: Option<Ground>,
        now: Instant,
    ) -> Result<Outcome, GroundError> {
        let mut outcome = Outcome::default();
        let changes = self.table.update(services);
        outcome.note(&changes);
        let plans = self.table.plans();
        // The guard comes with the rules, and so stands before anything leads packets to IPVS.
        let nft_options = self.options.nft(&self.facts, self.mode == ServingMode::Nftables);
        outcome.nft += self.nft.start(plans.iter().cloned(), nft_options)?;
        outcome.nft += self.nft.finish()?;
        let Some(mut ground) = ground else { return Ok(self.finish_start(outcome, &plans)) };
        match self.mode {
            ServingMode::Ipvs => {
                let mut owned = Owned::load(&self.options.run_dir, SERVICES_RECORD)?;
                let estimate = self.options.estimation;
                let settings = IpvsSysctls { estimate, ..IpvsSysctls::new(self.options.plan().families.families()) };
                outcome.ipvs_messages += ground.prepare(&mut owned, settings, &self.facts)?;
                outcome += ground.start(&mut self.nft, &plans, now);
                self.ipvs = Some(ground);
            }
            // What an earlier run in ipvs mode has left goes when its connections have ended: new ones are translated
            // before IPVS sees them.
            ServingMode::Nftables => {
                outcome += ground.start(&mut self.nft, &[], now);
                outcome += self.flows.forget(plans.iter().map(AsRef::as_ref));
                self.retiring = Some(ground);
                outcome += self.retire();
            }
        }
        Ok(self.finish_start(outcome, &plans))
    }

    fn finish_start(&mut self, mut outcome: Outcome, plans: &[Arc<PortPlan>]) -> Outcome {
        outcome += self.flows.clean(plans.iter().map(AsRef::as_ref));
        outcome
    }

    /// Which back end serves cluster IPs.
    #[must_use]
    pub(super) fn mode(&self) -> ServingMode {
        self.mode
    }

    /// Why it does.
    #[must_use]
    pub(super) fn because(&self) -> &str {
        &self.because
    }

    /// What is known of the node.
    #[must_use]
    pub(super) fn facts(&self) -> &NodeFacts {
        &self.facts
    }

    /// The Services as they are planned.
    #[must_use]
    pub(super) fn table(&self) -> &ServiceTable {
        &self.table
    }

    /// How many real servers of IPVS only keep the connections they have.
    #[must_use]
    pub(super) fn draining(&self) -> usize {
        self.ipvs.as_ref().or(self.retiring.as_ref()).map_or(0, Ground::draining)
    }

    /// Takes what is new of the node.
    pub(super) fn set_facts(&mut self, facts: &NodeFacts, now: Instant) -> Outcome {
        let mut outcome = Outcome::default();
        if *facts != self.facts {
            self.facts = facts.clone();
            outcome += self.replan(now);
            outcome += self.refresh_rules();
            if let Some(ground) = &mut self.ipvs {
                outcome.keep(ground.keep(facts));
            }
        }
        outcome
    }

    /// Takes the networks that cluster IPs are taken from.
    pub(super) fn set_ranges(&mut self, ranges: &[IpNetwork], now: Instant) -> Outcome {
        let mut outcome = Outcome::default();
        if self.options.service_cidrs == ranges {
            return outcome;
        }
        tracing::info!(before = ?Shown(&self.options.service_cidrs), now = ?Shown(ranges), "service networks");
        self.options.service_cidrs = ranges.to_vec();
        // The guard comes before the way in, as at the start.
        outcome += self.refresh_rules();
        if let Some(ground) = &mut self.ipvs {
            outcome.keep(ground.set_ranges(ranges, &self.facts));
            outcome += ground.sync(&mut self.nft, &self.table.plans(), &[], now);
        }
        outcome
    }

    /// Takes the zone that the Node object says. Only ports whose endpoints are others for it are written.
    pub(super) fn set_zone(&mut self, zone: Option<Arc<str>>, now: Instant) -> Outcome {
        if self.zone == zone {
            return Outcome::default();
        }
        self.zone = zone;
        let before = self.table.node().zone.clone();
        let outcome = self.replan(now);
        let after = &self.table.node().zone;
        if before != *after {
            tracing::info!(?before, ?after, "this node is in another zone");
        }
        outcome
    }

    /// Plans everything anew for what is known of the node.
    fn replan(&mut self, now: Instant) -> Outcome {
        let changes = self.table.replan_all(self.options.view(&self.facts, self.zone.as_ref()));
        self.write(&changes, now)
    }

    /// Brings up to date what the rules depend on beside the Services: the node's addresses, its settings.
    fn refresh_rules(&mut self) -> Outcome {
        let mut outcome = Outcome::default();
        let options = self.options.nft(&self.facts, self.mode == ServingMode::Nftables);
        let written = self.nft.set_options(options).and_then(|first| finish(&mut self.nft, first));
        outcome.keep_nft(written);
        outcome
    }

    /// Takes changed Services.
    pub(super) fn sync(&mut self, services: Vec<Changed>, now: Instant) -> Outcome {
        if services.is_empty() {
            return Outcome::default();
        }
        let mut outcome = Outcome::default();
        let changes = self.table.update(services);
        outcome += self.write(&changes, now);
        outcome
    }

    fn write(&mut self, changes: &Changes, now: Instant) -> Outcome {
        let mut outcome = Outcome::default();
        outcome.note(changes);
        let (changed, removed): (&[Arc<PortPlan>], &[PortKey]) = (&changes.changed, &changes.removed);
        let written = self.nft.sync(changed, removed).and_then(|first| finish(&mut self.nft, first));
        outcome.keep_nft(written);
        if let Some(ground) = &mut self.ipvs {
            outcome += ground.sync(&mut self.nft, changed, removed, now);
        }
        self.flows_due |= outcome.failed();
        outcome += self.flows.clean(changed.iter().map(AsRef::as_ref));
        self.tell_refused(&mut outcome);
        outcome
    }

    /// Looks whether somebody has changed nf_tables since we last looked, and if so repairs it.
    pub(super) fn glance(&mut self) -> Outcome {
        let mut outcome = Outcome::default();
        let repaired = self.nft.audit().and_then(|first| finish(&mut self.nft, first));
        outcome.repaired += repaired.as_ref().map_or(0, |applied| applied.elements + applied.chains);
        outcome.keep_nft(repaired);
        self.flows_due |= outcome.repaired > 0;
        if self.flows_due && !outcome.failed() {
            self.flows_due = false;
            outcome += self.flows.clean(self.table.plans().iter().map(AsRef::as_ref));
        }
        self.tell_refused(&mut outcome);
        outcome
    }

    /// Looks at everything that no event and no counter tells of, and repairs it.
    pub(super) fn audit(&mut self, now: Instant) -> Outcome {
        let mut outcome = self.refresh_rules();
        if let Some(ground) = &mut self.ipvs {
            let kept = ground.keep(&self.facts);
            outcome.repaired += kept.as_ref().copied().unwrap_or_default();
            outcome.keep(kept);
            outcome += ground.audit(&mut self.nft, now);
        }
        outcome
    }

    /// Goes on with what drains.
    pub(super) fn tick(&mut self, now: Instant) -> Outcome {
        match (&mut self.ipvs, &mut self.retiring) {
            (Some(ground), _) => ground.tick(&mut self.nft, now),
            (None, Some(ground)) => {
                let mut outcome = ground.tick(&mut self.nft, now);
                outcome += self.retire();
                outcome
            }
            (None, None) => Outcome::default(),
        }
    }

    /// When [`tick`](Self::tick) is due.
    #[must_use]
    pub(super) fn wake(&self) -> Option<Instant> {
        self.ipvs.as_ref().or(self.retiring.as_ref()).and_then(Ground::wake)
    }

    /// Removes what ipvs mode has left, once its last connection has ended.
    fn retire(&mut self) -> Outcome {
        let mut outcome = Outcome::default();
        if let Some(ground) = self.retiring.take_if(|ground| ground.is_empty())
            && let Err(problems) = ground.remove()
        {
            outcome.problems.extend(problems);
        }
        outcome
    }

    fn tell_refused(&self, outcome: &mut Outcome) {
        outcome.errors.extend(self.nft.failures().map(|(port, reason)| format!("{port}: {reason}")));
    }
}

/// Networks as they are written, for the log.
struct Shown<'a>(&'a [IpNetwork]);

impl std::fmt::Debug for Shown<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        out.write_str(&words.join(","))
    }
}

/// Does the rest of what has been begun.
fn finish(nft: &mut NftServices, first: nft::Applied) -> Result<nft::Applied, NftError> {
    let mut applied = first;
    applied += nft.finish()?;
    Ok(applied)
}

/// Takes everything of Services out of the kernel: somebody else is to serve them.
///
/// # Errors
/// All that went wrong; the rest is gone.
pub fn retire(run_dir: &Path) -> Result<(), Vec<GroundError>> {
    let mut problems = ground::cleanup(run_dir).err().unwrap_or_default();
    let removed = NftServices::open().map_err(GroundError::from);
    let removed = removed.and_then(|mut nft| nft.remove_all().map_err(GroundError::from));
    problems.extend(removed.err());
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}
