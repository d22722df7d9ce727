//! `weft-helpers`: weft's own static pods, as this weft makes them. A node without one, as kubeadm makes them, gets none.

use std::net::SocketAddr;

use serde_json::Value;

use super::{Upgrade, own};
use crate::bootstrap::converge::difference;
use crate::bootstrap::phases::error::PhaseError;
use crate::bootstrap::phases::ground::{HELPERS, weft_name};
use crate::bootstrap::stable_name;
use crate::bootstrap::static_pods::{Helper, HelperFacts, helper_file, helper_pod};
use crate::bootstrap::yaml;

impl Upgrade<'_> {
    pub(super) fn helpers(&self) -> Result<(), PhaseError> {
        let (paths, image) = (self.ground.paths, weft_name());
        for helper in [Helper::Balancer, Helper::CertRenewal] {
            let path = helper_file(paths, helper);
            let Some(present) = own::read(&path)? else { continue };
            let mut listen = listens(&present);
            if listen.is_empty() {
                listen.extend(stable_name::listen(&self.config.node, stable_name::PORT));
            }
            if !self.options.dry_run {
                self.ground.helper(helper, &image, &listen)?;
                continue;
            }
            let wanted = helper_pod(helper, &HelperFacts { image: &image, paths, listen: &listen });
            if wanted != present {
                let lines = difference(&yaml::to_string(&present), &yaml::to_string(&wanted));
                self.ground.tell.step(HELPERS, format!("{} would be changed:\n{lines}", path.display()));
            }
        }
        Ok(())
    }
}

/// Where a balancer listens, by its manifest: its port is this node's own matter, and in no configuration of the cluster.
fn listens(pod: &Value) -> Vec<SocketAddr> {
    let command = pod.pointer("/spec/containers/0/command").and_then(Value::as_array);
    let words = command.into_iter().flatten().filter_map(Value::as_str);
    words.filter_map(|word| word.strip_prefix("--listen=")?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::resolved::Paths;

    #[test]
    fn a_balancer_goes_on_listening_where_it_does() {
        let listen = ["127.0.0.1:7444", "[::1]:7444"].map(|text| text.parse().unwrap());
        let facts = HelperFacts { image: "weft:1", paths: &Paths::under("/"), listen: &listen };
        assert_eq!(listens(&helper_pod(Helper::Balancer, &facts)), listen);
        assert!(listens(&helper_pod(Helper::CertRenewal, &facts)).is_empty());
        assert!(listens(&Value::Null).is_empty());
    }
}
