//! Values, their origin, and the rules that they have to keep.

use super::*;

#[test]
fn an_init_without_a_word_has_all_that_it_needs() {
    let config = init(&InitFlags::default(), &facts()).unwrap();
    let cluster = &config.cluster;
    assert_eq!(cluster.kubernetes_version, "v1.36.2");
    assert_eq!(cluster.service_subnets, ["10.96.0.0/12".parse().unwrap()]);
    assert_eq!(cluster.pod_subnets, ["10.244.0.0/16".parse().unwrap()]);
    assert_eq!((cluster.dns_domain.as_str(), cluster.name.as_str()), ("cluster.local", "kubernetes"));
    assert_eq!(cluster.encryption, model::EncryptionAlgorithm::EcdsaP256);
    assert_eq!(cluster.certificate_validity, Duration::from_secs(365 * 86_400));
    assert_eq!(cluster.dns, Some(("registry.k8s.io/coredns/coredns".to_owned(), "v1.14.2".to_owned())));
    let EtcdPlace::Local { image, data_dir, .. } = &cluster.etcd else { panic!("{:?}", cluster.etcd) };
    assert_eq!((image.as_str(), data_dir.to_str()), ("registry.k8s.io/etcd:3.6.8-0", Some("/var/lib/etcd")));
    let node = &config.node;
    assert_eq!((node.name.as_str(), node.hostname.as_str()), ("node-1", "node-1"));
    assert_eq!((node.address, node.bind_port), ("192.0.2.7".parse::<IpAddr>().unwrap(), 6443));
    assert_eq!(node.cri_socket, "unix:///var/run/containerd/containerd.sock");
    assert_eq!(node.taints.len(), 1);
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.weft, WeftOptions::default());
    let token = &config.init.bootstrap_tokens[0];
    assert_eq!((token.token.as_str(), token.ttl.as_deref()), ("fresh0.0123456789abcdef", Some("24h0m0s")));
    assert_eq!(token.groups, [NODE_TOKEN_GROUP]);
    assert!(!config.is_token_given);
}

#[test]
fn c05_ports_that_are_none_are_refused_before_anything_else() {
    for port in ["foobar", "100000", "-6000", "0"] {
        let parsed = Init::try_parse_from(["weft", "--apiserver-bind-port", port]);
        let joined = format!("--apiserver-bind-port={port}");
        assert!(parsed.is_err() && Init::try_parse_from(["weft", &joined]).is_err(), "{port}");
    }
    let text = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\nlocalAPIEndpoint: {bindPort: 100000}\n";
    let error = init_of(text, "").unwrap_err().to_string();
    assert!(error.contains("bindPort is the number 100000; expected a whole number from 0 to 65535"), "{error}");
}

#[test]
fn c06_ranges_that_cannot_be_are_refused_with_the_rule() {
    for (flags, rule) in [
        ("--service-cidr 10.96.0.0/8", "at most /12"),
        ("--service-cidr 10.96.0.0/29", "at least 10 addresses"),
        ("--service-cidr fd00::/64 --node-ip 2001:db8::7", "at most /108"),
        ("--pod-network-cidr 10.1.0.0/25", "room for a node's /24"),
        ("--pod-network-cidr 10.0.0.0/7", "may be at most 16 bits longer"),
        ("--pod-network-cidr 10.1.0.0/29", "at least 14 addresses"),
        ("--pod-network-cidr 10.1.0.0/16,10.2.0.0/16", "one of each family"),
        ("--service-cidr 10.96.0.0/12,10.112.0.0/16", "one of each family"),
        ("--pod-network-cidr 10.96.0.0/16", "does not overlap serviceSubnet"),
        ("--pod-network-cidr fd00::/48 --service-cidr 10.96.0.0/12", "of the family of serviceSubnet"),
        ("--service-cidr fd00::/112 --apiserver-advertise-address 192.0.2.7", "both of one family"),
    ] {
        let error = init(&init_flags(flags), &facts()).unwrap_err().to_string();
        assert!(error.contains(rule), "{flags}: {error}");
    }
    let narrow = cluster_file(
        "networking: {podSubnet: 10.1.0.0/25}\ncontrollerManager:\n  extraArgs: [{name: allocate-node-cidrs, value: 'false'}]\n",
    );
    assert!(init_of(&narrow, "").is_ok());
    let masked = cluster_file(
        "networking: {podSubnet: 10.1.0.0/25}\ncontrollerManager:\n  extraArgs: [{name: node-cidr-mask-size-ipv4, value: '26'}]\n",
    );
    assert!(init_of(&masked, "").is_ok());
}

