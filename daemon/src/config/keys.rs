//! The table of keys: name, type, default and meaning of each, written down once.
//!
//! From it come the typed [`Settings`], the command-line flags and their help, the environment variables, the keys of
//! the file, and the listing of what is in effect.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

use super::error::ConfigError;
use super::load::Texts;
use super::rule::{self, Rule};
use super::service_types::{DetectLocal, NodePortAddresses, ProxyMode, SchedulerName, TimeOrZero};
use super::types::{InterfaceName, LogFilter, LogFormat, NetworkName, Patterns, RenewMargin, SourceKind};
use super::value::{Endpoint, Value};
use crate::cluster::kube::Annotations;
use crate::cluster::layout::Layout;
use crate::cluster::node::NodeName;

/// How soon drift of any kind is repaired when no event tells of it.
pub const REPAIR_INTERVAL: &str = "10s";

/// One key.
#[derive(Debug)]
pub struct Key {
    /// The name, in kebab case.
    pub name: &'static str,
    /// What it is for.
    pub help: &'static str,
    /// Its default as text; empty for none.
    pub default: fn() -> String,
    /// Whether it takes a list.
    pub is_list: bool,
    /// Whether its flag may stand alone, meaning `true`.
    pub is_switch: bool,
    /// Whether only the agent has a use for it.
    pub agent_only: bool,
}

impl Key {
    /// The name of the environment variable: `WEFT_NODE_NAME` for `node-name`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("WEFT_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }

    /// The variable of flannel's that means the same, where it is not of the common form.
    #[must_use]
    pub fn flannels_variable(&self) -> Option<&'static str> {
        (self.name == "wireguard-key-file").then_some("WIREGUARD_KEY_FILE")
    }

    /// Whether the value is not to be shown.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        self.name == "etcd-password"
    }
}

