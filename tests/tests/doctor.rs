//! `weft doctor` on nodes that are well, and on nodes with faults that were made by hand: each is found by its check, and by no
//! other.
//!
//! ```text
//!   node1 (the patient) eth0 192.168.100.11 ──p11── br0 ──p12── 192.168.100.12 eth0 node2
//!     flannel.1  <================== VXLAN, UDP 8472 ==================>  flannel.1
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};
use weft_tests::lab::{NETWORK_PREFIX, OwnedLab, Spec};
use weft_tests::netns::Netns;
use weft_tests::tool::{self, Stdin};
use weft_tests::{binaries, wait};

/// What the doctor has said.
struct Visit {
    exit: i32,
    checks: Vec<Value>,
    text: String,
}

impl Visit {
    fn of(lab: &OwnedLab, node: &str) -> Self {
        let output = lab.weft(node, "doctor", &["-o", "json"]).unwrap();
        let report: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        let checks = report["checks"].as_array().unwrap().clone();
        Self { exit: output.exit.unwrap(), checks, text: output.stdout }
    }

    /// The checks with this outcome, as `group name`.
    fn named(&self, outcome: &str) -> BTreeSet<String> {
        let of = self.checks.iter().filter(|check| check["outcome"] == outcome);
        of.map(|check| format!("{} {}", check["group"].as_str().unwrap(), check["name"].as_str().unwrap())).collect()
    }

    fn problem(&self, name: &str) -> (String, String) {
        let is = |check: &&Value| {
            check["outcome"] == "problem"
                && name == format!("{} {}", check["group"].as_str().unwrap(), check["name"].as_str().unwrap())
        };
        let check = self.checks.iter().find(is).unwrap_or_else(|| panic!("no problem `{name}` in {}", self.text));
        (check["words"].as_str().unwrap().to_owned(), check["remedy"].as_str().unwrap().to_owned())
    }

    /// Exactly these problems, each with a cause and a remedy.
    fn assert_problems(&self, expected: &[&str]) {
        let expected: BTreeSet<String> = expected.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(self.named("problem"), expected, "{}", self.text);
        assert_eq!(self.exit, i32::from(!expected.is_empty()), "{}", self.text);
        for check in self.checks.iter().filter(|check| check["outcome"] == "problem") {
            assert!(!check["words"].as_str().unwrap().is_empty() && !check["remedy"].as_str().unwrap().is_empty());
        }
    }
}

fn two_nodes() -> OwnedLab {
    let lab = OwnedLab::up(Spec { pods: 0, ..Spec::test(2) });
    // An agent is ready with the peers that it knows; each shall know the other.
    for node in ["node1", "node2"] {
        let netns = &lab.node(node).unwrap().netns;
        wait::until(wait::patience(std::time::Duration::from_secs(20)), "the other node's route", || {
            netns.objects("ip", &["route", "show", "dev", "flannel.1"]).is_ok_and(|routes| routes.len() == 1)
        })
        .unwrap();
    }
    lab
}

fn netns(lab: &OwnedLab, node: &str) -> Netns {
    lab.node(node).unwrap().netns.clone()
}

/// Makes a table with these chains and rules on a node, has the doctor look at node 1, and takes the table away.
fn with_rules(lab: &OwnedLab, node: &str, table: &str, inside: &[&str], look: impl FnOnce(&Visit)) {
    let there = netns(lab, node);
    there.tool("nft", &[&format!("add table {table}")]).unwrap();
    for words in inside {
        let (kind, rest) = words.split_once(' ').unwrap();
        there.tool("nft", &[&format!("add {kind} {table} {rest}")]).unwrap();
    }
    look(&Visit::of(lab, "node1"));
    there.tool("nft", &[&format!("delete table {table}")]).unwrap();
}

