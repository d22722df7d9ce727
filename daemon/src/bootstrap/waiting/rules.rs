//! What lines of logs mean. The words are those of kubelet, containerd, etcd and the Kubernetes components up to 1.36.

use super::diagnosis::Cause;

/// Whose lines a rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// kubelet's own start: of no meaning once kubelet is well.
    KubeletStart,
    /// kubelet's words on pods that it cannot start.
    KubeletPods,
    /// A container that has ended.
    Container,
}

/// If one of a source's lines holds all of these words, that is the cause.
pub(super) struct Rule {
    pub(super) source: Source,
    /// In lower case.
    pub(super) words: &'static [&'static str],
    pub(super) cause: Cause,
    /// What is wrong; `{}` is the component.
    pub(super) summary: &'static str,
    pub(super) fix: &'static str,
    /// Whether it does not mend itself.
    pub(super) certain: bool,
}

const fn rule(
    source: Source,
    words: &'static [&'static str],
    cause: Cause,
    summary: &'static str,
    fix: &'static str,
) -> Rule {
    Rule { source, words, cause, summary, fix, certain: true }
}

/// May pass by itself: told, and waited on.
const fn maybe(
    source: Source,
    words: &'static [&'static str],
    cause: Cause,
    summary: &'static str,
    fix: &'static str,
) -> Rule {
    Rule { source, words, cause, summary, fix, certain: false }
}

use Cause::{Certificate, Cgroup, Clock, Configuration, Data, Disk, Image, Memory, Port, Runtime, Swap};
use Source::{Container, KubeletPods, KubeletStart};

const FREE_DISK: &str =
    "free space in the file system with /var/lib (weft images and old logs first), then run weft again";
const PULL: &str = "see with crictl pull whether the registry is reachable; without one give --images FILE, --kubernetes-bin DIR or --image-mirror, \
                    and run weft again";
const DRIVER: &str = "kubelet and the runtime must have the same driver: SystemdCgroup in containerd's config.toml, cgroupDriver in \
                      /var/lib/kubelet/config.yaml; weft preflight --fix makes them agree";
const SYNC: &str = "set the clock (timedatectl set-ntp true, chronyc makestep), then run weft again";
const ARGS: &str = "correct extraArgs or the patch that brings the flag, then run weft again";
const TAKEN: &str = "see who listens there (ss -ltnp) and stop it, or choose another port, then run weft again";

