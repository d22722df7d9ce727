//! Where things stand in the store: flannel's keys, and ours beside them.

use std::fmt;
use std::str::FromStr;

use super::key::SubnetKey;
use super::node::NodeName;
use super::services::ObjectName;

/// The keys below one prefix (`--etcd-prefix`).
///
/// Nothing of weft's stands under `subnets/`, because flannel takes each key there for a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    prefix: String,
}

/// A text that cannot be a key prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a key prefix; expected an absolute path such as /coreos.com/network")]
pub struct LayoutError(String);

impl Layout {
    /// `<prefix>/config`: the network configuration.
    #[must_use]
    pub fn config(&self) -> String {
        format!("{}/config", self.prefix)
    }

    /// `<prefix>/subnets/`: all leases have keys that begin so.
    #[must_use]
    pub fn subnets(&self) -> String {
        format!("{}/subnets/", self.prefix)
    }

    /// The key of one lease.
    #[must_use]
    pub fn subnet(&self, key: &SubnetKey) -> String {
        format!("{}/subnets/{key}", self.prefix)
    }

    /// `<prefix>/weft/nodes/`: all node records have keys that begin so.
    #[must_use]
    pub fn nodes(&self) -> String {
        format!("{}/weft/nodes/", self.prefix)
    }

    /// First key and the key after the last of the range that holds all leases and node records. One range, so that one
    /// watch sees both in order and one comparison guards both. (`services/`, which can be large, sorts before it.)
    #[must_use]
    pub fn leases_and_nodes(&self) -> (String, String) {
        // '0' follows '/' in ASCII, so this is the first key that does not begin with `<prefix>/weft/nodes/`.
        (self.subnets(), format!("{}/weft/nodes0", self.prefix))
    }

    /// `<prefix>/services/`: all Services (`v1.Service` as JSON) have keys that begin so.
    #[must_use]
    pub fn services(&self) -> String {
        format!("{}/services/", self.prefix)
    }

    /// The key of one Service.
    #[must_use]
    pub fn service(&self, name: &ObjectName) -> String {
        format!("{}/services/{name}", self.prefix)
    }

    /// `<prefix>/endpointslices/`: all EndpointSlices (`discovery.k8s.io/v1` as JSON) have keys that begin so.
    #[must_use]
    pub fn endpoint_slices(&self) -> String {
        format!("{}/endpointslices/", self.prefix)
    }

    /// The key of one EndpointSlice.
    #[must_use]
    pub fn endpoint_slice(&self, name: &ObjectName) -> String {
        format!("{}/endpointslices/{name}", self.prefix)
    }

    /// `<prefix>/nodes/<name>`: the key of one Node (`v1.Node` as JSON), which is another thing than a node's
    /// [record](Self::node).
    #[must_use]
    pub fn node_object(&self, name: &NodeName) -> String {
        format!("{}/nodes/{name}", self.prefix)
    }

    /// First key and the key after the last of the range that holds all Services, EndpointSlices and Nodes: one range, so that
    /// what one transaction writes of them is seen together. None of flannel's keys and none of a lease lies in it.
    #[must_use]
    pub fn service_objects(&self) -> (String, String) {
        // '0' follows '/' in ASCII.
        (self.endpoint_slices(), format!("{}/services0", self.prefix))
    }

    /// The key of one node's record.
    #[must_use]
    pub fn node(&self, name: &NodeName) -> String {
        format!("{}/weft/nodes/{name}", self.prefix)
    }
}

impl Default for Layout {
    /// flannel's default prefix.
    fn default() -> Self {
        Self { prefix: "/coreos.com/network".to_owned() }
    }
}

impl FromStr for Layout {
    type Err = LayoutError;

    fn from_str(text: &str) -> Result<Self, LayoutError> {
        let prefix = text.trim_end_matches('/');
        let plain = prefix.split('/').skip(1).all(|part| !part.is_empty() && part != "." && part != "..");
        if prefix.starts_with('/') && plain && !prefix.contains(char::is_whitespace) {
            Ok(Self { prefix: prefix.to_owned() })
        } else {
            Err(LayoutError(text.to_owned()))
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stand_where_flannel_looks() {
        let layout: Layout = "/coreos.com/network/".parse().unwrap();
        assert_eq!(layout, Layout::default());
        assert_eq!(layout.config(), "/coreos.com/network/config");
        assert_eq!(layout.subnet(&"10.5.52.0-24".parse().unwrap()), "/coreos.com/network/subnets/10.5.52.0-24");
        assert_eq!(layout.node(&"n1".parse().unwrap()), "/coreos.com/network/weft/nodes/n1");
    }

    #[test]
    fn services_lie_in_one_range_without_the_leases() {
        let layout = Layout::default();
        let name = ObjectName::new("default", "web");
        assert_eq!(layout.service(&name), "/coreos.com/network/services/default/web");
        assert_eq!(layout.endpoint_slice(&name), "/coreos.com/network/endpointslices/default/web");
        let node = layout.node_object(&"n1".parse().unwrap());
        assert_eq!(node, "/coreos.com/network/nodes/n1");
        let (first, end) = layout.service_objects();
        let (first_lease, end_of_leases) = layout.leases_and_nodes();
        for key in [layout.service(&name), layout.endpoint_slice(&name), node] {
            assert!(key >= first && key < end && !(key >= first_lease && key < end_of_leases), "{key}");
        }
        for key in [layout.config(), layout.subnets(), layout.nodes()] {
            assert!(key < first || key >= end, "{key}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for text in ["", "/", "network", "/a//b", "/a/../b", "/a b"] {
            assert!(text.parse::<Layout>().is_err(), "{text:?}");
        }
    }
}
