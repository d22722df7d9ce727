//! How the API is reached when nobody says anything about it.

use super::*;
use crate::bootstrap::stable_name;

#[test]
fn p0_18_without_a_word_others_can_join_the_control_plane_and_the_api_has_a_name() {
    let config = init(&InitFlags::default(), &facts()).unwrap();
    assert_eq!(config.cluster.control_plane_endpoint, Some(("192.0.2.7".to_owned(), 6443)));
    assert_eq!(config.cluster.api_server.cert_sans, ["api.weft.internal"]);
    // kubeadm's join, renewals and upgrades go by what is uploaded.
    let uploaded = read_uploaded(&uploaded(&config.cluster_configuration).unwrap()).unwrap();
    assert_eq!(uploaded.configuration.control_plane_endpoint.as_deref(), Some("192.0.2.7:6443"));
    assert!(stable_name::is_known(&uploaded.cluster));

    let v6 = init(&init_flags("--node-ip 2001:db8::7 --service-cidr fd00::/112"), &facts()).unwrap();
    assert_eq!(v6.cluster_configuration.control_plane_endpoint.as_deref(), Some("[2001:db8::7]:6443"));
    let given = init(
        &init_flags("--control-plane-endpoint lb.example --apiserver-cert-extra-sans A.example,api.weft.internal"),
        &facts(),
    );
    let given = given.unwrap().cluster;
    assert_eq!(given.control_plane_endpoint, Some(("lb.example".to_owned(), 6443)));
    assert_eq!(given.api_server.cert_sans, ["a.example", "api.weft.internal"], "once");
    let text = "apiVersion: weft.dev/v1\nkind: WeftConfiguration\napiBalancer: false\n";
    let without = init_of(text, "--apiserver-cert-extra-sans a.example").unwrap().cluster;
    assert_eq!(without.api_server.cert_sans, ["a.example"]);
    for (port, flags, expected) in
        [(0, "", "apiBalancerPort is 0"), (7000, "--apiserver-bind-port 7000", "is the API server's")]
    {
        let text = format!("apiVersion: weft.dev/v1\nkind: WeftConfiguration\napiBalancerPort: {port}\n");
        let error = init_of(&text, flags).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
