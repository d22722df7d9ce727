//! When a pass is due: the loop around [`Node`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use weft_netlink::agent::{Event, Monitor};

use super::news::News;
use super::pass::{Node, Passed, Watched};
use super::tables::TablesWatch;
use crate::cluster::SourceStatus;
use crate::cluster::model::Snapshot;
use crate::lease::LeaseState;
use crate::serve::{Component, Health, Metrics};

/// Changes rarely come alone: what comes within this time shares a pass.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// Longest wait for changes to cease, as a multiple of the debounce: a burst must not put off the pass for ever.
const LONGEST_DEBOUNCE: u32 = 10;

/// Everything that a pass depends on.
#[derive(Debug)]
pub struct Inputs {
    /// The node's lease.
    pub lease: watch::Receiver<LeaseState>,
    /// All leases.
    pub snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    /// Whether the leases are those that were last known, before the source has said anything.
    pub stands_in: watch::Receiver<bool>,
    /// How the source is doing.
    pub source: watch::Receiver<SourceStatus>,
    /// What happens in the kernel.
    pub monitor: Monitor,
    /// Whether anybody has written to nf_tables.
    pub tables: TablesWatch,
    /// The time within which everything is repaired, events or not.
    pub repair_interval: Duration,
}

/// Runs passes until it is told to stop. What the kernel has then stays: pods go on talking.
pub async fn run(
    mut node: Node,
    mut inputs: Inputs,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let mut patience = Patience::new(inputs.repair_interval / 2);
    let mut news = News::ALL;
    loop {
        // The timer may have come first, and the change with it.
        news.cluster |= inputs.lease.has_changed().unwrap_or_default();
        news.cluster |= inputs.snapshots.has_changed().unwrap_or_default();
        let lease = inputs.lease.borrow_and_update().clone();
        let snapshot = inputs.snapshots.borrow_and_update().clone();
        let stands_in = *inputs.stands_in.borrow();
        report_source(&inputs.source.borrow(), snapshot.as_deref(), stands_in, &health, &metrics);
        // Before they are looked at: what somebody writes in between is seen to be new. So are the pass's own writes, and then
        // there is one more pass, which has nothing to do.
        inputs.tables.seen();
        let Passed { retry_at, repaired } = node.pass(&lease, snapshot.as_ref(), news).await;
        let now = Instant::now();
        patience.passed(repaired > 0, now);

        // What no event tells of is found by the timer: at half the time, so that it is repaired within the whole.
        let timer = now + inputs.repair_interval / 2;
        let due = retry_at.map_or(timer, |retry| retry.min(timer));
        news = tokio::select! {
            () = stop.cancelled() => return,
            first = something(&mut inputs, &node) => gather(first, &mut inputs, &node, patience.wait, now).await,
            () = sleep_until(due.into()) => News::default(),
        };
    }
}

/// Waits for a change that concerns this node.
async fn something(inputs: &mut Inputs, node: &Node) -> News {
    let nothing = News::default();
    tokio::select! {
        // A sender that is gone sends nothing more; the timer goes on.
        () = changed(&mut inputs.lease) => News { cluster: true, ..nothing },
        () = changed(&mut inputs.snapshots) => News { cluster: true, ..nothing },
        () = kernel_event(&mut inputs.monitor, node) => News { kernel: true, ..nothing },
        () = inputs.tables.changed() => News { tables: true, ..nothing },
    }
}

async fn changed<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn kernel_event(monitor: &mut Monitor, node: &Node) {
    let watched = node.watched();
    loop {
        match monitor.next().await {
            Some(event) if concerns(&event, &watched) && !node.expects(&event) => return,
            Some(_) => {}
            None => std::future::pending::<()>().await,
        }
    }
}

/// Whether an event touches what a pass would put right. Pods come and go on the bridge all the time, and their links,
/// neighbours and addresses are none of our business.
fn concerns(event: &Event, watched: &Watched) -> bool {
    let is_uplink = |link: &u32| watched.uplink.is_none_or(|uplink| uplink == *link);
    let is_ours = |link: &u32| watched.devices.contains(link) || watched.bridge == Some(*link);
    match event {
        // The kernel takes routes along with a link that goes down, and says nothing of them.
        Event::Link { index } => is_ours(index) || is_uplink(index) || watched.direct.contains(index),
        Event::Address { link } => is_ours(link) || is_uplink(link) || watched.direct.contains(link),
        Event::Route { link, .. } => is_ours(link) || watched.direct.contains(link),
        // Of the bridge's neighbours none is ours, and they change with every packet.
        Event::Neighbour { link, .. } | Event::Fdb { link, .. } => watched.devices.contains(link),
        Event::Overrun => true,
    }
}

