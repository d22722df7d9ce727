//! Which server a new connection goes to. Pure.

use crate::cluster::kube::place::Place;

/// How a server was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Health {
    /// It says that it is ready.
    Ready,
    /// Nobody has looked yet, or it took a connection after it had been dead.
    Unknown,
    /// It answers, and says that it is not ready: it starts or ends.
    Unready,
    /// It takes no connection, or does not show the cluster's certificate.
    Dead,
}

/// Who named a server. What the cluster says comes before what the node was told once: that one may be long gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Cluster,
    Start,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Server {
    place: Place,
    source: Source,
    health: Health,
}

/// The servers and what is known of them.
#[derive(Debug, Default)]
pub(super) struct Pool {
    servers: Vec<Server>,
    /// Counts choices, so that equals take turns.
    turn: usize,
}

impl Pool {
    /// Takes a new list. What is known of those that stay is kept; connections are not the pool's, and nothing happens to them.
    pub(super) fn set(&mut self, cluster: &[Place], start: &[Place]) {
        let mut servers: Vec<Server> = Vec::new();
        let all = cluster.iter().map(|place| (place, Source::Cluster));
        for (place, source) in all.chain(start.iter().map(|place| (place, Source::Start))) {
            if servers.iter().all(|server| server.place != *place) {
                servers.push(Server { place: place.clone(), source, health: self.health(place) });
            }
        }
        self.servers = servers;
    }

    /// All servers, in no order that means anything.
    pub(super) fn places(&self) -> Vec<Place> {
        self.servers.iter().map(|server| server.place.clone()).collect()
    }

    /// What is known of a server.
    pub(super) fn health(&self, place: &Place) -> Health {
        self.servers.iter().find(|server| server.place == *place).map_or(Health::Unknown, |server| server.health)
    }

    /// Notes how a server was found; says how it was before, if that was otherwise. One that is in the list no more is of no
    /// interest.
    pub(super) fn note(&mut self, place: &Place, health: Health) -> Option<Health> {
        let server = self.servers.iter_mut().find(|server| server.place == *place)?;
        let before = std::mem::replace(&mut server.health, health);
        (before != health).then_some(before)
    }

    /// The servers in the order in which a new connection tries them: the best first, and equals in turn. Not one is left
    /// out: when all look dead, one of them may be so no more.
    pub(super) fn choose(&mut self) -> Vec<Place> {
        let count = self.servers.len();
        if count == 0 {
            return Vec::new();
        }
        self.turn = self.turn.wrapping_add(1);
        let mut servers: Vec<&Server> = self.servers.iter().collect();
        servers.rotate_left(self.turn % count);
        // Stable: the turn decides between equals.
        servers.sort_by_key(|server| (server.health, server.source));
        servers.into_iter().map(|server| server.place.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(ports: &[u16]) -> Vec<Place> {
        ports.iter().map(|port| Place { host: "192.0.2.1".to_owned(), port: *port }).collect()
    }

    fn first(pool: &mut Pool) -> u16 {
        pool.choose()[0].port
    }

    #[test]
    fn equals_take_turns() {
        let mut pool = Pool::default();
        assert!(pool.choose().is_empty());
        pool.set(&places(&[1, 2, 3]), &[]);
        let mut seen: Vec<u16> = (0..6).map(|_| first(&mut pool)).collect();
        seen.sort_unstable();
        assert_eq!(seen, [1, 1, 2, 2, 3, 3]);
    }

    #[test]
    fn the_well_come_first_and_the_dead_are_a_last_resort() {
        let mut pool = Pool::default();
        pool.set(&places(&[1, 2, 3]), &places(&[4]));
        for (port, health) in [(1, Health::Dead), (2, Health::Unready), (4, Health::Ready)] {
            assert_eq!(pool.note(&places(&[port])[0], health), Some(Health::Unknown));
            assert_eq!(pool.note(&places(&[port])[0], health), None, "nothing new");
        }
        for _ in 0..4 {
            let order: Vec<u16> = pool.choose().iter().map(|place| place.port).collect();
            assert_eq!(order, [4, 3, 2, 1]);
        }
        assert_eq!(pool.note(&places(&[9])[0], Health::Dead), None, "not in the list");
    }

    #[test]
    fn what_the_cluster_names_comes_before_what_the_node_was_told() {
        let mut pool = Pool::default();
        pool.set(&[], &places(&[1]));
        assert_eq!(first(&mut pool), 1);
        pool.set(&places(&[2, 3]), &places(&[1, 3]));
        assert_eq!(pool.places().len(), 3);
        for _ in 0..4 {
            assert_eq!(pool.choose()[2].port, 1);
        }
    }

    #[test]
    fn a_new_list_forgets_only_those_that_are_gone() {
        let mut pool = Pool::default();
        pool.set(&places(&[1, 2]), &[]);
        pool.note(&places(&[1])[0], Health::Dead);
        pool.set(&places(&[1, 3]), &[]);
        assert_eq!(pool.health(&places(&[1])[0]), Health::Dead);
        assert_eq!(pool.health(&places(&[3])[0]), Health::Unknown);
        assert_eq!(first(&mut pool), 3);
    }
}
