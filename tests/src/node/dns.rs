//! The cluster's DNS: CoreDNS as clusters have it, and as much of RFC 1035 as a question for an address needs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
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

/// What is asked for: an address of either family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    /// IPv4.
    A,
    /// IPv6.
    Aaaa,
}

impl Record {
    /// The one that holds such an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::A } else { Self::Aaaa }
    }

    /// Its number in messages (RFC 1035, 3.2.2; RFC 3596, 2.1).
    fn number(self) -> u8 {
        match self {
            Self::A => 1,
            Self::Aaaa => 28,
        }
    }
}

/// Asks a DNS server for the address of a name.
///
/// # Errors
/// When there is no answer, or none with one address.
pub fn lookup(from: &Netns, server: IpAddr, name: &str, record: Record) -> Result<IpAddr> {
    let answer = from.run(|| exchange(server, &question(name, record)?))??;
    address(&answer, record).with_context(|| format!("no {record:?} for {name} in {answer:?}"))
}

fn exchange(server: IpAddr, question: &[u8]) -> Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.send_to(question, (server, 53))?;
    let mut answer = vec![0; 512];
    let length = wait::uninterrupted(|| socket.recv(&mut answer))?;
    answer.truncate(length);
    Ok(answer)
}

/// One question of class IN, with the wish that the server asks on.
fn question(name: &str, record: Record) -> Result<Vec<u8>> {
    let mut message = vec![0x77, 0x65, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len())?);
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, record.number(), 0, 1]);
    Ok(message)
}

/// The address of an answer with one record, which ends the message: its length and the address.
fn address(answer: &[u8], record: Record) -> Option<IpAddr> {
    let records = answer.get(6..12)?;
    let length: u8 = if record == Record::A { 4 } else { 16 };
    let (before, address) = answer.split_at_checked(answer.len().checked_sub(length.into())?)?;
    let address = match record {
        Record::A => <[u8; 4]>::try_from(address).ok()?.into(),
        Record::Aaaa => <[u8; 16]>::try_from(address).ok()?.into(),
    };
    (records == [0, 1, 0, 0, 0, 0] && before.ends_with(&[0, length])).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_with_one_address_and_others() {
        let mut answer = question("a.b", Record::A).unwrap();
        assert_eq!(answer.get(12..), Some(&[1, b'a', 1, b'b', 0, 0, 1, 0, 1][..]));
        assert_eq!(address(&answer, Record::A), None);
        answer[7] = 1;
        answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 96, 0, 1]);
        assert_eq!(address(&answer, Record::A), Some("10.96.0.1".parse().unwrap()));
        assert_eq!(address(&answer, Record::Aaaa), None);
        assert_eq!(address(&[0; 3], Record::A), None);
    }

    #[test]
    fn an_address_of_ipv6() {
        let mut answer = question("a", Record::of("::".parse().unwrap())).unwrap();
        assert!(answer.ends_with(&[0, 28, 0, 1]), "{answer:?}");
        answer[7] = 1;
        answer.extend_from_slice(&[0xc0, 12, 0, 28, 0, 1, 0, 0, 0, 5, 0, 16]);
        let one: Ipv6Addr = "fd00:10:96::1".parse().unwrap();
        answer.extend_from_slice(&one.octets());
        assert_eq!(address(&answer, Record::Aaaa), Some(one.into()));
    }
}
