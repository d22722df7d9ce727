//! The chunks in which the back end works.

use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

use weft_netlink::ipvs::{RealServer, RealServerInfo, Scheduler, Target};
use weft_netlink::{Errno, KernelError};

use super::backend::{Applied, Door, IpvsServices};
use super::diff::{Draining, Image, Situation, apply, diff};
use super::drain::{Input, State, step};
use super::kernel::Op;
use super::plan::{Planned, frontend, plan};
use super::problem::{Error, Problem, Reason};
use crate::service::model::PortKey;

/// So many virtual servers are seen to in one call: some milliseconds of work.
const CHUNK: usize = 256;

impl IpvsServices {
    /// Does a chunk of what is to be done: first what has changed, then what drains. Only a call that finds neither looks at
    /// what may have been tampered with: that must not hold up changes.
    pub(super) fn advance(&mut self, now: Instant) -> Result<Applied, Error> {
        if self.applied.doors.is_empty() {
            // The doors of these were handed out by an earlier call, and are closed.
            self.work.extend(std::mem::take(&mut self.deferred));
        }
        let mut left = CHUNK;
        while left > 0 && !self.work.is_empty() {
            let mut batch: Vec<Target> = self.work.drain(..left.min(self.work.len())).collect();
            left -= batch.len();
            let mut seen = HashSet::with_capacity(batch.len());
            batch.retain(|target| seen.insert(*target));
            self.work_on(&batch, now)?;
        }
        while left > 0
            && let Some(target) = self.poll.pop_front()
        {
            left -= 1;
            self.count(target, now)?;
        }
        if left == CHUNK {
            let batch = self.check.len().min(CHUNK);
            for target in self.check.drain(..batch).collect::<Vec<_>>() {
                self.look_again(target, now)?;
            }
        }
        self.schedule_poll(now);
        self.applied.more = !(self.work.is_empty() && self.poll.is_empty() && self.deferred.is_empty());
        Ok(std::mem::take(&mut self.applied))
    }

    /// Makes virtual servers what they should be.
    fn work_on(&mut self, batch: &[Target], now: Instant) -> Result<(), Error> {
        let done = self.try_work_on(batch, now);
        if done.is_err() {
            // What has become of them is not known.
            for target in batch {
                self.forget(target);
                self.work.push_back(*target);
            }
        }
        done
    }

    fn try_work_on(&mut self, batch: &[Target], now: Instant) -> Result<(), Error> {
        let mut planned = Vec::with_capacity(batch.len());
        let mut ops = Vec::new();
        for target in batch {
            if self.stale.contains(target) {
                self.look(target)?;
            }
            let (wanted, mut changes) = self.plan_one(target, now);
            planned.push((*target, wanted));
            let unproven = changes.iter().find_map(|op| self.unproven(op));
            ops.append(&mut changes);
            if let Some(scheduler) = unproven {
                // Each refusal of a scheduler costs the kernel a search for its module: one is enough.
                self.run(&std::mem::take(&mut ops))?;
                self.proven.insert(scheduler);
            }
        }
        self.run(&ops)?;
        for (target, wanted) in planned {
            let door = self.door_of(&target, wanted.as_ref());
            self.set_door(target, door);
        }
        Ok(())
    }

    /// What a virtual server should be, and the changes that lead there.
    fn plan_one(&mut self, target: &Target, now: Instant) -> (Option<Planned>, Vec<Op>) {
        let port = self.plans.get(target);
        let planned = port.map(|port| plan(*target, port, &self.schedulers));
        if self.foreign.contains(target) {
            if let Some(port) = port {
                let key = port.key.clone();
                self.tell(*target, Some(key), Reason::Conflict(*target));
            }
            return (planned, Vec::new());
        }
        let mut serving: Vec<_> = port.map_or_else(Vec::new, |port| {
            port.serving.iter().map(|backend| (backend.address, backend.port).into()).collect()
        });
        serving.sort_unstable();
        let desired = planned.as_ref().and_then(Planned::desired);
        let none = Draining::new();
        let situation = Situation {
            target: *target,
            desired,
            image: self.images.get(target),
            draining: self.draining.get(target).unwrap_or(&none),
            serving: &serving,
        };
        let mut changes = diff(&situation, &self.rules(now));
        let fallback = desired.and_then(|desired| {
            Some(Reason::Scheduler { cause: desired.fallback.clone()?, used: desired.server.scheduler.clone() })
        });
        if let (Some(port), Some(reason)) = (port, fallback) {
            let key = port.key.clone();
            self.tell(*target, Some(key), reason);
        } else if !self.failing.contains(target) {
            self.told.remove(target);
        }
        if changes.draining.is_empty() {
            self.draining.remove(target);
        } else {
            self.draining.insert(*target, changes.draining);
        }
        if changes.idle {
            if self.doors.get(target) == Some(&Door::Open) || self.deferred.contains(target) {
                self.deferred.insert(*target);
            } else {
                changes.ops.push(Op::DeleteVirtual(*target));
            }
        }
        (planned, changes.ops)
    }

