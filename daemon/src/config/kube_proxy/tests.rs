//! What of a document counts, and what is said about the rest.

use super::*;
use crate::config::keys::{KEYS, find};

const HEAD: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";

/// Every key with kube-proxy's own default, as it writes them out itself.
const DEFAULTS: &str = "\
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection: {acceptContentTypes: '', burst: 10, contentType: application/vnd.kubernetes.protobuf, kubeconfig: '', qps: 5}
clusterCIDR: ''
configSyncPeriod: 15m0s
conntrack: {maxPerCore: 32768, min: 131072, tcpBeLiberal: false, tcpCloseWaitTimeout: 1h0m0s,
  tcpEstablishedTimeout: 24h0m0s, udpStreamTimeout: 0s, udpTimeout: 0s}
detectLocal: {bridgeInterface: '', interfaceNamePrefix: ''}
detectLocalMode: ''
enableProfiling: false
featureGates: {}
healthzBindAddress: 0.0.0.0:10256
hostnameOverride: ''
iptables: {localhostNodePorts: true, masqueradeAll: false, masqueradeBit: 14, minSyncPeriod: 1s, syncPeriod: 30s}
ipvs: {excludeCIDRs: null, minSyncPeriod: 0s, scheduler: '', strictARP: false, syncPeriod: 30s, tcpFinTimeout: 0s,
  tcpTimeout: 0s, udpTimeout: 0s}
logging: {flushFrequency: 5s, format: text, options: {json: {infoBufferSize: '0'}}, verbosity: 0}
metricsBindAddress: 127.0.0.1:10249
mode: ''
nftables: {masqueradeAll: false, masqueradeBit: 14, minSyncPeriod: 1s, syncPeriod: 30s}
nodePortAddresses: null
oomScoreAdj: -999
portRange: ''
showHiddenMetricsForVersion: ''
winkernel: {enableDSR: false, forwardHealthCheckVip: false, networkName: '', rootHnsEndpointName: '', sourceVip: ''}
windowsRunAsService: false
";

fn read(text: &str) -> Result<Layer, String> {
    parse(Path::new("/var/lib/kube-proxy/config.conf"), &format!("{HEAD}{text}")).map_err(|error| error.to_string())
}

fn texts(text: &str) -> BTreeMap<&'static str, String> {
    read(text).unwrap().texts.into_iter().map(|(key, (_, texts))| (key, texts.join(","))).collect()
}

fn warnings(text: &str) -> String {
    read(text).unwrap().warnings.join("\n")
}

#[test]
fn every_row_leads_to_a_key_that_there_is() {
    for (i, row) in ROWS.iter().enumerate() {
        if let Becomes::Key(key) | Becomes::KeyIn(_, key) = row.becomes {
            assert!(find(key).is_some(), "{} leads to {key}", row.path);
        }
        assert!(ROWS[i + 1..].iter().all(|other| !row.covers(other.path)), "a row after {} is never reached", row.path);
    }
    assert!(KEYS.iter().any(|key| key.name == "kube-proxy-config"));
}

#[test]
fn kube_proxys_defaults_are_understood_whole() {
    let found = texts(DEFAULTS);
    for (key, value) in [
        ("proxy-mode", "auto"),
        ("conntrack-max-per-core", "32768"),
        ("conntrack-min", "131072"),
        ("conntrack-tcp-timeout-established", "86400s"),
        ("conntrack-tcp-timeout-close-wait", "3600s"),
        ("conntrack-udp-timeout", "0"),
        ("masquerade-bit", "14"),
        ("masquerade-all", "false"),
        ("min-sync-period", "1s"),
        ("proxy-healthz-bind", "0.0.0.0:10256"),
        ("proxy-metrics-bind", "127.0.0.1:10249"),
    ] {
        assert_eq!(found.get(key).map(String::as_str), Some(value), "{key}");
    }
    // What says "as you like" is left to the layers that know what weft likes.
    for key in
        ["node-name", "cluster-cidr", "detect-local", "ipvs-scheduler", "ipvs-tcp-timeout", "node-port-addresses"]
    {
        assert!(!found.contains_key(key), "{key}");
    }
    let said = warnings(DEFAULTS);
    assert!(said.contains("no mode is given, which means iptables"), "{said}");
    for unmapped in [
        "bindAddressHardFail",
        "clientConnection.burst",
        "clientConnection.contentType",
        "configSyncPeriod",
        "enableProfiling",
        "iptables.localhostNodePorts",
        "iptables.syncPeriod",
        "ipvs.strictARP",
        "logging.options.json.infoBufferSize",
        "oomScoreAdj",
        "winkernel.enableDSR",
        "windowsRunAsService",
    ] {
        assert!(said.contains(unmapped), "{unmapped} is not named in\n{said}");
    }
    assert!(!said.contains("there is no key"), "{said}");
}

