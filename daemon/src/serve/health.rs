//! Whether the agent lives, and whether its node is ready for pods.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Without a pass for so long the agent hangs, and restarting it helps.
const DEAD_AFTER: Duration = Duration::from_secs(120);

/// What must be right before the node is ready for pods, in the order in which it comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Component {
    /// The interface under the overlay.
    Uplink,
    /// The first complete list of leases.
    Store,
    /// The node's subnet.
    Lease,
    /// VXLAN devices and bridge.
    Links,
    /// Neighbours, FDB entries and routes of the other nodes.
    Peers,
    /// Masquerade and forward rules.
    Filter,
    /// Others' rules that pods' packets have to pass.
    Forward,
    /// Subnet file, plugin and conflist.
    Publish,
    /// Services. Behind everything else: pods may come before their Services do.
    Services,
}

impl Component {
    const ALL: [Self; 9] = [
        Self::Uplink,
        Self::Store,
        Self::Lease,
        Self::Links,
        Self::Peers,
        Self::Filter,
        Self::Forward,
        Self::Publish,
        Self::Services,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Uplink => "uplink",
            Self::Store => "store",
            Self::Lease => "lease",
            Self::Links => "links",
            Self::Peers => "peers",
            Self::Filter => "filter",
            Self::Forward => "forward",
            Self::Publish => "publish",
            Self::Services => "services",
        }
    }
}

/// How a component is, as `/status` tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// It is right.
    Good,
    /// It waits for something that is not its fault, or has not begun.
    Waiting,
    /// It is wrong.
    Bad,
}

/// One component with its condition, as `/status` tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentStatus {
    /// Its name, as in `/readyz`.
    pub name: String,
    /// How it is.
    pub condition: Condition,
    /// What was found, or why it is not right.
    pub words: String,
}

/// The state of one component.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Waiting(String),
    Good(String),
    Bad(String),
}

#[derive(Debug)]
struct Inner {
    components: BTreeMap<Component, State>,
    /// Once ready, the node stays ready while its data plane stands, whatever a component reports later.
    was_ready: bool,
    revision: u64,
    last_pass: Instant,
}

/// The agent's health. Shared: written by the agent, read by the server.
#[derive(Debug)]
pub struct Health(Mutex<Inner>);

impl Default for Health {
    fn default() -> Self {
        Self(Mutex::new(Inner {
            components: BTreeMap::new(),
            was_ready: false,
            revision: 0,
            last_pass: Instant::now(),
        }))
    }
}

impl Health {
    /// A component is right; `words` say what was found.
    pub fn good(&self, component: Component, words: impl Into<String>) {
        self.set(component, &State::Good(words.into()));
    }

    /// A component waits for something that is not its fault.
    pub fn waiting(&self, component: Component, reason: impl Into<String>) {
        self.set(component, &State::Waiting(reason.into()));
    }

    /// A component is wrong.
    pub fn bad(&self, component: Component, reason: impl Into<String>) {
        self.set(component, &State::Bad(reason.into()));
    }

    /// A pass over all tables has ended; returns its revision. Who waits for a change waits for a revision that began
    /// after it, never for time.
    pub fn passed(&self) -> u64 {
        let mut inner = self.lock();
        inner.revision += 1;
        inner.last_pass = Instant::now();
        inner.revision
    }

    /// Whether everything up to, and without, a component is right now.
    #[must_use]
    pub fn good_before(&self, last: Component) -> bool {
        let inner = self.lock();
        let mut before = Component::ALL.iter().take_while(|component| **component < last);
        before.all(|component| matches!(inner.components.get(component), Some(State::Good(_))))
    }

    /// Whether the agent's loop still turns.
    #[must_use]
    pub fn alive(&self) -> bool {
        self.lock().last_pass.elapsed() < DEAD_AFTER
    }

    /// Whether the node takes pods, and a line for each component that says why or why not.
    ///
    /// A node that was ready stays so while its store is out of reach, or single peers cannot be programmed: the rest of
    /// its data plane forwards, and taking it out of service would only spread the outage.
    #[must_use]
    pub fn readiness(&self) -> (bool, String) {
        let mut inner = self.lock();
        let mut now_ready = true;
        let mut text = String::new();
        for component in Component::ALL {
            let (mark, words) = match inner.components.get(&component) {
                Some(State::Good(words)) => ("+", words.as_str()),
                Some(State::Waiting(reason)) => ("-", reason.as_str()),
                Some(State::Bad(reason)) => ("!", reason.as_str()),
                None => ("-", "not begun"),
            };
            let spared =
                inner.was_ready && matches!(component, Component::Store | Component::Lease | Component::Uplink);
            now_ready &= mark == "+" || spared;
            // Writing into a String cannot fail.
            let _ = writeln!(text, "[{mark}] {}: {words}", component.name());
        }
        inner.was_ready |= now_ready;
        let _ = writeln!(text, "revision {}", inner.revision);
        (now_ready, text)
    }

    /// All components in their order, and the revision.
    #[must_use]
    pub fn components(&self) -> (Vec<ComponentStatus>, u64) {
        let inner = self.lock();
        let status = |component: Component| {
            let (condition, words) = match inner.components.get(&component) {
                Some(State::Good(words)) => (Condition::Good, words.as_str()),
                Some(State::Waiting(reason)) => (Condition::Waiting, reason.as_str()),
                Some(State::Bad(reason)) => (Condition::Bad, reason.as_str()),
                None => (Condition::Waiting, "not begun"),
            };
            ComponentStatus { name: component.name().to_owned(), condition, words: words.to_owned() }
        };
        (Component::ALL.into_iter().map(status).collect(), inner.revision)
    }

    fn set(&self, component: Component, state: &State) {
        let mut inner = self.lock();
        let before = inner.components.insert(component, state.clone());
        drop(inner);
        if before.as_ref() == Some(state) {
            return;
        }
        match state {
            State::Good(words) => tracing::info!(component = component.name(), "{words}"),
            State::Waiting(reason) => tracing::info!(component = component.name(), "waiting: {reason}"),
            State::Bad(reason) => tracing::warn!(component = component.name(), "{reason}"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The state is whole after every statement above, so a panic elsewhere has not broken it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready() -> Health {
        let health = Health::default();
        for component in Component::ALL {
            health.good(component, "fine");
        }
        health
    }

    #[test]
    fn not_ready_says_why() {
        let health = Health::default();
        health.good(Component::Uplink, "eth0");
        health.waiting(Component::Lease, "no subnet is free");
        let (is_ready, text) = health.readiness();
        assert!(!is_ready);
        assert!(text.contains("[+] uplink: eth0") && text.contains("[-] lease: no subnet is free"), "{text}");
        assert!(text.contains("[-] peers: not begun"), "{text}");
    }

    #[test]
    fn a_lost_store_does_not_take_a_ready_node_out_of_service() {
        let health = ready();
        assert!(health.readiness().0);
        health.bad(Component::Store, "connection refused");
        let (is_ready, text) = health.readiness();
        assert!(is_ready && text.contains("[!] store: connection refused"), "{text}");
        health.bad(Component::Links, "flannel.1 cannot be made");
        assert!(!health.readiness().0, "a broken data plane does");
    }

    #[test]
    fn a_lost_store_keeps_a_new_node_from_being_ready() {
        let health = ready();
        health.bad(Component::Store, "connection refused");
        assert!(!health.readiness().0);
    }

    #[test]
    fn revisions_grow() {
        let health = Health::default();
        assert_eq!((health.passed(), health.passed()), (1, 2));
        assert!(health.alive());
    }
}
