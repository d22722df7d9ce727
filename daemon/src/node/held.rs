//! The lease whose subnets the data plane has, and what is read from it.

use std::sync::Arc;

use ipnetwork::IpNetwork;

use crate::cluster::netconf::NetConf;
use crate::cluster::pool::Pool;
use crate::lease::Held;
use crate::serve::document::LeaseStatus;

/// A lease that no longer fits its network configuration is kept, and so is the configuration it was made under: with the
/// new one, running pods would lose their masquerade and their networks.
pub(super) fn settle_config(new: &Held, old: Option<&Held>) -> Held {
    let fits = |config: &NetConf| {
        new.key
            .subnets()
            .iter()
            .all(|(family, subnet)| config.pools.get(family).is_some_and(|pool| pool.leases(*subnet)))
    };
    match old {
        Some(old) if old.key == new.key && !fits(&new.config) => {
            Held { config: Arc::clone(&old.config), ..new.clone() }
        }
        _ => new.clone(),
    }
}

/// The cluster's pod networks, IPv4 first.
pub(super) fn networks(held: &Held) -> Vec<IpNetwork> {
    held.config.pools.values().map(Pool::network).collect()
}

pub(super) fn words_of(held: &Held) -> String {
    let subnets: Vec<String> = held.key.subnets().values().map(ToString::to_string).collect();
    let notice = held.notice.as_ref().map(|notice| format!(" ({notice})")).unwrap_or_default();
    format!("{}{notice}", subnets.join(" and "))
}

/// The lease as `/status` tells it.
pub(super) fn status_of(held: &Held) -> LeaseStatus {
    let number = |subnets: u128| u64::try_from(subnets).unwrap_or(u64::MAX);
    LeaseStatus {
        subnets: held.key.subnets().values().copied().collect(),
        networks: networks(held),
        used: number(held.usage.used),
        total: number(held.usage.total),
        // That little is left, the numbers tell.
        notice: held.notice.clone().filter(|notice| Some(notice) != held.usage.notice().as_ref()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::lease_value::LeaseValue;
    use crate::lease::plan::Usage;

    #[test]
    fn a_notice_of_what_is_left_is_told_by_numbers_and_any_other_as_it_is() {
        let held = |notice: Option<&str>| Held {
            key: "10.244.1.0-24".parse().unwrap(),
            published: LeaseValue::parse(br#"{"PublicIP": "192.0.2.1"}"#).unwrap(),
            config: Arc::new(NetConf::parse(br#"{"Network": "10.244.0.0/16"}"#).unwrap().0),
            usage: Usage { used: 205, total: 256 },
            notice: notice.map(str::to_owned),
        };
        let usage = held(None).usage.notice();
        assert!(usage.is_some());
        assert_eq!(status_of(&held(usage.as_deref())).notice, None);
        let forbidden = "cannot write to Node n1: forbidden";
        assert_eq!(status_of(&held(Some(forbidden))).notice.as_deref(), Some(forbidden));
    }
}
