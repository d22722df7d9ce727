//! The balancer as a process: listens, looks after its servers, and learns of others.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

use super::forward::serve;
use super::health::Looker;
use super::learn::{Identity, Learner};
use super::lists::{self, KNOWN, START};
use super::pool::{Health, Pool};
use crate::cluster::kube::place::Place;

/// Between two looks at a server that is ready.
const LOOK: Duration = Duration::from_secs(5);
/// Between two looks at one that is not: it may come back at any moment.
const LOOK_SOON: Duration = Duration::from_secs(1);
/// The wait before an address in use is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// The wait before an address that this machine does not have is.
const ABSENT: Duration = Duration::from_secs(60);
/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 256;

/// What a balancer goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where clients come to, on the loopback device.
    pub listen: Vec<SocketAddr>,
    /// The directory of its lists ([`lists`]).
    pub state: PathBuf,
    /// The cluster's authority, by which health checks know the servers; without, whoever accepts is taken for well.
    pub authority: Option<PathBuf>,
    /// Certificate and key in one file, with which the cluster is asked for its servers; nothing is learnt without, or without an
    /// authority.
    pub certificate: Option<PathBuf>,
    /// Between two questions.
    pub every: Duration,
}

/// A balancer cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum BalancerError {
    /// A list cannot be read.
    #[error("the list of API servers {}: {source}", .path.display())]
    List {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// There is nobody to forward to.
    #[error("no API server is known: {} names none; weft init and weft join write it, one HOST:PORT a line", .0.display())]
    Nobody(PathBuf),
    /// The authority cannot be used.
    #[error("the authority {}: {source}", .path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// There is nowhere to listen.
    #[error("no address to listen on is given")]
    Nowhere,
}

/// What the parts of a balancer have in common.
pub(super) struct Shared {
    pool: Mutex<Pool>,
    changed: Notify,
}

impl Shared {
    pub(super) fn new(known: &[Place], start: &[Place]) -> Arc<Self> {
        let shared = Self { pool: Mutex::default(), changed: Notify::new() };
        shared.pool().set(known, start);
        Arc::new(shared)
    }

    pub(super) fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how a server was found, and says so if it is new.
    pub(super) fn note(&self, place: &Place, health: Health, why: &str) {
        let before = self.pool().note(place, health);
        match (before, health) {
            (None, _) | (Some(_), Health::Unknown) => {}
            (Some(_), Health::Ready) => tracing::info!("API server {place} is ready"),
            (Some(_), Health::Unready) => tracing::warn!("API server {place} is not ready: {why}"),
            (Some(_), Health::Dead) => {
                tracing::warn!("API server {place} cannot be used: {why}");
                self.changed.notify_one();
            }
        }
    }

    /// A server that was dead takes connections again.
    pub(super) fn alive(&self, place: &Place) {
        let mut pool = self.pool();
        if pool.health(place) == Health::Dead {
            pool.note(place, Health::Unknown);
        }
    }
}

/// Runs until the future is dropped. Nothing of it panics, and what fails is tried again.
///
/// # Errors
/// [`BalancerError`]: what it is given is of no use. It ends with none once it has begun.
pub async fn run(options: Options) -> Result<std::convert::Infallible, BalancerError> {
    if options.listen.is_empty() {
        return Err(BalancerError::Nowhere);
    }
    let read = |name| {
        lists::read(&options.state, name)
            .map_err(|source| BalancerError::List { path: options.state.join(name), source })
    };
    let (start, known) = (read(START)?, read(KNOWN)?);
    if start.is_empty() && known.is_empty() {
        return Err(BalancerError::Nobody(options.state.join(START)));
    }
    let looker = Looker::new(options.authority.as_deref())
        .map_err(|source| BalancerError::Authority { path: options.authority.clone().unwrap_or_default(), source })?;
    let shared = Shared::new(&known, &start);
    let listeners = options.listen.iter().map(|address| listen(*address, shared.clone()));
    let identity = options.authority.clone().zip(options.certificate.clone());
    let identity = identity.map(|(authority, certificate)| Identity { authority, certificate });
    tokio::join!(join_all(listeners), look_after(&looker, &shared), learn(identity, &options, &shared, known, start));
    // Each of the three is endless.
    std::future::pending().await
}

/// Serves an address, as soon as it can be had.
async fn listen(address: SocketAddr, shared: Arc<Shared>) {
    let mut said = String::new();
    loop {
        let wait = match bind(address) {
            Ok(listener) => {
                tracing::info!(%address, "forwarding to the cluster's API servers");
                serve(listener, shared).await;
                return;
            }
            Err(error) => {
                let words = error.to_string();
                if said != words {
                    tracing::warn!(%address, "cannot listen yet: {words}");
                    said = words;
                }
                if error.kind() == io::ErrorKind::AddrInUse { AGAIN } else { ABSENT }
            }
        };
        sleep(wait).await;
    }
}

pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // One that starts again does not wait for the connections of the last one to be forgotten.
    socket.set_reuse_address(true)?;
    // It takes over from a stand-in without a gap.
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Looks at each server in its time, for ever.
async fn look_after(looker: &Looker, shared: &Shared) {
    let mut next: HashMap<Place, Instant> = HashMap::new();
    loop {
        let places = shared.pool().places();
        next.retain(|place, _| places.contains(place));
        let now = Instant::now();
        let due = places.iter().filter(|place| next.get(place).is_none_or(|at| *at <= now));
        join_all(due.map(|place| async {
            let (health, why) = looker.look(place).await;
            shared.note(place, health, &why);
        }))
        .await;
        let now = Instant::now();
        for place in places {
            let wait = if shared.pool().health(&place) == Health::Ready { LOOK } else { LOOK_SOON };
            let at = next.entry(place).or_insert(now);
            // One that was found dead by a client is looked at soon, whenever its turn would be.
            *at = if *at <= now { now + wait } else { (*at).min(now + wait) };
        }
        let earliest = next.values().min().copied().unwrap_or(now + LOOK);
        // Woken by a server that is new or dead, too.
        let _ = timeout_at(earliest, shared.changed.notified()).await;
    }
}

/// Asks the cluster for its servers, for ever. What nobody answers changes nothing.
async fn learn(
    identity: Option<Identity>,
    options: &Options,
    shared: &Shared,
    mut known: Vec<Place>,
    start: Vec<Place>,
) {
    let Some(identity) = identity else { return };
    let mut learner = Learner::new(identity);
    let mut said = String::new();
    loop {
        let order = shared.pool().choose();
        match learner.ask(order).await {
            Ok(found) => {
                said.clear();
                if found != known {
                    tracing::info!("the cluster's API servers are {}", words(&found));
                    shared.pool().set(&found, &start);
                    shared.changed.notify_one();
                    if let Err(error) = lists::write_known(&options.state, &found) {
                        tracing::warn!("{} cannot be written: {error}", options.state.join(KNOWN).display());
                    }
                    known = found;
                }
            }
            Err(error) if error != said => {
                tracing::warn!("the cluster's API servers cannot be asked for: {error}");
                said = error;
            }
            Err(_) => {}
        }
        sleep(options.every).await;
    }
}

fn words(places: &[Place]) -> String {
    places.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
