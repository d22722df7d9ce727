//! A node for tests of the back end: its kernel is a model, its driver does what the agent's does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use weft_netlink::ipvs::{RealServer, Scheduler, Target, VirtualServer};
use weft_netlink::protocol;
use weft_netlink::sysctl::Sysctl;

use super::backend::{Applied, Door, IpvsConfig, IpvsServices};
use super::drain::DrainLimits;
use super::fake::Fake;
use super::timeouts::TimeoutSettings;
use crate::service::model::{FrontendKey, PortPlan};

pub(super) const LIMIT: Duration = Duration::from_secs(120);

/// A node whose kernel is a model, and its doors as nf_tables would have them.
pub(super) struct Node {
    pub(super) run: TempDir,
    pub(super) kernel: Fake,
    pub(super) services: IpvsServices,
    pub(super) doors: BTreeMap<FrontendKey, Door>,
    pub(super) now: Instant,
}

impl Node {
    pub(super) fn new() -> Self {
        let (run, kernel) = (tempfile::tempdir().unwrap(), Fake::default());
        let services = open(&run, &kernel);
        Self { run, kernel, services, doors: BTreeMap::new(), now: Instant::now() }
    }

    /// The agent dies and comes back; the kernel and its doors stay.
    pub(super) fn restart(&mut self, ports: &[Arc<PortPlan>]) -> Applied {
        self.services = open(&self.run, &self.kernel);
        self.start(ports)
    }

    pub(super) fn start(&mut self, ports: &[Arc<PortPlan>]) -> Applied {
        let applied = self.services.start(ports, self.now).unwrap();
        let applied = self.finish(applied);
        let known: BTreeMap<_, _> = self.services.doors().collect();
        self.doors.retain(|key, _| known.contains_key(key));
        assert_eq!(self.doors, known);
        applied
    }

    pub(super) fn sync(&mut self, changed: &[Arc<PortPlan>], gone: &[&PortPlan]) -> Applied {
        let gone: Vec<_> = gone.iter().map(|port| port.key.clone()).collect();
        let applied = self.services.sync(changed, &gone, self.now).unwrap();
        self.finish(applied)
    }

    pub(super) fn audit(&mut self) -> Applied {
        let applied = self.services.audit(self.now).unwrap();
        let mut sum = self.finish(applied);
        while self.services.is_checking() {
            let next = self.services.tick(self.now).unwrap();
            let next = self.finish(next);
            sum.messages += next.messages;
            sum.repaired += next.repaired;
            sum.problems.extend(next.problems);
        }
        sum
    }

    pub(super) fn wait(&mut self, time: Duration) -> Applied {
        self.now += time;
        let applied = self.services.tick(self.now).unwrap();
        self.finish(applied)
    }

    /// Does what the driver does: doors, then the rest; returns the sum.
    pub(super) fn finish(&mut self, mut sum: Applied) -> Applied {
        self.set_doors(&sum);
        while sum.more {
            // A call that fails is made good by the next.
            let next = self.services.proceed(self.now).or_else(|_| self.services.proceed(self.now)).unwrap();
            self.set_doors(&next);
            sum.messages += next.messages;
            sum.repaired += next.repaired;
            sum.doors.extend(next.doors);
            sum.problems.extend(next.problems);
            sum.more = next.more;
        }
        sum
    }

    pub(super) fn set_doors(&mut self, applied: &Applied) {
        for (key, door) in &applied.doors {
            if *door == Door::Closed {
                self.doors.remove(key);
            } else {
                self.doors.insert(*key, *door);
            }
        }
        // Never a door that leads to nothing: behind it is whatever the host listens at.
        for (key, door) in &self.doors {
            let FrontendKey::Address { address, protocol, port } = *key else { unreachable!() };
            let target = Target::Address { address, port, protocol: protocol.number() };
            assert!(*door != Door::Open || self.kernel.weights(&target).is_some(), "{key} leads to nothing");
        }
    }

    pub(super) fn connect(&self, port: &PortPlan, backend: &str, connections: u32) {
        self.kernel.tables().connections.insert((target(port), backend.parse().unwrap()), connections);
    }

    pub(super) fn weights(&self, port: &PortPlan) -> Option<Vec<(String, u32)>> {
        self.kernel.weights(&target(port))
    }
}

pub(super) fn open(run: &TempDir, kernel: &Fake) -> IpvsServices {
    let config = IpvsConfig {
        exclude: Vec::new(),
        run_dir: run.path().to_owned(),
        node: Arc::from("node-1"),
        ranges: vec!["10.96.0.0/12".parse().unwrap(), "fd96::/108".parse().unwrap()],
        scheduler: Scheduler::ROUND_ROBIN,
        drain: DrainLimits { limit: LIMIT, poll: Duration::from_secs(5) },
        timeouts: TimeoutSettings { tcp: Some(Duration::from_secs(86_400)), ..TimeoutSettings::default() },
        sysctl: Sysctl::at(run.path().join("none")),
    };
    IpvsServices::with(config, Box::new(kernel.clone())).unwrap()
}

pub(super) fn target(port: &PortPlan) -> Target {
    super::plan::target(port).unwrap()
}

pub(super) fn door(port: &PortPlan) -> FrontendKey {
    port.frontends[0].key
}

/// Somebody else's virtual server.
pub(super) fn foreign(node: &Node, address: &str) -> Target {
    let address: std::net::SocketAddr = address.parse().unwrap();
    let target = Target::Address { address: address.ip(), port: address.port(), protocol: protocol::TCP };
    let real = RealServer::new("172.16.0.1".parse().unwrap(), 1, 7);
    let server = VirtualServer::new(target, Scheduler::WEIGHTED_LEAST_CONNECTIONS);
    node.kernel.tables().servers.insert(target, (server, [(real.socket_address(), real)].into()));
    target
}
