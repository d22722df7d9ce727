//! Nodes that reach each other by WireGuard, on a kernel that has it: real agents, a real etcd, pods, and `wg` as the witness. Runs in
//! guests only: `tests/guest.sh -p weft-tests --features guest --test guest_wireguard_nodes`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::{Value, json};
use weft_tests::lab::{NETWORK_PREFIX, Node, OwnedLab, Spec};
use weft_tests::probe::Pinger;
use weft_tests::{http, tool, wait};

/// How long pods may take to find each other at first.
const AT_FIRST: Duration = Duration::from_secs(60);
/// The promise for every repair; an emulated processor gets more.
const REPAIR: Duration = Duration::from_secs(10);
/// Of changes that no event tells of there are many here.
const AGENT: [&str; 4] = ["--proxy-mode", "none", "--repair-interval", "2s"];

/// `wg genpsk`, once.
const PSK: &str = "FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE=";

fn network(options: &Value) -> String {
    let mut back_end = json!({"Type": "wireguard"});
    back_end.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    json!({"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:244::/48", "Backend": back_end})
        .to_string()
}

fn up(options: &Value) -> OwnedLab {
    let lab = OwnedLab::up(Spec::test(2).network(network(options)).agent_args(&AGENT));
    complete(&lab, "at first");
    lab
}

fn complete(lab: &OwnedLab, when: &str) {
    let matrix = lab.matrix(AT_FIRST).unwrap();
    let seen =
        || lab.nodes().iter().map(|node| node.netns.tool("wg", &["show", "all", "dump"]).unwrap()).collect::<Vec<_>>();
    assert!(matrix.complete(), "{when}: {:?}\n{}\n{:?}", matrix.broken(), seen().join("\n"), leases(lab));
}

/// A peer as `wg` has it, without what changes by itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Peer {
    key: String,
    shared: String,
    endpoint: String,
    networks: String,
    keepalive: String,
}

/// Public key and port of a device, and its peers.
fn wg(node: &Node, device: &str) -> Result<(String, String, Vec<Peer>), String> {
    let text = node.netns.tool("wg", &["show", device, "dump"]).map_err(|error| error.to_string())?;
    let mut rows = text.lines().map(|line| line.split('\t').map(str::to_owned).collect::<Vec<_>>());
    let own = rows.next().ok_or("no device")?;
    let peer = |row: Vec<String>| Peer {
        key: row[0].clone(),
        shared: row[1].clone(),
        endpoint: row[2].clone(),
        networks: row[3].clone(),
        keepalive: row[7].clone(),
    };
    Ok((own[1].clone(), own[2].clone(), rows.map(peer).collect()))
}

/// All that weft has made of WireGuard on a node.
fn kernel(node: &Node, devices: &[&str]) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    for device in devices {
        found.push(format!("{device}: {:?}", wg(node, device)?));
        for words in [["-4", "route", "show", "dev"], ["-6", "route", "show", "dev"], ["-o", "addr", "show", "dev"]] {
            let text = node.netns.tool("ip", &[&words[..], &[*device]].concat()).map_err(|error| error.to_string())?;
            // The index comes first in addresses, and a new device has a new one.
            let line = |line: &str| line.split_once(": ").map_or(line, |(_, rest)| rest).trim().to_owned();
            found.extend(text.lines().map(line));
        }
    }
    Ok(found)
}

fn await_kernel(node: &Node, devices: &[&str], wanted: &[String], what: &str) {
    wait::until_ok(wait::patience(REPAIR), what, || match kernel(node, devices)? {
        now if now == wanted => Ok(()),
        now => Err(format!("{now:#?}")),
    })
    .unwrap();
}

fn index(node: &Node, device: &str) -> Value {
    node.netns.objects("ip", &["link", "show", device]).unwrap()[0]["ifindex"].clone()
}

fn leases(lab: &OwnedLab) -> Vec<(String, Value)> {
    let found = lab.etcd().unwrap().get(&format!("{NETWORK_PREFIX}/subnets/")).unwrap();
    found.into_iter().map(|(key, value)| (key, serde_json::from_str(&value).unwrap())).collect()
}

/// Key and value of a node's lease.
fn lease_of(lab: &OwnedLab, node: &Node) -> (String, Value) {
    let address = node.v4().to_string();
    leases(lab).into_iter().find(|(_, value)| value["PublicIP"] == address.as_str()).unwrap()
}

/// What an agent tells of itself.
fn status(node: &Node) -> String {
    http::get(&node.netns, "127.0.0.1:8081".parse().unwrap(), "/status").unwrap().body
}

const BOTH: [&str; 2] = ["flannel-wg", "flannel-wg-v6"];

