//! Between the sources and the node: what the cluster last said stands in for a store that cannot be reached at the start.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::source::Leases;
use crate::cluster::last_known::{FILE, LastKnown, LastKnownError, now};
use crate::cluster::{NodeName, Snapshot};
use crate::config::{AgentConfig, SourceKind};
use crate::lease::plan::Usage;
use crate::lease::{Held, LeaseState};

const TIMES: Times = Times {
    // How long a store may take to answer before what was last known stands in.
    patience: Duration::from_secs(5),
    // What is new is written after so long: with many nodes starting, one write does for all.
    gather: Duration::from_secs(10),
    // How often it is written again that what is there is still true, where a lease's time counts.
    refresh: Duration::from_secs(300),
};

/// What the node goes by.
pub(super) struct Known {
    pub(super) lease: watch::Receiver<LeaseState>,
    pub(super) snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    /// Whether that is what was last known, and no word of the source yet.
    pub(super) stands_in: watch::Receiver<bool>,
}

/// How long everything takes.
struct Times {
    patience: Duration,
    gather: Duration,
    refresh: Duration,
}

/// Starts to keep what is known, and to give it out until the source has something to say.
pub(super) fn keep(config: &AgentConfig, leases: &Leases, stop: CancellationToken) -> Known {
    let settings = &config.settings;
    let (lease_in, snapshots_in) = (leases.own.state(), leases.source.snapshots());
    let (lease, lease_out) = watch::channel(lease_in.borrow().clone());
    let (snapshots, snapshots_out) = watch::channel(None);
    let (stands_in, stands_in_out) = watch::channel(false);
    // A podCIDR is the node's for as long as its Node is there. A lease in etcd ends if nobody renews it, which is done
    // this long before its end at the latest.
    let lasts = (settings.source == SourceKind::Etcd).then(|| settings.subnet_lease_renew_margin.duration());
    let keeper = Keeper {
        node: settings.node_name.clone(),
        path: settings.state_dir.join(FILE),
        lasts,
        lease_in,
        snapshots_in,
        status: leases.source.status(),
        lease,
        snapshots,
        stands_in,
        written: None,
        writing: None,
        times: TIMES,
    };
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = keeper.run() => {}
        }
    });
    Known { lease: lease_out, snapshots: snapshots_out, stands_in: stands_in_out }
}

struct Keeper {
    node: NodeName,
    path: PathBuf,
    /// For how long the own subnet is this node's without a word from the store.
    lasts: Option<Duration>,
    lease_in: watch::Receiver<LeaseState>,
    snapshots_in: watch::Receiver<Option<Arc<Snapshot>>>,
    status: watch::Receiver<crate::cluster::SourceStatus>,
    lease: watch::Sender<LeaseState>,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    stands_in: watch::Sender<bool>,
    /// What the file says, and since when.
    written: Option<Written>,
    /// The write that is under way.
    writing: Option<JoinHandle<io::Result<()>>>,
    times: Times,
}

struct Written {
    held: Held,
    snapshot: Arc<Snapshot>,
    at: Instant,
}

impl Keeper {
    async fn run(mut self) {
        let mut stand_in = Some(Instant::now() + self.times.patience);
        let mut write_at = None;
        loop {
            self.pass_on();
            if self.snapshots_in.borrow().is_some() {
                stand_in = None;
            }
            write_at = write_at.or_else(|| self.is_news().then(|| Instant::now() + self.times.gather));
            // That it is still true matters only where a lease's time counts.
            let refresh = self.written.as_ref().filter(|_| self.lasts.is_some());
            let refresh = refresh.map(|written| written.at + self.times.refresh);
            let write = write_at.or(refresh).filter(|_| self.writing.is_none());
            tokio::select! {
                changed = self.lease_in.changed() => if changed.is_err() { return },
                changed = self.snapshots_in.changed() => if changed.is_err() { return },
                () = due(stand_in) => {
                    stand_in = None;
                    self.stand_in();
                }
                () = due(write) => {
                    write_at = None;
                    self.write();
                }
                outcome = ended(&mut self.writing) => {
                    self.writing = None;
                    if let Err(error) = outcome {
                        tracing::warn!("{} cannot be written: {error}", self.path.display());
                    }
                }
            }
        }
    }

