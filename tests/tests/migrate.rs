//! A node of flannel's plugins changes over to weft with its pods running, and back.
//!
//! ```text
//!   client ── underlay ── node1: eth0, flannel.1, cni0 ── old pods (bridge, host-local, portmap), later pods (weft-cni)
//! ```
//!
//! The plugins are those of Debian's package; flannel's part (device, conflist, rules) is made by hand as flanneld makes it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use weft_tests::lab::{Node, OwnedLab, Spec};
use weft_tests::netns::{Netns, OwnedNetns};
use weft_tests::probe::{Answer, Dialogue, Pinger, ProbeServer, Question};
use weft_tests::process::{self, ProcessId};
use weft_tests::runtime::{Attachment, Runtime};
use weft_tests::tool::{self, Output};
use weft_tests::{skip, wait};

/// Where Debian keeps the plugins that were there before.
const OTHERS: &str = "/usr/lib/cni";
/// A network with one subnet in it, so that it is known which one the node gets.
const ONE_SUBNET: &str =
    r#"{"Network":"10.244.0.0/16","SubnetMin":"10.244.1.0","SubnetMax":"10.244.1.0","Backend":{"Type":"vxlan"}}"#;
const FLANNEL_CONFLIST: &str = "10-flannel.conflist";

/// A node that flannel has, with a client outside.
struct World {
    lab: OwnedLab,
    node: Node,
    client: Netns,
}

/// A pod with a server on port 80.
struct Pod {
    netns: OwnedNetns,
    attachment: Attachment,
    ip: IpAddr,
    _server: ProbeServer,
}

/// A stand-in for a daemon: a process of its name in the node's namespace.
struct Daemon(ProcessId);

impl Drop for Daemon {
    fn drop(&mut self) {
        self.0.kill();
    }
}

impl World {
    fn new() -> Self {
        let mut lab = OwnedLab::bare(Spec::test(1).network(ONE_SUBNET));
        let name = lab.new_node().unwrap();
        let (node, client) = (lab.node(&name).unwrap().clone(), lab.outside().unwrap());
        let world = Self { lab, node, client };
        fs::create_dir_all(world.node.path("networks")).unwrap();
        world.write_conflist(false);
        world.ip(&format!(
            "link add flannel.1 type vxlan id 1 local {} dev eth0 dstport 8472 nolearning",
            world.node.v4()
        ));
        world.ip("addr add 10.244.1.0/32 dev flannel.1");
        world.ip("link set flannel.1 up");
        for rule in [
            "-t nat -N FLANNEL-POSTRTG",
            "-t nat -A FLANNEL-POSTRTG -s 10.244.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE",
            "-t nat -A POSTROUTING -j FLANNEL-POSTRTG",
            "-N FLANNEL-FWD",
            "-A FLANNEL-FWD -s 10.244.0.0/16 -j ACCEPT",
            "-A FORWARD -j FLANNEL-FWD",
            "-t nat -N MINE",
            "-t nat -A PREROUTING -p udp --dport 9 -j MINE",
        ] {
            world.iptables(rule);
        }
        world
    }

