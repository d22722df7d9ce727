//! Static pods without upstream's programs: what differs from them on purpose, and the files.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::json;

use super::golden::{cluster, node};
use super::*;
use crate::bootstrap::converge::Outcome;
use crate::bootstrap::patches::Patches;
use crate::bootstrap::resolved::Paths;

fn arg(name: &str, value: &str) -> Arg {
    Arg { name: name.into(), value: value.into() }
}

fn flag<'a>(command: &'a [String], name: &str) -> Vec<&'a str> {
    let prefix = format!("--{name}=");
    command.iter().filter_map(|argument| argument.strip_prefix(&prefix)).collect()
}

#[test]
fn i02_flags_of_the_configuration_win_and_repeat_in_the_manifest() {
    let mut cluster = cluster();
    cluster.scheduler.extra_args = vec![arg("leader-elect", "false"), arg("vmodule", "a=1"), arg("vmodule", "b=2")];
    let pod = pod(Part::Scheduler, &cluster, &node(), &Facts::default()).unwrap();
    let command: Vec<String> = serde_json::from_value(pod["spec"]["containers"][0]["command"].clone()).unwrap();
    assert_eq!(command[0], "kube-scheduler");
    assert_eq!(
        command[4..],
        ["--kubeconfig=/etc/kubernetes/scheduler.conf", "--leader-elect=false", "--vmodule=a=1", "--vmodule=b=2"]
    );
}

#[test]
fn a_member_that_joins_names_all_and_says_that_the_cluster_exists() {
    let others =
        vec![("a".to_owned(), "https://192.0.2.1:2380".to_owned()), ("b".into(), "https://192.0.2.2:2380".into())];
    let facts = Facts { etcd_members: others.clone(), ..Facts::default() };
    let joined = command(Part::Etcd, &cluster(), &node(), &facts).unwrap();
    assert_eq!(flag(&joined, "initial-cluster-state"), ["existing"]);
    let all = "a=https://192.0.2.1:2380,b=https://192.0.2.2:2380,n1=https://192.0.2.10:2380";
    assert_eq!(flag(&joined, "initial-cluster"), [all]);
    // etcd may list this member already, under the name that it will have.
    let listed = others.into_iter().chain([("n1".to_owned(), "https://192.0.2.10:2380".to_owned())]).collect();
    let again = command(Part::Etcd, &cluster(), &node(), &Facts { etcd_members: listed, ..Facts::default() }).unwrap();
    assert_eq!(again, joined);
}

#[test]
fn an_older_etcd_gets_the_flags_and_probes_that_it_knows() {
    let facts = Facts { etcd_version: EtcdVersion { major: 3, minor: 4, patch: 23 }, ..Facts::default() };
    let pod = pod(Part::Etcd, &cluster(), &node(), &facts).unwrap();
    let container = &pod["spec"]["containers"][0];
    let command: Vec<String> = serde_json::from_value(container["command"].clone()).unwrap();
    assert_eq!(flag(&command, "experimental-initial-corrupt-check"), ["true"]);
    assert!(flag(&command, "feature-gates").is_empty() && flag(&command, "watch-progress-notify-interval").is_empty());
    assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/health?exclude=NOSPACE&serializable=true");
    assert!(container.get("readinessProbe").is_none());
}

#[test]
fn probes_follow_the_port_that_a_flag_gives() {
    let mut cluster = cluster();
    cluster.controller_manager.extra_args = vec![arg("secure-port", "11257")];
    let pod = pod(Part::ControllerManager, &cluster, &node(), &Facts::default()).unwrap();
    assert_eq!(pod["spec"]["containers"][0]["ports"][0]["containerPort"], 11257);
}

