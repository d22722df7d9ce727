//! Which value wins, and what is said about a bad one.

use super::*;

fn load(flags: &[(&'static str, &str)], environment: &[(&str, &str)], file: &str) -> Result<AgentConfig, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yaml");
    std::fs::write(&path, file).unwrap();
    let flags = Flags::<true> {
        file: None,
        texts: flags.iter().map(|(key, value)| (*key, vec![(*value).to_owned()])).collect(),
    };
    let environment: BTreeMap<String, String> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    AgentConfig::load_from(&flags, |name| environment.get(name).cloned(), &path).map_err(|e| e.to_string())
}

fn origin(config: &AgentConfig, key: &str) -> (String, String) {
    let found = config.effective().find(|line| line.key == key).unwrap();
    (found.value, found.origin.to_string())
}

#[test]
fn defaults_stand_alone() {
    let flags = Flags::<true>::default();
    let config = AgentConfig::load_from(&flags, |_| None, Path::new("/nonexistent/config.yaml")).unwrap();
    let settings = &config.settings;
    assert_eq!(settings.bridge.as_str(), "cni0");
    assert_eq!(settings.subnet_file, Path::new("/run/flannel/subnet.env"));
    assert_eq!(settings.repair_interval.as_secs(), 10);
    assert!(settings.ip_masq && settings.iface.is_empty());
    assert_eq!(config.etcd.endpoints, ["http://127.0.0.1:2379"]);
    assert_eq!(config.network.pools.v4.unwrap().size(), 255);
    assert!(!settings.node_name.as_str().is_empty());
    assert_eq!(config.effective().count(), KEYS.len());
}

#[test]
fn a10_flag_over_environment_over_file_over_default() {
    let file = "bridge: from-file\nnetwork-name: from-file\nip-masq: false\n";
    let environment = [("WEFT_BRIDGE", "from-env"), ("WEFT_NETWORK_NAME", "from-env"), ("WEFT_IFACE", "")];
    let config = load(&[("bridge", "from-flag")], &environment, file).unwrap();
    assert_eq!(origin(&config, "bridge"), ("from-flag".into(), "flag".into()));
    assert_eq!(origin(&config, "network-name"), ("from-env".into(), "environment WEFT_NETWORK_NAME".into()));
    let (value, from) = origin(&config, "ip-masq");
    assert!(value == "false" && from.starts_with("file ") && from.ends_with("config.yaml"), "{from}");
    assert_eq!(origin(&config, "iface"), (String::new(), "default".into()));
}

#[test]
fn d10_flannels_names_lie_below_weft_s_own_of_the_same_kind() {
    let file = "ip-masq: false\nkubeconfig: /file\n";
    let environment = [("FLANNELD_IP_MASQ", "1"), ("FLANNELD_IFACE", "eth1"), ("WEFT_IFACE", "eth2")];
    let config = load(&[], &environment, file).unwrap();
    assert_eq!(origin(&config, "ip-masq"), ("1".into(), "environment FLANNELD_IP_MASQ".into()));
    assert!(config.settings.ip_masq);
    assert_eq!(origin(&config, "iface"), ("eth2".into(), "environment WEFT_IFACE".into()));
    assert_eq!(origin(&config, "kubeconfig").0, "/file");

    let environment = [("WEFT_SOURCE", "etcd"), ("FLANNELD_KUBECONFIG_FILE", "/env"), ("NODE_NAME", "n7")];
    let config = load(&[("kube-subnet-mgr", "true")], &environment, file).unwrap();
    assert_eq!(origin(&config, "source"), ("kube".into(), "flag --kube-subnet-mgr".into()));
    assert_eq!(origin(&config, "kubeconfig"), ("/env".into(), "environment FLANNELD_KUBECONFIG_FILE".into()));
    assert_eq!(origin(&config, "node-name"), ("n7".into(), "environment NODE_NAME".into()));
    let config = load(&[("kube-subnet-mgr", "true"), ("source", "etcd")], &environment, "").unwrap();
    assert_eq!(origin(&config, "source").0, "etcd");
    assert_ne!(origin(&config, "node-name").0, "n7", "outside of Kubernetes it may be anybody's");
    let config = load(&[("source", "kube")], &[("POD_NAME", "kube-flannel-ds-x7k2p")], "").unwrap();
    assert!(config.warnings[0].contains("set node-name"), "{:?}", config.warnings);

    let error = load(&[], &[("FLANNELD_SUBNET_LEASE_RENEW_MARGIN", "1440")], "").unwrap_err();
    let expected = "subnet-lease-renew-margin is \"1440\" (environment FLANNELD_SUBNET_LEASE_RENEW_MARGIN); expected";
    assert!(error.starts_with(expected), "{error}");
    let config = load(&[("v", "10")], &[("FLANNELD_IPTABLES_RESYNC", "5")], "").unwrap();
    assert_eq!(config.warnings.len(), 2, "{:?}", config.warnings);
    assert!(config.warnings[0].starts_with("flag --v has no effect"), "{:?}", config.warnings);
}

#[test]
fn a10_flannels_own_variable_for_the_key_counts_below_ours() {
    let flannels = ("WIREGUARD_KEY_FILE", "/var/lib/flannel/key");
    let config = load(&[], &[flannels], "wireguard-key-file: /from/file\n").unwrap();
    let from = "environment WIREGUARD_KEY_FILE".to_owned();
    assert_eq!(origin(&config, "wireguard-key-file"), (flannels.1.into(), from));
    let config = load(&[], &[flannels, ("WEFT_WIREGUARD_KEY_FILE", "/ours")], "").unwrap();
    assert_eq!(origin(&config, "wireguard-key-file").0, "/ours");
}

#[test]
fn kube_proxys_configuration_lies_below_all_others_and_above_the_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kube-proxy.conf");
    let text = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: ipvs\n\
                ipvs: {scheduler: lc, udpTimeout: 1ms}\nconntrack: {min: 7}\noomScoreAdj: -999\n";
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    let file = format!("kube-proxy-config: {path}\nconntrack-min: 8\nipvs-udp-timeout: 5s\n");
    let config = load(&[("proxy-mode", "nftables")], &[], &file).unwrap();
    assert_eq!(origin(&config, "proxy-mode").0, "nftables");
    assert_eq!(origin(&config, "conntrack-min").0, "8");
    let from = format!("ipvs.scheduler of the kube-proxy configuration {path}");
    assert_eq!(origin(&config, "ipvs-scheduler"), ("lc".into(), from));
    assert_eq!(origin(&config, "conntrack-max-per-core").1, "default");
    assert!(config.warnings.iter().any(|warning| warning.contains("oomScoreAdj")), "{:?}", config.warnings);

    let error = load(&[("kube-proxy-config", path)], &[], "").unwrap_err();
    let expected =
        format!("ipvs-udp-timeout is \"1ms\" (ipvs.udpTimeout of the kube-proxy configuration {path}); expected whole");
    assert!(error.starts_with(&expected), "{error}");
    let error = load(&[("kube-proxy-config", "/nonexistent/kube-proxy.conf")], &[], "").unwrap_err();
    assert!(error.contains("/nonexistent/kube-proxy.conf"), "{error}");
}

#[test]
fn a_file_that_is_named_has_to_be_there() {
    let flags = Flags::<true> { file: Some("/nonexistent/x.yaml".into()), texts: BTreeMap::new() };
    let error = AgentConfig::load_from(&flags, |_| None, Path::new("/")).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/x.yaml"), "{error}");
}

#[test]
fn a11_a_bad_value_names_key_value_origin_and_what_is_right() {
    let cases: &[(&'static str, &str, &str)] = &[
        ("subnet-lease-renew-margin", "0", "minutes from 1 to 1439"),
        ("subnet-lease-renew-margin", "1440", "minutes from 1 to 1439"),
        ("ip-masq", "yes", "true or false"),
        ("iface-regex", "eth(", "regular expressions such as"),
        ("iface-can-reach", "eth0", "an IP address"),
        ("no-masquerade", "10.1.0.0/16,10.2.0.0", "networks such as 10.96.0.0/12"),
        ("no-masquerade", "fd00::/129", "networks such as 10.96.0.0/12"),
        ("iptables-forward-rules", "off", "true or false"),
        ("source", "consul", "one of: etcd, kube"),
        ("kube-api-server", "192.0.2.10:6443", "https://192.0.2.10:6443"),
        ("kubeconfig", "admin.conf", "an absolute path"),
        ("kube-annotation-prefix", "org/prefix", "flannel.alpha.coreos.com"),
        ("net-config-path", "net-conf.json", "an absolute path"),
        ("bridge", "a-name-that-is-too-long", "1 to 15"),
        ("etcd-endpoints", "127.0.0.1:2379", "http://127.0.0.1:2379"),
        ("etcd-endpoints", "", "http://127.0.0.1:2379"),
        ("network", "10.244.0.0", "10.244.0.0/16"),
        ("network", "10.244.0.0/29", "at least a /28"),
        ("subnet-len", "31", "/30"),
        ("subnet-min", "10.9.0.0", "in the network 10.244.0.0/16"),
        ("vni", "0", "a number from 1 to 16777215"),
        ("vni", "16777216", "a number from 1 to 16777215"),
        ("vni", "x", "a number from 1 to 16777215"),
        ("public-ip", "0.0.0.0", "other nodes can send to"),
        ("public-ip", "127.0.0.1", "not 0.0.0.0, loopback"),
        ("public-ip", "169.254.1.1", "link-local"),
        ("public-ip", "224.0.0.1", "multicast"),
        ("public-ip", "255.255.255.255", "broadcast"),
        ("public-ip", "2001:db8::1", "an IPv4 address"),
        ("public-ipv6", "::", "other nodes can send to"),
        ("public-ipv6", "::1", "loopback"),
        ("public-ipv6", "fe80::1", "link-local"),
        ("public-ipv6", "ff02::1", "multicast"),
        ("public-ipv6", "::ffff:192.0.2.1", "IPv4-mapped"),
        ("subnet-file", "subnet.env", "an absolute path"),
        ("run-dir", "run", "an absolute path"),
        ("state-dir", "./state", "an absolute path"),
        ("cni-conf-dir", "net.d", "an absolute path"),
        ("cni-bin-dir", "bin", "an absolute path"),
        ("cni-bin-source", "bin/weft-cni", "an absolute path"),
        ("cni-state-dir", "cni", "an absolute path"),
        ("log-level", "loud", "error, warn, info"),
        ("log-level", "weft=loud", "debug"),
        ("repair-interval", "10", "a time with its unit from 100ms to 1m"),
        ("repair-interval", "0s", "from 100ms to 1m"),
        ("repair-interval", "99ms", "from 100ms to 1m"),
        ("repair-interval", "2m", "from 100ms to 1m"),
        ("node-name", "a/b", "node-1"),
        ("proxy-mode", "iptables", "one of: auto, ipvs, nftables, none"),
        ("service-cidr", "10.96.0.0", "10.96.0.0/12"),
        ("service-cidr", "10.96.0.0/12,0.0.0.0/0", "at least 8 bits"),
        ("detect-local", "bridge", "bridge:NAME"),
        ("cluster-cidr", "10.244.0.0/33", "fd00:10:96::/108"),
        ("node-port-addresses", "primary,10.0.0.0/8", "primary alone"),
        ("node-port-addresses", "", "primary alone"),
        ("masquerade-bit", "32", "a number from 0 to 31"),
        ("ipvs-scheduler", "RR", "the name of an IPVS scheduler"),
        ("ipvs-drain-limit", "25h", "up to 24h"),
        ("ipvs-tcp-timeout", "500ms", "whole seconds"),
        ("conntrack-udp-timeout", "501h", "up to 500h"),
        ("conntrack-max-per-core", "-1", "a number from 0"),
        ("min-sync-period", "31s", "up to 30s"),
        ("proxy-healthz-bind", "10256", "0.0.0.0:8081"),
        ("kube-proxy-config", "config.conf", "an absolute path"),
    ];
    for (key, value, expected) in cases {
        let error = load(&[(key, value)], &[], "").unwrap_err();
        let beginning = format!("{key} is {value:?} (flag); expected ");
        assert!(error.starts_with(&beginning) && error.contains(expected), "{error}");
    }
    let error = load(&[("ipv6-network", "fd00::/48"), ("ipv6-subnet-max", "fd01::")], &[], "").unwrap_err();
    assert!(error.starts_with("ipv6-subnet-max is \"fd01::\""), "{error}");
    let error = load(&[("ipv6-network", "fd00::/125")], &[], "").unwrap_err();
    assert!(error.starts_with("ipv6-network is \"fd00::/125\""), "{error}");
    let bounds = [("subnet-min", "10.244.9.0"), ("subnet-max", "10.244.3.0")];
    let error = load(&bounds, &[], "").unwrap_err();
    let expected = "subnet-min is \"10.244.9.0\" (flag); expected an address not beyond subnet-max, 10.244.3.0";
    assert_eq!(error, expected);
    let error = load(&[("subnet-max", "10.244.0.0")], &[], "").unwrap_err();
    let expected = "subnet-max is \"10.244.0.0\" (flag); expected an address not before subnet-min, 10.244.1.0";
    assert_eq!(error, expected);
    let six = [("ipv6-network", "fd00::/48"), ("ipv6-subnet-min", "fd00:0:0:9::"), ("ipv6-subnet-max", "fd00:0:0:3::")];
    let error = load(&six, &[], "").unwrap_err();
    assert!(error.contains("expected an address not beyond ipv6-subnet-max, fd00:0:0:3::"), "{error}");
    let error = load(&[], &[("WEFT_VNI", "x")], "").unwrap_err();
    assert!(error.contains("(environment WEFT_VNI)"), "{error}");
}

#[test]
fn what_contradicts_itself_is_refused() {
    let cases: &[(&[(&'static str, &str)], &str)] = &[
        (&[("etcd-certfile", "/c")], "etcd-keyfile"),
        (&[("etcd-endpoints", "http://a:1,https://b:1")], "http://a:1"),
        (&[("etcd-cafile", "/ca")], "http://127.0.0.1:2379"),
        (&[("etcd-username", "u")], "password"),
        (&[("etcd-username", "u"), ("etcd-password", "p"), ("etcd-password-file", "/p")], "not both"),
        (&[("network", "")], "ipv6-network"),
    ];
    for (flags, word) in cases {
        let error = load(flags, &[], "").unwrap_err();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn a_password_comes_from_its_file_and_is_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("password");
    std::fs::write(&path, "secret\n").unwrap();
    let config = load(&[("etcd-username", "u"), ("etcd-password-file", path.to_str().unwrap())], &[], "").unwrap();
    assert_eq!(config.etcd.user, Some(("u".into(), "secret".into())));
    let config = load(&[("etcd-username", "u"), ("etcd-password", "secret")], &[], "").unwrap();
    assert_eq!(origin(&config, "etcd-password").0, "***");
    assert!(!format!("{:?}", config.etcd).contains("secret"));
}

#[test]
fn flannels_file_gives_the_network() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    std::fs::write(path, r#"{"network": "10.9.0.0/16", "Netwrok": 1, "Backend": {"Type": "vxlan", "VNI": 7}}"#)
        .unwrap();
    let config = load(&[("net-config-path", path)], &[], "").unwrap();
    assert_eq!(config.network.pools.v4.unwrap().network(), "10.9.0.0/16".parse().unwrap());
    let from = format!("net-conf {path}");
    assert_eq!(origin(&config, "network"), ("10.9.0.0/16".into(), from.clone()));
    assert_eq!(origin(&config, "vni"), ("7".into(), from));
    assert!(config.warnings.iter().any(|warning| warning.contains(path) && warning.contains("Netwrok")));
    std::fs::write(path, r#"{"Network": "10.9.0.0"}"#).unwrap();
    let error = load(&[("net-config-path", path)], &[], "").unwrap_err();
    assert!(error.contains(path) && error.contains("Network"), "{error}");
    let error = load(&[("net-config-path", "/nonexistent/net-conf.json")], &[], "").unwrap_err();
    assert!(error.contains("/nonexistent/net-conf.json"), "{error}");
}
