//! weft's certificates beside those of a real kubeadm: the same facts in both, and each works with the other's.
//!
//! kubeadm works in a directory of its own (`--rootfs` and `--cert-dir`). It is that of `WEFT_PEERS`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use weft::bootstrap::kubeconfig::Kubeconfig;
use weft_tests::node::peers;
use weft_tests::skip;
use x509_parser::pem::Pem;

/// The node that both are told of.
const NODE: &str = "apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {advertiseAddress: 192.0.2.10, bindPort: 6443}
nodeRegistration: {name: n1, criSocket: 'unix:///run/containerd/containerd.sock'}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v1.36.2
controlPlaneEndpoint: api.example:8443
apiServer: {certSANs: [zeta.example, alpha.example, 192.0.2.77, 192.0.2.10]}
etcd: {local: {serverCertSANs: [etcd.example], peerCertSANs: [peer.example]}}
";

/// A machine's files, in a directory of its own.
struct Machine {
    root: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc/kubernetes")).unwrap();
        fs::write(root.path().join("config.yaml"), NODE).unwrap();
        Self { root }
    }

    fn kubernetes(&self) -> PathBuf {
        self.root.path().join("etc/kubernetes")
    }

    /// Runs kubeadm with this machine as its root.
    fn kubeadm(&self, args: &[&str]) -> Output {
        let output =
            Command::new(peers::need("kubeadm").unwrap()).arg("--rootfs").arg(self.root.path()).args(args).output();
        successful(output.unwrap())
    }

    fn weft(&self, args: &[&str]) -> Output {
        let output = Command::new(env!("CARGO_BIN_EXE_weft")).args(args).arg("--rootfs").arg(self.root.path()).output();
        output.unwrap()
    }

    /// As kubeadm makes it.
    fn by_kubeadm() -> Self {
        let machine = Self::new();
        for phase in ["certs", "kubeconfig"] {
            machine.kubeadm(&["init", "phase", phase, "all", "--config", "/config.yaml"]);
        }
        machine
    }

    /// As weft makes it, with kubeadm's kind of keys.
    fn by_weft() -> Self {
        let machine = Self::new();
        common::make(machine.root.path());
        machine
    }

    /// Each file below /etc/kubernetes with its facts.
    fn facts(&self) -> BTreeMap<String, Facts> {
        let mut all = BTreeMap::new();
        let kubernetes = self.kubernetes();
        let directories = [kubernetes.clone(), kubernetes.join("pki"), kubernetes.join("pki/etcd")];
        for entry in directories.iter().flat_map(|directory| fs::read_dir(directory).unwrap()) {
            let path = entry.unwrap().path();
            if path.is_file() {
                all.insert(path.strip_prefix(&kubernetes).unwrap().display().to_string(), Facts::of(&path));
            }
        }
        all
    }
}