#[test]
fn pods_reach_each_other_sealed_and_what_is_changed_comes_back() {
    let mut lab = up(&json!({"PSK": PSK, "PersistentKeepaliveInterval": 25}));
    let [one, two] = ["node1", "node2"].map(|name| lab.node(name).unwrap().clone());

    // Each node's key is its own, in a file for its own eyes, and what others are told is its public half.
    let mut keys = Vec::new();
    for node in [&one, &two] {
        let file = node.path("wgkey");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let private = fs::read_to_string(&file).unwrap();
        let pubkey = tool::call("sh", &["-c", &format!("wg pubkey < {}", file.display())]).unwrap();
        let public = pubkey.trim().to_owned();
        let (_, lease) = lease_of(&lab, node);
        assert_eq!(lease["BackendType"], "wireguard");
        assert_eq!(lease["BackendData"], json!({"PublicKey": public, "Port": 51820}));
        assert_eq!(lease["BackendV6Data"], json!({"PublicKey": public, "Port": 51821}));
        let told = [lab.log(&node.name).unwrap(), status(node), lab.readyz(&node.name).unwrap().body];
        assert!(told[1].contains(&public), "{}", told[1]);
        for text in told {
            assert!(!text.contains(&private) && !text.contains(PSK), "{text}");
        }
        keys.push((private, public));
    }
    assert_ne!(keys[0], keys[1]);

    // As `wg` and `ip` see it.
    let subnets = two.subnets();
    let peer = |endpoint: String, networks: &str| Peer {
        key: keys[1].1.clone(),
        shared: PSK.to_owned(),
        endpoint,
        networks: networks.to_owned(),
        keepalive: "25".to_owned(),
    };
    let v4 = peer(format!("{}:51820", two.v4()), &subnets[0]);
    let v6 = peer(format!("[{}]:51821", two.v6()), &subnets[1]);
    assert_eq!(wg(&one, BOTH[0]).unwrap(), (keys[0].1.clone(), "51820".to_owned(), vec![v4]));
    assert_eq!(wg(&one, BOTH[1]).unwrap(), (keys[0].1.clone(), "51821".to_owned(), vec![v6]));
    let routes = one.netns.objects("ip", &["route", "show", "dev", BOTH[0]]).unwrap();
    assert_eq!(
        (&routes[0]["dst"], &routes[0]["scope"], &routes[0]["protocol"]),
        (&json!("10.244.0.0/16"), &json!("link"), &json!("119"))
    );
    assert_eq!(routes.len(), 1);
    // What no peer has goes into the device all the same, and not out in the clear.
    assert!(one.netns.tool("ip", &["route", "get", "10.244.250.9"]).unwrap().contains("dev flannel-wg"));
    assert_eq!(one.subnet_file()["FLANNEL_MTU"], "1420");
    let link = one.pod("pod1").unwrap().netns.objects("ip", &["link", "show", "eth0"]).unwrap();
    assert_eq!(link[0]["mtu"], 1420);

    // Somebody's own device with a peer, which nobody may touch.
    for words in ["link add wg9 type wireguard", "link set wg9 up"] {
        one.netns.tool("ip", &words.split(' ').collect::<Vec<_>>()).unwrap();
    }
    let stranger = &keys[0].1;
    one.netns.tool("wg", &["set", "wg9", "peer", &keys[1].1, "allowed-ips", "10.244.77.0/24"]).unwrap();
    let foreign = (wg(&one, "wg9").unwrap(), index(&one, "wg9"));

    let before = kernel(&one, &BOTH).unwrap();
    let two_key = &keys[1].1;
    let other = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
    for sabotage in [
        &["wg", "set", "flannel-wg", "peer", two_key, "remove"][..],
        &["wg", "set", "flannel-wg-v6", "peer", two_key, "remove"],
        &["wg", "set", "flannel-wg", "peer", two_key, "allowed-ips", "10.99.0.0/24"],
        &["wg", "set", "flannel-wg", "peer", two_key, "endpoint", "192.168.100.99:9"],
        &["wg", "set", "flannel-wg", "peer", two_key, "preshared-key", "/dev/null"],
        // Another one takes the addresses away from the one that has them.
        &["wg", "set", "flannel-wg", "peer", other, "allowed-ips", &subnets[0]],
        &["wg", "set", "flannel-wg", "listen-port", "5000"],
        // With the peer's own key the kernel takes the peer out.
        &["wg", "set", "flannel-wg", "private-key", two.path("wgkey").to_str().unwrap()],
        &["ip", "route", "del", "10.244.0.0/16", "dev", "flannel-wg"],
        &["ip", "addr", "flush", "dev", "flannel-wg"],
        &["ip", "link", "set", "flannel-wg", "down"],
        &["ip", "link", "delete", "flannel-wg"],
        // The agent sets it up again at once.
        &["sh", "-c", "until ip link set flannel-wg-v6 name renamed; do ip link set flannel-wg-v6 down; done"],
    ] {
        one.netns.tool(sabotage[0], &sabotage[1..]).unwrap();
        await_kernel(&one, &BOTH, &before, &format!("repair after {sabotage:?}"));
    }
    complete(&lab, "after all of that");
    assert_eq!((wg(&one, "wg9").unwrap(), index(&one, "wg9")), foreign, "{stranger}");
    fs::remove_file(one.path("wgkey")).unwrap();
    wait::until(wait::patience(REPAIR), "the key file of a running agent", || {
        fs::read_to_string(one.path("wgkey")).is_ok_and(|key| key == keys[0].0)
    })
    .unwrap();

    // A restart keeps key, device and every packet.
    let devices = BOTH.map(|device| index(&one, device));
    let [from, to] = [&one, &two].map(|node| node.pod("pod1").unwrap());
    let pinger = Pinger::start(&from.netns, to.v4().unwrap());
    pinger.let_pass(50).unwrap();
    lab.kill_agent("node1").unwrap();
    pinger.let_pass(50).unwrap();
    lab.start_agent("node1").unwrap();
    lab.await_ready("node1").unwrap();
    pinger.let_pass(50).unwrap();
    let losses = pinger.finish().unwrap();
    assert_eq!(losses.count(), 0, "{losses:?}");
    assert_eq!((kernel(&one, &BOTH).unwrap(), BOTH.map(|device| index(&one, device))), (before, devices));

    // A peer whose data cannot be right is left out by itself.
    for (number, key) in [(201, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="), (202, "c2hvcnQ="), (203, stranger)] {
        let data = json!({"PublicKey": key, "Port": 51820});
        let value = json!({"PublicIP": format!("192.168.100.{number}"), "PublicIPv6": null, "BackendType": "wireguard", "BackendData": data});
        let key = format!("{NETWORK_PREFIX}/subnets/10.244.{number}.0-24");
        lab.etcd().unwrap().put(&key, &value.to_string()).unwrap();
    }
    wait::until_ok(wait::patience(REPAIR), "bad peers to be told", || {
        let told = lab.readyz("node1").map_err(|error| error.to_string())?.body;
        let named = (201..=203).all(|number| told.contains(&format!("10.244.{number}.0-24")));
        let why = told.contains("32 bytes in base64") && told.contains("is this node's own");
        if named && why && told.contains("1 reached") { Ok(()) } else { Err(told) }
    })
    .unwrap();
    assert_eq!(wg(&one, BOTH[0]).unwrap().2.len(), 1);
    for number in 201..=203 {
        lab.etcd().unwrap().delete(&format!("{NETWORK_PREFIX}/subnets/10.244.{number}.0-24")).unwrap();
    }

    // The doctor looks at this overlay, and at its port.
    let doctor = lab.weft("node1", "doctor", &["-o", "wide"]).unwrap();
    let told = &doctor.stdout;
    assert!(
        told.contains("up, WireGuard, UDP port 51820") && told.contains("through the overlay (UDP 51820 to"),
        "{told}"
    );
    assert!(!told.contains("8472") && !told.contains(&keys[0].0) && !told.contains(PSK), "{told}");

    // A node that goes is no peer any more, and a node that is cleaned has nothing left but what was there before.
    lab.kill_agent("node2").unwrap();
    lab.etcd().unwrap().delete(&lease_of(&lab, &two).0).unwrap();
    wait::until_ok(wait::patience(REPAIR), "the peer of a node that is gone", || {
        let left: Vec<Peer> = BOTH.iter().flat_map(|device| wg(&one, device).unwrap().2).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .unwrap();
    lab.stop_agent("node1").unwrap();
    assert_eq!(wg(&one, BOTH[0]).unwrap().0, keys[0].1, "the device outlives its agent");
    let cleaned = lab.weft("node1", "cleanup", &[]).unwrap();
    assert_eq!(cleaned.exit, Some(0), "{cleaned:?}");
    let links = one.netns.objects("ip", &["link", "show", "type", "wireguard"]).unwrap();
    assert_eq!(links.len(), 1, "{links:?}");
    assert_eq!((wg(&one, "wg9").unwrap(), index(&one, "wg9")), foreign);
    assert!(!one.path("wgkey").exists() && !one.path("run").exists());
    let routes = one.netns.tool("ip", &["route", "show", "proto", "119", "table", "all"]).unwrap();
    assert_eq!(routes, "");
}

#[test]
fn one_device_carries_both_families_over_either() {
    for (mode, endpoint) in [("ipv4", "192.168.100."), ("ipv6", "[fd")] {
        let lab = up(&json!({"Mode": mode}));
        let [one, two] = ["node1", "node2"].map(|name| lab.node(name).unwrap());
        let (_, port, peers) = wg(one, BOTH[0]).unwrap();
        assert_eq!((port.as_str(), peers.len()), ("51820", 1));
        assert_eq!(peers[0].networks, two.subnets().join(","));
        assert!(peers[0].endpoint.starts_with(endpoint) && peers[0].endpoint.ends_with(":51820"), "{peers:?}");
        assert!(wg(one, BOTH[1]).is_err(), "there is one device");
        let addresses = one.netns.objects("ip", &["addr", "show", "dev", BOTH[0]]).unwrap();
        let addresses = addresses[0]["addr_info"].as_array().unwrap();
        let own: Vec<&str> = addresses.iter().map(|address| address["local"].as_str().unwrap()).collect();
        assert_eq!(own.len(), 2, "{own:?}");
        for (_, lease) in leases(&lab) {
            // Where it listens, and not where it would with a device of its own.
            assert_eq!(
                (&lease["BackendData"]["Port"], &lease["BackendV6Data"]["Port"]),
                (&json!(51820), &json!(51820))
            );
        }
    }
}

#[test]
fn another_mode_and_another_back_end_take_effect_in_running_agents() {
    let lab = up(&json!({"Mode": "auto"}));
    let one = lab.node("node1").unwrap();
    let devices = || -> Vec<String> {
        let links = one.netns.objects("ip", &["link", "show"]).unwrap();
        let names = links.iter().filter_map(|link| link["ifname"].as_str());
        names.filter(|name| name.starts_with("flannel")).map(str::to_owned).collect()
    };
    let changed = |config: &str, expected: [&str; 2]| {
        lab.etcd().unwrap().put(&format!("{NETWORK_PREFIX}/config"), config).unwrap();
        wait::until_ok(wait::patience(REPAIR), config, || match devices() {
            now if now == expected => Ok(()),
            now => Err(format!("{now:?}")),
        })
        .unwrap();
        complete(&lab, config);
    };
    assert_eq!(devices(), [BOTH[0]]);
    changed(&network(&json!({})), BOTH);
    let networks = BOTH.map(|device| wg(one, device).unwrap().2[0].networks.clone());
    assert_eq!(networks.to_vec(), lab.node("node2").unwrap().subnets());
    changed(&network(&json!({"Type": "vxlan"})), ["flannel.1", "flannel-v6.1"]);
    changed(&network(&json!({})), BOTH);
}

#[test]
fn what_stands_in_the_way_is_named() {
    let network = json!({"Network": "10.244.0.0/16", "Backend": {"Type": "wireguard"}}).to_string();
    let mut lab = OwnedLab::bare(Spec { pods: 0, ..Spec::test(1).network(network).agent_args(&AGENT) });
    let name = lab.new_node().unwrap();
    let node = lab.node(&name).unwrap().clone();
    fs::create_dir_all(node.path("")).unwrap();
    fs::write(node.path("wgkey"), "hunter2").unwrap();
    let tells = |lab: &OwnedLab, words: &[&str]| {
        wait::until_ok(wait::patience(REPAIR), &format!("{words:?}"), || {
            let told = lab.readyz(&name).map_err(|error| error.to_string())?.body;
            if words.iter().all(|word| told.contains(word)) { Ok(told) } else { Err(told) }
        })
        .unwrap()
    };
    lab.start_agent(&name).unwrap();
    let told = tells(&lab, &["wgkey (wireguard-key-file) holds no key", "remove it"]);
    assert!(!told.contains("hunter2") && !lab.log(&name).unwrap().contains("hunter2"));
    assert_eq!(fs::read_to_string(node.path("wgkey")).unwrap(), "hunter2");
    fs::remove_file(node.path("wgkey")).unwrap();

    // Somebody else has the port: the device is there, and cannot listen.
    let socket = node.netns.run(|| std::net::UdpSocket::bind("0.0.0.0:51820")).unwrap().unwrap();
    tells(&lab, &["flannel-wg cannot listen at UDP port 51820", "ss -lunp", "ListenPort"]);
    drop(socket);
    lab.await_ready(&name).unwrap();
    lab.stop_agent(&name).unwrap();

    // Another kind of device of that name is not weft's to take.
    node.netns.tool("ip", &["link", "delete", "flannel-wg"]).unwrap();
    node.netns.tool("ip", &["link", "add", "flannel-wg", "type", "dummy"]).unwrap();
    lab.start_agent(&name).unwrap();
    tells(&lab, &["flannel-wg is there and is no WireGuard device"]);
    let link = node.netns.objects("ip", &["-d", "link", "show", "flannel-wg"]).unwrap();
    assert_eq!(link[0]["linkinfo"]["info_kind"], "dummy");
}
