//! The last part of a pass: telling the runtime that pods may come.

use super::pass::Node;
use crate::cluster::family::PerFamily;
use crate::lease::Held;
use crate::lease::subnet_file::subnet_env;
use crate::overlay::backend::{self, End};
use crate::overlay::uplink::Uplink;
use crate::serve::Component;

impl Node {
    /// Subnet file, plugin and conflist, once everything before them stands.
    pub(super) fn publish(&mut self, held: &Held, ends: &PerFamily<End>, uplink: &Uplink) {
        if self.published.is_none() && !self.health.good_before(Component::Publish) {
            self.health.waiting(Component::Publish, "the node is not ready for pods yet");
            return;
        }
        // The address may be another one, if the user says so on the Node.
        if self.published.is_none()
            && held.published.backend != backend::lease_value(&*held.config.backend, ends).backend
        {
            let why = held.notice.as_ref().map(|notice| format!(": {notice}")).unwrap_or_default();
            let words = format!("the other nodes have not been told yet how this one is reached{why}");
            self.health.waiting(Component::Publish, words);
            return;
        }
        let subnet = subnet_env(&held.key, &held.config, uplink.mtu, self.options.ip_masq);
        for directory in self.options.places.directories() {
            if let Err(error) = self.owned.claim_directory(directory) {
                self.health.bad(Component::Publish, error.to_string());
                return;
            }
        }
        match self.options.places.publish(&subnet, &self.options.conflist) {
            Ok(written) => {
                let paths = || written.iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
                if self.published.as_ref() == Some(&subnet) {
                    self.note_repairs("files", written.len(), || paths().join("; "));
                } else {
                    paths().iter().for_each(|path| tracing::info!(path, "wrote"));
                }
                self.published = Some(subnet);
                self.health.good(Component::Publish, self.options.places.conflist().display().to_string());
            }
            Err(error) => self.health.bad(Component::Publish, error.to_string()),
        }
    }
}
