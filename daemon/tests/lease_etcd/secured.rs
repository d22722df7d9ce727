//! etcd with TLS, client certificates, users and passwords; and what is said when one of them is not as it has to be.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use weft::cluster::Layout;
use weft::cluster::etcd::{EtcdOptions, Store};
use weft::lease::LeaseState;

use crate::authority::{Authority, Issued};
use crate::etcd::{Etcd, LIMIT};
use crate::node::{Node, PREFIX, flannel};

/// Files of certificates.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn pair(&self, name: &str, issued: &Issued) -> (PathBuf, PathBuf) {
        (self.write(&format!("{name}.crt"), &issued.cert), self.write(&format!("{name}.key"), &issued.key))
    }
}

/// A server with this certificate that asks for client certificates, and the options of a client that has a good one.
async fn secured(files: &Files, authority: &Authority, server: &Issued) -> (Etcd, EtcdOptions) {
    let ca = files.write("ca.crt", &authority.pem());
    let (server, server_key) = files.pair("server", server);
    let (client, client_key) = files.pair("client", &authority.client("weft", None));
    let files = [&server, &server_key, &ca].map(|path| path.to_str().unwrap().to_owned());
    let args =
        ["--cert-file", &files[0], "--key-file", &files[1], "--trusted-ca-file", &files[2], "--client-cert-auth"];
    let etcd = Etcd::start_with_tls(&args).await;
    let options = EtcdOptions {
        endpoints: etcd.options.endpoints.clone(),
        cafile: Some(ca),
        certfile: Some(client),
        keyfile: Some(client_key),
        user: None,
    };
    (etcd, options)
}

/// Leases a subnet and watches, as an agent does.
async fn leases_and_watches(options: EtcdOptions) {
    let node = Node::start(Store::new(options), "n1", "192.0.2.1", None);
    node.held().await;
    let mut status = node.source.status();
    let watching = timeout(LIMIT, status.wait_for(|status| status.watching)).await;
    watching.unwrap_or_else(|_| panic!("{:?}", *node.source.status().borrow())).unwrap();
    node.snapshot(|snapshot| snapshot.leases.len() == 1).await;
}

