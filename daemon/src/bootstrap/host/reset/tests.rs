//! A reset of another root, with mounts in a namespace of the test's own.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::bootstrap::host::checks::testing;
use crate::bootstrap::host::facts::{HostFacts, ModuleState};
use crate::bootstrap::host::tools::testing::Recorder;
use crate::bootstrap::host::tools::{Said, Tools};
use crate::bootstrap::host::{Hand, HostError, Wanted, containerd, gather, prepare};
use crate::bootstrap::journal::{Change, Journal};

/// Each path below the root with its content; directories have none.
fn tree(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let is_directory = path.symlink_metadata().unwrap().is_dir();
            found.insert(path.clone(), if is_directory { Vec::new() } else { fs::read(&path).unwrap_or_default() });
            if is_directory {
                open.push(path);
            }
        }
    }
    found
}

fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn options_of(paths: &Paths) -> ResetOptions {
    ResetOptions::new(paths.clone(), &Journal::read(paths).unwrap())
}

fn reset(options: &ResetOptions, tools: &dyn Tools) -> Result<Done, ResetError> {
    let seen = see(options, &Journal::read(&options.paths).unwrap()).unwrap();
    run(&plan(options, &seen), options, tools)
}

/// swapoff and swapon change the substituted /proc/swaps.
fn swapping(root: &Path) -> Recorder {
    let swaps = root.join("proc/swaps");
    Recorder::new(move |line| {
        let entry = if line.starts_with("swapoff ") { "" } else { "/swap file 1024 0 5\n" };
        if line.starts_with("swapo") {
            fs::write(&swaps, format!("Filename Type Size Used Priority\n{entry}"))?;
        }
        Ok(Said { well: true, ..Said::default() })
    })
}

/// A root in which there is something to prepare.
fn unprepared() -> tempfile::TempDir {
    // Much is synced here, which costs nothing in memory.
    let memory = Path::new("/dev/shm");
    let root = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    fs::create_dir_all(root.path().join("var/lib")).unwrap();
    put(root.path(), "proc/swaps", "Filename Type Size Used Priority\n/swap file 1024 0 5\n");
    put(root.path(), "proc/sys/net/ipv4/ip_forward", "0");
    put(root.path(), "etc/fstab", "/swap none swap sw 0 0\n");
    put(root.path(), "etc/containerd/config.toml", "# theirs\ndisabled_plugins = [\"cri\"]\n");
    put(root.path(), "etc/hosts", "127.0.0.1 localhost\n");
    root
}

fn wanted(root: &Path) -> Wanted {
    Wanted { fix: true, paths: Paths::under(root), ..testing::init() }
}

fn facts(root: &Path) -> HostFacts {
    let mut facts = HostFacts { swaps: gather::swaps(root), fstab_swaps: 1, ..testing::facts() };
    facts.modules.insert("ip_vs", ModuleState::Loadable);
    facts.runtime.containerd = containerd::read(&root.join(containerd::CONFIG), root);
    facts
}

/// Prepares, and leaves what phases would; killed when so many lines of the journal are written.
fn bring_up(root: &Path, tools: &dyn Tools, budget: Option<usize>) -> Result<(), HostError> {
    let wanted = wanted(root);
    let mut journal = Journal::open(&wanted.paths)?;
    journal.budget = budget;
    let mut hand = Hand::new(&wanted.paths, &mut journal, tools);
    let mirrors = ["https://mirror.example".parse().unwrap()];
    prepare(&mut hand, &facts(root), &wanted, &mirrors)?;
    hand.block(&root.join("etc/hosts"), "api", &["192.0.2.10 api.kubernetes.internal".to_owned()])?;
    hand.directory(&root.join("var/lib/etcd"), 0o700)?;
    hand.file(&wanted.paths.manifests().join("etcd.yaml"), b"kind: Pod\n", 0o600)?;
    hand.file(&wanted.paths.kubernetes.join("admin.conf"), b"secret", 0o600)?;
    hand.file(&wanted.paths.kubelet.join("config.yaml"), b"kind: x\n", 0o644)?;
    let id = journal.begin(Change::Phase { name: "certs".into(), config_hash: "1".into() })?;
    journal.done(id)?;
    Ok(())
}