    /// Gives out what the source says. Nothing is no word: what stands in for it stays.
    fn pass_on(&mut self) {
        let lease = self.lease_in.borrow_and_update().clone();
        let snapshot = self.snapshots_in.borrow_and_update().clone();
        let stands_in = snapshot.is_none() && *self.stands_in.borrow();
        if !(stands_in && matches!(lease, LeaseState::Acquiring { .. })) {
            self.lease.send_if_modified(|known| {
                let is_news = *known != lease;
                *known = lease;
                is_news
            });
        }
        if let Some(snapshot) = snapshot {
            self.stands_in.send_replace(false);
            self.snapshots.send_if_modified(|known| {
                let is_news = !known.as_ref().is_some_and(|known| Arc::ptr_eq(known, &snapshot));
                *known = Some(snapshot);
                is_news
            });
        }
    }

    /// Gives out what was last known.
    fn stand_in(&self) {
        let known = match LastKnown::read(&self.path, &self.node) {
            Ok(known) => known,
            Err(LastKnownError::Unreadable(error)) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                tracing::warn!("{} is of no use: {error}", self.path.display());
                return;
            }
        };
        let age = known.age();
        // With a clock that has gone back nobody knows how old it is.
        if self.lasts.is_some_and(|lasts| age.is_none_or(|age| age >= lasts)) {
            tracing::warn!(?age, "what was last known is too old: the subnet may be another node's by now");
            return;
        }
        tracing::warn!(
            ?age,
            peers = known.leases.len(),
            "the store has not been reached; going by what was last known"
        );
        let held = Held {
            key: known.key,
            published: known.published.clone(),
            config: Arc::new(known.config.clone()),
            usage: Usage { used: known.leases.len() as u128, total: 0 },
            notice: Some("as last known: the store has not been reached since the start".to_owned()),
        };
        self.stands_in.send_replace(true);
        self.snapshots.send_replace(Some(Arc::new(known.snapshot())));
        if matches!(*self.lease_in.borrow(), LeaseState::Acquiring { .. }) {
            self.lease.send_replace(LeaseState::Held(held));
        }
    }

    /// What is known now; `None` unless the source itself says all of it.
    fn known(&self) -> Option<(Held, Arc<Snapshot>)> {
        let LeaseState::Held(held) = &*self.lease_in.borrow() else { return None };
        Some((held.clone(), self.snapshots_in.borrow().clone()?))
    }

    /// Whether the file says something else.
    fn is_news(&self) -> bool {
        let Some((held, snapshot)) = self.known() else { return false };
        let facts = |held: &Held| (held.key, held.published.clone(), Arc::clone(&held.config));
        self.written.as_ref().is_none_or(|written| {
            facts(&written.held) != facts(&held)
                || !(Arc::ptr_eq(&written.snapshot, &snapshot) || written.snapshot.leases == snapshot.leases)
        })
    }

    fn write(&mut self) {
        let at = Instant::now();
        // What nobody watches is not known to be true.
        if !self.status.borrow().watching {
            if let Some(written) = &mut self.written {
                written.at = at;
            }
            return;
        }
        let Some((held, snapshot)) = self.known() else { return };
        let known = LastKnown {
            node: self.node.clone(),
            at: now(),
            key: held.key,
            published: held.published.clone(),
            config: (*held.config).clone(),
            leases: snapshot.leases.clone(),
        };
        // A disk takes its time, and the agent has one thread for everything.
        let path = self.path.clone();
        self.writing = Some(spawn_blocking(move || known.write(&path)));
        self.written = Some(Written { held, snapshot, at });
    }
}

