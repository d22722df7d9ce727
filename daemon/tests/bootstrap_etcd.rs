//! etcd's members come and go as control-plane nodes do, with real etcds on loopback.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

#[allow(dead_code, reason = "these tests take less of it than others do")]
mod etcd;

use std::process::{Child, Stdio};
use std::time::Duration;

use etcd::free_port;
use weft::bootstrap::api::{EtcdCluster, EtcdError, EtcdLeft, Outcome};
use weft::bootstrap::resolved::Limits;
use weft_tests::tool;

/// A member with a place of its own.
struct Member {
    name: &'static str,
    folder: tempfile::TempDir,
    client: String,
    peer: String,
    process: Option<Child>,
}

impl Member {
    fn new(name: &'static str) -> Self {
        let url = || format!("http://127.0.0.1:{}", free_port());
        Self { name, folder: tempfile::tempdir().unwrap(), client: url(), peer: url(), process: None }
    }

    /// Starts it; `state` is etcd's `--initial-cluster-state`.
    fn start(&mut self, cluster: &str, state: &str) {
        let mut command = tool::command("etcd");
        command
            .args(["--name", self.name, "--logger", "zap", "--log-level", "error"])
            .arg("--data-dir")
            .arg(self.folder.path().join("data"))
            .args(["--listen-client-urls", &self.client, "--advertise-client-urls", &self.client])
            .args(["--listen-peer-urls", &self.peer, "--initial-advertise-peer-urls", &self.peer])
            .args(["--initial-cluster", cluster, "--initial-cluster-state", state])
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(self.folder.path().join("log")).unwrap());
        self.process = Some(command.spawn().expect("etcd is installed (Debian: etcd-server)"));
    }

    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn cluster(members: &[&Member], limit: u64) -> EtcdCluster {
    let endpoints: Vec<String> = members.iter().map(|member| member.client.clone()).collect();
    let limits = Limits { etcd_call: Duration::from_secs(limit), ..Limits::default() };
    EtcdCluster::connect(&endpoints, None, &limits).await.unwrap()
}

/// How many members have this address.
async fn at(cluster: &EtcdCluster, peer: &str) -> usize {
    cluster.members().await.unwrap().iter().filter(|member| member.peers.iter().any(|url| url == peer)).count()
}

/// All of it in one: a cluster of three takes its time to come about.
#[tokio::test]
async fn j14_j15_members_come_go_and_are_never_there_twice() {
    let (mut first, mut second, mut third) = (Member::new("n1"), Member::new("n2"), Member::new("n3"));
    first.start(&format!("n1={}", first.peer), "new");
    let one = cluster(&[&first], 90).await;
    assert_eq!(one.check().await.unwrap(), (1, 1));
    assert_eq!(one.leave(&first.peer).await.unwrap(), EtcdLeft::Last, "with the last one the cluster would go");

    // J14: one that fails later is gone again, and the others have not noticed.
    let entry = one.enter("n2", &second.peer, false).await.unwrap();
    assert_eq!(entry.outcome, Outcome::Made);
    let mut named: Vec<&str> = entry.initial_cluster.split(',').collect();
    named.sort_unstable();
    assert_eq!(named, [format!("n1={}", first.peer), format!("n2={}", second.peer)]);
    assert_eq!(one.take_back(&entry).await.unwrap(), Outcome::Changed);
    assert_eq!((at(&one, &second.peer).await, one.check().await.unwrap()), (0, (1, 1)));

    // J15: what an attempt has left is taken up.
    let entry = one.enter("n2", &second.peer, false).await.unwrap();
    let again = one.enter("n2", &second.peer, false).await.unwrap();
    assert_eq!((again.id, again.outcome, again.may_go), (entry.id, Outcome::Kept, true));
    assert_eq!(at(&one, &second.peer).await, 1);
    let impatient = cluster(&[&first], 1).await;
    let early = impatient.promote(entry.id).await.unwrap_err().to_string();
    assert!(early.contains("has not started"), "{early}");
    second.start(&entry.initial_cluster, "existing");
    assert_eq!(one.promote(entry.id).await.unwrap(), Outcome::Changed);
    assert_eq!(one.promote(entry.id).await.unwrap(), Outcome::Kept);
    assert_eq!(one.check().await.unwrap(), (2, 2));
    let again = one.enter("n2", &second.peer, true).await.unwrap();
    assert_eq!((again.id, again.outcome, again.may_go), (entry.id, Outcome::Kept, false));
    assert_eq!(one.take_back(&again).await.unwrap(), Outcome::Kept, "one that has the node's data stays");

    let both = cluster(&[&first, &second], 90).await;
    let entry = both.enter("n3", &third.peer, false).await.unwrap();
    third.start(&entry.initial_cluster, "existing");
    both.promote(entry.id).await.unwrap();
    assert_eq!(both.check().await.unwrap(), (3, 3));

    // A majority is enough; a node whose data are lost comes back as another member, not beside the old one.
    third.stop();
    assert_eq!(both.check().await.unwrap(), (2, 3));
    std::fs::remove_dir_all(third.folder.path().join("data")).unwrap();
    let anew = both.enter("n3", &third.peer, false).await.unwrap();
    assert!(anew.id != entry.id && anew.outcome == Outcome::Changed, "{anew:?}");
    assert_eq!(at(&both, &third.peer).await, 1);
    third.start(&anew.initial_cluster, "existing");
    both.promote(anew.id).await.unwrap();
    assert_eq!(both.check().await.unwrap(), (3, 3));

    // reset: each goes but the last.
    assert_eq!(both.leave(&third.peer).await.unwrap(), EtcdLeft::Removed);
    assert_eq!(both.leave(&third.peer).await.unwrap(), EtcdLeft::Absent);
    third.stop();
    let one = cluster(&[&first], 90).await;
    assert_eq!(one.leave(&second.peer).await.unwrap(), EtcdLeft::Removed);
    second.stop();
    assert_eq!(one.leave(&first.peer).await.unwrap(), EtcdLeft::Last);
    assert_eq!(one.check().await.unwrap(), (1, 1));
    first.stop();
    let gone = cluster(&[&first], 1).await.check().await.unwrap_err();
    assert!(matches!(gone, EtcdError::Refused { .. }), "{gone}");
}