macro_rules! settings {
    ($( $name:literal $scope:ident $field:ident: $type:ty $(where $rule:ident)? = $default:expr, $help:literal; )*) => {
        /// The value of every key.
        #[derive(Debug, Clone, PartialEq)]
        pub struct Settings {
            $( #[doc = $help] pub $field: $type, )*
        }

        /// All keys, in the order in which they are listed.
        pub const KEYS: &[Key] = &[
            $( Key {
                name: $name,
                help: $help,
                default: || ($default).to_string(),
                is_list: <$type as Value>::IS_LIST,
                is_switch: <$type as Value>::IS_SWITCH,
                agent_only: scope!($scope),
            }, )*
        ];

        impl Settings {
            /// Reads each key's text.
            ///
            /// # Errors
            /// Names the first key whose text is not what its type and its rule ask for.
            pub(super) fn read(texts: &Texts) -> Result<Self, ConfigError> {
                Ok(Self { $( $field: texts.read($name, &rule!($($rule)?))?, )* })
            }
        }
    };
}

macro_rules! rule {
    () => {
        Rule::ANY
    };
    ($rule:ident) => {
        rule::$rule
    };
}

macro_rules! scope {
    (any) => {
        false
    };
    (agent) => {
        true
    };
}

settings! {
    "node-name" any node_name: NodeName = host_name(),
        "Name of this node in the store; the host name if not given.";
    "source" agent source: SourceKind = "etcd",
        "Where leases and Services come from: etcd, or kube (Nodes, Services and EndpointSlices of the Kubernetes API).";
    "kube-api-server" agent kube_api_server: Option<Endpoint> where API_SERVER = "",
        "URL of the API server itself, for source kube; without it a pod asks at the cluster's Service address, which nobody serves before weft does. While it is away the others are asked that EndpointSlice default/kubernetes names.";
    "kubeconfig" agent kubeconfig: Option<PathBuf> where ABSOLUTE_IF_ANY = "",
        "File with the credentials for the API server; those of the pod's ServiceAccount if not given.";
    "kube-annotation-prefix" agent kube_annotation_prefix: Annotations = "flannel.alpha.coreos.com",
        "What the names of the annotations on Nodes begin with, shared with flannel.";
    "net-config-path" agent net_config_path: Option<PathBuf> where ABSOLUTE_IF_ANY = "",
        "File with the network configuration, as flannel's net-conf.json, for source kube, read again when it changes; made of network and the keys after it if not given.";
    "set-node-network-unavailable" agent set_node_network_unavailable: bool = "true",
        "Set the Node's condition NetworkUnavailable to False once the node is ready for pods.";
    "etcd-endpoints" any etcd_endpoints: Vec<Endpoint> = "http://127.0.0.1:2379",
        "URLs of the etcd servers.";
    "etcd-prefix" any etcd_prefix: Layout = "/coreos.com/network",
        "Key prefix in etcd, shared with flannel.";
    "etcd-cafile" any etcd_cafile: Option<PathBuf> = "",
        "File with the CA that signed the etcd servers' certificates, PEM.";
    "etcd-certfile" any etcd_certfile: Option<PathBuf> = "",
        "File with the certificate that this node shows to etcd, PEM.";
    "etcd-keyfile" any etcd_keyfile: Option<PathBuf> = "",
        "File with the private key for etcd-certfile, PEM.";
    "etcd-username" any etcd_username: Option<String> = "",
        "User name for etcd.";
    "etcd-password" any etcd_password: Option<String> = "",
        "Password for etcd; etcd-password-file keeps it out of the process list.";
    "etcd-password-file" any etcd_password_file: Option<PathBuf> = "",
        "File with the password for etcd.";
    "network" any network: Option<Ipv4Network> = "10.244.0.0/16",
        "IPv4 cluster network, used only if the store has no network configuration yet; empty for an IPv6-only cluster.";
    "subnet-len" any subnet_len: Option<u8> = "",
        "Length of each node's IPv4 subnet; /24 where the network is large enough. Used as network is, like the next seven.";
    "subnet-min" any subnet_min: Option<Ipv4Addr> = "",
        "First IPv4 subnet to lease; the second of the network if not given.";
    "subnet-max" any subnet_max: Option<Ipv4Addr> = "",
        "Last IPv4 subnet to lease; the last of the network if not given.";
    "ipv6-network" any ipv6_network: Option<Ipv6Network> = "",
        "IPv6 cluster network; none if not given.";
    "ipv6-subnet-len" any ipv6_subnet_len: Option<u8> = "",
        "Length of each node's IPv6 subnet; /64 where the network is large enough.";
    "ipv6-subnet-min" any ipv6_subnet_min: Option<Ipv6Addr> = "",
        "First IPv6 subnet to lease.";
    "ipv6-subnet-max" any ipv6_subnet_max: Option<Ipv6Addr> = "",
        "Last IPv6 subnet to lease.";
    "vni" any vni: u32 where VNI = "1",
        "VXLAN network identifier.";
    "vxlan-port" any vxlan_port: u16 = "8472",
        "UDP port of the VXLAN overlay.";
    "iface" any iface: Vec<String> = "",
        "Interface of the underlay, as IP address or name; the first of several that is there. The default route's if nothing is given.";
    "iface-regex" any iface_regex: Patterns = "",
        "The same as a regular expression for addresses or else names, where none of iface is there.";
    "iface-can-reach" any iface_can_reach: Option<IpAddr> = "",
        "The same as the interface by which this address is reached, where neither iface nor iface-regex matches.";
    "public-ip" any public_ip: Option<Ipv4Addr> where PUBLIC_V4 = "",
        "IPv4 address that other nodes reach this one at; the interface's if not given.";
    "public-ipv6" any public_ipv6: Option<Ipv6Addr> where PUBLIC_V6 = "",
        "IPv6 address that other nodes reach this one at; the interface's if not given.";
    "subnet-file" any subnet_file: PathBuf where ABSOLUTE = "/run/flannel/subnet.env",
        "File that tells the CNI plugin this node's subnet.";
    "wireguard-key-file" agent wireguard_key_file: PathBuf where ABSOLUTE = "/run/flannel/wgkey",
        "File that keeps this node's private key for the back end wireguard, made if it is not there; also flannel's variable WIREGUARD_KEY_FILE.";
    "ip-masq" any ip_masq: bool = "true",
        "Masquerade what pods send out of the cluster network.";
    "no-masquerade" agent no_masquerade: Vec<IpNetwork> = "",
        "Networks outside of the cluster, of both families, that pods reach under their own addresses; they need a way back to the pods.";
    "ip-masq-fully-random-disable" agent ip_masq_fully_random_disable: bool = "false",
        "Masquerade with the ports that senders have chosen, where they are free, instead of fully random ones.";
    "iptables-forward-rules" agent iptables_forward_rules: bool = "true",
        "Accept what goes from and to pods through this node, also in iptables' chain FORWARD where that drops everything else.";
    "ip-blackhole-route" agent ip_blackhole_route: bool = "false",
        "Keep a blackhole route for this node's subnets behind all others, so that no packet to an address without a pod leaves the node.";
    "run-dir" any run_dir: PathBuf where ABSOLUTE = "/run/weft",
        "Directory for locks and for what is void after a reboot.";
    "state-dir" agent state_dir: PathBuf where ABSOLUTE = "/var/lib/weft",
        "Directory for what outlasts a reboot.";
    "sysctl-dir" agent sysctl_dir: PathBuf where ABSOLUTE = "/proc/sys",
        "Directory whose net/ has the kernel settings; another one where /proc/sys is read-only, as in a container.";
    "subnet-lease-renew-margin" any subnet_lease_renew_margin: RenewMargin = "60",
        "Minutes before its end at which the node's lease is renewed.";
    "healthz-bind" agent healthz_bind: SocketAddr = "[::]:8081",
        "Address and port of /healthz, /livez, /readyz and /metrics.";
    "cni-conf-dir" agent cni_conf_dir: PathBuf where ABSOLUTE = "/etc/cni/net.d",
        "Directory for the CNI network configuration.";
    "cni-bin-dir" agent cni_bin_dir: PathBuf where ABSOLUTE = "/opt/cni/bin",
        "Directory for the CNI plugin.";
    "cni-bin-source" agent cni_bin_source: Option<PathBuf> where ABSOLUTE_IF_ANY = "",
        "Where to copy weft-cni from; it is not installed if not given.";
    "cni-state-dir" agent cni_state_dir: PathBuf where ABSOLUTE = "/run/weft/cni",
        "Directory in which the CNI plugin records its attachments.";
    "bridge" agent bridge: InterfaceName = "cni0",
        "Name of the bridge that the pods of this node are connected to.";
    "network-name" agent network_name: NetworkName = "cbr0",
        "Name of the CNI network.";
    "repair-interval" agent repair_interval: Duration where INTERVAL = REPAIR_INTERVAL,
        "The time within which whatever somebody changes is repaired, from 100ms to 1m; the kernel is looked at twice as often.";
    "kube-proxy-config" any kube_proxy_config: Option<PathBuf> where ABSOLUTE_IF_ANY = "",
        "File with a KubeProxyConfiguration (v1alpha1); gives the keys that nothing else gives, and keys without a counterpart are named in the log.";
    "proxy-mode" agent proxy_mode: ProxyMode = "auto",
        "What serves Services: ipvs, nftables, auto (ipvs where the kernel has it, else nftables), or none.";
    "service-cidr" agent service_cidr: Vec<IpNetwork> where SERVICE_RANGES = "10.96.0.0/12",
        "Networks that cluster IPs are taken from, of both families; with source kube those of the ServiceCIDR objects are, where there are some.";
    "node-zone" agent node_zone: Option<String> = "",
        "Zone of this node, for endpoints with zone hints; wins over label topology.kubernetes.io/zone of its Node object, which is asked if not given.";
    "detect-local" agent detect_local: DetectLocal = "cluster-cidr",
        "How pods of the cluster are told from other clients: cluster-cidr, node-cidr, bridge:NAME, interface-prefix:PREFIX, or none.";
    "cluster-cidr" agent cluster_cidr: Vec<IpNetwork> = "",
        "Networks that pods are in, for detect-local; the networks of the cluster's leases if not given.";
    "node-port-addresses" agent node_port_addresses: NodePortAddresses = "primary",
        "Addresses of this node that take node ports: primary, or networks; all addresses of a family that none of the networks is of.";
    "masquerade-all" agent masquerade_all: bool = "false",
        "Masquerade everything that is sent to cluster IPs.";
    "masquerade-bit" agent masquerade_bit: u8 where MARK_BIT = "14",
        "Bit of the packet mark for what is to be masqueraded, from 0 to 31.";
    "allow-external-ips" agent allow_external_ips: bool = "true",
        "Serve the externalIPs of Services.";
    "min-sync-period" agent min_sync_period: TimeOrZero where SYNC_GAP = "10ms",
        "Shortest time from the end of one pass over changed Services to the next; the first change after a pause does not wait.";
    "ipvs-scheduler" agent ipvs_scheduler: SchedulerName = "rr",
        "IPVS scheduler of Services that ask for none.";
    "ipvs-drain-limit" agent ipvs_drain_limit: TimeOrZero where DRAIN = "2m",
        "How long a TCP endpoint that is gone keeps the connections it has; 0 ends them at once.";
    "ipvs-tcp-timeout" agent ipvs_tcp_timeout: TimeOrZero where KERNEL_TIME = "24h",
        "When IPVS forgets an idle TCP connection; 0 leaves what the kernel has, like the next two.";
    "ipvs-tcpfin-timeout" agent ipvs_tcpfin_timeout: TimeOrZero where KERNEL_TIME = "0",
        "When IPVS forgets a TCP connection after a FIN.";
    "ipvs-udp-timeout" agent ipvs_udp_timeout: TimeOrZero where KERNEL_TIME = "0",
        "When IPVS forgets an idle UDP flow.";
    "ipvs-exclude-cidrs" agent ipvs_exclude_cidrs: Vec<IpNetwork> = "",
        "Networks whose IPVS virtual servers are never removed.";
    "ipvs-estimation" agent ipvs_estimation: bool = "false",
        "Let IPVS estimate rates, which costs time on each CPU every two seconds.";
    "conntrack-max-per-core" agent conntrack_max_per_core: u32 = "32768",
        "Connections to track per CPU core (nf_conntrack_max); 0 leaves what the kernel has.";
    "conntrack-min" agent conntrack_min: u32 = "131072",
        "Connections to track at least, if conntrack-max-per-core is not 0.";
    "conntrack-tcp-be-liberal" agent conntrack_tcp_be_liberal: bool = "false",
        "Let TCP segments that are out of the window pass, instead of dropping them as invalid.";
    "conntrack-tcp-timeout-established" agent conntrack_tcp_timeout_established: TimeOrZero where KERNEL_TIME = "24h",
        "When an idle TCP connection is no longer tracked; 0 leaves what the kernel has, like the next three.";
    "conntrack-tcp-timeout-close-wait" agent conntrack_tcp_timeout_close_wait: TimeOrZero where KERNEL_TIME = "1h",
        "When a TCP connection in CLOSE_WAIT is no longer tracked.";
    "conntrack-udp-timeout" agent conntrack_udp_timeout: TimeOrZero where KERNEL_TIME = "0",
        "When a UDP flow without an answer is no longer tracked.";
    "conntrack-udp-timeout-stream" agent conntrack_udp_timeout_stream: TimeOrZero where KERNEL_TIME = "0",
        "When a UDP flow with answers is no longer tracked.";
    "proxy-healthz-bind" agent proxy_healthz_bind: Option<SocketAddr> = "[::]:10256",
        "Address and port of kube-proxy's /healthz and /livez, while weft serves Services; empty for none.";
    "proxy-metrics-bind" agent proxy_metrics_bind: Option<SocketAddr> = "127.0.0.1:10249",
        "Address and port of kube-proxy's /metrics, /proxyMode and /configz, while weft serves Services; empty for none.";
    "log-level" any log_level: LogFilter = "info",
        "Least important lines to log: error, warn, info, debug, trace, or directives such as warn,weft::lease=debug.";
    "log-format" any log_format: LogFormat = "text",
        "How log lines look: text or json.";
}

/// The key of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

fn host_name() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kebab_case_and_unlike_each_other() {
        for (i, key) in KEYS.iter().enumerate() {
            assert!(key.name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'), "{}", key.name);
            assert!(KEYS[i + 1..].iter().all(|other| other.name != key.name), "{} twice", key.name);
            assert!(key.help.ends_with('.'), "{}", key.name);
        }
        assert_eq!(find("node-name").unwrap().variable(), "WEFT_NODE_NAME");
    }
}