#[test]
fn each_mode_reads_its_own_section() {
    let sections = "iptables: {masqueradeAll: true, masqueradeBit: 3, minSyncPeriod: 3s}\n\
                    ipvs: {minSyncPeriod: 4s, scheduler: lc}\n\
                    nftables: {masqueradeAll: false, masqueradeBit: 5, minSyncPeriod: 5s}\n";
    for (mode, proxy_mode, masquerade, bit, gap) in [
        ("iptables", "auto", "true", "3", "3s"),
        ("ipvs", "ipvs", "true", "3", "4s"),
        ("nftables", "nftables", "false", "5", "5s"),
    ] {
        let found = texts(&format!("mode: {mode}\n{sections}"));
        assert_eq!(found["proxy-mode"], proxy_mode);
        assert_eq!(
            (&*found["masquerade-all"], &*found["masquerade-bit"], &*found["min-sync-period"]),
            (masquerade, bit, gap)
        );
        assert_eq!(found["ipvs-scheduler"], "lc");
    }
    assert!(warnings("mode: iptables\n").contains("weft has no iptables mode and takes it for auto"));
    assert!(warnings("mode: ipvs\n").contains("ipvs mode took node ports at every address"));
    assert_eq!(warnings("mode: nftables\n"), "");
}

#[test]
fn the_rest_of_the_keys_arrive_as_they_are_meant() {
    let found = texts(
        "clusterCIDR: 10.244.0.0/16,fd00:244::/56\nhostnameOverride: ' Node-1 '\nfeatureGates: {AllowServiceExternalIPs: false}\n\
         nodePortAddresses: [192.0.2.0/24, 'fd00::/64']\nipvs: {excludeCIDRs: [10.0.0.0/24], tcpTimeout: 15m, tcpFinTimeout: 30s}\n\
         conntrack: {maxPerCore: 0, udpStreamTimeout: 1m30s}\n",
    );
    for (key, value) in [
        ("cluster-cidr", "10.244.0.0/16,fd00:244::/56"),
        ("node-name", "node-1"),
        ("allow-external-ips", "false"),
        ("node-port-addresses", "192.0.2.0/24,fd00::/64"),
        ("ipvs-exclude-cidrs", "10.0.0.0/24"),
        ("ipvs-tcp-timeout", "900s"),
        ("ipvs-tcpfin-timeout", "30s"),
        ("conntrack-max-per-core", "0"),
        ("conntrack-udp-timeout-stream", "90s"),
    ] {
        assert_eq!(found.get(key).map(String::as_str), Some(value), "{key}");
    }
}

#[test]
fn what_keys_mean_together() {
    let detect = |text: &str| texts(text).remove("detect-local");
    assert_eq!(detect("detectLocalMode: ClusterCIDR\n").as_deref(), Some("cluster-cidr"));
    assert_eq!(detect("detectLocalMode: NodeCIDR\n").as_deref(), Some("node-cidr"));
    let bridge = "detectLocalMode: BridgeInterface\ndetectLocal: {bridgeInterface: cni0, interfaceNamePrefix: veth}\n";
    assert_eq!(detect(bridge).as_deref(), Some("bridge:cni0"));
    let prefix = bridge.replace("BridgeInterface", "InterfaceNamePrefix");
    assert_eq!(detect(&prefix).as_deref(), Some("interface-prefix:veth"));
    let six = texts("bindAddress: '::'\nmetricsBindAddress: '[::]:1234'\n");
    assert_eq!((&*six["proxy-healthz-bind"], &*six["proxy-metrics-bind"]), ("[::]:10256", "[::]:1234"));
    assert!(warnings("bindAddress: 192.0.2.1\n").contains("bindAddress 192.0.2.1 does not choose the node's address"));
}

#[test]
fn a_key_that_nobody_knows_or_that_is_there_twice_is_a_warning() {
    let said =
        warnings("mode: nftables\nmetricsBindAdress: 127.0.0.1:1\nconntrack: {maxPerNode: 1}\nresourceContainer: /x\n");
    for word in [
        "/var/lib/kube-proxy/config.conf: there is no key metricsBindAdress; did you mean metricsBindAddress?",
        "there is no key conntrack.maxPerNode",
        "there is no key resourceContainer",
    ] {
        assert!(said.contains(word), "{said}");
    }
    let twice = "mode: ipvs\nmode: nftables\n";
    assert_eq!(texts(twice)["proxy-mode"], "nftables");
    assert!(warnings(twice).contains("more than once"), "{}", warnings(twice));
}

