//! The kubeconfigs of a control-plane node (kubeadm 1.36, `phases/kubeconfig/kubeconfig.go`).

use jiff::Timestamp;

use super::document::{Credentials, Kubeconfig, Login, authority};
use crate::bootstrap::pki::error::PkiError;
use crate::bootstrap::pki::issue::{self, Validity};
use crate::bootstrap::pki::profile::{AltNames, Profile, Purpose};
use crate::bootstrap::pki::store::{Store, write_private};
use crate::bootstrap::pki::{Certificate, Key, Outcome, Step};
use crate::bootstrap::resolved::{Cluster, Node, Paths};

/// A kubeconfig below `/etc/kubernetes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct File {
    /// `admin.conf`.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    user: &'static str,
    organization: Option<&'static str>,
    /// Whether it goes to the stable endpoint and not to the node's own API server.
    public: bool,
}

/// All of them, in kubeadm's order.
pub static FILES: [File; 5] = [
    File {
        name: "admin.conf",
        about: "the administrator's, and kubeadm's own",
        user: "kubernetes-admin",
        organization: Some("kubeadm:cluster-admins"),
        public: true,
    },
    File {
        name: "super-admin.conf",
        about: "the one that no access rule can lock out",
        user: "kubernetes-super-admin",
        organization: Some("system:masters"),
        public: true,
    },
    File {
        name: "kubelet.conf",
        about: "kubelet's first one",
        user: "system:node:",
        organization: Some("system:nodes"),
        public: false,
    },
    File {
        name: "controller-manager.conf",
        about: "the controller manager's",
        user: "system:kube-controller-manager",
        organization: None,
        public: false,
    },
    File {
        name: "scheduler.conf",
        about: "the scheduler's",
        user: "system:kube-scheduler",
        organization: None,
        public: false,
    },
];

/// Those that the first control-plane node has.
pub const INIT: [&str; 5] =
    ["admin.conf", "super-admin.conf", "kubelet.conf", "controller-manager.conf", "scheduler.conf"];
/// Those that a further control-plane node makes; kubelet brings its own.
pub const JOIN: [&str; 3] = ["admin.conf", "controller-manager.conf", "scheduler.conf"];

/// The kubeconfig of that name.
///
/// # Errors
/// There is none; the error has all names.
pub fn find(name: &str) -> Result<&'static File, PkiError> {
    FILES.iter().find(|file| file.name == name).ok_or_else(|| PkiError::Unknown {
        name: name.to_owned(),
        known: FILES.iter().map(|file| file.name.to_owned()).collect(),
    })
}

impl File {
    /// The user's name on this node.
    #[must_use]
    pub fn user(&self, node: &Node) -> String {
        if self.user.ends_with(':') { format!("{}{}", self.user, node.name) } else { self.user.to_owned() }
    }

    /// Where it sends its user.
    #[must_use]
    pub fn server(&self, cluster: &Cluster, node: &Node) -> String {
        if self.public { cluster.public_endpoint(node) } else { node.local_endpoint() }
    }

    /// What its certificate says on this node.
    ///
    /// # Errors
    /// A name that does not fit into a certificate.
    pub fn profile(&self, node: &Node) -> Result<Profile, PkiError> {
        let organizations: Vec<&str> = self.organization.into_iter().collect();
        Profile::leaf(&self.user(node), &organizations, &AltNames::default(), Purpose::Client)
    }
}

/// Puts the kubeconfigs of those names there; the authority `ca` has to be.
///
/// One that is there is kept if it trusts this cluster's authority, whatever its server; another server is noted. Without the
/// authority's key all have to be there.
///
/// # Errors
/// One trusts another authority, is missing and cannot be made, or is damaged. What was made before it stays.
pub fn ensure(
    names: &[&str],
    cluster: &Cluster,
    node: &Node,
    paths: &Paths,
    now: Timestamp,
) -> Result<Vec<Step>, PkiError> {
    let store = Store(&paths.pki);
    let ca_path = store.certificate("ca");
    let Some(authorities) = authority(&ca_path)? else {
        let why = "the kubeconfigs are signed by it; make or bring it first".to_owned();
        return Err(PkiError::Missing { path: ca_path, why });
    };
    let key = store.find("ca")?.key;
    let key = key.transpose().map_err(|source| PkiError::KeyFile { path: store.key("ca"), source })?;
    let mut steps = Vec::new();
    for name in names {
        steps.push(ensure_one(find(name)?, cluster, node, paths, &authorities, key.as_ref(), now)?);
    }
    Ok(steps)
}

