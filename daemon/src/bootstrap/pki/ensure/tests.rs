use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::*;
use crate::bootstrap::pki::samples::{cluster, node};

const FILES: [&str; 22] = [
    "apiserver-etcd-client.crt",
    "apiserver-etcd-client.key",
    "apiserver-kubelet-client.crt",
    "apiserver-kubelet-client.key",
    "apiserver.crt",
    "apiserver.key",
    "ca.crt",
    "ca.key",
    "etcd/ca.crt",
    "etcd/ca.key",
    "etcd/healthcheck-client.crt",
    "etcd/healthcheck-client.key",
    "etcd/peer.crt",
    "etcd/peer.key",
    "etcd/server.crt",
    "etcd/server.key",
    "front-proxy-ca.crt",
    "front-proxy-ca.key",
    "front-proxy-client.crt",
    "front-proxy-client.key",
    "sa.key",
    "sa.pub",
];

fn now() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

/// A directory of its own, with everything made.
struct Made {
    _root: tempfile::TempDir,
    paths: Paths,
}

impl Made {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        let made = Self { _root: root, paths };
        assert!(made.run().unwrap().iter().all(|step| step.outcome == Outcome::Made));
        made
    }

    fn run(&self) -> Result<Vec<Step>, PkiError> {
        self.run_with(&cluster(), &Options::default())
    }

    fn run_with(&self, cluster: &Cluster, options: &Options) -> Result<Vec<Step>, PkiError> {
        ensure_all(cluster, &node(), &self.paths, options, now())
    }

    /// Runs, and says what was not kept as it was.
    fn changes(&self) -> Vec<(String, Outcome)> {
        let steps = self.run().unwrap().into_iter().filter(|step| step.outcome != Outcome::Kept);
        steps.map(|step| (step.item, step.outcome)).collect()
    }

    fn remove(&self, file: &str) {
        std::fs::remove_file(self.paths.pki.join(file)).unwrap();
    }

    fn certificate(&self, base: &str) -> Certificate {
        Store(&self.paths.pki).find(base).unwrap().certificates.remove(0)
    }

    /// Every file with its mode and bytes.
    fn files(&self) -> BTreeMap<String, (u32, Vec<u8>)> {
        let mut files = BTreeMap::new();
        collect(&self.paths.pki, &self.paths.pki, &mut files);
        files
    }
}

fn collect(root: &Path, directory: &PathBuf, into: &mut BTreeMap<String, (u32, Vec<u8>)>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, into);
        } else {
            let mode = path.metadata().unwrap().permissions().mode() & 0o7777;
            let name = path.strip_prefix(root).unwrap().display().to_string();
            into.insert(name, (mode, std::fs::read(&path).unwrap()));
        }
    }
}

#[test]
fn k01_an_empty_node_gets_all_files_with_their_modes_and_each_leaf_has_its_authority() {
    let made = Made::new();
    let files = made.files();
    assert_eq!(files.keys().map(String::as_str).collect::<Vec<_>>(), FILES);
    for (name, (mode, _)) in &files {
        let wanted = if Path::new(name).extension().unwrap() == "crt" { 0o644 } else { 0o600 };
        assert_eq!(*mode, wanted, "{name}");
    }
    for directory in [made.paths.pki.clone(), made.paths.pki.join("etcd")] {
        assert_eq!(directory.metadata().unwrap().permissions().mode() & 0o7777, 0o700);
    }
    for entry in &table::TABLE {
        let certificate = made.certificate(entry.file);
        let authority = entry.authority.map_or(entry, |name| table::find(name).unwrap());
        assert!(certificate.chains_to(&[made.certificate(authority.file)], &[]), "{}", entry.name);
        assert_eq!(certificate.is_authority(), entry.authority.is_none(), "{}", entry.name);
        let period = certificate.not_after().duration_since(now()).as_hours();
        assert_eq!(period, if entry.authority.is_none() { 87_600 } else { 8760 }, "{}", entry.name);
    }
}

#[test]
fn a_second_run_keeps_everything() {
    let made = Made::new();
    let before = made.files();
    assert_eq!(made.changes(), []);
    assert_eq!(made.files(), before);
}

