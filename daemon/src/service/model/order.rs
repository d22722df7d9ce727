//! Whose turn it is where there is much to do.

use super::types::PortKey;
use crate::cluster::services::{Changed, ObjectName, Protocol};

/// Ports in the order of these numbers: first the API server's, which everything else in the cluster hangs on, then DNS.
#[must_use]
pub fn urgency(key: &PortKey) -> u8 {
    let (namespace, name) = (&*key.service.namespace, &*key.service.name);
    match (namespace, name) {
        ("default", "kubernetes") => 0,
        ("kube-system", _) if key.protocol == Protocol::Udp || name.contains("dns") => 1,
        _ => 2,
    }
}

/// Takes those Services out of all that a cluster needs to get going: its API server's and its own. They are few, and so are
/// not to wait until all others are planned.
#[must_use]
pub fn lead(services: Vec<Changed>) -> (Vec<Changed>, Vec<Changed>) {
    services.into_iter().partition(|changed| leads(&changed.name))
}

fn leads(name: &ObjectName) -> bool {
    matches!((&*name.namespace, &*name.name), ("default", "kubernetes") | ("kube-system", _))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t103_the_api_server_and_the_clusters_own_services_lead() {
        let names = [("a", "a"), ("default", "kubernetes"), ("kube-system", "kube-dns"), ("default", "web")];
        let services = names.map(|(namespace, name)| Changed {
            name: ObjectName::new(namespace, name),
            service: None,
            slices: Vec::new(),
        });
        let said = |list: &[Changed]| list.iter().map(|changed| changed.name.to_string()).collect::<Vec<_>>();
        let (first, rest) = lead(services.into());
        assert_eq!(said(&first), ["default/kubernetes", "kube-system/kube-dns"]);
        assert_eq!(said(&rest), ["a/a", "default/web"]);
    }
}
