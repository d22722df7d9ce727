//! The agent's start: what it reads, what it refuses, what it writes and when.
//!
//! Not here: 5 (a node's podCIDR outside the network: with etcd as the source a node has no podCIDR, this comes with
//! Kubernetes as the source).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use weft_tests::lab::{OwnedLab, Spec};
use weft_tests::{binaries, tool, wait};

/// A network with one subnet in it, so that it is known which one a node gets.
const ONE_SUBNET: &str =
    r#"{"Network":"10.244.0.0/16","SubnetMin":"10.244.1.0","SubnetMax":"10.244.1.0","Backend":{"Type":"vxlan"}}"#;

/// A lab of one node, whose agent has been started and may never get ready.
fn start(spec: Spec) -> OwnedLab {
    let mut lab = OwnedLab::bare(spec);
    let node = lab.new_node().unwrap();
    lab.start_agent(&node).unwrap();
    lab
}

/// What the agent has said so far, wherever it said it.
fn said(lab: &OwnedLab) -> String {
    let health = lab.readyz("node1").map(|answer| answer.body).unwrap_or_default();
    format!("{}\n{health}", lab.log("node1").unwrap())
}

#[test]
fn d01_the_subnet_file_is_flannels_to_the_byte() {
    let lab = start(Spec::test(1).network(ONE_SUBNET));
    lab.await_ready("node1").unwrap();
    let path = lab.node("node1").unwrap().path("subnet.env");
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
    );
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o644);
}

#[test]
fn d02_with_both_families_the_v6_lines_stand_in_between() {
    let network = r#"{"Network":"10.244.0.0/16","SubnetMin":"10.244.1.0","SubnetMax":"10.244.1.0",
        "EnableIPv6":true,"IPv6Network":"2001:cafe:42::/56","IPv6SubnetMin":"2001:cafe:42:1::",
        "IPv6SubnetMax":"2001:cafe:42:1::","Backend":{"Type":"vxlan"}}"#;
    let lab = start(Spec::test(1).network(network));
    lab.await_ready("node1").unwrap();
    // 70 bytes less: the v6 tunnel has the larger header, and a pod has one MTU for both families.
    assert_eq!(
        fs::read_to_string(lab.node("node1").unwrap().path("subnet.env")).unwrap(),
        "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_IPV6_NETWORK=2001:cafe:42::/56\n\
         FLANNEL_IPV6_SUBNET=2001:cafe:42:1::1/64\nFLANNEL_MTU=1430\nFLANNEL_IPMASQ=true\n"
    );
}

#[test]
fn d03_nobody_ever_reads_half_a_subnet_file() {
    let mut lab = start(Spec::test(1).network(ONE_SUBNET));
    lab.await_ready("node1").unwrap();
    let path = lab.node("node1").unwrap().path("subnet.env");
    let whole = fs::read_to_string(&path).unwrap();
    let done = AtomicBool::new(false);
    let reads = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !done.load(Ordering::Relaxed) || reads < 10_000 {
                match fs::read_to_string(&path) {
                    Ok(text) => assert_eq!(text, whole),
                    Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
                }
                reads += 1;
            }
            reads
        });
        // Each start finds no file and writes one.
        for _ in 0..5 {
            assert!(lab.stop_agent("node1").unwrap());
            let _ = fs::remove_file(&path);
            lab.start_agent("node1").unwrap();
            lab.await_ready("node1").unwrap();
            wait::until(Duration::from_secs(5), "the subnet file", || path.exists()).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    assert!(reads >= 10_000);
}

#[test]
fn d06_keys_of_the_network_configuration_count_in_any_case() {
    let network = r#"{"network":"10.200.0.0/16","SUBNETLEN":26,"backend":{"TYPE":"VXLAN","vni":7,"PORT":5000}}"#;
    let lab = start(Spec::test(1).network(network));
    lab.await_ready("node1").unwrap();
    let node = lab.node("node1").unwrap();
    let subnet = node.subnets()[0].clone();
    assert!(subnet.starts_with("10.200.") && subnet.ends_with("/26"), "{subnet}");
    let link = node.netns.objects("ip", &["-d", "link", "show", "flannel.7"]).unwrap();
    assert_eq!(link[0]["linkinfo"]["info_data"]["port"], 5000);
}

