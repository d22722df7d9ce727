//! Directories and files of the host in the pods of the control plane (kubeadm `phases/controlplane/volumes.go`).

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::bootstrap::config::model::{ExternalEtcd, HostPathMount};

/// Where each image looks for certificate authorities.
const CA_CERTIFICATES: &str = "/etc/ssl/certs";

/// Where distributions keep what the files of [`CA_CERTIFICATES`] link to.
const FURTHER: [&str; 5] = [
    "/etc/pki/ca-trust",
    "/etc/pki/tls/certs",
    "/etc/ca-certificates",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
];

/// The directories with certificate authorities, besides the usual one, that the host under `root` has.
#[must_use]
pub fn ca_directories(root: &Path) -> Vec<String> {
    let there = |path: &&str| root.join(path.trim_start_matches('/')).exists();
    FURTHER.into_iter().filter(there).map(Into::into).collect()
}

/// One of a pod's volumes with its mount.
#[derive(Debug)]
struct Volume {
    host_path: String,
    mount_path: String,
    read_only: bool,
    kind: String,
}

/// Volumes by name; the configuration's take the place of ours.
#[derive(Debug, Default)]
pub(super) struct Volumes(BTreeMap<String, Volume>);

impl Volumes {
    /// The same path inside as outside.
    fn same(mut self, name: &str, path: &str, read_only: bool, kind: &str) -> Self {
        let volume = Volume { host_path: path.into(), mount_path: path.into(), read_only, kind: kind.into() };
        self.0.insert(name.into(), volume);
        self
    }

    pub(super) fn directory(self, name: &str, path: &str, read_only: bool) -> Self {
        self.same(name, path, read_only, "DirectoryOrCreate")
    }

    pub(super) fn file(self, name: &str, path: &str) -> Self {
        self.same(name, path, true, "FileOrCreate")
    }

    /// A file that kubelet must not make if it is missing: the pod waits for it.
    pub(super) fn present_file(self, name: &str, path: &str) -> Self {
        self.same(name, path, true, "File")
    }

    /// The certificate authorities of the host, which cloud providers and webhooks are checked against.
    pub(super) fn authorities(self, further: &[String]) -> Self {
        let this = self.directory("ca-certs", CA_CERTIFICATES, true);
        further
            .iter()
            .fold(this, |this, path| this.directory(&path.trim_start_matches('/').replace('/', "-"), path, true))
    }

    /// Where the certificates for an external etcd lie, unless that is mounted anyway.
    pub(super) fn external_etcd(self, etcd: &ExternalEtcd, pki: &str) -> Self {
        let mut wanted: Vec<&str> = Vec::new();
        for file in [&etcd.ca_file, &etcd.cert_file, &etcd.key_file] {
            let Some(folder) = Path::new(file).parent().and_then(Path::to_str).filter(|folder| !folder.is_empty())
            else {
                continue;
            };
            let mounted =
                FURTHER.iter().chain([&CA_CERTIFICATES, &pki]).any(|parent| Path::new(folder).starts_with(parent));
            if mounted || wanted.iter().any(|other| Path::new(folder).starts_with(other)) {
                continue;
            }
            wanted.retain(|other| !Path::new(other).starts_with(folder));
            wanted.push(folder);
        }
        wanted.sort_unstable();
        let numbered = wanted.into_iter().enumerate();
        numbered.fold(self, |this, (at, folder)| this.directory(&format!("etcd-certs-{at}"), folder, true))
    }

    /// What the configuration adds.
    pub(super) fn extra(mut self, extra: &[HostPathMount]) -> Self {
        for mount in extra {
            let volume = Volume {
                host_path: mount.host_path.clone(),
                mount_path: mount.mount_path.clone(),
                read_only: mount.read_only,
                kind: mount.path_type.clone().unwrap_or_default(),
            };
            self.0.insert(mount.name.clone(), volume);
        }
        self
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The container's `volumeMounts`.
    pub(super) fn mounts(&self) -> Value {
        let mount = |(name, volume): (&String, &Volume)| {
            let mut mount =
                Map::from_iter([("name".into(), json!(name)), ("mountPath".into(), json!(volume.mount_path))]);
            if volume.read_only {
                mount.insert("readOnly".into(), json!(true));
            }
            Value::Object(mount)
        };
        self.0.iter().map(mount).collect()
    }

    /// The pod's `volumes`.
    pub(super) fn volumes(&self) -> Value {
        let volume = |(name, volume): (&String, &Volume)| json!({"name": name, "hostPath": {"path": volume.host_path, "type": volume.kind}});
        self.0.iter().map(volume).collect()
    }
}
