//! Documents as they are read and written.

use super::*;

#[test]
fn c01_what_is_printed_is_valid() {
    let all = [Defaults::Init, Defaults::Join, Defaults::Reset];
    for (which, with_weft) in all.into_iter().flat_map(|which| [(which, false), (which, true)]) {
        let text = print_defaults(which, with_weft);
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
