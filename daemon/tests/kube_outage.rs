//! What the kube source does when the API server ends, stands still, or does not take the credentials any more: nothing that
//! is known goes, and everything goes on by itself as soon as it can. The server is a real one, from `WEFT_PEERS`.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

#[expect(dead_code, reason = "these tests take less of it than others do")]
#[macro_use]
mod apiserver;
#[expect(dead_code, reason = "these tests take less of it than others do")]
mod etcd;

use std::time::Duration;

use apiserver::ApiServer;
use etcd::LIMIT;
use kube::Client;
use serde_json::json;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use weft::cluster::kube::{Api, services};
use weft::cluster::services::ServicesHandle;

/// How soon a source is to be back once its API server answers: its longest back-off, and what a busy machine adds.
const BACK: Duration = Duration::from_secs(25);

async fn service(server: &ApiServer, name: &str) {
    let body =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
    server.ask("POST", "/api/v1/namespaces/default/services", Some(&body)).await;
}

/// A source that watches; the API server has its own Service and one more.
async fn start(server: &ApiServer, client: &Client) -> (ServicesHandle, DropGuard) {
    service(server, "first").await;
    let stop = CancellationToken::new();
    let handle = services::spawn(&Api::new(client.clone()), &"n1".parse().unwrap(), stop.clone());
    watches(&handle, LIMIT).await;
    assert_eq!(handle.store().len(), 2);
    (handle, stop.drop_guard())
}

async fn watches(handle: &ServicesHandle, limit: Duration) {
    let mut status = handle.status();
    let watching = status.wait_for(|status| status.watching && status.error.is_none());
    timeout(limit, watching).await.unwrap_or_else(|_| panic!("{:?}", handle.status().borrow())).unwrap();
}

async fn is_lost(handle: &ServicesHandle, limit: Duration) -> String {
    let mut status = handle.status();
    let lost = status.wait_for(|status| !status.watching && status.error.is_some());
    let status = timeout(limit, lost).await.expect("nobody noticed").unwrap();
    status.error.clone().unwrap()
}

async fn reaches(handle: &ServicesHandle, count: usize, limit: Duration) {
    let mut status = handle.status();
    let there = status.wait_for(|_| handle.store().len() == count);
    let found = timeout(limit, there).await.map(drop);
    found.unwrap_or_else(|_| panic!("{:?}", handle.status().borrow()));
}

#[tokio::test]
async fn an_api_server_that_ends_and_comes_back_is_found_again_at_once() {
    let etcd;
    let mut server = server!(etcd);
    let client = server.client().await;
    let (handle, _stop) = start(&server, &client).await;
    let ended = Instant::now();
    server.terminate().await;
    is_lost(&handle, LIMIT).await;
    sleep_until(ended + Duration::from_secs(10)).await;
    server.resume().await;
    let began = Instant::now();
    watches(&handle, BACK).await;
    eprintln!("watching {:?} after the API server was back", began.elapsed());
    service(&server, "second").await;
    reaches(&handle, 3, LIMIT).await;
}

#[tokio::test]
async fn an_api_server_that_stands_still_is_noticed_and_found_again() {
    let etcd;
    let server = server!(etcd);
    let client = server.client().await;
    let (handle, _stop) = start(&server, &client).await;
    let began = Instant::now();
    server.freeze();
    let reason = is_lost(&handle, Duration::from_secs(60)).await;
    eprintln!("noticed after {:?}: {reason}", began.elapsed());
    assert_eq!(handle.store().len(), 2);
    sleep_until(began + Duration::from_secs(60)).await;
    server.thaw();
    watches(&handle, BACK).await;
    service(&server, "second").await;
    reaches(&handle, 3, LIMIT).await;
}

#[tokio::test]
async fn a_store_that_was_put_back_in_time_is_listed_anew() {
    let mut etcd;
    let mut server = server!(etcd);
    let client = server.client().await;
    let (handle, _stop) = start(&server, &client).await;
    etcd.keep_a_copy().await;
    // Enough for the source to be far ahead of what the API server itself writes at its next start.
    for n in 0..100 {
        service(&server, &format!("later-{n}")).await;
    }
    reaches(&handle, 102, LIMIT).await;
    server.terminate().await;
    etcd.put_back().await;
    server.resume().await;
    // A watch from where it was would not be refused, and would tell nothing for a hundred writes.
    reaches(&handle, 2, BACK).await;
    watches(&handle, LIMIT).await;
    service(&server, "second").await;
    reaches(&handle, 3, LIMIT).await;
}

#[tokio::test]
async fn a_token_that_is_not_taken_any_more_is_named_and_a_new_one_is_read_at_once() {
    let etcd;
    let mut server = server!(etcd);
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "secret\n").unwrap();
    let client = server.client_with_token_in(&token).await;
    let (handle, _stop) = start(&server, &client).await;
    // Whoever watches already goes on; the next request is refused.
    std::fs::write(&token, "expired").unwrap();
    server.stop();
    server.resume().await;
    let mut status = handle.status();
    let refused = status.wait_for(|status| status.error.as_ref().is_some_and(|error| error.contains("expired token")));
    timeout(LIMIT, refused).await.expect("nobody said so").unwrap();
    assert_eq!(handle.store().len(), 2);
    std::fs::write(&token, "secret").unwrap();
    watches(&handle, BACK).await;
}