    /// The scheduler of a change, if the kernel is not known to have it.
    fn unproven(&self, op: &Op) -> Option<Scheduler> {
        match op {
            Op::AddVirtual(server) | Op::SetVirtual(server) if !self.proven.contains(&server.scheduler) => {
                Some(server.scheduler.clone())
            }
            _ => None,
        }
    }

    /// Asks the kernel for changes and takes note of what it says.
    ///
    /// Virtual servers come first: a real server must not get to a virtual server that turns out to be somebody else's.
    fn run(&mut self, ops: &[Op]) -> Result<(), Error> {
        let is_virtual = |op: &&Op| matches!(op, Op::AddVirtual(_) | Op::SetVirtual(_));
        let first: Vec<Op> = ops.iter().filter(is_virtual).cloned().collect();
        let added: Vec<Target> = first.iter().filter(|op| matches!(op, Op::AddVirtual(_))).map(Op::target).collect();
        let new: Vec<Target> = added.into_iter().filter(|target| !self.journal.owns(target)).collect();
        self.journal.claim(new.iter().copied())?;
        let refused = self.carry_out(&first, &new)?;
        let rest: Vec<Op> =
            ops.iter().filter(|op| !is_virtual(op) && !refused.contains(&op.target())).cloned().collect();
        self.carry_out(&rest, &[])?;
        let deleted = rest.iter().filter(|op| matches!(op, Op::DeleteVirtual(_))).map(Op::target);
        let gone: Vec<Target> = deleted.filter(|target| !self.images.contains_key(target)).collect();
        for target in &gone {
            self.draining.remove(target);
        }
        self.journal.release(gone)?;
        Ok(())
    }

    /// Sends changes; returns the virtual servers of those that were refused.
    fn carry_out(&mut self, ops: &[Op], new: &[Target]) -> Result<Vec<Target>, Error> {
        if ops.is_empty() {
            return Ok(Vec::new());
        }
        let verdicts = self.kernel.run(ops)?;
        self.applied.messages += ops.len();
        let mut refused = Vec::new();
        for (op, verdict) in ops.iter().zip(verdicts) {
            let target = op.target();
            match verdict {
                Err(error) if !(op.is_removal() && error.is_absent()) => {
                    if !refused.contains(&target) {
                        refused.push(target);
                        self.on_refusal(op, error, new.contains(&target))?;
                    }
                }
                _ => {
                    let mut image = self.images.remove(&target);
                    apply(&mut image, op);
                    self.images.extend(image.map(|image| (target, image)));
                    if !refused.contains(&target) {
                        self.failing.remove(&target);
                    }
                }
            }
        }
        for target in &refused {
            // What was not refused is there, and its door depends on it.
            self.forget(target);
            self.look(target)?;
        }
        Ok(refused)
    }

    fn on_refusal(&mut self, op: &Op, error: KernelError, new: bool) -> Result<(), Error> {
        let target = op.target();
        match op {
            // It was claimed a moment ago and was not there at the last look.
            Op::AddVirtual(_) if new && error.is_present() => {
                self.journal.release([target])?;
                self.foreign.insert(target);
                self.work.push_back(target);
                return Ok(());
            }
            Op::AddVirtual(server) | Op::SetVirtual(server)
                if error.errno == Errno::ENOENT && self.schedulers.mark_missing(&server.scheduler) =>
            {
                self.work.push_back(target);
                return Ok(());
            }
            _ => {}
        }
        if self.failing.insert(target) {
            // Perhaps it was not what it was thought to be. A second look tells.
            self.work.push_back(target);
        } else {
            let port = self.plans.get(&target).map(|port| port.key.clone());
            self.tell(target, port, Reason::Refused(error));
        }
        Ok(())
    }

