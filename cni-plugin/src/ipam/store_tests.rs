//! The store under processes that die: each test leaves what a kill between two steps would leave.

use super::*;
use crate::formats::attachment::{Sandbox, State};
use crate::ipam::range::Range;

struct Bench {
    store: Store,
    sets: Vec<RangeSet>,
    _directory: tempfile::TempDir,
}

impl Bench {
    fn new(subnet: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let sets = vec![vec![Range::new(subnet.parse().unwrap(), None, None, None).unwrap()]];
        Self { store: Store::new(directory.path(), "net"), sets, _directory: directory }
    }

    fn add(&self, container: &str) -> Result<Reservation, StoreError> {
        self.store.reserve(&self.sets, &[], &[], |ips| draft(container, ips))
    }

    fn pool(&self) -> Option<Pool> {
        Pool::decode(&fs::read(self.store.directory.join("pool")).unwrap())
    }

    /// Every record's address is taken in the pool, and nothing else is.
    fn assert_consistent(&self) {
        let (pool, _, _) = self.store.load(&boot_id().unwrap(), &self.sets).unwrap();
        let mut expected = Pool::new(boot_id().unwrap(), &self.sets);
        for record in self.store.records().unwrap() {
            record.content.unwrap().ips.iter().for_each(|ip| expected.take(ip.address.ip()));
        }
        expected.take_cursors(&pool);
        assert_eq!(pool, expected);
    }
}

fn draft(container: &str, ips: &[AssignedIp]) -> Attachment {
    let identity = Identity { network: "net".into(), container: container.into(), interface: "eth0".into() };
    Attachment {
        host_interface: identity.host_interface(),
        identity,
        status: Status::default(),
        pid: std::process::id(),
        created: 0,
        sandbox: Sandbox { path: "/n".into(), device: 0, inode: 0 },
        host_mac: String::new(),
        container_mac: String::new(),
        bridge: "cni0".into(),
        mtu: None,
        ips: ips.to_vec(),
        routes: Vec::new(),
        pod: None,
    }
}

fn ip(reservation: &Reservation) -> String {
    reservation.attachment.ips[0].address.to_string()
}

#[test]
fn reserve_commit_find_forget() {
    let bench = Bench::new("10.1.0.0/24");
    let mut first = bench.add("a").unwrap();
    assert_eq!(ip(&first), "10.1.0.2/24");
    first.set_status(Status { state: State::Committed, host_index: 5, container_index: 2 }).unwrap();
    let found = bench.store.find(&first.attachment.identity).unwrap().unwrap();
    assert_eq!(found.content.as_ref().unwrap(), &first.attachment);
    assert!(matches!(bench.add("a"), Err(StoreError::Overtaken { .. })));
    bench.store.forget(&[&found]).unwrap();
    bench.store.forget(&[&found]).unwrap();
    assert!(found.is_forgotten());
    bench.assert_consistent();
    assert_eq!(ip(&bench.add("b").unwrap()), "10.1.0.3/24");
}

#[test]
fn t093_a_kill_after_the_dirty_mark_loses_nothing() {
    let bench = Bench::new("10.1.0.0/24");
    let _first = bench.add("a").unwrap();
    let file = open_pool(&bench.store.directory.join("pool")).unwrap();
    bench.store.mark_dirty(&file, usize::MAX).unwrap();
    assert!(bench.pool().is_none());
    assert_ne!(ip(&bench.add("b").unwrap()), "10.1.0.2/24");
    bench.assert_consistent();
}

#[test]
fn t093_a_kill_between_record_and_pool_gives_no_address_twice() {
    let bench = Bench::new("10.1.0.0/30");
    let before = {
        // A pool that does not know of the record, as it stands between the two writes.
        let other = bench.add("other").unwrap();
        bench.store.forget(&[other.record()]).unwrap();
        fs::read(bench.store.directory.join("pool")).unwrap()
    };
    let killed = bench.add("a").unwrap();
    let mut bytes = before;
    bytes[DIRTY_OFFSET] = 1;
    fs::write(bench.store.directory.join("pool"), bytes).unwrap();
    assert_eq!(ip(&killed), "10.1.0.2/30");
    assert!(matches!(bench.add("b"), Err(StoreError::Allocate(AllocateError::Exhausted { .. }))));
    bench.store.forget(&[killed.record()]).unwrap();
    assert_eq!(ip(&bench.add("b").unwrap()), "10.1.0.2/30");
    bench.assert_consistent();
}

