//! What of a Service's JSON becomes of it.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::{ParseError, Parsed, service};
use crate::cluster::services::{Interner, ObjectName, Protocol, Service, TrafficPolicy};
use crate::cluster::{Family, PerFamily};

/// Reads a Service `default/web` with these members in `spec` beside a cluster IP and port 80.
fn web(spec: Value) -> Result<Parsed<Service>, ParseError> {
    let mut all = json!({"clusterIP": "172.30.0.41", "ports": [{"port": 80}]});
    let Value::Object(members) = spec else { panic!("{spec}") };
    all.as_object_mut().unwrap().extend(members);
    read(&json!({"metadata": {"namespace": "default", "name": "web"}, "spec": all}))
}

fn read(object: &Value) -> Result<Parsed<Service>, ParseError> {
    service(object.to_string().as_bytes(), None, &mut Interner::default())
}

fn ours(spec: Value) -> Service {
    let parsed = web(spec).unwrap();
    assert_eq!(parsed.warnings, Vec::<String>::new());
    parsed.object.unwrap()
}

fn fault(spec: Value) -> String {
    web(spec).unwrap_err().to_string()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn t01_a_whole_service_of_the_api() {
    let object = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop", "uid": "x", "creationTimestamp": "2026-01-31T12:00:00Z",
            "labels": {"app": "web"}, "annotations": null, "managedFields": [{"manager": "kubectl"}]},
        "spec": {"type": "LoadBalancer", "clusterIP": "172.30.0.41", "clusterIPs": ["172.30.0.41", "fd00:30::41"],
            "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack", "selector": {"app": "web"},
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": "web", "nodePort": 30001}],
            "externalIPs": ["192.168.99.22"], "loadBalancerSourceRanges": ["203.0.113.0/24", "fd01::/16"],
            "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Cluster", "healthCheckNodePort": 31000,
            "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}},
        "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4", "ipMode": "VIP"}, {"hostname": "lb.example.org"}]}}
    });
    let parsed = read(&object).unwrap();
    assert_eq!(parsed.warnings, Vec::<String>::new());
    let service = parsed.object.unwrap();
    assert_eq!(service.name, ObjectName::new("shop", "web"));
    assert_eq!(&*service.created, "2026-01-31T12:00:00Z");
    assert_eq!(service.cluster_ips, PerFamily { v4: Some(ip("172.30.0.41")), v6: Some(ip("fd00:30::41")) });
    let [port] = service.ports.as_slice() else { panic!("{:?}", service.ports) };
    assert_eq!((&*port.name, port.protocol, port.port, port.node_port), ("http", Protocol::Tcp, 80, Some(30001)));
    assert_eq!(service.external_ips, [ip("192.168.99.22")]);
    assert_eq!(service.load_balancer_ips, [ip("1.2.3.4")]);
    assert_eq!(service.source_ranges, ["203.0.113.0/24".parse().unwrap(), "fd01::/16".parse().unwrap()]);
    assert_eq!((service.internal, service.external), (TrafficPolicy::Cluster, TrafficPolicy::Local));
    assert_eq!(service.health_check_node_port, Some(31000));
    assert_eq!(service.affinity, Some(Duration::from_secs(60)));
}

#[test]
fn null_is_nothing_and_defaults_are_the_apis() {
    let service = ours(json!({
        "externalIPs": null, "loadBalancerSourceRanges": null, "ipFamilies": null, "clusterIPs": null,
        "sessionAffinity": "ClientIP", "sessionAffinityConfig": null, "internalTrafficPolicy": null,
        "ports": [{"port": 53, "name": null, "protocol": null, "nodePort": 0}]
    }));
    assert_eq!(service.affinity, Some(Duration::from_secs(10_800)));
    assert_eq!((service.internal, service.external), (TrafficPolicy::Cluster, TrafficPolicy::Cluster));
    assert_eq!((&*service.ports[0].name, service.ports[0].protocol), ("", Protocol::Tcp));
    assert_eq!(service.ports[0].node_port, None);
}

#[test]
fn headless_services_are_not_ours() {
    for spec in [
        json!({"clusterIP": "None", "clusterIPs": ["None"]}),
        json!({"clusterIP": "None"}),
        json!({"clusterIP": ""}),
        json!({"clusterIP": null}),
    ] {
        let parsed = web(spec.clone()).unwrap();
        assert_eq!((parsed.object, parsed.warnings.len()), (None, 0), "{spec}");
        assert_eq!(parsed.name, ObjectName::new("default", "web"));
    }
}

#[test]
fn t09_an_external_name_is_not_ours_even_with_a_cluster_ip() {
    let parsed = web(json!({"type": "ExternalName", "externalName": "example.org", "ports": [{"port": 0}]})).unwrap();
    assert_eq!(parsed.object, None);
    ours(json!({"type": "ClusterIP", "externalName": ""}));
}