#[test]
fn json_is_read_too() {
    let json = r#"{"apiVersion":"kubeproxy.config.k8s.io/v1alpha1","kind":"KubeProxyConfiguration","mode":"ipvs"}"#;
    let layer = parse(Path::new("/x"), json).unwrap();
    assert_eq!(layer.texts["proxy-mode"].1, ["ipvs"]);
}

#[test]
fn a_bad_value_names_key_value_file_and_what_is_right() {
    let cases = [
        ("mode: userspace", "mode", "userspace", "one of: ipvs, nftables"),
        ("mode: kernelspace", "mode", "kernelspace", "one of: ipvs, nftables"),
        ("bindAddress: node1", "bindAddress", "node1", "an IP address"),
        ("healthzBindAddress: ':10256'", "healthzBindAddress", ":10256", "an address and a port"),
        ("metricsBindAddress: 127.0.0.1:0", "metricsBindAddress", "127.0.0.1:0", "an address and a port"),
        ("metricsBindAddress: 127.0.0.1:65536", "metricsBindAddress", "127.0.0.1:65536", "an address and a port"),
        ("clusterCIDR: 10.244.0.0", "clusterCIDR", "10.244.0.0", "a network, or one of each"),
        ("clusterCIDR: '10.0.0.0/8,11.0.0.0/8'", "clusterCIDR", "10.0.0.0/8,11.0.0.0/8", "one of each family"),
        (
            "nodePortAddresses: [primary, 10.0.0.0/8]",
            "nodePortAddresses",
            "[\"primary\",\"10.0.0.0/8\"]",
            "primary alone",
        ),
        ("nodePortAddresses: [10.0.0.1]", "nodePortAddresses", "[\"10.0.0.1\"]", "a list of networks"),
        ("ipvs: {excludeCIDRs: [x]}", "ipvs.excludeCIDRs", "[\"x\"]", "a list of networks"),
        ("ipvs: {tcpTimeout: -1s}", "ipvs.tcpTimeout", "-1s", "not below 0"),
        ("configSyncPeriod: -1m", "configSyncPeriod", "-1m", "not below 0"),
        ("nftables: {masqueradeBit: 32}", "nftables.masqueradeBit", "32", "a number from 0 to 31"),
        ("iptables: {masqueradeBit: -1}", "iptables.masqueradeBit", "-1", "a number from 0 to 31"),
        ("iptables: {minSyncPeriod: 31s}", "iptables.minSyncPeriod", "31s", "not above the syncPeriod"),
        ("nftables: {minSyncPeriod: 5s, syncPeriod: 4s}", "nftables.minSyncPeriod", "5s", "not above the syncPeriod"),
        ("oomScoreAdj: 1001", "oomScoreAdj", "1001", "a number from -1000 to 1000"),
        ("conntrack: {min: many}", "conntrack.min", "many", "a number from 0"),
        ("conntrack: {tcpBeLiberal: 1}", "conntrack.tcpBeLiberal", "1", "true or false"),
        ("conntrack: {udpTimeout: 30}", "conntrack.udpTimeout", "30", "a time such as"),
        ("conntrack: 7", "conntrack", "7", "a mapping"),
        ("featureGates: {NFTablesProxyMode: maybe}", "featureGates.NFTablesProxyMode", "maybe", "true or false"),
        ("detectLocalMode: Guess", "detectLocalMode", "Guess", "one of: ClusterCIDR"),
        (
            "detectLocalMode: BridgeInterface",
            "detectLocal.bridgeInterface",
            "",
            "the name that detectLocalMode asks for",
        ),
    ];
    for (text, key, value, expected) in cases {
        let error = read(&format!("{text}\n")).unwrap_err();
        let beginning = format!("{key} is {value:?} (file /var/lib/kube-proxy/config.conf); expected ");
        assert!(error.starts_with(&beginning) && error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn another_kind_of_file_is_refused() {
    let refused = |text: &str| parse(Path::new("/x.conf"), text).unwrap_err().to_string();
    for (text, word) in [
        ("", "not a mapping"),
        ("mode: ipvs\n", "apiVersion is null; expected kubeproxy.config.k8s.io/v1alpha1"),
        ("- a\n", "not a mapping"),
        ("apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n", "kubelet.config.k8s.io/v1beta1"),
        ("apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: X\n", "kind is X; expected KubeProxyConfiguration"),
        ("a: [\n", "/x.conf"),
    ] {
        let error = refused(text);
        assert!(error.starts_with("/x.conf is not a KubeProxyConfiguration") && error.contains(word), "{error}");
    }
}
