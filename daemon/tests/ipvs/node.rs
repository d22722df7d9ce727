//! The node of a [`World`] with both halves of weft's ipvs mode, driven as the agent drives them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use tempfile::TempDir;
use weft::cluster::family::{Family, PerFamily};
use weft::cluster::services::{ObjectName, Protocol, TrafficPolicy};
use weft::node::Owned;
use weft::service::ipvs::{
    Applied, ArpGuard, Door, DrainLimits, IpvsConfig, IpvsServices, IpvsSysctls, LocalRoutes, TimeoutSettings,
    ensure_sysctls, parse_scheduler,
};
use weft::service::model::{Backend, Frontend, FrontendKey, FrontendKind, PortKey, PortPlan};
use weft::service::nft::{DetectLocal, NftServices, Options};
use weft_netlink::sysctl::Sysctl;

use super::world::{World, node_ip, pod};

/// A node in ipvs mode. It works in the namespace of the thread that makes it.
pub(crate) struct Node {
    run: TempDir,
    pub(crate) ipvs: IpvsServices,
    pub(crate) nft: NftServices,
    pub(crate) routes: LocalRoutes,
    ports: BTreeMap<PortKey, Arc<PortPlan>>,
    /// How much later it is than the clock says.
    pub(crate) later: Duration,
}

pub(crate) fn ranges() -> Vec<IpNetwork> {
    vec!["10.96.0.0/12".parse().unwrap(), "fd96::/108".parse().unwrap()]
}

pub(crate) fn addresses() -> PerFamily<IpAddr> {
    PerFamily { v4: Some(node_ip(Family::V4)), v6: Some(node_ip(Family::V6)) }
}

pub(crate) fn options() -> Options {
    let pods: Vec<IpNetwork> = vec!["10.244.0.0/16".parse().unwrap(), "fd10::/16".parse().unwrap()];
    Options {
        proxy_cluster_ips: false,
        detect_local: DetectLocal::Cidrs(pods.clone()),
        service_cidrs: ranges(),
        pod_networks: pods.clone(),
        node_subnets: pods,
        ..Options::default()
    }
}

fn config(run: &Path) -> IpvsConfig {
    IpvsConfig {
        exclude: Vec::new(),
        run_dir: run.to_owned(),
        node: Arc::from("node"),
        ranges: ranges(),
        scheduler: parse_scheduler("rr").unwrap(),
        drain: DrainLimits::default(),
        timeouts: TimeoutSettings::default(),
        sysctl: Sysctl::default(),
    }
}

impl Node {
    /// A node that serves these ports; with what the start did.
    pub(crate) fn start(ports: &[PortPlan]) -> (Self, Applied) {
        Self::start_in(tempfile::tempdir().unwrap(), ports)
    }

    fn start_in(run: TempDir, ports: &[PortPlan]) -> (Self, Applied) {
        let ports: BTreeMap<_, _> = ports.iter().map(|port| (port.key.clone(), Arc::new(port.clone()))).collect();
        let all: Vec<_> = ports.values().cloned().collect();
        let mut nft = NftServices::open().unwrap();
        nft.start(all.iter().cloned(), options()).unwrap();
        nft.finish().unwrap();
        ArpGuard::open().unwrap().ensure(&ranges()).unwrap();
        let mut routes = LocalRoutes::open().unwrap();
        routes.ensure(&ranges(), &addresses()).unwrap();
        let mut ipvs = IpvsServices::open(config(run.path())).unwrap();
        let mut owned = Owned::load(run.path(), weft::service::SERVICES_RECORD).unwrap();
        ensure_sysctls(&mut owned, &Sysctl::default(), IpvsSysctls::new(Family::ALL.into_iter())).unwrap();
        let applied = ipvs.start(&all, Instant::now()).unwrap();
        let mut this = Self { run, ipvs, nft, routes, ports, later: Duration::ZERO };
        let applied = this.finish(applied);
        let wanted: Vec<FrontendKey> = this.ipvs.doors().filter(is_open).map(|(key, _)| key).collect();
        let stale: Vec<FrontendKey> =
            this.nft.open_doors().iter().filter(|key| !wanted.contains(key)).copied().collect();
        this.nft.doors(&[], &stale).unwrap();
        (this, applied)
    }

