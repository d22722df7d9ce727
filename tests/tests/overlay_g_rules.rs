//! Masquerade and forwarding: rules of weft's that others remove, and rules of others' that pods have to pass.
//!
//! ```text
//!   node1 .11 ──┬── node2 .12 ──┬── outside .5       underlay 192.168.100.0/24, fd00:100::/64
//!     cni0      │     cni0      │
//!      └ pod1   │      └ pod1   └── gateway .1
//! ```
//!
//! Others' rules are made with Debian's iptables, which is iptables-nft, and with iptables-legacy.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::net::IpAddr;
use std::time::Duration;

use weft_tests::lab::{Node, OUTSIDE, OwnedLab, Spec};
use weft_tests::netns::Netns;
use weft_tests::process::{self, ProcessId};
use weft_tests::scratch::Scratch;
use weft_tests::{probe, tool, wait};

/// How soon traffic has to flow again.
const SOON: Duration = Duration::from_secs(5);

/// How long somebody is given to answer who is not to be reached.
const SILENCE: Duration = Duration::from_millis(300);

const PROGRAMS: [&str; 2] = ["iptables", "ip6tables"];

/// A lab of two nodes with a client outside, and traffic in both families.
fn lab(spec: Spec) -> (OwnedLab, Netns) {
    let lab = OwnedLab::up(spec.dual_stack());
    let outside = lab.outside().unwrap();
    flows(&lab, &outside).unwrap();
    (lab, outside)
}

/// What a pod of node1 gets through to: the pod of node2, and a machine outside, which has to see the node's address.
fn look(lab: &OwnedLab, outside: &Netns) -> Result<(), String> {
    let (here, there) = (lab.node("node1").unwrap(), lab.node("node2").unwrap());
    let (from, to) = (here.pod("pod1").unwrap(), there.pod("pod1").unwrap());
    for (target, node, outer) in
        [(to.v4().unwrap(), IpAddr::V4(here.v4()), OUTSIDE[0]), (to.v6().unwrap(), here.v6().into(), OUTSIDE[1])]
    {
        let answered = probe::ping(&from.netns, target, SILENCE).map_err(|error| format!("{error:#}"))?;
        answered.ok_or_else(|| format!("{target} does not answer"))?;
        let answered = probe::ping(&from.netns, outer, SILENCE).map_err(|error| format!("{error:#}"))?;
        answered.ok_or_else(|| format!("{outer} does not answer"))?;
        let seen = probe::udp_echo(&from.netns, outside, outer).map_err(|error| format!("{error:#}"))?;
        if seen != node {
            return Err(format!("outside sees {seen} in the place of {node}"));
        }
    }
    Ok(())
}

fn flows(lab: &OwnedLab, outside: &Netns) -> Result<(), wait::TimedOut> {
    wait::until_ok(wait::patience(SOON), "traffic between pods and to the outside", || look(lab, outside))
}

/// Both families' iptables on a node.
fn iptables(node: &Node, words: &str) {
    let words: Vec<&str> = words.split(' ').collect();
    for program in PROGRAMS {
        node.netns.tool(program, &words).unwrap();
    }
}

/// The rules of FORWARD, as iptables tells them.
fn forward(node: &Node, program: &str) -> Vec<String> {
    let text = node.netns.tool(program, &["-S", "FORWARD"]).unwrap();
    text.lines().filter(|line| line.starts_with("-A")).map(str::to_owned).collect()
}

