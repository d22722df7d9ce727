//! When something has to be done: the loop around [`Engine`].

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use tokio::sync::watch;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::engine::Engine;
use super::health_ports::HealthPorts;
use super::model::HealthPort;
use super::nft;
use super::options::ProxyOptions;
use super::outcome::Outcome;
use super::tell::Teller;
use crate::cluster::services::{NodeObject, ObjectName, ServiceStore, ServicesStatus};
use crate::config::{NodePortAddresses, ProxyMode};
use crate::node::NodeFacts;

/// The wait before something that failed is tried again; each failure in a row doubles it, up to the time of repair.
const AGAIN: Duration = Duration::from_millis(500);
/// How often the kernel is asked whether anybody has changed its nf_tables. It is one message, but if somebody has, everything
/// is read.
const GLANCE: Duration = Duration::from_secs(1);
/// How long the start waits to be told the service networks.
const FIRST_CIDRS: Duration = Duration::from_secs(2);
/// Looking takes at most this part of the time, however often others write to nf_tables.
const LOOKING: u32 = 20;

/// What the loop depends on.
#[derive(Debug)]
pub struct Inputs {
    /// The Services, and the node's own object.
    pub store: Arc<ServiceStore>,
    /// How their source is doing.
    pub source: watch::Receiver<ServicesStatus>,
    /// The networks that cluster IPs are taken from, as the cluster says; while it says none, those of the options are.
    pub cidrs: watch::Receiver<Option<Vec<IpNetwork>>>,
    /// The node; `None` until it has a subnet.
    pub facts: watch::Receiver<Option<NodeFacts>>,
}

/// Serves Services until it is told to stop. What the kernel has then stays.
pub async fn run(options: ProxyOptions, mut inputs: Inputs, teller: Teller, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = serve(&options, &mut inputs, &teller) => {}
    }
}

async fn serve(options: &ProxyOptions, inputs: &mut Inputs, teller: &Teller) {
    let facts = first_facts(inputs, teller).await;
    // Behind the node's own rules, which hold what is asked for already where it is there.
    kernel_is_able(options, teller).await;
    first_services(inputs, teller).await;
    // They come with the Services, if they come at all; later ones are taken, too.
    let _ = timeout(FIRST_CIDRS, inputs.cidrs.wait_for(Option::is_some)).await;
    let configured = options.service_cidrs.clone();
    let options = &with_cidrs(options, inputs);
    let (engine, mut outcome, revision) = begin(options, &facts, &inputs.store, teller).await;
    let now = Instant::now();
    let mut this = Loop {
        options,
        configured,
        inputs,
        teller,
        engine,
        failures: 0,
        pending: None,
        unserved: None,
        not_before: now,
        revision,
        health: BTreeMap::new(),
        health_ports: HealthPorts::new(Arc::clone(&teller.proxy), teller.events.clone()),
        listening: Vec::new(),
        next_glance: now + GLANCE,
        next_audit: now + options.repair_interval / 2,
        uncounted: false,
    };
    this.health_ports(&mut outcome);
    this.count();
    this.turn().await;
}

/// Waits until the kernel has all parts that the rules are made of: a module may still be loaded.
async fn kernel_is_able(options: &ProxyOptions, teller: &Teller) {
    let mut wait = AGAIN;
    while let Err(error) = nft::preflight(options.mode == ProxyMode::Ipvs) {
        teller.bad(&error.to_string());
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(options.repair_interval);
    }
}

/// Waits until the node has a subnet.
async fn first_facts(inputs: &mut Inputs, teller: &Teller) -> NodeFacts {
    loop {
        if let Some(facts) = inputs.facts.borrow_and_update().clone() {
            return facts;
        }
        teller.waiting("the node has no subnet yet");
        changed(&mut inputs.facts).await;
    }
}

/// Waits until the Services have been read once.
async fn first_services(inputs: &mut Inputs, teller: &Teller) {
    while !inputs.store.synced() {
        let error = inputs.source.borrow_and_update().error.clone();
        teller.waiting(&error.unwrap_or_else(|| "the Services have not been read yet".to_owned()));
        tokio::select! {
            () = inputs.store.wait() => {}
            () = changed(&mut inputs.source) => {}
        }
    }
}

/// Tries until the back ends stand, and says in the meantime why they do not.
async fn begin(
    options: &ProxyOptions,
    facts: &NodeFacts,
    store: &ServiceStore,
    teller: &Teller,
) -> (Engine, Outcome, i64) {
    let mut wait = AGAIN;
    loop {
        let now = Instant::now();
        let (services, revision) = store.take_all();
        let node = store.node();
        teller.node(node.as_deref());
        match Engine::start(options, facts, zone_of(node.as_deref()), services, now) {
            Ok((engine, outcome)) => {
                teller.started(&engine, &outcome, revision, now.elapsed());
                return (engine, outcome, revision);
            }
            Err(error) => teller.bad(&error.to_string()),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(options.repair_interval);
    }
}

struct Loop<'a> {
    options: &'a ProxyOptions,
    /// The service networks where the cluster says none.
    configured: Vec<IpNetwork>,
    inputs: &'a mut Inputs,
    teller: &'a Teller,
    engine: Engine,
    /// Passes in a row that left something undone.
    failures: u32,
    /// When the oldest change came in that was not taken from the store yet.
    pending: Option<Instant>,
    /// When the oldest change came in that was taken, and that the kernel has not.
    unserved: Option<Instant>,
    /// Changes are not taken earlier.
    not_before: Instant,
    /// The store's revision that was taken last.
    revision: i64,
    health: BTreeMap<ObjectName, HealthPort>,
    health_ports: HealthPorts,
    /// Where they are.
    listening: Vec<IpAddr>,
    next_glance: Instant,
    next_audit: Instant,
    /// Something has changed that was not counted yet.
    uncounted: bool,
}

