//! What somebody changes or deletes comes back within ten seconds, by the same agent, counted and told of in one line.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use nix::sys::signal::Signal;
use weft_tests::lab::{Lab, NETWORK_PREFIX, OwnedLab, Spec, difference, kernel, without_numbers};
use weft_tests::wait;

/// The promise for every repair (DESIGN.md, decision 13).
const REPAIR: Duration = Duration::from_secs(10);

fn two_nodes() -> OwnedLab {
    let lab = OwnedLab::up(Spec::test(2));
    let matrix = lab.matrix(REPAIR).unwrap();
    assert!(matrix.complete(), "{:?}", matrix.broken());
    lab
}

/// Repairs of a table so far: how many objects, and in how many lines.
fn repairs(lab: &Lab, table: &str) -> (u64, usize) {
    let label = format!("table=\"{table}\"");
    let lines = lab.told_repairs("node1").unwrap();
    (lab.repairs("node1", table).unwrap(), lines.iter().filter(|line| line.contains(&label)).count())
}

/// Waits until more objects of a table have been put back than before, and looks that one line more tells of it.
fn is_counted_and_told(lab: &Lab, table: &str, before: (u64, usize), what: &str) -> u64 {
    let counted = wait::until_ok(REPAIR, &format!("{what} to be counted"), || {
        let now = repairs(lab, table);
        if now.0 > before.0 && now.1 > before.1 { Ok(now) } else { Err(format!("{before:?}, then {now:?}")) }
    });
    let now = counted.unwrap();
    assert_eq!(now.1, before.1 + 1, "{what}: {:#?}", lab.told_repairs("node1").unwrap());
    now.0 - before.0
}

/// Does something while the agent of node 1 stands still, so that it sees all of it at once.
fn unseen(lab: &Lab, sabotage: impl FnOnce()) {
    let agent = lab.node("node1").unwrap().agent.unwrap();
    agent.signal(Signal::SIGSTOP);
    sabotage();
    agent.signal(Signal::SIGCONT);
}

/// Breaks something of a table on node 1, and sees it come back.
fn heals(lab: &Lab, table: &str, sabotage: &str) {
    let node = lab.node("node1").unwrap();
    let (kernel_before, before) = (without_numbers(&kernel(&node.netns).unwrap()), repairs(lab, table));
    unseen(lab, || node.netns.tool("sh", &["-ec", sabotage]).map(drop).unwrap());
    is_counted_and_told(lab, table, before, sabotage);
    wait::until_ok(REPAIR, &format!("repair after {sabotage}"), || {
        let now = without_numbers(&kernel(&node.netns).unwrap());
        if now == kernel_before { Ok(()) } else { Err(difference(&kernel_before, &now)) }
    })
    .unwrap();
    let matrix = lab.matrix(Duration::from_secs(2)).unwrap();
    assert!(matrix.complete(), "{sabotage}: {:?}", matrix.broken());
    assert!(node.agent.unwrap().alive(), "healed by a restart");
}

/// What node 1 has of node 2: its subnet, the first address of it, its device's MAC, its public address.
fn peer(lab: &Lab) -> [String; 4] {
    let view = &lab.view().nodes[1];
    let subnet = view.subnets[0].clone();
    let first = subnet.split('/').next().unwrap().to_owned();
    [subnet, first, view.vteps[0].mac.clone(), view.vteps[0].ip.clone()]
}

#[test]
fn d38_flushed_routes_neighbours_and_forwarding_entries_come_back() {
    let lab = two_nodes();
    let [_, _, mac, public_ip] = peer(&lab);
    heals(&lab, "peers", "ip route flush dev flannel.1");
    heals(&lab, "peers", "ip neigh flush dev flannel.1 nud permanent");
    heals(&lab, "peers", &format!("bridge fdb del {mac} dev flannel.1 dst {public_ip}"));
}

