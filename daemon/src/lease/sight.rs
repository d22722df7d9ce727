//! Noticing in the source's snapshots that the own lease is not as the machine left it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::plan::Holding;
use crate::cluster::model::{Lease, Snapshot};

/// How far the source may be behind the machine before that is looked into.
const SOURCE_LAG: Duration = Duration::from_millis(200);

/// What the source sees of the own lease.
#[derive(Debug)]
pub(super) struct Sight {
    snapshots: Option<watch::Receiver<Option<Arc<Snapshot>>>>,
    /// The last snapshot that was reported; once is enough, whatever came of it.
    reported: Option<Arc<Snapshot>>,
}

impl Sight {
    /// Without a source nothing is ever seen.
    pub(super) const fn new(snapshots: Option<watch::Receiver<Option<Arc<Snapshot>>>>) -> Self {
        Self { snapshots, reported: None }
    }

    /// Resolves when a snapshot contradicts what the machine found in the store; never while it holds no lease. Can be
    /// dropped and called again at any time.
    pub(super) async fn of_another_state(&mut self, running: Option<&Holding>) {
        let (Some(snapshots), Some(running)) = (&mut self.snapshots, running) else {
            return std::future::pending().await;
        };
        loop {
            let seen = snapshots.borrow_and_update().clone();
            let doubt = seen.filter(|snapshot| {
                let reported = self.reported.as_ref().is_some_and(|reported| Arc::ptr_eq(reported, snapshot));
                !reported && contradicts(snapshot, running)
            });
            let closed = match doubt {
                Some(snapshot) if snapshot.revision > running.revision => {
                    self.reported = Some(snapshot);
                    return;
                }
                // Older than what the machine knows: the source is a moment behind, or the store has lost its history.
                Some(snapshot) => match timeout(SOURCE_LAG, snapshots.changed()).await {
                    Ok(changed) => changed.is_err(),
                    Err(_) => {
                        self.reported = Some(snapshot);
                        return;
                    }
                },
                None => snapshots.changed().await.is_err(),
            };
            if closed {
                return std::future::pending().await;
            }
        }
    }
}

/// Whether a snapshot shows another lease, a lease without its node's record, or another network configuration than the machine
/// found.
pub(super) fn contradicts(snapshot: &Snapshot, running: &Holding) -> bool {
    let as_published = |lease: &Lease| {
        let is_as_said = lease.public_ips == running.published.public_ips && lease.backend == running.published.backend;
        is_as_said && lease.node.is_some()
    };
    !(snapshot.leases.get(&running.key).is_some_and(as_published)
        && snapshot.config.as_ref() == Some(&running.config_text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::family::PerFamily;
    use crate::cluster::lease_value::{BackendData, LeaseValue};
    use crate::cluster::netconf::NetConf;
    use crate::lease::plan::Usage;

    const CONFIG: &[u8] = br#"{"Network": "10.244.0.0/16"}"#;

    fn holding(revision: i64) -> Holding {
        Holding {
            key: "10.244.7.0-24".parse().unwrap(),
            published: LeaseValue {
                public_ips: PerFamily { v4: Some("192.0.2.1".parse().unwrap()), v6: None },
                backend: BackendData::default(),
            },
            revision,
            config: Arc::new(NetConf::parse(CONFIG).unwrap().0),
            config_text: CONFIG.to_vec(),
            etcd_lease: 5,
            usage: Usage { used: 1, total: 255 },
            notice: None,
        }
    }

    fn agreeing(revision: i64) -> Snapshot {
        let Holding { key, published, .. } = holding(revision);
        let lease = Lease {
            key,
            public_ips: published.public_ips,
            backend: published.backend,
            node: Some("n1".parse().unwrap()),
            create_revision: 1,
        };
        Snapshot { revision, config: Some(CONFIG.to_vec()), leases: [(key, lease)].into(), rejected: vec![] }
    }

    /// Long enough for a report of a snapshot that is older than what is known.
    const PATIENCE: Duration = Duration::from_secs(2);

    #[tokio::test]
    async fn a_contradiction_is_reported_once() {
        let sender = watch::Sender::new(Some(Arc::new(agreeing(9))));
        let mut sight = Sight::new(Some(sender.subscribe()));
        let running = holding(9);
        let seen = async |sight: &mut Sight| timeout(PATIENCE, sight.of_another_state(Some(&running))).await.is_ok();
        assert!(!seen(&mut sight).await, "nothing to see");
        for revision in [10, 3] {
            sender.send_replace(Some(Arc::new(Snapshot { revision, ..Snapshot::default() })));
            assert!(seen(&mut sight).await, "the lease is gone at {revision}");
            assert!(!seen(&mut sight).await, "known at {revision}");
        }
        let mut nameless = agreeing(10);
        nameless.leases.values_mut().for_each(|lease| lease.node = None);
        sender.send_replace(Some(Arc::new(nameless)));
        assert!(seen(&mut sight).await, "the node's record is gone");
        let mut changed = agreeing(11);
        changed.config = None;
        sender.send_replace(Some(Arc::new(changed)));
        assert!(seen(&mut sight).await, "the configuration is gone");
        assert!(timeout(PATIENCE, sight.of_another_state(None)).await.is_err(), "no lease, nothing to contradict");
    }
}
