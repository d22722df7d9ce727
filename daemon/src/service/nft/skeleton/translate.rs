//! Translation, and the masquerade behind it.

use weft_netlink::nft::expr::{self, AddressKind, CtStatus, Direction, Expr, Side};
use weft_netlink::nft::{Chain, ChainKind, Hook, Source};
use weft_netlink::priority;

use super::super::lane::{By, Lane, version};
use super::super::layout::{Entrance, SetId};
use super::super::options::Options;
use super::{detected, from_pods, takes_node_ports};
use crate::cluster::Family;
use crate::filter::Rules;
use crate::filter::plan::PlannedChain;

const SERVICES: &str = "svc-services";
const PORTS: &str = "svc-ports";
const OFF_CLUSTER: &str = "svc-off-cluster";

pub(super) fn chains(options: &Options) -> Vec<PlannedChain> {
    let mut chains = Vec::new();
    for by in By::ALL {
        chains.push(to_list(options, by, false));
        chains.push(to_list(options, by, true));
        chains.push(external(options, by));
        chains.push(external_local(options, by));
    }
    chains.push(off_cluster(options));
    chains.push(ports(options));
    chains.push(services(options));
    for (name, hook) in [("svc-prerouting", Hook::Prerouting), ("svc-output", Hook::Output)] {
        let chain = Chain::base(name, ChainKind::Nat, hook, priority::SERVICE_DNAT);
        let mut rules = Rules::of(&chain);
        rules.add("Services", [[expr::jump(SERVICES)]]);
        chains.push(rules.finish(chain));
    }
    chains.push(postrouting(options));
    chains
}

fn chain_of(entrance: Entrance, by: By) -> &'static str {
    match by {
        By::Address => entrance.chain(),
        By::Port => entrance.port_chain(),
    }
}

/// Asks for masquerade, as only a rule behind routing can do it.
fn mark(options: &Options) -> Vec<Expr> {
    expr::set_mark(options.masquerade_mark, options.masquerade_mark)
}

fn services(options: &Options) -> PlannedChain {
    let chain = Chain::regular(SERVICES);
    let mut rules = Rules::of(&chain);
    let to_cluster_ip = |family| expr::in_set(&[Source::daddr(version(family))], SetId::ClusterIps(family).name());
    if options.masquerade_all {
        for family in options.families.families() {
            rules.add("masquerade all that goes to a cluster IP", [to_cluster_ip(family), mark(options)]);
        }
    } else {
        for family in detected(options) {
            let judge = vec![expr::jump(OFF_CLUSTER)];
            rules.add("a cluster IP may be used from outside", [to_cluster_ip(family), judge]);
        }
    }
    for family in options.families.families() {
        let lane = Lane::of(family);
        rules.add("a Service's address and port", [lane.frontend(By::Address), lane.enter(By::Address)]);
    }
    for gate in takes_node_ports(options) {
        rules.add("an address of this node", [gate, vec![expr::goto(PORTS)]]);
    }
    rules.finish(chain)
}

fn off_cluster(options: &Options) -> PlannedChain {
    let chain = Chain::regular(OFF_CLUSTER);
    let mut rules = Rules::of(&chain);
    for pod in from_pods(options) {
        rules.add("a pod keeps its address", [pod, vec![expr::return_()]]);
    }
    rules.add("the answer has to come back through this node", [mark(options)]);
    rules.finish(chain)
}

fn ports(options: &Options) -> PlannedChain {
    let chain = Chain::regular(PORTS);
    let mut rules = Rules::of(&chain);
    for family in options.families.families() {
        let lane = Lane::of(family);
        rules.add("a node port", [lane.frontend(By::Port), lane.enter(By::Port)]);
    }
    rules.finish(chain)
}

/// From a frontend to one of its lists, and to the chain that fits it. What comes back has an empty list, and is judged by
/// the filter chains.
fn to_list(options: &Options, by: By, local: bool) -> PlannedChain {
    let entrance = if local { Entrance::Local } else { Entrance::Cluster };
    let chain = Chain::regular(chain_of(entrance, by));
    let mut rules = Rules::of(&chain);
    let purpose = if local { "to a backend on this node" } else { "to a backend of the cluster" };
    for family in options.families.families() {
        let lane = Lane::of(family);
        rules.add(purpose, [lane.frontend(by), vec![lane.to_list(local)], lane.balance()]);
    }
    rules.finish(chain)
}

fn external(options: &Options, by: By) -> PlannedChain {
    let chain = Chain::regular(chain_of(Entrance::External, by));
    let mut rules = Rules::of(&chain);
    rules.add("the answer has to come back through this node", [mark(options)]);
    rules.add("from outside, any backend", [[expr::goto(chain_of(Entrance::Cluster, by))]]);
    rules.finish(chain)
}

fn external_local(options: &Options, by: By) -> PlannedChain {
    let chain = Chain::regular(chain_of(Entrance::ExternalLocal, by));
    let mut rules = Rules::of(&chain);
    let cluster = || vec![expr::goto(chain_of(Entrance::Cluster, by))];
    for pod in from_pods(options) {
        rules.add("a pod sees all backends", [pod, cluster()]);
    }
    let from_here = || expr::fib_saddr_type(AddressKind::Local);
    rules.add("this node's address may be another one to the backend", [from_here(), mark(options)]);
    rules.add("this node sees all backends", [from_here(), cluster()]);
    rules.add("a client from outside keeps its address", [[expr::goto(chain_of(Entrance::Local, by))]]);
    rules.finish(chain)
}

fn postrouting(options: &Options) -> PlannedChain {
    let chain = Chain::base("svc-postrouting", ChainKind::Nat, Hook::Postrouting, priority::SERVICE_MASQUERADE);
    let mut rules = Rules::of(&chain);
    let masquerade = || vec![expr::masquerade()];
    // Any of the bits is enough, as whoever sets the mark sets all of them.
    let marked = expr::mark_is(options.masquerade_mark, options.masquerade_mark);
    let unmark = expr::set_mark(0, options.masquerade_mark);
    rules.add("a rule in front asked for it", [marked, unmark, masquerade()]);
    for family in options.families.families() {
        let ends = [Source::saddr(version(family)), Source::daddr(version(family))];
        let hairpin = expr::in_set(&ends, SetId::Hairpin(family).name());
        rules.add("a pod is led to itself", [hairpin, masquerade()]);
    }
    if options.bridge_bypass {
        for network in &options.node_subnets {
            let family = Family::of(network.ip());
            if options.families.get(family).is_none() {
                continue;
            }
            let between = [expr::ip_saddr_in(*network), expr::ip_daddr_in(*network)].concat();
            let purpose = "the answer would pass us by in the bridge";
            rules.add(purpose, [between.clone(), expr::ct_status(CtStatus::DNAT), masquerade()]);
            if !options.proxy_cluster_ips {
                // To conntrack, what IPVS does is no translation.
                let asked = [Source::ct_address(Direction::Original, version(family), Side::Destination)];
                let service = expr::in_set(&asked, SetId::ClusterIps(family).name());
                rules.add(purpose, [between, service, masquerade()]);
            }
        }
    }
    rules.finish(chain)
}
