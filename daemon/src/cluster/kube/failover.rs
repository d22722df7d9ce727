//! Which API server is asked: the configured one, and while that is away another of those that the cluster has named. Pure.
//!
//! A server that takes no connection, or nothing but fails, is set aside for a while; then it has its turn again. Where all are
//! set aside they are all tried, so that nothing is given up.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::place::Place;

/// How long a server is set aside. To go back to the configured one is no hurry; to ask one whose machine is gone costs a
/// request seconds.
const ASIDE: Duration = Duration::from_secs(300);

/// So many failures in a row, over so long at the least, are too many for a server that has answered before. One may be down
/// to the moment, and a server that is asked rarely must not be judged by two.
const TOO_MANY: (u32, Duration) = (3, Duration::from_secs(10));

/// Another server is asked than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    /// The server.
    pub(super) to: Place,
    /// The one before; `None` for the first of all.
    pub(super) from: Option<Place>,
    /// Why the one that comes before it in the order is not asked, if something is wrong with that.
    pub(super) why: Option<String>,
}

/// What is known of a server.
#[derive(Debug, Default)]
struct Note {
    /// Until when it is set aside.
    aside: Option<Instant>,
    /// What was wrong last.
    why: Option<String>,
    /// Failures since it last answered, and when the first of them was.
    failures: u32,
    failing_since: Option<Instant>,
}

/// The servers, and the one that is asked.
#[derive(Debug, Default)]
pub(super) struct Failover {
    configured: Option<Place>,
    /// What the cluster has named, in the order in which they are tried; the configured one may be among them.
    known: Vec<Place>,
    in_use: Option<Place>,
    notes: HashMap<Place, Note>,
    /// Where this node begins among the others: the nodes of a cluster lose a server at one moment, and are not all to come to
    /// the same.
    turn: usize,
}

impl Failover {
    /// Begins with what was known last, in that order.
    pub(super) fn new(known: Vec<Place>, turn: usize) -> Self {
        Self { known, turn, ..Self::default() }
    }

    /// The configuration names this server.
    pub(super) fn configure(&mut self, place: Place) {
        self.configured = Some(place);
    }

    /// The cluster names these servers; says whether they are others than before. None at all is no word: a cluster that can be
    /// asked has one.
    pub(super) fn learn(&mut self, mut places: Vec<Place>) -> bool {
        let same = |a: &[Place], b: &[Place]| a.len() == b.len() && a.iter().all(|place| b.contains(place));
        if places.is_empty() || same(&places, &self.known) {
            return false;
        }
        let turn = self.turn % places.len();
        places.rotate_left(turn);
        self.known = places;
        let (known, configured) = (&self.known, &self.configured);
        self.notes.retain(|place, _| known.contains(place) || configured.as_ref() == Some(place));
        true
    }

    /// Whom to ask, one after the other.
    pub(super) fn order(&self, now: Instant) -> Vec<Place> {
        let mut order: Vec<Place> = Vec::new();
        // One that the cluster names no more is about to end.
        let in_use = self.in_use.as_ref().filter(|place| self.known.contains(place));
        for place in self.configured.iter().chain(in_use).chain(&self.known) {
            if !order.contains(place) {
                order.push(place.clone());
            }
        }
        // Those that are not set aside come first; of the others, the one whose time is over soonest.
        order.sort_by_key(|place| self.aside(place, now));
        order
    }

    /// A server has answered. Returns what that changes.
    pub(super) fn answered(&mut self, place: &Place) -> Option<Change> {
        self.notes.remove(place);
        if self.in_use.as_ref() == Some(place) {
            return None;
        }
        let from = self.in_use.replace(place.clone());
        let why = |place: &Place| Some(format!("{place}: {}", self.notes.get(place)?.why.as_deref()?));
        let why = from.iter().chain(&self.configured).find_map(why);
        Some(Change { to: place.clone(), from, why })
    }

    /// A server takes no connection.
    pub(super) fn refused(&mut self, place: &Place, why: String, now: Instant) {
        let note = Note { aside: Some(now + ASIDE), why: Some(why), ..Note::default() };
        self.notes.insert(place.clone(), note);
    }

    /// A server took the question and has failed to answer it.
    pub(super) fn failed(&mut self, place: &Place, why: String, now: Instant) {
        let note = self.notes.entry(place.clone()).or_default();
        note.failures += 1;
        let since = *note.failing_since.get_or_insert(now);
        let is_too_much = note.failures >= TOO_MANY.0 && now.duration_since(since) >= TOO_MANY.1;
        // One that has not answered yet has no credit.
        if is_too_much || self.in_use.as_ref() != Some(place) {
            self.refused(place, why, now);
        }
    }

    /// The server that the configuration names.
    pub(super) const fn configured(&self) -> Option<&Place> {
        self.configured.as_ref()
    }

    /// What the next start is to know: the server that works, and the others.
    pub(super) fn list(&self) -> Vec<&Place> {
        let in_use = self.in_use.as_ref().filter(|place| self.known.contains(place));
        in_use.into_iter().chain(self.known.iter().filter(|place| Some(*place) != in_use)).collect()
    }

