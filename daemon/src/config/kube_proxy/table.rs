//! Every key of a `KubeProxyConfiguration`, and what it becomes.

use super::joint::Section::{self, Iptables, Ipvs, Nftables};
use super::texts::{
    Form, address, address_and_port, anything, bit, count, detect_mode, mode, network_or_pair, networks, node_name,
    node_port_addresses, oom_score, switch, text, time, time_if_any,
};

pub(super) const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
pub(super) const KIND: &str = "KubeProxyConfiguration";

/// One key.
pub(super) struct Row {
    /// Its path; with `*` for everything below a key.
    pub(super) path: &'static str,
    /// What its value has to look like.
    pub(super) form: Form,
    /// What it becomes.
    pub(super) becomes: Becomes,
}

impl Row {
    /// Whether the row is that of a path. An exact row stands before a wider one.
    pub(super) fn covers(&self, path: &str) -> bool {
        self.path == path || self.path.strip_suffix('*').is_some_and(|above| path.starts_with(above))
    }
}

/// What a key becomes.
#[derive(Clone, Copy)]
pub(super) enum Becomes {
    /// A key of weft's.
    Key(&'static str),
    /// A key of weft's, if kube-proxy reads this section in its mode.
    KeyIn(&'static [Section], &'static str),
    /// Something that other keys matter to, too: see `joint`.
    Joint,
    /// Nothing, for this reason.
    Nothing(&'static str),
}

use Becomes::{Joint, Key, KeyIn, Nothing};

const OWN_ACCESS: &str = "weft has its own access to the cluster";
const RETRIES: &str = "weft tries an address that is in use again";
const NO_RESYNC: &str = "weft follows changes, and compares the kernel with them every repair-interval";
const NO_PROFILES: &str = "weft has no profiling endpoint";
const NO_GATES: &str = "weft has no feature gates";
const NO_LOCALHOST: &str =
    "node ports are not served on loopback addresses, as with kube-proxy's ipvs and nftables modes";
const OWN_LOGGING: &str = "weft has log-level and log-format instead";
const NOT_OURS: &str = "that is for whoever starts weft to set";
const ALWAYS_STRICT: &str = "weft never answers ARP for addresses of Services";
const OBSOLETE: &str = "kube-proxy makes no use of it, either";
const ALL_SHOWN: &str = "weft hides no metrics";
const WINDOWS: &str = "weft runs on Linux only";

const fn row(path: &'static str, form: Form, becomes: Becomes) -> Row {
    Row { path, form, becomes }
}

/// All keys, in the order of the alphabet but for `*`, which comes after what is more exact.
pub(super) const ROWS: &[Row] = &[
    row("bindAddress", address, Joint),
    row("bindAddressHardFail", switch, Nothing(RETRIES)),
    row("clientConnection.*", anything, Nothing(OWN_ACCESS)),
    row("clusterCIDR", network_or_pair, Key("cluster-cidr")),
    row("configSyncPeriod", time_if_any, Nothing(NO_RESYNC)),
    row("conntrack.maxPerCore", count, Key("conntrack-max-per-core")),
    row("conntrack.min", count, Key("conntrack-min")),
    row("conntrack.tcpBeLiberal", switch, Key("conntrack-tcp-be-liberal")),
    row("conntrack.tcpCloseWaitTimeout", time, Key("conntrack-tcp-timeout-close-wait")),
    row("conntrack.tcpEstablishedTimeout", time, Key("conntrack-tcp-timeout-established")),
    row("conntrack.udpStreamTimeout", time, Key("conntrack-udp-timeout-stream")),
    row("conntrack.udpTimeout", time, Key("conntrack-udp-timeout")),
    row("detectLocal.bridgeInterface", text, Joint),
    row("detectLocal.interfaceNamePrefix", text, Joint),
    row("detectLocalMode", detect_mode, Joint),
    row("enableProfiling", switch, Nothing(NO_PROFILES)),
    row("featureGates.AllowServiceExternalIPs", switch, Key("allow-external-ips")),
    row("featureGates.*", switch, Nothing(NO_GATES)),
    row("healthzBindAddress", address_and_port, Key("proxy-healthz-bind")),
    row("hostnameOverride", node_name, Key("node-name")),
    row("iptables.localhostNodePorts", switch, Nothing(NO_LOCALHOST)),
    // kube-proxy's ipvs mode has no such keys of its own, and reads these.
    row("iptables.masqueradeAll", switch, KeyIn(&[Iptables, Ipvs], "masquerade-all")),
    row("iptables.masqueradeBit", bit, KeyIn(&[Iptables, Ipvs], "masquerade-bit")),
    row("iptables.minSyncPeriod", time_if_any, KeyIn(&[Iptables], "min-sync-period")),
    row("iptables.syncPeriod", time_if_any, Nothing(NO_RESYNC)),
    row("ipvs.excludeCIDRs", networks, Key("ipvs-exclude-cidrs")),
    row("ipvs.minSyncPeriod", time_if_any, KeyIn(&[Ipvs], "min-sync-period")),
    row("ipvs.scheduler", text, Key("ipvs-scheduler")),
    row("ipvs.strictARP", switch, Nothing(ALWAYS_STRICT)),
    row("ipvs.syncPeriod", time_if_any, Nothing(NO_RESYNC)),
    row("ipvs.tcpFinTimeout", time_if_any, Key("ipvs-tcpfin-timeout")),
    row("ipvs.tcpTimeout", time_if_any, Key("ipvs-tcp-timeout")),
    row("ipvs.udpTimeout", time_if_any, Key("ipvs-udp-timeout")),
    row("logging.*", anything, Nothing(OWN_LOGGING)),
    row("metricsBindAddress", address_and_port, Key("proxy-metrics-bind")),
    row("mode", mode, Joint),
    row("nftables.masqueradeAll", switch, KeyIn(&[Nftables], "masquerade-all")),
    row("nftables.masqueradeBit", bit, KeyIn(&[Nftables], "masquerade-bit")),
    row("nftables.minSyncPeriod", time_if_any, KeyIn(&[Nftables], "min-sync-period")),
    row("nftables.syncPeriod", time_if_any, Nothing(NO_RESYNC)),
    row("nodePortAddresses", node_port_addresses, Key("node-port-addresses")),
    row("oomScoreAdj", oom_score, Nothing(NOT_OURS)),
    row("portRange", text, Nothing(OBSOLETE)),
    row("showHiddenMetricsForVersion", text, Nothing(ALL_SHOWN)),
    row("windowsRunAsService", switch, Nothing(WINDOWS)),
    row("winkernel.*", anything, Nothing(WINDOWS)),
];