/// The end of a write; never, if there is none.
async fn ended(writing: &mut Option<JoinHandle<io::Result<()>>>) -> io::Result<()> {
    match writing {
        Some(writing) => writing.await.unwrap_or_else(|error| Err(io::Error::other(error))),
        None => std::future::pending().await,
    }
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::cluster::lease_value::LeaseValue;
    use crate::cluster::{NetConf, SourceStatus};

    /// The ends of a keeper's channels.
    struct Around {
        lease: watch::Sender<LeaseState>,
        snapshots: watch::Sender<Option<Arc<Snapshot>>>,
        _status: watch::Sender<SourceStatus>,
        known: Known,
    }

    fn start(path: PathBuf, lasts: Option<Duration>) -> Around {
        let acquiring = LeaseState::Acquiring { reason: "nobody answers".to_owned() };
        let (lease, lease_in) = watch::channel(acquiring.clone());
        let (snapshots, snapshots_in) = watch::channel(None);
        let (status, status_in) = watch::channel(SourceStatus { watching: true, ..SourceStatus::default() });
        let (lease_to, lease_out) = watch::channel(acquiring);
        let (snapshots_to, snapshots_out) = watch::channel(None);
        let (stands_in, stands_in_out) = watch::channel(false);
        let short = Duration::from_millis(20);
        let keeper = Keeper {
            node: "n1".parse().unwrap(),
            path,
            lasts,
            lease_in,
            snapshots_in,
            status: status_in,
            lease: lease_to,
            snapshots: snapshots_to,
            stands_in,
            written: None,
            writing: None,
            times: Times { patience: short, gather: short, refresh: short },
        };
        tokio::spawn(keeper.run());
        let known = Known { lease: lease_out, snapshots: snapshots_out, stands_in: stands_in_out };
        Around { lease, snapshots, _status: status, known }
    }

    fn held(key: &str) -> LeaseState {
        LeaseState::Held(Held {
            key: key.parse().unwrap(),
            published: LeaseValue::parse(br#"{"PublicIP": "192.0.2.1"}"#).unwrap(),
            config: Arc::new(NetConf::parse(br#"{"Network": "10.244.0.0/16"}"#).unwrap().0),
            usage: Usage { used: 1, total: 256 },
            notice: None,
        })
    }

    async fn has_subnet(known: &mut Known, key: &str) {
        let has = |state: &LeaseState| matches!(state, LeaseState::Held(held) if held.key.to_string() == key);
        timeout(Duration::from_secs(30), known.lease.wait_for(has)).await.expect("it never got there").unwrap();
    }

    #[tokio::test]
    async fn a_node_that_starts_without_its_store_goes_by_what_it_last_knew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        let mut first = start(path.clone(), None);
        first.lease.send_replace(held("10.244.1.0-24"));
        first.snapshots.send_replace(Some(Arc::new(Snapshot { revision: 7, ..Snapshot::default() })));
        has_subnet(&mut first.known, "10.244.1.0-24").await;
        assert!(!*first.known.stands_in.borrow());
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        drop(first);

        let mut second = start(path.clone(), None);
        has_subnet(&mut second.known, "10.244.1.0-24").await;
        assert!(*second.known.stands_in.borrow() && second.known.snapshots.borrow().is_some());
        // The store's first word counts, whatever it is.
        second.lease.send_replace(held("10.244.9.0-24"));
        second.snapshots.send_replace(Some(Arc::new(Snapshot { revision: 9, ..Snapshot::default() })));
        has_subnet(&mut second.known, "10.244.9.0-24").await;
        assert!(!*second.known.stands_in.borrow());
        drop(second);

        // What may be another node's by now is not taken.
        let third = start(path, Some(Duration::ZERO));
        let mut lease = third.known.lease.clone();
        tokio::time::sleep(Duration::from_millis(1100)).await;
        drop(third);
        assert!(matches!(*lease.borrow_and_update(), LeaseState::Acquiring { .. }));
    }

    #[tokio::test]
    async fn what_is_still_true_is_written_again_only_where_a_leases_time_counts() {
        for (lasts, again) in [(Some(Duration::from_secs(3600)), true), (None, false)] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join(FILE);
            let around = start(path.clone(), lasts);
            around.lease.send_replace(held("10.244.1.0-24"));
            around.snapshots.send_replace(Some(Arc::new(Snapshot::default())));
            let there = async {
                while !path.exists() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            timeout(Duration::from_secs(30), there).await.expect("it is news");
            std::fs::remove_file(&path).unwrap();
            // Many times longer than a refresh takes.
            let patience = if again { Duration::from_secs(30) } else { Duration::from_millis(500) };
            let there = async {
                while !path.exists() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            assert_eq!(timeout(patience, there).await.is_ok(), again, "{lasts:?}");
        }
    }

    #[tokio::test]
    async fn with_a_clock_that_has_gone_back_a_lease_is_too_old_and_a_pod_cidr_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        let LeaseState::Held(held) = held("10.244.1.0-24") else { panic!() };
        let known = LastKnown {
            node: "n1".parse().unwrap(),
            at: now() + 3600,
            key: held.key,
            published: held.published,
            config: (*held.config).clone(),
            leases: std::collections::BTreeMap::new(),
        };
        known.write(&path).unwrap();
        let mut kube = start(path.clone(), None);
        has_subnet(&mut kube.known, "10.244.1.0-24").await;
        let etcd = start(path, Some(Duration::from_secs(3600)));
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(matches!(*etcd.known.lease.borrow(), LeaseState::Acquiring { .. }));
    }
}
