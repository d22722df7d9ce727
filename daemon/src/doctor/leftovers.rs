//! What other agents have left, or still keep, on the node: kube-proxy's rules, other overlays.

use std::net::SocketAddr;

use weft_netlink::ipvs::Target;

use super::check::Group;
use super::{Check, Told};

const GROUP: Group = Group("leftovers");

/// Tables and chains of nf_tables that are named like others', as `(table, chain)`; the chain is empty for whole tables.
pub type Found = (String, String);

/// Beginnings of the names of others' devices, whose they are, and what removes what they leave.
const DEVICES: &[(&str, &str, &str)] = &[
    (
        "cali",
        "Calico",
        "calicoctl node and pods of the node are gone first: kubectl delete -f the manifest, then ip link del each",
    ),
    ("vxlan.calico", "Calico", "kubectl delete -f the manifest, then ip link del vxlan.calico"),
    ("cilium_", "Cilium", "cilium uninstall, then ip link del cilium_host; ip link del cilium_vxlan"),
    ("weave", "Weave Net", "weave reset, or ip link del weave"),
    ("kube-bridge", "kube-router", "kube-router --cleanup-config"),
    ("antrea-", "Antrea", "antctl and its manifest's cleanup"),
    ("flannel.ipip", "flannel's IPIP back end", "ip link del flannel.ipip"),
    ("flannel-wg", "flannel's WireGuard back end", "ip link del flannel-wg"),
];

/// A VXLAN device that is not weft's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// Its name.
    pub name: String,
    /// Its VXLAN network identifier.
    pub vni: u32,
    /// Its UDP port.
    pub port: u16,
}

/// What is asked of others.
#[derive(Debug, Clone)]
pub struct LeftoverFacts {
    /// Tables and chains with names of kube-proxy's or flannel's.
    pub chains: Told<Vec<Found>>,
    /// The names of all links but pods'.
    pub links: Told<Vec<String>>,
    /// VXLAN devices that are not weft's.
    pub overlays: Told<Vec<Overlay>>,
    /// The UDP port of weft's.
    pub port: u16,
    /// IPVS virtual servers that kube-proxy has left. Those of others are nobody's business here.
    pub virtual_servers: Told<Vec<Target>>,
    /// Whether weft serves Services here.
    pub serves: bool,
    /// Whether it does by IPVS.
    pub serves_by_ipvs: bool,
}

/// The checks.
#[must_use]
pub fn judge(facts: &LeftoverFacts) -> Vec<Check> {
    vec![
        proxy_rules(facts),
        proxy_device(facts),
        virtual_servers(facts),
        flannel_rules(facts),
        devices(facts),
        overlays(facts),
    ]
}

/// What removes exactly what kube-proxy has left.
const CHANGE: &str = "weft migrate node on this node (with the agent's settings)";

const NOT_SERVED: &str = "weft serves no Services here, so they are another's to serve";

fn proxy_rules(facts: &LeftoverFacts) -> Check {
    if !facts.serves {
        return GROUP.moot("kube-proxy rules", NOT_SERVED);
    }
    let chains = match &facts.chains {
        Ok(chains) => chains,
        Err(reason) => return GROUP.unknown("kube-proxy rules", reason.clone()),
    };
    // kubelet has chains whose names begin so, too, and keeps them; these are kube-proxy's alone.
    let is_proxy = |(table, chain): &&Found| {
        table.ends_with(" kube-proxy") || matches!(chain.as_str(), "KUBE-SERVICES" | "KUBE-NODEPORTS")
    };
    let mut tables: Vec<&str> = chains.iter().filter(is_proxy).map(|(table, _)| table.as_str()).collect();
    tables.sort_unstable();
    tables.dedup();
    if tables.is_empty() {
        return GROUP.good("kube-proxy rules", "none");
    }
    // kube-proxy's own cleanup is none: it empties IPVS, with weft's virtual servers.
    let mut deletions: Vec<String> = tables
        .iter()
        .filter(|table| table.ends_with(" kube-proxy"))
        .map(|table| format!("nft delete table {table}"))
        .collect();
    if deletions.len() < tables.len() {
        deletions = vec![CHANGE.to_owned()];
    }
    let deletions = deletions.join("; ");
    GROUP.problem(
        "kube-proxy rules",
        format!("kube-proxy's rules are in table {}: they lead clients of Services to where pods were when it stopped, or it still runs beside weft", tables.join(", ")),
        format!("kubectl -n kube-system get daemonset kube-proxy (it must not be there), then {deletions}"),
    )
}