    /// What flannel's plugin makes of its configuration. With `masquerade` (flanneld without `--ip-masq`) the bridge plugin
    /// makes a chain for each pod, which its DEL wants to find.
    fn write_conflist(&self, masquerade: bool) {
        let ipam = json!({"type": "host-local", "dataDir": self.node.path("networks"),
            "ranges": [[{"subnet": "10.244.1.0/24"}]]});
        let bridge = json!({"type": "bridge", "bridge": "cni0", "isGateway": true, "isDefaultGateway": true,
            "hairpinMode": true, "mtu": 1450, "ipMasq": masquerade, "ipam": ipam});
        let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}, "snat": true});
        let list = json!({"name": "cbr0", "cniVersion": "0.3.1", "plugins": [bridge, portmap]});
        self.write("net.d/10-flannel.conflist", &list);
    }

    fn write(&self, name: &str, content: &Value) {
        let path = self.node.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content.to_string()).unwrap();
    }

    fn ip(&self, words: &str) {
        self.node.netns.tool("ip", &words.split(' ').collect::<Vec<_>>()).unwrap();
    }

    fn iptables(&self, words: &str) -> String {
        self.node.netns.tool("iptables", &words.split(' ').collect::<Vec<_>>()).unwrap()
    }

    /// All rules of iptables, in its own words but for the time of day.
    fn rules(&self) -> String {
        let all = self.node.netns.tool("iptables-save", &[]).unwrap();
        all.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n")
    }

    /// The runtime of this node, with Debian's plugins.
    fn runtime(&self) -> Runtime {
        let runtime = self.lab.runtime(&self.node.name).unwrap();
        Runtime { bin_dirs: vec![self.node.path("bin"), OTHERS.into()], ..runtime }
    }

    /// A pod made by whichever plugins the runtime takes now.
    fn pod(&self, name: &str, host_port: Option<u16>) -> Pod {
        let netns = OwnedNetns::bare(format!("{}-{name}", self.node.netns.name()));
        let mut attachment = Attachment::eth0(name, &netns);
        if let Some(port) = host_port {
            let mapping = json!([{"hostPort": port, "containerPort": 80, "protocol": "tcp", "hostIP": ""}]);
            attachment.capabilities.insert("portMappings".to_owned(), mapping);
        }
        let result = self.runtime().add(&attachment).unwrap();
        let ip = result["ips"][0]["address"].as_str().unwrap().split('/').next().unwrap().parse().unwrap();
        let server = ProbeServer::start(&netns, name, &[80]).unwrap();
        Pod { netns, attachment, ip, _server: server }
    }

    fn host_port(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.node.v4().into(), port)
    }

    /// Who answers on a port of the node.
    fn answers(&self, port: u16) -> Option<String> {
        let question = Question { limit: Duration::from_secs(1), ..Question::new(self.host_port(port)) };
        match Dialogue::open_in(&self.client, &question).unwrap().map(|dialogue| dialogue.ask()) {
            Ok(Answer::Served { by, .. }) => Some(by),
            _ => None,
        }
    }

    fn migrate(&self, words: &str) -> Output {
        self.lab.migrate(&self.node.name, &words.split(' ').collect::<Vec<_>>()).unwrap()
    }

    /// As [`Self::migrate`], which has to do all of it.
    fn migrated(&self, words: &str) -> String {
        let output = self.migrate(words);
        assert_eq!(output.exit, Some(0), "{}\n{}", output.stdout, output.stderr);
        output.stdout
    }

    /// A process of this name in the node's namespace.
    fn daemon(&self, name: &str) -> Daemon {
        let program = self.node.path(name);
        fs::copy("/usr/bin/sleep", &program).unwrap();
        let mut command = tool::command(&program);
        command.arg("1000");
        let log = self.node.path("stand-in.log");
        Daemon(process::spawn(&self.node.netns, &mut command, &log).unwrap())
    }

    /// What kube-proxy is known by: its chain, and its answer to who asks after its health.
    fn let_kube_proxy_serve(&self) {
        self.iptables("-t nat -N KUBE-SERVICES");
        let listener = self.node.netns.run(|| TcpListener::bind("127.0.0.1:10256")).unwrap().unwrap();
        // It ends with the test's process.
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut question = [0; 1024];
                let _ = stream.read(&mut question);
                let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n{}");
            }
        });
    }

    fn nft(&self, words: &str) -> String {
        self.node.netns.tool("nft", &[words]).unwrap()
    }

    fn conflists(&self) -> Vec<String> {
        let entries = fs::read_dir(self.node.path("net.d")).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn reservation(&self, pod: &Pod) -> PathBuf {
        self.node.path("networks/cbr0").join(pod.ip.to_string())
    }

    /// The elements of the map of host ports, in nft's words; empty where there is no table.
    fn elements(&self) -> String {
        self.node.netns.tool("nft", &["list", "map", "inet", "weft-cni", "ports4"]).unwrap_or_default()
    }
}

fn others_are_missing() -> bool {
    !Path::new(OTHERS).join("portmap").is_file()
}