#[test]
fn a_node_that_is_well_gives_no_finding_and_is_left_as_it_was() {
    let lab = two_nodes();
    let node = netns(&lab, "node1");
    let kernel = || {
        let tool = |program: &str, words: &[&str]| node.tool(program, words).unwrap();
        [
            tool("ip", &["link", "show"]),
            tool("ip", &["route", "show", "table", "all"]),
            tool("nft", &["-s", "list", "ruleset"]),
            tool("bridge", &["fdb", "show"]),
        ]
    };
    let before = kernel();
    let visit = Visit::of(&lab, "node1");
    visit.assert_problems(&[]);
    assert_eq!(visit.named("unknown"), BTreeSet::new(), "{}", visit.text);
    assert_eq!(visit.named("note"), BTreeSet::new(), "{}", visit.text);
    let good = visit.named("good");
    for name in [
        "agent runs",
        "kernel nf_tables",
        "sysctls net.ipv4.ip_forward",
        "overlay flannel.1 mtu",
        "path node2",
        "path node2 mtu",
        "cni configuration",
        "cni plugin",
        "disk run-dir",
        "store answers",
        "clock this node",
        "leftovers kube-proxy rules",
        "offload checksum errors",
        "firewall forward",
        "cluster capacity",
    ] {
        assert!(good.contains(name), "{name} in {}", visit.text);
    }
    assert_eq!(kernel(), before);

    // For people: what is good is not shown unless it is asked for.
    let text = lab.weft("node1", "doctor", &[]).unwrap();
    assert_eq!((text.exit, text.stdout.lines().count()), (Some(0), 1), "{}", text.stdout);
    let wide = lab.weft("node1", "doctor", &["-o", "wide"]).unwrap();
    assert!(wide.stdout.contains("good     path node2:"), "{}", wide.stdout);
}

#[test]
fn both_families_are_examined() {
    let lab = OwnedLab::up(Spec { pods: 0, ..Spec::test(2) }.dual_stack());
    let names = ["path node2 (IPv4)", "path node2 (IPv6)", "path node2 (IPv4) mtu", "path node2 (IPv6) mtu"];
    wait::until(wait::patience(std::time::Duration::from_secs(20)), "both ways to node2", || {
        let good = Visit::of(&lab, "node1").named("good");
        names.iter().all(|name| good.contains(*name))
    })
    .unwrap();
    let visit = Visit::of(&lab, "node1");
    visit.assert_problems(&[]);
    assert_eq!(visit.exit, 0, "{}", visit.text);
    assert!(visit.named("good").contains("sysctls net.ipv6.conf.all.forwarding"), "{}", visit.text);

    let [chain, rule] =
        ["chain c { type filter hook input priority 0; }", "rule c meta nfproto ipv6 udp dport 8472 drop"];
    with_rules(&lab, "node2", "inet fault", &[chain, rule], |visit| visit.assert_problems(&["path node2 (IPv6)"]));
}

/// Has the doctor look at node 1 with these capabilities alone.
fn with_rights(lab: &OwnedLab, capabilities: &str) -> (Option<i32>, Value) {
    let node = lab.node("node1").unwrap();
    let mut command = tool::command("setpriv");
    command.args(["--bounding-set", capabilities, "--inh-caps", "-all", "--no-new-privs"]);
    command.arg(binaries::find("weft").unwrap()).args(["doctor", "-o", "json", "--node-name", "node1"]);
    command.args(["--etcd-prefix", NETWORK_PREFIX, "--etcd-endpoints", &lab.etcd().unwrap().endpoint()]);
    for (flag, name) in [
        ("--subnet-file", "subnet.env"),
        ("--run-dir", "run"),
        ("--cni-conf-dir", "net.d"),
        ("--cni-bin-dir", "bin"),
        ("--cni-state-dir", "cni"),
        ("--state-dir", "lib"),
    ] {
        command.arg(flag).arg(node.path(name));
    }
    let output = node.netns.run(|| tool::run_with(&mut command, Stdin::Bytes(b""))).unwrap().unwrap();
    let report = serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.exit, report)
}