    /// What the kernel has at `target` is to be looked at before the next change.
    pub(super) fn forget(&mut self, target: &Target) {
        self.images.remove(target);
        self.stale.insert(*target);
    }

    /// Looks at what the kernel has at `target`.
    fn look(&mut self, target: &Target) -> Result<(), Error> {
        let server = match self.images.get(target) {
            // Known from a list of all, only its real servers are not.
            Some(image) => Some(image.server.clone()),
            None => self.kernel.virtual_server(target)?,
        };
        match server {
            Some(server) if self.journal.owns(target) => {
                let reals = sorted(self.kernel.real_servers(target)?.iter().map(|info| info.server));
                self.images.insert(*target, Image { server, reals });
            }
            Some(_) => {
                self.foreign.insert(*target);
            }
            None => {
                self.foreign.remove(target);
                self.draining.remove(target);
            }
        }
        self.stale.remove(target);
        Ok(())
    }

    /// Looks whether somebody has changed the real servers of a virtual server, and mends it.
    fn look_again(&mut self, target: Target, now: Instant) -> Result<(), Error> {
        if self.stale.contains(&target) {
            return Ok(());
        }
        let Some(image) = self.images.get_mut(&target) else { return Ok(()) };
        let reals = sorted(self.kernel.real_servers(&target)?.iter().map(|info| info.server));
        if image.reals == reals {
            return Ok(());
        }
        image.reals = reals;
        self.applied.repaired += 1;
        self.work_on(&[target], now)
    }

    /// Counts the connections of those real servers of a virtual server that drain.
    fn count(&mut self, target: Target, now: Instant) -> Result<(), Error> {
        let (Some(draining), Some(image)) = (self.draining.get_mut(&target), self.images.get_mut(&target)) else {
            return Ok(());
        };
        let infos = self.kernel.real_servers(&target)?;
        image.reals = sorted(infos.iter().map(|info| info.server));
        let counts: BTreeMap<_, _> =
            infos.iter().map(|info| (info.server.socket_address(), connections(info))).collect();
        let limit = self.config.drain.limit;
        let mut ops = Vec::new();
        draining.retain(|address, until| {
            let state = State::Draining { until: *until };
            // One that somebody else has deleted has none either.
            let seen = Input::Counted(counts.get(address).copied().unwrap_or_default());
            let is_gone = step(state, seen, now, limit) == State::Gone;
            if is_gone {
                ops.push(Op::DeleteReal(target, *address));
            }
            !is_gone
        });
        if draining.is_empty() {
            self.draining.remove(&target);
        }
        let done = self.run(&ops);
        if done.is_err() {
            self.forget(&target);
        }
        self.work_on(&[target], now).and(done)
    }

    /// How the door of a virtual server should stand, as the kernel has it now.
    fn door_of(&self, target: &Target, planned: Option<&Planned>) -> Door {
        if self.foreign.contains(target) {
            // Not ours to cut off.
            return Door::Open;
        }
        match planned {
            Some(Planned::Serve(_)) => {
                let serves = |image: &Image| image.reals.iter().any(|real| real.weight > 0);
                if self.images.get(target).is_some_and(serves) { Door::Open } else { Door::Closed }
            }
            Some(Planned::Block) => Door::Blocked,
            Some(Planned::Refuse) | None => Door::Closed,
        }
    }

    fn set_door(&mut self, target: Target, door: Door) {
        let before = match door {
            Door::Closed => self.doors.remove(&target),
            Door::Open | Door::Blocked => self.doors.insert(target, door),
        };
        let assumed = self.assumed.remove(&target);
        if before.unwrap_or(Door::Closed) != door || assumed {
            self.applied.doors.extend(frontend(&target).map(|key| (key, door)));
        }
    }

    /// Says something of a virtual server, unless that is what was said last.
    pub(super) fn tell(&mut self, target: Target, port: Option<PortKey>, reason: Reason) {
        if self.told.get(&target) != Some(&reason) {
            self.told.insert(target, reason.clone());
            self.applied.problems.push(Problem { port, reason });
        }
    }
}

fn sorted(reals: impl Iterator<Item = RealServer>) -> Vec<RealServer> {
    let mut reals: Vec<RealServer> = reals.collect();
    reals.sort_unstable_by_key(RealServer::socket_address);
    reals
}

fn connections(info: &RealServerInfo) -> u64 {
    u64::from(info.active) + u64::from(info.inactive)
}
