//! Joining and resetting.

use super::*;

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
fn a_reset_has_its_defaults() {
    let config = reset(&ResetFlags { force: Some(true), ..ResetFlags::default() }, &facts()).unwrap();
    assert_eq!(config.reset.certificates_dir.as_deref(), Some("/etc/kubernetes/pki"));
    assert_eq!(config.reset.cri_socket.as_deref(), Some("unix:///var/run/containerd/containerd.sock"));
    assert_eq!(config.reset.force, Some(true));
}