/// All of nf_tables that is not weft's.
fn others(node: &Node) -> String {
    let text = node.netns.tool("nft", &["-s", "list", "ruleset"]).unwrap();
    let mut ours = false;
    let mut kept = String::new();
    for line in text.lines() {
        if line.starts_with("table ") {
            ours = line.contains(" weft");
        }
        if !ours && !line.contains("comment \"weft: ") {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// A number out of a node's metrics.
fn metric(lab: &OwnedLab, node: &str, name: &str) -> u64 {
    let text = lab.metrics(node).unwrap().body;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
    line.trim().parse().unwrap()
}

fn repairs(lab: &OwnedLab) -> u64 {
    metric(lab, "node1", "weft_repairs_total{table=\"forward\"} ")
}

/// How often a node's agent has logged that it has put rules back into others' chains.
fn told(lab: &OwnedLab) -> usize {
    let log = lab.log("node1").unwrap();
    log.lines()
        .filter(|line| line.contains("repaired what somebody else had changed") && line.contains("forward"))
        .count()
}

#[test]
fn d82_forward_drop_lets_pods_through_whoever_sets_or_flushes_it() {
    let (mut lab, outside) = lab(Spec::test(2));
    let foreign = ["-A FORWARD -s 192.0.2.7/32 -j DROP", "-A FORWARD -s 2001:db8::7/128 -j DROP"];
    for name in ["node1", "node2"] {
        let node = lab.node(name).unwrap();
        node.netns.tool("iptables", &["-A", "FORWARD", "-s", "192.0.2.7", "-j", "DROP"]).unwrap();
        node.netns.tool("ip6tables", &["-A", "FORWARD", "-s", "2001:db8::7", "-j", "DROP"]).unwrap();
        iptables(node, "-P FORWARD DROP");
    }
    flows(&lab, &outside).unwrap();
    let before = repairs(&lab);
    assert!(before >= 1, "a repair that is not counted");
    let node = lab.node("node1").unwrap();
    let networks = [("10.244.0.0/16", "from a pod", "to a pod"), ("fd00:244::/48", "from a pod", "to a pod")];
    for ((program, foreign), (network, from, to)) in PROGRAMS.iter().zip(foreign).zip(networks) {
        let rules = forward(node, program);
        assert_eq!(rules.len(), 3, "{rules:?}");
        assert_eq!(rules[0], foreign, "behind what others say of single machines");
        for (rule, side, words) in [(&rules[1], "-s", from), (&rules[2], "-d", to)] {
            let as_it_should =
                rule.starts_with(&format!("-A FORWARD {side} {network} -m comment --comment \"weft: {words} ["));
            assert!(as_it_should && rule.ends_with("-j ACCEPT"), "{rule}");
        }
    }

    let logged = told(&lab);
    for name in ["node1", "node2"] {
        iptables(lab.node(name).unwrap(), "-F FORWARD");
    }
    wait::until(SOON, "the rules, put back and counted", || repairs(&lab) > before).unwrap();
    flows(&lab, &outside).unwrap();
    assert_eq!(forward(lab.node("node1").unwrap(), "iptables").len(), 2);
    assert_eq!(told(&lab), logged + 1, "one line for a repair");

    // What iptables saves it can restore, and then there is nothing to do.
    let node = lab.node("node1").unwrap();
    let saved = node.path("rules");
    node.netns.tool("sh", &["-c", &format!("iptables-save > {0} && iptables-restore < {0}", saved.display())]).unwrap();
    let counted = repairs(&lab);
    flows(&lab, &outside).unwrap();
    assert_eq!(forward(node, "iptables").len(), 2);
    assert_eq!(repairs(&lab), counted);

    // Where nothing drops any more, nothing of weft's is left; and what is left of it a clean-up takes away.
    iptables(node, "-P FORWARD ACCEPT");
    wait::until(SOON, "a chain without weft's rules", || PROGRAMS.iter().all(|p| forward(node, p).is_empty())).unwrap();
    iptables(node, "-P FORWARD DROP");
    wait::until(SOON, "the rules", || PROGRAMS.iter().all(|p| forward(node, p).len() == 2)).unwrap();
    assert!(lab.stop_agent("node1").unwrap());
    let cleaned = lab.weft("node1", "cleanup", &["--keep-lease"]).unwrap();
    assert_eq!(cleaned.exit, Some(0), "{cleaned:?}");
    let node = lab.node("node1").unwrap();
    assert!(PROGRAMS.iter().all(|program| forward(node, program).is_empty()), "cleanup leaves rules behind");
}

#[test]
fn d82_a_chain_that_ends_in_a_refusal_lets_pods_through_in_front_of_it() {
    let (lab, outside) = lab(Spec::test(2));
    for name in ["node1", "node2"] {
        iptables(lab.node(name).unwrap(), "-A FORWARD -j REJECT");
    }
    flows(&lab, &outside).unwrap();
    let rules = forward(lab.node("node1").unwrap(), "iptables");
    assert!(rules.len() == 3 && rules[2].contains("REJECT"), "{rules:?}");

    // Somebody appends a rule behind the refusal, which is dead there; and somebody puts another refusal in front of weft's.
    let in_front = |rules: &[String]| {
        let refusal = rules.iter().position(|rule| rule.contains("REJECT")).unwrap_or(rules.len());
        rules.iter().take(refusal).filter(|rule| rule.contains("weft: ")).count() == 2
    };
    for (words, count) in [("-A FORWARD -i docker0 -j ACCEPT", 4), ("-I FORWARD 1 -j REJECT", 5)] {
        for name in ["node1", "node2"] {
            iptables(lab.node(name).unwrap(), words);
        }
        wait::until_ok(SOON, "weft's rules in front of every refusal", || {
            let rules = forward(lab.node("node1").unwrap(), "iptables");
            if rules.len() == count && in_front(&rules) { Ok(()) } else { Err(rules.join(" | ")) }
        })
        .unwrap_or_else(|error| panic!("{words}: {error}"));
        flows(&lab, &outside).unwrap_or_else(|error| panic!("{words}: {error}"));
    }
}

#[test]
fn d82_what_is_flushed_of_nat_and_of_all_tables_comes_back() {
    let (lab, outside) = lab(Spec::test(2));
    let node = lab.node("node1").unwrap();
    for words in [
        &["nft", "flush", "ruleset"][..],
        &["iptables", "-F", "-t", "nat"],
        &["nft", "delete", "table", "inet", "weft"],
    ] {
        node.netns.tool(words[0], &words[1..]).unwrap();
        flows(&lab, &outside).unwrap_or_else(|error| panic!("{words:?}: {error}"));
    }
    assert!(metric(&lab, "node1", "weft_repairs_total{table=\"filter\"} ") >= 2);
}

#[test]
fn d82_without_forward_rules_others_chains_are_left_alone() {
    let (mut lab, _) = lab(Spec::test(2));
    let node = lab.node("node1").unwrap();
    iptables(node, "-P FORWARD DROP");
    wait::until(SOON, "the rules", || PROGRAMS.iter().all(|program| forward(node, program).len() == 2)).unwrap();
    lab.set_agent_args("node1", &["--iptables-forward-rules=false"]).unwrap();
    assert!(lab.stop_agent("node1").unwrap());
    lab.start_agent("node1").unwrap();
    lab.await_ready("node1").unwrap();
    let node = lab.node("node1").unwrap();
    wait::until(SOON, "a chain without weft's rules", || PROGRAMS.iter().all(|p| forward(node, p).is_empty())).unwrap();
    let chain = node.netns.tool("nft", &["list", "chain", "inet", "weft", "forward"]).unwrap();
    assert!(!chain.contains("accept\n") && !chain.contains("saddr"), "{chain}");
}

#[test]
fn d82_an_old_iptables_that_drops_is_told_with_the_command_that_mends_it() {
    let lab = OwnedLab::up(Spec { pods: 0, ..Spec::test(1) });
    let node = lab.node("node1").unwrap();
    let tables = || node.netns.run(|| std::fs::read_to_string("/proc/thread-self/net/ip_tables_names")).unwrap();
    let Ok(names) = tables() else { weft_tests::skip!("a kernel with iptables of the old kind") };
    assert!(!names.contains("filter"), "weft has made the table by looking: {names}");
    node.netns.tool("iptables-legacy", &["-P", "FORWARD", "DROP"]).unwrap();
    let remedy = "iptables-legacy -I FORWARD -s 10.244.0.0/16 -j ACCEPT";
    let naming = || lab.log("node1").unwrap().lines().filter(|line| line.contains(remedy)).count();
    let status = || weft_tests::http::get(&node.netns, ([127, 0, 0, 1], 8081).into(), "/status").unwrap().body;
    wait::until(Duration::from_secs(10), "a line in the log", || naming() > 0).unwrap();
    wait::until(SOON, "the notice at /status", || status().contains(remedy)).unwrap();
    for side in ["-s", "-d"] {
        node.netns.tool("iptables-legacy", &["-I", "FORWARD", side, "10.244.0.0/16", "-j", "ACCEPT"]).unwrap();
    }
    wait::until(Duration::from_secs(10), "the notice's end", || !status().contains(remedy)).unwrap();
    assert_eq!(naming(), 1, "it is told once");
}

#[test]
fn d83_tables_and_chains_of_others_stay_as_they_are() {
    let (lab, outside) = lab(Spec::test(2));
    let node = lab.node("node1").unwrap();
    iptables(node, "-P FORWARD DROP");
    iptables(node, "-N DOCKER-USER");
    iptables(node, "-A FORWARD -j DOCKER-USER");
    iptables(node, "-t nat -A POSTROUTING -o eth9 -j MASQUERADE");
    let script = "table inet mine {\nset s {\ntype ipv4_addr\nelements = { 192.0.2.9 }\n}
        chain forward {\ntype filter hook forward priority 5\nip saddr @s drop\n}\n}
        table arp theirs {\nchain input {\ntype filter hook input priority 0\n}\n}";
    node.netns.tool("nft", &[script]).unwrap();
    let before = others(node);
    assert!(
        before.contains("DOCKER-USER") && before.contains("table inet mine") && before.contains("eth9"),
        "{before}"
    );
    flows(&lab, &outside).unwrap();
    for words in [
        &["iptables", "-F", "FORWARD"][..],
        &["nft", "flush", "table", "inet", "weft"],
        &["nft", "delete", "table", "inet", "weft"],
    ] {
        node.netns.tool(words[0], &words[1..]).unwrap();
        flows(&lab, &outside).unwrap();
    }
    node.netns.tool("iptables", &["-A", "FORWARD", "-j", "DOCKER-USER"]).unwrap();
    let passes = || metric(&lab, "node1", "weft_passes_total ");
    let seen = passes();
    wait::until(Duration::from_secs(20), "two passes", || passes() >= seen + 2).unwrap();
    // Where weft's rules stand in the chain is the one thing that may differ, and they are left out.
    assert_eq!(others(node), before);
}

/// Gives a machine outside a way back to the pods of a node, so that it can answer them under their own addresses.
fn way_back(outside: &Netns, node: &Node) {
    for (subnet, gateway) in node.subnets().iter().zip([IpAddr::V4(node.v4()), node.v6().into()]) {
        outside.tool("ip", &["route", "add", subnet, "via", &gateway.to_string()]).unwrap();
    }
}

/// Under which addresses a pod of node1 is seen outside, of both families.
fn seen(lab: &OwnedLab, outside: &Netns, targets: [IpAddr; 2]) -> [IpAddr; 2] {
    let pod = lab.node("node1").unwrap().pod("pod1").unwrap();
    targets.map(|target| probe::udp_echo(&pod.netns, outside, target).unwrap())
}

#[test]
fn d81_what_is_marked_for_translation_is_translated_once_and_not_by_weft() {
    let (lab, outside) = lab(Spec::test(2).agent_args(&["--proxy-mode", "none"]));
    let node = lab.node("node1").unwrap();
    way_back(&outside, node);
    let pod = node.pod("pod1").unwrap();
    let own = [pod.v4().unwrap(), pod.v6().unwrap()];
    let of_node = [IpAddr::V4(node.v4()), node.v6().into()];
    // What kube-proxy's rules translate to, or, as its rules may come to nothing, nobody.
    let theirs: [IpAddr; 2] = ["192.168.100.77".parse().unwrap(), "fd00:100::77".parse().unwrap()];
    for (address, length) in theirs.iter().zip([24, 64]) {
        // Deprecated, so that nobody takes it by himself.
        let address = format!("{address}/{length}");
        node.netns.tool("ip", &["addr", "add", &address, "dev", "eth0", "preferred_lft", "0"]).unwrap();
    }
    let marks = |mark: &str, translate: bool| {
        let translation = if translate {
            format!(
                "meta mark & 0x4000 != 0 snat ip to {}; meta mark & 0x4000 != 0 snat ip6 to {};",
                theirs[0], theirs[1]
            )
        } else {
            String::new()
        };
        let script = format!(
            "table inet marks\ndelete table inet marks\ntable inet marks {{
                chain pre {{\ntype filter hook prerouting priority mangle\niifname \"cni0\" meta mark set {mark}\n}}
                chain post {{\ntype nat hook postrouting priority srcnat\n{translation}\n}}\n}}"
        );
        node.netns.tool("nft", &[&script]).unwrap();
        seen(&lab, &outside, OUTSIDE)
    };
    for mark in ["0x4000", "0x4001", "0xffff"] {
        assert_eq!(marks(mark, true), theirs, "mark {mark}");
        assert_eq!(marks(mark, false), own, "mark {mark}");
    }
    assert_eq!(marks("0x1", true), of_node, "a mark that says nothing of translation");
}

#[test]
fn d81_networks_that_are_not_masqueraded_see_the_pods_own_addresses() {
    let list = OUTSIDE.map(|address| format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })).join(",");
    let lab = OwnedLab::up(Spec::test(1).dual_stack().agent_args(&["--no-masquerade", &list]));
    let (outside, node) = (lab.outside().unwrap(), lab.node("node1").unwrap());
    way_back(&outside, node);
    let pod = node.pod("pod1").unwrap();
    assert_eq!(seen(&lab, &outside, OUTSIDE), [pod.v4().unwrap(), pod.v6().unwrap()]);
    let gateway = ["192.168.100.1".parse().unwrap(), "fd00:100::1".parse().unwrap()];
    assert_eq!(seen(&lab, &lab.underlay_netns(), gateway), [IpAddr::V4(node.v4()), node.v6().into()]);
}

