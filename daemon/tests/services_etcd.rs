//! Services and slices from a real etcd.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

#[expect(dead_code, reason = "these tests take less of it than others do")]
mod etcd;

use std::time::Duration;

use etcd::{Etcd, LIMIT, Wire};
use etcd_client::{Client, Txn, TxnOp};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use weft::cluster::Layout;
use weft::cluster::etcd::{Store, services};
use weft::cluster::services::{Changed, ObjectName, ServicesHandle, ServicesStatus};
use weft::service::model::{NodeView, PlanOptions, ServiceTable};

fn name(text: &str) -> ObjectName {
    ObjectName::new("default", text)
}

fn service_key(text: &str) -> String {
    Layout::default().service(&name(text))
}

fn slice_key(text: &str) -> String {
    Layout::default().endpoint_slice(&name(text))
}

fn node_key(text: &str) -> String {
    Layout::default().node_object(&text.parse().unwrap())
}

fn node(text: &str, zone: &str, taint: &str) -> String {
    format!(
        r#"{{"kind":"Node","metadata":{{"name":"{text}","labels":{{"topology.kubernetes.io/zone":"{zone}"}}}},
            "spec":{{"taints":[{{"key":"{taint}","effect":"NoSchedule"}}]}}}}"#
    )
}

fn service(n: usize) -> String {
    let (high, low) = (n / 250, n % 250 + 1);
    format!(
        r#"{{"kind":"Service","metadata":{{"namespace":"default","name":"s{n}"}},
            "spec":{{"clusterIP":"172.30.{high}.{low}","ports":[{{"port":80}}]}}}}"#
    )
}

fn slice(n: usize, address: &str) -> String {
    format!(
        r#"{{"kind":"EndpointSlice","metadata":{{"namespace":"default","name":"s{n}-1",
            "labels":{{"kubernetes.io/service-name":"s{n}"}}}},"addressType":"IPv4",
            "ports":[{{"name":"","port":8080}}],"endpoints":[{{"addresses":["{address}"]}}]}}"#
    )
}

/// A source, and what has been heard of it.
struct Source {
    handle: ServicesHandle,
    _stop: DropGuard,
}

impl Source {
    fn start(store: Store, relist: Duration) -> Self {
        let stop = CancellationToken::new();
        let handle = services::spawn(store, Layout::default(), &"n1".parse().unwrap(), relist, stop.clone());
        Self { handle, _stop: stop.drop_guard() }
    }

    async fn status(&self, wanted: impl Fn(&ServicesStatus) -> bool) -> ServicesStatus {
        let mut status = self.handle.status();
        let found = timeout(LIMIT, status.wait_for(wanted)).await;
        found.unwrap_or_else(|_| panic!("still {:?}", *self.handle.status().borrow())).unwrap().clone()
    }

    /// Waits until what `revision` wrote has been taken in.
    async fn reached(&self, revision: i64) -> ServicesStatus {
        self.status(|status| status.revision >= revision).await
    }

    /// The Services there are, by name.
    fn names(&self) -> Vec<String> {
        let all = self.handle.store().take_all().0;
        let mut names: Vec<String> = all.iter().map(|service| service.name.name.to_string()).collect();
        names.sort();
        names
    }

    /// The zone of the node, if anything is known of it, and whether it is leaving.
    fn node(&self) -> Option<(String, bool)> {
        let node = self.handle.store().node()?;
        Some((node.zone.as_deref().unwrap_or_default().to_owned(), node.is_leaving))
    }

    fn find(&self, text: &str) -> Changed {
        let wanted = name(text);
        self.handle.store().take_all().0.into_iter().find(|service| service.name == wanted).unwrap()
    }

    fn address(&self, text: &str) -> String {
        self.find(text).slices[0].endpoints[0].address.to_string()
    }
}

async fn put(client: &Client, key: &str, value: impl Into<Vec<u8>>) -> i64 {
    client.clone().put(key, value, None).await.unwrap().header().unwrap().revision()
}

async fn delete(client: &Client, key: &str) -> i64 {
    client.clone().delete(key, None).await.unwrap().header().unwrap().revision()
}

