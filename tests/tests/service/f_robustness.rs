//! 4.6: what somebody deletes, what the host does, restarts, and bad input.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use weft_tests::kube::{ApiStore, Endpoint, Port, Service, slices_of};
use weft_tests::lab::{NETWORK_PREFIX, OwnedLab, Spec};
use weft_tests::netns::Netns;
use weft_tests::probe::{self, Answer, Dialogue, ProbeServer, Question, Transport};
use weft_tests::svc::{Bench, Place, mode, patience, vips};
use weft_tests::{http, skip, tool, wait};

use super::monitor::{has_nft, written_while};
use super::{is_ipvs, usual, web};

/// The promise for every repair, and a look.
const REPAIR: Duration = Duration::from_secs(12);

/// The names of the objects of a kind in the agent's table.
fn names(node: &Netns, kind: &str) -> Vec<String> {
    let listed = node.json("nft", &["list", "table", "inet", "weft"]).unwrap();
    let objects = listed["nftables"].as_array().cloned().unwrap_or_default();
    objects.iter().filter_map(|object| Some(object[kind]["name"].as_str()?.to_owned())).collect()
}

#[test]
fn t099_what_somebody_deletes_is_back_within_the_repair_time() {
    if !has_nft() {
        skip!("there is no nft to delete with");
    }
    let bench = usual();
    let case = bench.alone("t099");
    let service = case.service("web", &[Port::tcp(80, 8080).on_nodes(case.node_port())]);
    let empty = case.service("empty", &web());
    case.apply(&service, &[bench.l1.ready(), bench.r1.ready()]);
    case.apply(&empty, &[]);
    let node = &bench.node.netns;
    let node_port = SocketAddr::new(bench.node_ips()[0], service.ports()[0].node_port.unwrap());
    let whole = |after: &str| {
        wait::until_ok(patience(REPAIR), &format!("Services to be whole again after {after}"), || {
            let limit = patience(Duration::from_millis(300));
            for (place, door) in
                [(&bench.pod, vips(&service)[0]), (&bench.pod, vips(&service)[1]), (&bench.ext, node_port)]
            {
                let outcome = place.to(door).times(8).within(limit).go();
                if outcome.served() < 8 {
                    return Err(format!("{} to {door}: {outcome:?}", place.name));
                }
            }
            let outcome = bench.pod.to(vips(&empty)[0]).times(1).within(limit).go();
            if outcome.refused == 1 { Ok(()) } else { Err(format!("no refusal: {outcome:?}")) }
        })
        .unwrap();
    };
    whole("nothing");
    node.tool("nft", &["delete", "table", "inet", "weft"]).unwrap();
    whole("the table");
    let ours = |name: &String| name.starts_with("svc-");
    for kind in ["map", "set"] {
        for name in names(node, kind).into_iter().filter(ours) {
            node.tool("nft", &["flush", kind, "inet", "weft", &name]).unwrap();
        }
    }
    whole("every element");
    for name in names(node, "chain").into_iter().filter(ours) {
        node.tool("nft", &["flush", "chain", "inet", "weft", &name]).unwrap();
    }
    whole("every rule");
    if is_ipvs() {
        node.tool("ip", &["route", "flush", "table", "local", "root", "10.96.0.0/12"]).unwrap();
        whole("the local route");
    }
}