/// What becomes of a packet from a node to an address: the kernel's words.
fn way(node: &Node, address: &str) -> String {
    match node.netns.tool("ip", &["route", "get", address]) {
        Ok(words) => words,
        Err(error) => format!("{error:#}"),
    }
}

/// Removes the blackhole routes of a node. Without their metric, IPv6's would be the bridge's own.
fn remove(node: &Node) {
    for (subnet, family) in node.subnets().iter().zip(["-4", "-6"]) {
        node.netns.tool("ip", &[family, "route", "del", "blackhole", subnet, "metric", "4294967295"]).unwrap();
    }
}

#[test]
fn d86_packets_to_addresses_without_a_pod_end_at_the_node() {
    let mut lab = OwnedLab::up(Spec::test(1).dual_stack().agent_args(&["--ip-blackhole-route"]));
    let node = lab.node("node1").unwrap().clone();
    // Of the subnet's last addresses none is given out while there is one pod.
    let subnets = node.subnets();
    let unused = subnets.iter().map(|subnet| match subnet.strip_suffix(".0/24") {
        Some(v4) => format!("{v4}.200"),
        None => subnet.replace("::/64", "::200"),
    });
    let unused: Vec<String> = unused.collect();
    let routes = || -> Vec<String> {
        let of = |family: &str| node.netns.tool("ip", &[family, "route", "show", "type", "blackhole"]).unwrap();
        ["-4", "-6"].iter().flat_map(|family| of(family).lines().map(str::to_owned).collect::<Vec<_>>()).collect()
    };
    let there = || {
        let found = routes();
        node.subnets().iter().all(|subnet| found.iter().any(|line| line.contains(subnet) && line.contains("proto 119")))
    };
    wait::until(SOON, "the blackhole routes", there).unwrap();
    // Behind the bridge's own route, by which pods are reached as ever.
    let pod = node.pod("pod1").unwrap();
    for address in [pod.v4().unwrap(), pod.v6().unwrap()] {
        assert!(probe::ping(&node.netns, address, Duration::from_secs(2)).unwrap().is_some(), "{address}");
        assert!(way(&node, &address.to_string()).contains("dev cni0"));
    }
    remove(&node);
    wait::until(wait::patience(Duration::from_secs(10)), "the routes, put back", there).unwrap();
    let count = || match metric(&lab, "node1", "weft_repairs_total{table=\"blackholes\"} ") {
        2 => Ok(()),
        _ => Err(lab.metrics("node1").unwrap().body),
    };
    wait::until_ok(SOON, "its count", count).unwrap();

    // Without an agent and its bridge there is nothing else that would end them.
    lab.kill_agent("node1").unwrap();
    let gone = |word: &str| unused.iter().all(|address| way(&node, address).contains(word));
    assert!(gone("dev cni0"));
    node.netns.tool("ip", &["link", "set", "cni0", "down"]).unwrap();
    assert!(unused.iter().all(|address| !way(&node, address).contains("eth0")), "{:?}", way(&node, &unused[0]));
    remove(&node);
    assert!(gone("eth0"), "the default route would have taken them");

    // Switched off, they go with the next start.
    lab.start_agent("node1").unwrap();
    lab.await_ready("node1").unwrap();
    wait::until(SOON, "the routes of a new agent", there).unwrap();
    lab.set_agent_args("node1", &["--ip-blackhole-route=false"]).unwrap();
    assert!(lab.stop_agent("node1").unwrap());
    lab.start_agent("node1").unwrap();
    lab.await_ready("node1").unwrap();
    wait::until(SOON, "no blackhole routes", || routes().is_empty()).unwrap();
}