    fn aside(&self, place: &Place, now: Instant) -> Option<Instant> {
        self.notes.get(place)?.aside.filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(host: u8) -> Place {
        Place { host: format!("192.0.2.{host}"), port: 6443 }
    }

    fn places(hosts: &[u8]) -> Vec<Place> {
        hosts.iter().map(|host| place(*host)).collect()
    }

    /// Of a cluster of three, configured with the first, which answers.
    fn three(turn: usize) -> (Failover, Instant) {
        let mut plan = Failover::new(Vec::new(), turn);
        plan.configure(place(1));
        assert_eq!(plan.answered(&place(1)), Some(Change { to: place(1), from: None, why: None }));
        assert!(plan.learn(places(&[1, 2, 3])));
        (plan, Instant::now())
    }

    #[test]
    fn the_configured_one_is_asked_first_and_nodes_do_not_all_go_on_with_the_same() {
        for (turn, order) in [(0, [1, 2, 3]), (1, [1, 2, 3]), (2, [1, 3, 2]), (3, [1, 2, 3])] {
            let (plan, now) = three(turn);
            assert_eq!(plan.order(now), places(&order), "turn {turn}");
        }
    }

    #[test]
    fn one_that_refuses_is_passed_over_until_its_time_is_over() {
        let (mut plan, now) = three(0);
        plan.refused(&place(1), "refused".to_owned(), now);
        assert_eq!(plan.order(now), places(&[2, 3, 1]));
        let change = plan.answered(&place(2)).unwrap();
        assert_eq!((change.to, change.from), (place(2), Some(place(1))));
        assert_eq!(change.why.as_deref(), Some("192.0.2.1:6443: refused"));
        assert_eq!(plan.answered(&place(2)), None, "told once");
        assert_eq!(plan.order(now + ASIDE), places(&[1, 2, 3]), "the configured one has its turn again");
        // It is still away: the one that works is asked next, and nothing changes.
        plan.refused(&place(1), "refused".to_owned(), now + ASIDE);
        assert_eq!(plan.order(now + ASIDE), places(&[2, 3, 1]));
        assert_eq!(plan.answered(&place(2)), None);
        let back = plan.answered(&place(1)).unwrap();
        assert_eq!(back, Change { to: place(1), from: Some(place(2)), why: None });
    }

    #[test]
    fn the_one_that_worked_last_comes_before_the_others() {
        let (mut plan, now) = three(0);
        plan.refused(&place(1), "refused".to_owned(), now);
        plan.refused(&place(2), "refused".to_owned(), now);
        plan.answered(&place(3));
        assert_eq!(plan.order(now), places(&[3, 1, 2]));
        assert_eq!(plan.order(now + ASIDE), places(&[1, 3, 2]));
        assert_eq!(plan.list(), [&place(3), &place(1), &place(2)]);
    }

    #[test]
    fn where_all_are_away_all_are_tried_the_one_longest_away_first() {
        let (mut plan, now) = three(0);
        for (after, host) in [3, 1, 2].into_iter().enumerate() {
            let after = Duration::from_secs(u64::try_from(after).unwrap());
            plan.refused(&place(host), "refused".to_owned(), now + after);
        }
        assert_eq!(plan.order(now + Duration::from_secs(3)), places(&[3, 1, 2]));
    }

    #[test]
    fn one_that_fails_again_and_again_is_set_aside_and_one_that_fails_once_is_not() {
        let (mut plan, now) = three(0);
        let seconds = Duration::from_secs;
        let mut fail = |host, after| {
            plan.failed(&place(host), "etcd is away".to_owned(), now + seconds(after));
            plan.order(now + seconds(after))
        };
        assert_eq!(fail(1, 0), places(&[1, 2, 3]));
        assert_eq!(fail(1, 1), places(&[1, 2, 3]));
        assert_eq!(fail(1, 2), places(&[1, 2, 3]), "three within a moment are one trouble");
        assert_eq!(fail(1, 11), places(&[2, 3, 1]));
        assert_eq!(fail(2, 11), places(&[3, 1, 2]), "one that has not answered yet has no credit");
        let change = plan.answered(&place(3)).unwrap();
        assert_eq!(change.why.as_deref(), Some("192.0.2.1:6443: etcd is away"));
        let (mut plan, now) = three(0);
        for after in [0, 20, 40, 60] {
            plan.failed(&place(1), "etcd is away".to_owned(), now + seconds(after));
            plan.answered(&place(1));
        }
        assert_eq!(plan.order(now + seconds(60)), places(&[1, 2, 3]), "an answer ends it");
    }

    #[test]
    fn what_the_cluster_says_replaces_what_it_said_and_nothing_is_no_word() {
        let (mut plan, now) = three(0);
        assert!(!plan.learn(Vec::new()) && !plan.learn(places(&[3, 1, 2])));
        assert_eq!(plan.order(now), places(&[1, 2, 3]));
        plan.refused(&place(1), "gone".to_owned(), now);
        plan.answered(&place(2));
        // The configured one is named no more, and neither is the one in use.
        assert!(plan.learn(places(&[3, 4])));
        assert_eq!(plan.order(now), places(&[3, 4, 1]));
        assert_eq!(plan.list(), [&place(3), &place(4)]);
    }

    #[test]
    fn a_start_without_the_configured_one_goes_by_what_was_known_last() {
        let mut plan = Failover::new(places(&[3, 1, 2]), 7);
        plan.configure(place(9));
        let now = Instant::now();
        assert_eq!(plan.order(now), places(&[9, 3, 1, 2]));
        plan.refused(&place(9), "no route".to_owned(), now);
        let change = plan.answered(&place(3)).unwrap();
        assert_eq!((change.from, change.why.as_deref()), (None, Some("192.0.2.9:6443: no route")));
    }

    #[test]
    fn with_one_server_alone_it_is_always_asked() {
        let mut plan = Failover::default();
        plan.configure(place(1));
        let now = Instant::now();
        plan.refused(&place(1), "refused".to_owned(), now);
        assert_eq!(plan.order(now), places(&[1]));
    }
}