/// In the order in which they are tried: what makes everything else fail comes first.
pub(super) const RULES: &[Rule] = &[
    rule(KubeletStart, &["no space left on device"], Disk, "the disk is full", FREE_DISK),
    rule(KubeletPods, &["no space left on device"], Disk, "the disk is full", FREE_DISK),
    rule(Container, &["no space left on device"], Disk, "the disk is full: {} cannot write", FREE_DISK),
    rule(
        KubeletStart,
        &["running with swap on is not supported"],
        Swap,
        "kubelet does not start with swap on",
        "swapoff --all and take it out of /etc/fstab, or keep it with --swap tolerate",
    ),
    rule(
        KubeletStart,
        &["configured to not run on a host using cgroup v1"],
        Cgroup,
        "kubelet refuses control groups of version 1",
        "boot with systemd.unified_cgroup_hierarchy=1, or set failCgroupV1: false in a KubeletConfiguration document",
    ),
    rule(
        KubeletStart,
        &["cgroup v1 support is", "fail"],
        Cgroup,
        "kubelet refuses control groups of version 1",
        "boot with systemd.unified_cgroup_hierarchy=1, or set failCgroupV1: false in a KubeletConfiguration document",
    ),
    rule(
        KubeletStart,
        &["cgroup driver", "is different from"],
        Cgroup,
        "kubelet and the runtime have different cgroup drivers",
        DRIVER,
    ),
    rule(
        KubeletPods,
        &["expected cgroupspath to be of format"],
        Cgroup,
        "kubelet and the runtime have different cgroup drivers",
        DRIVER,
    ),
    rule(
        KubeletStart,
        &["failed to initialize top level qos containers"],
        Cgroup,
        "kubelet cannot make its control groups",
        DRIVER,
    ),
    rule(
        KubeletStart,
        &["unknown service runtime.v1.runtimeservice"],
        Runtime,
        "the runtime's CRI plugin is disabled",
        "take cri out of disabled_plugins in /etc/containerd/config.toml and restart containerd; weft preflight --fix does so",
    ),
    maybe(
        KubeletStart,
        &["validate cri v1 runtime api", "no such file or directory"],
        Runtime,
        "the runtime's socket is not there",
        "start containerd, or give the right --cri-socket",
    ),
    maybe(
        KubeletStart,
        &["validate cri v1 runtime api", "connection refused"],
        Runtime,
        "the runtime does not answer",
        "start containerd; its log says why it ended (journalctl -u containerd)",
    ),
    rule(
        KubeletStart,
        &["failed to load kubelet config file"],
        Configuration,
        "kubelet cannot read its configuration",
        "correct the KubeletConfiguration document or the patch, then run weft again",
    ),
    rule(
        KubeletStart,
        &["failed to validate kubelet configuration"],
        Configuration,
        "kubelet refuses its configuration",
        "correct the KubeletConfiguration document or the patch, then run weft again",
    ),
    rule(
        KubeletStart,
        &["invalid configuration:"],
        Configuration,
        "kubelet refuses its configuration",
        "correct the KubeletConfiguration document or the patch, then run weft again",
    ),
    rule(
        KubeletStart,
        &["failed to parse kubelet flag"],
        Configuration,
        "kubelet does not take one of its flags",
        "correct nodeRegistration.kubeletExtraArgs or /etc/default/kubelet, then run weft again",
    ),
    rule(
        KubeletStart,
        &["unknown flag"],
        Configuration,
        "kubelet does not take one of its flags",
        "correct nodeRegistration.kubeletExtraArgs or /etc/default/kubelet, then run weft again",
    ),
    rule(KubeletStart, &["address already in use"], Port, "a port of kubelet's is taken", TAKEN),
    rule(
        KubeletStart,
        &["unable to load client ca file"],
        Certificate,
        "kubelet misses the cluster's certificate authority",
        "run weft init or weft join again: it writes /etc/kubernetes/pki/ca.crt",
    ),
    rule(
        KubeletStart,
        &["invalid kubeconfig"],
        Certificate,
        "kubelet's kubeconfig is missing or damaged",
        "run weft init or weft join again: it writes /etc/kubernetes/kubelet.conf",
    ),
    rule(
        KubeletStart,
        &["unable to load kubeconfig"],
        Certificate,
        "kubelet's kubeconfig is missing or damaged",
        "run weft init or weft join again: it writes /etc/kubernetes/kubelet.conf",
    ),
    rule(
        KubeletStart,
        &["bootstrap client certificate", "is expired"],
        Certificate,
        "kubelet's client certificate has expired",
        "weft reset and join again, or weft certs renew on a control plane",
    ),
    rule(
        KubeletPods,
        &["certificate has expired or is not yet valid", "is before"],
        Clock,
        "this machine's clock is behind",
        SYNC,
    ),
    rule(
        KubeletPods,
        &["certificate has expired or is not yet valid", "is after"],
        Certificate,
        "a certificate has expired",
        "weft certs check shows which; weft certs renew; if none has, this machine's clock is ahead",
    ),
    rule(
        KubeletPods,
        &["certificate signed by unknown authority"],
        Certificate,
        "kubelet does not trust the API server's certificate",
        "/etc/kubernetes/kubelet.conf is of another cluster than /etc/kubernetes/pki: weft reset, then run weft again",
    ),
    rule(KubeletPods, &["failed to get sandbox image"], Image, "the runtime cannot get its pause image", PULL),
    rule(KubeletPods, &["errimageneverpull"], Image, "an image is not there and may not be pulled", PULL),
    rule(KubeletPods, &["imagepullbackoff"], Image, "an image cannot be pulled", PULL),
    maybe(KubeletPods, &["errimagepull"], Image, "an image cannot be pulled", PULL),
    rule(
        KubeletPods,
        &["can't get final child's pid from pipe"],
        Runtime,
        "the runtime cannot start a sandbox: it may not change oom_score_adj here",
        "set restrict_oom_score_adj = true in containerd's config.toml and restart it",
    ),
    maybe(
        KubeletPods,
        &["cannot allocate memory"],
        Memory,
        "memory is short",
        "give the machine more memory, or stop what uses it",
    ),
    maybe(
        KubeletPods,
        &["attempting to reclaim", "ephemeral-storage"],
        Disk,
        "the disk is nearly full: kubelet evicts pods",
        FREE_DISK,
    ),
    rule(Container, &["address already in use"], Port, "a port of {} is taken", TAKEN),
    rule(
        Container,
        &["cannot assign requested address"],
        Configuration,
        "{} is to listen at an address that this machine does not have",
        "correct --apiserver-advertise-address, then run weft again",
    ),
    rule(Container, &["unknown flag"], Configuration, "{} does not know one of its flags", ARGS),
    rule(Container, &["flag provided but not defined"], Configuration, "{} does not know one of its flags", ARGS),
    rule(Container, &["invalid argument", "flag"], Configuration, "{} refuses the value of a flag", ARGS),
    rule(
        Container,
        &["certificate has expired or is not yet valid", "is before"],
        Clock,
        "this machine's clock is behind",
        SYNC,
    ),
    rule(
        Container,
        &["certificate has expired"],
        Certificate,
        "{} has found a certificate that has expired",
        "weft certs check shows which; weft certs renew; if none has, this machine's clock is ahead",
    ),
    rule(
        Container,
        &["signed by unknown authority"],
        Certificate,
        "{} does not trust a certificate",
        "the files of /etc/kubernetes/pki do not belong together: weft certs check",
    ),
    rule(
        Container,
        &["private key does not match public key"],
        Certificate,
        "{} has a key that is not its certificate's",
        "the files of /etc/kubernetes/pki do not belong together: weft certs check",
    ),
    rule(
        Container,
        &["no such file or directory", "/pki/"],
        Certificate,
        "{} misses a certificate or key",
        "run weft init again: it makes what is missing",
    ),
    rule(
        Container,
        &["cluster id mismatch"],
        Data,
        "etcd's data is of another cluster",
        "weft reset on this node, then join again",
    ),
    rule(
        Container,
        &["has already been bootstrapped"],
        Data,
        "etcd's member is known to the cluster, and its data is gone",
        "weft reset on this node (it takes the member out), then join again",
    ),
    rule(
        Container,
        &["member has been permanently removed"],
        Data,
        "this etcd member has been removed from the cluster",
        "weft reset on this node, then join again",
    ),
    rule(
        Container,
        &["freepages"],
        Data,
        "etcd's database is damaged",
        "restore a snapshot, or weft reset and begin anew",
    ),
    maybe(
        Container,
        &["cannot allocate memory"],
        Memory,
        "{} gets no memory",
        "give the machine more memory, or stop what uses it",
    ),
];

/// Words of one who only waits for another: his end says nothing of himself.
pub(super) const WAITS_FOR_OTHERS: [&str; 5] = [
    "connection refused",
    "context deadline exceeded",
    "failed to wait for apiserver",
    "leaderelection lost",
    "leader election lost",
];