fn successful(output: Output) -> Output {
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What is the same of a file, whoever has made it and whenever.
#[derive(Debug, PartialEq)]
struct Facts {
    mode: u32,
    /// PEM labels.
    labels: Vec<String>,
    /// Of a certificate.
    certificate: Option<CertificateFacts>,
    /// Of a kubeconfig: keys and values, but those that are data.
    kubeconfig: Option<(Value, CertificateFacts)>,
}

#[derive(Debug, PartialEq)]
struct CertificateFacts {
    version: u32,
    subject: Vec<u8>,
    issuer: Vec<u8>,
    algorithm: String,
    public_key: String,
    /// In parts of ten minutes: kubeadm takes the two ends from different moments.
    holds: i64,
    /// Object identifier, criticality and value, but for names of keys, in their order.
    extensions: Vec<(String, bool, Vec<u8>)>,
    serial_is_positive: bool,
}

impl Facts {
    fn of(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        let mode = path.metadata().unwrap().permissions().mode() & 0o7777;
        let blocks: Vec<Pem> = Pem::iter_from_buffer(&bytes).filter_map(Result::ok).collect();
        let is = |extension: &str| path.extension().is_some_and(|found| found == extension);
        Self {
            mode,
            labels: blocks.iter().map(|block| block.label.clone()).collect(),
            certificate: is("crt").then(|| CertificateFacts::of(&blocks[0].contents)),
            kubeconfig: is("conf").then(|| kubeconfig(path, &bytes)),
        }
    }
}

fn kubeconfig(path: &Path, bytes: &[u8]) -> (Value, CertificateFacts) {
    let config = Kubeconfig::parse(bytes).unwrap();
    let certificate = config.certificate(path.parent().unwrap()).unwrap().unwrap();
    let mut value: Value = serde_saphyr::from_str(&text(bytes)).unwrap();
    for pointer in [
        "/clusters/0/cluster/certificate-authority-data",
        "/users/0/user/client-certificate-data",
        "/users/0/user/client-key-data",
    ] {
        let data = value.pointer_mut(pointer).unwrap();
        assert!(data.as_str().unwrap().starts_with("LS0tLS1CRUdJTi"), "{pointer} is PEM in base64");
        *data = Value::Null;
    }
    (value, CertificateFacts::of(certificate.der()))
}

impl CertificateFacts {
    fn of(der: &[u8]) -> Self {
        let (_, parsed) = x509_parser::parse_x509_certificate(der).unwrap();
        let validity = parsed.validity();
        let extension = |extension: &x509_parser::extensions::X509Extension<'_>| {
            let id = extension.oid.to_id_string();
            // Subject's and authority's key identifiers: their lengths.
            let is_key_id = ["2.5.29.14", "2.5.29.35"].contains(&id.as_str());
            let value =
                if is_key_id { vec![u8::try_from(extension.value.len()).unwrap()] } else { extension.value.to_vec() };
            (id, extension.critical, value)
        };
        Self {
            version: parsed.version().0,
            subject: parsed.subject().as_raw().to_vec(),
            issuer: parsed.issuer().as_raw().to_vec(),
            algorithm: format!("{:?}", parsed.signature_algorithm),
            public_key: format!("{:?}", parsed.public_key().algorithm),
            holds: (validity.not_after.timestamp() - validity.not_before.timestamp()) / 600,
            extensions: parsed.extensions().iter().map(extension).collect(),
            serial_is_positive: parsed.raw_serial().len() <= 8 && parsed.raw_serial()[0] < 0x80,
        }
    }
}

#[test]
fn k01_k02_files_modes_subjects_names_usages_and_validity_are_kubeadms() {
    if let Err(reason) = peers::check(&["kubeadm"]) {
        skip!("{reason}");
    }
    let (theirs, ours) = (Machine::by_kubeadm().facts(), Machine::by_weft().facts());
    assert_eq!(ours.keys().collect::<BTreeSet<_>>(), theirs.keys().collect::<BTreeSet<_>>());
    assert_eq!(theirs.len(), 27, "22 of the certificates, 5 kubeconfigs");
    for (name, facts) in &ours {
        assert_eq!(facts, &theirs[name], "{name}");
    }
}

#[test]
fn k06_kubeadm_reads_every_kind_of_keys_and_tells_what_weft_tells() {
    if let Err(reason) = peers::check(&["kubeadm"]) {
        skip!("{reason}");
    }
    for kind in common::KINDS {
        let machine = Machine::new();
        common::make_with(machine.root.path(), kind);
        let check = ["certs", "check-expiration", "-o", "json"];
        let theirs = machine.kubeadm(&[&check[..], &["--config", "/config.yaml"]].concat());
        let ours = successful(machine.weft(&check));
        let (theirs, ours): (Value, Value) =
            (serde_json::from_slice(&theirs.stdout).unwrap(), serde_json::from_slice(&ours.stdout).unwrap());
        assert_eq!(without_seconds(ours), without_seconds(theirs), "{kind:?}");
        // kubeadm finds all that it would make.
        for phase in ["certs", "kubeconfig"] {
            let kept = machine.kubeadm(&["init", "phase", phase, "all", "--config", "/config.yaml"]);
            assert!(!text(&kept.stdout).contains("Generating") && !text(&kept.stdout).contains("Writing"), "{kind:?}");
        }
    }
}

/// An answer without what changes from second to second.
fn without_seconds(mut answer: Value) -> Value {
    for list in ["certificates", "certificateAuthorities"] {
        for row in answer[list].as_array_mut().unwrap() {
            assert!(row["residualTime"].is_i64(), "{row}");
            row["residualTime"] = Value::Null;
        }
    }
    answer
}