#[test]
fn the_rights_of_the_agents_pod_are_enough_and_without_them_nothing_is_found() {
    let lab = two_nodes();
    let (exit, report) = with_rights(&lab, "-all,+net_admin,+net_raw");
    assert_eq!(exit, Some(0), "{report}");
    assert_eq!((&report["problems"], &report["unknown"]), (&json!(0), &json!(0)), "{report}");

    let (exit, report) = with_rights(&lab, "-all");
    assert_eq!((exit, &report["problems"], &report["verdict"]), (Some(2), &json!(0), &json!("unknown")), "{report}");
    let first = &report["checks"][0];
    assert_eq!((&first["group"], &first["outcome"]), (&json!("rights"), &json!("unknown")), "{report}");
}

#[test]
fn a_peer_whose_packets_go_nowhere_is_a_problem_of_its_own() {
    let mut lab = two_nodes();
    let subnet = lab.node("node2").unwrap().subnets()[0].clone();
    // It would put them back at once.
    lab.kill_agent("node1").unwrap();
    let node = netns(&lab, "node1");
    node.tool("ip", &["neigh", "flush", "dev", "flannel.1", "nud", "permanent"]).unwrap();
    let visit = Visit::of(&lab, "node1");
    assert!(visit.problem(&format!("path {subnet}")).0.contains("no neighbour entry"), "{}", visit.text);
}

#[test]
fn a_dropped_udp_port_is_found_and_told_apart_by_where_it_is_dropped() {
    let lab = two_nodes();
    let drop_at = |hook: &str| {
        [format!("chain c {{ type filter hook {hook} priority 0; }}"), "rule c udp dport 8472 drop".to_owned()]
    };
    // Drops here come last: what node 2 sends then is lost and sent again for a while, and heard.
    for (node, hook, told) in [
        ("node2", "input", "we send UDP 8472 to 192.168.100.12, nothing comes back"),
        ("node2", "output", "nothing comes back"),
        ("node1", "output", "rule at OUTPUT"),
        ("node1", "input", "rule at INPUT of this machine"),
    ] {
        let [chain, rule] = drop_at(hook);
        with_rules(&lab, node, "inet fault", &[&chain, &rule], |visit| {
            visit.assert_problems(&["path node2"]);
            let (words, remedy) = visit.problem("path node2");
            assert!(words.contains(told), "{node} {hook}: {words}");
            assert!(remedy.contains("8472"), "{remedy}");
        });
    }
    Visit::of(&lab, "node1").assert_problems(&[]);

    // The node itself is away.
    netns(&lab, "node2").tool("ip", &["link", "set", "eth0", "down"]).unwrap();
    let visit = Visit::of(&lab, "node1");
    assert!(visit.problem("path node2").0.contains("not even the node itself"), "{}", visit.text);
}