#[test]
fn t10_a_service_of_another_proxy_is_not_ours() {
    for value in ["x", ""] {
        let labels = json!({"service.kubernetes.io/service-proxy-name": value});
        let metadata = json!({"namespace": "default", "name": "web", "labels": labels});
        let spec = json!({"clusterIP": "172.30.0.41", "ports": [{"port": 80}]});
        assert_eq!(read(&json!({"metadata": metadata, "spec": spec})).unwrap().object, None);
    }
}

#[test]
fn t25_cluster_ips_go_with_their_families() {
    let v6_only = ours(json!({"clusterIP": "fd00:30::41", "clusterIPs": ["fd00:30::41"], "ipFamilies": ["IPv6"]}));
    assert_eq!(v6_only.cluster_ips, PerFamily { v4: None, v6: Some(ip("fd00:30::41")) });
    let v6_first = ours(json!({"clusterIPs": ["fd00:30::41", "172.30.0.41"], "ipFamilies": ["IPv6", "IPv4"]}));
    assert_eq!(v6_first.cluster_ips, PerFamily { v4: Some(ip("172.30.0.41")), v6: Some(ip("fd00:30::41")) });
    let legacy = ours(json!({"clusterIP": "fd00:30::41"}));
    assert_eq!(legacy.cluster_ips.families().collect::<Vec<_>>(), [Family::V6]);
}

#[test]
fn an_address_of_the_wrong_family_is_named() {
    assert_eq!(
        fault(json!({"clusterIPs": ["fd00:30::41"], "ipFamilies": ["IPv4"]})),
        r#"Service default/web: spec.clusterIPs[0] is "fd00:30::41"; expected an IPv4 address, as spec.ipFamilies[0] says"#
    );
    assert_eq!(
        fault(json!({"clusterIPs": ["10.0.0.1", "10.0.0.2"]})),
        r#"Service default/web: spec.clusterIPs[1] is "10.0.0.2"; expected one IPv4 address at most"#
    );
}

#[test]
fn ports_out_of_range_are_named() {
    let expected = "expected a port, 1 to 65535";
    for (ports, field) in [
        (json!([{"port": 0}]), "spec.ports[0].port is 0"),
        (json!([{}]), "spec.ports[0].port is 0"),
        (json!([{"port": 80}, {"name": "b", "port": 65536}]), "spec.ports[1].port is 65536"),
        (json!([{"port": 80, "nodePort": -1}]), "spec.ports[0].nodePort is -1"),
    ] {
        assert_eq!(fault(json!({"ports": ports})), format!("Service default/web: {field}; {expected}"));
    }
    assert!(fault(json!({"ports": [{"port": 80}, {"port": 81}]})).contains("spec.ports[1].name"));
}

#[test]
fn other_fields_that_cannot_be_are_named() {
    for (spec, named) in [
        (json!({"clusterIP": "web"}), r#"spec.clusterIP is "web"; expected an IP address"#),
        (json!({"clusterIP": "0.0.0.0"}), "spec.clusterIP is"),
        (json!({"clusterIP": "127.0.0.1"}), "spec.clusterIP is"),
        (json!({"ipFamilies": ["ipv4"]}), r#"spec.ipFamilies[0] is "ipv4"; expected IPv4 or IPv6"#),
        (json!({"ports": [{"port": 80, "protocol": "tcp"}]}), r#"protocol is "tcp"; expected TCP, UDP or SCTP"#),
        (json!({"internalTrafficPolicy": "Node"}), "spec.internalTrafficPolicy"),
        (json!({"sessionAffinity": "Cookie"}), "spec.sessionAffinity"),
        (
            json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86401}}}),
            "timeoutSeconds is 86401; expected 1 to 86400 (seconds)",
        ),
    ] {
        let text = fault(spec);
        assert!(text.contains(named), "{text}");
    }
}