#[test]
fn k10_the_tables_are_kubeadms() {
    if let Err(reason) = peers::check(&["kubeadm"]) {
        skip!("{reason}");
    }
    let machine = Machine::by_kubeadm();
    fs::remove_file(machine.kubernetes().join("scheduler.conf")).unwrap();
    fs::remove_file(machine.kubernetes().join("pki/front-proxy-ca.key")).unwrap();
    let theirs = machine.kubeadm(&["certs", "check-expiration", "--config", "/config.yaml"]);
    let ours = successful(machine.weft(&["certs", "check"]));
    let lines =
        |output: &Output| text(&output.stdout).lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
    assert_eq!(lines(&ours), lines(&theirs));
    assert_eq!(machine.weft(&["certs", "check", "--fail-if-within", "30d"]).status.code(), Some(0));
    assert_eq!(machine.weft(&["certs", "check", "--fail-if-within", "400d"]).status.code(), Some(3));
}

#[test]
fn k14_each_renews_what_the_other_has_made() {
    if let Err(reason) = peers::check(&["kubeadm"]) {
        skip!("{reason}");
    }
    let machine = Machine::by_kubeadm();
    let (before, serials) = (machine.facts(), common::serials(machine.root.path()));
    let renewed = successful(machine.weft(&["certs", "renew", "all"]));
    assert_eq!(text(&renewed.stdout).lines().filter(|line| line.contains(": renewed")).count(), 11);
    assert_eq!(machine.facts(), before, "the same facts");
    let after = common::serials(machine.root.path());
    let differ = after.iter().filter(|(name, serial)| serials[*name] != **serial).count();
    assert_eq!(differ, 11, "other certificates, the same authorities and kubelet.conf");
    machine.kubeadm(&["init", "phase", "certs", "all", "--config", "/config.yaml"]);

    let machine = Machine::by_weft();
    let before = machine.facts();
    machine.kubeadm(&["certs", "renew", "all", "--config", "/config.yaml"]);
    assert_eq!(machine.facts(), before);
    common::check_kept(machine.root.path());
}

#[test]
fn a_cluster_of_kubeadms_is_taken_as_it_is() {
    if let Err(reason) = peers::check(&["kubeadm"]) {
        skip!("{reason}");
    }
    let machine = Machine::by_kubeadm();
    common::check_kept(machine.root.path());
    let bob = ["kubeconfig", "user", "--client-name", "bob", "--org", "b", "--org", "a"];
    let theirs = machine.kubeadm(&[&bob[..], &["--config", "/config.yaml"]].concat());
    let ours = successful(machine.weft(&[&bob[..], &["--encryption-algorithm", "RSA-2048"]].concat()));
    assert_eq!(kubeconfig(Path::new("/x"), &ours.stdout), kubeconfig(Path::new("/x"), &theirs.stdout));
}

#[test]
fn k13_the_requests_are_kubeadms() {
    if let Err(reason) = peers::check(&["kubeadm"]) {
        skip!("{reason}");
    }
    let (theirs, ours) = (Machine::new(), Machine::new());
    // Ours asks for the stable name as well, as weft init does.
    let told = NODE.replace("zeta.example, ", "zeta.example, api.weft.internal, ");
    fs::write(theirs.root.path().join("config.yaml"), told).unwrap();
    theirs.kubeadm(&["certs", "generate-csr", "--config", "/config.yaml"]);
    let args = [
        "certs",
        "generate-csr",
        "--node-name=n1",
        "--apiserver-advertise-address=192.0.2.10",
        "--control-plane-endpoint=api.example:8443",
        "--apiserver-cert-extra-sans=zeta.example,alpha.example,192.0.2.77,192.0.2.10",
    ];
    successful(ours.weft(&args));
    let files = |machine: &Machine| -> Vec<(String, u32)> {
        let mut files = Vec::new();
        for directory in ["", "pki", "pki/etcd"] {
            for entry in fs::read_dir(machine.kubernetes().join(directory)).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    let mode = path.metadata().unwrap().permissions().mode() & 0o7777;
                    files.push((path.strip_prefix(machine.kubernetes()).unwrap().display().to_string(), mode));
                }
            }
        }
        files.sort();
        files
    };
    assert_eq!(files(&ours), files(&theirs));
    let request = |machine: &Machine, file: &str| {
        let bytes = fs::read(machine.kubernetes().join(file)).unwrap();
        let pem = Pem::iter_from_buffer(&bytes).next().unwrap().unwrap();
        let (_, request) =
            <x509_parser::prelude::X509CertificationRequest<'_> as x509_parser::prelude::FromDer<_>>::from_der(
                &pem.contents,
            )
            .unwrap();
        request.verify_signature().unwrap();
        let info = &request.certification_request_info;
        let names = info.iter_attributes().map(|attribute| attribute.value.to_vec()).collect::<Vec<_>>();
        (info.subject.as_raw().to_vec(), names)
    };
    for file in ["pki/apiserver.csr", "pki/front-proxy-client.csr", "admin.conf.csr", "kubelet.conf.csr"] {
        assert_eq!(request(&ours, file), request(&theirs, file), "{file}");
    }
}

