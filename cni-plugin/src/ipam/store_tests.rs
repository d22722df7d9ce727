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
        Self {
            store: Store::new(&directory.path().join("state"), &directory.path().join("networks"), "net"),
            sets,
            _directory: directory,
        }
    }

    fn add(&self, container: &str) -> Result<Reservation, StoreError> {
        self.store.reserve(&self.sets, &[], &[], |ips| draft(container, ips))
    }

    fn pool(&self) -> Option<Pool> {
        Pool::decode(&fs::read(self.store.directory.join("pool")).unwrap())
    }

    fn count(&self) -> usize {
        let mut count = 0;
        self.store
            .visit(|_| {
                count += 1;
                Ok(())
            })
            .unwrap();
        count
    }

    /// Every record's address is taken in the pool, and nothing else is.
    fn assert_consistent(&self) {
        let (pool, _, _) = self.store.load(&boot_id().unwrap(), Some(&self.sets)).unwrap();
        let mut expected = Pool::new(boot_id().unwrap(), &self.sets);
        self.store
            .visit(|record| {
                record.content.unwrap().ips.iter().for_each(|ip| expected.take(ip.address.ip()));
                Ok(())
            })
            .unwrap();
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
        host_ports: crate::formats::host_port::HostPorts::default(),
        limits: None,
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
    fs::remove_file(first.record().path()).unwrap();
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
        assert_eq!(bench.count(), 1);
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
    let probe = LinkProbe::open().unwrap();
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
    let store = Store::new(&blocked, Path::new("/nonexistent"), "net");
    let sets = [vec![Range::new("10.1.0.0/24".parse().unwrap(), None, None, None).unwrap()]];
    let error = store.reserve(&sets, &[], &[], |ips| draft("a", ips)).unwrap_err().to_string();
    assert!(error.contains("/file/net"), "{error}");
}