#[test]
fn t102_a_change_that_meets_damage_is_made_and_nothing_else_is_lost() {
    if !has_nft() {
        skip!("there is no nft to delete with");
    }
    let bench = usual();
    let case = bench.alone("t102");
    let node_port = [Port::tcp(80, 8080).on_nodes(case.node_port())];
    let (service, other) = (case.service("web", &node_port), case.service("other", &web()));
    case.apply(&service, &[bench.l1.ready(), bench.l2.ready()]);
    case.apply(&other, &[bench.l2.ready()]);
    let node = &bench.node.netns;
    let elements = || {
        // What the change is about to take out is not there any more.
        for map in ["backends4", "backends6", "frontends4", "frontends6", "sizes"] {
            node.tool("nft", &["flush", "map", "inet", "weft", &format!("svc-{map}")]).unwrap();
        }
    };
    let table = || drop(node.tool("nft", &["delete", "table", "inet", "weft"]).unwrap());
    let damages: [(&str, &dyn Fn()); 2] = [("elements", &elements), ("the table", &table)];
    for (what, damage) in damages {
        for (place, name) in [(&bench.r1, "r1"), (&bench.l1, "l1")] {
            damage();
            case.apply(&service, &[place.ready()]);
            wait::until_ok(patience(REPAIR), &format!("all to be right after {what} had gone"), || {
                for (service, by) in [(&service, name), (&other, "l2")] {
                    for vip in vips(service) {
                        let outcome = bench.pod.to(vip).times(6).within(patience(Duration::from_millis(300))).go();
                        if outcome.served() < 6 || !outcome.by.keys().eq([by]) {
                            return Err(format!("{vip}: {outcome:?}"));
                        }
                    }
                }
                Ok(())
            })
            .unwrap();
        }
    }
}

/// A program that owns the agent's table: nobody else can write there as long as it lives.
struct Owner(Child);

