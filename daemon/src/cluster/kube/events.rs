//! Takes what happened to the cluster, as events of `events.k8s.io/v1`.
//!
//! The same thing again is no new event but counts up in the first, now and then; of different things only so many go out in a
//! time. What cannot be written is dropped: the log has it.

use std::collections::HashMap;
use std::time::Duration;

use http::Method;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::api::{Api, Write};
use super::watch::encoded;
use crate::cluster::events::{About, Happening};
use crate::cluster::node::NodeName;

/// Longest time that writing one may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// In whose name.
const CONTROLLER: &str = "weft";

/// The same thing after so long is a new event: the API server keeps events for about an hour.
const REMEMBERED: Duration = Duration::from_secs(45 * 60);

/// How often an event is told that it has happened again.
const COUNTED_EVERY: Duration = Duration::from_secs(300);

/// Events that go out at once, and how long it takes until one more may.
const BUDGET: (u32, Duration) = (10, Duration::from_secs(20));

/// Events that are remembered, at most.
const KNOWN: usize = 256;

/// Longest note in bytes, as the API server has it.
const NOTE: usize = 1024;

/// Takes what is told to the cluster until nobody can tell anything any more.
pub async fn run(api: Api, node: NodeName, mut told: mpsc::Receiver<Happening>) {
    let mut desk = Desk::new(node);
    while let Some(happening) = told.recv().await {
        let Some(write) = desk.take(&happening, Instant::now(), Timestamp::now()) else { continue };
        if let Err(refusal) = api.write("events", &write, TIMEOUT).await {
            tracing::debug!(reason = refusal.words, event = happening.reason, "an event was not written");
            desk.forget(&happening);
        }
    }
}

/// What has become of something that happened.
#[derive(Debug)]
struct Sent {
    path: String,
    at: Instant,
    written: Instant,
    count: u32,
}

/// What was sent, and what still may be.
#[derive(Debug)]
struct Desk {
    node: NodeName,
    sent: HashMap<Happening, Sent>,
    /// Events that may go out now.
    budget: u32,
    /// When the budget last grew.
    grew: Option<Instant>,
}

impl Desk {
    fn new(node: NodeName) -> Self {
        Self { node, sent: HashMap::new(), budget: BUDGET.0, grew: None }
    }

    /// What to write so that the cluster knows of this, if anything.
    fn take(&mut self, happening: &Happening, now: Instant, wall: Timestamp) -> Option<Write> {
        self.sent.retain(|_, sent| now.duration_since(sent.at) < REMEMBERED);
        if let Some(sent) = self.sent.get_mut(happening) {
            sent.count += 1;
            if now.duration_since(sent.written) < COUNTED_EVERY {
                return None;
            }
            let (path, count) = (sent.path.clone(), sent.count);
            return self.pay(now).then(|| {
                if let Some(sent) = self.sent.get_mut(happening) {
                    sent.written = now;
                }
                let body = json!({"series": {"count": count, "lastObservedTime": micro(wall)}});
                Write { method: Method::PATCH, path, content_type: "application/merge-patch+json", body }
            });
        }
        if self.sent.len() >= KNOWN || !self.pay(now) {
            return None;
        }
        let (name, namespace) = (self.name(wall), namespace(happening));
        let collection = format!("/apis/events.k8s.io/v1/namespaces/{}/events", encoded(namespace));
        let path = format!("{collection}/{}", encoded(&name));
        self.sent.insert(happening.clone(), Sent { path, at: now, written: now, count: 1 });
        let body = self.body(happening, &name, namespace, wall);
        Some(Write { method: Method::POST, path: collection, content_type: "application/json", body })
    }

    /// It was not written, so that it will be the next time.
    fn forget(&mut self, happening: &Happening) {
        self.sent.remove(happening);
    }

    /// Whether one more may go out.
    fn pay(&mut self, now: Instant) -> bool {
        let since = *self.grew.get_or_insert(now);
        let more = u32::try_from(now.duration_since(since).as_secs() / BUDGET.1.as_secs()).unwrap_or(u32::MAX);
        if more > 0 {
            self.budget = self.budget.saturating_add(more).min(BUDGET.0);
            self.grew = Some(since + BUDGET.1 * more);
        }
        let pays = self.budget > 0;
        self.budget = self.budget.saturating_sub(1);
        pays
    }

