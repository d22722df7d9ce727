//! What the kernel has, and when it changed: the judge over all contenders, whatever they say of themselves.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use weft_netlink::nft::{Field, Set, Socket, Table, TableFamily};
use weft_tests::netns::Netns;

/// Between two looks at the generation while a single change is awaited: what a time is exact to.
const GLANCE: Duration = Duration::from_micros(100);
/// The same while something long is awaited, so that the look itself costs nothing.
const LOOK: Duration = Duration::from_millis(1);
/// After so much quiet it is worth looking whether all is there.
const QUIET: Duration = Duration::from_millis(500);

/// A view of the nf_tables of one namespace. A look at the generation takes none of the kernel's locks.
pub(crate) struct Kernel {
    socket: Socket,
}

/// A map, with one element for each Service port.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frontends {
    pub(crate) family: TableFamily,
    pub(crate) table: &'static str,
    pub(crate) map: &'static str,
}

impl Kernel {
    /// Of a namespace.
    pub(crate) fn open(netns: &Netns) -> Result<Self> {
        Ok(Self { socket: netns.run(Socket::open)?? })
    }

    /// The number of transactions so far.
    pub(crate) fn generation(&mut self) -> Result<u32> {
        Ok(self.socket.generation()?)
    }

    /// Waits for the next transaction, and says when it was there.
    ///
    /// # Errors
    /// When there is none within the limit.
    pub(crate) fn await_transaction(&mut self, after: u32, limit: Duration) -> Result<Instant> {
        let begin = Instant::now();
        while self.generation()? == after {
            if begin.elapsed() > limit {
                bail!("no transaction within {} s", limit.as_secs());
            }
            pause(GLANCE);
        }
        Ok(Instant::now())
    }

    /// Waits until there was no transaction for so long, and says when the last one was; `None` if the limit has passed.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub(crate) fn await_quiet(&mut self, quiet: Duration, limit: Duration) -> Result<Option<Instant>> {
        let (begin, mut generation) = (Instant::now(), self.generation()?);
        let mut last = begin;
        while begin.elapsed() < limit {
            pause(LOOK);
            let now = self.generation()?;
            if now != generation {
                (generation, last) = (now, Instant::now());
            } else if last.elapsed() >= quiet {
                return Ok(Some(last));
            }
        }
        Ok(None)
    }

    /// Waits until `complete` holds. Returns when the last transaction was; `None` if the limit has passed.
    ///
    /// `complete` is asked only after some quiet, as the answer costs the contender time.
    ///
    /// # Errors
    /// Those of `complete`.
    pub(crate) fn settle(
        &mut self,
        limit: Duration,
        mut complete: impl FnMut(&mut Self) -> Result<bool>,
    ) -> Result<Option<Instant>> {
        let begin = Instant::now();
        let mut last = begin;
        let mut generation = self.generation()?;
        loop {
            let left = limit.saturating_sub(begin.elapsed());
            let Some(seen) = self.await_quiet(QUIET, left)? else { return Ok(None) };
            // What happened while `complete` was asked is found by the next look, at whose begin it counts as seen.
            let now = self.generation()?;
            if now != generation {
                (generation, last) = (now, seen);
            }
            if complete(self)? {
                return Ok(Some(last));
            }
        }
    }

    /// How many elements a map has; none if it is not there.
    pub(crate) fn count(&mut self, Frontends { family, table, map }: Frontends) -> Result<usize> {
        let set = Set::new(map, [Field::Ipv4, Field::Protocol, Field::Port]);
        match self.socket.elements(&Table::new(family, table), &set) {
            Ok(elements) => Ok(elements.len()),
            Err(error) if error.is_absent() => Ok(0),
            Err(error) => Err(error).context("cannot count elements"),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a look every so often: the kernel tells listeners, but then works for them"
)]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}
