//! The plugin killed at every system call that changes something, and lied to at every one that may fail.
//!
//! What is asked each time: whatever comes next (DEL, the loss of the namespace and a new pod, the same ADD again) works, no
//! veth, record, address, map element or ifb is left, no lock is held, and the pod beside it has noticed nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use serde_json::{Value, json};
use weft_tests::cni::injury::{Point, can_injure, injured, points};
use weft_tests::cni::{Added, Conf, Host, Outcome, Pod};
use weft_tests::{probe, skip, tool, wait};

const LIMIT: Duration = Duration::from_secs(5);

/// A machine with one pod that must not notice anything.
struct Ward {
    host: Host,
    conf: Conf,
    neighbour: Pod,
    result: Added,
}

impl Ward {
    fn new(what: &str) -> Self {
        let host = Host::new();
        let conf = conf(&host, what);
        let neighbour = host.pod();
        // Without what the victims ask for: their host ports are theirs.
        let result = host.add(&self::conf(&host, "plain"), &neighbour).result();
        Self { host, conf, neighbour, result }
    }

    fn call(&self, verb: &str, pod: &Pod) -> weft_tests::cni::Call {
        self.host.call(verb, &self.conf, pod, "eth0")
    }

    /// Where ADD can be injured. The first of a kind also makes what all of them share, so the second counts.
    fn points_of_add(&self) -> Vec<Point> {
        let pod = self.host.pod();
        let _ = self.host.make(&self.call("ADD", &pod)).result();
        self.host.del(&self.conf, &pod).done();
        let all = points(&self.host, self.call("ADD", &pod));
        self.host.del(&self.conf, &pod).done();
        assert!(all.len() > 20, "{all:?}");
        all
    }

    /// Nothing is left but the neighbour, who is well.
    fn assert_clean(&self, story: &str) {
        let rest = || -> Result<(), String> {
            let (veths, records) = (self.host.veths(), self.host.records());
            let ifbs = self.host.netns.objects("ip", &["link", "show", "type", "ifb"]).map_err(|e| e.to_string())?;
            let elements = elements(&self.host);
            if veths.len() == 1 && records.len() == 1 && ifbs.is_empty() && elements == 0 {
                Ok(())
            } else {
                Err(format!("veths {veths:?}, records {records:?}, {elements} map elements, ifbs {ifbs:?}"))
            }
        };
        wait::until_ok(LIMIT, "nothing but the neighbour", rest).unwrap_or_else(|error| panic!("{story}: {error}"));
        let lock = self.host.state_dir().join("net/lock");
        tool::call("flock", &["--nonblock", lock.to_str().unwrap(), "true"])
            .unwrap_or_else(|error| panic!("{story}: the lock is held: {error}"));
        assert_eq!(self.neighbour.addresses("eth0"), self.result.addresses(), "{story}");
    }

    fn assert_neighbour_well(&self) {
        assert!(probe::ping(&self.host.netns, self.result.ip(), LIMIT).unwrap().is_some());
        self.host.check(&conf(&self.host, "plain"), &self.neighbour, &self.result.0).done();
    }

    fn assert_no_interface(pod: &Pod, story: &str) {
        wait::until(LIMIT, "eth0 to go", || pod.link("eth0").is_none())
            .unwrap_or_else(|error| panic!("{story}: {error}"));
    }
}

/// How many elements the maps of the plugin's table hold; none if there is no table.
fn elements(host: &Host) -> usize {
    let Ok(listed) = host.netns.json("nft", &["list", "table", "inet", "weft-cni"]) else { return 0 };
    let objects = listed["nftables"].as_array().cloned().unwrap_or_default();
    let maps = objects.iter().filter_map(|object| object.get("map"));
    maps.filter_map(|map| map["elem"].as_array()).map(Vec::len).sum()
}

/// Two addresses, one of them the neighbour's: what the dead one holds has to be reclaimed, or there is none for the next.
fn conf(host: &Host, what: &str) -> Conf {
    let tight = json!([[{"subnet": "10.88.0.0/24", "rangeStart": "10.88.0.2", "rangeEnd": "10.88.0.3"}]]);
    let conf = host.conf("1.1.0").with_ipam("ranges", tight);
    let ports = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 8053, "containerPort": 53, "protocol": "udp"}]);
    let limits = json!({"ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 8_000_000,
        "egressBurst": 800_000});
    match what {
        "ports" => conf.with_runtime("portMappings", ports),
        "limits" => conf.with_runtime("bandwidth", limits),
        _ => conf,
    }
}

/// The kinds of attachment to injure: those that this plugin makes.
fn kinds() -> Vec<&'static str> {
    let does = |what: &&str| {
        let host = Host::new();
        host.add(&conf(&host, what), &host.pod()).succeeded()
    };
    ["plain", "ports", "limits"].into_iter().filter(does).collect()
}

