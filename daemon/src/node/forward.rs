//! The part of a pass that sees to it that others' rules let pods' packets through.

use std::time::Instant;

use super::held::networks;
use super::pass::Node;
use crate::cluster::events::Happening;
use crate::filter::legacy;
use crate::lease::Held;
use crate::reconcile::Pass;
use crate::serve::Component;

impl Node {
    pub(super) async fn place_forward(&mut self, held: &Held, now: Instant) -> Option<Instant> {
        let wanted = if self.options.forward_rules { networks(held) } else { Vec::new() };
        let outcome = match self.forward.table_mut().plan(&wanted) {
            Ok(desired) => self.forward.pass(&desired, now).await.map(|pass| (pass, desired)),
            Err(error) => Err(error),
        };
        let (outcome, chains) = match outcome {
            Ok((mut pass, desired)) => {
                if self.let_through.as_ref() == Some(&wanted) {
                    drift(&mut pass);
                }
                self.let_through = Some(wanted.clone());
                (Ok(pass), desired.keys().map(ToString::to_string).collect::<Vec<_>>())
            }
            Err(error) => (Err(error.to_string()), Vec::new()),
        };
        self.tell_legacy(&wanted);
        self.report(Component::Forward, "forward", outcome, |_| match chains.as_slice() {
            _ if wanted.is_empty() => "left to others".to_owned(),
            [] => "no chain of iptables drops".to_owned(),
            chains => format!("{} drops, and lets pods through by rules of weft's", chains.join(" and ")),
        })
    }

    /// Says once what the old kind of iptables does to pods, and goes on saying it at `/status`.
    fn tell_legacy(&mut self, wanted: &[ipnetwork::IpNetwork]) {
        let (notices, is_certain): (Vec<String>, _) = match legacy::cut_off(wanted) {
            Ok(found) => {
                (found.iter().map(|found| format!("{}; mend it: {}", found.cause(), found.remedy)).collect(), true)
            }
            Err(error) => (vec![error.to_string()], false),
        };
        for notice in notices.iter().filter(|notice| !self.notices.contains(notice)) {
            tracing::warn!("{notice}");
            if is_certain {
                self.options.events.tell(Happening::warning("PodsCutOff", "Forwarding", notice.clone()));
            }
        }
        if self.notices != notices {
            self.board.notices(notices.clone());
            self.notices = notices;
        }
    }
}

/// With the same networks as before, somebody else has begun to drop, and what is written now is a repair.
fn drift<K>(pass: &mut Pass<K>) {
    pass.repaired += std::mem::take(&mut pass.updated);
}
