//! The part of a pass that keeps blackhole routes for the node's subnets.

use std::time::Instant;

use super::pass::Node;
use crate::lease::Held;
use crate::overlay::blackhole;

impl Node {
    /// They are told of by metrics and log alone: pods talk to each other with them or without.
    pub(super) async fn place_blackholes(&mut self, held: &Held, now: Instant) -> Option<Instant> {
        let is_wanted = self.options.blackhole_route;
        if !is_wanted && self.without_blackholes {
            return None;
        }
        let subnets = held.key.subnets();
        let desired = blackhole::plan(subnets.values().copied().filter(|_| is_wanted));
        let outcome = self.blackholes.pass(&desired, now).await.map_err(|error| error.to_string());
        self.count("blackholes", &outcome);
        self.without_blackholes = !is_wanted && outcome.as_ref().is_ok_and(|pass| pass.failed.is_empty());
        let trouble = match &outcome {
            Ok(pass) => pass.failed.first().map(|(subnet, reason)| format!("blackhole {subnet}: {reason}")),
            Err(reason) => Some(reason.clone()),
        };
        if let Some(news) = trouble.as_ref().filter(|_| self.blackhole_trouble != trouble) {
            tracing::warn!("{news}");
        }
        self.blackhole_trouble = trouble;
        outcome.ok()?.retry_at
    }
}
