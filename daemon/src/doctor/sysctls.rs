//! Kernel settings that the data plane rests on, and that others change.

use super::check::Group;
use super::{Check, Told};
use crate::cluster::Family;

const GROUP: Group = Group("sysctls");

/// One setting as it is; `None` if this kernel does not have it.
pub type Value = Told<Option<String>>;

/// What is asked of the settings.
#[derive(Debug, Clone)]
pub struct SysctlFacts {
    /// Whether the machine forwards, for each family of its pods.
    pub forwarding: Vec<(Family, Value)>,
    /// Whether a link forwards IPv4, for each link that pods' packets take. With IPv6 the machine's setting alone decides
    /// (ip-sysctl.rst), and a link's says whether it is a router or a host to its neighbours.
    pub links: Vec<(String, Value)>,
    /// The link by which the machine reaches others.
    pub uplink: Option<String>,
    /// The stricter of `all` and the link's own `rp_filter` counts; both, for each such link.
    pub reverse_path: Vec<(String, Value, Value)>,
    /// Peers to whose address packets leave by another link than the uplink.
    pub detours: Vec<String>,
    /// `vs/conntrack`, if Services are served by IPVS.
    pub ipvs_conntrack: Option<Value>,
}

/// The checks.
#[must_use]
pub fn judge(facts: &SysctlFacts) -> Vec<Check> {
    let mut checks = Vec::new();
    for (family, value) in &facts.forwarding {
        let name = match family {
            Family::V4 => "net.ipv4.ip_forward".to_owned(),
            Family::V6 => "net.ipv6.conf.all.forwarding".to_owned(),
        };
        let mut check = needs_one(&name, value, "this machine forwards nothing to or from its pods");
        // A router takes no advertisements of others unless it is told to, and would lose its default route with them.
        if let (Family::V6, Some(remedy), Some(uplink)) = (family, &mut check.remedy, &facts.uplink) {
            *remedy = format!(
                "sysctl -w net/ipv6/conf/{uplink}/accept_ra=2 (first, where the default route comes by router advertisements), then {remedy}"
            );
        }
        checks.push(check);
    }
    for (link, value) in &facts.links {
        let cause = format!("what comes in by {link} is not forwarded");
        checks.push(needs_one(&format!("net.ipv4.conf.{link}.forwarding"), value, &cause));
    }
    checks.extend(facts.reverse_path.iter().map(|(link, all, own)| reverse_path(link, all, own, &facts.detours)));
    if let Some(value) = &facts.ipvs_conntrack {
        checks.push(needs_one(
            "net.ipv4.vs.conntrack",
            value,
            "IPVS hides connections from masquerade, so that answers miss their clients",
        ));
    }
    checks
}

/// A link's name may hold dots, which sysctl(8) takes for slashes.
fn command(name: &str, value: &str) -> String {
    let path = match name.split_once(".conf.").and_then(|(head, tail)| Some((head, tail.rsplit_once('.')?))) {
        Some((head, (link, setting))) => format!("{}/conf/{link}/{setting}", head.replace('.', "/")),
        None => name.replace('.', "/"),
    };
    format!(
        "sysctl -w {path}={value}, and look for who sets it otherwise: grep -r {} /etc/sysctl.conf /etc/sysctl.d /usr/lib/sysctl.d",
        path.rsplit('/').next().unwrap_or(name)
    )
}

fn needs_one(name: &str, value: &Value, cause: &str) -> Check {
    match value {
        Ok(Some(text)) if text != "0" => GROUP.good(name, text.clone()),
        Ok(Some(text)) => GROUP.problem(name, format!("it is {text}: {cause}"), command(name, "1")),
        Ok(None) => GROUP.unknown(name, "this kernel has no such setting"),
        Err(reason) => GROUP.unknown(name, reason.clone()),
    }
}

