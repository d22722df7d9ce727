//! An echo every 5 ms in the background, while the test does something to the network.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use super::icmp::{Echoes, identifier};
use crate::netns::Netns;
use crate::wait;

/// The time between two echoes.
const PERIOD: Duration = Duration::from_millis(5);

/// What became of the echoes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Losses {
    /// How many were sent.
    pub sent: usize,
    /// The sequence numbers of those that nobody answered.
    pub lost: Vec<u16>,
}

impl Losses {
    /// How many were lost.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lost.len()
    }
}

/// Pings in the background until it is finished.
#[derive(Debug)]
pub struct Pinger {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU16>,
    thread: Option<JoinHandle<Result<Losses>>>,
}

impl Pinger {
    /// Starts to ping `target` from inside a namespace.
    #[must_use]
    pub fn start(netns: &Netns, target: IpAddr) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU16::new(0)));
        let (netns, stopped, counter) = (netns.clone(), Arc::clone(&stop), Arc::clone(&sent));
        let thread = std::thread::spawn(move || netns.run(|| ping_until(target, &stopped, &counter))?);
        Self { stop, sent, thread: Some(thread) }
    }

    /// Waits until `count` more echoes have been sent: the way to let traffic flow for a while.
    ///
    /// # Errors
    /// When the pinger does not get there.
    pub fn let_pass(&self, count: u16) -> Result<()> {
        let goal = self.sent.load(Ordering::Relaxed).saturating_add(count);
        let limit = PERIOD * u32::from(count) * 4 + Duration::from_secs(5);
        wait::until(limit, &format!("{goal} echoes"), || self.ended() || self.sent.load(Ordering::Relaxed) >= goal)?;
        if self.ended() { bail!("the pinger has ended before its time") } else { Ok(()) }
    }

    fn ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Stops, waits for the last answers and counts.
    ///
    /// # Errors
    /// When the namespace or the socket failed.
    pub fn finish(mut self) -> Result<Losses> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("finished already")?;
        thread.join().map_err(|_| anyhow!("the pinger panicked"))?
    }
}

impl Drop for Pinger {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn ping_until(target: IpAddr, stop: &AtomicBool, sent: &AtomicU16) -> Result<Losses> {
    let echoes = Echoes::open(target, identifier())?;
    let mut answered = Vec::new();
    let mut next = Instant::now();
    // u16 sequence numbers end after five minutes, which no test reaches.
    for sequence in 0..u16::MAX {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        // A refusal to send (no route for a moment) is a loss like any other: its answer will be missing.
        let _ = echoes.send(target, sequence);
        answered.push(false);
        sent.store(sequence + 1, Ordering::Relaxed);
        next += PERIOD;
        // The time to the next echo is spent listening.
        while let Some(left) = next.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            take(&echoes, left, &mut answered)?;
        }
    }
    let deadline = Instant::now() + Duration::from_secs(1);
    while answered.contains(&false) && Instant::now() < deadline {
        take(&echoes, Duration::from_millis(50), &mut answered)?;
    }
    let lost = answered.iter().zip(0u16..).filter(|(heard, _)| !**heard).map(|(_, sequence)| sequence).collect();
    Ok(Losses { sent: answered.len(), lost })
}

fn take(echoes: &Echoes, limit: Duration, answered: &mut [bool]) -> Result<()> {
    if let Some(slot) = echoes.receive(limit)?.and_then(|sequence| answered.get_mut(usize::from(sequence))) {
        *slot = true;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::OwnedNetns;
    use crate::scratch::unique_name;

    #[test]
    fn losses_are_counted_while_the_target_is_away() {
        let netns = OwnedNetns::new(unique_name());
        let pinger = Pinger::start(&netns, "127.0.0.1".parse().unwrap());
        pinger.let_pass(20).unwrap();
        netns.tool("ip", &["link", "set", "lo", "down"]).unwrap();
        pinger.let_pass(20).unwrap();
        netns.tool("ip", &["link", "set", "lo", "up"]).unwrap();
        pinger.let_pass(20).unwrap();
        let losses = pinger.finish().unwrap();
        assert!(losses.sent >= 60);
        assert!((15..losses.sent - 30).contains(&losses.count()), "{losses:?}");
    }
}
