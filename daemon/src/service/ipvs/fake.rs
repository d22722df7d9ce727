//! A model of the kernel's IPVS, for what no real one does on demand.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use weft_netlink::ipvs::{RealServer, RealServerInfo, Stats, Target, Timeouts, VirtualServer};
use weft_netlink::{Errno, Error, KernelError};

use super::kernel::{Kernel, Op};

/// What the model holds, open to the test.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) servers: BTreeMap<Target, (VirtualServer, BTreeMap<SocketAddr, RealServer>)>,
    pub(super) connections: BTreeMap<(Target, SocketAddr), u32>,
    pub(super) timeouts: Timeouts,
    pub(super) kube_proxy: bool,
    /// Schedulers that are not there.
    pub(super) missing: BTreeSet<String>,
    /// Targets to which every change is refused.
    pub(super) refused: BTreeSet<Target>,
    /// So many calls go well, and then one fails altogether.
    pub(super) fails_after: Option<usize>,
    /// Every change that was asked for.
    pub(super) log: Vec<Op>,
}

/// The model, shared between the back end and its test.
#[derive(Debug, Clone, Default)]
pub(super) struct Fake(Arc<Mutex<Tables>>);

impl Fake {
    pub(super) fn tables(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap()
    }

    /// The weights of the real servers of a virtual server; `None` if it is not there.
    pub(super) fn weights(&self, target: &Target) -> Option<Vec<(String, u32)>> {
        let tables = self.tables();
        let (_, reals) = tables.servers.get(target)?;
        Some(reals.iter().map(|(address, real)| (address.to_string(), real.weight)).collect())
    }

    /// The changes asked for since the last time.
    pub(super) fn take_log(&self) -> Vec<Op> {
        std::mem::take(&mut self.tables().log)
    }
}

impl Tables {
    fn call(&mut self) -> Result<(), Error> {
        match &mut self.fails_after {
            Some(0) => {
                self.fails_after = None;
                Err(Error::Io { operation: "speak to the model".into(), source: Errno::ENOBUFS.into() })
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn verdict(&mut self, op: &Op) -> Result<(), Errno> {
        let target = op.target();
        if self.refused.contains(&target) {
            return Err(Errno::EINVAL);
        }
        match op {
            Op::AddVirtual(server) | Op::SetVirtual(server) if self.missing.contains(server.scheduler.name()) => {
                return Err(Errno::ENOENT);
            }
            Op::AddVirtual(server) => {
                if self.servers.contains_key(&target) {
                    return Err(Errno::EEXIST);
                }
                self.servers.insert(target, (server.clone(), BTreeMap::new()));
                return Ok(());
            }
            _ => {}
        }
        let (server, reals) = self.servers.get_mut(&target).ok_or(Errno::ESRCH)?;
        match op {
            Op::AddVirtual(_) => {}
            Op::SetVirtual(new) => *server = new.clone(),
            Op::DeleteVirtual(_) => {
                self.servers.remove(&target);
                self.connections.retain(|(owner, _), _| *owner != target);
            }
            Op::AddReal(_, real) => {
                if reals.contains_key(&real.socket_address()) {
                    return Err(Errno::EEXIST);
                }
                reals.insert(real.socket_address(), *real);
            }
            Op::SetReal(_, real) => *reals.get_mut(&real.socket_address()).ok_or(Errno::ENOENT)? = *real,
            Op::DeleteReal(_, address) => {
                reals.remove(address).ok_or(Errno::ENOENT)?;
                self.connections.remove(&(target, *address));
            }
        }
        Ok(())
    }
}

impl Kernel for Fake {
    fn virtual_servers(&mut self) -> Result<Vec<VirtualServer>, Error> {
        self.tables().call()?;
        Ok(self.tables().servers.values().map(|(server, _)| server.clone()).collect())
    }

    fn virtual_server(&mut self, target: &Target) -> Result<Option<VirtualServer>, Error> {
        self.tables().call()?;
        Ok(self.tables().servers.get(target).map(|(server, _)| server.clone()))
    }

    fn real_servers(&mut self, target: &Target) -> Result<Vec<RealServerInfo>, Error> {
        self.tables().call()?;
        let tables = self.tables();
        let reals = tables.servers.get(target).into_iter().flat_map(|(_, reals)| reals.values());
        let info = |real: &RealServer| {
            let active = tables.connections.get(&(*target, real.socket_address())).copied().unwrap_or_default();
            RealServerInfo { server: *real, active, inactive: 0, persistent: 0, stats: Stats::default() }
        };
        Ok(reals.map(info).collect())
    }

    fn run(&mut self, ops: &[Op]) -> Result<Vec<Result<(), KernelError>>, Error> {
        let mut tables = self.tables();
        tables.call()?;
        // The real one may have done a part of it, too.
        let verdicts = ops.iter().map(|op| {
            tables.log.push(op.clone());
            let refusal = |errno| KernelError { operation: format!("{op:?}"), errno, message: None, offset: None };
            tables.verdict(op).map_err(refusal)
        });
        Ok(verdicts.collect())
    }

    fn has_kube_proxy(&mut self) -> Result<bool, Error> {
        Ok(self.tables().kube_proxy)
    }

    fn timeouts(&mut self) -> Result<Timeouts, Error> {
        let timeouts = self.tables().timeouts;
        let or = |timeout: Option<Duration>, seconds| timeout.or(Some(Duration::from_secs(seconds)));
        Ok(Timeouts { tcp: or(timeouts.tcp, 900), tcp_fin: or(timeouts.tcp_fin, 120), udp: or(timeouts.udp, 300) })
    }

    fn set_timeouts(&mut self, wanted: &Timeouts) -> Result<(), Error> {
        let actual = Kernel::timeouts(self)?;
        self.tables().timeouts = Timeouts {
            tcp: wanted.tcp.or(actual.tcp),
            tcp_fin: wanted.tcp_fin.or(actual.tcp_fin),
            udp: wanted.udp.or(actual.udp),
        };
        Ok(())
    }
}
