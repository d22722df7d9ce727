//! `weft upgrade` and the control plane in `weft status`, on a real control plane of host processes that a stand-in for kubelet
//! starts from the manifests, as kubelet does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

#[path = "bootstrap_upgrade/kubelet.rs"]
mod kubelet;
#[path = "bootstrap_upgrade/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weft::bootstrap::api;
use weft::bootstrap::config;
use weft::bootstrap::phases::upgrade::{self, APPLY, NODE, Upgrade, UpgradeConfig, UpgradeOptions};
use weft::bootstrap::phases::{Format, PhaseError, Teller, select};
use weft::bootstrap::resolved::{Limits, Paths};
use weft::bootstrap::static_pods::{Helper, HelperFacts, Part, helper_file, helper_pod, write_helper};
use weft_tests::node::peers;
use weft_tests::scratch::Scratch;
use weft_tests::{skip, tool};
use world::World;

/// How long a part may take to get well on a busy machine: also how long it takes to see that one does not.
const COMPONENT: Duration = Duration::from_secs(45);

#[test]
fn a_control_plane_is_upgraded_rolled_back_and_told_of() {
    if let Err(reason) = peers::check(&["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]) {
        skip!("{reason}");
    }
    let world = World::start();
    u02_one_that_does_not_get_well_is_taken_back(&world);
    u01_a_cluster_goes_to_another_version(&world);
    a_second_run_changes_nothing(&world);
    helpers_of_another_weft_are_renewed_where_there_are_some(&world);
    a_workers_balancer_is_renewed(&world);
    s01_a_dead_etcd_is_told_of_with_its_reason(&world);
}

/// Goes to a version; what came of it.
fn apply(world: &World, version: &str, force: bool, dry_run: bool) -> Result<(), (String, PhaseError)> {
    let limits = Limits { component: COMPONENT, upgrade: COMPONENT, ..Limits::default() };
    let options = UpgradeOptions { target: Some(version.parse().unwrap()), force, etcd: true, renew: true, dry_run };
    // There are no runtime and no kubelet.
    let phases = select(APPLY, &["images".to_owned(), "kubelet-config".to_owned()], None).unwrap();
    world.inside(async || {
        let config = UpgradeConfig::here(&world.paths, &world.facts(), Some("unix:///none")).unwrap();
        let config = UpgradeConfig { limits, patches: Some(world.patches()), ..config };
        let tell = Teller::new(Format::Text, &world.paths, "upgrade.log");
        let mut upgrade = Upgrade::new(&config, &options, &world.paths, world::services(), &tell).unwrap();
        upgrade.run(&phases).await
    })
}

/// The manifests, as texts.
fn manifests(world: &World) -> BTreeMap<Part, String> {
    Part::ALL.map(|part| (part, fs::read_to_string(world.paths.manifest(part)).unwrap())).into()
}

/// Folders of an upgrade's.
fn kept(world: &World, prefix: &str) -> usize {
    let Ok(entries) = fs::read_dir(world.paths.kubernetes.join("tmp")) else { return 0 };
    entries.filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with(prefix)).count()
}

/// The version that the cluster says it is configured for.
fn configured(world: &World) -> String {
    world.inside(async || {
        let text = api::read_kubeadm_config(&world.server().await).await.unwrap();
        config::read_uploaded(&text).unwrap().cluster.kubernetes_version
    })
}

fn u02_one_that_does_not_get_well_is_taken_back(world: &World) {
    let old = manifests(world);
    let (phase, error) = apply(world, world::MISSING, false, false).unwrap_err();
    assert!(phase == "preflight" && error.to_string().contains("--force"), "{phase}: {error}");
    assert_eq!((manifests(world) == old, kept(world, "")), (true, 0), "nothing is written before it may be");

    let began = Instant::now();
    let (phase, error) = apply(world, world::MISSING, true, false).unwrap_err();
    let (words, took) = (error.to_string(), began.elapsed());
    assert_eq!(phase, "control-plane", "{words}");
    assert!(words.starts_with("kube-apiserver did not get well") && words.contains("is well again"), "{words}");
    assert!(took < COMPONENT + Duration::from_secs(60), "{took:?}");
    assert_eq!(manifests(world), old, "etcd's, too, which was well with its new one");
    assert_eq!(configured(world), world::OLD);
    assert_eq!(kept(world, "weft-backup-manifests-"), 1);
}