#[test]
fn records_are_not_all_open_at_once() {
    let bench = Bench::new("10.0.0.0/16");
    let first = bench.add("first").unwrap();
    // More than a process may usually have open. The limit itself belongs to all tests of this process.
    let records = 1500;
    let template = fs::read(first.record().path()).unwrap();
    for n in 0..records {
        fs::write(bench.store.records_directory().join(format!("{n:032x}")), &template).unwrap();
    }
    let open_now = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open_now();
    let (mut count, mut most) = (0, 0);
    bench
        .store
        .visit(|_| {
            count += 1;
            if count % 100 == 0 {
                most = most.max(open_now());
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(count, records + 1);
    assert!(most < before + 512, "{most} files open, {before} before");
}

#[test]
fn t093_directories_that_are_gone_are_made_again() {
    let bench = Bench::new("10.1.0.0/24");
    let first = bench.add("a").unwrap();
    fs::remove_dir_all(bench.store.records_directory()).unwrap();
    let second = bench.add("b").unwrap();
    assert_ne!(ip(&first), ip(&second));
    fs::remove_file(bench.store.directory.join("lock")).unwrap();
    bench.store.forget(&[second.record()]).unwrap();
    bench.store.distrust_pool().unwrap();
    assert_eq!(bench.count(), 0);
}

#[test]
fn t094_a_damaged_record_keeps_its_address_and_foreign_files_are_left_alone() {
    let bench = Bench::new("10.1.0.0/29");
    let damaged = bench.add("a").unwrap();
    let path = damaged.record().path().to_owned();
    let mut bytes = fs::read(&path).unwrap();
    bytes[40] ^= 1;
    fs::write(&path, bytes).unwrap();
    let foreign = bench.store.records_directory().join("README");
    fs::write(&foreign, "not ours").unwrap();
    assert_eq!(bench.count(), 1);
    bench.store.distrust_pool().unwrap();
    let others: Vec<_> = (0..4).map(|n| bench.add(&format!("b{n}")).unwrap()).collect();
    assert!(others.iter().all(|other| ip(other) != ip(&damaged)));
    assert!(matches!(bench.add("c"), Err(StoreError::Allocate(AllocateError::Exhausted { .. }))));
    // Nobody is at work on it and its interface is not there: it is dead.
    drop(damaged);
    let probe = LinkProbe::open().unwrap();
    let swept = crate::ipam::reclaim::sweep(&bench.store, &probe, |_| Ok(())).unwrap();
    assert_eq!((swept.freed, path.exists(), foreign.exists()), (1, false, true));
    bench.add("c").unwrap();
}

#[test]
fn t094_without_the_old_pool_a_damaged_record_of_a_live_interface_is_refused_by_name() {
    let bench = Bench::new("10.1.0.0/29");
    let first = bench.add("a").unwrap();
    fs::write(first.record().path(), "damaged").unwrap();
    fs::write(bench.store.directory.join("pool"), "damaged").unwrap();
    // Its interface is not there, so nobody can have its address.
    bench.add("b").unwrap();
    let error = StoreError::Unknowable { path: first.record().path().to_owned(), interface: "veth0".into() };
    assert!(error.to_string().contains(&first.record().name), "{error}");
}

/// host-local's store beside ours.
fn host_local(bench: &Bench, files: &[(&str, &str)]) -> PathBuf {
    let directory = bench.store.host_local.path([0, 0, 0, 0].into()).parent().unwrap().to_owned();
    fs::create_dir_all(&directory).unwrap();
    for (name, text) in files {
        fs::write(directory.join(name), text).unwrap();
    }
    directory
}

#[test]
fn t078_what_host_local_gave_out_since_boot_is_not_given_again() {
    let bench = Bench::new("10.1.0.0/29");
    let directory = host_local(
        &bench,
        &[("10.1.0.2", "a\r\neth0"), ("10.1.0.3", ""), ("10.1.0.4", "b"), ("10.9.0.5", "c\r\neth0"), ("lock", "")],
    );
    let old = File::create(directory.join("10.1.0.5")).unwrap();
    (&old).write_all(b"before\r\neth0").unwrap();
    old.set_modified(std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1)).unwrap();
    let mut given: Vec<String> = (0..3).map(|n| ip(&bench.add(&format!("n{n}")).unwrap())).collect();
    given.sort_unstable();
    assert_eq!(given, ["10.1.0.3/29", "10.1.0.5/29", "10.1.0.6/29"]);
    assert!(matches!(bench.add("x"), Err(StoreError::Allocate(AllocateError::Exhausted { .. }))));

    let all = bench.store.foreign().unwrap();
    let of_b: Vec<_> = all.iter().filter(|address| address.owner.is("b", "eth0")).collect();
    bench.store.forget_foreign(&of_b).unwrap();
    assert!(!directory.join("10.1.0.4").exists() && bench.pool().unwrap().has_foreign);
    assert_eq!(ip(&bench.add("x").unwrap()), "10.1.0.4/29");
    // Somebody else frees the other one; it is noticed when there is no other.
    fs::remove_file(directory.join("10.1.0.2")).unwrap();
    assert!(bench.add("y").is_err());
    bench.store.distrust_pool().unwrap();
    assert_eq!(ip(&bench.add("y").unwrap()), "10.1.0.2/29");
    assert!(!bench.pool().unwrap().has_foreign);
}

#[test]
fn t078_an_add_of_the_others_that_ends_late_keeps_its_address() {
    let bench = Bench::new("10.1.0.0/29");
    let directory = host_local(&bench, &[("10.1.0.2", "a\r\neth0")]);
    assert_eq!(ip(&bench.add("n").unwrap()), "10.1.0.3/29");
    fs::write(directory.join("10.1.0.4"), "late\r\neth0").unwrap();
    assert_eq!(ip(&bench.add("m").unwrap()), "10.1.0.5/29");
}

#[test]
fn t078_a_file_that_is_another_containers_by_now_stays() {
    let bench = Bench::new("10.1.0.0/29");
    let directory = host_local(&bench, &[("10.1.0.2", "a\r\neth0"), ("lock", "")]);
    let before = bench.store.foreign().unwrap();
    fs::write(directory.join("10.1.0.2"), "b\r\neth0").unwrap();
    bench.store.forget_foreign(&[&before[0]]).unwrap();
    assert!(directory.join("10.1.0.2").exists());
}

#[test]
fn t101_an_exported_attachment_is_forgotten_there_too() {
    let bench = Bench::new("10.1.0.0/29");
    let reservation = bench.add("a").unwrap();
    let directory = host_local(&bench, &[("10.1.0.2", "a\r\neth0"), ("10.1.0.3", "b\r\neth0")]);
    bench.store.forget(&[reservation.record()]).unwrap();
    assert!(!directory.join("10.1.0.2").exists() && directory.join("10.1.0.3").exists());
}

#[test]
fn t101_from_the_handover_on_host_local_knows_of_each_address() {
    let bench = Bench::new("10.1.0.0/29");
    let (_live, _dead) = (bench.add("live").unwrap(), bench.add("dead").unwrap());
    let directory = host_local(&bench, &[("10.1.0.6", "theirs\r\neth0")]);
    // Left by a container of before the boot.
    let old = File::create(directory.join("10.1.0.2")).unwrap();
    (&old).write_all(b"before\r\neth0").unwrap();
    old.set_modified(std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1)).unwrap();
    let lives = |attachment: &Attachment| attachment.identity.container != "dead";
    for _ in 0..2 {
        assert_eq!(bench.store.hand_over(lives).unwrap(), []);
        assert_eq!(fs::read_to_string(directory.join("10.1.0.2")).unwrap(), "live\r\neth0");
        assert!(!directory.join("10.1.0.3").exists());
    }
    // What host-local gives out meanwhile is not given again, and the other way round.
    fs::write(directory.join("10.1.0.4"), "late\r\neth0").unwrap();
    let next = bench.add("next").unwrap();
    assert_eq!(ip(&next), "10.1.0.5/29");
    assert_eq!(fs::read_to_string(directory.join("10.1.0.5")).unwrap(), "next\r\neth0");
    assert!(bench.add("beyond").is_err());
    bench.store.forget(&[next.record()]).unwrap();
    assert!(!directory.join("10.1.0.5").exists() && directory.join("10.1.0.4").exists());
}

#[test]
fn t101_an_address_that_is_anothers_is_named_and_the_rest_is_handed_over() {
    let bench = Bench::new("10.1.0.0/29");
    let _held = ["a", "b"].map(|container| bench.add(container).unwrap());
    let directory = host_local(&bench, &[("10.1.0.2", "x\r\neth0")]);
    let refused = bench.store.hand_over(|_| true).unwrap();
    assert_eq!(refused.len(), 1);
    assert_eq!((refused[0].attachment.identity.container.as_str(), refused[0].owner.container.as_str()), ("a", "x"));
    assert_eq!(fs::read_to_string(directory.join("10.1.0.3")).unwrap(), "b\r\neth0");
    assert_eq!(fs::read_to_string(directory.join("10.1.0.2")).unwrap(), "x\r\neth0");
}

#[test]
fn t102_a_pool_of_another_version_is_built_anew() {
    let bench = Bench::new("10.1.0.0/29");
    let held: Vec<_> = ["a", "b"].map(|container| bench.add(container).unwrap()).into();
    let path = bench.store.directory.join("pool");
    for version in [1, 77] {
        let mut bytes = fs::read(&path).unwrap();
        bytes[7] = version;
        fs::write(&path, bytes).unwrap();
        let given = ip(&bench.add(&format!("v{version}")).unwrap());
        assert!(!held.iter().any(|reservation| ip(reservation) == given), "{given}");
        bench.assert_consistent();
    }
}
