//! The certificates of a cluster: kubeadm's table (1.36, `phases/certs/certlist.go`), as data.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::error::PkiError;
use super::profile::{AltNames, Profile, Purpose};
use crate::bootstrap::resolved::{Cluster, EtcdPlace, Node};

/// Base name of the key that service accounts' tokens are signed with: `sa.key`, `sa.pub`.
pub const SERVICE_ACCOUNTS: &str = "sa";

/// A certificate of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// What commands call it.
    pub name: &'static str,
    /// Its files below the certificates' directory, without `.crt` and `.key`.
    pub file: &'static str,
    /// Name of the authority that signs it; `None` for an authority, which signs itself.
    pub authority: Option<&'static str>,
    /// What it is for.
    pub about: &'static str,
    common_name: CommonName,
    purpose: Purpose,
    names: Names,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CommonName {
    Fixed(&'static str),
    Node,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    None,
    ApiServer,
    EtcdServer,
    EtcdPeer,
}

const fn authority(name: &'static str, file: &'static str, cn: &'static str, about: &'static str) -> Entry {
    let common_name = CommonName::Fixed(cn);
    Entry { name, file, authority: None, about, common_name, purpose: Purpose::Client, names: Names::None }
}

const fn client(
    name: &'static str,
    file: &'static str,
    ca: &'static str,
    cn: &'static str,
    about: &'static str,
) -> Entry {
    let common_name = CommonName::Fixed(cn);
    Entry { name, file, authority: Some(ca), about, common_name, purpose: Purpose::Client, names: Names::None }
}

const fn etcd(name: &'static str, file: &'static str, names: Names, about: &'static str) -> Entry {
    let common_name = CommonName::Node;
    Entry { name, file, authority: Some("etcd-ca"), about, common_name, purpose: Purpose::ServerAndClient, names }
}

/// All of them, each authority before what it signs.
pub static TABLE: [Entry; 10] = [
    authority("ca", "ca", "kubernetes", "the authority of the Kubernetes API"),
    Entry {
        name: "apiserver",
        file: "apiserver",
        authority: Some("ca"),
        about: "what the API server shows its clients",
        common_name: CommonName::Fixed("kube-apiserver"),
        purpose: Purpose::Server,
        names: Names::ApiServer,
    },
    client(
        "apiserver-kubelet-client",
        "apiserver-kubelet-client",
        "ca",
        "kube-apiserver-kubelet-client",
        "what the API server shows kubelets",
    ),
    authority("front-proxy-ca", "front-proxy-ca", "front-proxy-ca", "the authority of API aggregation"),
    client(
        "front-proxy-client",
        "front-proxy-client",
        "front-proxy-ca",
        "front-proxy-client",
        "what the API server shows aggregated API servers",
    ),
    authority("etcd-ca", "etcd/ca", "etcd-ca", "the authority of etcd"),
    etcd("etcd-server", "etcd/server", Names::EtcdServer, "what etcd shows its clients"),
    etcd("etcd-peer", "etcd/peer", Names::EtcdPeer, "what etcd's members show each other"),
    client(
        "etcd-healthcheck-client",
        "etcd/healthcheck-client",
        "etcd-ca",
        "kube-etcd-healthcheck-client",
        "what looks after etcd's health shows etcd",
    ),
    client(
        "apiserver-etcd-client",
        "apiserver-etcd-client",
        "etcd-ca",
        "kube-apiserver-etcd-client",
        "what the API server shows etcd",
    ),
];

/// The entry of that name.
///
/// # Errors
/// There is none; the error has all names.
pub fn find(name: &str) -> Result<&'static Entry, PkiError> {
    TABLE.iter().find(|entry| entry.name == name).ok_or_else(|| PkiError::Unknown {
        name: name.to_owned(),
        known: TABLE.iter().map(|entry| entry.name.to_owned()).collect(),
    })
}

/// Those that a node of this cluster has: without etcd's where somebody else runs etcd.
pub fn entries(cluster: &Cluster) -> impl Iterator<Item = &'static Entry> {
    let local = matches!(cluster.etcd, EtcdPlace::Local { .. });
    TABLE.iter().filter(move |entry| local || !entry.is_of_etcd())
}

impl Entry {
    /// Whether etcd's authority is it, or signs it.
    #[must_use]
    pub fn is_of_etcd(&self) -> bool {
        self.name == "etcd-ca" || self.authority == Some("etcd-ca")
    }

    /// What its certificate says on this node; `extra_sans` are further names of the API server.
    ///
    /// # Errors
    /// A name that does not fit into a certificate.
    pub fn profile(&self, cluster: &Cluster, node: &Node, extra_sans: &[String]) -> Result<Profile, PkiError> {
        let common_name = match self.common_name {
            CommonName::Fixed(name) => name,
            CommonName::Node => &node.name,
        };
        if self.authority.is_none() {
            return Profile::authority(common_name);
        }
        Profile::leaf(common_name, &[], &self.alt_names(cluster, node, extra_sans), self.purpose)
    }

