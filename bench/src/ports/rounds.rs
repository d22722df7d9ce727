//! The calls, timed, and that they have done what they were timed for.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use super::Options;
use crate::chain::{CONTAINER_PORT, Chain, GATEWAY, Pod};

/// The first host port; below it are those that a machine itself may use.
const FIRST_PORT: u16 = 20_000;
/// How long a connection through a host port may take.
const LIMIT: Duration = Duration::from_secs(3);

/// What was measured of one list.
#[derive(Debug, Default)]
pub(crate) struct Timings {
    /// Of each ADD, or of all at once.
    pub(crate) add: Vec<Duration>,
    /// Of each DEL, or of all at once.
    pub(crate) del: Vec<Duration>,
}

impl Timings {
    fn push(&mut self, add: Duration, del: Duration) {
        self.add.push(add);
        self.del.push(del);
    }
}

/// One pod after the other, both lists in turn.
///
/// # Errors
/// When a plugin fails, or a host port leads nowhere.
pub(crate) fn serial(chains: &[Chain; 2], options: &Options) -> Result<[Timings; 2]> {
    let mut timings: [Timings; 2] = Default::default();
    for round in 0..options.warm_up + options.rounds {
        for who in order(round) {
            let chain = &chains[who];
            let pod = chain.pod(&format!("serial{round}"), Some(FIRST_PORT + round))?;
            let (add, result) = chain.add(&pod)?;
            if round == 0 {
                verify(chain, &pod)?;
            }
            let del = chain.del(&pod, &result)?;
            pod.netns.delete()?;
            rest(options);
            if round >= options.warm_up {
                timings[who].push(add, del);
            }
        }
    }
    eprintln!("{} pods one after the other: done", options.rounds);
    Ok(timings)
}

/// All at once, both lists in turn. A time is from the first start to the last end.
///
/// # Errors
/// As [`serial`].
pub(crate) fn bursts(chains: &[Chain; 2], options: &Options) -> Result<[Timings; 2]> {
    let mut timings: [Timings; 2] = Default::default();
    for round in 0..options.bursts {
        for who in order(round) {
            let chain = &chains[who];
            let pods = (0..options.burst)
                .map(|number| chain.pod(&format!("burst{round}-{number}"), Some(FIRST_PORT + number)))
                .collect::<Result<Vec<_>>>()?;
            let (add, results) = at_once(&pods, |pod| chain.add(pod).map(|(_, result)| result))?;
            for pod in pods.first().into_iter().chain(pods.last()) {
                verify(chain, pod)?;
            }
            let attached: Vec<(&Pod, &Value)> = pods.iter().zip(&results).collect();
            let (del, _) = at_once(&attached, |(pod, result)| chain.del(pod, result))?;
            pods.iter().try_for_each(|pod| pod.netns.delete())?;
            rest(options);
            timings[who].push(add, del);
            eprintln!("burst {}: {}: {add:.2?}, away in {del:.2?}", round + 1, chain.name());
        }
    }
    Ok(timings)
}

/// Who is first alternates.
fn order(round: u16) -> [usize; 2] {
    if round.is_multiple_of(2) { [0, 1] } else { [1, 0] }
}

/// Does something with all of them, each in a thread; returns how long it took from the moment when all threads were there.
fn at_once<T: Sync, R: Send>(all: &[T], work: impl Fn(&T) -> Result<R> + Sync) -> Result<(Duration, Vec<R>)> {
    let barrier = Barrier::new(all.len() + 1);
    std::thread::scope(|scope| {
        let threads: Vec<_> = all
            .iter()
            .map(|one| {
                scope.spawn(|| {
                    barrier.wait();
                    work(one)
                })
            })
            .collect();
        barrier.wait();
        let begin = Instant::now();
        let results = threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a thread has panicked"))?)
            .collect::<Result<_>>()?;
        Ok((begin.elapsed(), results))
    })
}

/// Connects through the pod's host port.
fn verify(chain: &Chain, pod: &Pod) -> Result<()> {
    let port = pod.host_port.context("a pod without a host port")?;
    let listener =
        pod.netns.run(|| TcpListener::bind(("0.0.0.0", CONTAINER_PORT)))?.context("cannot listen in a pod")?;
    let target = SocketAddr::new(GATEWAY.into(), port);
    let connected = chain.host().run(|| TcpStream::connect_timeout(&target, LIMIT))?;
    let stream = connected.with_context(|| format!("{}: nothing behind host port {port}", chain.name()))?;
    let (_, client) = listener.accept()?;
    ensure!(stream.local_addr()?.port() == client.port(), "{}: somebody else has connected: {client}", chain.name());
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "quiet between measurements is the purpose; the kernel tells nobody of it"
)]
fn rest(options: &Options) {
    std::thread::sleep(Duration::from_millis(options.pause));
}