fn proxy_device(facts: &LeftoverFacts) -> Check {
    if !facts.serves {
        return GROUP.moot("kube-ipvs0", NOT_SERVED);
    }
    match &facts.links {
        Ok(links) if links.iter().any(|name| name == "kube-ipvs0") => GROUP.problem(
            "kube-ipvs0",
            "kube-proxy's device with all cluster IPs is still there: it makes each of them an address of this node",
            "kubectl -n kube-system get daemonset kube-proxy (it must not be there), then ip link del kube-ipvs0",
        ),
        Ok(_) => GROUP.good("kube-ipvs0", "not there"),
        Err(reason) => GROUP.unknown("kube-ipvs0", reason.clone()),
    }
}

fn virtual_servers(facts: &LeftoverFacts) -> Check {
    let name = "ipvs servers";
    if !facts.serves || facts.serves_by_ipvs {
        return GROUP.moot(
            name,
            if facts.serves { "weft serves by IPVS, and takes over those of the service networks" } else { NOT_SERVED },
        );
    }
    match &facts.virtual_servers {
        Ok(servers) => {
            if servers.is_empty() {
                return GROUP.good(name, "none of kube-proxy's");
            }
            let listed: Vec<String> = servers.iter().take(LISTED).map(virtual_server).collect();
            let more = servers.len().saturating_sub(listed.len());
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            GROUP.problem(
                name,
                format!("IPVS virtual servers of kube-proxy's are left ({}{more}), and weft serves by nftables: who is not translated before goes to backends of the past", listed.join(", ")),
                format!("{CHANGE}, which removes these and leaves those of others"),
            )
        }
        Err(reason) => GROUP.unknown(name, reason.clone()),
    }
}

/// So many virtual servers are named.
const LISTED: usize = 5;

fn virtual_server(target: &Target) -> String {
    match target {
        Target::Address { address, port, .. } => SocketAddr::new(*address, *port).to_string(),
        Target::Mark { mark, .. } => format!("mark {mark}"),
    }
}

/// Both masquerade what leaves the cluster, so two sets of rules do no harm; they stay for ever, though.
fn flannel_rules(facts: &LeftoverFacts) -> Check {
    let name = "flannel rules";
    match &facts.chains {
        Ok(chains) => {
            let is_flannel = |(table, chain): &&Found| chain.starts_with("FLANNEL-") || table.contains(" flannel-ip");
            let mut found: Vec<&str> = chains.iter().filter(is_flannel).map(|(table, _)| table.as_str()).collect();
            found.sort_unstable();
            found.dedup();
            if found.is_empty() {
                GROUP.good(name, "none")
            } else {
                GROUP.note(
                    name,
                    format!(
                        "flannel's are still in table {}; they do no harm, and a reboot removes them",
                        found.join(", ")
                    ),
                )
            }
        }
        Err(reason) => GROUP.unknown(name, reason.clone()),
    }
}

fn devices(facts: &LeftoverFacts) -> Check {
    let name = "other networks";
    let links = match &facts.links {
        Ok(links) => links,
        Err(reason) => return GROUP.unknown(name, reason.clone()),
    };
    let mut found: Vec<(&str, &str, &str)> = Vec::new();
    for link in links {
        if let Some((_, whose, remedy)) = DEVICES.iter().find(|(begin, ..)| link.starts_with(begin))
            && !found.iter().any(|(_, known, _)| known == whose)
        {
            found.push((link, whose, remedy));
        }
    }
    if found.is_empty() {
        return GROUP.good(name, "no devices of theirs");
    }
    let words: Vec<String> = found.iter().map(|(link, whose, _)| format!("{link} ({whose})")).collect();
    let remedies: Vec<&str> = found.iter().map(|(.., remedy)| *remedy).collect();
    GROUP.problem(
        name,
        format!("another pod network is, or was, on this node: {}", words.join(", ")),
        remedies.join("; "),
    )
}