/// What comes after a kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Del,
    NothingButANewPod,
    TheSameAgain,
}

fn killed_adds(then: Then) {
    for kind in kinds() {
        let ward = Ward::new(kind);
        let all = ward.points_of_add();
        for point in &all {
            let story = format!("{kind}: ADD killed at {} {}, then {then:?}", point.name, point.nth);
            let pod = ward.host.pod();
            let outcome = ward.host.make(&injured(ward.call("ADD", &pod), &point.kill()));
            assert_eq!(outcome.output.exit, None, "{story}: was not killed: {outcome:?}");
            after(&ward, &pod, then, &story);
            ward.assert_clean(&story);
        }
        ward.assert_neighbour_well();
    }
}

fn after(ward: &Ward, pod: &Pod, then: Then, story: &str) {
    let Ward { host, conf, .. } = ward;
    let whole = |outcome: &Outcome| assert!(outcome.succeeded(), "{story}: {outcome:?}");
    match then {
        Then::Del => {
            whole(&host.del(conf, pod));
            Ward::assert_no_interface(pod, story);
        }
        Then::NothingButANewPod => {
            pod.netns.delete().unwrap();
            let next = host.pod();
            let outcome = host.add(conf, &next);
            whole(&outcome);
            assert_eq!(outcome.result().addresses(), ["10.88.0.3/24"], "{story}");
            whole(&host.del(conf, &next));
        }
        Then::TheSameAgain => {
            let outcome = host.add(conf, pod);
            // It had come to its end: then it is refused like any second ADD, and lives.
            if !outcome.succeeded() {
                let text = outcome.refusal().text;
                assert!(text.contains("already"), "{story}: {text}");
            }
            let link = pod.addresses("eth0");
            assert_eq!(link.len(), 1, "{story}");
            assert_ne!(link, ward.result.addresses(), "{story}");
            whole(&host.del(conf, pod));
            Ward::assert_no_interface(pod, story);
        }
    }
}

#[test]
fn t089_t093_f71_add_killed_anywhere_then_del() {
    if !can_injure() {
        skip!("strace is not installed, or may not trace");
    }
    killed_adds(Then::Del);
}

#[test]
fn t090_add_killed_anywhere_then_a_new_pod_reclaims() {
    if !can_injure() {
        skip!("strace is not installed, or may not trace");
    }
    killed_adds(Then::NothingButANewPod);
}

#[test]
fn t091_add_killed_anywhere_then_the_same_again() {
    if !can_injure() {
        skip!("strace is not installed, or may not trace");
    }
    killed_adds(Then::TheSameAgain);
}

#[test]
fn t089_the_first_add_of_a_machine_killed_anywhere_does_not_stop_the_next() {
    if !can_injure() {
        skip!("strace is not installed, or may not trace");
    }
    for kind in kinds() {
        let virgin = || {
            let host = Host::new();
            let (conf, pod) = (conf(&host, kind), host.pod());
            (host, conf, pod)
        };
        let (host, first, pod) = virgin();
        for point in points(&host, host.call("ADD", &first, &pod, "eth0")) {
            let story = format!("{kind}: the first ADD killed at {} {}", point.name, point.nth);
            let (host, conf, pod) = virgin();
            let outcome = host.make(&injured(host.call("ADD", &conf, &pod, "eth0"), &point.kill()));
            if outcome.succeeded() {
                // Once in a while the list has a call more than are made: then another list must not have it.
                let (host, conf, pod) = virgin();
                let again = points(&host, host.call("ADD", &conf, &pod, "eth0"));
                assert!(!again.contains(&point), "{story}: was not killed: {outcome:?}");
                continue;
            }
            assert_eq!(outcome.output.exit, None, "{story}: was not killed: {outcome:?}");
            let next = host.pod();
            let result = host.add(&conf.clone().without("runtimeConfig"), &next).result();
            assert!(probe::ping(&host.netns, result.ip(), LIMIT).unwrap().is_some(), "{story}");
            host.del(&conf, &pod).done();
            Ward::assert_no_interface(&pod, &story);
            host.assert_attachments(1);
            let _ = host.add(&conf, &pod).result();
        }
    }
}