impl Owner {
    fn take(node: &Netns) -> Self {
        let mut command = tool::command("nft");
        command.arg("-i").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut this = Self(node.run(|| command.spawn()).unwrap().unwrap());
        let words = "delete table inet weft; add table inet weft { flags owner; }\n";
        this.0.stdin.as_mut().unwrap().write_all(words.as_bytes()).unwrap();
        let owned = || node.tool("nft", &["list", "table", "inet", "weft"]).is_ok_and(|text| text.contains("owner"));
        wait::until(patience(Duration::from_secs(5)), "the table to be owned", owned).unwrap();
        this
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn t102_health_is_bad_while_changes_wait_for_two_sync_periods() {
    if !has_nft() {
        skip!("there is no nft to own the table");
    }
    let lab = OwnedLab::up(Spec::test(1).services(&mode()));
    let node = lab.node("node1").unwrap().clone();
    let etcd = lab.etcd().unwrap().clone();
    let api = ApiStore::new(&etcd, NETWORK_PREFIX);
    let vip: SocketAddr = "10.96.1.2:80".parse().unwrap();
    let service = Service::new("t102", "web", &[vip.ip()]).port(&Port::tcp(80, 8080));
    let _server = ProbeServer::start(&node.netns, "node", &[8080]).unwrap();
    let served = || {
        let question = Question { limit: patience(Duration::from_millis(500)), ..Question::new(vip) };
        probe::ask(&node.netns, &question, 4, 1).unwrap().served() == 4
    };
    let healthz = || http::get(&node.netns, "127.0.0.1:10256".parse().unwrap(), "/healthz").map(|answer| answer.status);
    wait::until(patience(Duration::from_secs(10)), "a healthy start", || healthz().is_ok_and(|status| status == 200))
        .unwrap();
    let begin = Instant::now();
    let owner = Owner::take(&node.netns);
    for slice in slices_of(&service, &[Endpoint::ready(node.v4().into(), "node1")]) {
        api.put(&slice).unwrap();
    }
    api.put(service.json()).unwrap();
    let unwritten = || lab.readyz("node1").is_ok_and(|answer| answer.body.contains("[!] services"));
    wait::until(patience(REPAIR), "/readyz to say that nothing can be written", unwritten).unwrap();
    assert_eq!(healthz().unwrap(), 200, "a failure is no lasting one yet");
    let bad = || healthz().is_ok_and(|status| status == 503);
    wait::until(Duration::from_secs(70) + patience(Duration::from_secs(5)), "/healthz to turn bad", bad).unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(60), "bad after {:?}", begin.elapsed());
    // A virtual server needs nothing of nf_tables but its door, and without the table there is no wall either.
    assert!(is_ipvs() || !served());
    drop(owner);
    wait::until(patience(REPAIR), "what waited to be served", served).unwrap();
    wait::until(patience(REPAIR), "/healthz to be good again", || healthz().is_ok_and(|status| status == 200)).unwrap();
}

/// So many changes of a family have counted as programmed.
fn programmed(bench: &Bench, family: &str) -> u64 {
    let text = bench.proxy("/metrics").unwrap().body;
    let head = format!("kubeproxy_network_programming_duration_seconds_count{{ip_family=\"{family}\"}} ");
    let number = text.lines().find_map(|line| line.strip_prefix(&head));
    number.map_or(0, |number| number.parse().unwrap())
}

#[test]
fn t110_what_happened_before_the_start_is_no_programming_time() {
    let bench = usual();
    let case = bench.alone("t110");
    let service = case.service("web", &web());
    let put = |place: &Place, triggered: &str| {
        for mut slice in slices_of(&service, &place.ready()) {
            slice["metadata"]["annotations"]["endpoints.kubernetes.io/last-change-trigger-time"] = triggered.into();
            case.put(&slice);
        }
        case.put(service.json());
        case.settle();
    };
    let counts = || ["IPv4", "IPv6"].map(|family| programmed(&bench, family));
    put(&bench.l1, "2026-01-01T00:00:01Z");
    bench.kill_agent();
    bench.start_agent();
    case.settle();
    assert_eq!(counts(), [0, 0], "a start with old slices");
    put(&bench.l2, "2026-01-01T00:00:02Z");
    assert_eq!(counts(), [0, 0], "an old change");
    put(&bench.l1, &rfc3339(SystemTime::now()));
    assert_eq!(counts(), [1, 1]);
    let text = bench.proxy("/metrics").unwrap().body;
    let sum = text.lines().find(|line| line.starts_with("kubeproxy_network_programming_duration_seconds_sum")).unwrap();
    let seconds: f64 = sum.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(seconds < patience(Duration::from_secs(20)).as_secs_f64(), "{sum}");
}

/// A time as the API writes it.
fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap();
    let (seconds, nanos) = (since.as_secs(), since.subsec_nanos());
    let (mut day, mut year, mut month) = (seconds / 86_400, 1970, 1);
    let length = |year: u64, month: u64| match month {
        // Right until 2100.
        2 => 28 + u64::from(year.is_multiple_of(4)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    while day >= length(year, month) {
        day -= length(year, month);
        (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    }
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z", day + 1)
}

#[test]
fn a_restart_with_unchanged_services_writes_nothing_to_their_tables() {
    if !has_nft() {
        skip!("there is no nft to watch with");
    }
    let bench = usual();
    let case = bench.alone("restart");
    let ports = [Port::tcp(80, 8080).named("a").on_nodes(case.node_port()), Port::udp(53, 8080).named("b")];
    let service = case.service("web", &ports).load_balancer(&case.outer_ips(), "VIP").external_local();
    let sticky = case.service("sticky", &web()).affinity(600);
    case.apply(&service, &[bench.l1.ready(), bench.r1.ready()]);
    case.apply(&sticky, &[bench.l1.ready(), bench.l2.ready(), bench.r1.ready()]);
    let passes = || {
        let text = bench.lab().metrics("node1").unwrap().body;
        let line = text.lines().find_map(|line| line.strip_prefix("weft_passes_total "));
        line.and_then(|number| number.parse().ok()).unwrap_or(0.0)
    };
    let written = written_while(&bench, "restart", || {
        bench.kill_agent();
        bench.start_agent();
        // A pass or two later: an audit has been, too.
        let first: f64 = passes();
        wait::until(Duration::from_secs(30), "two more passes", || passes() >= first + 2.0).unwrap();
    });
    assert_eq!(written, [""; 0]);
    bench.pod.to(vips(&service)[0]).is_served_by(&["l1", "r1"]);
}

#[test]
fn flows_go_on_over_a_restart_without_losing_a_question() {
    let bench = usual();
    let case = bench.alone("flows");
    let ports = [Port::tcp(80, 8080).named("tcp"), Port::udp(80, 8080).named("udp")];
    let service = case.service("web", &ports);
    case.apply(&service, &[bench.l1.ready(), bench.r1.ready()]);
    let open = |transport| vips(&service).into_iter().map(move |vip| (vip, transport)).collect::<Vec<_>>();
    let flows: Vec<Dialogue> = [open(Transport::Tcp), open(Transport::Udp)]
        .concat()
        .into_iter()
        .map(|(vip, transport)| bench.pod.to(vip).over(transport).open())
        .collect();
    let ask = || {
        for flow in &flows {
            let answer = flow.ask();
            assert!(matches!(answer, Answer::Served { .. }), "{answer:?}");
        }
        vips(&service).into_iter().for_each(|vip| drop(bench.pod.to(vip).times(4).is_served()));
    };
    (0..20).for_each(|_| ask());
    bench.kill_agent();
    (0..20).for_each(|_| ask());
    std::thread::scope(|scope| {
        let started = scope.spawn(|| bench.start_agent());
        while !started.is_finished() {
            ask();
        }
        started.join().unwrap();
    });
    (0..20).for_each(|_| ask());
}

#[test]
fn t107_a_service_does_not_show_the_hosts_own_ports() {
    let bench = usual();
    let case = bench.alone("t107");
    let service = case.service("web", &web()).load_balancer(&case.outer_ips(), "VIP");
    case.apply(&service, &[bench.l1.ready()]);
    let _sshd = ProbeServer::start(&bench.node.netns, "sshd", &[22]).unwrap();
    bench.ext.to(SocketAddr::new(bench.node_ips()[0], 22)).is_served_by(&["sshd"]);
    for ip in service.cluster_ips() {
        for place in [&bench.pod, &bench.ext, &bench.node, &bench.far] {
            place.to(SocketAddr::new(ip, 22)).is_refused();
        }
    }
    for ip in service.outer_ips() {
        for place in [&bench.pod, &bench.ext] {
            let outcome = place.to(SocketAddr::new(ip, 22)).times(2).within(patience(Duration::from_millis(400))).go();
            assert_eq!(outcome.served(), 0, "{ip}: {outcome:?}");
        }
    }
}

#[test]
fn t109_the_host_reaches_services_from_its_own_address() {
    let bench = usual();
    let case = bench.case("t109");
    let service = case.service("web", &web());
    case.apply(&service, &[bench.l1.ready(), bench.r1.ready()]);
    for vip in vips(&service) {
        bench.node.to(vip).is_served_by(&["l1", "r1"]).seen_as(&bench.node);
    }
}

#[test]
fn bad_input_is_named_and_everything_else_is_served() {
    let bench = usual();
    let case = bench.case("bad");
    let good = case.service("good", &web());
    let zero = case.service("zero", &[Port::tcp(0, 8080)]);
    let odd =
        case.service("odd", &web()).with("/spec/clusterIP", "10.96.0.300").with("/spec/clusterIPs/0", "10.96.0.300");
    let wild = case.service("wild", &web()).with("/metadata/annotations/weft.dev~1ipvs-scheduler", "no-such");
    for service in [&zero, &odd] {
        case.serve(service, &[bench.l1.ready()]);
        case.put(service.json());
    }
    let mut crossed = slices_of(&good, &[]).remove(0);
    crossed["metadata"]["name"] = "crossed".into();
    crossed["endpoints"] = serde_json::json!([{"addresses": ["fd00::1"]}, {"addresses": []}, {"addresses": ["x"]}]);
    case.put(&crossed);
    let etcd = bench.lab().etcd().unwrap().clone();
    etcd.put(&format!("{NETWORK_PREFIX}/services/bad/garbled"), "{\"kind\":").unwrap();
    etcd.put(&format!("{NETWORK_PREFIX}/endpointslices/bad/garbled"), "[1, 2").unwrap();
    case.serve(&wild, &[bench.l1.ready()]);
    case.put(wild.json());
    case.apply(&good, &[bench.l1.ready()]);
    vips(&good).into_iter().for_each(|vip| drop(bench.pod.to(vip).is_served_by(&["l1"])));
    if !is_ipvs() {
        // What only IPVS would read.
        vips(&wild).into_iter().for_each(|vip| drop(bench.pod.to(vip).is_served_by(&["l1"])));
    }
    let log = bench.lab().log("node1").unwrap();
    assert!(log.lines().any(|line| line.contains("garbled")), "nothing is said of the garbled objects");
}

#[test]
fn the_mode_is_told() {
    let bench = usual();
    assert_eq!(bench.proxy("/proxyMode").unwrap().body.trim(), mode());
}