#[test]
fn r01_a_root_without_a_cluster_is_not_changed() {
    let root = unprepared();
    let before = tree(root.path());
    let done = reset(&options_of(&Paths::under(root.path())), &Recorder::willing()).unwrap();
    assert_eq!(done, Done::default());
    assert_eq!(tree(root.path()), before);
}

#[test]
fn p04_p0_20_after_init_and_reset_all_is_as_before() {
    let root = unprepared();
    let before = tree(root.path());
    let tools = swapping(root.path());
    bring_up(root.path(), &tools, None).unwrap();
    assert_ne!(tree(root.path()), before);
    let options = options_of(&Paths::under(root.path()));
    let done = reset(&options, &tools).unwrap();
    assert_eq!(done.warnings, Vec::<String>::new());
    let after = tree(root.path());
    let more: Vec<_> = after.keys().filter(|path| !before.contains_key(*path)).collect();
    assert!(more.is_empty(), "{more:?}");
    assert_eq!(after, before);
    assert_eq!(reset(&options, &tools).unwrap(), Done::default(), "a second time there is nothing to do");
}

#[test]
fn p0_20_a_reset_killed_after_any_step_goes_on() {
    for kill_at in 0.. {
        let root = unprepared();
        let before = tree(root.path());
        let tools = swapping(root.path());
        bring_up(root.path(), &tools, None).unwrap();
        let paths = Paths::under(root.path());
        let options = options_of(&paths);
        let seen = see(&options, &Journal::read(&paths).unwrap()).unwrap();
        let mut planned = plan(&options, &seen);
        if kill_at >= planned.steps.len() {
            return;
        }
        planned.steps.truncate(kill_at);
        planned.settled.clear();
        run(&planned, &options, &tools).unwrap();
        reset(&options, &tools).unwrap();
        assert_eq!(tree(root.path()), before, "killed after {kill_at}");
    }
}

#[test]
fn p0_7_p0_20_a_run_killed_between_any_two_steps_goes_on_and_is_undone() {
    for budget in 0.. {
        let root = unprepared();
        let before = tree(root.path());
        let tools = swapping(root.path());
        let options = options_of(&Paths::under(root.path()));
        let killed = bring_up(root.path(), &tools, Some(budget)).is_err();
        if budget % 2 == 0 {
            // Every other time the run is taken up again first.
            bring_up(root.path(), &tools, None).unwrap();
        }
        let done = reset(&options, &tools).unwrap();
        assert_eq!(tree(root.path()), before, "killed after {budget} lines: {done:?}");
        if !killed {
            assert!(budget > 20, "there was something to kill");
            return;
        }
    }
}

#[test]
fn p0_21_what_others_have_changed_is_left_and_listed() {
    let root = unprepared();
    let tools = swapping(root.path());
    bring_up(root.path(), &tools, None).unwrap();
    put(root.path(), "etc/sysctl.d/90-weft.conf", "net.ipv4.ip_forward = 1\n# ours now\n");
    put(root.path(), "etc/cni/net.d/99-other.conflist", "{}");
    put(root.path(), "etc/hosts", &(fs::read_to_string(root.path().join("etc/hosts")).unwrap() + "192.0.2.77 other\n"));
    let done = reset(&options_of(&Paths::under(root.path())), &tools).unwrap();
    let left: Vec<&str> = done.left.iter().map(|left| left.what.as_str()).collect();
    assert!(left.iter().any(|what| what.ends_with("sysctl.d/90-weft.conf")), "{left:?}");
    assert!(left.iter().any(|what| what.ends_with("cni/net.d")), "{left:?}");
    assert!(root.path().join("etc/cni/net.d/99-other.conflist").exists());
    let hosts = fs::read_to_string(root.path().join("etc/hosts")).unwrap();
    assert_eq!(hosts, "127.0.0.1 localhost\n192.0.2.77 other\n");
}

#[test]
fn r07_a_program_that_fails_is_a_warning_and_is_tried_again() {
    let root = unprepared();
    bring_up(root.path(), &swapping(root.path()), None).unwrap();
    let options = options_of(&Paths::under(root.path()));
    let unable = Recorder::new(|_| Err(std::io::ErrorKind::NotFound.into()));
    let done = reset(&options, &unable).unwrap();
    assert!(done.warnings.len() == 1 && done.warnings[0].starts_with("cannot swapon /swap: "), "{done:?}");
    assert!(!root.path().join("etc/sysctl.d/90-weft.conf").exists(), "the rest is done all the same");
    let tools = swapping(root.path());
    assert_eq!(reset(&options, &tools).unwrap().warnings, Vec::<String>::new());
    assert_eq!(*tools.calls.borrow(), ["swapon /swap -p 5"]);
    assert!(Journal::read(&options.paths).unwrap().is_empty());
}