#[test]
fn policies_that_drop_are_found_unless_the_rules_beside_them_take_the_pods() {
    let lab = two_nodes();
    let forward = "chain FORWARD { type filter hook forward priority 0; policy drop; }";
    with_rules(&lab, "node1", "ip filter", &[forward], |visit| {
        visit.assert_problems(&["firewall ip filter FORWARD"]);
        let (_, remedy) = visit.problem("firewall ip filter FORWARD");
        assert!(remedy.starts_with("iptables -I FORWARD -s 10.244.0.0/16 -j ACCEPT"), "{remedy}");
    });
    // A family that the cluster does not have.
    with_rules(&lab, "node1", "ip6 filter", &[forward], |visit| visit.assert_problems(&[]));
    // As distributions have it: the last rule does what the policy could.
    let open = "chain FORWARD { type filter hook forward priority 0; policy accept; }";
    let rest = ["rule FORWARD ct state established accept", "rule FORWARD counter reject"];
    with_rules(&lab, "node1", "ip filter", &[open, rest[0], rest[1]], |visit| {
        visit.assert_problems(&["firewall ip filter FORWARD"]);
    });
    let some = "rule FORWARD ip daddr 192.0.2.1 reject";
    with_rules(&lab, "node1", "ip filter", &[open, some], |visit| visit.assert_problems(&[]));
    let taken = ["rule FORWARD ip saddr 10.244.0.0/16 accept", "rule FORWARD ip daddr 10.244.0.0/16 accept"];
    with_rules(&lab, "node1", "ip filter", &[forward, taken[0], taken[1]], |visit| visit.assert_problems(&[]));

    let input = "chain guard { type filter hook input priority 0; policy drop; }";
    let but = ["rule guard iif lo accept", "rule guard meta l4proto { tcp, icmp } accept"];
    with_rules(&lab, "node1", "inet fault", &[input, but[0], but[1]], |visit| {
        visit.assert_problems(&["firewall inet fault guard", "path node2"]);
    });
    let open = "rule guard udp dport 8472 accept";
    with_rules(&lab, "node1", "inet fault", &[input, but[0], but[1], open], |visit| visit.assert_problems(&[]));
}

#[test]
fn iptables_own_policy_is_found_and_its_remedy_mends_it() {
    let lab = two_nodes();
    let node = netns(&lab, "node1");
    if node.tool("iptables", &["-P", "FORWARD", "DROP"]).is_err() {
        weft_tests::skip!("iptables (nf_tables) is not here");
    }
    let visit = Visit::of(&lab, "node1");
    visit.assert_problems(&["firewall ip filter FORWARD"]);
    let (_, remedy) = visit.problem("firewall ip filter FORWARD");
    for command in remedy.split("; ").filter(|command| command.starts_with("iptables ")) {
        let words: Vec<&str> = command.split(' ').skip(1).collect();
        node.tool("iptables", &words).unwrap();
    }
    Visit::of(&lab, "node1").assert_problems(&[]);
}

#[test]
fn a_narrow_way_is_measured() {
    let lab = two_nodes();
    // The port of the switch, so that neither node knows.
    lab.underlay_netns().tool("ip", &["link", "set", "p12", "mtu", "1400"]).unwrap();
    let visit = Visit::of(&lab, "node1");
    visit.assert_problems(&["path node2 mtu"]);
    let (words, remedy) = visit.problem("path node2 mtu");
    let number =
        |text: &str| text.split(|c: char| !c.is_ascii_digit()).find(|word| !word.is_empty()).unwrap().parse::<u32>();
    // A switch leaves room for a VLAN tag, four bytes.
    assert!((1350..=1354).contains(&number(&words).unwrap()), "{words}");
    assert!(
        words.contains("1450") && words.contains("not 1500") && remedy.contains("Backend.MTU to 140"),
        "{words} {remedy}"
    );
}