/// What the library makes.
mod common {
    use super::*;
    use std::time::Duration;

    use jiff::Timestamp;
    use weft::bootstrap::config::model::{ApiServer, Component, EncryptionAlgorithm, LocalEtcd, NodeRegistration};
    use weft::bootstrap::kubeconfig;
    use weft::bootstrap::pki::{Certificate, Options, Outcome, Step, ensure_all};
    use weft::bootstrap::resolved::{Cluster, EtcdPlace, Node, Paths};

    /// RSA with more bits takes minutes without optimisation.
    pub(super) const KINDS: [EncryptionAlgorithm; 3] =
        [EncryptionAlgorithm::EcdsaP256, EncryptionAlgorithm::EcdsaP384, EncryptionAlgorithm::Rsa2048];

    fn run(root: &Path, encryption: EncryptionAlgorithm) -> Vec<Step> {
        let own = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let hours = |hours: u64| Duration::from_secs(3600 * hours);
        let cluster = Cluster {
            kubernetes_version: "v1.36.2".to_owned(),
            name: "kubernetes".to_owned(),
            service_subnets: vec!["10.96.0.0/12".parse().unwrap()],
            pod_subnets: Vec::new(),
            dns_domain: "cluster.local".to_owned(),
            control_plane_endpoint: Some(("api.example".to_owned(), 8443)),
            image_repository: "registry.k8s.io".to_owned(),
            certificates_dir: "/etc/kubernetes/pki".into(),
            encryption,
            certificate_validity: hours(8760),
            ca_validity: hours(87_600),
            api_server: ApiServer {
                cert_sans: own(&["zeta.example", "alpha.example", "192.0.2.77", "192.0.2.10"]),
                ..ApiServer::default()
            },
            controller_manager: Component::default(),
            scheduler: Component::default(),
            etcd: EtcdPlace::Local {
                config: LocalEtcd {
                    server_cert_sans: own(&["etcd.example"]),
                    peer_cert_sans: own(&["peer.example"]),
                    ..LocalEtcd::default()
                },
                image: String::new(),
                data_dir: "/var/lib/etcd".into(),
            },
            dns: None,
        };
        let node = Node {
            name: "n1".to_owned(),
            hostname: "n1".to_owned(),
            address: "192.0.2.10".parse().unwrap(),
            second_address: None,
            bind_port: 6443,
            taints: Vec::new(),
            registration: NodeRegistration::default(),
            cri_socket: String::new(),
        };
        let (paths, now) = (Paths::under(root), Timestamp::now());
        let mut steps = ensure_all(&cluster, &node, &paths, &Options::default(), now).unwrap();
        steps.extend(kubeconfig::ensure(&kubeconfig::INIT, &cluster, &node, &paths, now).unwrap());
        steps
    }

    pub(super) fn make(root: &Path) {
        make_with(root, EncryptionAlgorithm::Rsa2048);
    }

    pub(super) fn make_with(root: &Path, kind: EncryptionAlgorithm) {
        assert!(run(root, kind).iter().all(|step| step.outcome == Outcome::Made));
    }

    /// weft finds everything as it would make it.
    pub(super) fn check_kept(root: &Path) {
        let steps = run(root, EncryptionAlgorithm::EcdsaP256);
        assert!(steps.iter().all(|step| step.outcome == Outcome::Kept), "{steps:?}");
    }

    /// The serial number of each certificate.
    pub(super) fn serials(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let kubernetes = root.join("etc/kubernetes");
        let mut all = BTreeMap::new();
        for directory in [kubernetes.clone(), kubernetes.join("pki"), kubernetes.join("pki/etcd")] {
            for entry in fs::read_dir(&directory).unwrap() {
                let path = entry.unwrap().path();
                let bytes = if path.is_file() { fs::read(&path).unwrap() } else { continue };
                let found = match path.extension().and_then(|extension| extension.to_str()) {
                    Some("crt") => Certificate::all_from_pem(&bytes).unwrap().remove(0),
                    Some("conf") => Kubeconfig::parse(&bytes).unwrap().certificate(&directory).unwrap().unwrap(),
                    _ => continue,
                };
                all.insert(path, found.serial().to_vec());
            }
        }
        all
    }
}