impl Loop<'_> {
    async fn turn(mut self) {
        loop {
            self.wait().await;
            self.pass();
            // While there is a backlog nothing above waits, and the source and the servers have this thread, too.
            tokio::task::yield_now().await;
        }
    }

    /// Until something has changed, or is due.
    async fn wait(&mut self) {
        let mut due = self.next_audit.min(self.next_glance);
        if let Some(wake) = self.engine.wake() {
            due = due.min(wake);
        }
        if self.pending.is_some() {
            due = due.min(self.not_before);
        }
        tokio::select! {
            () = self.inputs.store.wait(), if self.pending.is_none() => {
                self.pending = Some(Instant::now());
                self.teller.queued();
            }
            () = changed(&mut self.inputs.facts) => {}
            () = changed(&mut self.inputs.cidrs) => {}
            () = sleep_until(due.into()) => {}
        }
    }

    fn count(&self) {
        self.count_rejected();
        self.teller.count(&self.engine);
    }

    fn count_rejected(&self) {
        self.teller.rejected(self.inputs.source.borrow().rejected);
    }

    /// Opens and closes health check ports.
    fn health_ports(&mut self, outcome: &mut Outcome) {
        let addresses = listen_at(self.options, self.engine.facts());
        if outcome.health.is_empty() && addresses == self.listening {
            return;
        }
        for (service, port) in outcome.health.drain(..) {
            match port {
                Some(port) => self.health.insert(service, port),
                None => self.health.remove(&service),
            };
        }
        self.health_ports.set(self.health.values(), &addresses);
        self.listening = addresses;
    }

    fn pass(&mut self) {
        let now = Instant::now();
        let facts = self.inputs.facts.borrow_and_update().clone();
        let mut outcome = Outcome::default();
        if let Some(facts) = facts {
            outcome += self.engine.set_facts(&facts, now);
        }
        let cidrs = self.inputs.cidrs.borrow_and_update().clone();
        outcome += self.engine.set_ranges(cidrs.as_ref().unwrap_or(&self.configured), now);
        // The first change after a pause is served at once; those that come close behind it share a pass.
        if let Some(arrived) = self.pending.take_if(|_| now >= self.not_before) {
            self.unserved.get_or_insert(arrived);
            self.uncounted = true;
            let (changes, revision) = self.inputs.store.take();
            self.revision = revision;
            let node = self.inputs.store.node();
            self.teller.node(node.as_deref());
            outcome += self.engine.set_zone(zone_of(node.as_deref()), now);
            outcome += self.engine.sync(changes, now);
            self.not_before = Instant::now() + self.options.min_sync_period;
        }
        if now >= self.next_glance {
            let begin = Instant::now();
            outcome += self.engine.glance();
            self.next_glance = Instant::now() + (begin.elapsed() * LOOKING).max(GLANCE);
            if self.uncounted {
                self.count();
            }
            // What drains gets fewer without a change.
            self.uncounted = self.engine.draining() > 0;
        }
        if now >= self.next_audit {
            outcome += self.engine.audit(now);
            // Of objects that cannot be used nobody tells.
            self.count_rejected();
            self.next_audit = Instant::now() + self.options.repair_interval / 2;
        }
        outcome += self.engine.tick(now);
        if outcome.failed() {
            let wait = (AGAIN * 2_u32.saturating_pow(self.failures)).min(self.options.repair_interval / 2);
            self.failures = self.failures.saturating_add(1);
            let again = Instant::now() + wait;
            (self.next_glance, self.next_audit) = (self.next_glance.min(again), self.next_audit.min(again));
        } else {
            self.failures = 0;
            if let Some(arrived) = self.unserved.take() {
                self.teller.arrived(arrived.elapsed());
            }
        }
        self.health_ports(&mut outcome);
        let all = self.pending.is_none();
        self.teller.passed(&self.engine, &outcome, self.revision, all, now.elapsed());
    }
}

/// Where health checks of load balancers are answered: where node ports are.
fn listen_at(options: &ProxyOptions, facts: &NodeFacts) -> Vec<IpAddr> {
    match options.node_port_addresses {
        NodePortAddresses::Primary => facts.addresses.values().copied().collect(),
        NodePortAddresses::In(_) => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
    }
}

/// The options with the service networks that the cluster says.
fn with_cidrs(options: &ProxyOptions, inputs: &Inputs) -> ProxyOptions {
    let cidrs = inputs.cidrs.borrow().clone().unwrap_or_else(|| options.service_cidrs.clone());
    ProxyOptions { service_cidrs: cidrs, ..options.clone() }
}

/// The zone that the Node object says.
fn zone_of(node: Option<&NodeObject>) -> Option<Arc<str>> {
    node.and_then(|node| node.zone.clone())
}

async fn changed<T>(receiver: &mut watch::Receiver<T>) {
    // A sender that is gone sends nothing more; the timer goes on.
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
