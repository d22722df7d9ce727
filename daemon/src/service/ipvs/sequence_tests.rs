//! Sequences of changes, faults and restarts, which all end as a fresh start does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::backend::Applied;
use super::bench_node::{LIMIT, Node, foreign, target};
use super::plan::tests::port;
use super::problem::Error;
use crate::cluster::services::Protocol;
use crate::service::model::PortPlan;

/// What may happen to a node.
#[derive(Debug, Clone)]
enum Event {
    /// A port changes to these backends.
    Change(u8, Vec<u8>),
    /// A port goes.
    Remove(u8),
    /// Time passes.
    Wait(u16),
    /// The agent is restarted.
    Restart,
    /// The kernel is compared.
    Audit,
    /// Somebody deletes a virtual server.
    Tamper(u8),
    /// The next but so many calls of the kernel fails.
    Fail(u8),
    /// A backend has so many connections.
    Connect(u8, u8, u8),
}

fn any_event() -> impl Strategy<Value = Event> {
    let port = 0u8..5;
    prop_oneof![
        4 => (port.clone(), proptest::collection::vec(1u8..6, 0..4)).prop_map(|(p, b)| Event::Change(p, b)),
        1 => port.clone().prop_map(Event::Remove),
        2 => (0u16..200).prop_map(Event::Wait),
        1 => Just(Event::Restart),
        1 => Just(Event::Audit),
        1 => port.clone().prop_map(Event::Tamper),
        1 => (0u8..4).prop_map(Event::Fail),
        2 => (port, 1u8..6, 0u8..3).prop_map(|(p, b, c)| Event::Connect(p, b, c)),
    ]
}

/// Port `n` with these backends: TCP and UDP, and two that share an address.
fn numbered(n: u8, backends: &[u8]) -> Arc<PortPlan> {
    let protocol = if n.is_multiple_of(2) { Protocol::Tcp } else { Protocol::Udp };
    let backends: Vec<String> = backends.iter().map(|last| format!("10.0.0.{last}:80")).collect();
    let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
    Arc::new(port(&format!("s{n}"), protocol, &format!("10.96.0.{}:80", n / 2), &backends))
}

proptest! {
    /// Whatever happens, in the end the kernel is as after a fresh start from the last state of the cluster.
    #[test]
    fn any_sequence_ends_as_a_fresh_start(events in proptest::collection::vec(any_event(), 1..40)) {
        let mut node = Node::new();
        let alien = foreign(&node, "192.0.2.1:6443");
        node.start(&[]);
        let mut cluster = BTreeMap::new();
        for event in events {
            let retry = |node: &mut Node, done: Result<Applied, Error>| {
                let applied = done.or_else(|_| node.services.proceed(node.now)).unwrap();
                node.finish(applied);
                node.kernel.tables().fails_after = None;
            };
            match event {
                Event::Change(n, backends) => {
                    let port = numbered(n, &backends);
                    cluster.insert(n, Arc::clone(&port));
                    let done = node.services.sync(&[port], &[], node.now);
                    retry(&mut node, done);
                }
                Event::Remove(n) => {
                    cluster.remove(&n);
                    let done = node.services.sync(&[], &[numbered(n, &[]).key.clone()], node.now);
                    retry(&mut node, done);
                }
                Event::Wait(seconds) => {
                    node.now += Duration::from_secs(seconds.into());
                    let done = node.services.tick(node.now);
                    retry(&mut node, done);
                }
                Event::Restart => {
                    node.kernel.tables().fails_after = None;
                    let ports: Vec<_> = cluster.values().cloned().collect();
                    node.restart(&ports);
                }
                Event::Audit => {
                    let done = node.services.audit(node.now);
                    retry(&mut node, done);
                }
                Event::Tamper(n) => {
                    node.kernel.tables().fails_after = None;
                    let target = target(&numbered(n, &[]));
                    // Its door leads to nothing until the next audit.
                    node.kernel.tables().servers.remove(&target);
                    node.audit();
                }
                Event::Fail(after) => node.kernel.tables().fails_after = Some(after.into()),
                Event::Connect(n, backend, count) => {
                    node.connect(&numbered(n, &[]), &format!("10.0.0.{backend}:80"), count.into());
                }
            }
        }
        node.kernel.tables().fails_after = None;
        node.audit();
        node.kernel.tables().connections.clear();
        node.wait(2 * LIMIT);
        node.wait(2 * LIMIT);

        let mut fresh = Node::new();
        foreign(&fresh, "192.0.2.1:6443");
        let ports: Vec<_> = cluster.values().cloned().collect();
        fresh.start(&ports);
        prop_assert_eq!(&node.kernel.tables().servers, &fresh.kernel.tables().servers);
        prop_assert_eq!(&node.doors, &fresh.doors);
        prop_assert!(node.kernel.tables().servers.contains_key(&alien));
        prop_assert_eq!(node.services.wake(), None);
        prop_assert_eq!(node.audit().messages, 0);
    }
}