#[test]
fn t093_a_torn_or_emptied_pool_is_rebuilt() {
    let bench = Bench::new("10.1.0.0/24");
    let held: Vec<_> = (0..5).map(|n| bench.add(&format!("c{n}")).unwrap()).collect();
    let path = bench.store.directory.join("pool");
    let whole = fs::read(&path).unwrap();
    for cut in [0, 7, 12, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..cut]).unwrap();
        let next = bench.add("x").unwrap();
        assert!(held.iter().all(|other| ip(other) != ip(&next)));
        bench.store.forget(&[next.record()]).unwrap();
        bench.assert_consistent();
    }
}

#[test]
fn t093_an_unlinked_record_under_a_dirty_pool_frees_its_address() {
    let bench = Bench::new("10.1.0.0/30");
    let first = bench.add("a").unwrap();
    let file = open_pool(&bench.store.directory.join("pool")).unwrap();
    bench.store.mark_dirty(&file, usize::MAX).unwrap();
    fs::remove_file(bench.store.records_directory().join(&first.record.name)).unwrap();
    assert_eq!(ip(&bench.add("b").unwrap()), "10.1.0.2/30");
}

#[test]
fn t098_another_boot_voids_the_directory() {
    let bench = Bench::new("10.1.0.0/30");
    let first = bench.add("a").unwrap();
    let path = bench.store.directory.join("pool");
    for dirty in [0, 1] {
        let mut pool = Pool::new([9; 16], &bench.sets);
        pool.take(first.attachment.ips[0].address.ip());
        let mut bytes = pool.encode();
        bytes[DIRTY_OFFSET] = dirty;
        fs::write(&path, bytes).unwrap();
        let next = bench.add(&format!("b{dirty}")).unwrap();
        assert_eq!(ip(&next), "10.1.0.2/30");
        assert_eq!(bench.store.records().unwrap().len(), 1);
    }
}

#[test]
fn t077_changed_ranges_keep_what_was_given_out() {
    let mut bench = Bench::new("10.1.0.0/24");
    let first = bench.add("a").unwrap();
    bench.sets = vec![vec![Range::new("10.1.0.0/29".parse().unwrap(), None, None, None).unwrap()]];
    assert_eq!(ip(&bench.add("b").unwrap()), "10.1.0.3/29");
    bench.sets = vec![vec![Range::new("10.9.0.0/24".parse().unwrap(), None, None, None).unwrap()]];
    assert_eq!(ip(&bench.add("c").unwrap()), "10.9.0.2/24");
    bench.store.forget(&[first.record()]).unwrap();
    bench.assert_consistent();
}

#[test]
fn t079_a_pending_record_is_dead_when_its_maker_is() {
    let bench = Bench::new("10.1.0.0/30");
    let probe = weft_netlink::LinkProbe::open().unwrap();
    let maker = bench.add("a").unwrap();
    let sweep = || crate::ipam::reclaim::sweep(&bench.store, &probe, |_| Ok(())).unwrap().freed;
    assert_eq!(sweep(), 0);
    // The kernel drops the lock with the process, as here with the descriptor.
    drop(maker);
    assert_eq!(sweep(), 1);
    assert_eq!(ip(&bench.add("b").unwrap()), "10.1.0.2/30");
}

#[test]
fn t081_a_hundred_at_once_get_a_hundred_addresses() {
    let bench = Bench::new("10.1.0.0/24");
    let bench = &bench;
    let mut ips: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..100).map(|n| scope.spawn(move || ip(&bench.add(&format!("c{n}")).unwrap()))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    ips.sort();
    ips.dedup();
    assert_eq!(ips.len(), 100);
    bench.assert_consistent();
}

#[test]
fn t095_a_directory_that_cannot_be_written_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let blocked = directory.path().join("file");
    fs::write(&blocked, "").unwrap();
    let store = Store::new(&blocked, "net");
    let sets = [vec![Range::new("10.1.0.0/24".parse().unwrap(), None, None, None).unwrap()]];
    let error = store.reserve(&sets, &[], &[], |ips| draft("a", ips)).unwrap_err().to_string();
    assert!(error.contains("/file/net"), "{error}");
}
