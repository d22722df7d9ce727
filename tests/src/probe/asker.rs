//! Asks without a break in the background, so that a lost request shows whatever happens meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use super::dialogue::{Dialogue, Question};
use super::outcome::Outcome;
use crate::netns::Netns;
use crate::wait;

/// Asks until it is finished, each question on a connection of its own.
#[derive(Debug)]
pub struct Asker {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    thread: Option<JoinHandle<Result<Outcome>>>,
}

impl Asker {
    /// Starts to ask from inside a namespace.
    #[must_use]
    pub fn start(netns: &Netns, question: Question) -> Self {
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (netns, stopped, counter) = (netns.clone(), Arc::clone(&stop), Arc::clone(&asked));
        let work = move || {
            let mut outcome = Outcome::default();
            while !stopped.load(Ordering::Relaxed) {
                let begin = Instant::now();
                let answer = Dialogue::open(&question).map_or_else(|answer| answer, |open| open.ask());
                outcome.add(answer, begin.elapsed());
                counter.fetch_add(1, Ordering::Relaxed);
                // A thousand a second show as much as all that a processor can.
                wait::pause(Duration::from_millis(1));
            }
            outcome
        };
        let thread = std::thread::spawn(move || netns.run(work));
        Self { stop, asked, thread: Some(thread) }
    }

    /// Waits until so many more questions have had their answer.
    ///
    /// # Errors
    /// When it does not get there.
    pub fn let_pass(&self, count: usize) -> Result<()> {
        let goal = self.asked.load(Ordering::Relaxed) + count;
        let limit = Duration::from_secs(60);
        let ended = || self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        wait::until(limit, &format!("{goal} questions"), || ended() || self.asked.load(Ordering::Relaxed) >= goal)?;
        if ended() { bail!("the asker has ended before its time") } else { Ok(()) }
    }

    /// Stops and sums up.
    ///
    /// # Errors
    /// When the namespace could not be entered.
    pub fn finish(mut self) -> Result<Outcome> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("finished already")?;
        thread.join().map_err(|_| anyhow!("the asker panicked"))?
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::OwnedNetns;
    use crate::probe::ProbeServer;
    use crate::scratch::unique_name;

    #[test]
    fn a_server_that_was_away_was_missed() {
        let netns = OwnedNetns::new(unique_name());
        let asker = Asker::start(&netns, Question::new("127.0.0.1:8080".parse().unwrap()));
        asker.let_pass(5).unwrap();
        let _server = ProbeServer::start(&netns, "here", &[8080]).unwrap();
        asker.let_pass(5).unwrap();
        let outcome = asker.finish().unwrap();
        assert!(outcome.refused >= 5 && outcome.served() >= 4, "{outcome:?}");
        assert_eq!(outcome.asked(), outcome.refused + outcome.served());
    }
}
