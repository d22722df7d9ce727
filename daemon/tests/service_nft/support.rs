//! Plans by hand, and a namespace for each test.

use std::net::IpAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use weft::cluster::services::{ObjectName, Protocol, TrafficPolicy};
use weft::cluster::{Family, PerFamily};
use weft::service::model::{Backend, Frontend, FrontendKey, FrontendKind, PortKey, PortPlan};
use weft::service::nft::{DetectLocal, NodePortAddresses, Options};
use weft_netlink::netns::{NetNs, NetNsGuard};

/// A fresh network namespace, entered by the calling thread until the guard goes.
pub(crate) fn fresh() -> (NetNs, NetNsGuard) {
    let netns = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("needs root");
        NetNs::current().unwrap()
    });
    let netns = netns.join().unwrap();
    let guard = netns.guard().unwrap();
    (netns, guard)
}

/// Runs a command line in the thread's namespace, and returns what it prints.
#[expect(clippy::disallowed_methods, reason = "ip and nft play the other party")]
pub(crate) fn sh(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What nft prints. Words of complaint are a failure even where it goes on.
#[expect(clippy::disallowed_methods, reason = "the distribution's nft is the judge")]
pub(crate) fn nft(arguments: &str) -> String {
    let output = Command::new("nft").args(arguments.split(' ')).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaint.is_empty(), "nft {arguments}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

/// A node as in the cases of the specification.
pub(crate) fn node_options() -> Options {
    Options {
        detect_local: DetectLocal::Cidrs(vec!["10.180.0.0/16".parse().unwrap(), "fd00:180::/48".parse().unwrap()]),
        node_port_addresses: PerFamily {
            v4: Some(NodePortAddresses::Networks(vec!["192.168.0.2/32".parse().unwrap()])),
            v6: Some(NodePortAddresses::All),
        },
        service_cidrs: vec!["172.30.0.0/16".parse().unwrap(), "fd00:30::/108".parse().unwrap()],
        pod_networks: vec!["10.180.0.0/16".parse().unwrap(), "fd00:180::/48".parse().unwrap()],
        node_subnets: vec!["10.180.0.0/24".parse().unwrap(), "fd00:180::/64".parse().unwrap()],
        bridge_bypass: true,
        ..Options::default()
    }
}

/// A plan under construction: a port of Service `default/<name>` without frontends and backends.
#[derive(Debug, Clone)]
pub(crate) struct Plan(pub PortPlan);

impl Plan {
    pub(crate) fn new(name: &str, protocol: Protocol, family: Family) -> Self {
        Self(PortPlan {
            key: PortKey { service: ObjectName::new("default", name), port: "".into(), protocol, family },
            frontends: Vec::new(),
            cluster: Vec::new(),
            local: Vec::new(),
            has_any: false,
            internal: TrafficPolicy::Cluster,
            external: TrafficPolicy::Cluster,
            affinity: None,
            scheduler: None,
            source_ranges: Vec::new(),
            serving: Vec::new(),
        })
    }

    /// The plan of number n, TCP, IPv4, with its cluster IP at port 80.
    pub(crate) fn tcp(name: &str, number: u32) -> Self {
        Self::new(name, Protocol::Tcp, Family::V4).cluster_ip(address(Family::V4, Net::Service, number), 80)
    }

    pub(crate) fn at(mut self, kind: FrontendKind, address: IpAddr, port: u16) -> Self {
        let key = FrontendKey::Address { address, protocol: self.0.key.protocol, port };
        self.0.frontends.push(Frontend { key, kind });
        self.0.frontends.sort_unstable();
        self
    }

    pub(crate) fn cluster_ip(self, address: IpAddr, port: u16) -> Self {
        self.at(FrontendKind::ClusterIp, address, port)
    }

    pub(crate) fn node_port(mut self, port: u16) -> Self {
        let PortKey { family, protocol, .. } = self.0.key;
        let key = FrontendKey::NodePort { family, protocol, port };
        self.0.frontends.push(Frontend { key, kind: FrontendKind::NodePort });
        self.0.frontends.sort_unstable();
        self
    }

    /// Backends, each an address, a port and whether it is on this node.
    pub(crate) fn backends(mut self, backends: impl IntoIterator<Item = (IpAddr, u16, bool)>) -> Self {
        let backends = backends.into_iter().map(|(address, port, local)| Backend { address, port, local });
        self.0.cluster = backends.collect();
        self.0.cluster.sort_unstable();
        self.0.local = self.0.cluster.iter().copied().filter(|backend| backend.local).collect();
        self.0.has_any = !self.0.cluster.is_empty();
        self
    }

    pub(crate) fn affinity(mut self, seconds: u64) -> Self {
        self.0.affinity = Some(Duration::from_secs(seconds));
        self
    }

    pub(crate) fn policies(mut self, internal: TrafficPolicy, external: TrafficPolicy) -> Self {
        (self.0.internal, self.0.external) = (internal, external);
        self
    }

    pub(crate) fn ranges(mut self, ranges: &[&str]) -> Self {
        self.0.source_ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
        self
    }

    pub(crate) fn done(self) -> Arc<PortPlan> {
        Arc::new(self.0)
    }
}

/// Which addresses.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Net {
    Service,
    Pod,
    LoadBalancer,
}

/// The n-th address of a network; pods of this node are those below 256.
pub(crate) fn address(family: Family, net: Net, number: u32) -> IpAddr {
    let [.., high, low] = number.to_be_bytes();
    let text = match (family, net) {
        (Family::V4, Net::Service) => format!("172.30.{high}.{low}"),
        (Family::V4, Net::Pod) => format!("10.180.{high}.{low}"),
        (Family::V4, Net::LoadBalancer) => format!("203.0.{high}.{low}"),
        (Family::V6, Net::Service) => format!("fd00:30::{number:x}"),
        (Family::V6, Net::Pod) => format!("fd00:180:0:{high:x}::{low:x}"),
        (Family::V6, Net::LoadBalancer) => format!("2001:db8:1::{number:x}"),
    };
    text.parse().unwrap()
}

/// Plans of every kind.
pub(crate) fn mixture(count: u32) -> Vec<Arc<PortPlan>> {
    (1..=count)
        .flat_map(|number| Family::ALL.map(|family| (number, family)))
        .map(|(number, family)| variant(number, family, number).done())
        .collect()
}

/// A port whose features follow from a number.
pub(crate) fn variant(number: u32, family: Family, features: u32) -> Plan {
    let protocol = Protocol::ALL[features as usize % 3];
    let port = u16::try_from(30_000 + number).unwrap();
    let backends = (0..features % 5).map(|place| {
        let local = (features + place).is_multiple_of(2);
        let pod = if local { number % 200 + place + 1 } else { 256 + number + place };
        (address(family, Net::Pod, pod), 8080, local)
    });
    let mut plan = Plan::new(&format!("svc-{number}"), protocol, family)
        .cluster_ip(address(family, Net::Service, number / 2 + 1), port)
        .backends(backends);
    let policy = |local: bool| if local { TrafficPolicy::Local } else { TrafficPolicy::Cluster };
    plan = plan.policies(policy(features.is_multiple_of(7)), policy(features.is_multiple_of(4)));
    if features.is_multiple_of(2) {
        plan = plan.node_port(port);
    }
    if features.is_multiple_of(3) {
        plan = plan.at(FrontendKind::LoadBalancer, address(family, Net::LoadBalancer, number), 443);
    }
    if features.is_multiple_of(5) {
        plan = plan.at(FrontendKind::ExternalIp, address(family, Net::LoadBalancer, 1000 + number), 8443);
    }
    if features.is_multiple_of(6) {
        plan = match family {
            Family::V4 => plan.ranges(&["198.51.100.0/24", "198.51.100.7/32", "192.0.2.0/25"]),
            Family::V6 => plan.ranges(&["2001:db8:2::/48", "2001:db8:2:3::/64"]),
        };
    }
    if features % 4 == 1 {
        plan = plan.affinity(u64::from(features % 3 + 1) * 600);
    }
    plan
}