#[test]
fn r06_a_dry_run_is_the_plan_and_changes_nothing() {
    let root = unprepared();
    bring_up(root.path(), &swapping(root.path()), None).unwrap();
    let before = tree(root.path());
    let options = options_of(&Paths::under(root.path()));
    let seen = see(&options, &Journal::read(&options.paths).unwrap()).unwrap();
    let text = plan(&options, &seen).to_string();
    assert_eq!(tree(root.path()), before);
    let done = reset(&options, &swapping(root.path())).unwrap();
    let planned: Vec<&str> = text.lines().filter(|line| !line.starts_with("left: ")).collect();
    assert_eq!(planned, done.changes, "and what is done later is just that");
}

/// Runs it in a mount namespace of a thread's own; the mounts go with it.
fn in_own_mounts(work: impl FnOnce() + Send) {
    if !nix::unistd::geteuid().is_root() {
        return weft_tests::skip::record("needs root");
    }
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            work();
        });
        thread.join().unwrap();
    });
}

fn tmpfs(path: &Path) {
    fs::create_dir_all(path).unwrap();
    mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
}

fn bind(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
}

#[test]
fn r04_p0_21_a_busy_mount_ends_the_reset_before_anything_is_removed() {
    in_own_mounts(|| {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        let data = root.path().join("data");
        let volume = paths.kubelet.join("pods/u/volumes/kubernetes.io~nfs/my data");
        put(root.path(), "data/precious", "x");
        put(root.path(), "etc/kubernetes/manifests/etcd.yaml", "x");
        bind(&data, &volume);
        let held = File::open(volume.join("precious")).unwrap();
        let options = options_of(&paths);
        let error = reset(&options, &Recorder::willing()).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("my data/precious") && text.contains(&format!("process {}", std::process::id())),
            "{text}"
        );
        assert!(data.join("precious").exists() && paths.manifests().join("etcd.yaml").exists());
        drop(held);
        let done = reset(&options, &Recorder::willing()).unwrap();
        assert!(done.changes[0].starts_with("unmount ") && done.changes[0].ends_with("my data"), "{done:?}");
        assert_eq!(fs::read(data.join("precious")).unwrap(), b"x");
        assert_eq!(fs::read_dir(&paths.kubelet).unwrap().count(), 0);
        assert!(!paths.manifests().join("etcd.yaml").exists());
    });
}

#[test]
fn p0_21_kubelets_own_mount_stays_and_what_is_stacked_on_it_goes() {
    in_own_mounts(|| {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        tmpfs(&paths.kubelet);
        put(&paths.kubelet, "config.yaml", "x");
        for _ in 0..2 {
            tmpfs(&paths.kubelet.join("pods/u/volumes/secret"));
        }
        tmpfs(&paths.kubelet.join("pods/u/volumes/secret/inner"));
        let done = reset(&options_of(&paths), &Recorder::willing()).unwrap();
        assert_eq!(done.changes.iter().filter(|change| change.starts_with("unmount")).count(), 3);
        assert_eq!(fs::read_dir(&paths.kubelet).unwrap().count(), 0);
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let own = format!(" {} ", paths.kubelet.display());
        assert!(mounts.contains(&own), "kubelet's directory is still a mount");
    });
}

#[test]
fn p0_21_nothing_is_removed_across_a_mount_that_came_later() {
    in_own_mounts(|| {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        put(root.path(), "data/precious", "x");
        put(&paths.pki, "ca.crt", "x");
        let options = options_of(&paths);
        let seen = see(&options, &[]).unwrap();
        let planned = plan(&options, &seen);
        // Of the same file system, so that no device number tells.
        bind(&root.path().join("data"), &paths.pki.join("etcd"));
        let done = run(&planned, &options, &Recorder::willing()).unwrap();
        assert!(root.path().join("data/precious").exists());
        assert!(!paths.pki.join("ca.crt").exists());
        assert!(
            done.left.iter().any(|left| left.what.ends_with("pki/etcd") && left.why.contains("mounted")),
            "{done:?}"
        );
    });
}
