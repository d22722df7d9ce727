//! The chains that choose backends: one for each class of lists.

use weft_netlink::nft::Chain;
use weft_netlink::nft::expr::SetChange;

use super::class::Class;
use super::lane::{By, Lane};
use crate::filter::Rules;
use crate::filter::plan::PlannedChain;

/// The chain of a class.
///
/// It is gone to with a packet whose frontend is known and whose list has as many backends as the class says; which frontend
/// that was, an address or a node port, each rule finds out for itself. An address is asked first: only where no frontend
/// has the packet's address do the rules in front lead node ports here.
#[must_use]
pub(super) fn plan(class: Class) -> PlannedChain {
    let chain = Chain::regular(class.to_string());
    let lane = Lane::of(class.family);
    let mut rules = Rules::of(&chain);
    let found = |by| {
        let mut phrase = lane.frontend(by);
        phrase.push(lane.to_list(class.local));
        phrase
    };
    if class.affinity.is_some() {
        let keep = [vec![lane.tagged()], lane.note(SetChange::Update, class), vec![lane.translate()]].concat();
        for by in By::ALL {
            rules.add("the client stays with its backend", [found(by), lane.remember(), keep.clone()]);
        }
        // An update would leave the old backend in its place.
        let forget = lane.note(SetChange::Delete, class);
        for by in By::ALL {
            rules.add("its backend is gone", [found(by), lane.remember(), forget.clone()]);
        }
        for by in By::ALL {
            let choose = [found(by), lane.choose_tag(class.size), lane.client_and_id(), keep.clone()].concat();
            rules.add("a new client chooses and stays", [choose]);
        }
        for by in By::ALL {
            let choose = [found(by), lane.choose_tag(class.size), vec![lane.tagged(), lane.translate()]];
            rules.add("no room to remember clients", choose);
        }
        return rules.finish(chain);
    }
    for by in By::ALL {
        rules.add("choose a backend", [found(by), lane.choose(class.size), vec![lane.translate()]]);
    }
    rules.finish(chain)
}
