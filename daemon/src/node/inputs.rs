//! When a pass is due: the loop around [`Node`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use weft_netlink::agent::{Event, Monitor};

use super::pass::Node;
use crate::cluster::etcd::SourceStatus;
use crate::cluster::model::Snapshot;
use crate::filter::agent_table;
use crate::lease::LeaseState;
use crate::serve::{Component, Health, Metrics};

/// Changes rarely come alone: what comes within this time shares a pass.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// Longest wait for changes to cease: a burst must not put off the pass for ever.
const LONGEST_DEBOUNCE: Duration = Duration::from_millis(200);

/// Everything that a pass depends on.
#[derive(Debug)]
pub struct Inputs {
    /// The node's lease.
    pub lease: watch::Receiver<LeaseState>,
    /// All leases.
    pub snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    /// How the source is doing.
    pub source: watch::Receiver<SourceStatus>,
    /// What happens in the kernel.
    pub monitor: Monitor,
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
    loop {
        let lease = inputs.lease.borrow_and_update().clone();
        let snapshot = inputs.snapshots.borrow_and_update().clone();
        report_source(&inputs.source.borrow(), snapshot.as_deref(), &health, &metrics);
        let retry = node.pass(&lease, snapshot.as_deref()).await;

        let timer = Instant::now() + inputs.repair_interval;
        let due = retry.map_or(timer, |retry| retry.min(timer));
        tokio::select! {
            () = stop.cancelled() => return,
            () = something(&mut inputs, &node) => debounce(&mut inputs, &node).await,
            () = sleep_until(due.into()) => {}
        }
    }
}

/// Waits for a change that concerns this node.
async fn something(inputs: &mut Inputs, node: &Node) {
    tokio::select! {
        // A sender that is gone sends nothing more; the timer goes on.
        () = changed(&mut inputs.lease) => {}
        () = changed(&mut inputs.snapshots) => {}
        () = kernel_event(&mut inputs.monitor, node) => {}
    }
}

async fn changed<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn kernel_event(monitor: &mut Monitor, node: &Node) {
    loop {
        match monitor.next().await {
            Some(event) if concerns(&event, node.watched()) => return,
            Some(_) => {}
            None => std::future::pending::<()>().await,
        }
    }
}

/// Whether an event touches what a pass would put right. Pods come and go on the bridge all the time, and their links,
/// neighbours and addresses are none of our business.
fn concerns(event: &Event, (uplink, ours): (Option<u32>, &[u32])) -> bool {
    match event {
        Event::Link { index } => ours.contains(index) || uplink.is_none_or(|uplink| uplink == *index),
        Event::Address { link } => ours.contains(link) || uplink.is_none_or(|uplink| uplink == *link),
        // Of the bridge's neighbours and routes none is ours, and those of its pods change with every packet.
        Event::Route { link } | Event::Neighbour { link } => {
            ours.split_last().is_some_and(|(_bridge, devices)| devices.contains(link))
        }
        Event::Nftables { table } => *table == agent_table().name,
        Event::Overrun => true,
    }
}

/// Lets a burst pass by.
async fn debounce(inputs: &mut Inputs, node: &Node) {
    let end = tokio::time::Instant::now() + LONGEST_DEBOUNCE;
    loop {
        tokio::select! {
            () = sleep(DEBOUNCE) => return,
            () = sleep_until(end) => return,
            () = something(inputs, node) => {}
        }
    }
}

fn report_source(source: &SourceStatus, snapshot: Option<&Snapshot>, health: &Health, metrics: &Metrics) {
    if let Some(last_list) = source.last_list {
        metrics.store_age.set(last_list.elapsed().as_secs_f64());
    }
    match (&source.error, snapshot) {
        (Some(error), _) => health.bad(Component::Store, error.clone()),
        (None, None) => health.waiting(Component::Store, "the first list of leases is under way"),
        (None, Some(_)) => health.good(Component::Store, "connected"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_ours_wakes_the_node() {
        let (uplink, devices, bridge, pod) = (2, 4, 5, 9);
        let watched = || (Some(uplink), [devices, bridge]);
        let wakes = |event: Event| {
            let (uplink, ours) = watched();
            concerns(&event, (uplink, &ours))
        };
        assert!(wakes(Event::Link { index: devices }) && wakes(Event::Link { index: bridge }));
        assert!(wakes(Event::Link { index: uplink }) && wakes(Event::Address { link: uplink }));
        assert!(!wakes(Event::Link { index: pod }) && !wakes(Event::Address { link: pod }));
        assert!(wakes(Event::Route { link: devices }) && wakes(Event::Neighbour { link: devices }));
        assert!(!wakes(Event::Neighbour { link: bridge }) && !wakes(Event::Route { link: bridge }));
        assert!(wakes(Event::Nftables { table: "weft".into() }) && !wakes(Event::Nftables { table: "kube".into() }));
        assert!(wakes(Event::Overrun));
    }
}
