//! A node as these tests have it, and what is in its store.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, EventType, GetOptions, PutOptions, WatchOptions};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use weft::cluster::etcd::{Store, source};
use weft::cluster::lease_value::LeaseValue;
use weft::cluster::{BackendData, Layout, NetConf, PerFamily, Snapshot, SourceHandle, SubnetKey};
use weft::lease::{Held, LEASE_TTL, LeaseHandle, LeaseRequest, LeaseState, spawn};

use crate::etcd::LIMIT;

pub(crate) const PREFIX: &str = "/coreos.com/network";
pub(crate) const WIDE: &str = r#"{"Network": "10.244.0.0/16"}"#;
/// Room for three nodes.
pub(crate) const NARROW: &str = r#"{"Network": "10.244.0.0/28", "SubnetLen": 30}"#;

/// What a node says about itself, and the means to say something else.
pub(crate) fn value(ip: &str) -> watch::Sender<LeaseValue> {
    let public_ips = PerFamily { v4: Some(ip.parse().unwrap()), v6: None };
    watch::Sender::new(LeaseValue { public_ips, backend: BackendData::default() })
}

pub(crate) fn request(name: &str, value: &watch::Sender<LeaseValue>, network: &str) -> LeaseRequest {
    LeaseRequest {
        layout: Layout::default(),
        node: name.parse().unwrap(),
        network: NetConf::parse(network.as_bytes()).unwrap().0,
        previous: None,
        ttl: LEASE_TTL,
        renew_margin: Duration::from_secs(3600),
        value: value.subscribe(),
        snapshots: None,
    }
}

/// A node as the agent runs it: a source and a lease over one client.
pub(crate) struct Node {
    pub(crate) lease: LeaseHandle,
    pub(crate) source: SourceHandle,
    pub(crate) value: watch::Sender<LeaseValue>,
    _stop: tokio_util::sync::DropGuard,
}

impl Node {
    pub(crate) fn start(store: Store, name: &str, ip: &str, previous: Option<SubnetKey>) -> Self {
        Self::start_with(store, name, value(ip), previous, WIDE)
    }

    /// One whose lease lasts so long.
    pub(crate) fn start_for(store: Store, name: &str, ip: &str, ttl: Duration) -> Self {
        let value = value(ip);
        let request = LeaseRequest { ttl, ..request(name, &value, WIDE) };
        Self::start_as(store, value, request)
    }

    pub(crate) fn start_with(
        store: Store,
        name: &str,
        value: watch::Sender<LeaseValue>,
        previous: Option<SubnetKey>,
        network: &str,
    ) -> Self {
        let request = LeaseRequest { previous, ..request(name, &value, network) };
        Self::start_as(store, value, request)
    }

    fn start_as(store: Store, value: watch::Sender<LeaseValue>, request: LeaseRequest) -> Self {
        let stop = CancellationToken::new();
        let source = source::spawn(store.clone(), Layout::default(), source::RELIST_INTERVAL, stop.clone());
        let request = LeaseRequest { snapshots: Some(source.snapshots()), ..request };
        Self { lease: spawn(store, request), source, value, _stop: stop.drop_guard() }
    }

    /// The subnets that it holds now.
    pub(crate) fn key(&self) -> SubnetKey {
        match &*self.lease.state().borrow() {
            LeaseState::Held(held) => held.key,
            other => panic!("no subnet: {other:?}"),
        }
    }

    pub(crate) async fn held(&self) -> Held {
        self.held_with(|_| true).await
    }

    pub(crate) async fn held_with(&self, wanted: impl Fn(&Held) -> bool) -> Held {
        let is = |state: &LeaseState| matches!(state, LeaseState::Held(held) if wanted(held));
        match self.state(is).await {
            LeaseState::Held(held) => held,
            _ => unreachable!(),
        }
    }

    pub(crate) async fn state(&self, wanted: impl Fn(&LeaseState) -> bool) -> LeaseState {
        let mut states = self.lease.state();
        let state = timeout(LIMIT, states.wait_for(wanted)).await;
        state.unwrap_or_else(|_| panic!("still {:?}", *self.lease.state().borrow())).unwrap().clone()
    }

    pub(crate) async fn snapshot(&self, wanted: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        let mut snapshots = self.source.snapshots();
        let found = timeout(LIMIT, snapshots.wait_for(|snapshot| snapshot.as_deref().is_some_and(&wanted))).await;
        found.unwrap_or_else(|_| panic!("still {:?}", *self.source.snapshots().borrow())).unwrap().clone().unwrap()
    }
}

/// Keys under `subnets/`, with value, last revision and etcd lease.
pub(crate) async fn leases(client: &Client) -> Vec<(String, String, i64, i64)> {
    let prefix = format!("{PREFIX}/subnets/");
    let answer = client.clone().get(prefix.as_str(), Some(GetOptions::new().with_prefix())).await.unwrap();
    let lease = |kv: &etcd_client::KeyValue| {
        let key = kv.key_str().unwrap().strip_prefix(&prefix).unwrap().to_owned();
        (key, kv.value_str().unwrap().to_owned(), kv.mod_revision(), kv.lease())
    };
    answer.kvs().iter().map(lease).collect()
}

pub(crate) async fn put(client: &Client, key: &str, value: &str) {
    client.clone().put(format!("{PREFIX}/{key}"), value, None).await.unwrap();
}

/// Writes a lease as flannel does.
pub(crate) async fn put_as_flannel(client: &Client, key: &str, ip: &str) -> i64 {
    let granted = client.clone().lease_grant(86_400, None).await.unwrap().id();
    let options = PutOptions::new().with_lease(granted);
    client.clone().put(format!("{PREFIX}/subnets/{key}"), flannel(ip), Some(options)).await.unwrap();
    granted
}

pub(crate) fn flannel(ip: &str) -> String {
    format!(
        r#"{{"PublicIP":"{ip}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}}}}"#
    )
}

/// Goes through everything that was ever written to the leases, and finds no moment at which two of them overlapped.
pub(crate) async fn assert_nothing_ever_overlapped(client: &Client) {
    let prefix = format!("{PREFIX}/subnets/");
    let mut client = client.clone();
    // Something to know the end of the history by.
    let end = client.put("end", "", None).await.unwrap().header().unwrap().revision();
    let options = WatchOptions::new().with_start_revision(1).with_range("z");
    let mut history = client.watch("", Some(options)).await.unwrap();
    let mut live: BTreeSet<SubnetKey> = BTreeSet::new();
    let mut seen = 0;
    while seen < end {
        let part = timeout(LIMIT, history.message()).await.unwrap().unwrap().expect("it goes on");
        for event in part.events() {
            let kv = event.kv().unwrap();
            // What one transaction has written is one moment.
            if kv.mod_revision() != seen {
                assert_apart(&live, seen);
            }
            seen = kv.mod_revision();
            let Some(key) = kv.key_str().unwrap().strip_prefix(&prefix) else { continue };
            let key: SubnetKey = key.parse().unwrap();
            match event.event_type() {
                EventType::Delete => assert!(live.remove(&key)),
                EventType::Put => {
                    live.insert(key);
                }
            }
        }
    }
}

fn assert_apart(live: &BTreeSet<SubnetKey>, revision: i64) {
    for key in live {
        let other = live.iter().find(|other| *other != key && other.overlaps(key));
        assert_eq!(other, None, "beside {key} at {revision}");
    }
}
