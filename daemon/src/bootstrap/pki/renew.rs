//! New certificates out of old ones (kubeadm `certs renew`): the same subject, names and purposes, a new key, a new validity.
//!
//! Nothing but the files is asked, so that it works when everything has run out and no API answers.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::certificate::Certificate;
use super::error::PkiError;
use super::issue::{self, BACKDATE, Validity};
use super::key::{Key, kind_of};
use super::profile::Profile;
use super::restart::has_local_etcd;
use super::store::{Found, Store, write_private};
use super::table::{self, Entry};
use crate::bootstrap::config::model::EncryptionAlgorithm;
use crate::bootstrap::kubeconfig::{Credentials, FILES, Kubeconfig};
use crate::bootstrap::resolved::Paths;

/// kubeadm's validity of leaves: a year, 8760 h.
const YEAR: Duration = Duration::from_secs(8760 * 3600);
/// kubelet renews its own.
const KUBELETS: &str = "kubelet.conf";

/// What a new certificate is like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RenewOptions {
    /// Kind of its key; as the old one's without.
    pub kind: Option<EncryptionAlgorithm>,
    /// How long it holds; as long as the old one without.
    pub validity: Option<Duration>,
    /// Whether one is left alone that has at least a third of its time left.
    pub only_due: bool,
}

/// What became of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewal {
    /// It is new.
    Renewed {
        /// Until when it holds.
        until: Timestamp,
        /// Its serial number.
        serial: Vec<u8>,
    },
    /// It has enough time left.
    NotDue {
        /// Until when it holds.
        until: Timestamp,
    },
    /// Its authority's key is not here.
    External,
    /// There is none.
    Missing,
}

/// The names of all that can be renewed, sorted: leaves, and kubeconfigs but kubelet's.
#[must_use]
pub fn names() -> Vec<&'static str> {
    let leaves = table::TABLE.iter().filter(|entry| entry.authority.is_some()).map(|entry| entry.name);
    let kubeconfigs = FILES.iter().map(|file| file.name).filter(|name| *name != KUBELETS);
    let mut all: Vec<_> = leaves.chain(kubeconfigs).collect();
    all.sort_unstable();
    all
}

/// The names of those that this node can have: without those of an etcd that runs elsewhere.
#[must_use]
pub fn names_here(paths: &Paths) -> Vec<&'static str> {
    let local = has_local_etcd(paths);
    names().into_iter().filter(|name| local || !table::find(name).is_ok_and(Entry::is_of_etcd)).collect()
}

/// Renews one.
///
/// # Errors
/// There is none of that name, its authority does not fit or has run out, or a file is damaged. The old one is then still there.
pub fn renew(name: &str, paths: &Paths, options: RenewOptions, now: Timestamp) -> Result<Renewal, PkiError> {
    let known = names();
    if !known.contains(&name) {
        return Err(PkiError::Unknown { name: name.to_owned(), known: known.into_iter().map(str::to_owned).collect() });
    }
    match table::find(name) {
        Ok(entry) => renew_leaf(entry, paths, options, now),
        Err(_) => renew_kubeconfig(name, paths, options, now),
    }
}

/// Whether less than a third of a certificate's time is left.
#[must_use]
pub fn is_due(certificate: &Certificate, now: Timestamp) -> bool {
    let whole = certificate.not_after().duration_since(certificate.not_before());
    certificate.not_after().duration_since(now) < whole / 3
}

fn renew_leaf(entry: &Entry, paths: &Paths, options: RenewOptions, now: Timestamp) -> Result<Renewal, PkiError> {
    let store = Store(&paths.pki);
    let Found { certificates, .. } = store.find(entry.file)?;
    let Some(old) = certificates.first() else { return Ok(Renewal::Missing) };
    if options.only_due && !is_due(old, now) {
        return Ok(Renewal::NotDue { until: old.not_after() });
    }
    let Some((signer, signer_key)) = signer(entry.authority.unwrap_or_default(), paths, now)? else {
        return Ok(Renewal::External);
    };
    let key = Key::generate(kind(options, old))?;
    let validity = Validity::from_now(now, options.validity.unwrap_or_else(|| period(old)))?;
    let new = issue::leaf(&Profile::of(old), &key.public_info(), validity, &signer, &signer_key)?;
    store.write_key(entry.file, &key)?;
    store.write_certificate(entry.file, &new)?;
    Ok(renewed(&new))
}