/// Strict checking drops packets that come in by another link than their answers leave by: with more than one uplink those
/// of peers. Pods' packets are not concerned, as the overlay is symmetric.
fn reverse_path(link: &str, all: &Value, own: &Value, detours: &[String]) -> Check {
    let name = format!("net.ipv4.conf.{link}.rp_filter");
    let number = |value: &Value| match value {
        Ok(Some(text)) => text.parse::<u8>().map_err(|_| format!("it is {text:?}")),
        Ok(None) => Err("this kernel has no such setting".to_owned()),
        Err(reason) => Err(reason.clone()),
    };
    match (number(all), number(own)) {
        // The larger one counts (ip-sysctl.rst), so that 2 (loose) wins over 1 (strict).
        (Ok(all), Ok(own)) if all.max(own) == 1 && !detours.is_empty() => GROUP.problem(
            name.as_str(),
            format!(
                "it is 1 (strict), and packets to {} leave by another link than {link}: theirs are dropped when they come in",
                detours.join(", ")
            ),
            command(&name, "2"),
        ),
        (Ok(all), Ok(own)) => GROUP.good(name, all.max(own).to_string()),
        (Err(reason), _) | (_, Err(reason)) => GROUP.unknown(name, reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Outcome;

    fn value(text: &str) -> Value {
        Ok(Some(text.to_owned()))
    }

    fn healthy() -> SysctlFacts {
        SysctlFacts {
            forwarding: vec![(Family::V4, value("1"))],
            links: vec![("flannel.1".into(), value("1"))],
            uplink: Some("eth0".into()),
            reverse_path: vec![("eth0".into(), value("0"), value("1"))],
            detours: Vec::new(),
            ipvs_conntrack: Some(value("1")),
        }
    }

    #[test]
    fn settings_as_they_should_be_are_good() {
        assert!(judge(&healthy()).iter().all(|check| check.outcome == Outcome::Good));
    }

    #[test]
    fn a_machine_or_a_link_that_does_not_forward_is_a_problem() {
        let facts = SysctlFacts {
            forwarding: vec![(Family::V4, value("0"))],
            links: vec![("flannel.1".into(), value("0"))],
            ..healthy()
        };
        let checks = judge(&facts);
        assert!(checks[..2].iter().all(|check| check.outcome == Outcome::Problem));
        let remedy = |at: usize| checks[at].remedy.clone().unwrap();
        assert!(remedy(0).starts_with("sysctl -w net/ipv4/ip_forward=1,"), "{}", remedy(0));
        assert!(remedy(1).starts_with("sysctl -w net/ipv4/conf/flannel.1/forwarding=1,"), "{}", remedy(1));
    }

    #[test]
    fn who_is_to_forward_ipv6_keeps_its_default_route() {
        let facts = SysctlFacts { forwarding: vec![(Family::V6, value("0"))], ..healthy() };
        let remedy = judge(&facts).remove(0).remedy.unwrap();
        assert!(remedy.starts_with("sysctl -w net/ipv6/conf/eth0/accept_ra=2 "), "{remedy}");
        assert!(remedy.contains("sysctl -w net/ipv6/conf/all/forwarding=1,"), "{remedy}");
    }

    #[test]
    fn strict_checking_is_a_problem_only_where_the_ways_differ() {
        let strict = |all: &str, own: &str, detours: &[&str]| {
            let facts = SysctlFacts {
                reverse_path: vec![("eth0".into(), value(all), value(own))],
                detours: detours.iter().map(|peer| (*peer).to_owned()).collect(),
                ..healthy()
            };
            judge(&facts).into_iter().find(|check| check.name.contains("rp_filter")).unwrap().outcome
        };
        assert_eq!(strict("1", "0", &["n2"]), Outcome::Problem);
        assert_eq!(strict("1", "2", &["n2"]), Outcome::Good);
        assert_eq!(strict("1", "1", &[]), Outcome::Good);
    }

    #[test]
    fn what_cannot_be_read_is_unknown() {
        let facts = SysctlFacts { forwarding: vec![(Family::V4, Err("denied".into()))], ..healthy() };
        assert_eq!(judge(&facts)[0].outcome, Outcome::Unknown);
    }
}