    /// The agent dies and comes back to these ports; the kernel stays as it is.
    pub(crate) fn restart(self, ports: &[PortPlan]) -> (Self, Applied) {
        let Self { run, .. } = self;
        Self::start_in(run, ports)
    }

    pub(crate) fn now(&self) -> Instant {
        Instant::now() + self.later
    }

    /// Ports that have changed or are new.
    pub(crate) fn set(&mut self, ports: &[PortPlan]) -> Applied {
        let ports: Vec<Arc<PortPlan>> = ports.iter().cloned().map(Arc::new).collect();
        self.ports.extend(ports.iter().map(|port| (port.key.clone(), Arc::clone(port))));
        self.nft.sync(&ports, &[]).unwrap();
        self.nft.finish().unwrap();
        let applied = self.ipvs.sync(&ports, &[], self.now()).unwrap();
        self.finish(applied)
    }

    /// Ports that are no more.
    pub(crate) fn remove(&mut self, ports: &[PortPlan]) -> Applied {
        let keys: Vec<PortKey> = ports.iter().map(|port| port.key.clone()).collect();
        for key in &keys {
            self.ports.remove(key);
        }
        let applied = self.ipvs.sync(&[], &keys, self.now()).unwrap();
        let applied = self.finish(applied);
        self.nft.sync(&[], &keys).unwrap();
        self.nft.finish().unwrap();
        applied
    }

    pub(crate) fn audit(&mut self) -> Applied {
        let applied = self.ipvs.audit(self.now()).unwrap();
        let mut sum = self.finish(applied);
        while self.ipvs.is_checking() {
            let next = self.ipvs.tick(self.now()).unwrap();
            let next = self.finish(next);
            sum.messages += next.messages;
            sum.repaired += next.repaired;
            sum.problems.extend(next.problems);
        }
        sum
    }

    /// Counts the connections of those that drain, so much later than it was.
    pub(crate) fn tick(&mut self, later: Duration) -> Applied {
        self.later += later;
        let applied = self.ipvs.tick(self.now()).unwrap();
        self.finish(applied)
    }

    fn finish(&mut self, mut sum: Applied) -> Applied {
        self.set_doors(&sum);
        while sum.more {
            let next = self.ipvs.proceed(self.now()).unwrap();
            self.set_doors(&next);
            sum.messages += next.messages;
            sum.repaired += next.repaired;
            sum.problems.extend(next.problems);
            sum.more = next.more;
        }
        sum
    }

    fn set_doors(&mut self, applied: &Applied) {
        let (open, closed): (Vec<_>, Vec<_>) = applied.doors.iter().partition(|door| is_open(door));
        let keys = |doors: Vec<&(FrontendKey, Door)>| doors.into_iter().map(|(key, _)| *key).collect::<Vec<_>>();
        self.nft.doors(&keys(open), &keys(closed)).unwrap();
        self.nft.finish().unwrap();
    }
}

fn is_open(door: &(FrontendKey, Door)) -> bool {
    door.1 == Door::Open
}

/// A port of Service `name` at `address`, served by these pods at port 8080.
pub(crate) fn port(name: &str, protocol: Protocol, address: SocketAddr, pods: &[u8]) -> PortPlan {
    let family = Family::of(address.ip());
    let key = FrontendKey::Address { address: address.ip(), protocol, port: address.port() };
    PortPlan {
        key: PortKey { service: ObjectName::new("default", name), port: Arc::from(""), protocol, family },
        frontends: vec![Frontend { key, kind: FrontendKind::ClusterIp }],
        cluster: pods.iter().map(|n| Backend { address: pod(*n, family), port: 8080, local: true }).collect(),
        local: Vec::new(),
        has_any: !pods.is_empty(),
        internal: TrafficPolicy::Cluster,
        external: TrafficPolicy::Cluster,
        affinity: None,
        scheduler: None,
        source_ranges: Vec::new(),
        serving: Vec::new(),
    }
}

/// A world with a server on port 8080 of each pod, whose calling thread is in the node.
pub(crate) fn served_world() -> (World, Vec<super::world::Server>) {
    let world = World::new();
    let servers = ["one", "two", "three"].map(|who| super::world::Server::start(&world, who, 8080));
    (world, servers.into())
}