fn renew_kubeconfig(name: &str, paths: &Paths, options: RenewOptions, now: Timestamp) -> Result<Renewal, PkiError> {
    let path = paths.kubernetes.join(name);
    let content = |reason: String| PkiError::Content { path: path.clone(), expected: "kubeconfig", reason };
    let Some(mut config) = Kubeconfig::load(&path)? else { return Ok(Renewal::Missing) };
    let old = config.certificate(&paths.kubernetes).map_err(content)?;
    let old = old.ok_or_else(|| content("its user has no certificate".to_owned()))?;
    if options.only_due && !is_due(&old, now) {
        return Ok(Renewal::NotDue { until: old.not_after() });
    }
    let Some((signer, signer_key)) = signer("ca", paths, now)? else { return Ok(Renewal::External) };
    let key = Key::generate(kind(options, &old))?;
    let validity = match options.validity {
        Some(validity) => validity,
        None => kubeconfig_period(paths)?,
    };
    let validity = Validity::from_now(now, validity)?;
    let new = issue::leaf(&Profile::of(&old), &key.public_info(), validity, &signer, &signer_key)?;
    config.set_credentials(&Credentials::Certificate { certificate: new.to_pem(), key: key.to_pem()? });
    let authorities = Store(&paths.pki).find("ca")?.certificates;
    config.set_authority(&authorities.iter().map(Certificate::to_pem).collect::<String>());
    write_private(&path, config.render().expose())?;
    Ok(renewed(&new))
}

fn renewed(new: &Certificate) -> Renewal {
    Renewal::Renewed { until: new.not_after(), serial: new.serial().to_vec() }
}

/// The authority of that name and its key; `None` if the key is not here.
fn signer(name: &str, paths: &Paths, now: Timestamp) -> Result<Option<(Certificate, Key)>, PkiError> {
    let store = Store(&paths.pki);
    let file = table::find(name)?.file;
    let Found { certificates, key } = store.find(file)?;
    let path = store.certificate(file);
    let Some(first) = certificates.into_iter().next() else {
        return Err(PkiError::Missing { path, why: "it signs what is to be renewed".to_owned() });
    };
    let Some(key) = key else { return Ok(None) };
    let key = key.map_err(|source| PkiError::KeyFile { path: store.key(file), source })?;
    if key.public_info() != first.public_info() {
        return Err(PkiError::Pair { key: store.key(file), certificate: path });
    }
    if first.not_after() < now {
        return Err(PkiError::AuthorityExpired { name: name.to_owned(), at: first.not_after() });
    }
    Ok(Some((first, key)))
}

fn kind(options: RenewOptions, old: &Certificate) -> EncryptionAlgorithm {
    options.kind.or_else(|| kind_of(old.public_info())).unwrap_or(EncryptionAlgorithm::EcdsaP256)
}

/// How long the old one was made for.
fn period(old: &Certificate) -> Duration {
    let whole = old.not_after().duration_since(old.not_before()) - BACKDATE;
    if whole > SignedDuration::ZERO { whole.unsigned_abs() } else { YEAR }
}