#[test]
fn i15_a_proxy_only_when_asked_and_never_for_the_cluster_itself() {
    let environment = || {
        [
            ("HTTPS_PROXY", "http://u:p@proxy:3128"),
            ("no_proxy", "corp.example, 10.96.0.0/12"),
            ("PATH", "/bin"),
            ("ftp_proxy", ""),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    let not_asked = manifests(&cluster(), &node(), &Facts::default());
    assert!(not_asked.iter().all(|manifest| !manifest.pod.to_string().to_lowercase().contains("_proxy")));

    let mut cluster = cluster();
    cluster.control_plane_endpoint = Some(("api.example".into(), 6443));
    let proxy = proxy_environment(environment(), &cluster, &node()).unwrap();
    let facts = Facts { proxy, ..Facts::default() };
    for part in [Part::ApiServer, Part::ControllerManager, Part::Scheduler] {
        let pod = pod(part, &cluster, &node(), &facts).unwrap();
        let variables: Vec<EnvVar> = serde_json::from_value(pod["spec"]["containers"][0]["env"].clone()).unwrap();
        let variables: BTreeMap<_, _> = variables.into_iter().map(|variable| (variable.name, variable.value)).collect();
        assert_eq!(variables.keys().collect::<Vec<_>>(), ["HTTPS_PROXY", "NO_PROXY", "no_proxy"], "{part:?}");
        assert_eq!(variables["NO_PROXY"], variables["no_proxy"]);
        let exceptions: Vec<&str> = variables["NO_PROXY"].split(',').collect();
        for wanted in [
            "corp.example",
            "10.244.0.0/16",
            "10.96.0.0/12",
            "192.0.2.10",
            ".svc",
            ".cluster.local",
            "api.example",
            "127.0.0.1",
        ] {
            assert_eq!(exceptions.iter().filter(|entry| **entry == wanted).count(), 1, "{wanted} in {exceptions:?}");
        }
    }
    let etcd = pod(Part::Etcd, &cluster, &node(), &facts).unwrap();
    assert!(etcd["spec"]["containers"][0].get("env").is_none());
    let only_exceptions = [("NO_PROXY".to_owned(), "x".to_owned())];
    assert!(proxy_environment(only_exceptions, &cluster, &node()).unwrap().is_empty());
    let broken = [("HTTP_PROXY".to_owned(), "http://u:secret@a b".to_owned())];
    let error = proxy_environment(broken, &cluster, &node()).unwrap_err().to_string();
    assert!(error.contains("HTTP_PROXY") && !error.contains("secret"), "{error}");
}

#[test]
fn without_the_authoritys_key_nothing_is_signed() {
    let facts = Facts { external_ca: true, ..Facts::default() };
    let command = command(Part::ControllerManager, &cluster(), &node(), &facts).unwrap();
    assert_eq!(flag(&command, "cluster-signing-cert-file"), [""]);
    assert_eq!(flag(&command, "cluster-signing-key-file"), [""]);
}

#[test]
fn files_are_roots_alone_and_a_second_run_keeps_them() {
    let root = tempfile::tempdir().unwrap();
    let paths = Paths::under(root.path());
    let (mut cluster, node, patches) = (cluster(), node(), Patches::default());
    for manifest in manifests(&cluster, &node, &Facts::default()) {
        assert_eq!(write(&paths, &cluster, &manifest, &patches).unwrap(), Outcome::Made);
        assert_eq!(write(&paths, &cluster, &manifest, &patches).unwrap(), Outcome::Kept);
    }
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&paths.manifests()), 0o700);
    assert_eq!(mode(&root.path().join("var/lib/etcd")), 0o700);
    for part in Part::ALL {
        let file = paths.manifests().join(format!("{}.yaml", part.name()));
        assert_eq!(mode(&file), 0o600);
        let read: Value = serde_saphyr::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        assert_eq!(Some(read), pod(part, &cluster, &node, &Facts::default()));
    }
    cluster.scheduler.extra_args = vec![arg("v", "4")];
    let changed =
        Manifest { part: Part::Scheduler, pod: pod(Part::Scheduler, &cluster, &node, &Facts::default()).unwrap() };
    let Outcome::Changed(difference) = write(&paths, &cluster, &changed, &patches).unwrap() else { panic!("kept") };
    assert!(difference.contains("+     - --v=4\n"), "{difference}");
    assert!(remove(&paths, Part::Scheduler).unwrap());
    assert!(!remove(&paths, Part::Scheduler).unwrap());
}

#[test]
fn i03_a_patch_reaches_the_file() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("etcd+merge.yaml"), "metadata: {annotations: {mine: 'yes'}}\n").unwrap();
    let patches = Patches::load(root.path()).unwrap();
    let paths = Paths::under(root.path());
    let manifest = Manifest { part: Part::Etcd, pod: pod(Part::Etcd, &cluster(), &node(), &Facts::default()).unwrap() };
    write(&paths, &cluster(), &manifest, &patches).unwrap();
    let text = fs::read_to_string(paths.manifests().join("etcd.yaml")).unwrap();
    assert!(text.contains("    mine: \"yes\"\n"), "{text}");
    let read: Value = serde_saphyr::from_str(&text).unwrap();
    assert_eq!(read["metadata"]["annotations"]["mine"], json!("yes"));
}

#[test]
fn the_host_decides_which_directories_of_authorities_there_are() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("usr/share/ca-certificates")).unwrap();
    assert_eq!(ca_directories(root.path()), ["/usr/share/ca-certificates"]);
}