#[test]
fn what_somebody_puts_in_the_place_of_a_peers_objects_or_beside_them_goes() {
    let lab = two_nodes();
    let [subnet, first, mac, _] = peer(&lab);
    heals(&lab, "peers", &format!("ip route replace {subnet} via 10.244.250.9 dev flannel.1 onlink proto 119"));
    heals(&lab, "peers", &format!("ip neigh replace {first} lladdr 02:00:00:00:00:99 dev flannel.1 nud permanent"));
    heals(&lab, "peers", &format!("bridge fdb replace {mac} dev flannel.1 dst 192.168.100.77 self permanent"));
    heals(&lab, "peers", "bridge fdb add 02:00:00:00:00:97 dev flannel.1 dst 192.168.100.77 self permanent");
    heals(&lab, "peers", "ip neigh add 10.244.250.0 lladdr 02:00:00:00:00:98 dev flannel.1 nud permanent");
}

#[test]
fn a_vxlan_device_that_is_deleted_or_changed_comes_back_with_its_peers() {
    let lab = two_nodes();
    heals(&lab, "links", "ip link delete flannel.1");
    heals(&lab, "links", "ip link set flannel.1 down");
    heals(&lab, "links", "ip link set flannel.1 mtu 1400");
    heals(&lab, "links", "ip addr flush dev flannel.1");
    heals(&lab, "links", "ip link set flannel.1 type vxlan id 1 local 192.168.100.99");
    heals(&lab, "links", "ip link set flannel.1 down; ip link set flannel.1 name renamed up");
}

#[test]
fn the_bridge_and_its_ports_come_back() {
    let lab = two_nodes();
    let gateway = lab.node("node1").unwrap().subnet_file()["FLANNEL_SUBNET"].clone();
    let subnet = lab.node("node1").unwrap().subnets()[0].clone();
    heals(&lab, "links", "ip link delete cni0");
    heals(&lab, "links", "ip link set cni0 down");
    heals(&lab, "links", "ip link set cni0 mtu 1300");
    heals(&lab, "links", &format!("ip addr delete {gateway} dev cni0"));
    // Their own node's pods are reached by the route that came with the bridge's address.
    heals(&lab, "links", &format!("ip route delete {subnet} dev cni0"));
    heals(
        &lab,
        "links",
        "ip -br link show master cni0 | while read name rest; do ip link set ${name%@*} nomaster; done",
    );
}

#[test]
fn rules_that_somebody_flushes_or_adds_to_come_back() {
    let lab = two_nodes();
    heals(&lab, "filter", "nft flush ruleset");
    heals(&lab, "filter", "nft flush chain inet weft postrouting");
    heals(&lab, "filter", "nft insert rule inet weft forward drop");
}