#[test]
fn garbled_json_is_named_with_its_place() {
    let key = ObjectName::new("default", "web");
    let text = |json: &[u8]| service(json, Some(&key), &mut Interner::default()).unwrap_err().to_string();
    let number = br#"{"metadata": {"name": "web"},
        "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": "80"}]}}"#;
    assert_eq!(
        text(number),
        r#"Service default/web is not readable at "port": invalid type: string "80", expected i64 at line 2 column 65"#
    );
    assert!(text(b"notjson").starts_with("Service default/web is not readable: expected"));
    assert!(text(b"").contains("EOF"));
    assert!(text(b"[1, 2]").contains("Service default/web"));
    assert!(text(&[0xff, 0xfe]).contains("Service default/web"));
    assert!(text(br#"{"kind": "Endpoints"}"#).contains(r#"kind is "Endpoints"; expected Service"#));
    assert!(
        text(br#"{"metadata": {"name": "other"}}"#)
            .contains(r#"metadata.name is "other"; expected the name in the key"#)
    );
    let nameless = service(b"{}", None, &mut Interner::default()).unwrap_err().to_string();
    assert!(nameless.contains("metadata.namespace"), "{nameless}");
}

#[test]
fn t69_ip_mode_proxy_is_no_frontend() {
    let mut object = json!({"metadata": {"namespace": "default", "name": "web"},
        "spec": {"type": "LoadBalancer", "clusterIP": "172.30.0.41", "ports": [{"port": 80}]}});
    object["status"] = json!({"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}, {"ip": "1.2.3.5", "ipMode": "Proxy"}]}});
    assert_eq!(read(&object).unwrap().object.unwrap().load_balancer_ips, [ip("1.2.3.4")]);
}

#[test]
fn t73_source_ranges_are_trimmed_and_a_bad_one_costs_only_itself() {
    let service = ours(json!({"loadBalancerSourceRanges": [" 10.0.0.0/8 ", "fd00::/8\n"]}));
    assert_eq!(service.source_ranges, ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
    let parsed = web(json!({"loadBalancerSourceRanges": ["10.0.0.0/8", "office"]})).unwrap();
    assert_eq!(parsed.object.unwrap().source_ranges.len(), 1);
    assert_eq!(
        parsed.warnings,
        [
            r#"Service default/web: spec.loadBalancerSourceRanges[1] is "office"; expected a network such as 10.0.0.0/8; left out"#
        ]
    );
}

#[test]
fn source_ranges_that_are_all_bad_open_nothing() {
    let object = json!({"metadata": {"namespace": "default", "name": "web"},
        "spec": {"clusterIP": "172.30.0.41", "ports": [{"port": 80}], "loadBalancerSourceRanges": ["office"]},
        "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}});
    let parsed = read(&object).unwrap();
    assert_eq!(parsed.object.unwrap().load_balancer_ips, [] as [IpAddr; 0]);
    assert!(parsed.warnings[1].contains("not served"), "{:?}", parsed.warnings);
}

#[test]
fn t105_leading_zeros_wherever_an_address_stands() {
    let object = json!({"metadata": {"namespace": "default", "name": "web"},
        "spec": {"clusterIP": "172.30.0.041", "ports": [{"port": 80}], "externalIPs": ["192.168.099.022"],
            "loadBalancerSourceRanges": ["203.0.113.000/025"]},
        "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.004"}]}}});
    let parsed = read(&object).unwrap();
    assert_eq!(parsed.warnings, Vec::<String>::new());
    let service = parsed.object.unwrap();
    assert_eq!(service.cluster_ips.v4, Some(ip("172.30.0.41")));
    assert_eq!(service.external_ips, [ip("192.168.99.22")]);
    assert_eq!(service.source_ranges, ["203.0.113.0/25".parse().unwrap()]);
    assert_eq!(service.load_balancer_ips, [ip("1.2.3.4")]);
}

#[test]
fn bad_external_ips_cost_only_themselves() {
    let parsed = web(json!({"externalIPs": ["192.0.2.7", "web", "127.0.0.1", "169.254.1.1", "fe80::1"]})).unwrap();
    assert_eq!(parsed.object.unwrap().external_ips, [ip("192.0.2.7")]);
    assert_eq!(parsed.warnings.len(), 4);
}

#[test]
fn t79_a_health_check_port_only_with_a_load_balancer_and_policy_local() {
    let spec = |kind, policy| json!({"type": kind, "externalTrafficPolicy": policy, "healthCheckNodePort": 31000});
    assert_eq!(ours(spec("LoadBalancer", "Local")).health_check_node_port, Some(31000));
    assert_eq!(ours(spec("LoadBalancer", "Cluster")).health_check_node_port, None);
    assert_eq!(ours(spec("NodePort", "Local")).health_check_node_port, None);
}

#[test]
fn the_scheduler_is_ours_before_kube_routers() {
    let with = |annotations: Value| {
        let metadata = json!({"namespace": "default", "name": "web", "annotations": annotations});
        let object = json!({"metadata": metadata, "spec": {"clusterIP": "172.30.0.41"}});
        read(&object).unwrap().object.unwrap().scheduler
    };
    assert_eq!(with(json!({"kube-router.io/service.scheduler": "mh"})).as_deref(), Some("mh"));
    let both = json!({"kube-router.io/service.scheduler": "mh", "weft.dev/ipvs-scheduler": "lc"});
    assert_eq!(with(both).as_deref(), Some("lc"));
    assert_eq!(with(json!({"weft.dev/ipvs-scheduler": ""})), None);
}