fn ensure_one(
    file: &File,
    cluster: &Cluster,
    node: &Node,
    paths: &Paths,
    authorities: &[Certificate],
    key: Option<&Key>,
    now: Timestamp,
) -> Result<Step, PkiError> {
    let path = paths.kubernetes.join(file.name);
    let server = file.server(cluster, node);
    if let Some(found) = Kubeconfig::load(&path)? {
        let content = |reason: String| PkiError::Content { path: path.clone(), expected: "kubeconfig", reason };
        let trusted = found.authorities(&paths.kubernetes).map_err(content)?;
        if !trusted.first().is_some_and(|first| authorities.contains(first)) {
            return Err(PkiError::OtherCluster { path, authority: Store(&paths.pki).certificate("ca") });
        }
        let elsewhere = found.server().filter(|found| *found != server);
        let note = elsewhere.map(|found| format!("it goes to {found}, and would go to {server} if it were made now"));
        let outcome = if key.is_some() { Outcome::Kept } else { Outcome::External };
        return Ok(Step::new(file.name, outcome, note));
    }
    let (Some(key), Some(signer)) = (key, authorities.first()) else {
        let why = format!(
            "{} is not there either, so the authority is external and has to supply it; \
             `weft certs generate-csr` makes the requests",
            Store(&paths.pki).key("ca").display()
        );
        return Err(PkiError::Missing { path, why });
    };
    let validity = Validity::from_now(now, cluster.certificate_validity)?;
    let user = file.user(node);
    let credentials = signed(&file.profile(node)?, validity, signer, key, cluster.encryption)?;
    let login = Login {
        cluster: &cluster.name,
        server: &server,
        authority: &authorities.iter().map(Certificate::to_pem).collect::<String>(),
        user: &user,
        credentials,
    };
    write_private(&path, Kubeconfig::new(&login).render().expose())?;
    Ok(Step::new(file.name, Outcome::Made, None))
}