fn overlays(facts: &LeftoverFacts) -> Check {
    let name = "second overlay";
    let overlays = match &facts.overlays {
        Ok(overlays) => overlays,
        Err(reason) => return GROUP.unknown(name, reason.clone()),
    };
    let same: Vec<String> = overlays
        .iter()
        .filter(|overlay| overlay.port == facts.port)
        .map(|overlay| format!("{} (VNI {})", overlay.name, overlay.vni))
        .collect();
    if same.is_empty() {
        return GROUP.good(name, format!("nobody else uses UDP {}", facts.port));
    }
    let first = overlays.iter().find(|overlay| overlay.port == facts.port).map_or("", |overlay| overlay.name.as_str());
    GROUP.problem(
        name,
        format!("{} uses UDP port {}, as weft's overlay does: each may get the other's packets", same.join(", "), facts.port),
        format!("ip link del {first} if its owner is gone; else another vxlan-port for weft (Backend.Port, on all nodes) or for it"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Outcome;

    fn clean() -> LeftoverFacts {
        LeftoverFacts {
            chains: Ok(vec![
                ("ip mangle".into(), "KUBE-KUBELET-CANARY".into()),
                ("inet weft".into(), "svc-lb4-2".into()),
            ]),
            links: Ok(["lo", "eth0", "flannel.1", "cni0", "docker0", "tunl0", "sit0"].map(str::to_owned).into()),
            overlays: Ok(vec![Overlay { name: "vx0".into(), vni: 7, port: 4789 }]),
            port: 8472,
            virtual_servers: Ok(Vec::new()),
            serves: true,
            serves_by_ipvs: false,
        }
    }

    fn server() -> Target {
        Target::Address { address: "10.96.0.1".parse().unwrap(), protocol: 6, port: 443 }
    }

    fn outcomes(facts: &LeftoverFacts) -> Vec<Outcome> {
        judge(facts).iter().map(|check| check.outcome).collect()
    }

    #[test]
    fn a_node_of_wefts_alone_is_good() {
        assert!(outcomes(&clean()).iter().all(|outcome| *outcome == Outcome::Good));
    }

    #[test]
    fn each_of_the_others_is_found() {
        let facts = LeftoverFacts {
            chains: Ok(vec![
                ("ip kube-proxy".into(), String::new()),
                ("ip nat".into(), "KUBE-SERVICES".into()),
                ("ip nat".into(), "FLANNEL-POSTRTG".into()),
            ]),
            links: Ok(["kube-ipvs0", "cali0123", "cilium_host", "cilium_net"].map(str::to_owned).into()),
            overlays: Ok(vec![Overlay { name: "cilium_vxlan".into(), vni: 0, port: 8472 }]),
            virtual_servers: Ok(vec![server()]),
            ..clean()
        };
        use Outcome::{Note, Problem};
        assert_eq!(outcomes(&facts), [Problem, Problem, Problem, Note, Problem, Problem]);
        let checks = judge(&facts);
        // Some of them are in a table that is not kube-proxy's alone.
        assert!(checks[0].remedy.as_ref().unwrap().contains("weft migrate node"));
        let own = vec![("ip kube-proxy".into(), String::new()), ("ip6 kube-proxy".into(), String::new())];
        let own = judge(&LeftoverFacts { chains: Ok(own), ..clean() }).remove(0).remedy.unwrap();
        assert!(own.ends_with("nft delete table ip kube-proxy; nft delete table ip6 kube-proxy"), "{own}");
        assert!(checks[2].words.contains("10.96.0.1:443"), "{}", checks[2].words);
        // That empties IPVS, with what is weft's.
        assert!(checks.iter().all(|check| !check.remedy.as_deref().unwrap_or_default().contains("--cleanup ")));
        assert_eq!(checks[4].words.matches("Cilium").count(), 1);
    }

    #[test]
    fn who_leaves_services_to_others_is_not_told_to_remove_them() {
        let facts =
            LeftoverFacts { chains: Ok(vec![("ip kube-proxy".into(), String::new())]), serves: false, ..clean() };
        assert_eq!(outcomes(&facts)[..3], [Outcome::Moot; 3]);
    }
}
