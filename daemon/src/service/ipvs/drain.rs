//! How a real server that nobody wants any more goes: TCP connections may end, everything else moves at once.
//!
//! A real server at weight 0 gets no new connections and keeps those that it has. It is deleted when they have ended, and
//! at the latest after a limit, because some never do: clients of a node that died wait for an answer, and get a reset
//! only when the real server is gone. The limit counts from the moment at which the backend no longer serves: one that
//! shuts down in an orderly way, and says so, has its own limit.
//!
//! Nothing of this is written down. After a restart an unwanted real server at weight 0 drains from then on.

use std::time::{Duration, Instant};

/// How long real servers drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainLimits {
    /// At most so long after its backend has stopped serving is a real server kept.
    pub limit: Duration,
    /// How often the connections of those that drain are counted.
    pub poll: Duration,
}

impl Default for DrainLimits {
    fn default() -> Self {
        Self { limit: Duration::from_secs(120), poll: Duration::from_secs(5) }
    }
}

/// Where a real server stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It gets new connections.
    Serving,
    /// It gets none and keeps those that it has, until they end or the time is over. Without a time its backend serves.
    Draining {
        /// When it is deleted whatever it has.
        until: Option<Instant>,
    },
    /// It is deleted.
    Gone,
}

impl State {
    /// The weight that a real server has in the kernel; `None` if it is not there.
    pub(super) fn weight(self) -> Option<u32> {
        match self {
            Self::Serving => Some(1),
            Self::Draining { .. } => Some(0),
            Self::Gone => None,
        }
    }
}

/// What is learned of a real server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    /// It should get new connections.
    Wanted,
    /// It should not.
    Unwanted {
        /// Whether its connections are worth waiting for: those of TCP are.
        lasting: bool,
        /// Whether its backend still serves them.
        serves: bool,
    },
    /// It has so many connections, active and ending.
    Counted(u64),
}

/// The next state of a real server. What the kernel should hold follows from the state: see [`State::weight`].
pub(super) fn step(state: State, input: Input, now: Instant, limit: Duration) -> State {
    let drain = |serves: bool| State::Draining { until: if serves { None } else { now.checked_add(limit) } };
    match (state, input) {
        (State::Gone, _) | (State::Serving, Input::Counted(_)) => state,
        (_, Input::Wanted) => State::Serving,
        (_, Input::Unwanted { lasting: false, .. }) => State::Gone,
        // A time that runs goes on, unless the backend is back.
        (State::Draining { until: Some(_) }, Input::Unwanted { serves: false, .. }) => state,
        (State::Serving | State::Draining { .. }, Input::Unwanted { serves, .. }) => drain(serves),
        (State::Draining { until }, Input::Counted(connections)) => {
            let is_over = connections == 0 || until.is_some_and(|until| until <= now);
            if is_over { State::Gone } else { state }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(120);

    fn unwanted(serves: bool) -> Input {
        Input::Unwanted { lasting: true, serves }
    }

    #[test]
    fn t93_tcp_drains_until_its_connections_have_ended() {
        let now = Instant::now();
        let state = step(State::Serving, unwanted(false), now, LIMIT);
        assert_eq!(state, State::Draining { until: Some(now + LIMIT) });
        assert_eq!(step(state, Input::Counted(1), now, LIMIT), state);
        assert_eq!(step(state, Input::Counted(0), now, LIMIT), State::Gone);
    }

    #[test]
    fn t95_connections_that_never_end_do_not_hold_it_for_ever() {
        let now = Instant::now();
        let state = step(State::Serving, unwanted(false), now, LIMIT);
        // Being told again does not start the time anew.
        assert_eq!(step(state, unwanted(false), now + LIMIT / 2, LIMIT), state);
        assert_eq!(step(state, Input::Counted(7), now + LIMIT, LIMIT), State::Gone);
    }

    #[test]
    fn a_backend_that_shuts_down_in_order_has_its_own_time() {
        let now = Instant::now();
        let state = step(State::Serving, unwanted(true), now, LIMIT);
        assert_eq!(state, State::Draining { until: None });
        let late = now + 10 * LIMIT;
        assert_eq!(step(state, Input::Counted(1), late, LIMIT), state);
        assert_eq!(step(state, unwanted(false), late, LIMIT), State::Draining { until: Some(late + LIMIT) });
    }

    #[test]
    fn what_does_not_last_goes_at_once_and_what_returns_serves() {
        let now = Instant::now();
        let datagrams = Input::Unwanted { lasting: false, serves: true };
        assert_eq!(step(State::Serving, datagrams, now, LIMIT), State::Gone);
        assert_eq!(step(State::Draining { until: Some(now) }, Input::Wanted, now, LIMIT), State::Serving);
    }

    fn any_input() -> impl Strategy<Value = Input> {
        prop_oneof![Just(Input::Wanted), any::<bool>().prop_map(unwanted), (0u64..3).prop_map(Input::Counted),]
    }

    proptest! {
        /// However the cluster changes its mind: a wanted one serves, an unwanted one does not, and one that nobody serves
        /// is gone after the limit.
        #[test]
        fn the_state_follows_the_cluster(inputs in proptest::collection::vec((any_input(), 0u64..60), 1..40)) {
            let mut now = Instant::now();
            let (mut state, mut wanted, mut unserved) = (State::Serving, true, None::<Instant>);
            for (input, seconds) in inputs {
                now += Duration::from_secs(seconds);
                state = step(state, input, now, LIMIT);
                match input {
                    Input::Unwanted { serves, .. } => {
                        wanted = false;
                        unserved = if serves { None } else { unserved.or(Some(now)) };
                    }
                    Input::Wanted => (wanted, unserved) = (true, None),
                    Input::Counted(connections) => {
                        let overdue = unserved.is_some_and(|since| since + LIMIT <= now);
                        prop_assert_eq!(state == State::Gone, !wanted && (connections == 0 || overdue));
                    }
                }
                match state {
                    State::Serving => prop_assert!(wanted),
                    State::Draining { until } => {
                        prop_assert!(!wanted);
                        prop_assert_eq!(until, unserved.map(|since| since + LIMIT));
                    }
                    State::Gone => return Ok(()),
                }
            }
        }
    }
}