/// A new key and a certificate for it.
pub(super) fn signed(
    profile: &Profile,
    validity: Validity,
    signer: &Certificate,
    signer_key: &Key,
    kind: crate::bootstrap::config::model::EncryptionAlgorithm,
) -> Result<Credentials, PkiError> {
    let key = Key::generate(kind)?;
    let certificate = issue::leaf(profile, &key.public_info(), validity, signer, signer_key)?;
    Ok(Credentials::Certificate { certificate: certificate.to_pem(), key: key.to_pem()? })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::bootstrap::kubeconfig::{finalize, kubelet_certificate};
    use crate::bootstrap::pki::samples::{cluster, node};
    use crate::bootstrap::pki::{Options, ensure_all};

    fn now() -> Timestamp {
        "2026-01-02T03:04:05Z".parse().unwrap()
    }

    fn made() -> (tempfile::TempDir, Paths) {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        ensure_all(&cluster(), &node(), &paths, &Options::default(), now()).unwrap();
        let steps = ensure(&INIT, &cluster(), &node(), &paths, now()).unwrap();
        assert!(steps.iter().all(|step| step.outcome == Outcome::Made));
        (root, paths)
    }

    fn load(paths: &Paths, name: &str) -> Kubeconfig {
        Kubeconfig::load(&paths.kubernetes.join(name)).unwrap().unwrap()
    }

    #[test]
    fn each_says_who_where_and_whom_to_believe() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        let mut cluster = cluster();
        cluster.control_plane_endpoint = Some(("api.example".to_owned(), 8443));
        ensure_all(&cluster, &node(), &paths, &Options::default(), now()).unwrap();
        ensure(&INIT, &cluster, &node(), &paths, now()).unwrap();
        let local = "https://192.0.2.10:6443";
        let wanted = [
            ("admin.conf", "https://api.example:8443", "O=kubeadm:cluster-admins, CN=kubernetes-admin"),
            ("super-admin.conf", "https://api.example:8443", "O=system:masters, CN=kubernetes-super-admin"),
            ("kubelet.conf", local, "O=system:nodes, CN=system:node:n1"),
            ("controller-manager.conf", local, "CN=system:kube-controller-manager"),
            ("scheduler.conf", local, "CN=system:kube-scheduler"),
        ];
        let ca = authority(&paths.pki.join("ca.crt")).unwrap().unwrap();
        for (name, server, subject) in wanted {
            let path = paths.kubernetes.join(name);
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600, "{name}");
            let config = load(&paths, name);
            let certificate = config.certificate(&paths.kubernetes).unwrap().unwrap();
            assert_eq!((config.server(), certificate.subject_text()), (Some(server), subject), "{name}");
            assert_eq!(config.authorities(&paths.kubernetes).unwrap(), ca, "{name}");
            assert!(certificate.chains_to(&ca, &[]), "{name}");
            let key = Key::from_pem(config.key().unwrap().expose()).unwrap();
            assert_eq!(key.public_info(), certificate.public_info(), "{name}");
            assert!(subject.ends_with(&format!("CN={}", config.user().unwrap())), "{name}");
        }
    }

    #[test]
    fn k08_one_of_another_cluster_is_refused_and_one_with_another_server_kept() {
        let ((_one, paths), (_other, others)) = (made(), made());
        let mut moved = node();
        moved.address = "192.0.2.99".parse().unwrap();
        let before = std::fs::read(paths.kubernetes.join("kubelet.conf")).unwrap();
        let steps = ensure(&INIT, &cluster(), &moved, &paths, now()).unwrap();
        for step in steps {
            let note = step.note.unwrap();
            assert!(step.outcome == Outcome::Kept && note.contains("192.0.2.10:6443") && note.contains("192.0.2.99"));
        }
        assert_eq!(std::fs::read(paths.kubernetes.join("kubelet.conf")).unwrap(), before);
        std::fs::copy(others.kubernetes.join("kubelet.conf"), paths.kubernetes.join("kubelet.conf")).unwrap();
        let error = ensure(&INIT, &cluster(), &node(), &paths, now()).unwrap_err().to_string();
        assert!(error.contains("kubelet.conf trusts another authority"), "{error}");
    }

    #[test]
    fn k05_without_the_authoritys_key_all_have_to_be_there() {
        let (_root, paths) = made();
        std::fs::remove_file(paths.pki.join("ca.key")).unwrap();
        let steps = ensure(&INIT, &cluster(), &node(), &paths, now()).unwrap();
        assert!(steps.iter().all(|step| step.outcome == Outcome::External));
        std::fs::remove_file(paths.kubernetes.join("scheduler.conf")).unwrap();
        let error = ensure(&INIT, &cluster(), &node(), &paths, now()).unwrap_err().to_string();
        assert!(error.contains("scheduler.conf is missing") && error.contains("ca.key"), "{error}");
        std::fs::remove_file(paths.pki.join("ca.crt")).unwrap();
        let error = ensure(&INIT, &cluster(), &node(), &paths, now()).unwrap_err().to_string();
        assert!(error.contains("ca.crt is missing"), "{error}");
    }

    #[test]
    fn kubelets_goes_over_to_the_certificate_that_kubelet_rotates() {
        let (_root, paths) = made();
        assert_eq!(finalize(&paths).unwrap().outcome, Outcome::Kept, "kubelet has none yet");
        let current = kubelet_certificate(&paths);
        std::fs::create_dir_all(current.parent().unwrap()).unwrap();
        std::fs::write(&current, "").unwrap();
        assert_eq!(finalize(&paths).unwrap().outcome, Outcome::Changed);
        let text = std::fs::read_to_string(paths.kubernetes.join("kubelet.conf")).unwrap();
        let told = "/var/lib/kubelet/pki/kubelet-client-current.pem";
        assert!(text.contains(&format!("client-certificate: {told}")), "{text}");
        assert!(!text.contains("client-key-data"), "{text}");
        assert_eq!(finalize(&paths).unwrap().outcome, Outcome::Kept);
        let kept = ensure(&["kubelet.conf"], &cluster(), &node(), &paths, now()).unwrap();
        assert_eq!(kept[0].outcome, Outcome::Kept);
    }
}
