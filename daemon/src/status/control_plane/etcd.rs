//! The way to etcd: the one that this node's API server goes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::bootstrap::api::{EtcdAccess, EtcdCluster, EtcdHealth};
use crate::bootstrap::resolved::{Limits, Paths};

/// How long the list of members, and then each of them, may take.
const ANSWER: Duration = Duration::from_millis(1200);

/// How etcd is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Way {
    endpoints: Vec<String>,
    access: Option<EtcdAccess>,
}

/// What the API server's command line says of it. Files are those of the host, under `root`.
pub(super) fn way(pod: &Value, root: &Path) -> Option<Way> {
    let command = pod.pointer("/spec/containers/0/command")?.as_array()?;
    let flag = |name: &str| {
        let prefix = format!("--{name}=");
        command.iter().rev().find_map(|word| word.as_str()?.strip_prefix(prefix.as_str()))
    };
    let file = |name: &str| -> Option<PathBuf> { Some(root.join(flag(name)?.trim_start_matches('/'))) };
    let endpoints = flag("etcd-servers")?.split(',').map(str::to_owned).collect();
    let access =
        (|| Some(EtcdAccess { ca: file("etcd-cafile")?, cert: file("etcd-certfile")?, key: file("etcd-keyfile")? }))();
    Some(Way { endpoints, access })
}

/// The members, and how they are.
pub(super) async fn members(way: &Way, paths: &Paths) -> Result<Vec<EtcdHealth>, String> {
    // The certificate of the probes is etcd's own; the API server's does where that is elsewhere.
    let own = EtcdAccess::healthcheck(paths);
    let access = if own.cert.is_file() { Some(&own) } else { way.access.as_ref() };
    let cluster = EtcdCluster::connect(&way.endpoints, access, &Limits::default()).await;
    let cluster = cluster.map_err(|error| error.to_string())?;
    cluster.survey(ANSWER).await.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_way_is_that_of_the_api_server() {
        let pod = |words: &[&str]| json!({"spec": {"containers": [{"command": words}]}});
        let with_files = pod(&[
            "kube-apiserver",
            "--etcd-cafile=/etc/kubernetes/pki/etcd/ca.crt",
            "--etcd-certfile=/c",
            "--etcd-keyfile=/k",
            "--etcd-servers=https://192.0.2.1:2379,https://192.0.2.2:2379",
        ]);
        let found = way(&with_files, Path::new("/root")).unwrap();
        assert_eq!(found.endpoints, ["https://192.0.2.1:2379", "https://192.0.2.2:2379"]);
        assert_eq!(found.access.unwrap().ca, Path::new("/root/etc/kubernetes/pki/etcd/ca.crt"));
        assert_eq!(way(&pod(&["x", "--etcd-servers=http://127.0.0.1:2379"]), Path::new("/")).unwrap().access, None);
        assert_eq!(way(&json!({}), Path::new("/")), None);
    }
}