/// Tries with these options until what is said of it has all these words in it. The first answer is not always the one that
/// tells: a server may have hung up before its reason is read.
async fn is_refused(options: &EtcdOptions, words: &[&str]) {
    let mut last = String::new();
    let told = timeout(LIMIT, async {
        let store = Store::new(options.clone());
        loop {
            last = store.view(&Layout::default()).await.expect_err("it was taken");
            if words.iter().all(|word| last.contains(word)) {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(told.await.is_ok(), "{words:?}: {last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn d62_a_client_certificate_is_taken_and_what_is_wrong_with_one_is_named() {
    let (files, authority, stranger) = (Files::new(), Authority::new("ca"), Authority::new("other"));
    let (etcd, good) = secured(&files, &authority, &authority.server(&["127.0.0.1"])).await;
    leases_and_watches(good.clone()).await;
    let given = |path: &Option<PathBuf>| path.as_ref().unwrap().display().to_string();
    let (our_cert, our_key) = (given(&good.certfile), given(&good.keyfile));
    let ca = |path: Option<PathBuf>| EtcdOptions { cafile: path, ..good.clone() };
    let pair = |certfile: &str, keyfile: &str| EtcdOptions {
        certfile: Some(certfile.into()),
        keyfile: Some(keyfile.into()),
        ..good.clone()
    };
    let at = |url: String, options: &EtcdOptions| EtcdOptions { endpoints: vec![url], ..options.clone() };

    let other_ca = files.write("other-ca.crt", &stranger.pem());
    let other = other_ca.display().to_string();
    is_refused(&ca(Some(other_ca)), &["UnknownIssuer", "is not signed by the CA in etcd-cafile", &other]).await;
    is_refused(&ca(None), &["no CA is given", "set etcd-cafile"]).await;
    is_refused(&ca(Some("/nonexistent/ca.crt".into())), &["etcd-cafile /nonexistent/ca.crt", "No such file"]).await;
    for (name, text) in [("garbage", "garbage"), ("empty", ""), ("no-certificate", &authority.key())] {
        let path = files.write(name, text).display().to_string();
        let words = [path.as_str(), "there is no certificate in it; expected PEM"];
        is_refused(&ca(Some(path.clone().into())), &[&words[..], &["etcd-cafile"]].concat()).await;
        is_refused(&pair(&path, &our_key), &[&words[..], &["etcd-certfile"]].concat()).await;
    }
    is_refused(&pair(&our_cert, &our_cert), &["etcd-keyfile", &our_cert, "there is no private key in it"]).await;

    let (their_cert, their_key) = files.pair("theirs", &stranger.client("weft", None));
    let (their_cert, their_key) = (their_cert.display().to_string(), their_key.display().to_string());
    is_refused(&pair(&our_cert, &their_key), &["does not belong to", &their_key, &our_cert]).await;
    let refused = ["refused the client certificate in etcd-certfile", &their_cert, "the CA that the server trusts"];
    is_refused(&pair(&their_cert, &their_key), &refused).await;
    let without = EtcdOptions { certfile: None, keyfile: None, ..good.clone() };
    is_refused(&without, &["asks for a client certificate: set etcd-certfile and etcd-keyfile"]).await;

    let by_name = format!("https://localhost:{}", etcd.port());
    is_refused(&at(by_name.clone(), &good), &["does not name the host in etcd-endpoints", &by_name]).await;
    let in_clear = format!("http://127.0.0.1:{}", etcd.port());
    is_refused(&at(in_clear.clone(), &EtcdOptions::default()), &["http or https in etcd-endpoints", &in_clear]).await;
    let plain = Etcd::start().await;
    let encrypted = format!("https://127.0.0.1:{}", plain.port());
    is_refused(&at(encrypted.clone(), &good), &["use http:// in etcd-endpoints", &encrypted]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d62_a_certificate_that_has_expired_is_named() {
    let (files, authority) = (Files::new(), Authority::new("ca"));
    let (_etcd, options) = secured(&files, &authority, &authority.expired_server("127.0.0.1")).await;
    is_refused(&options, &["the server's certificate has expired", "check the clock"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d62_the_source_and_the_lease_say_why_and_go_on_when_it_is_mended() {
    let (files, authority) = (Files::new(), Authority::new("ca"));
    let (_etcd, good) = secured(&files, &authority, &authority.server(&["127.0.0.1"])).await;
    let later = files.0.path().join("later.crt");
    let node = Node::start(Store::new(EtcdOptions { cafile: Some(later.clone()), ..good }), "n1", "192.0.2.1", None);
    let words = later.display().to_string();
    node.state(|state| matches!(state, LeaseState::Acquiring { reason } if reason.contains(&words))).await;
    let mut status = node.source.status();
    let told = status.wait_for(|status| status.error.as_ref().is_some_and(|error| error.contains(&words)));
    timeout(LIMIT, told).await.expect("the source says nothing").unwrap();
    files.write("later.crt", &authority.pem());
    node.held().await;
    timeout(LIMIT, status.wait_for(|status| status.watching)).await.expect("it does not watch").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn d62_a_user_and_a_password_are_taken_and_what_is_wrong_with_them_is_named() {
    let mut etcd = Etcd::start().await;
    etcd.ask_for_users(&[("weft", "secret", true), ("guest", "g", false)]).await;
    let user = |name: &str, password: &str| EtcdOptions {
        user: Some((name.to_owned(), password.to_owned())),
        ..etcd.options.clone()
    };
    leases_and_watches(user("weft", "secret")).await;
    is_refused(&user("weft", "wrong"), &["authentication failed", "check etcd-username weft and etcd-password"]).await;
    is_refused(&user("nobody", "x"), &["authentication failed", "check etcd-username nobody"]).await;
    is_refused(&user("guest", "g"), &["permission denied", "etcd-username guest", "under etcd-prefix"]).await;
    let nobody = EtcdOptions { user: None, ..etcd.options.clone() };
    is_refused(&nobody, &["asks for a user: set etcd-username and etcd-password"]).await;

    // An etcd that was away has forgotten the tokens that it gave; the node gets another by itself.
    let node = Node::start(Store::new(user("weft", "secret")), "n1", "192.0.2.1", None);
    node.held().await;
    etcd.stop();
    etcd.resume().await;
    let mut client = etcd.client().await;
    client.put(format!("{PREFIX}/subnets/10.244.77.0-24"), flannel("192.0.2.77"), None).await.unwrap();
    node.snapshot(|snapshot| snapshot.leases.len() == 2).await;
    node.value.send_modify(|value| value.public_ips.v4 = Some("192.0.2.5".parse().unwrap()));
    node.held_with(|held| held.published.public_ips.v4 == Some("192.0.2.5".parse().unwrap())).await;
}