#[test]
fn t094_del_killed_anywhere_goes_on_where_it_was() {
    if !can_injure() {
        skip!("strace is not installed, or may not trace");
    }
    for kind in kinds() {
        let ward = Ward::new(kind);
        let first = ward.host.pod();
        let _ = ward.host.make(&ward.call("ADD", &first)).result();
        for point in points(&ward.host, ward.call("DEL", &first)) {
            let story = format!("{kind}: DEL killed at {} {}", point.name, point.nth);
            let pod = ward.host.pod();
            let _ = ward.host.make(&ward.call("ADD", &pod)).result();
            // Both processes are killed there: the child that waits for the kernel, too.
            let _ = ward.host.make(&injured(ward.call("DEL", &pod), &point.kill()));
            ward.host.make(&ward.call("DEL", &pod)).done();
            Ward::assert_no_interface(&pod, &story);
            ward.assert_clean(&story);

            // And with nobody who asks again.
            let pod = ward.host.pod();
            let _ = ward.host.make(&ward.call("ADD", &pod)).result();
            let _ = ward.host.make(&injured(ward.call("DEL", &pod), &point.kill()));
            after(&ward, &pod, Then::NothingButANewPod, &story);
            ward.assert_clean(&story);
        }
        ward.assert_neighbour_well();
    }
}

#[test]
fn f70_a_del_that_fails_anywhere_keeps_what_it_knows_and_the_next_one_releases_the_address() {
    if !can_injure() {
        skip!("strace is not installed, or may not trace");
    }
    for kind in kinds() {
        let ward = Ward::new(kind);
        let mut refused = 0;
        for (errno, names) in [
            ("ENOBUFS", &["sendto", "sendmsg", "recvmsg", "recvfrom"][..]),
            ("EIO", &["open", "openat", "unlink", "unlinkat", "pwrite64", "ftruncate"]),
        ] {
            let first = ward.host.pod();
            let _ = ward.host.make(&ward.call("ADD", &first)).result();
            let all = points(&ward.host, ward.call("DEL", &first));
            for point in all.into_iter().filter(|point| names.contains(&point.name.as_str())) {
                let story = format!("{kind}: DEL whose {} {} failed with {errno}", point.name, point.nth);
                let pod = ward.host.pod();
                let _ = ward.host.make(&ward.call("ADD", &pod)).result();
                let outcome = ward.host.make(&injured(ward.call("DEL", &pod), &point.fail(errno)));
                if !outcome.succeeded() {
                    refused_with(&outcome);
                    refused += 1;
                }
                ward.host.make(&ward.call("DEL", &pod)).done();
                Ward::assert_no_interface(&pod, &story);
                ward.assert_clean(&story);
            }
        }
        assert!(refused > 0, "{kind}: no failure was told");
        ward.assert_neighbour_well();
    }
}

#[test]
fn t085_t094_gc_killed_anywhere_goes_on_where_it_was() {
    if !can_injure() {
        skip!("strace is not installed, or may not trace");
    }
    for kind in kinds() {
        let mut ward = Ward::new(kind);
        ward.conf = ward.conf.with_subnets(&["10.88.0.0/24"]);
        let keep = json!([{"containerID": ward.neighbour.id, "ifname": "eth0"}]);
        let gc = ward.host.bare_call("GC", &ward.conf.clone().with("cni.dev/valid-attachments", keep));
        // Two are stale, so that it works in batches; only one of them may have the host ports.
        let plain = ward.host.conf("1.1.0");
        let add_stale = || {
            let pods = [ward.host.pod(), ward.host.pod()];
            let _ = ward.host.make(&ward.call("ADD", &pods[0])).result();
            let _ = ward.host.add(&plain, &pods[1]).result();
            pods
        };
        let _first = add_stale();
        for point in points(&ward.host, gc.clone()) {
            let story = format!("{kind}: GC killed at {} {}", point.name, point.nth);
            let _pods = add_stale();
            let _ = ward.host.make(&injured(gc.clone(), &point.kill()));
            ward.host.make(&gc).done();
            ward.assert_clean(&story);
        }
        ward.assert_neighbour_well();
    }
}

/// Lets each of the system calls fail once and looks that ADD fails with one of the codes, and whole.
fn failing_adds(names: &[&str], errno: &str, codes: &[i64]) {
    for kind in kinds() {
        let ward = Ward::new(kind);
        let all = ward.points_of_add();
        let hit: Vec<Point> = all.into_iter().filter(|point| names.contains(&point.name.as_str())).collect();
        assert!(!hit.is_empty(), "{names:?} are not called");
        for point in hit {
            let story = format!("{kind}: {} {} failed with {errno}", point.name, point.nth);
            let pod = ward.host.pod();
            let outcome = ward.host.make(&injured(ward.call("ADD", &pod), &point.fail(errno)));
            if outcome.succeeded() {
                // It was asked again, or its answer did not matter; then everything is as it says.
                assert_eq!(pod.addresses("eth0"), outcome.result().addresses(), "{story}");
                let plain = ward
                    .call("CHECK", &pod)
                    .with_stdin(ward.conf.clone().with("prevResult", outcome.result().0).bytes());
                assert!(ward.host.make(&plain).succeeded(), "{story}");
                ward.host.del(&ward.conf, &pod).done();
            } else {
                let code = refused_with(&outcome);
                assert!(codes.contains(&code), "{story}: {outcome:?}");
                Ward::assert_no_interface(&pod, &story);
            }
            // Nobody has called DEL after the refusal.
            ward.assert_clean(&story);
        }
        ward.assert_neighbour_well();
    }
}