#[test]
fn i07_a_run_that_was_killed_between_any_two_files_is_finished_by_the_next() {
    let order: Vec<_> = table::TABLE.iter().flat_map(|entry| [("key", entry), ("crt", entry)]).collect();
    for killed_after in 0..order.len() {
        let made = Made::new();
        let kept: Vec<String> =
            order[..killed_after].iter().map(|(kind, entry)| format!("{}.{kind}", entry.file)).collect();
        for file in FILES.iter().filter(|file| !kept.contains(&(**file).to_owned())) {
            made.remove(file);
        }
        let before = made.files();
        made.run().unwrap();
        let after = made.files();
        assert_eq!(after.len(), FILES.len(), "killed after {killed_after} files");
        assert!(before.iter().all(|(name, file)| after[name] == *file), "killed after {killed_after} files");
        assert_eq!(made.changes(), [], "killed after {killed_after} files");
    }
    let made = Made::new();
    made.remove("sa.pub");
    assert_eq!(made.changes(), [("sa".to_owned(), Outcome::Made)]);
}

#[test]
fn i07_a_renewal_that_was_killed_between_key_and_certificate_is_mended() {
    let made = Made::new();
    let key = Key::generate(cluster().encryption).unwrap();
    Store(&made.paths.pki).write_key("etcd/peer", &key).unwrap();
    assert_eq!(made.changes(), [("etcd-peer".to_owned(), Outcome::Changed)]);
    assert_eq!(made.certificate("etcd/peer").public_info(), key.public_info());
    assert_eq!(made.changes(), []);
}

#[test]
fn k04_a_wanted_name_that_is_not_there_is_an_error_or_renewed_if_asked() {
    let made = Made::new();
    let mut cluster = cluster();
    cluster.api_server.cert_sans.push("new.example".to_owned());
    let error = made.run_with(&cluster, &Options::default()).unwrap_err().to_string();
    for part in ["apiserver", "new.example", "--renew-mismatched"] {
        assert!(error.contains(part), "{error}");
    }
    let options = Options { renew_mismatched: true, extra_sans: vec!["stable.example".to_owned()] };
    let steps = made.run_with(&cluster, &options).unwrap();
    let changed: Vec<_> = steps.iter().filter(|step| step.outcome == Outcome::Changed).collect();
    assert_eq!(changed.len(), 1, "{changed:?}");
    assert!(changed[0].note.as_ref().unwrap().contains("new.example, stable.example"), "{changed:?}");
    assert!(made.run_with(&cluster, &options).unwrap().iter().all(|step| step.outcome == Outcome::Kept));
}

#[test]
fn a_name_of_wefts_own_is_put_into_a_new_certificate_and_not_missed_in_an_old_one() {
    let made = Made::new();
    let options = Options { extra_sans: vec!["stable.example".to_owned()], ..Options::default() };
    assert!(made.run_with(&cluster(), &options).unwrap().iter().all(|step| step.outcome == Outcome::Kept));
    made.remove("apiserver.crt");
    made.run_with(&cluster(), &options).unwrap();
    assert!(made.certificate("apiserver").alt_names().dns.contains("stable.example"));
}

#[test]
fn k05_an_external_authority_is_used_and_what_it_has_not_supplied_is_named() {
    let made = Made::new();
    made.remove("ca.key");
    let outcomes: Vec<_> = made.changes();
    let external = ["ca", "apiserver", "apiserver-kubelet-client"];
    assert_eq!(outcomes, external.map(|name| (name.to_owned(), Outcome::External)));
    made.remove("apiserver.crt");
    let error = made.run().unwrap_err().to_string();
    assert!(error.contains("apiserver.crt") && error.contains("ca.key") && error.contains("generate-csr"), "{error}");
}

#[test]
fn what_does_not_belong_together_is_named() {
    let cases: [(&str, &str, &str); 4] = [
        ("etcd/ca.crt", "front-proxy-ca.crt", "etcd/ca.key is not the key of"),
        ("front-proxy-client.crt", "apiserver.crt", ""),
        ("ca.crt", "apiserver.crt", "is not the certificate of an authority"),
        ("ca.key", "ca.crt", "no private key"),
    ];
    for (target, source, wanted) in cases {
        let made = Made::new();
        std::fs::copy(made.paths.pki.join(source), made.paths.pki.join(target)).unwrap();
        match made.run() {
            Ok(steps) => {
                let changed = steps.iter().any(|step| step.outcome == Outcome::Changed);
                assert!(wanted.is_empty() && changed, "{target}");
            }
            Err(error) => assert!(!wanted.is_empty() && error.to_string().contains(wanted), "{target}: {error}"),
        }
    }
}

