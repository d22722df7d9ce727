//! Asking from a place, and judging what comes back.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::patience;
use crate::kube::Endpoint;
use crate::netns::Netns;
use crate::probe::{self, Dialogue, Outcome, Question, Transport};

/// How often a way is asked: that one of two servers gets none of these is a chance of one in ten million.
const TIMES: usize = 24;
/// How long an answer may take on a machine that has much else to do. Nothing waits for it where answers come.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long silence has to last before it counts as such: much longer than any answer here takes.
const SILENCE: Duration = Duration::from_millis(400);

/// A namespace that asks, and maybe answers.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its name, which is its server's, too.
    pub name: String,
    /// Its namespace.
    pub netns: Netns,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// The node that it is on; empty outside.
    pub node: String,
    /// If answers between pods of one bridge take the bridge past the node's rules: the servers on this bridge, and the
    /// addresses that such flows are masqueraded to.
    pub(super) across_bridge: Option<(&'static str, Arc<[IpAddr]>)>,
}

/// What is asked, from where.
#[derive(Debug, Clone)]
pub struct Ask<'a> {
    place: &'a Place,
    question: Question,
    times: usize,
    at_a_time: usize,
}

/// An outcome in which everything was answered.
#[derive(Debug)]
pub struct Served<'a> {
    /// Who answered how often.
    pub outcome: Outcome,
    place: &'a Place,
    target: SocketAddr,
}

impl Place {
    /// Its address of the family of another one.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    pub fn ip_like(&self, other: IpAddr) -> IpAddr {
        let found = self.ips.iter().find(|ip| ip.is_ipv6() == other.is_ipv6());
        *found.unwrap_or_else(|| panic!("{} has no address like {other}", self.name))
    }

    /// Ready endpoints at its addresses.
    #[must_use]
    pub fn ready(&self) -> Vec<Endpoint> {
        self.ips.iter().map(|ip| Endpoint::ready(*ip, &self.node)).collect()
    }

    /// The same, changed.
    #[must_use]
    pub fn but(&self, change: impl Fn(Endpoint) -> Endpoint) -> Vec<Endpoint> {
        self.ready().into_iter().map(change).collect()
    }

    /// A question to an address over TCP, often enough to meet every server behind it.
    #[must_use]
    pub fn to(&self, target: SocketAddr) -> Ask<'_> {
        let question = Question { limit: patience(PATIENCE), ..Question::new(target) };
        Ask { place: self, question, times: TIMES, at_a_time: 4 }
    }
}

impl<'a> Ask<'a> {
    /// Over another transport.
    #[must_use]
    pub fn over(mut self, transport: Transport) -> Self {
        self.question.transport = transport;
        self
    }

    /// So many times.
    #[must_use]
    pub fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }

    /// So many at a time.
    #[must_use]
    pub fn at_a_time(mut self, lanes: usize) -> Self {
        self.at_a_time = lanes;
        self
    }

    /// From that one of the place's addresses.
    #[must_use]
    pub fn as_client(mut self, ip: IpAddr) -> Self {
        self.question.source = Some(ip);
        self
    }

    /// From that port, one after the other.
    #[must_use]
    pub fn from_port(mut self, port: u16) -> Self {
        self.question.source_port = port;
        self.at_a_time = 1;
        self
    }

    /// Waiting so long for each answer.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.question.limit = limit;
        self
    }

    /// Asks.
    ///
    /// # Panics
    /// When the namespace cannot be entered.
    #[must_use]
    pub fn go(&self) -> Outcome {
        probe::ask(&self.place.netns, &self.question, self.times, self.at_a_time).unwrap()
    }

    /// Opens a connection that stays open.
    ///
    /// # Panics
    /// When it is refused or lost.
    #[must_use]
    #[track_caller]
    pub fn open(&self) -> Dialogue {
        let opened = Dialogue::open_in(&self.place.netns, &self.question).unwrap();
        opened.unwrap_or_else(|answer| panic!("{}: {answer:?}", self.words()))
    }

    /// Asks; everything has to be answered, by exactly these servers.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn is_served_by(&self, servers: &[&str]) -> Served<'a> {
        let served = self.is_served();
        let outcome = &served.outcome;
        let found: BTreeSet<&str> = outcome.by.keys().map(String::as_str).collect();
        let expected: BTreeSet<&str> = servers.iter().copied().collect();
        assert_eq!(found, expected, "{}: who answered: {outcome:?}", self.words());
        served
    }

    /// Asks; everything has to be answered, by whomever.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn is_served(&self) -> Served<'a> {
        let outcome = self.go();
        let all = outcome.served() == outcome.asked() && outcome.asked() == self.times;
        assert!(all, "{}: not everything was answered: {outcome:?}", self.words());
        Served { outcome, place: self.place, target: self.question.target }
    }

    /// Asks a few times; everything has to be refused at once.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn is_refused(&self) {
        let outcome = self.clone().times(3).at_a_time(1).go();
        assert_eq!(outcome.refused, 3, "{}: not refused: {outcome:?}", self.words());
        assert!(outcome.slowest < patience(Duration::from_millis(900)), "{}: refused late: {outcome:?}", self.words());
    }

    /// Asks a few times; nothing may come back.
    ///
    /// # Panics
    /// When something does.
    #[track_caller]
    pub fn is_dropped(&self) {
        let outcome = self.clone().times(3).at_a_time(3).within(patience(SILENCE)).go();
        assert_eq!(outcome.timed_out, 3, "{}: not dropped: {outcome:?}", self.words());
    }

    fn words(&self) -> String {
        let Question { target, transport, .. } = self.question;
        format!("{} asks {target} over {}", self.place.name, transport.name())
    }
}

impl Served<'_> {
    /// Every server has to have seen the client's own address. Where the answer of a pod on the client's own bridge would
    /// miss the node's rules, that pod has to have seen the node's.
    ///
    /// # Panics
    /// When one has not.
    #[track_caller]
    pub fn keeps_its_source(&self) -> &Self {
        for (server, tally) in &self.outcome.by {
            let expected = match &self.place.across_bridge {
                Some((neighbours, node)) if server.starts_with(neighbours) => node,
                _ => &self.place.ips[..],
            };
            self.all_of(server, &tally.sources, expected);
        }
        self
    }

    /// Every server has to have seen an address of that place.
    ///
    /// # Panics
    /// When one has not.
    #[track_caller]
    pub fn seen_as(&self, place: &Place) -> &Self {
        for server in self.outcome.by.keys() {
            self.seen_at(server, place);
        }
        self
    }

    /// That server has to have seen an address of that place.
    ///
    /// # Panics
    /// When it has not.
    #[track_caller]
    pub fn seen_at(&self, server: &str, place: &Place) -> &Self {
        self.all_of(server, &self.outcome.by[server].sources, &place.ips);
        self
    }

    #[track_caller]
    fn all_of(&self, server: &str, seen: &BTreeSet<IpAddr>, expected: &[IpAddr]) {
        let right = seen.iter().all(|ip| expected.contains(ip)) && !seen.is_empty();
        let Self { place, target, .. } = self;
        assert!(right, "{} asked {target}: {server} saw {seen:?}, expected one of {expected:?}", place.name);
    }
}