/// The code of a refusal. One that comes after the result was written stands on a line of its own behind it: what is written
/// cannot be taken back, and the exit code says which of them counts.
fn refused_with(outcome: &Outcome) -> i64 {
    assert!(outcome.output.exit.is_some_and(|code| code != 0), "{outcome:?}");
    let error: Value =
        serde_json::from_str(outcome.output.stdout.lines().last().unwrap_or_default()).unwrap_or_default();
    error["code"].as_i64().unwrap_or_else(|| panic!("no error object: {outcome:?}"))
}

#[test]
fn t095_a_kernel_without_room_for_messages_fails_an_add_whole() {
    if !can_injure() {
        skip!("strace is not installed, or may not trace");
    }
    failing_adds(&["sendto", "sendmsg", "recvmsg", "recvfrom"], "ENOBUFS", &[11]);
}

#[test]
fn t095_calls_that_a_signal_interrupted_are_made_again_or_fail_whole() {
    if !can_injure() {
        skip!("strace is not installed, or may not trace");
    }
    failing_adds(
        &["sendto", "sendmsg", "recvmsg", "recvfrom", "open", "openat", "pwrite64", "fcntl", "flock"],
        "EINTR",
        &[5, 11],
    );
}

#[test]
fn t095_a_store_that_cannot_be_read_or_written_fails_an_add_whole() {
    if !can_injure() {
        skip!("strace is not installed, or may not trace");
    }
    // What is not the store's: the namespaces and the kernel's settings (4, 999).
    failing_adds(&["open", "openat", "linkat", "pwrite64", "unlink", "ftruncate"], "EIO", &[4, 5, 999]);
    failing_adds(&["open", "openat", "linkat", "pwrite64"], "ENOSPC", &[4, 5, 999]);
}

/// A file system of its own for the plugin's state, gone with its owner.
struct Mounted<'a>(&'a Host);

impl<'a> Mounted<'a> {
    fn new(host: &'a Host, options: &str) -> Self {
        let folder = host.state_dir();
        std::fs::create_dir_all(&folder).unwrap();
        tool::call("mount", &["-t", "tmpfs", "-o", options, "weft-test", folder.to_str().unwrap()]).unwrap();
        Self(host)
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let folder = self.0.state_dir();
        if let Err(error) = tool::call("umount", &["--lazy", folder.to_str().unwrap_or_default()]) {
            eprintln!("left behind: {}: {error:#}", folder.display());
        }
    }
}

#[test]
fn t095_a_full_file_system_fails_an_add_whole_wherever_it_gets_full() {
    let mut refused = 0;
    for blocks in 1..=8 {
        let host = Host::new();
        let conf = host.conf("1.0.0");
        let _mounted = Mounted::new(&host, &format!("size={}k", blocks * 4));
        let mut kept = Vec::new();
        // Until it is full: each record takes a block.
        for _ in 0..12 {
            let pod = host.pod();
            let outcome = host.add(&conf, &pod);
            if outcome.succeeded() {
                kept.push(pod);
                continue;
            }
            refused += 1;
            outcome.refused(5, &["No space left on device"]);
            assert!(pod.link("eth0").is_none());
            host.assert_attachments(kept.len());
            break;
        }
        // There is room again for one where one goes.
        if let Some(pod) = kept.pop() {
            host.del(&conf, &pod).done();
            let _ = host.add(&conf, &host.pod()).result();
        }
    }
    assert_eq!(refused, 8);
}

#[test]
fn t095_a_read_only_file_system_fails_an_add_whole_and_status_says_so() {
    let host = Host::new();
    let conf = host.conf("1.1.0");
    let _mounted = Mounted::new(&host, "size=1m");
    let kept = host.pod();
    let _ = host.add(&conf, &kept).result();
    let folder = host.state_dir();
    let remount = |how: &str| tool::call("mount", &["-o", how, folder.to_str().unwrap()]).unwrap();
    remount("remount,ro");
    let pod = host.pod();
    host.add(&conf, &pod).refused(5, &["Read-only file system"]);
    host.status(&conf).refused(50, &["cannot be written"]);
    assert!(pod.link("eth0").is_none());
    host.assert_attachments(1);
    // What cannot be forgotten is told, and done when it is asked for again.
    host.del(&conf, &kept).refused(5, &[]);
    remount("remount,rw");
    host.del(&conf, &kept).done();
    host.assert_nothing_left();
}