#[test]
fn a_leaf_of_another_authority_is_refused() {
    let (made, other) = (Made::new(), Made::new());
    for file in ["apiserver.crt", "apiserver.key"] {
        std::fs::copy(other.paths.pki.join(file), made.paths.pki.join(file)).unwrap();
    }
    let error = made.run().unwrap_err().to_string();
    assert!(error.contains("apiserver is not signed by its authority ca"), "{error}");
}

#[test]
fn a_leaf_that_has_run_out_or_is_of_the_future_is_told_with_its_date() {
    let made = Made::new();
    let at = |time: &str| {
        ensure_all(&cluster(), &node(), &made.paths, &Options::default(), time.parse().unwrap())
            .unwrap_err()
            .to_string()
    };
    let late = at("2027-06-01T00:00:00Z");
    assert!(late.contains("2027-01-02") && late.contains("weft certs renew apiserver"), "{late}");
    let early = at("2025-06-01T00:00:00Z");
    assert!(early.contains("2026-01-02") && early.contains("clock"), "{early}");
}

#[test]
fn a_certificate_without_its_key_is_not_thrown_away() {
    let made = Made::new();
    made.remove("apiserver.key");
    let error = made.run().unwrap_err().to_string();
    assert!(error.contains("apiserver.key is missing") && error.contains("apiserver.crt"), "{error}");
}

#[test]
fn a_further_node_makes_its_leaves_out_of_what_is_shared() {
    let first = Made::new();
    let root = tempfile::tempdir().unwrap();
    let paths = Paths::under(root.path());
    let second = Node { name: "n2".to_owned(), address: "192.0.2.20".parse().unwrap(), ..node() };
    let join = || ensure_join(&cluster(), &second, &paths, &Options::default(), now());
    let error = join().unwrap_err().to_string();
    assert!(error.contains("ca.crt") && error.contains("--certificate-key"), "{error}");
    let shared: Vec<PathBuf> = missing_shared(&cluster(), &paths);
    assert_eq!(shared.len(), 8, "{shared:?}");
    for path in shared {
        let file = path.strip_prefix(&paths.pki).unwrap();
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::copy(first.paths.pki.join(file), &path).unwrap();
    }
    let made = join().unwrap().iter().filter(|step| step.outcome == Outcome::Made).count();
    assert_eq!(made, 7);
    let server = Store(&paths.pki).find("etcd/server").unwrap().certificates.remove(0);
    assert_eq!(server.subject_text(), "CN=n2");
    assert!(server.chains_to(&[first.certificate("etcd/ca")], &[]));
    assert!(join().unwrap().iter().all(|step| step.outcome == Outcome::Kept));
}

#[test]
fn one_certificate_needs_its_authority() {
    let root = tempfile::tempdir().unwrap();
    let paths = Paths::under(root.path());
    let one = |name: &str| ensure_one(name, &cluster(), &node(), &paths, &Options::default(), now());
    let error = one("etcd-peer").unwrap_err().to_string();
    assert!(error.contains("etcd/ca.crt is missing"), "{error}");
    for name in ["etcd-ca", "etcd-peer", "sa"] {
        assert_eq!(one(name).unwrap().outcome, Outcome::Made, "{name}");
        assert_eq!(one(name).unwrap().outcome, Outcome::Kept, "{name}");
    }
    assert!(matches!(one("bla"), Err(PkiError::Unknown { .. })));
}

#[test]
fn an_authority_that_has_run_out_is_told() {
    let made = Made::new();
    let error = made.run();
    assert!(error.is_ok());
    let mut short = cluster();
    short.ca_validity = std::time::Duration::from_secs(3600);
    let root = tempfile::tempdir().unwrap();
    let paths = Paths::under(root.path());
    let one = |now| ensure_one("ca", &short, &node(), &paths, &Options::default(), now).unwrap();
    one(now());
    let step = one("2026-01-03T00:00:00Z".parse().unwrap());
    assert!(step.note.unwrap().contains("ran out at 2026-01-02T04:04:05Z"));
}
