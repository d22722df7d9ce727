//! Putting a node's certificates and keys there, and keeping those that are.
//!
//! What is found is used if it fits: an authority as it is; a leaf if it belongs to its key and its authority, holds now and
//! has the names that are wanted. An authority without its key is external: nothing can be signed, and all has to be there.

use jiff::Timestamp;

use super::certificate::Certificate;
use super::error::PkiError;
use super::issue::{self, Validity};
use super::key::Key;
use super::store::{Found, Store};
use super::table::{self, Entry, SERVICE_ACCOUNTS};
use crate::bootstrap::resolved::{Cluster, EtcdPlace, Node, Paths};

/// What became of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was not there, and has been made.
    Made,
    /// It was there and right.
    Kept,
    /// It was there, did not fit, and has been made again.
    Changed,
    /// It was there and right, and only somebody else can make another one.
    External,
}

/// A certificate, key pair or kubeconfig, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// `apiserver`, `sa`, `admin.conf`.
    pub item: String,
    /// What became of it.
    pub outcome: Outcome,
    /// What a person should know besides.
    pub note: Option<String>,
}

impl Step {
    pub(crate) fn new(item: &str, outcome: Outcome, note: Option<String>) -> Self {
        Self { item: item.to_owned(), outcome, note }
    }
}

/// What is not in kubeadm's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Further names of the API server: the stable one that `join` pins in hosts. A certificate that is there and lacks only
    /// these is kept.
    pub extra_sans: Vec<String>,
    /// Whether a leaf that lacks a wanted name is made again, with a new key, or is an error.
    pub renew_mismatched: bool,
}

/// What all functions here work from.
struct Ground<'a> {
    cluster: &'a Cluster,
    node: &'a Node,
    store: Store<'a>,
    options: &'a Options,
    now: Timestamp,
}

/// An authority, found or made.
struct Authority {
    /// The one that signs first; others are believed too.
    certificates: Vec<Certificate>,
    /// `None` if it is external.
    key: Option<Key>,
}

/// Puts all certificates and keys of a first control-plane node there (kubeadm `init phase certs all`).
///
/// Keys are written before their certificates; a run that was killed is finished by the next one.
///
/// # Errors
/// The first thing that does not fit. What was made before it stays.
pub fn ensure_all(
    cluster: &Cluster,
    node: &Node,
    paths: &Paths,
    options: &Options,
    now: Timestamp,
) -> Result<Vec<Step>, PkiError> {
    let ground = Ground { cluster, node, store: Store(&paths.pki), options, now };
    let mut steps = ground.certificates(true)?;
    steps.push(ground.service_accounts()?);
    Ok(steps)
}

/// Puts the certificates of a further control-plane node there: its leaves, out of authorities that have been brought.
///
/// # Errors
/// An authority or the service accounts' key is not there; otherwise as [`ensure_all`].
pub fn ensure_join(
    cluster: &Cluster,
    node: &Node,
    paths: &Paths,
    options: &Options,
    now: Timestamp,
) -> Result<Vec<Step>, PkiError> {
    if let Some(path) = missing_shared(cluster, paths).into_iter().next() {
        let why =
            "all control-plane nodes share it; join with --certificate-key, or copy it from another one".to_owned();
        return Err(PkiError::Missing { path, why });
    }
    let ground = Ground { cluster, node, store: Store(&paths.pki), options, now };
    let mut steps = ground.certificates(false)?;
    steps.push(Step::new(SERVICE_ACCOUNTS, Outcome::Kept, None));
    Ok(steps)
}

/// One certificate with its key, or `sa` (kubeadm `init phase certs NAME`). Its authority has to be there.
///
/// # Errors
/// There is none of that name; otherwise as [`ensure_all`].
pub fn ensure_one(
    name: &str,
    cluster: &Cluster,
    node: &Node,
    paths: &Paths,
    options: &Options,
    now: Timestamp,
) -> Result<Step, PkiError> {
    let ground = Ground { cluster, node, store: Store(&paths.pki), options, now };
    if name == SERVICE_ACCOUNTS {
        return ground.service_accounts();
    }
    let entry = table::find(name)?;
    let Some(authority) = entry.authority else { return Ok(ground.authority(entry, true)?.0) };
    let (_, authority) = ground.authority(table::find(authority)?, false)?;
    ground.leaf(entry, &authority)
}

