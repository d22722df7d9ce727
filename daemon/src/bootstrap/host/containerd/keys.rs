//! Where settings lie in each version of the file.

/// Names by which a CRI plugin is disabled.
pub(super) const CRI_PLUGINS: [&str; 4] =
    ["cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime", "io.containerd.cri.v1.images"];

/// A setting of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key<'a> {
    /// Whether that runtime (`runc`) asks systemd for cgroups.
    SystemdCgroup(&'a str),
    /// Which runtime pods get.
    DefaultRuntime,
    /// The sandbox image.
    SandboxImage,
    /// Where registries' directories are.
    ConfigPath,
    /// Mirrors in the file itself, the old way.
    InlineMirrors,
}

impl<'a> Key<'a> {
    /// Its path in a file of that version.
    pub(super) fn path(self, version: i64) -> Vec<&'a str> {
        let (runtime, images) = match version {
            ..=1 => ("cri", "cri"),
            2 => ("io.containerd.grpc.v1.cri", "io.containerd.grpc.v1.cri"),
            3.. => ("io.containerd.cri.v1.runtime", "io.containerd.cri.v1.images"),
        };
        match self {
            Self::SystemdCgroup(name) => {
                vec!["plugins", runtime, "containerd", "runtimes", name, "options", "SystemdCgroup"]
            }
            Self::DefaultRuntime => vec!["plugins", runtime, "containerd", "default_runtime_name"],
            Self::SandboxImage if version >= 3 => vec!["plugins", images, "pinned_images", "sandbox"],
            Self::SandboxImage => vec!["plugins", images, "sandbox_image"],
            Self::ConfigPath => vec!["plugins", images, "registry", "config_path"],
            Self::InlineMirrors => vec!["plugins", images, "registry", "mirrors"],
        }
    }
}
