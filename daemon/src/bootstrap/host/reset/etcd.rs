//! Where a local etcd's data is, when nobody can be asked: the cluster may be down by now.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::bootstrap::journal::{Change, Entry, Stage};
use crate::bootstrap::resolved::Paths;

/// The name of the volume in etcd's static pod, as kubeadm has it.
const VOLUME: &str = "etcd-data";

/// Where it is by default, under the root.
pub(super) const DEFAULT: &str = "var/lib/etcd";

/// The data of this node's etcd member: where its static pod says, else the usual place if the journal tells of an etcd. A machine
/// may have an etcd that is no cluster's of ours: without either it is not touched.
#[must_use]
pub fn etcd_data(paths: &Paths, entries: &[Entry]) -> Option<PathBuf> {
    let usual = paths.root.join(DEFAULT);
    if let Ok(text) = fs::read_to_string(paths.manifests().join("etcd.yaml")) {
        let told = serde_saphyr::from_str::<Value>(&text).ok().and_then(|pod| host_path(&pod));
        return Some(told.map_or(usual, |path| paths.root.join(path.trim_start_matches('/'))));
    }
    let tells = |entry: &&Entry| match &entry.change {
        Change::Phase { name, .. } => name.starts_with("etcd"),
        Change::DirectoryMade { path } => *path == usual,
        _ => false,
    };
    entries.iter().filter(|entry| entry.stage != Stage::Undone).find(tells).map(|_| usual.clone())
}

fn host_path(pod: &Value) -> Option<String> {
    let volumes = pod.pointer("/spec/volumes")?.as_array()?;
    let volume = volumes.iter().find(|volume| volume["name"] == VOLUME)?;
    volume.pointer("/hostPath/path")?.as_str().filter(|path| path.starts_with('/')).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::journal::Journal;

    #[test]
    fn p0_21_only_an_etcd_of_this_cluster_is_emptied() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        let entries = || Journal::read(&paths).unwrap();
        assert_eq!(etcd_data(&paths, &entries()), None, "Debian's own etcd has its data there");
        let phase = Change::Phase { name: "etcd/local".into(), config_hash: "1".into() };
        Journal::open(&paths).unwrap().begin(phase).unwrap();
        assert_eq!(etcd_data(&paths, &entries()), Some(root.path().join("var/lib/etcd")));
        fs::create_dir_all(paths.manifests()).unwrap();
        let pod = "kind: Pod\nspec:\n  volumes:\n  - name: etcd-certs\n    hostPath: {path: /x}\n  - name: etcd-data\n    hostPath:\n      path: /data/etcd\n";
        fs::write(paths.manifests().join("etcd.yaml"), pod).unwrap();
        assert_eq!(etcd_data(&paths, &entries()), Some(root.path().join("data/etcd")));
        fs::write(paths.manifests().join("etcd.yaml"), "nonsense: [").unwrap();
        assert_eq!(etcd_data(&paths, &entries()), Some(root.path().join("var/lib/etcd")));
    }
}