fn u01_a_cluster_goes_to_another_version(world: &World) {
    let old = manifests(world);
    apply(world, world::NEW, false, true).unwrap();
    assert_eq!(manifests(world), old, "a dry run");

    let plan = world.inside(async || {
        let target = world::NEW.parse().unwrap();
        upgrade::plan(&world.paths, None, Some(&target)).await.unwrap()
    });
    assert!(plan.is_sound(), "{plan:?}");
    let servers: Vec<_> =
        plan.available_upgrades[0].components.iter().filter(|part| part.name == "kube-apiserver").collect();
    assert_eq!(servers.len(), 1);
    assert_eq!((servers[0].current_version.as_str(), servers[0].new_version.as_str()), (world::OLD, world::NEW));

    // An upgrade was killed when it had written a manifest that does not run: its traces, and no API any more.
    let traces = world.paths.kubernetes.join("tmp/weft-backup-manifests-2020-01-01-00-00-00");
    fs::create_dir_all(&traces).unwrap();
    fs::write(traces.join("unfinished"), "").unwrap();
    fs::write(traces.join("kube-apiserver.yaml"), &old[&Part::ApiServer]).unwrap();
    let broken = old[&Part::ApiServer].replace(world::OLD, world::MISSING);
    fs::write(world.paths.manifest(Part::ApiServer), broken).unwrap();
    world.kubelet.await_end(Part::ApiServer);

    let serial = |name: &str| fs::read(world.paths.pki.join(name)).unwrap();
    let before = [serial("apiserver.crt"), serial("etcd/server.crt"), serial("ca.crt")];
    apply(world, world::NEW, false, false).unwrap_or_else(|(phase, error)| panic!("{phase}: {error}"));
    let new = manifests(world);
    for part in Part::ALL {
        let image =
            if part == Part::Etcd { "etcd:3.6.8-0".to_owned() } else { format!("{}:{}", part.name(), world::NEW) };
        assert!(new[&part].contains(&image), "{}", new[&part]);
    }
    assert!(new[&Part::Etcd].contains(world::MARK) && !old[&Part::Etcd].contains(world::MARK), "by the patch alone");
    assert_eq!(configured(world), world::NEW);
    let after = [serial("apiserver.crt"), serial("etcd/server.crt"), serial("ca.crt")];
    assert!(before[0] != after[0] && before[1] != after[1] && before[2] == after[2], "renewed is what is started anew");
    let folder = world.paths.kubernetes.join("tmp");
    let backup = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut backup: Vec<_> = backup.filter(|path| path.join("etcd-snapshot.db").is_file()).collect();
    backup.sort();
    let backup = backup.last().unwrap();
    assert_eq!(fs::read_to_string(backup.join("kube-apiserver.yaml")).unwrap(), old[&Part::ApiServer]);
    assert!(fs::metadata(backup.join("etcd-snapshot.db")).unwrap().len() > 1024);
    assert!(!backup.join("unfinished").exists() && !traces.join("unfinished").exists());
}

fn a_second_run_changes_nothing(world: &World) {
    let (texts, folders) = (manifests(world), kept(world, ""));
    let written = |part: Part| fs::metadata(world.paths.manifest(part)).unwrap().modified().unwrap();
    let times = Part::ALL.map(written);
    let certificate = fs::read(world.paths.pki.join("apiserver.crt")).unwrap();
    apply(world, world::NEW, false, false).unwrap_or_else(|(phase, error)| panic!("{phase}: {error}"));
    assert_eq!((manifests(world), kept(world, ""), Part::ALL.map(written)), (texts, folders, times));
    assert_eq!(fs::read(world.paths.pki.join("apiserver.crt")).unwrap(), certificate);
}

/// Where a helper's manifest is.
fn helper(world: &World, helper: Helper) -> PathBuf {
    helper_file(&world.paths, helper)
}

fn helpers_of_another_weft_are_renewed_where_there_are_some(world: &World) {
    let upgrade =
        |dry_run| apply(world, world::NEW, false, dry_run).unwrap_or_else(|(phase, error)| panic!("{phase}: {error}"));
    let all = [Helper::Balancer, Helper::CertRenewal];
    assert!(all.iter().all(|it| !helper(world, *it).exists()), "a node that has none gets none");
    // Another weft has made them, with the balancer at another port than usual.
    let listen = ["127.0.0.1:7444", "[::1]:7444"].map(|text| text.parse().unwrap());
    let facts = HelperFacts { image: "example.net/weft:0.0.1", paths: &world.paths, listen: &listen };
    for it in all {
        let mut pod = helper_pod(it, &facts);
        pod["spec"]["containers"][0]["command"].as_array_mut().unwrap().push(json!("--of-old"));
        write_helper(&world.paths, it, &pod).unwrap();
    }
    let text = |it: Helper| fs::read_to_string(helper(world, it)).unwrap();
    let old = all.map(text);
    upgrade(true);
    assert_eq!(all.map(text), old, "a dry run");
    upgrade(false);
    let image = format!("localhost/weft:{}", env!("CARGO_PKG_VERSION"));
    let wanted = HelperFacts { image: &image, ..facts };
    for it in all {
        let found: Value = serde_saphyr::from_str(&text(it)).unwrap();
        assert_eq!(found, helper_pod(it, &wanted), "{}", it.name());
    }
    let written = |it: Helper| fs::metadata(helper(world, it)).unwrap().modified().unwrap();
    let times = all.map(written);
    upgrade(false);
    assert_eq!(all.map(written), times, "once more there is nothing to do");
    // One that was taken away on purpose stays away.
    fs::remove_file(helper(world, Helper::Balancer)).unwrap();
    upgrade(false);
    assert!(!helper(world, Helper::Balancer).exists() && helper(world, Helper::CertRenewal).exists());
}