#[test]
fn d42_a_changed_mac_is_set_back_and_peers_keep_one_forwarding_entry() {
    let mut lab = two_nodes();
    let mac = |lab: &Lab| lab.view().nodes[0].vteps[0].mac.clone();
    let published = |lab: &Lab| {
        let leases = lab.etcd().unwrap().get(&format!("{NETWORK_PREFIX}/subnets/")).unwrap();
        leases.into_iter().filter(|(_, value)| value.contains(r#""192.168.100.11""#)).collect::<Vec<_>>()
    };
    // What node 2 has of node 1, by the address behind which it is.
    let behind = |lab: &Lab| {
        let entries = lab.node("node2").unwrap().netns.objects("bridge", &["fdb", "show", "dev", "flannel.1"]).unwrap();
        let macs =
            entries.iter().filter(|entry| entry["dst"] == "192.168.100.11").map(|entry| entry["mac"].to_string());
        macs.map(|mac| mac.trim_matches('"').to_owned()).collect::<Vec<_>>()
    };
    let own = mac(&lab);
    assert_eq!(behind(&lab), std::slice::from_ref(&own));
    heals(&lab, "links", "ip link set flannel.1 address 02:00:00:00:00:42");
    assert_eq!((mac(&lab), behind(&lab)), (own.clone(), vec![own.clone()]));

    // While no agent looks, as udev does it with a device that is new.
    lab.kill_agent("node1").unwrap();
    let node = lab.node("node1").unwrap().netns.clone();
    node.tool("ip", &["link", "set", "flannel.1", "address", "02:00:00:00:00:43"]).unwrap();
    lab.start_agent("node1").unwrap();
    lab.await_ready("node1").unwrap();
    let said = published(&lab);
    assert_eq!((mac(&lab), behind(&lab), said.len()), (own.clone(), vec![own.clone()], 1), "{said:?}");
    assert!(said[0].1.contains(&own), "{said:?}");
    assert!(lab.matrix(REPAIR).unwrap().complete());
}

#[test]
fn settings_that_somebody_changes_come_back() {
    let lab = OwnedLab::up(Spec { pods: 0, ..Spec::test(1).dual_stack() });
    let node = &lab.node("node1").unwrap().netns;
    let wanted = [
        ("net/ipv4/ip_forward", "0", "1"),
        ("net/ipv6/conf/all/forwarding", "0", "1"),
        ("net/ipv6/conf/flannel.1/accept_ra", "1", "0"),
        ("net/ipv6/conf/flannel-v6.1/accept_ra", "1", "0"),
    ];
    let before = repairs(&lab, "links");
    unseen(&lab, || wanted.iter().for_each(|(setting, wrong, _)| node.sysctl(setting, wrong).unwrap()));
    let read = |setting: &str| node.tool("cat", &[&format!("/proc/sys/{setting}")]).unwrap().trim().to_owned();
    wait::until_ok(REPAIR, "the settings to be right again", || {
        let off: Vec<&str> =
            wanted.iter().filter(|(setting, _, right)| read(setting) != *right).map(|(setting, ..)| *setting).collect();
        if off.is_empty() { Ok(()) } else { Err(off.join(", ")) }
    })
    .unwrap();
    assert_eq!(is_counted_and_told(&lab, "links", before, "settings"), 4);
    let told = lab.told_repairs("node1").unwrap();
    assert!(wanted.iter().all(|(setting, _, right)| told[0].contains(&format!("{setting} = {right}"))), "{told:?}");
}

#[test]
fn files_that_somebody_changes_or_deletes_come_back() {
    let lab = OwnedLab::up(Spec { pods: 0, ..Spec::test(1) });
    let node = lab.node("node1").unwrap();
    let (subnet_file, conflist, plugin) = (node.path("subnet.env"), node.conflist(), node.path("bin/weft-cni"));
    let files = [&subnet_file, &conflist, &plugin];
    let look = || {
        files.map(|file| {
            let mode = fs::metadata(file).map(|found| found.permissions().mode() & 0o7777).unwrap_or_default();
            (fs::read(file).unwrap_or_default(), mode)
        })
    };
    let good = look();
    let healed = |before, what: &str| {
        wait::until(REPAIR, &format!("the files to be right again after {what}"), || look() == good).unwrap();
        is_counted_and_told(&lab, "files", before, what)
    };
    let before = repairs(&lab, "files");
    assert_eq!(before, (0, 0), "the first write is no repair");
    unseen(&lab, || {
        fs::write(&subnet_file, "FLANNEL_NETWORK=10.0.0.0/8\n").unwrap();
        fs::remove_file(&conflist).unwrap();
        fs::set_permissions(&plugin, fs::Permissions::from_mode(0o600)).unwrap();
    });
    assert_eq!(healed(before, "a change of each"), 3);
    let told = lab.told_repairs("node1").unwrap();
    assert!(files.iter().all(|file| told[0].contains(&file.display().to_string())), "{told:?}");

    let before = repairs(&lab, "files");
    unseen(&lab, || {
        fs::remove_file(&subnet_file).unwrap();
        fs::write(&conflist, "").unwrap();
        fs::remove_file(&plugin).unwrap();
    });
    assert_eq!(healed(before, "their deletion"), 3);
}
