//! The cluster's DNS: CoreDNS as clusters have it, and as much of RFC 1035 as a question for an address needs.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use super::cluster::Cluster;
use crate::netns::Netns;
use crate::wait;

/// The program.
pub const PROGRAM: &str = "coredns";
/// Where kubelet tells pods that it is.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

const IMAGE: &str = "localhost/coredns:1";
const COREFILE: &str = ".:53 {\n  errors\n  ready :8181\n  kubernetes cluster.local in-addr.arpa ip6.arpa\n}\n";

/// Runs it with two replicas and waits until they are ready.
///
/// # Errors
/// When it cannot reach the API server through its Service, or does not start for another reason.
pub fn install(cluster: &Cluster, program: &Path) -> Result<()> {
    cluster.import_image(IMAGE, program)?;
    let named = |kind: &str, version: &str| json!({"apiVersion": version, "kind": kind, "metadata": {"name": "coredns", "namespace": "kube-system"}});
    let with = |mut object: serde_json::Value, fields: serde_json::Value| {
        for (key, value) in fields.as_object().into_iter().flatten() {
            object[key] = value.clone();
        }
        object
    };
    let rbac = "rbac.authorization.k8s.io";
    let read = ["list", "watch"];
    let role = json!({"rules": [
        {"apiGroups": [""], "resources": ["services", "namespaces"], "verbs": read},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read},
    ]});
    let binding = json!({
        "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "coredns"},
        "subjects": [{"kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system"}],
    });
    let container = json!({
        "name": "coredns", "image": IMAGE, "imagePullPolicy": "Never", "args": ["-conf", "/etc/coredns/Corefile"],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns"}],
    });
    let pod = json!({
        "serviceAccountName": "coredns", "containers": [container], "dnsPolicy": "Default",
        "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
    });
    let labels = json!({"app": "coredns"});
    let deployment = json!({"spec": {"replicas": 2, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod}}});
    let ports = [json!({"name": "dns", "port": 53, "protocol": "UDP"}), json!({"name": "tcp", "port": 53})];
    let service = json!({"spec": {"clusterIP": ADDRESS, "selector": labels, "ports": ports}});
    cluster.apply(&[
        named("ServiceAccount", "v1"),
        with(named("ClusterRole", &format!("{rbac}/v1")), role),
        with(named("ClusterRoleBinding", &format!("{rbac}/v1")), binding),
        with(named("ConfigMap", "v1"), json!({"data": {"Corefile": COREFILE}})),
        with(named("Deployment", "apps/v1"), deployment),
        with(named("Service", "v1"), service),
    ])?;
    cluster.pods_in("kube-system", "coredns", 2).map(drop)
}

/// Asks the cluster's DNS for the IPv4 address of a name.
///
/// # Errors
/// When there is no answer, or none with an address.
pub fn lookup(from: &Netns, name: &str) -> Result<IpAddr> {
    let answer = from.run(|| exchange(&question(name)?))??;
    address(&answer).with_context(|| format!("no address for {name} in {answer:?}"))
}

fn exchange(question: &[u8]) -> Result<Vec<u8>> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.send_to(question, (ADDRESS, 53))?;
    let mut answer = vec![0; 512];
    let length = wait::uninterrupted(|| socket.recv(&mut answer))?;
    answer.truncate(length);
    Ok(answer)
}

/// One question (type A, class IN), with the wish that the server asks on.
fn question(name: &str) -> Result<Vec<u8>> {
    let mut message = vec![0x77, 0x65, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len())?);
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, 1, 0, 1]);
    Ok(message)
}

/// The address of an answer with one record, which ends the message: its length (4) and the address.
fn address(answer: &[u8]) -> Option<IpAddr> {
    let records = answer.get(6..12)?;
    let (length, address) = answer.split_at_checked(answer.len().checked_sub(4)?)?;
    let octets = <[u8; 4]>::try_from(address).ok()?;
    (records == [0, 1, 0, 0, 0, 0] && length.ends_with(&[0, 4])).then(|| octets.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_with_one_address_and_others() {
        let mut answer = question("a.b").unwrap();
        assert_eq!(answer.get(12..), Some(&[1, b'a', 1, b'b', 0, 0, 1, 0, 1][..]));
        assert_eq!(address(&answer), None);
        answer[7] = 1;
        answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 96, 0, 1]);
        assert_eq!(address(&answer), Some("10.96.0.1".parse().unwrap()));
        assert_eq!(address(&[0; 3]), None);
    }
}
