//! `weft init phase certs` and `kubeconfig` as a user calls them, judged by OpenSSL.

use std::fs;
use std::path::{Path, PathBuf};

use weft_tests::tool;

use super::{OwnRoot, failed, init, phase, well, write_files};

/// Leaves with their authorities.
const LEAVES: [(&str, &str); 7] = [
    ("apiserver", "ca"),
    ("apiserver-kubelet-client", "ca"),
    ("apiserver-etcd-client", "etcd/ca"),
    ("front-proxy-client", "front-proxy-ca"),
    ("etcd/server", "etcd/ca"),
    ("etcd/peer", "etcd/ca"),
    ("etcd/healthcheck-client", "etcd/ca"),
];

const KUBECONFIGS: [&str; 5] = ["admin", "super-admin", "kubelet", "controller-manager", "scheduler"];

fn pki(root: &OwnRoot, name: &str) -> PathBuf {
    root.at("etc/kubernetes/pki").join(name)
}

fn openssl(words: &[&str]) -> String {
    tool::call("openssl", words).unwrap()
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn k01_k02_all_certificates_verify_and_the_api_server_has_all_its_names() {
    let root = own_root!(true);
    let words =
        ["--control-plane-endpoint", "api.example:8443", "--apiserver-cert-extra-sans", "extra.example,192.0.2.77"];
    well(init(&root, &[&["phase", "certs", "all"][..], &words].concat()));
    let files = root.files("etc/kubernetes/pki");
    let modes: Vec<u32> =
        files.iter().filter(|(_, (_, bytes))| !bytes.is_empty()).map(|(_, (mode, _))| *mode).collect();
    assert_eq!((modes.len(), modes.iter().filter(|mode| **mode == 0o644).count()), (22, 10), "{:?}", files.keys());
    assert!(modes.iter().all(|mode| [0o600, 0o644].contains(mode)));
    for (leaf, authority) in LEAVES {
        let file = |name: &str| shown(&pki(&root, &format!("{name}.crt")));
        openssl(&["verify", "-x509_strict", "-CAfile", &file(authority), &file(leaf)]);
    }
    let names = openssl(&["x509", "-noout", "-ext", "subjectAltName", "-in", &shown(&pki(&root, "apiserver.crt"))]);
    let mut names: Vec<&str> = names.lines().nth(1).unwrap().trim().split(", ").collect();
    names.sort_unstable();
    let expected = [
        "DNS:api.example",
        "DNS:api.weft.internal",
        "DNS:extra.example",
        "DNS:kubernetes",
        "DNS:kubernetes.default",
        "DNS:kubernetes.default.svc",
        "DNS:kubernetes.default.svc.cluster.local",
        "DNS:n1",
        "IP Address:10.96.0.1",
        "IP Address:192.0.2.10",
        "IP Address:192.0.2.77",
    ];
    assert_eq!(names, expected);
}

#[test]
fn k04_a_wanted_name_that_is_not_there_ends_the_run_and_changes_nothing() {
    let root = own_root!(true);
    well(phase(&root, "certs"));
    let before = root.files("etc/kubernetes");
    let said = failed(init(&root, &["phase", "certs", "all", "--apiserver-cert-extra-sans", "new.example"]), 1);
    assert!(said.contains("apiserver") && said.contains("new.example"), "{said}");
    assert!(said.contains("error execution phase certs/apiserver"), "{said}");
    assert!(root.files("etc/kubernetes") == before);
}

#[test]
fn k05_without_the_authoritys_key_nothing_is_signed_and_what_is_missing_is_named() {
    let root = own_root!(true);
    well(write_files(&root));
    let manifest = root.at("etc/kubernetes/manifests/kube-controller-manager.yaml");
    assert!(fs::read_to_string(&manifest).unwrap().contains("--cluster-signing-key-file=/etc/kubernetes/pki/ca.key"));
    fs::remove_file(pki(&root, "ca.key")).unwrap();
    well(write_files(&root));
    let text = fs::read_to_string(&manifest).unwrap();
    for flag in ["--cluster-signing-cert-file=", "--cluster-signing-key-file="] {
        assert!(
            text.lines().any(|line| line.trim_start_matches(['-', ' ', '"']).trim_end_matches('"') == &flag[2..]),
            "{text}"
        );
    }
    for file in ["apiserver-kubelet-client.crt", "../scheduler.conf"] {
        let path = pki(&root, file);
        let (bytes, name) = (fs::read(&path).unwrap(), file.trim_start_matches("../"));
        fs::remove_file(&path).unwrap();
        let said = failed(write_files(&root), 1);
        assert!(said.contains(name), "{said}");
        fs::write(&path, bytes).unwrap();
    }
}

#[test]
fn k08_a_kubeconfig_of_another_cluster_ends_the_run_and_another_server_is_told() {
    let (root, other) = (own_root!(true), own_root!(true));
    well(write_files(&root));
    well(write_files(&other));
    let file = root.at("etc/kubernetes/scheduler.conf");
    let own = fs::read_to_string(&file).unwrap();
    fs::copy(other.at("etc/kubernetes/scheduler.conf"), &file).unwrap();
    let said = failed(phase(&root, "kubeconfig"), 1);
    assert!(said.contains("scheduler.conf"), "{said}");
    let moved = own.replace("192.0.2.10", "192.0.2.11");
    fs::write(&file, &moved).unwrap();
    let told = well(phase(&root, "kubeconfig"));
    assert!(told.stderr.contains("WARNING") && told.stderr.contains("192.0.2.11"), "{}", told.stderr);
    assert_eq!(fs::read_to_string(&file).unwrap(), moved, "it stays");
}

#[test]
fn k13_what_an_authority_elsewhere_has_signed_makes_a_control_plane() {
    let root = own_root!(true);
    let kubernetes = shown(&root.at("etc/kubernetes"));
    let rootfs = shown(&root.at("/"));
    let requests = ["certs", "generate-csr", "--rootfs", &rootfs];
    well(root.weft(&[&requests[..], &super::NODE].concat()));
    // The authorities are made elsewhere; their keys never come here.
    let elsewhere = own_root!(true);
    well(phase(&elsewhere, "certs"));
    for authority in ["ca", "front-proxy-ca", "etcd/ca"] {
        fs::copy(pki(&elsewhere, &format!("{authority}.crt")), pki(&root, &format!("{authority}.crt"))).unwrap();
    }
    let sign = |request: &str, authority: &str, usage: &str, to: &str| {
        let from = |name: &str| shown(&pki(&elsewhere, name));
        let usages = root.at("usages");
        fs::write(&usages, format!("extendedKeyUsage={usage}\nkeyUsage=critical,digitalSignature,keyEncipherment\n"))
            .unwrap();
        let (certificate, key) = (from(&format!("{authority}.crt")), from(&format!("{authority}.key")));
        let words = ["x509", "-req", "-days", "300", "-copy_extensions", "copyall", "-in", request, "-out", to];
        openssl(&[&words[..], &["-CA", &certificate, "-CAkey", &key, "-extfile", &shown(&usages)]].concat());
    };
    for (leaf, authority) in LEAVES {
        let usage = if leaf.ends_with("client") { "clientAuth" } else { "serverAuth,clientAuth" };
        let file = |end: &str| shown(&pki(&root, &format!("{leaf}.{end}")));
        sign(&file("csr"), authority, usage, &file("crt"));
    }
    for name in KUBECONFIGS {
        let (config, signed) = (format!("{kubernetes}/{name}.conf"), shown(&root.at("signed")));
        sign(&format!("{config}.csr"), "ca", "clientAuth", &signed);
        embed(&config, &fs::read(pki(&root, "ca.crt")).unwrap(), &fs::read(&signed).unwrap());
    }
    well(write_files(&root));
    for key in ["ca.key", "front-proxy-ca.key", "etcd/ca.key"] {
        assert!(!pki(&root, key).exists(), "{key}");
    }
    well(root.weft(&["certs", "check", "--rootfs", &rootfs]));
}

/// Puts authority and certificate into a kubeconfig that has only the key.
fn embed(path: &str, authority: &[u8], certificate: &[u8]) {
    use base64::Engine as _;
    let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let mut config: serde_json::Value = serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    config["clusters"][0]["cluster"]["certificate-authority-data"] = encode(authority).into();
    config["users"][0]["user"]["client-certificate-data"] = encode(certificate).into();
    fs::write(path, config.to_string()).unwrap();
}
