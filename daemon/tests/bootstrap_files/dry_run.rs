//! `--dry-run`: all is shown, and the machine stays as it is.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;
use weft_tests::skip;
use weft_tests::tool::{self, Stdin};

use super::NODE;
use super::own_root::OwnRoot;

/// What is shown, and where it would be: a file, or a request to the API server.
fn documents(printed: &str) -> Vec<(String, Value)> {
    let documents = printed.split("---\n# ").skip(1).map(|text| {
        let (place, yaml) = text.split_once('\n').unwrap();
        // Lines for people begin with the phase.
        let end = yaml.find("\n[").map_or(yaml.len(), |end| end + 1);
        let yaml = &yaml[..end];
        (place.to_owned(), serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{place}: {error}\n{yaml}")))
    });
    documents.collect()
}

fn dry_run(root: &OwnRoot, by: &[&str]) -> tool::Output {
    let folder = root.at("dry");
    fs::create_dir_all(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    let folder = format!("KUBEADM_INIT_DRYRUN_DIR={}", folder.display());
    let weft = [env!("CARGO_BIN_EXE_weft"), "init", "--dry-run", "--ignore-preflight-errors=all"];
    let mut command = root.command(&[&["env", &folder][..], by, &weft, &NODE].concat());
    tool::run_with(&mut command, Stdin::Bytes(b"")).unwrap()
}

#[test]
fn i10_a_dry_run_shows_files_and_objects_and_touches_nothing() {
    let root = own_root!(true);
    let before = (root.files("etc"), root.files("var"));
    let output = dry_run(&root, &[]);
    assert_eq!(output.exit, Some(0), "{}{}", output.stdout, output.stderr);
    let after = (root.files("etc"), root.files("var"));
    assert!(after == before, "{:?} {:?}", after.0.keys(), after.1.keys());
    let documents = documents(&output.stdout);
    let of = |place: &str| {
        let found = documents.iter().find(|(at, _)| at == place);
        &found
            .unwrap_or_else(|| {
                panic!("{place} is not among {:#?}", documents.iter().map(|(at, _)| at).collect::<Vec<_>>())
            })
            .1
    };
    assert_eq!(of("/etc/kubernetes/manifests/kube-apiserver.yaml")["kind"], "Pod");
    assert_eq!(of("/var/lib/kubelet/config.yaml")["kind"], "KubeletConfiguration");
    let maps: Vec<_> = documents
        .iter()
        .filter(|(at, _)| at.starts_with("POST /api/v1/namespaces/kube-system/configmaps"))
        .map(|(_, map)| map["metadata"]["name"].as_str().unwrap())
        .collect();
    assert!(maps.contains(&"kubeadm-config") && maps.contains(&"kubelet-config"), "{maps:?}");
    let daemon_set =
        |(at, object): &(String, Value)| at.contains("/daemonsets/") && object["metadata"]["name"] == "weft";
    assert!(documents.iter().any(daemon_set), "weft's DaemonSet is not shown");
    assert!(!output.stdout.contains("PRIVATE KEY") && !output.stderr.contains("PRIVATE KEY"), "a key is shown");
    let keys = root.files("dry/etc/kubernetes/pki");
    assert!(keys.keys().any(|name| name.ends_with("pki/ca.key")), "{:?}", keys.keys());
}

#[test]
fn i10_who_is_not_root_may_do_it_too() {
    let root = own_root!(true);
    let output = dry_run(&root, &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
    if output.exit == Some(126) || output.exit == Some(127) {
        skip!("needs a path to weft that anybody may go: {}", output.stderr.trim());
    }
    assert_eq!(output.exit, Some(0), "{}{}", output.stdout, output.stderr);
    assert!(documents(&output.stdout).len() > 10, "{}", output.stdout);
}
