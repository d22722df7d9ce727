//! What is judged before translation, and what becomes of packets that should have been translated.

use weft_netlink::nft::expr::{self, CtState, CtStatus, Expr, Reject, protocol};
use weft_netlink::nft::{Chain, ChainKind, Hook, Source};
use weft_netlink::priority;

use super::super::lane::{By, Lane, version};
use super::super::layout::SetId;
use super::super::options::Options;
use super::takes_node_ports;
use crate::cluster::Family;
use crate::filter::Rules;
use crate::filter::plan::PlannedChain;

const FIREWALL: &str = "svc-firewall";
const GUARD: &str = "svc-guard";
const UNSERVED: &str = "svc-unserved";
const UNSERVED_PORTS: &str = "svc-unserved-ports";

pub(super) fn chains(options: &Options) -> Vec<PlannedChain> {
    let mut chains = Vec::new();
    if !options.proxy_cluster_ips {
        chains.push(guard(options));
    }
    chains.push(firewall(options));
    for (name, hook) in [("svc-firewall-pre", Hook::Prerouting), ("svc-firewall-out", Hook::Output)] {
        let chain = Chain::base(name, ChainKind::Filter, hook, priority::SERVICE_FIREWALL);
        let mut rules = Rules::of(&chain);
        rules.add("as the client said it", [expr::ct_state(CtState::NEW), vec![expr::jump(FIREWALL)]]);
        chains.push(rules.finish(chain));
    }
    chains.push(unserved(options, By::Address, UNSERVED));
    chains.push(unserved(options, By::Port, UNSERVED_PORTS));
    chains.extend([Hook::Input, Hook::Forward, Hook::Output].map(|hook| judge(options, hook)));
    chains
}

/// What packets are asked for when they are looked up by address, protocol and port.
fn frontend(family: Family) -> [Source; 3] {
    [Source::daddr(version(family)), Source::protocol(), Source::dport()]
}

/// Tells the client at once that there is nobody. A TCP client on this node, or on a link that carries packets on without
/// a queue, is still inside connect(2) when the answer comes; over IPv6 it would forget an ICMP message then, and try for
/// another second. A reset it does not forget.
fn refuse(rules: &mut Rules, purpose: &str, phrase: &[Expr]) {
    let reset = vec![expr::reject(Reject::TcpReset)];
    rules.add(purpose, [phrase.to_vec(), expr::l4proto(protocol::TCP), reset]);
    rules.add(purpose, [phrase.to_vec(), vec![expr::reject(Reject::PortUnreachable)]]);
}

fn firewall(options: &Options) -> PlannedChain {
    let chain = Chain::regular(FIREWALL);
    let mut rules = Rules::of(&chain);
    for family in options.families.families() {
        let version = version(family);
        let from = [Source::daddr(version), Source::protocol(), Source::dport(), Source::saddr(version)];
        rules.add(
            "outside of the load balancer's source ranges",
            [
                expr::in_set(&frontend(family), SetId::Restricted(family).name()),
                expr::not_in_set(&from, SetId::Allowed(family).name()),
                vec![expr::drop()],
            ],
        );
    }
    if !options.proxy_cluster_ips {
        for family in options.families.families() {
            let daddr = [Source::daddr(version(family))];
            rules.add(
                "service addresses are this node's own, and only doors are open",
                [expr::in_set(&daddr, SetId::ServiceCidrs(family).name()), vec![expr::goto(GUARD)]],
            );
        }
    }
    rules.finish(chain)
}

/// ipvs mode: what of a service address is open.
fn guard(options: &Options) -> PlannedChain {
    let chain = Chain::regular(GUARD);
    let mut rules = Rules::of(&chain);
    for family in options.families.families() {
        let key = frontend(family);
        let blocked = expr::in_set(&key, SetId::Blocked(family).name());
        rules.add("nobody may serve it here", [blocked, vec![expr::drop()]]);
        let door = expr::in_set(&key, SetId::Doors(family).name());
        rules.add("IPVS serves it", [door, vec![expr::return_()]]);
        let address = expr::in_set(&key[..1], SetId::ClusterIps(family).name());
        refuse(&mut rules, "a Service without this port", &address);
    }
    rules.add("an address that no Service has", [[expr::drop()]]);
    rules.finish(chain)
}

/// Packets to a frontend that come here were translated nowhere.
fn unserved(options: &Options, by: By, name: &'static str) -> PlannedChain {
    let chain = Chain::regular(name);
    let mut rules = Rules::of(&chain);
    for family in options.families.families() {
        let lane = Lane::of(family);
        let empty = [lane.frontend(by), lane.has_no_endpoints()].concat();
        refuse(&mut rules, "nobody serves it anywhere", &empty);
        rules.add("nobody may serve it here", [lane.frontend(by), lane.is_known(), vec![expr::drop()]]);
    }
    rules.finish(chain)
}

fn judge(options: &Options, hook: Hook) -> PlannedChain {
    let name = match hook {
        Hook::Input => "svc-filter-input",
        Hook::Forward => "svc-filter-forward",
        _ => "svc-filter-output",
    };
    let chain = Chain::base(name, ChainKind::Filter, hook, priority::SERVICE_FILTER);
    let mut rules = Rules::of(&chain);
    if hook == Hook::Forward && options.drop_invalid {
        for network in &options.pod_networks {
            for end in [expr::ip_saddr_in(*network), expr::ip_daddr_in(*network)] {
                // It would pass without being translated back, and end the connection that it belongs to.
                rules.add("belongs to no connection", [expr::ct_state(CtState::INVALID), end, vec![expr::drop()]]);
            }
        }
    }
    rules.add("not the first of a connection", [expr::ct_state_not(CtState::NEW), vec![expr::return_()]]);
    rules.add("translated", [expr::ct_status(CtStatus::DNAT), vec![expr::return_()]]);
    rules.add("meant for a Service", [[expr::jump(UNSERVED)]]);
    if hook == Hook::Input {
        for gate in takes_node_ports(options) {
            rules.add("an address of this node", [gate, vec![expr::goto(UNSERVED_PORTS)]]);
        }
        // In ipvs mode the guard has judged, and what it let pass is IPVS' from here. Otherwise a service address is only
        // ever this node's own while connections of ipvs mode end, or by somebody else's doing; no socket is to answer there.
        if !options.proxy_cluster_ips {
            return rules.finish(chain);
        }
    }
    for family in options.families.families() {
        let daddr = [Source::daddr(version(family))];
        let address = expr::in_set(&daddr, SetId::ClusterIps(family).name());
        refuse(&mut rules, "a Service without this port", &address);
        let network = expr::in_set(&daddr, SetId::ServiceCidrs(family).name());
        rules.add("an address that no Service has", [network, vec![expr::drop()]]);
    }
    rules.finish(chain)
}