/// How long events are collected before they cause a pass.
///
/// Somebody who keeps putting his own state in the place of ours would have us at it without pause: each repair soon after
/// another doubles the wait, up to what the promised time of repair allows.
#[derive(Debug)]
struct Patience {
    wait: Duration,
    longest: Duration,
    last_repair: Option<Instant>,
}

impl Patience {
    fn new(longest: Duration) -> Self {
        Self { wait: DEBOUNCE, longest, last_repair: None }
    }

    fn passed(&mut self, repaired: bool, now: Instant) {
        let calm = self.wait * 4 + Duration::from_secs(1);
        let quarrel = self.last_repair.is_some_and(|last| now.duration_since(last) < calm);
        if !quarrel {
            self.wait = DEBOUNCE;
        } else if repaired {
            let before = self.wait;
            self.wait = (self.wait * 2).min(self.longest);
            if before < self.longest && self.wait == self.longest {
                tracing::warn!("somebody keeps changing what weft has put into the kernel; repairing more slowly");
            }
        }
        if repaired {
            self.last_repair = Some(now);
        }
    }
}

/// Lets a burst pass by, `ended` being the end of the last pass. What happens in the kernel rarely happens alone; of the
/// cluster the source has gathered what belongs together, so its changes only must not follow each other too closely.
async fn gather(mut news: News, inputs: &mut Inputs, node: &Node, wait: Duration, ended: Instant) -> News {
    let longest = tokio::time::Instant::now() + (wait * LONGEST_DEBOUNCE).min(inputs.repair_interval / 2);
    loop {
        let calm = if news.kernel || news.tables {
            tokio::time::Instant::now() + wait
        } else {
            tokio::time::Instant::from_std(ended + DEBOUNCE)
        };
        tokio::select! {
            () = sleep_until(calm.min(longest)) => return news,
            more = something(inputs, node) => news.add(more),
        }
    }
}

fn report_source(
    source: &SourceStatus,
    snapshot: Option<&Snapshot>,
    stands_in: bool,
    health: &Health,
    metrics: &Metrics,
) {
    if let Some(last_list) = source.last_list {
        metrics.store_age.set(last_list.elapsed().as_secs_f64());
    }
    match (&source.error, snapshot) {
        // Good enough for pods: after a reboot a node must not wait for the API server that perhaps runs on it.
        (_, Some(_)) if stands_in => {
            let error = source.error.as_deref().unwrap_or("no answer yet");
            health.good(Component::Store, format!("not reached yet, going by what was last known: {error}"));
        }
        (Some(error), _) => health.bad(Component::Store, error.clone()),
        (None, None) => health.waiting(Component::Store, "the first list of leases is under way"),
        (None, Some(_)) => {
            let words = metrics.api_server().map(|server| match server.notice() {
                Some(notice) => format!("connected; {notice}"),
                None => format!("connected to {}", server.in_use),
            });
            health.good(Component::Store, words.unwrap_or_else(|| "connected".to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarrel_slows_repairs_down_and_peace_speeds_them_up() {
        let mut patience = Patience::new(Duration::from_secs(5));
        let mut now = Instant::now();
        patience.passed(true, now);
        assert_eq!(patience.wait, DEBOUNCE, "one repair is no quarrel");
        for _ in 0..20 {
            now += patience.wait;
            patience.passed(true, now);
            // Our own writes come back as events and cause a pass without a repair.
            now += patience.wait;
            patience.passed(false, now);
        }
        assert_eq!(patience.wait, Duration::from_secs(5));
        patience.passed(false, now + Duration::from_secs(60));
        assert_eq!(patience.wait, DEBOUNCE);
    }

    #[test]
    fn only_what_is_ours_wakes_the_node() {
        let (uplink, devices, bridge, direct, pod) = (2, 4, 5, 3, 9);
        let watched =
            Watched { uplink: Some(uplink), devices: vec![devices], bridge: Some(bridge), direct: vec![direct] };
        let wakes = |event: Event| concerns(&event, &watched);
        assert!(wakes(Event::Link { index: devices }) && wakes(Event::Link { index: bridge }));
        assert!(wakes(Event::Link { index: uplink }) && wakes(Event::Address { link: uplink }));
        assert!(!wakes(Event::Link { index: pod }) && !wakes(Event::Address { link: pod }));
        let route = |link| Event::Route { link, route: None, is_there: true };
        let neighbour = |link| Event::Neighbour { link, ip: None, now: None };
        let entry = |link| Event::Fdb { link, entry: None, is_there: false };
        assert!(wakes(route(devices)) && wakes(neighbour(devices)) && wakes(entry(devices)));
        assert!(!wakes(neighbour(bridge)) && !wakes(entry(bridge)) && wakes(route(bridge)));
        assert!(wakes(route(direct)) && !wakes(neighbour(direct)));
        assert!(wakes(Event::Link { index: direct }) && wakes(Event::Address { link: direct }));
        assert!(wakes(Event::Overrun));
    }
}
