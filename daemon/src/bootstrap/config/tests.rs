//! The whole way, from text and flags to what the rooms work from.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use tempfile::TempDir;

use super::address::tests::machine;
use super::*;
use crate::bootstrap::resolved::{EtcdPlace, Limits};

mod api;

#[derive(Debug, Parser)]
struct Init {
    #[command(flatten)]
    flags: InitFlags,
}

#[derive(Debug, Parser)]
struct Join {
    #[command(flatten)]
    flags: JoinFlags,
}

const PIN: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn facts() -> Facts {
    Facts {
        hostname: "Node-1".to_owned(),
        machine: machine(
            &[("lo", "127.0.0.1/8"), ("eth0", "192.0.2.7/24"), ("eth1", "2001:db8::7/64")],
            &[(2, 100), (3, 1024)],
        ),
        cri_sockets: vec![PathBuf::from("/var/run/containerd/containerd.sock")],
        token: Secret("fresh0.0123456789abcdef".to_owned()),
        real: true,
    }
}

fn init_flags(flags: &str) -> InitFlags {
    Init::try_parse_from(["weft"].into_iter().chain(flags.split_whitespace())).unwrap().flags
}

fn join_flags(flags: &str) -> JoinFlags {
    Join::try_parse_from(["weft"].into_iter().chain(flags.split_whitespace())).unwrap().flags
}

fn file(text: &str) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kubeadm.yaml");
    fs::write(&path, text).unwrap();
    (dir, path)
}

fn init_of(text: &str, flags: &str) -> Result<InitConfig, ConfigError> {
    let (_dir, path) = file(text);
    let mut flags = init_flags(flags);
    flags.node.config = Some(path);
    init(&flags, &facts())
}

fn cluster_file(fields: &str) -> String {
    format!("apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n{fields}")
}