/// The files that all control-plane nodes share and that are not here: authorities and the service accounts' keys. The key of
/// an authority may be missing where all its leaves are there.
#[must_use]
pub fn missing_shared(cluster: &Cluster, paths: &Paths) -> Vec<std::path::PathBuf> {
    let store = Store(&paths.pki);
    let mut files = Vec::new();
    for entry in table::entries(cluster).filter(|entry| entry.authority.is_none()) {
        files.push(store.certificate(entry.file));
        let leaves = || table::entries(cluster).filter(|leaf| leaf.authority == Some(entry.name));
        if leaves().any(|leaf| !store.certificate(leaf.file).exists()) {
            files.push(store.key(entry.file));
        }
    }
    files.push(store.key(SERVICE_ACCOUNTS));
    files.push(paths.pki.join("sa.pub"));
    if let EtcdPlace::External(etcd) = &cluster.etcd {
        let given = [&etcd.ca_file, &etcd.cert_file, &etcd.key_file].into_iter().filter(|file| !file.is_empty());
        files.extend(given.map(|file| paths.root.join(file.trim_start_matches('/'))));
    }
    files.retain(|file| !file.exists());
    files
}

impl Ground<'_> {
    fn certificates(&self, make_authorities: bool) -> Result<Vec<Step>, PkiError> {
        let mut steps = Vec::new();
        for entry in table::entries(self.cluster).filter(|entry| entry.authority.is_none()) {
            let (step, authority) = self.authority(entry, make_authorities)?;
            steps.push(step);
            for leaf in table::entries(self.cluster).filter(|leaf| leaf.authority == Some(entry.name)) {
                steps.push(self.leaf(leaf, &authority)?);
            }
        }
        Ok(steps)
    }

    fn authority(&self, entry: &Entry, may_make: bool) -> Result<(Step, Authority), PkiError> {
        let Found { certificates, key } = self.store.find(entry.file)?;
        let path = self.store.certificate(entry.file);
        let key = key.transpose().map_err(|source| PkiError::KeyFile { path: self.store.key(entry.file), source })?;
        let Some(first) = certificates.first() else {
            if !may_make {
                let why = "it signs what is to be made; make or bring it first".to_owned();
                return Err(PkiError::Missing { path, why });
            }
            return self.make_authority(entry, key);
        };
        if !first.is_authority() {
            return Err(PkiError::NotAnAuthority(path));
        }
        if key.as_ref().is_some_and(|key| key.public_info() != first.public_info()) {
            return Err(PkiError::Pair { key: self.store.key(entry.file), certificate: path });
        }
        let outcome = if key.is_some() { Outcome::Kept } else { Outcome::External };
        let ended = (first.not_after() < self.now).then(|| {
            format!(
                "the authority {} ran out at {}; its clients refuse all that it signed",
                entry.name,
                first.not_after()
            )
        });
        Ok((Step::new(entry.name, outcome, ended), Authority { certificates, key }))
    }

    /// An authority that is not there. A key that is has been left by a run that was killed, or by somebody who wants it used.
    fn make_authority(&self, entry: &Entry, key: Option<Key>) -> Result<(Step, Authority), PkiError> {
        let key = self.key(entry, key)?;
        let profile = entry.profile(self.cluster, self.node, &[])?;
        let validity = Validity::from_now(self.now, self.cluster.ca_validity)?;
        let certificate = issue::authority(&profile, &key, validity)?;
        self.store.write_certificate(entry.file, &certificate)?;
        let authority = Authority { certificates: vec![certificate], key: Some(key) };
        Ok((Step::new(entry.name, Outcome::Made, None), authority))
    }

    fn key(&self, entry: &Entry, found: Option<Key>) -> Result<Key, PkiError> {
        if let Some(key) = found {
            return Ok(key);
        }
        let key = Key::generate(self.cluster.encryption)?;
        self.store.write_key(entry.file, &key)?;
        Ok(key)
    }

    fn leaf(&self, entry: &Entry, authority: &Authority) -> Result<Step, PkiError> {
        let Found { certificates, key } = self.store.find(entry.file)?;
        let (certificate, key_path) = (self.store.certificate(entry.file), self.store.key(entry.file));
        let Some((first, between)) = certificates.split_first() else {
            let key = key.transpose().map_err(|source| PkiError::KeyFile { path: key_path, source })?;
            self.make_leaf(entry, authority, key)?;
            return Ok(Step::new(entry.name, Outcome::Made, Some(self.told(entry)).filter(|told| !told.is_empty())));
        };
        let Some(key) = key else {
            let why =
                format!("{} is there and belongs to it; put it back, or remove the certificate", certificate.display());
            return Err(PkiError::Missing { path: key_path, why });
        };
        // Of a key of another kind only its owner can tell.
        if let Ok(key) = key
            && key.public_info() != first.public_info()
        {
            if authority.key.is_none() {
                return Err(PkiError::Pair { key: key_path, certificate });
            }
            self.make_leaf(entry, authority, Some(key))?;
            let note = "it did not belong to its key: an earlier run was interrupted".to_owned();
            return Ok(Step::new(entry.name, Outcome::Changed, Some(note)));
        }
        self.check(entry, first, between, authority)?;
        let missing = first.lacks(&entry.alt_names(self.cluster, self.node, &[]));
        if self.options.renew_mismatched && authority.key.is_some() {
            let missing = first.lacks(&entry.alt_names(self.cluster, self.node, &self.options.extra_sans));
            if !missing.is_empty() {
                self.make_leaf(entry, authority, None)?;
                let note = format!("it was not made for {}", missing.join(", "));
                return Ok(Step::new(entry.name, Outcome::Changed, Some(note)));
            }
        }
        if !missing.is_empty() {
            return Err(PkiError::Names { name: entry.name.to_owned(), path: certificate, missing });
        }
        let outcome = if authority.key.is_some() { Outcome::Kept } else { Outcome::External };
        Ok(Step::new(entry.name, outcome, None))
    }

    /// Whether a leaf comes from its authority and holds now.
    fn check(
        &self,
        entry: &Entry,
        leaf: &Certificate,
        between: &[Certificate],
        authority: &Authority,
    ) -> Result<(), PkiError> {
        let name = entry.name.to_owned();
        if !leaf.chains_to(&authority.certificates, between) {
            let authority = entry.authority.unwrap_or_default().to_owned();
            return Err(PkiError::Foreign { name, authority, path: self.store.certificate(entry.file) });
        }
        if leaf.not_after() < self.now {
            return Err(PkiError::Expired { name, at: leaf.not_after() });
        }
        if leaf.not_before() > self.now {
            return Err(PkiError::NotYetValid { name, at: leaf.not_before(), now: self.now });
        }
        Ok(())
    }

    fn make_leaf(&self, entry: &Entry, authority: &Authority, key: Option<Key>) -> Result<(), PkiError> {
        let (Some(signer), Some(authority_key)) = (authority.certificates.first(), &authority.key) else {
            let authority = entry.authority.and_then(|name| table::find(name).ok()).unwrap_or(entry);
            let why = format!(
                "{} is not there either, so the authority is external and has to supply it; \
                 `weft certs generate-csr` makes the requests",
                self.store.key(authority.file).display()
            );
            return Err(PkiError::Missing { path: self.store.certificate(entry.file), why });
        };
        let profile = entry.profile(self.cluster, self.node, &self.options.extra_sans)?;
        let validity = Validity::from_now(self.now, self.cluster.certificate_validity)?;
        let key = self.key(entry, key)?;
        let certificate = issue::leaf(&profile, &key.public_info(), validity, signer, authority_key)?;
        self.store.write_certificate(entry.file, &certificate)
    }

    /// What a serving certificate is good for, as kubeadm tells it.
    fn told(&self, entry: &Entry) -> String {
        let names = entry.alt_names(self.cluster, self.node, &self.options.extra_sans);
        if names.is_empty() { String::new() } else { format!("it holds for {}", names.texts().join(", ")) }
    }

    /// The key that service accounts' tokens are signed with. One that is there is believed; its public half is made again if
    /// it is missing (kubeadm leaves that to the user).
    fn service_accounts(&self) -> Result<Step, PkiError> {
        let (key_path, public_path) = (self.store.key(SERVICE_ACCOUNTS), self.store.0.join("sa.pub"));
        if key_path.exists() && public_path.exists() {
            return Ok(Step::new(SERVICE_ACCOUNTS, Outcome::Kept, None));
        }
        let found = self.store.find(SERVICE_ACCOUNTS)?.key.transpose();
        let found = found.map_err(|source| PkiError::KeyFile { path: key_path, source })?;
        let key = match found {
            Some(key) => key,
            None => {
                let key = Key::generate(self.cluster.encryption)?;
                self.store.write_key(SERVICE_ACCOUNTS, &key)?;
                key
            }
        };
        super::store::write_private(&public_path, key.public_pem()?.as_bytes())?;
        Ok(Step::new(SERVICE_ACCOUNTS, Outcome::Made, None))
    }
}

#[cfg(test)]
mod tests;