/// What starts a process; a thread (`CLONE_THREAD`) is none.
const STARTS: &str = "trace=execve,execveat,fork,vfork,clone,clone3";

/// Watches a process and what it starts while `work` is done, and returns the calls by which it started something.
fn starts(lab: &OwnedLab, process: ProcessId, work: impl FnOnce()) -> Vec<String> {
    let folder = Scratch::new();
    let (calls, log) = (folder.join("calls"), folder.join("strace"));
    let mut command = tool::command("strace");
    command.args(["-f", "-e", STARTS, "-o"]).arg(&calls).args(["-p", &process.pid.to_string()]);
    let strace = process::spawn(&lab.underlay_netns(), &mut command, &log).unwrap();
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    wait::until_ok(SOON, "strace to attach", || if said().contains("attached") { Ok(()) } else { Err(said()) })
        .unwrap();
    work();
    assert!(process.alive() && strace.alive(), "{}", said());
    assert!(strace.end(SOON));
    let calls = std::fs::read_to_string(&calls).unwrap();
    calls.lines().filter(|line| line.contains('(') && !line.contains("CLONE_THREAD")).map(str::to_owned).collect()
}

#[test]
fn d85_in_steady_state_and_while_it_repairs_the_agent_starts_no_process() {
    if !weft_tests::trace::is_available() {
        weft_tests::skip!("strace");
    }
    let lab = OwnedLab::up(Spec { pods: 0, ..Spec::test(2) });
    // That the watch sees something where there is something to be seen.
    let log = lab.folder().join("shell");
    let mut shell = tool::command("sh");
    let shell = process::spawn(&lab.underlay_netns(), shell.args(["-c", "while sleep 0.1; do :; done"]), &log).unwrap();
    let seen = starts(&lab, shell, || wait::pause(Duration::from_secs(1)));
    assert!(seen.iter().any(|call| call.contains("execve")), "{seen:?}");
    shell.kill();

    let node = lab.node("node1").unwrap();
    let seen = starts(&lab, node.agent.unwrap(), || {
        let passes = || metric(&lab, "node1", "weft_passes_total ");
        let before = passes();
        wait::throughout(Duration::from_secs(10), || Ok::<(), String>(())).unwrap();
        assert!(passes() > before, "nothing has happened");
        iptables(node, "-P FORWARD DROP");
        node.netns.tool("nft", &["delete", "table", "inet", "weft"]).unwrap();
        node.netns.tool("ip", &["route", "flush", "dev", "flannel.1"]).unwrap();
        wait::until(SOON, "repairs", || {
            repairs(&lab) > 0 && node.netns.tool("nft", &["list", "table", "inet", "weft"]).is_ok()
        })
        .unwrap();
    });
    assert_eq!(seen, Vec::<String>::new());
}