fn notices(notices: &[Finding]) -> String {
    notices.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

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
fn c01_what_is_printed_is_valid() {
    let all = [Defaults::Init, Defaults::Join, Defaults::Reset];
    for (which, with_weft) in all.into_iter().flat_map(|which| [(which, false), (which, true)]) {
        let text = print_defaults(which, with_weft).unwrap();
        assert_eq!(text.contains(WEFT_API_VERSION), with_weft && which != Defaults::Reset, "{text}");
        assert!(text.contains("apiVersion: kubeadm.k8s.io/v1beta4"), "{text}");
        let (_dir, path) = file(&text);
        let notices = validate(&path).unwrap();
        assert_eq!(notices, [], "{text}");
    }
}

#[test]
fn c03_each_error_has_its_line_and_column() {
    let (_dir, path) =
        file(&cluster_file("networking:\n  podSubnet: a\n  podSubnett: b\n  podSubnet: 10.0.0.0/16\nclusterName: 5\n"));
    let error = validate(&path).unwrap_err().to_string();
    let lines: Vec<&str> = error.lines().map(|line| line.rsplit('/').next().unwrap()).collect();
    assert_eq!(
        lines,
        [
            "kubeadm.yaml:6:3: networking.podSubnet is there twice (first in line 4); the last one counts",
            "kubeadm.yaml:5:3: there is no field networking.podSubnett; did you mean podSubnet?",
            "kubeadm.yaml:7:14: clusterName is the number 5; expected text; put it in quotes",
        ],
        "{error}"
    );
    // Elsewhere only what cannot be is an error.
    let lenient = init_of(&cluster_file("networking:\n  podSubnett: b\n"), "").unwrap();
    assert!(notices(&lenient.notices).contains("did you mean podSubnet?"));
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
fn all_that_is_wrong_is_told_at_once_with_field_value_and_place() {
    let text = cluster_file(
        "certificatesDir: pki\ncontrolPlaneEndpoint: https://a\nimageRepository: http://b\napiServer:\n  certSANs: [ok.example, a_b]\n  extraArgs: [{value: x}]\n",
    );
    let error =
        init_of(&text, "--node-name A_B --service-dns-domain x_ --kubernetes-version v1.20.0").unwrap_err().to_string();
    for expected in [
        "kubeadm.yaml:3:18: certificatesDir is \"pki\"; expected an absolute path",
        "controlPlaneEndpoint is \"https://a\"",
        "imageRepository is \"http://b\"",
        "kubeadm.yaml:7:26: apiServer.certSANs[1] is \"a_b\"",
        "apiServer.extraArgs[0].name is missing",
        "--node-name: nodeRegistration.name is \"a_b\"",
        "--service-dns-domain: networking.dnsDomain is \"x_\"",
        "--kubernetes-version: kubernetesVersion is \"v1.20.0\"; expected v1.35.x or v1.36.x",
    ] {
        assert!(error.contains(expected), "{expected}\nis not in\n{error}");
    }
    assert_eq!(error.lines().count(), 8, "{error}");
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
    assert!(!format!("{:?}", config).contains("0123456789abcdef"), "a token is shown");
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
fn addresses_follow_the_family_of_the_cluster() {
    let v6 = init(&init_flags("--service-cidr fd00:1::/112"), &facts()).unwrap();
    assert_eq!(v6.node.address.to_string(), "2001:db8::7");
    assert_eq!(v6.cluster.pod_subnets, ["fd00:10:244::/48".parse().unwrap()]);
    let both = init(&init_flags("--pod-network-cidr 10.1.0.0/16,fd00:1::/48"), &facts()).unwrap();
    assert_eq!(both.cluster.service_subnets.len(), 2);
    let only_v6 = Facts { machine: machine(&[("eth0", "2001:db8::7/64")], &[(1, 1024)]), ..facts() };
    let config = init(&InitFlags::default(), &only_v6).unwrap();
    assert_eq!(config.cluster.service_subnets, ["fd00:10:96::/112".parse().unwrap()]);
    assert_eq!(config.node.local_endpoint(), "https://[2001:db8::7]:6443");
}

#[test]
fn a_choice_among_addresses_is_explained_and_can_be_made() {
    let two = Facts { machine: machine(&[("eth0", "10.0.2.15/24"), ("eth1", "192.0.2.7/24")], &[(1, 100)]), ..facts() };
    let config = init(&InitFlags::default(), &two).unwrap();
    let said = notices(&config.notices);
    assert!(said.contains("10.0.2.15, the address of eth0") && said.contains("192.0.2.7 (eth1)"), "{said}");
    for flags in ["--iface eth1", "--node-ip 192.0.2.7", "--apiserver-advertise-address 192.0.2.7"] {
        let config = init(&init_flags(flags), &two).unwrap();
        assert_eq!((config.node.address.to_string().as_str(), config.notices.len()), ("192.0.2.7", 0), "{flags}");
        let written = config.init.local_api_endpoint.advertise_address;
        assert_eq!(written.as_deref(), Some("192.0.2.7"), "{flags}");
    }
    let foreign = init(&init_flags("--apiserver-advertise-address 203.0.113.1"), &two).unwrap();
    assert!(notices(&foreign.notices).contains("no address of this machine"));
    for wrong in ["127.0.0.1", "169.254.1.1", "224.0.0.1"] {
        let error = init(&init_flags(&format!("--apiserver-advertise-address {wrong}")), &two).unwrap_err().to_string();
        assert!(error.contains(wrong) && error.contains("other nodes can send to"), "{error}");
    }
    let none = Facts { machine: machine(&[("lo", "127.0.0.1/8")], &[]), ..facts() };
    let error = init(&InitFlags::default(), &none).unwrap_err().to_string();
    assert!(error.contains("--node-ip"), "{error}");
}

#[test]
fn runtimes_are_found_and_several_are_a_question() {
    let sockets = |sockets: &[&str]| Facts { cri_sockets: sockets.iter().map(PathBuf::from).collect(), ..facts() };
    let crio = init(&InitFlags::default(), &sockets(&["/var/run/crio/crio.sock"])).unwrap();
    assert_eq!(crio.node.cri_socket, "unix:///var/run/crio/crio.sock");
    let two = sockets(&[CRI_SOCKETS[0], CRI_SOCKETS[1]]);
    let error = init(&InitFlags::default(), &two).unwrap_err().to_string();
    assert!(error.contains("--cri-socket") && error.contains("crio.sock"), "{error}");
    let chosen = init(&init_flags("--cri-socket /run/x.sock"), &two).unwrap();
    assert_eq!(chosen.node.cri_socket, "unix:///run/x.sock");
    let error = init(&init_flags("--cri-socket tcp://x"), &facts()).unwrap_err().to_string();
    assert!(error.contains("criSocket is \"tcp://x\""), "{error}");
    let empty = init(&InitFlags::default(), &sockets(&[])).unwrap();
    assert_eq!(empty.node.cri_socket, "unix:///var/run/containerd/containerd.sock");
}

#[test]
fn taints_left_out_are_the_roles_and_an_empty_list_is_none() {
    let registration = |fields: &str| {
        format!("apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\nnodeRegistration:\n  {fields}\n")
    };
    let taints = |fields: &str| init_of(&registration(fields), "").unwrap().node.taints.len();
    assert_eq!((taints("taints: []"), taints("taints: null"), taints("name: a")), (0, 1, 1));
    let config = init_of(&registration("kubeletExtraArgs: [{name: hostname-override, value: other}]"), "").unwrap();
    assert_eq!((config.node.name.as_str(), config.node.hostname.as_str()), ("other", "node-1"));
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
fn i04_what_is_uploaded_has_no_kube_proxy_and_no_skipped_coredns() {
    let config = init_of(
        &cluster_file("proxy: {disabled: false}\nclusterName: '1e3'\nfeatureGates: {NodeLocalCRISocket: true}\n"),
        "--skip-phases addon/coredns",
    )
    .unwrap();
    assert!(notices(&config.notices).contains("uploaded as true"));
    assert_eq!(config.cluster.dns, None);
    let text = uploaded(&config.cluster_configuration).unwrap();
    let read: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
    assert_eq!(read["proxy"]["disabled"], true);
    assert_eq!(read["dns"]["disabled"], true);
    assert_eq!(read["apiVersion"], "kubeadm.k8s.io/v1beta4");
    assert_eq!(read["certificateValidityPeriod"], "8760h0m0s");
    assert_eq!(read["etcd"]["local"]["dataDir"], "/var/lib/etcd");
    // kubeadm reads YAML 1.1, to which 1e3 is a number.
    assert!(text.contains("clusterName: \"1e3\"") || text.contains("clusterName: '1e3'"), "{text}");
    let again = read_uploaded(&text).unwrap();
    assert_eq!((again.cluster, again.configuration), (config.cluster, config.cluster_configuration));
}

#[test]
fn texts_that_yaml_1_1_misreads_are_quoted() {
    for text in
        ["on", "yes", "n", "0755", "1_000", "1e3", "123456", "1.36", "null", "~", "2001-01-01", "0x1f", "12:30:45", ""]
    {
        let config = model::ClusterConfiguration { cluster_name: Some(text.to_owned()), ..Default::default() };
        let written = uploaded(&config).unwrap();
        let quoted = [format!("clusterName: \"{text}\""), format!("clusterName: '{text}'")];
        assert!(quoted.iter().any(|line| written.contains(line)), "{written}");
    }
}

#[test]
fn what_kubeadm_has_uploaded_is_read() {
    let text = "apiServer:\n  extraArgs:\n    a: b\napiVersion: kubeadm.k8s.io/v1beta3\nkind: ClusterConfiguration\nkubernetesVersion: v1.33.1\n\
                controlPlaneEndpoint: api.example:8443\nnetworking:\n  serviceSubnet: 10.0.0.0/16\n";
    let found = read_uploaded(text).unwrap();
    assert_eq!(found.cluster.pod_subnets, []);
    assert_eq!(found.cluster.kubernetes_version, "v1.33.1");
    assert_eq!(found.cluster.encryption, model::EncryptionAlgorithm::Rsa2048);
    assert_eq!(found.cluster.control_plane_endpoint, Some(("api.example".to_owned(), 8443)));
    assert_eq!(found.cluster.api_server.component.extra_args[0].name, "a");
    assert!(read_uploaded("apiVersion: v1\nkind: Pod\n").unwrap_err().to_string().contains("no ClusterConfiguration"));
}

#[test]
fn a_worker_joins_by_the_printed_line() {
    let config = join(
        &join_flags(&format!("192.0.2.1:6443 --token abcdef.0123456789abcdef --discovery-token-ca-cert-hash {PIN}")),
        &facts(),
    )
    .unwrap();
    let discovery = config.join.discovery.bootstrap_token.as_ref().unwrap();
    assert_eq!(discovery.api_server_endpoint.as_deref(), Some("192.0.2.1:6443"));
    assert_eq!(config.join.discovery.tls_bootstrap_token.as_deref(), Some("abcdef.0123456789abcdef"));
    assert_eq!(config.join.ca_cert_path.as_deref(), Some("/etc/kubernetes/pki/ca.crt"));
    assert!(config.join.control_plane.is_none() && config.node.taints.is_empty());
    assert_eq!(config.node.address.to_string(), "192.0.2.7");
}

#[test]
fn a_control_plane_node_joins_with_its_own_endpoint() {
    let line = format!(
        "a.example:6443 --control-plane --apiserver-bind-port 8443 --certificate-key {} --discovery-token abcdef.0123456789abcdef --discovery-token-ca-cert-hash {PIN}",
        &PIN[7..]
    );
    let config = join(&join_flags(&line), &facts()).unwrap();
    let part = config.join.control_plane.as_ref().unwrap();
    assert_eq!(part.local_api_endpoint.advertise_address.as_deref(), Some("192.0.2.7"));
    assert_eq!((config.node.bind_port, config.node.taints.len()), (8443, 1));
    assert_eq!(part.certificate_key.as_deref(), Some(&PIN[7..]));
    assert_eq!(config.join.discovery.tls_bootstrap_token.as_deref(), Some("abcdef.0123456789abcdef"));
}

#[test]
fn joining_needs_a_way_to_the_cluster() {
    for (flags, expected) in [
        ("", "neither bootstrapToken nor file"),
        ("a.example:6443 --token abcdef.0123456789abcdef", "caCertHashes is empty"),
        (
            "a.example --token abcdef.0123456789abcdef --discovery-token-unsafe-skip-ca-verification",
            "apiServerEndpoint is \"a.example\"",
        ),
        (
            "a.example:6443 --token x --discovery-token-unsafe-skip-ca-verification",
            "bootstrapToken.token is not what it should be",
        ),
        (
            "a.example:6443 --discovery-file /f --discovery-token abcdef.0123456789abcdef",
            "both bootstrapToken and file",
        ),
        ("--discovery-file http://a/f", "an absolute path, or an https:// URL"),
        (
            &format!("a.example:6443 --token abcdef.0123456789abcdef --discovery-token-ca-cert-hash {}", &PIN[..20]),
            "caCertHashes[0]",
        ),
    ] {
        let error = join(&join_flags(flags), &facts()).unwrap_err().to_string();
        assert!(error.contains(expected), "{flags}: {error}");
        assert!(!error.contains("0123456789abcdef") || error.contains("sha256"), "a token is shown: {error}");
    }
    let by_file = join(&join_flags("--discovery-file file:///f --token abcdef.0123456789abcdef"), &facts()).unwrap();
    assert_eq!(by_file.join.discovery.file.unwrap().kube_config_path, "/f");
    assert!(by_file.join.discovery.bootstrap_token.is_none());
}

#[test]
fn wefts_own_options_come_from_its_document_and_flags() {
    let text = "apiVersion: weft.dev/v1\nkind: WeftConfiguration\nswap: limited\nimageMirrors: [m.example]\nwait: false\nimages: [/a]\nnodeIP: 192.0.2.7\n";
    let config = init_of(text, "--swap tolerate --fix --kubernetes-bin /bins").unwrap().weft;
    assert_eq!((config.swap, config.wait, config.fix), (Swap::Tolerate, false, true));
    assert_eq!(config.image_mirrors, ["m.example"]);
    assert_eq!((config.images, config.kubernetes_bin), (vec![PathBuf::from("/a")], Some(PathBuf::from("/bins"))));
    let error = init_of("apiVersion: weft.dev/v1\nkind: WeftConfiguration\nswap: maybe\nimageMirrors: ['a b']\n", "")
        .unwrap_err()
        .to_string();
    assert!(error.contains("swap is \"maybe\"; expected one of disable, tolerate, limited"), "{error}");
    assert!(error.contains("imageMirrors[0] is \"a b\""), "{error}");
}

#[test]
fn documents_of_others_are_kept_or_ignored() {
    let text = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: 42\n---\napiVersion: foo.example/v1\nkind: Foo\n---\n\
                {\"apiVersion\": \"kubeadm.k8s.io/v1beta4\", \"kind\": \"ClusterConfiguration\", \"clusterName\": \"json\"}\n";
    let config = init_of(text, "").unwrap();
    assert_eq!(config.kubelet.unwrap()["maxPods"], 42);
    assert_eq!(config.cluster.name, "json");
    assert!(notices(&config.notices).contains("Foo of foo.example/v1 is neither kubeadm's nor weft's"));
    for (text, expected) in [
        (
            "apiVersion: kubeadm.k8s.io/v1beta1\nkind: InitConfiguration\n",
            "expected kubeadm.k8s.io/v1beta2, v1beta3 or v1beta4",
        ),
        ("apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfig\n", "there is no kind InitConfig"),
        ("kind: InitConfiguration\n", "apiVersion of the document is missing"),
        ("- a\n", "the document is a list"),
        ("", "there is no document in it"),
        ("a: [1\n", "this is no YAML"),
    ] {
        let error = init_of(text, "").unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
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
fn a_reset_has_its_defaults() {
    let config = reset(&ResetFlags { force: Some(true), ..ResetFlags::default() }, &facts()).unwrap();
    assert_eq!(config.reset.certificates_dir.as_deref(), Some("/etc/kubernetes/pki"));
    assert_eq!(config.reset.cri_socket.as_deref(), Some("unix:///var/run/containerd/containerd.sock"));
    assert_eq!(config.reset.force, Some(true));
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