/// How long kubeconfigs' certificates are made for: as long as those beside them. Their own tell nothing, as kubeadm dates
/// them back to the day of the authority.
fn kubeconfig_period(paths: &Paths) -> Result<Duration, PkiError> {
    let beside = Store(&paths.pki).find("apiserver")?.certificates;
    Ok(beside.first().map_or(YEAR, period))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::kubeconfig;
    use crate::bootstrap::pki::samples::{cluster, node};
    use crate::bootstrap::pki::{Options, ensure_all, expiry};

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    /// A node with everything, made at the beginning of 2026.
    fn made() -> (tempfile::TempDir, Paths) {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        let now = at("2026-01-01T00:00:00Z");
        ensure_all(&cluster(), &node(), &paths, &Options::default(), now).unwrap();
        kubeconfig::ensure(&kubeconfig::INIT, &cluster(), &node(), &paths, now).unwrap();
        (root, paths)
    }

    fn leaf(name: &str, paths: &Paths) -> Certificate {
        let found = match table::find(name) {
            Ok(entry) => Store(&paths.pki).find(entry.file).unwrap().certificates.into_iter().next(),
            Err(_) => {
                let config = Kubeconfig::load(&paths.kubernetes.join(name)).unwrap().unwrap();
                config.certificate(&paths.kubernetes).unwrap()
            }
        };
        found.unwrap()
    }

    #[test]
    fn k14_all_that_has_run_out_is_renewed_with_nothing_but_files() {
        let (_root, paths) = made();
        let now = at("2028-01-01T00:00:00Z");
        assert_eq!(names().len(), 11);
        for name in names() {
            let old = leaf(name, &paths);
            let Renewal::Renewed { until, serial } = renew(name, &paths, RenewOptions::default(), now).unwrap() else {
                panic!("{name} is not renewed")
            };
            let new = leaf(name, &paths);
            assert_eq!((new.not_after(), new.serial()), (until, serial.as_slice()), "{name}");
            assert_eq!(Profile::of(&new), Profile::of(&old), "{name}");
            assert_ne!(new.public_info(), old.public_info(), "{name}: a new key");
            assert_eq!(until, at("2028-12-31T00:00:00Z"), "{name}: as long as the old one");
        }
        assert!(!expiry::look(&paths, now).ends_within(0));
        ensure_all(&cluster(), &node(), &paths, &Options::default(), now).unwrap();
        kubeconfig::ensure(&kubeconfig::INIT, &cluster(), &node(), &paths, now).unwrap();
    }

    #[test]
    fn only_what_has_less_than_a_third_left_is_due() {
        let (_root, paths) = made();
        let options = RenewOptions { only_due: true, ..RenewOptions::default() };
        let early = renew("apiserver", &paths, options, at("2026-08-31T00:00:00Z")).unwrap();
        assert!(matches!(early, Renewal::NotDue { .. }), "{early:?}");
        let due = at("2026-09-02T00:00:00Z");
        for name in ["apiserver", "admin.conf"] {
            let renewed = renew(name, &paths, options, due).unwrap();
            assert!(matches!(renewed, Renewal::Renewed { .. }), "{name}");
            let again = renew(name, &paths, options, due).unwrap();
            assert!(matches!(again, Renewal::NotDue { .. }), "{name}: a second run finds it done");
        }
    }

    #[test]
    fn kind_and_validity_may_be_others() {
        let (_root, paths) = made();
        let options = RenewOptions {
            kind: Some(EncryptionAlgorithm::EcdsaP384),
            validity: Some(Duration::from_secs(3600)),
            only_due: false,
        };
        renew("scheduler.conf", &paths, options, at("2026-02-01T00:00:00Z")).unwrap();
        let new = leaf("scheduler.conf", &paths);
        assert_eq!(new.not_after(), at("2026-02-01T01:00:00Z"));
        assert_eq!(kind_of(new.public_info()), Some(EncryptionAlgorithm::EcdsaP384));
    }

    #[test]
    fn what_cannot_be_renewed_says_why() {
        let (_root, paths) = made();
        let now = at("2026-02-01T00:00:00Z");
        let error = renew("kubelet.conf", &paths, RenewOptions::default(), now).unwrap_err().to_string();
        assert!(error.contains("admin.conf"), "{error}");
        let error = renew("apiserver", &paths, RenewOptions::default(), at("2036-06-01T00:00:00Z")).unwrap_err();
        assert!(matches!(error, PkiError::AuthorityExpired { .. }), "{error}");
        std::fs::remove_file(paths.pki.join("ca.key")).unwrap();
        for name in ["apiserver", "admin.conf"] {
            assert_eq!(renew(name, &paths, RenewOptions::default(), now).unwrap(), Renewal::External);
        }
        std::fs::remove_file(paths.kubernetes.join("admin.conf")).unwrap();
        assert_eq!(renew("admin.conf", &paths, RenewOptions::default(), now).unwrap(), Renewal::Missing);
    }

    #[test]
    fn an_etcd_that_runs_elsewhere_has_nothing_here() {
        let (_root, paths) = made();
        assert_eq!(names_here(&paths).len(), 11);
        std::fs::create_dir_all(paths.manifests()).unwrap();
        std::fs::write(paths.manifests().join("kube-apiserver.yaml"), "").unwrap();
        assert_eq!(names_here(&paths).len(), 7);
    }
}