#[test]
fn a_node_changes_over_with_its_pods_and_their_host_ports_and_back() {
    if others_are_missing() {
        skip!("no containernetworking-plugins on this machine");
    }
    let mut world = World::new();
    let (plain, web) = (world.pod("plain", None), world.pod("web", Some(8080)));
    world.write_conflist(true);
    let doomed = world.pod("doomed", Some(8082));
    world.write_conflist(false);
    assert_eq!(world.answers(8080).as_deref(), Some("web"));
    // As portmap and the bridge plugin make them where they use nftables.
    for words in [
        "table ip cni_hostport { chain hostports { \
         tcp dport 9099 dnat to 10.244.1.9:80 comment \"web\"; tcp dport 9098 dnat to 10.88.0.2:80 comment \"podmans\"; }; }",
        "table inet cni_plugins_masquerade { chain masq_checks { \
         ip saddr 10.244.1.2 masquerade comment \"01-23, net: cbr0, if: eth0, id: web\"; \
         ip saddr 10.88.0.2 masquerade comment \"45-67, net: podman, if: eth0, id: podmans\"; }; }",
    ] {
        world.nft(words);
    }
    let before = world.rules();
    assert!(before.contains("CNI-DN-") && before.contains("FLANNEL-POSTRTG"), "{before}");

    // Nothing goes before weft serves.
    let early = world.migrate("node");
    assert_eq!(early.exit, Some(75), "{}", early.stderr);
    assert!(early.stderr.contains("weft's agent does not answer"), "{}", early.stderr);
    assert_eq!(world.rules(), before);

    let kept = Dialogue::open_in(&world.client, &Question::new(world.host_port(8080))).unwrap().unwrap();
    let pinger = Pinger::start(&world.node.netns, plain.ip);
    pinger.let_pass(20).unwrap();
    world.lab.start_agent("node1").unwrap();
    world.lab.await_ready("node1").unwrap();
    // Nor while one of the others runs.
    let flanneld = world.daemon("flanneld");
    let early = world.migrate("node");
    assert!(early.exit == Some(75) && early.stderr.contains("flanneld runs"), "{}", early.stderr);
    drop(flanneld);
    let told = world.migrated("node");
    pinger.let_pass(100).unwrap();
    let losses = pinger.finish().unwrap();
    assert!(losses.count() < 200, "more than a second: {losses:?}");

    assert_eq!(world.conflists(), ["10-flannel.conflist.weft-saved", "10-weft.conflist"]);
    let rules = world.rules();
    for gone in ["CNI-", "FLANNEL-"] {
        assert!(!rules.contains(gone), "{gone} in {rules}\n{told}");
    }
    assert!(rules.contains("-A PREROUTING -p udp -m udp --dport 9 -j MINE"), "{rules}");
    let tables = world.nft("list table ip cni_hostport") + &world.nft("list table inet cni_plugins_masquerade");
    assert!(!tables.contains("web") && tables.matches("podmans").count() == 2, "{tables}");
    assert!(matches!(kept.ask(), Answer::Served { .. }), "the connection through the host port is lost");
    assert_eq!(world.answers(8080).as_deref(), Some("web"));
    let again = world.migrated("node");
    assert!(!again.contains("taken over") && !again.contains("removed,"), "{again}");

    // The next pod is weft's; a port that is taken stays with whom it is.
    let next = world.pod("next", Some(8090));
    assert_eq!(world.answers(8090).as_deref(), Some("next"));
    assert_ne!(next.ip, plain.ip);
    // What of a pod of the others is left after DEL would lead to whoever gets its address.
    world.runtime().del(&doomed.attachment).unwrap();
    assert!(!world.elements().contains(&doomed.ip.to_string()), "{}", world.elements());
    assert!(!world.reservation(&doomed).exists());
    assert_eq!(world.answers(8082), None);

    // And back.
    let early = world.migrate("back");
    assert!(early.exit == Some(75) && early.stderr.contains("agent runs on this node"), "{}", early.stderr);
    world.lab.stop_agent("node1").unwrap();
    let early = world.migrate("back");
    assert!(early.exit == Some(75) && early.stderr.contains("kube-proxy does not run"), "{}", early.stderr);
    let _others = [world.daemon("flanneld"), world.daemon("kube-proxy")];
    // A process of that name serves nobody yet.
    let early = world.migrate("back");
    assert!(early.exit == Some(75) && early.stderr.contains("does not serve yet"), "{}", early.stderr);
    world.let_kube_proxy_serve();
    let pinger = Pinger::start(&world.node.netns, next.ip);
    let told = world.migrated("back");
    pinger.let_pass(100).unwrap();
    assert!(pinger.finish().unwrap().count() < 200);
    assert_eq!(world.conflists(), [FLANNEL_CONFLIST]);
    let tables = world.node.netns.tool("nft", &["list", "tables"]).unwrap();
    assert!(!tables.lines().any(|line| line == "table inet weft"), "{tables}");
    assert!(told.contains("next") && world.answers(8090).as_deref() == Some("next"), "{told}");
    assert!(world.reservation(&next).exists());

    // The others' plugins delete what either has made, and the last run finishes.
    for pod in [&next, &web, &plain] {
        world.runtime().del(&pod.attachment).unwrap();
        let gone = || pod.netns.objects("ip", &["link"]).unwrap().iter().all(|link| link["ifname"] != "eth0");
        wait::until(Duration::from_secs(5), "eth0 to go", gone).unwrap();
        assert!(!world.reservation(pod).exists());
    }
    let told = world.migrated("back");
    assert!(told.contains("table inet weft-cni is gone"), "{told}");
    assert!(world.elements().is_empty());
}