#[test]
fn flags_go_over_the_file_and_each_value_knows_where_it_is_from() {
    let text = cluster_file("networking: {podSubnet: 10.1.0.0/16, dnsDomain: a.example}\n");
    let config =
        init_of(&text, "--pod-network-cidr 10.2.0.0/16 --token abcdef.0123456789abcdef --token-ttl 1h").unwrap();
    assert_eq!(config.cluster.pod_subnets, ["10.2.0.0/16".parse().unwrap()]);
    assert_eq!(config.cluster.dns_domain, "a.example");
    let token = &config.init.bootstrap_tokens[0];
    assert_eq!((token.token.as_str(), token.ttl.as_deref()), ("abcdef.0123456789abcdef", Some("1h0m0s")));
    assert!(config.is_token_given);
    let only_ttl = init(&init_flags("--token-ttl 2h"), &facts()).unwrap();
    assert_eq!(only_ttl.init.bootstrap_tokens[0].ttl.as_deref(), Some("2h0m0s"));
    assert!(!only_ttl.is_token_given);
    let origin = |path: &str| config.layers.origin(path).unwrap().to_string();
    assert_eq!(origin("ClusterConfiguration.networking.podSubnet"), "--pod-network-cidr");
    assert!(origin("ClusterConfiguration.networking.dnsDomain").ends_with("kubeadm.yaml:3:49"));
    assert_eq!(origin("ClusterConfiguration.clusterName"), "default");
    assert!(!format!("{config:?}").contains("0123456789abcdef"), "a token is shown");
}

#[test]
fn the_version_is_never_looked_up() {
    let config = init(&init_flags("--kubernetes-version stable-1"), &facts()).unwrap();
    assert_eq!(config.cluster.kubernetes_version, "v1.36.2");
    assert!(notices(&config.notices).contains("without asking the network"));
    let config = init(&init_flags("--kubernetes-version 1.35.1"), &facts()).unwrap();
    assert_eq!(config.cluster_configuration.kubernetes_version.as_deref(), Some("v1.35.1"));
}

#[test]
fn an_endpoint_gets_the_api_servers_port() {
    let endpoint = |flags: &str| init(&init_flags(flags), &facts()).unwrap().cluster.control_plane_endpoint;
    let own = endpoint("--apiserver-bind-port 8443");
    assert_eq!(own, Some(("192.0.2.7".to_owned(), 8443)), "without one nobody else could join the control plane");
    let with_port = endpoint("--control-plane-endpoint api.example --apiserver-bind-port 8443");
    assert_eq!(with_port, Some(("api.example".to_owned(), 8443)));
    let of_v6 = init(&init_flags("--control-plane-endpoint 2001:db8::9"), &facts()).unwrap();
    assert_eq!(of_v6.cluster_configuration.control_plane_endpoint.as_deref(), Some("[2001:db8::9]:6443"));
}

#[test]
fn tokens_of_the_file_are_completed_and_checked() {
    let tokens =
        |items: &str| format!("apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\nbootstrapTokens:\n{items}");
    let config = init_of(
        &tokens("- token: abcdef.0123456789abcdef\n  ttl: 0s\n- token: ghijkl.0123456789abcdef\n  usages: [signing]\n"),
        "",
    )
    .unwrap();
    let found = &config.init.bootstrap_tokens;
    assert_eq!((found[0].ttl.as_deref(), found[1].ttl.as_deref()), (Some("0s"), Some("24h0m0s")));
    assert_eq!((found[0].groups.len(), found[1].groups.len()), (1, 0));
    for (items, expected) in [
        ("- token: abc\n", "bootstrapTokens[0].token is missing or malformed"),
        ("- token: abcdef.0123456789abcdef\n  usages: [a]\n", "bootstrapTokens[0].usages is \"a\""),
        (
            "- token: abcdef.0123456789abcdef\n  usages: [signing]\n  groups: ['system:bootstrappers:a']\n",
            "no groups without",
        ),
        (
            "- token: abcdef.0123456789abcdef\n  groups: ['system:masters']\n",
            "bootstrapTokens[0].groups is \"system:masters\"",
        ),
        ("- token: abcdef.0123456789abcdef\n  ttl: 1h\n  expires: 2030-01-01T00:00:00Z\n", "both ttl and expires"),
    ] {
        let error = init_of(&tokens(items), "").unwrap_err().to_string();
        assert!(error.contains(expected), "{items}: {error}");
    }
}

#[test]
fn external_etcd_is_checked() {
    let etcd = |fields: &str| cluster_file(&format!("etcd:\n  external:\n    {fields}\n"));
    let config =
        init_of(&etcd("endpoints: ['https://a:2379']\n    caFile: /ca\n    certFile: /c\n    keyFile: /k"), "")
            .unwrap();
    assert!(matches!(config.cluster.etcd, EtcdPlace::External(_)));
    for (fields, expected) in [
        ("endpoints: []", "endpoints is empty"),
        ("endpoints: ['http://a:2379']\n    caFile: /ca", "https:// URL"),
        ("endpoints: ['https://a:2379']\n    certFile: /c", "only a part of"),
        ("endpoints: ['https://a:2379']\n    caFile: ca", "caFile is \"ca\"; expected an absolute path"),
    ] {
        let error = init_of(&etcd(fields), "").unwrap_err().to_string();
        assert!(error.contains(expected), "{fields}: {error}");
    }
}

#[test]
fn c09_coredns_image_is_deeper_only_in_kubernetes_own_registry() {
    let image = |flags: &str| init(&init_flags(flags), &facts()).unwrap().cluster.dns.unwrap().0;
    assert_eq!(image(""), "registry.k8s.io/coredns/coredns");
    assert_eq!(image("--image-repository r.example/k8s"), "r.example/k8s/coredns");
    let own =
        init_of(&cluster_file("imageRepository: r.example\ndns: {imageRepository: d.example, imageTag: v1}\n"), "")
            .unwrap();
    assert_eq!(own.cluster.dns, Some(("d.example/coredns".to_owned(), "v1".to_owned())));
}