    /// A name that no other event has: as clients of Kubernetes make it, of object and time.
    fn name(&self, wall: Timestamp) -> String {
        format!("{}.{:x}", self.node, wall.as_nanosecond())
    }

    fn body(&self, happening: &Happening, name: &str, namespace: &str, wall: Timestamp) -> Value {
        let regarding = match &happening.about {
            // kubelet and kubectl look a Node's events up by its name in the place of its UID.
            About::Node => {
                json!({"apiVersion": "v1", "kind": "Node", "name": self.node.as_str(), "uid": self.node.as_str()})
            }
            About::Service(service) => {
                json!({"apiVersion": "v1", "kind": "Service", "name": &*service.name, "namespace": &*service.namespace})
            }
        };
        let instance: String = format!("{CONTROLLER}-{}", self.node).chars().take(128).collect();
        json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "eventTime": micro(wall),
            "reportingController": CONTROLLER,
            "reportingInstance": instance,
            "regarding": regarding,
            "type": if happening.is_warning { "Warning" } else { "Normal" },
            "reason": happening.reason,
            "action": happening.action,
            "note": cut(&happening.note),
        })
    }
}

/// Events about what is in no namespace stand in this one.
fn namespace(happening: &Happening) -> &str {
    match &happening.about {
        About::Node => "default",
        About::Service(service) => &service.namespace,
    }
}

fn micro(wall: Timestamp) -> String {
    wall.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

fn cut(note: &str) -> &str {
    &note[..note.floor_char_boundary(NOTE)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::services::ObjectName;

    fn desk() -> (Desk, Instant) {
        (Desk::new("n1".parse().unwrap()), Instant::now())
    }

    #[test]
    fn the_same_again_counts_up_now_and_then() {
        let (mut desk, now) = desk();
        let happening = Happening::warning("PodCIDRMissing", "Wait", "none");
        let first = desk.take(&happening, now, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(
            (first.method, first.path.as_str()),
            (Method::POST, "/apis/events.k8s.io/v1/namespaces/default/events")
        );
        assert_eq!(first.body["eventTime"], "1970-01-01T00:00:00.000000Z");
        assert_eq!(first.body["regarding"]["uid"], "n1");
        for seconds in 1..300 {
            assert_eq!(desk.take(&happening, now + Duration::from_secs(seconds), Timestamp::UNIX_EPOCH), None);
        }
        let again = desk.take(&happening, now + COUNTED_EVERY, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!((again.method, &again.body["series"]["count"]), (Method::PATCH, &json!(301)));
        assert!(again.path.ends_with("/events/n1.0"), "{}", again.path);
        let later = desk.take(&happening, now + REMEMBERED, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(later.method, Method::POST);
    }

    #[test]
    fn only_so_many_different_ones_go_out() {
        let (mut desk, now) = desk();
        let take = |desk: &mut Desk, n: u32, now| {
            desk.take(&Happening::warning("R", "A", n.to_string()), now, Timestamp::UNIX_EPOCH).is_some()
        };
        assert_eq!((0..100).filter(|n| take(&mut desk, *n, now)).count(), 10);
        assert!(!take(&mut desk, 200, now + BUDGET.1 - Duration::from_secs(1)));
        assert!(take(&mut desk, 201, now + BUDGET.1));
        assert!(!take(&mut desk, 202, now + BUDGET.1));
    }

    #[test]
    fn an_event_of_a_service_stands_beside_it_and_long_notes_are_cut() {
        let (mut desk, now) = desk();
        let about = About::Service(ObjectName::new("web", "shop"));
        let happening = Happening { about, ..Happening::warning("R", "A", "ä".repeat(2000)) };
        let write = desk.take(&happening, now, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(write.path, "/apis/events.k8s.io/v1/namespaces/web/events");
        assert_eq!(write.body["regarding"]["name"], "shop");
        assert_eq!(write.body["note"].as_str().unwrap().len(), NOTE);
        desk.forget(&happening);
        assert_eq!(desk.take(&happening, now, Timestamp::UNIX_EPOCH).unwrap().method, Method::POST);
    }
}
