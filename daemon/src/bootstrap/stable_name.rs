//! The name that the API has on each node, whatever addresses its servers have: `api.weft.internal`.
//!
//! It is a further name in the API servers' certificates, by `apiServer.certSANs` of the ClusterConfiguration, so that
//! kubeadm's own `join --control-plane`, `certs renew` and `upgrade` keep it. Each node has it lead to its own balancer in
//! /etc/hosts. The top-level domain is the one that ICANN has set aside for such names. A fresh machine cannot resolve it:
//! cluster-info and the join command have a real address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::resolved::{Cluster, Node, Paths};
use crate::cluster::kube::place::{Place, lines};

/// The name.
pub const NAME: &str = "api.weft.internal";
/// Port of the balancer on the loopback device, unless the configuration says otherwise.
pub const PORT: u16 = 7443;
/// Name of the block in /etc/hosts.
pub const HOSTS_BLOCK: &str = "api";

/// Whether the API servers of this cluster answer to the name: those of a cluster that kubeadm has made do not.
#[must_use]
pub fn is_known(cluster: &Cluster) -> bool {
    cluster.api_server.cert_sans.iter().any(|name| name == NAME)
}

/// What kubelet dials: the address that the name leads to. /etc/hosts is rewritten by others at times (cloud-init does at each
/// start), and a proxy is asked for names, not for loopback addresses; by the name it still knows who answers.
#[must_use]
pub fn server(node: &Node, port: u16) -> String {
    let [first, _] = listen(node, port);
    format!("https://{first}")
}

/// Where the balancer of a node listens: at the loopback address of the node's own family first, to which the name leads.
#[must_use]
pub fn listen(node: &Node, port: u16) -> [SocketAddr; 2] {
    let (v4, v6) = (IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST));
    let addresses = if node.address.is_ipv4() { [v4, v6] } else { [v6, v4] };
    addresses.map(|address| SocketAddr::new(address, port))
}

/// The lines of the block in /etc/hosts.
#[must_use]
pub fn hosts_lines(node: &Node, port: u16) -> Vec<String> {
    let [first, _] = listen(node, port);
    vec![format!("{} {NAME}", first.ip())]
}

/// The directory of the balancer's lists.
#[must_use]
pub fn directory(paths: &Paths) -> PathBuf {
    paths.state.join("balancer")
}

/// The list that the balancer begins with, of URLs and `host:port`; what names no server is left out.
#[must_use]
pub fn start_list<'a>(servers: impl IntoIterator<Item = &'a str>) -> String {
    let mut places: Vec<Place> = Vec::new();
    for place in servers.into_iter().filter_map(|server| server.parse::<Place>().ok()) {
        // The name leads back to the balancer.
        if place.host != NAME && !places.contains(&place) {
            places.push(place);
        }
    }
    lines(&places)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::pki::samples::{cluster, node};

    #[test]
    fn p0_18_the_name_leads_to_the_loopback_address_of_the_nodes_family() {
        let mut node = node();
        assert_eq!(hosts_lines(&node, PORT), ["127.0.0.1 api.weft.internal"]);
        assert_eq!(listen(&node, 1).map(|it| it.to_string()), ["127.0.0.1:1", "[::1]:1"]);
        assert_eq!(server(&node, PORT), "https://127.0.0.1:7443");
        node.address = "2001:db8::1".parse().unwrap();
        assert_eq!(hosts_lines(&node, PORT), ["::1 api.weft.internal"]);
        assert_eq!(server(&node, PORT), "https://[::1]:7443");
    }

    #[test]
    fn only_a_cluster_with_the_name_in_its_certificates_is_dialled_by_it() {
        let mut cluster = cluster();
        assert!(!is_known(&cluster));
        cluster.api_server.cert_sans.push(NAME.to_owned());
        assert!(is_known(&cluster));
    }

    #[test]
    fn the_first_list_has_each_real_server_once() {
        let given =
            ["https://192.0.2.1:6443", "192.0.2.1:6443", "https://api.weft.internal:7443", "lb.example:443", "?"];
        assert_eq!(start_list(given), "192.0.2.1:6443\nlb.example:443\n");
    }
}