    /// The names and addresses that its certificate has to hold for on this node.
    #[must_use]
    pub fn alt_names(&self, cluster: &Cluster, node: &Node, extra_sans: &[String]) -> AltNames {
        let (server, peer) = match &cluster.etcd {
            EtcdPlace::Local { config, .. } => (config.server_cert_sans.as_slice(), config.peer_cert_sans.as_slice()),
            EtcdPlace::External(_) => (&[][..], &[][..]),
        };
        match self.names {
            Names::None => AltNames::default(),
            Names::ApiServer => api_server(cluster, node, extra_sans),
            Names::EtcdServer => member(node, server),
            Names::EtcdPeer => member(node, peer),
        }
    }
}

fn api_server(cluster: &Cluster, node: &Node, extra_sans: &[String]) -> AltNames {
    let mut names = AltNames::default();
    names.add(&node.name);
    for suffix in ["", ".default", ".default.svc"] {
        names.add(&format!("kubernetes{suffix}"));
    }
    names.add(&format!("kubernetes.default.svc.{}", cluster.dns_domain));
    if let Some(address) = cluster.service_subnets.first().and_then(|subnet| first_address(*subnet)) {
        names.add_address(address);
    }
    names.add_address(node.address);
    if let Some((host, _)) = &cluster.control_plane_endpoint {
        names.add(host);
    }
    for name in cluster.api_server.cert_sans.iter().chain(extra_sans) {
        names.add(name);
    }
    names
}

fn member(node: &Node, further: &[String]) -> AltNames {
    let mut names = AltNames::default();
    names.add(&node.name);
    names.add("localhost");
    names.add_address(node.address);
    names.add("127.0.0.1");
    names.add("::1");
    for name in further {
        names.add(name);
    }
    names
}

/// The first address of a range that is not the network's own: the ClusterIP of Service `kubernetes`.
fn first_address(subnet: IpNetwork) -> Option<IpAddr> {
    match subnet {
        IpNetwork::V4(v4) => Some(IpAddr::V4(u32::from(v4.network()).checked_add(1)?.into())),
        IpNetwork::V6(v6) => Some(IpAddr::V6(u128::from(v6.network()).checked_add(1)?.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::pki::samples::{cluster, node};

    fn texts(name: &str, cluster: &Cluster) -> Vec<String> {
        find(name).unwrap().alt_names(cluster, &node(), &["api.kubernetes.internal".to_owned()]).texts()
    }

    #[test]
    fn k02_the_api_server_is_known_by_all_its_names() {
        let mut cluster = cluster();
        cluster.control_plane_endpoint = Some(("api.example".to_owned(), 8443));
        cluster.api_server.cert_sans = ["zeta.example", "192.0.2.77", "192.0.2.10"].map(str::to_owned).to_vec();
        assert_eq!(
            texts("apiserver", &cluster),
            [
                "api.example",
                "api.kubernetes.internal",
                "kubernetes",
                "kubernetes.default",
                "kubernetes.default.svc",
                "kubernetes.default.svc.cluster.local",
                "n1",
                "zeta.example",
                "10.96.0.1",
                "192.0.2.10",
                "192.0.2.77",
            ]
        );
    }

    #[test]
    fn k02_an_endpoint_that_is_an_address_is_one_in_the_certificate() {
        let mut cluster = cluster();
        cluster.service_subnets = vec!["fd00:96::/108".parse().unwrap()];
        cluster.control_plane_endpoint = Some(("2001:db8::8".to_owned(), 6443));
        let texts = texts("apiserver", &cluster);
        assert_eq!(texts[texts.len() - 3..], ["fd00:96::1", "192.0.2.10", "2001:db8::8"]);
    }

    #[test]
    fn etcd_is_known_on_the_node_too() {
        let mut cluster = cluster();
        if let EtcdPlace::Local { config, .. } = &mut cluster.etcd {
            config.peer_cert_sans.push("peer.example".to_owned());
        }
        assert_eq!(texts("etcd-server", &cluster), ["localhost", "n1", "192.0.2.10", "127.0.0.1", "::1"]);
        assert_eq!(texts("etcd-peer", &cluster), ["localhost", "n1", "peer.example", "192.0.2.10", "127.0.0.1", "::1"]);
        assert!(texts("front-proxy-client", &cluster).is_empty());
    }

    #[test]
    fn somebody_elses_etcd_needs_no_certificates_of_ours() {
        let mut cluster = cluster();
        assert_eq!(entries(&cluster).count(), 10);
        cluster.etcd = EtcdPlace::External(Default::default());
        let names: Vec<_> = entries(&cluster).map(|entry| entry.name).collect();
        assert_eq!(names, ["ca", "apiserver", "apiserver-kubelet-client", "front-proxy-ca", "front-proxy-client"]);
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let error = find("bla").unwrap_err().to_string();
        assert!(error.contains("bla") && error.contains("etcd-healthcheck-client"), "{error}");
    }
}
