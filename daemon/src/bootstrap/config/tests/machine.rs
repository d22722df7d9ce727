//! What the machine has to say.

use super::*;

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