/// A worker has no control plane, and its balancer is renewed all the same.
fn a_workers_balancer_is_renewed(world: &World) {
    let root = Scratch::new();
    let paths = Paths::under(root.path());
    fs::create_dir_all(&paths.kubernetes).unwrap();
    fs::copy(world.paths.kubernetes.join("kubelet.conf"), paths.kubernetes.join("kubelet.conf")).unwrap();
    let listen = ["127.0.0.1:7444".parse().unwrap()];
    let facts = HelperFacts { image: "example.net/weft:0.0.1", paths: &paths, listen: &listen };
    write_helper(&paths, Helper::Balancer, &helper_pod(Helper::Balancer, &facts)).unwrap();
    let config = UpgradeConfig::here(&paths, &world.facts(), Some("unix:///none")).unwrap();
    assert!(!config.control_plane);
    let options = UpgradeOptions { target: None, force: false, etcd: true, renew: true, dry_run: false };
    let phases = select(NODE, &[], Some("weft-helpers")).unwrap();
    let tell = Teller::without_log(Format::Text);
    world.inside(async || {
        let mut upgrade = Upgrade::new(&config, &options, &paths, world::services(), &tell).unwrap();
        upgrade.run(&phases).await.unwrap_or_else(|(phase, error)| panic!("{phase}: {error}"));
    });
    let text = fs::read_to_string(helper_file(&paths, Helper::Balancer)).unwrap();
    assert!(text.contains("image: localhost/weft:") && text.contains("--listen=127.0.0.1:7444"), "{text}");
    assert!(!helper_file(&paths, Helper::CertRenewal).exists());
}

/// `weft status`: exit code, document, and how long it took.
fn status(world: &World) -> (i32, Value, Duration) {
    let mut command = tool::command(env!("CARGO_BIN_EXE_weft"));
    command.args(["status", "-o", "json", "--rootfs"]).arg(&world.paths.root);
    let began = Instant::now();
    let output = world.machine.run(|| tool::run_with(&mut command, tool::Stdin::Bytes(b""))).unwrap().unwrap();
    let document = serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.exit.unwrap(), document, began.elapsed())
}

fn component(document: &Value, name: &str) -> Value {
    let rows = document["controlPlane"]["components"].as_array().unwrap();
    rows.iter().find(|row| row["component"] == name).unwrap_or_else(|| panic!("no {name}: {document}")).clone()
}

fn s01_a_dead_etcd_is_told_of_with_its_reason(world: &World) {
    let (exit, document, _) = status(world);
    let plane = &document["controlPlane"];
    assert_eq!((exit, &plane["verdict"]), (2, &json!("well")), "no agent runs: {document}");
    for part in Part::ALL {
        let row = component(&document, part.name());
        assert_eq!((&row["verdict"], &row["node"]), (&json!("well"), &json!("n1")), "{row}");
    }
    let member = &plane["etcd"][0];
    assert_eq!((&member["name"], &member["leader"], &member["healthy"]), (&json!("n1"), &json!(true), &json!(true)));
    assert_eq!(plane["versions"]["kubelets"][0]["version"], kubelet::VERSION);
    assert!(plane["versions"]["apiServer"].as_str().unwrap().starts_with("v1."), "{plane}");
    assert!(plane["certificates"].as_array().unwrap().iter().any(|row| row["name"] == "apiserver"), "{plane}");

    world.kubelet.hold(Part::Etcd);
    let (exit, document, took) = status(world);
    assert!(exit == 1 && took <= Duration::from_secs(3), "{exit} after {took:?}: {document}");
    let etcd = component(&document, "etcd");
    assert_eq!(etcd["verdict"], "wrong", "{document}");
    assert!(etcd["reason"].as_str().unwrap().contains("refused"), "{etcd}");
    assert_eq!(document["verdict"], "wrong");
}