#[test]
fn settings_links_and_files_that_others_have_changed_are_found() {
    let lab = two_nodes();
    let node = netns(&lab, "node1");
    let (folder, tool) = (lab.node("node1").unwrap().folder.clone(), |words: &[&str]| node.tool("ip", words).unwrap());
    let find = |expected: &[&str]| {
        let visit = Visit::of(&lab, "node1");
        visit.assert_problems(expected);
        visit
    };

    node.sysctl("net/ipv4/conf/flannel.1/forwarding", "0").unwrap();
    let visit = find(&["sysctls net.ipv4.conf.flannel.1.forwarding"]);
    let (_, remedy) = visit.problem("sysctls net.ipv4.conf.flannel.1.forwarding");
    assert!(remedy.starts_with("sysctl -w net/ipv4/conf/flannel.1/forwarding=1,"), "{remedy}");
    node.sysctl("net/ipv4/conf/flannel.1/forwarding", "1").unwrap();

    tool(&["addr", "add", "169.254.7.7/16", "dev", "flannel.1"]);
    find(&["overlay flannel.1 addresses"]);
    tool(&["addr", "del", "169.254.7.7/16", "dev", "flannel.1"]);

    let other = folder.join("net.d/05-other.conflist");
    fs::write(&other, "{}").unwrap();
    let visit = find(&["cni configuration"]);
    assert!(visit.problem("cni configuration").1.starts_with(&format!("mv {}", other.display())));
    fs::remove_file(&other).unwrap();

    node.tool("nft", &["add table ip kube-proxy"]).unwrap();
    find(&["leftovers kube-proxy rules"]);
    node.tool("nft", &["delete table ip kube-proxy"]).unwrap();
    node.tool("nft", &["add table ip nat; add chain ip nat KUBE-SERVICES"]).unwrap();
    find(&["leftovers kube-proxy rules"]);
    node.tool("nft", &["delete table ip nat"]).unwrap();

    tool(&["link", "add", "vx9", "type", "vxlan", "id", "9", "dstport", "8472", "dev", "eth0"]);
    find(&["leftovers second overlay"]);
    tool(&["link", "del", "vx9"]);
    tool(&["link", "add", "cali0", "type", "veth", "peer", "name", "cali1"]);
    find(&["leftovers other networks"]);
    tool(&["link", "del", "cali0"]);
    find(&[]);
}

#[test]
fn leases_that_cannot_be_right_and_addresses_that_two_share_are_found() {
    let lab = two_nodes();
    let put = |subnet: &str, value: &str| {
        lab.etcd().unwrap().put(&format!("{NETWORK_PREFIX}/subnets/{subnet}-24"), value).unwrap();
    };
    put("10.244.250.0", "garbage");
    let clone = json!({"PublicIP": "192.168.100.12", "PublicIPv6": null, "BackendType": "vxlan",
        "BackendData": {"VNI": 1, "VtepMAC": "0a:00:00:00:00:fb"}});
    put("10.244.251.0", &clone.to_string());
    wait::until(wait::patience(std::time::Duration::from_secs(10)), "both to be found", || {
        let found = Visit::of(&lab, "node1").named("problem");
        ["cluster leases", "cluster public addresses"].iter().all(|name| found.contains(*name))
    })
    .unwrap();
    let visit = Visit::of(&lab, "node1");
    assert!(visit.problem("cluster public addresses").0.contains("192.168.100.12 is that of"), "{}", visit.text);
    assert!(visit.problem("cluster leases").0.contains("10.244.250.0-24"), "{}", visit.text);
}

#[test]
fn without_agent_or_store_the_kernel_is_examined_all_the_same() {
    let mut lab = two_nodes();
    lab.kill_etcd().unwrap();
    let visit = Visit::of(&lab, "node1");
    assert!(visit.problem("store answers").0.contains("etcd at http://192.168.100.1:2379"), "{}", visit.text);
    assert!(visit.named("good").contains("path node2"), "{}", visit.text);

    lab.kill_agent("node1").unwrap();
    let node = netns(&lab, "node1");
    node.sysctl("net/ipv4/ip_forward", "0").unwrap();
    node.tool("ip", &["link", "set", "eth0", "mtu", "1400"]).unwrap();
    let plugin = lab.node("node1").unwrap().path("bin/weft-cni");
    fs::remove_file(&plugin).unwrap();
    fs::write(&plugin, "weft-cni 0.0.1: a CNI plugin").unwrap();
    let visit = Visit::of(&lab, "node1");
    let problems = visit.named("problem");
    for name in ["agent runs", "store answers", "sysctls net.ipv4.ip_forward", "overlay flannel.1 mtu"] {
        assert!(problems.contains(name), "{name}: {}", visit.text);
    }
    // What the agent alone knows, its own version included.
    for name in ["cluster peers", "cni plugin"] {
        assert!(visit.named("unknown").contains(name), "{name}: {}", visit.text);
    }
    assert_eq!(visit.exit, 1);
}
