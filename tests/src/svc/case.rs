//! One test's Services: in a namespace of their own, with addresses of their own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{PoisonError, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use serde_json::Value;

use super::{Bench, Place, patience};
use crate::kube::{Endpoint, Port, Service, slice, slices_of};
use crate::wait;

/// How long what was written may take until it is in the kernels.
const SETTLED: Duration = Duration::from_secs(30);
/// How long one look at it may take.
const LOOK: Duration = Duration::from_millis(50);

/// A test on a bench. What it has written goes with it.
#[derive(Debug)]
pub struct Case<'a> {
    bench: &'a Bench,
    namespace: String,
    mark_ips: [IpAddr; 2],
    marks: AtomicU16,
    _turn: Turn<'a>,
}

/// Beside others, or alone.
#[derive(Debug)]
enum Turn<'a> {
    Beside { _guard: RwLockReadGuard<'a, ()> },
    Alone { _guard: RwLockWriteGuard<'a, ()> },
}

impl Bench {
    /// A case that leaves the nodes as they are, beside others.
    #[must_use]
    pub fn case(&self, name: &str) -> Case<'_> {
        let guard = self.quiet.read().unwrap_or_else(PoisonError::into_inner);
        self.begin(name, Turn::Beside { _guard: guard })
    }

    /// A case that does something to the nodes or their agents, while no other runs.
    #[must_use]
    pub fn alone(&self, name: &str) -> Case<'_> {
        let guard = self.quiet.write().unwrap_or_else(PoisonError::into_inner);
        self.begin(name, Turn::Alone { _guard: guard })
    }

    fn begin<'a>(&'a self, name: &str, turn: Turn<'a>) -> Case<'a> {
        Case {
            mark_ips: self.cluster_ips(),
            bench: self,
            namespace: name.to_owned(),
            marks: AtomicU16::new(0),
            _turn: turn,
        }
    }

    /// A number that nobody else has.
    fn number(&self) -> u16 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Cluster IPs of both families that no Service has.
    #[must_use]
    pub fn cluster_ips(&self) -> [IpAddr; 2] {
        let number = self.number();
        let [high, low] = number.to_be_bytes();
        [Ipv4Addr::new(10, 96, high, low).into(), Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, number).into()]
    }
}

impl Case<'_> {
    /// A dual-stack Service with addresses of its own. Nothing is written yet.
    #[must_use]
    pub fn service(&self, name: &str, ports: &[Port]) -> Service {
        let ips = self.bench.cluster_ips();
        ports.iter().fold(Service::new(&self.namespace, name, &ips), Service::port)
    }

    /// The same of IPv4 alone.
    #[must_use]
    pub fn service_v4(&self, name: &str, ports: &[Port]) -> Service {
        let ips = self.bench.cluster_ips();
        ports.iter().fold(Service::new(&self.namespace, name, &ips[..1]), Service::port)
    }

    /// A node port that no Service has.
    #[must_use]
    pub fn node_port(&self) -> u16 {
        30000 + self.bench.number() % 2700
    }

    /// Addresses of both families, which the outside reaches by node 1 and which nobody has.
    ///
    /// # Panics
    /// When there are no more.
    #[must_use]
    pub fn outer_ips(&self) -> [IpAddr; 2] {
        let number = self.bench.outer.fetch_add(1, Ordering::Relaxed);
        let low = u8::try_from(number).ok().filter(|low| *low < 255).expect("no more outer addresses");
        let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, number);
        [Ipv4Addr::new(203, 0, 113, low).into(), v6.into()]
    }

    /// Writes a Service with these endpoints, and waits until that is in the kernels.
    pub fn apply(&self, service: &Service, endpoints: &[Vec<Endpoint>]) {
        self.serve(service, endpoints);
        self.put(service.json());
        self.settle();
    }

    /// Writes the slices of a Service, without waiting.
    pub fn serve(&self, service: &Service, endpoints: &[Vec<Endpoint>]) {
        for slice in slices_of(service, &endpoints.concat()) {
            self.put(&slice);
        }
    }

    /// Writes an object, without waiting.
    ///
    /// # Panics
    /// When etcd refuses.
    pub fn put(&self, object: &Value) {
        self.bench.api().put(object).unwrap();
    }

    /// Removes an object, without waiting.
    ///
    /// # Panics
    /// When etcd refuses.
    pub fn delete(&self, object: &Value) {
        self.bench.api().delete(object).unwrap();
    }

    /// Waits until the kernels of both nodes have everything that was written before.
    ///
    /// What is written in the same way after it, a Service and a slice of a marker, answers then: agents hear of changes
    /// in their order and take each state as a whole.
    ///
    /// # Panics
    /// When that takes too long.
    #[track_caller]
    pub fn settle(&self) {
        let Bench { pod, far, l1, .. } = self.bench;
        let waited = self.marked(&[pod, far], l1);
        assert!(waited.is_ok(), "the agents have not done what was written: {waited:?}\n{}", self.bench.story());
    }

    fn marked(&self, from: &[&Place], at: &Place) -> Result<(), wait::TimedOut> {
        let number = self.marks.fetch_add(1, Ordering::Relaxed) + 1;
        let port = Port::tcp(number, 8080).named(&format!("m{number}"));
        let marker = Service::new(&self.namespace, "marker", &self.mark_ips).port(&port);
        for v6 in [false, true] {
            let name = format!("marker-{v6}");
            self.put(&slice(&marker, &name, v6, std::slice::from_ref(&port), &at.ready()));
        }
        self.put(marker.json());
        let mut left: Vec<(&Place, SocketAddr)> =
            from.iter().flat_map(|place| vips(&marker).into_iter().map(|vip| (*place, vip))).collect();
        wait::until_ok(patience(SETTLED), "the marker to answer", || {
            left.retain(|(place, vip)| place.to(*vip).times(1).within(patience(LOOK)).go().served() == 0);
            let missing: Vec<String> = left.iter().map(|(place, vip)| format!("{vip} at {}", place.node)).collect();
            if missing.is_empty() { Ok(()) } else { Err(missing.join(", ")) }
        })
    }
}

impl Drop for Case<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.bench.story());
        }
        if let Err(error) = self.bench.api().delete_namespace(&self.namespace) {
            eprintln!("left behind: Services of {}: {error:#}", self.namespace);
        }
    }
}

/// The cluster IPs of a Service with its first port.
#[must_use]
pub fn vips(service: &Service) -> Vec<SocketAddr> {
    let port = service.ports().first().map_or(0, |port| port.port);
    service.cluster_ips().into_iter().map(|ip| SocketAddr::new(ip, port)).collect()
}