#[test]
fn d07_a_misspelt_key_is_warned_of_once_by_name() {
    let network = r#"{"Network":"10.244.0.0/16","SubnetLenn":24,"Backend":{"Type":"vxlan","Prot":8472}}"#;
    let lab = start(Spec::test(1).network(network));
    lab.await_ready("node1").unwrap();
    let log = lab.log("node1").unwrap();
    for (misspelt, meant) in [("SubnetLenn", "SubnetLen"), ("Prot", "Port")] {
        let naming: Vec<&str> = log.lines().filter(|line| line.contains(misspelt)).collect();
        assert_eq!(naming.len(), 1, "{log}");
        assert!(naming[0].contains("WARN"), "{}", naming[0]);
        assert!(naming[0].replace(misspelt, "").contains(meant), "does not name {meant}: {}", naming[0]);
    }
}

#[test]
fn d09_a_network_configuration_that_cannot_be_is_refused_by_field() {
    let cases = [
        ("SubnetMin", r#""SubnetMin":"10.244.1.7""#),
        ("SubnetMin", r#""SubnetMin":"10.245.1.0""#),
        ("SubnetMax", r#""SubnetMax":"10.245.1.0""#),
        ("SubnetMax", r#""SubnetMax":"10.244.1.7""#),
        ("SubnetLen", r#""SubnetLen":31"#),
        ("SubnetLen", r#""SubnetLen":17"#),
    ];
    for (field, wrong) in cases {
        let lab = start(Spec::test(1).network(format!(r#"{{"Network":"10.244.0.0/16",{wrong}}}"#)));
        let named = wait::until_ok(Duration::from_secs(20), "the refusal", || {
            let said = said(&lab);
            if said.contains(field) { Ok(()) } else { Err(said) }
        });
        named.unwrap_or_else(|error| panic!("{wrong}: {error}"));
        assert!(lab.readyz("node1").map_or(true, |answer| answer.status != 200));
        let node = lab.node("node1").unwrap();
        assert!(!node.path("subnet.env").exists() && !node.conflist().exists());
    }
}

#[test]
fn d10_a_flag_wins_over_the_environment_and_that_over_the_default() {
    let masquerades = |spec: Spec| {
        let lab = start(spec);
        lab.await_ready("node1").unwrap();
        lab.node("node1").unwrap().subnet_file()["FLANNEL_IPMASQ"].clone()
    };
    assert_eq!(masquerades(Spec::test(1)), "true");
    assert_eq!(masquerades(Spec::test(1).agent_env("WEFT_IP_MASQ", "false")), "false");
    let both = Spec::test(1).agent_env("WEFT_IP_MASQ", "true").agent_args(&["--ip-masq=false"]);
    assert_eq!(masquerades(both), "false");
    // flannel's variable, under weft's of the same name and under any flag.
    assert_eq!(masquerades(Spec::test(1).agent_env("FLANNELD_IP_MASQ", "false")), "false");
    let both = Spec::test(1).agent_env("FLANNELD_IP_MASQ", "false").agent_env("WEFT_IP_MASQ", "true");
    assert_eq!(masquerades(both), "true");
    let both = Spec::test(1).agent_env("FLANNELD_IP_MASQ", "false").agent_args(&["-ip-masq"]);
    assert_eq!(masquerades(both), "true");
}

#[test]
fn d10_a_command_line_of_flanneld_s_starts_the_agent() {
    let flags =
        ["-iface=eth0", "-ip-masq", "--iptables-resync=5", "-v", "10", "--healthz-port=8081", "-kube-subnet-mgr=false"];
    let lab = start(Spec::test(1).agent_args(&flags).agent_env("FLANNELD_VMODULE", "kube=10"));
    lab.await_ready("node1").unwrap();
    let log = lab.log("node1").unwrap();
    for without_effect in
        ["flag --iptables-resync has no effect", "flag --v has no effect", "FLANNELD_VMODULE has no effect"]
    {
        assert_eq!(log.lines().filter(|line| line.contains(without_effect)).count(), 1, "{without_effect}: {log}");
    }
}

#[test]
fn d10_what_is_in_effect_is_told_with_where_it_is_from() {
    let lab = OwnedLab::bare(Spec::test(1));
    let file = lab.folder().join("weft.yaml");
    fs::write(&file, "bridge: br7\netcd-username: u\netcd-password: hidden\n").unwrap();
    let effective = |words: &[&str]| {
        let mut command = tool::command(binaries::find("weft").unwrap());
        command.args(["config", "effective", "agent", "--config"]).arg(&file).args(words);
        command.env("FLANNELD_IP_MASQ", "0").env("WEFT_NODE_NAME", "n7");
        tool::run_with(&mut command, tool::Stdin::Bytes(b"")).unwrap()
    };
    let output = effective(&["--iface=eth7", "-kube-subnet-mgr", "--iptables-resync=5", "-o", "json"]);
    assert_eq!(output.exit, Some(0), "{output:?}");
    assert!(output.stderr.contains("--iptables-resync has no effect"), "{}", output.stderr);
    let listed = tool::parse_json(&output.stdout).unwrap();
    let of = |key: &str| {
        let line = listed.as_array().unwrap().iter().find(|line| line["path"] == key).unwrap();
        (line["value"].as_str().unwrap().to_owned(), line["origin"].as_str().unwrap().to_owned())
    };
    let expect = |key: &str, value: &str, origin: &str| assert_eq!(of(key), (value.to_owned(), origin.to_owned()));
    expect("iface", "eth7", "flag");
    expect("source", "kube", "flag --kube-subnet-mgr");
    expect("node-name", "n7", "environment WEFT_NODE_NAME");
    expect("ip-masq", "0", "environment FLANNELD_IP_MASQ");
    expect("bridge", "br7", &format!("file {}", file.display()));
    expect("network-name", "cbr0", "default");
    expect("etcd-password", "***", &format!("file {}", file.display()));
    assert!(!output.stdout.contains("hidden"));
    let text = effective(&[]).stdout;
    assert!(text.lines().any(|line| line == "ip-masq: 0  (environment FLANNELD_IP_MASQ)"), "{text}");

    fs::write(&file, "brigde: br7\n").unwrap();
    let refused = effective(&[]);
    assert_eq!(refused.exit, Some(1));
    assert!(refused.stderr.contains("brigde") && refused.stderr.contains("did you mean \"bridge\""), "{refused:?}");
}

#[test]
fn d11_a_renew_margin_without_sense_ends_the_start() {
    let mut lab = OwnedLab::bare(Spec::test(1));
    let node = lab.new_node().unwrap();
    for margin in ["0", "1440"] {
        let output = lab.weft(&node, "agent", &["--subnet-lease-renew-margin", margin]).unwrap();
        assert_eq!(output.exit, Some(1), "{output:?}");
        let said = format!("{}{}", output.stdout, output.stderr);
        assert!(said.contains("subnet-lease-renew-margin") && said.contains(margin), "{said}");
    }
}

#[test]
fn d13_the_conflist_appears_with_readiness_and_not_before() {
    let mut lab = OwnedLab::bare(Spec::test(1));
    let node = lab.new_node().unwrap();
    lab.kill_etcd().unwrap();
    lab.start_agent(&node).unwrap();
    let conflist = lab.node(&node).unwrap().conflist();
    wait::until(Duration::from_secs(20), "an answer on /readyz", || lab.readyz(&node).is_ok()).unwrap();
    wait::throughout(Duration::from_secs(2), || {
        let answer = lab.readyz(&node).map_err(|error| format!("{error:#}"))?;
        let honest = answer.status == 503 && !answer.body.trim().is_empty() && !conflist.exists();
        if honest { Ok(()) } else { Err(format!("{answer:?}, conflist there: {}", conflist.exists())) }
    })
    .unwrap();
    assert!(!lab.node(&node).unwrap().path("subnet.env").exists());
    lab.start_etcd().unwrap();
    lab.await_ready(&node).unwrap();
    assert!(conflist.exists());
    lab.node(&node).unwrap().runtime().status().unwrap();
}
