//! kubelet's three files, put in place.

use std::net::IpAddr;

use serde_json::Value;

use super::config::{self, Host};
use super::flags::{self, FlagError, Role};
use crate::bootstrap::converge::{self, FileError, Outcome};
use crate::bootstrap::patches::{PatchError, Patches};
use crate::bootstrap::resolved::{Node, Paths};
use crate::bootstrap::yaml;

/// As kubeadm makes it.
const DIRECTORY_MODE: u32 = 0o700;
/// No secrets are in them, and monitoring reads them.
const FILE_MODE: u32 = 0o644;

/// kubelet's files could not be written.
#[derive(Debug, thiserror::Error)]
pub enum KubeletFilesError {
    /// The file system refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// A patch does not fit.
    #[error(transparent)]
    Patch(#[from] PatchError),
    /// A flag cannot be handed over.
    #[error(transparent)]
    Flag(#[from] FlagError),
}

/// What became of each file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// `kubeadm-flags.env`.
    pub flags: Outcome,
    /// `instance-config.yaml`.
    pub instance: Outcome,
    /// `config.yaml`.
    pub config: Outcome,
}

impl Written {
    /// Whether a kubelet that runs has to be started anew.
    #[must_use]
    pub fn is_new(&self) -> bool {
        [&self.flags, &self.instance, &self.config].into_iter().any(Outcome::is_new)
    }
}

/// What kubelet is told, beside the node itself.
#[derive(Debug, Clone)]
pub struct Told<'a> {
    /// What the node is to the cluster.
    pub role: Role,
    /// The node's addresses, at most one of each family; none leaves the choice to kubelet.
    pub addresses: &'a [IpAddr],
    /// The cluster's configuration: as made by [`config::cluster_wide`], or as found in the cluster.
    pub cluster_wide: &'a Value,
    /// This host.
    pub host: &'a Host,
    /// The user's patches.
    pub patches: &'a Patches,
}

/// Writes what differs of `kubeadm-flags.env`, `instance-config.yaml` and `config.yaml`.
///
/// # Errors
/// [`KubeletFilesError`]; files that were right are as they were.
pub fn write(paths: &Paths, node: &Node, told: &Told<'_>) -> Result<Written, KubeletFilesError> {
    // All is made before anything is written.
    let flags = flags::environment_file(node, told.role, told.addresses)?;
    let config = yaml::to_string(&config::for_node(told.cluster_wide, told.host, node, told.patches)?);
    let instance = yaml::to_string(&config::instance(node));
    converge::directory(&paths.kubelet, DIRECTORY_MODE)?;
    let put = |name: &str, text: &str| converge::put(&paths.kubelet.join(name), text.as_bytes(), FILE_MODE);
    Ok(Written {
        flags: put("kubeadm-flags.env", &flags)?,
        instance: put("instance-config.yaml", &instance)?,
        config: put("config.yaml", &config)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::static_pods::golden::{cluster, node};
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn i11_three_files_the_third_their_merge() {
        let root = tempfile::tempdir().unwrap();
        let patches = root.path().join("patches");
        fs::create_dir(&patches).unwrap();
        fs::write(patches.join("kubeletconfiguration+json.yaml"), "[{op: add, path: /maxPods, value: 7}]\n").unwrap();
        let (paths, node, host) = (Paths::under(root.path()), node(), Host::default());
        let wide = config::cluster_wide(&cluster(), None).value;
        let patches = Patches::load(&patches).unwrap();
        let told =
            Told { role: Role::ControlPlane, addresses: &[], cluster_wide: &wide, host: &host, patches: &patches };
        let first = write(&paths, &node, &told).unwrap();
        assert_eq!(first, Written { flags: Outcome::Made, instance: Outcome::Made, config: Outcome::Made });
        assert!(!write(&paths, &node, &told).unwrap().is_new());

        let text = |name: &str| fs::read_to_string(paths.kubelet.join(name)).unwrap();
        assert!(text("kubeadm-flags.env").contains("--hostname-override=n1"));
        assert!(!text("kubeadm-flags.env").contains("runtime-endpoint"));
        let read = |name: &str| serde_saphyr::from_str::<Value>(&text(name)).unwrap();
        assert_eq!(read("instance-config.yaml")["containerRuntimeEndpoint"], node.cri_socket);
        let config = read("config.yaml");
        assert_eq!(
            (&config["containerRuntimeEndpoint"], &config["maxPods"]),
            (&node.cri_socket.clone().into(), &7.into())
        );
        let mode = fs::metadata(paths.kubelet.join("config.yaml")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);

        let other = Node { cri_socket: "unix:///run/crio/crio.sock".into(), ..node };
        let second = write(&paths, &other, &told).unwrap();
        assert_eq!(second.flags, Outcome::Kept);
        let Outcome::Changed(difference) = second.config else { panic!("kept") };
        assert!(difference.contains("+ containerRuntimeEndpoint: unix:///run/crio/crio.sock"), "{difference}");
    }
}
