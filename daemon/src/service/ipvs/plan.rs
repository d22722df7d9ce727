//! What a port of a Service is in IPVS: a virtual server at its cluster IP, or none.
//!
//! The other frontends are nf_tables'. So is what a virtual server cannot express: a port that nobody serves is refused
//! there, and one whose policy leaves nobody is dropped there.

use std::net::SocketAddr;

use weft_netlink::ipvs::{Persistence, Target, VirtualServer};

use super::scheduler::{Fallback, Schedulers, flags};
use crate::cluster::services::Protocol;
use crate::service::model::{FrontendKey, FrontendKind, PortPlan};

/// What packets to a cluster IP and port meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Planned {
    /// A virtual server.
    Serve(Desired),
    /// Nothing, in silence: there are backends, but none that the policy admits.
    Block,
    /// A refusal: nobody answers anywhere.
    Refuse,
}

impl Planned {
    /// The virtual server, if there is to be one.
    pub(super) fn desired(&self) -> Option<&Desired> {
        match self {
            Self::Serve(desired) => Some(desired),
            Self::Block | Self::Refuse => None,
        }
    }
}

/// A virtual server as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Desired {
    /// Itself.
    pub(super) server: VirtualServer,
    /// Its backends, each with weight 1, sorted.
    pub(super) backends: Vec<SocketAddr>,
    /// Why it does not have the scheduler that its Service asks for.
    pub(super) fallback: Option<Fallback>,
}

/// The address, protocol and port at which a port's virtual server stands; `None` if another Service has its cluster IP.
pub(super) fn target(port: &PortPlan) -> Option<Target> {
    port.frontends.iter().find_map(|frontend| match frontend.key {
        FrontendKey::Address { address, protocol, port } if frontend.kind == FrontendKind::ClusterIp => {
            Some(Target::Address { address, protocol: protocol.number(), port })
        }
        _ => None,
    })
}

/// The same as the model says it; `None` for what no Service can have.
pub(super) fn frontend(target: &Target) -> Option<FrontendKey> {
    let Target::Address { address, port, protocol } = *target else { return None };
    let protocol = Protocol::ALL.into_iter().find(|known| known.number() == protocol)?;
    Some(FrontendKey::Address { address, protocol, port })
}

/// Plans the virtual server of a port at `target`.
pub(super) fn plan(target: Target, port: &PortPlan, schedulers: &Schedulers) -> Planned {
    let backends = port.backends_of(FrontendKind::ClusterIp);
    if backends.is_empty() {
        return if port.has_any { Planned::Block } else { Planned::Refuse };
    }
    let (scheduler, fallback) = schedulers.choose(port.scheduler.as_deref());
    let server = VirtualServer {
        scheduler_flags: flags(&scheduler),
        persistence: port.affinity.map(|timeout| Persistence { timeout, prefix: None }),
        ..VirtualServer::new(target, scheduler)
    };
    let mut backends: Vec<SocketAddr> =
        backends.iter().map(|backend| SocketAddr::new(backend.address, backend.port)).collect();
    backends.sort_unstable();
    backends.dedup();
    Planned::Serve(Desired { server, backends, fallback })
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use weft_netlink::ipvs::{Scheduler, SchedulerFlags};

    use super::*;
    use crate::cluster::Family;
    use crate::cluster::services::{ObjectName, TrafficPolicy};
    use crate::service::model::{Backend, Frontend, PortKey};

    /// A port of Service `name` at `address`, `10.96.0.1:80` say, with these backends on other nodes.
    pub(in crate::service::ipvs) fn port(name: &str, protocol: Protocol, address: &str, backends: &[&str]) -> PortPlan {
        let address: SocketAddr = address.parse().unwrap();
        let key = FrontendKey::Address { address: address.ip(), protocol, port: address.port() };
        let backends: Vec<Backend> = backends
            .iter()
            .map(|backend| {
                let backend: SocketAddr = backend.parse().unwrap();
                Backend { address: backend.ip(), port: backend.port(), local: false }
            })
            .collect();
        PortPlan {
            key: PortKey {
                service: ObjectName::new("default", name),
                port: Arc::from(""),
                protocol,
                family: Family::of(address.ip()),
            },
            frontends: vec![Frontend { key, kind: FrontendKind::ClusterIp }],
            has_any: !backends.is_empty(),
            cluster: backends,
            local: Vec::new(),
            internal: TrafficPolicy::Cluster,
            external: TrafficPolicy::Cluster,
            affinity: None,
            scheduler: None,
            source_ranges: Vec::new(),
            serving: Vec::new(),
        }
    }

    fn planned(port: &PortPlan) -> Planned {
        plan(target(port).unwrap(), port, &Schedulers::new(Scheduler::ROUND_ROBIN))
    }

    #[test]
    fn t01_a_cluster_ip_is_a_virtual_server() {
        let port = port("web", Protocol::Tcp, "172.30.0.41:80", &["10.180.0.1:8080"]);
        let target = target(&port).unwrap();
        let Planned::Serve(desired) = planned(&port) else { panic!("not served") };
        assert_eq!(desired.server, VirtualServer::new(target, Scheduler::ROUND_ROBIN));
        assert_eq!(desired.backends, ["10.180.0.1:8080".parse().unwrap()]);
        assert_eq!(frontend(&target), Some(port.frontends[0].key));
    }

    #[test]
    fn the_internal_policy_decides_and_the_external_one_does_not() {
        let mut port = port("web", Protocol::Tcp, "[fd96::1]:80", &["[fd10::1]:80", "[fd11::1]:80"]);
        port.external = TrafficPolicy::Local;
        assert_eq!(planned(&port).desired().unwrap().backends.len(), 2);
        port.internal = TrafficPolicy::Local;
        assert_eq!(planned(&port), Planned::Block, "others serve it");
        port.has_any = false;
        assert_eq!(planned(&port), Planned::Refuse);
        port.local = vec![Backend { local: true, ..port.cluster[1] }];
        assert_eq!(planned(&port).desired().unwrap().backends, ["[fd11::1]:80".parse().unwrap()]);
    }

    #[test]
    fn affinity_is_persistence_and_the_scheduler_brings_its_flags() {
        let mut port = port("web", Protocol::Udp, "10.96.0.1:53", &["10.0.0.1:53"]);
        port.affinity = Some(Duration::from_secs(10_800));
        port.scheduler = Some(Arc::from("mh"));
        let server = planned(&port).desired().unwrap().server.clone();
        assert_eq!(server.persistence, Some(Persistence { timeout: Duration::from_secs(10_800), prefix: None }));
        assert_eq!(server.scheduler_flags, SchedulerFlags::PORT);
        port.scheduler = Some(Arc::from("nonsense"));
        let desired = planned(&port).desired().unwrap().clone();
        assert_eq!(desired.server.scheduler, Scheduler::ROUND_ROBIN);
        assert!(matches!(desired.fallback, Some(Fallback::Unknown(_))));
    }

    #[test]
    fn a_cluster_ip_that_another_service_has_is_not_served() {
        let mut port = port("web", Protocol::Tcp, "10.96.0.1:80", &["10.0.0.1:80"]);
        port.frontends[0].kind = FrontendKind::ExternalIp;
        assert_eq!(target(&port), None);
    }
}