async fn txn(client: &Client, writes: Vec<TxnOp>) -> i64 {
    client.clone().txn(Txn::new().and_then(writes)).await.unwrap().header().unwrap().revision()
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_come_change_and_go() {
    let etcd = Etcd::start().await;
    let client = etcd.client().await;
    put(&client, &service_key("s1"), service(1)).await;
    put(&client, &slice_key("s1-1"), slice(1, "10.180.0.1")).await;
    let source = Source::start(etcd.store(), services::RELIST_INTERVAL);
    source.status(|status| status.watching).await;
    assert!(source.handle.store().synced());
    assert_eq!(source.address("s1"), "10.180.0.1");
    source.reached(put(&client, &slice_key("s1-1"), slice(1, "10.180.0.2")).await).await;
    assert_eq!(source.address("s1"), "10.180.0.2");
    put(&client, &slice_key("s2-1"), slice(2, "10.180.0.3")).await;
    source.reached(put(&client, &service_key("s2"), service(2)).await).await;
    assert_eq!(source.names(), ["s1", "s2"]);
    assert_eq!(source.address("s2"), "10.180.0.3");
    delete(&client, &slice_key("s2-1")).await;
    source.reached(delete(&client, &service_key("s1")).await).await;
    assert_eq!(source.names(), ["s2"]);
    assert!(source.find("s2").slices.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn t22_an_empty_store_is_a_whole_list() {
    let etcd = Etcd::start().await;
    let source = Source::start(etcd.store(), services::RELIST_INTERVAL);
    source.status(|status| status.watching).await;
    assert!(source.handle.store().synced() && source.handle.store().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn t54_t81_the_nodes_own_object_comes_changes_and_goes() {
    let etcd = Etcd::start().await;
    let client = etcd.client().await;
    put(&client, &node_key("n2"), node("n2", "z", "x")).await;
    let source = Source::start(etcd.store(), Duration::from_millis(200));
    source.status(|status| status.watching).await;
    assert_eq!(source.node(), None);
    let zone = |zone: &str| Some((zone.to_owned(), false));
    source.reached(put(&client, &node_key("n1"), node("n1", "a", "x")).await).await;
    assert_eq!(source.node(), zone("a"));
    source.reached(put(&client, &node_key("n1"), node("n1", "b", "x")).await).await;
    assert_eq!(source.node(), zone("b"));
    source.reached(put(&client, &node_key("n1"), node("n1", "b", "ToBeDeletedByClusterAutoscaler")).await).await;
    assert_eq!(source.node(), Some(("b".to_owned(), true)));
    put(&client, &node_key("n1"), node("n1", "b", "x")).await;
    // Garbage changes nothing, also when it is listed anew; that of other nodes is not even looked at.
    put(&client, &node_key("n2"), "garbage").await;
    for garbage in ["garbage", "[]", r#"{"kind":"Service"}"#, r#"{"metadata":{"name":"n2"}}"#] {
        let status = source.reached(put(&client, &node_key("n1"), garbage).await).await;
        assert_eq!((status.rejected, source.node()), (1, zone("b")), "{garbage}");
        let status = source.status(|now| now.last_list > status.last_list).await;
        assert_eq!((status.rejected, source.node()), (1, zone("b")), "{garbage}");
    }
    let status = source.reached(put(&client, &node_key("n1"), node("n1", "c", "x")).await).await;
    assert_eq!((status.rejected, source.node()), (0, zone("c")));
    put(&client, &node_key("n1"), "garbage").await;
    let status = source.reached(delete(&client, &node_key("n1")).await).await;
    assert_eq!((status.rejected, source.node()), (0, None));
    source.status(|now| now.last_list > status.last_list).await;
    assert_eq!(source.node(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn t54_the_nodes_own_object_is_there_when_the_services_are() {
    let etcd = Etcd::start().await;
    let client = etcd.client().await;
    put(&client, &node_key("n1"), node("n1", "a", "x")).await;
    put(&client, &service_key("s1"), service(1)).await;
    let source = Source::start(etcd.store(), services::RELIST_INTERVAL);
    timeout(LIMIT, source.handle.store().wait()).await.unwrap();
    assert_eq!((source.names(), source.node()), (vec!["s1".to_owned()], Some(("a".to_owned(), false))));
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_counted_and_everything_else_is_read() {
    let etcd = Etcd::start().await;
    let client = etcd.client().await;
    put(&client, &service_key("s1"), service(1)).await;
    put(&client, &service_key("port-zero"), service(2).replace(r#""port":80"#, r#""port":0"#)).await;
    put(&client, &service_key("text"), "notjson").await;
    put(&client, &slice_key("bytes"), [0xff, 0xfe]).await;
    let endpoint = r#"{"addresses":["10.180.0.1"]}"#;
    let many = slice(1, "10.180.0.1").replace(endpoint, &[endpoint; 10_000].join(",")).replace("s1-1", "many");
    put(&client, &slice_key("many"), many).await;
    put(&client, "/coreos.com/network/services/nowhere", service(3)).await;
    let source = Source::start(etcd.store(), services::RELIST_INTERVAL);
    assert_eq!(source.status(|status| status.watching).await.rejected, 5);
    assert_eq!(source.names(), ["s1"]);
    // A good object that is overwritten with garbage stays as it was.
    put(&client, &slice_key("s1-1"), slice(1, "10.180.0.1")).await;
    put(&client, &slice_key("s1-1"), slice(1, "10.180.0.2").replace("IPv4", "IPv5")).await;
    let status = source.reached(put(&client, &service_key("s1"), "garbage").await).await;
    assert_eq!(status.rejected, 7);
    assert_eq!(source.address("s1"), "10.180.0.1");
    // And goes when its key goes.
    delete(&client, &service_key("s1")).await;
    let status = source.reached(put(&client, &service_key("text"), service(4).replace("s4", "text")).await).await;
    assert_eq!((status.rejected, source.names()), (5, vec!["text".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_many_pages_is_whole_and_a_repeated_one_changes_nothing() {
    let etcd = Etcd::start().await;
    let client = etcd.client().await;
    let all: Vec<usize> = (0..3000).collect();
    for chunk in all.chunks(60) {
        let both = |n: &usize| {
            let service = TxnOp::put(service_key(&format!("s{n}")), service(*n), None);
            [service, TxnOp::put(slice_key(&format!("s{n}-1")), slice(*n, "10.180.0.1"), None)]
        };
        txn(&client, chunk.iter().flat_map(both).collect()).await;
    }
    let source = Source::start(etcd.store(), Duration::from_millis(200));
    let first = source.status(|status| status.watching).await;
    let node = NodeView { name: "n1".into(), zone: None, addresses: Default::default() };
    let mut table = ServiceTable::new(node, PlanOptions::default());
    let changes = table.update(source.handle.store().take().0);
    assert_eq!(changes.changed.len(), 3000);
    assert!(changes.changed.iter().all(|plan| plan.cluster.len() == 1));
    source.status(|status| status.last_list > first.last_list).await;
    assert!(source.handle.store().take().0.is_empty());
    let status = source.reached(put(&client, &service_key("s0"), service(0).replace(":80", ":81")).await).await;
    assert_eq!((status.rejected, status.error), (0, None));
    assert_eq!(table.update(source.handle.store().take().0).changed.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_writes_of_one_transaction_arrive_together() {
    let etcd = Etcd::start().await;
    let client = etcd.client().await;
    let source = Source::start(etcd.store(), services::RELIST_INTERVAL);
    source.status(|status| status.watching).await;
    assert!(source.handle.store().take().0.is_empty());
    let writes = vec![
        TxnOp::put(service_key("s1"), service(1), None),
        TxnOp::put(slice_key("s1-1"), slice(1, "10.180.0.1"), None),
    ];
    let mut changes = Vec::new();
    txn(&client, writes).await;
    timeout(LIMIT, async {
        while changes.is_empty() {
            source.handle.store().wait().await;
            changes = source.handle.store().take().0;
        }
    })
    .await
    .unwrap();
    assert!(changes[0].service.is_some() && changes[0].slices.len() == 1, "{changes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_removes_nothing_and_is_made_up_for() {
    let mut etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    for n in 1..=3 {
        put(&client, &service_key(&format!("s{n}")), service(n)).await;
    }
    let wire = Wire::to(&etcd).await;
    let source = Source::start(wire.store(), services::RELIST_INTERVAL);
    source.status(|status| status.watching).await;
    wire.cut();
    source.status(|status| !status.watching && status.error.is_some()).await;
    delete(&client, &service_key("s1")).await;
    let revision = put(&client, &service_key("s4"), service(4)).await;
    client.compact(revision, None).await.unwrap();
    assert_eq!(source.names(), ["s1", "s2", "s3"]);
    wire.mend();
    source.status(|status| status.watching && status.error.is_none() && status.revision >= revision).await;
    assert_eq!(source.names(), ["s2", "s3", "s4"]);
    etcd.stop();
    source.status(|status| !status.watching).await;
    assert_eq!(source.names(), ["s2", "s3", "s4"]);
    // Another store in the same place: what it does not have is gone, and a key of the same revision is read anew.
    etcd.wipe().await;
    let client = etcd.client().await;
    put(&client, &service_key("s2"), service(9).replace("s9", "s2")).await;
    source.status(|status| status.watching && status.error.is_none() && status.revision < revision).await;
    let moved = || source.find("s2").service.unwrap().cluster_ips.v4 == "172.30.0.10".parse().ok();
    timeout(LIMIT, async {
        while source.names() != ["s2"] || !moved() {
            source.handle.store().wait().await;
        }
    })
    .await
    .unwrap();
    etcd.stop();
    etcd.resume().await;
    source.reached(put(&client, &service_key("s5"), service(5)).await).await;
    assert_eq!(source.names(), ["s2", "s5"]);
}
