//! Tables of configurations and what becomes of them.

use super::*;

fn conf(members: &str) -> Result<NetConf> {
    conf_with(members, &Args::default())
}

fn conf_with(members: &str, args: &Args) -> Result<NetConf> {
    let text = format!(r#"{{"cniVersion":"1.0.0","name":"net","type":"weft-cni"{members}}}"#);
    NetConf::parse(&Json::parse_object(text.as_bytes())?, args)
}

#[test]
fn an_empty_configuration_has_the_documented_defaults() {
    let conf = conf("").unwrap();
    assert_eq!(conf.bridge.name, "cni0");
    assert!(conf.bridge.is_gateway && conf.bridge.hairpin && !conf.bridge.is_default_gateway);
    assert_eq!((conf.bridge.mtu, conf.bridge.force_address), (None, None));
    assert_eq!(conf.subnet_file, PathBuf::from("/run/flannel/subnet.env"));
    assert_eq!(conf.base.state_dir, PathBuf::from("/run/weft/cni"));
    assert!(conf.etcd.is_none() && conf.ips.is_empty());
}

#[test]
fn t011_keys_in_any_case_and_nulls_as_absent() {
    let go = conf(
        r#","Bridge":"br1","MTU":1400,"IPAM":null,"RuntimeConfig":{"IPs":["10.1.0.7/24"],"MAC":"0a:58:01:02:03:04"}"#,
    );
    let specification =
        conf(r#","bridge":"br1","mtu":1400,"runtimeConfig":{"ips":["10.1.0.7/24"],"mac":"0a:58:01:02:03:04"}"#);
    assert_eq!(go.unwrap(), specification.unwrap());
    assert!(conf(r#","runtimeConfig":{"portMappings":null},"dns":{},"args":null"#).is_ok());
}

#[test]
fn t014_unknown_keys_pass_and_isolating_ones_are_code_2() {
    assert!(conf(r#","somethingElse":{"a":[1]},"capabilities":{"portMappings":true}"#).is_ok());
    assert!(conf(r#","macspoofchk":false,"vlan":0,"vlanTrunk":[],"preserveDefaultVlan":false"#).is_ok());
    for (members, key, value) in [
        (r#","macspoofchk":true"#, "macspoofchk", "true"),
        (r#","vlan":5"#, "vlan", "5"),
        (r#","preserveDefaultVlan":true"#, "preserveDefaultVlan", "true"),
        (r#","externalSetMarkChain":"KUBE-MARK-MASQ""#, "externalSetMarkChain", "KUBE-MARK-MASQ"),
        (r#","conditionsV4":["-s","10.0.0.0/8"]"#, "conditionsV4", "10.0.0.0/8"),
        (r#","conditionsV6":["-s","fd00::/8"]"#, "conditionsV6", "fd00::/8"),
        (
            r#","runtimeConfig":{"bandwidth":{"shapedSubnets":["10.0.0.0/8"]}}"#,
            "runtimeConfig.bandwidth.shapedSubnets",
            "10.0.0.0/8",
        ),
    ] {
        let error = conf(members).unwrap_err();
        assert_eq!(error.code, Code::UnsupportedField, "{error}");
        assert!(error.message.starts_with(&format!("{key}: ")) && error.message.contains(value), "{error}");
    }
}

#[test]
fn t015_bad_values_are_code_7_with_key_and_value() {
    for (members, words) in [
        (r#","hairpinMode":true,"promiscMode":true"#, "promiscMode: true"),
        (r#","mtu":67"#, "mtu: 67"),
        (r#","mtu":70000"#, "mtu: 70000"),
        (r#","mtu":-1"#, "mtu: -1"),
        (r#","mtu":"1500""#, r#"mtu: "1500""#),
        (r#","bridge":"a/b""#, r#"bridge: "a/b""#),
        (r#","bridge":7"#, "bridge: 7"),
        (r#","isGateway":"yes""#, r#"isGateway: "yes""#),
        (r#","subnetFile":"subnet.env""#, r#"subnetFile: "subnet.env""#),
        (r#","leaseCommand":"weft""#, r#"leaseCommand: "weft""#),
        (r#","etcd":{"endpoints":["10.0.0.1:2379"]}"#, r#"etcd.endpoints: "10.0.0.1:2379""#),
        (r#","runtimeConfig":{"mac":"01:00:5e:00:00:01"}"#, "runtimeConfig.mac: 01:00:5e:00:00:01"),
        (r#","args":{"cni":{"ips":["10.1.0.300"]}}"#, r#"args.cni.ips: "10.1.0.300""#),
        (
            r#","runtimeConfig":{"portMappings":[{"hostPort":0,"containerPort":1}]}"#,
            "runtimeConfig.portMappings.hostPort: 0",
        ),
    ] {
        let error = conf(members).unwrap_err();
        assert_eq!(error.code, Code::InvalidConfig, "{members}: {error}");
        assert!(error.message.starts_with(words), "{error}");
    }
}

#[test]
fn names_are_required_and_checked() {
    for text in [r#"{"cniVersion":"1.0.0"}"#, r#"{"name":""}"#] {
        let error = Base::parse(&Json::parse_object(text.as_bytes()).unwrap()).unwrap_err();
        assert!(error.message.starts_with("missing network name"), "{error}");
    }
    let error = Base::parse(&Json::parse_object(br#"{"name":"a/../b"}"#).unwrap()).unwrap_err();
    assert_eq!(error.code, Code::InvalidConfig);
}

#[test]
fn t041_the_runtime_has_the_last_word_on_the_mac() {
    let args = Args { mac: Some("0a:00:00:00:00:01".parse().unwrap()), ips: vec!["10.1.0.1".into()], pod: None };
    let named = r#","args":{"cni":{"mac":"0a:00:00:00:00:02","ips":["10.1.0.2"]}}"#;
    let runtime = format!(r#"{named},"runtimeConfig":{{"mac":"0a:00:00:00:00:03","ips":["10.1.0.3/24"]}}"#);
    let mac = |members: &str| conf_with(members, &args).unwrap().mac.unwrap().to_string();
    assert_eq!(mac(""), "0a:00:00:00:00:01");
    assert_eq!(mac(named), "0a:00:00:00:00:02");
    assert_eq!(mac(&runtime), "0a:00:00:00:00:03");
    let ips: Vec<_> = conf_with(&runtime, &args).unwrap().ips.iter().map(|ip| ip.ip.to_string()).collect();
    assert_eq!(ips, ["10.1.0.1", "10.1.0.2", "10.1.0.3"]);
}

#[test]
fn t121_gc_keeps_nothing_for_null_and_refuses_to_guess() {
    let read = |members: &str| {
        let json = Json::parse_object(format!(r#"{{"name":"n"{members}}}"#).as_bytes()).unwrap();
        valid_attachments(&Base::parse(&json).unwrap(), &json)
    };
    assert_eq!(read(r#","cni.dev/valid-attachments":null"#).unwrap(), []);
    assert_eq!(read(r#","cni.dev/valid-attachments":[]"#).unwrap(), []);
    assert_eq!(read(r#","cni.dev/attachments":[{"containerID":"c","ifname":"eth0"}]"#).unwrap().len(), 1);
    assert_eq!(read("").unwrap_err().code, Code::InvalidConfig);
    assert_eq!(read(r#","cni.dev/valid-attachments":[{"containerID":"c"}]"#).unwrap_err().code, Code::InvalidConfig);
    assert_eq!(read(r#","cni.dev/valid-attachments":"all""#).unwrap_err().code, Code::InvalidConfig);
}

#[test]
fn the_configuration_in_manifests_is_one_that_we_read() {
    // As libcni hands it over: the plugin's object, with name and version of the list.
    let list: serde_json::Value = serde_json::from_str(include_str!("../../../manifests/10-weft.conflist")).unwrap();
    let mut plugin = list["plugins"][0].clone();
    plugin["name"] = list["name"].clone();
    plugin["cniVersion"] = list["cniVersion"].clone();
    let json = Json::parse_object(plugin.to_string().as_bytes()).unwrap();
    let conf = NetConf::parse(&json, &Args::default()).unwrap();
    assert_eq!(conf.etcd.unwrap().endpoints, ["http://192.0.2.10:2379"]);
    assert_eq!(conf.lease_command.unwrap().to_str(), Some("/usr/local/bin/weft"));
}

#[test]
fn t011_host_ports_and_what_portmap_would_be_told_about_them() {
    let portmap = r#","snat":false,"masqAll":true,"markMasqBit":13,"backend":"iptables""#;
    let mapped =
        r#","runtimeConfig":{"PortMappings":[{"HostPort":80,"ContainerPort":81,"Protocol":"tcp","HostIP":""}]}"#;
    let ports = conf(&format!("{portmap}{mapped}")).unwrap().host_ports;
    assert_eq!((ports.mappings.len(), ports.snat, ports.masq_all), (1, false, true));
    let ports = conf(mapped).unwrap().host_ports;
    assert_eq!((ports.mappings.len(), ports.snat, ports.masq_all), (1, true, false));
    assert!(conf("").unwrap().host_ports.is_empty());
}