#[test]
fn a_node_that_was_prepared_gives_no_address_twice_whenever_flannel_comes() {
    if others_are_missing() {
        skip!("no containernetworking-plugins on this machine");
    }
    let mut world = World::new();
    world.lab.start_agent("node1").unwrap();
    world.lab.await_ready("node1").unwrap();
    world.migrated("node");
    let (first, second) = (world.pod("first", None), world.pod("second", None));

    // What is another's there is named, and keeps nobody else.
    let place = world.reservation(&first);
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::write(&place, "somebody\r\neth0").unwrap();
    let refused = world.migrate("back --prepare");
    assert!(refused.exit == Some(1) && refused.stderr.contains("delete default/first"), "{}", refused.stderr);
    assert!(world.reservation(&second).exists());
    fs::remove_file(&place).unwrap();
    let told = world.migrated("back --prepare");
    assert!(told.contains("may go back") && place.exists(), "{told}");

    // Pods come and go while weft serves on.
    let (late, short) = (world.pod("late", None), world.pod("short", None));
    assert!(world.reservation(&late).exists() && world.reservation(&short).exists());
    world.runtime().del(&short.attachment).unwrap();
    assert!(!world.reservation(&short).exists());

    // flannel's conflist is the first again, before `weft migrate back` has run, or weft has gone.
    world.write_conflist(false);
    let theirs = world.pod("theirs", None);
    assert!(![first.ip, second.ip, late.ip].contains(&theirs.ip), "{}", theirs.ip);
    fs::remove_file(world.node.path("net.d").join(FLANNEL_CONFLIST)).unwrap();
    let last = world.pod("last", None);
    assert!(![first.ip, second.ip, late.ip, theirs.ip].contains(&last.ip), "{}", last.ip);
}

#[test]
fn host_ports_that_cannot_be_taken_over_stay_portmaps() {
    if others_are_missing() {
        skip!("no containernetworking-plugins on this machine");
    }
    let mut world = World::new();
    let lost = world.pod("lost", Some(8083));
    fs::remove_file(world.node.path("results/cbr0-lost-eth0")).unwrap();
    fs::write(world.node.path("results/podman-other-eth0"), "{").unwrap();
    world.lab.start_agent("node1").unwrap();
    world.lab.await_ready("node1").unwrap();

    let kept = world.migrate("node");
    assert!(kept.exit == Some(1) && kept.stderr.contains("container lost lives"), "{}\n{}", kept.stdout, kept.stderr);
    assert!(!kept.stderr.contains("podman"), "{}", kept.stderr);
    assert!(world.rules().contains("CNI-DN-"));
    assert_eq!(world.answers(8083).as_deref(), Some("lost"));

    world.runtime().del(&lost.attachment).unwrap();
    assert!(!world.reservation(&lost).exists());
    world.migrated("node");
    assert!(!world.rules().contains("CNI-"), "{}", world.rules());
}
