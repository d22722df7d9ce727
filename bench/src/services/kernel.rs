//! What the kernel has, and when it changed: the judge over all contenders, whatever they say of themselves.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use weft_netlink::ipvs::{self, Target};
use weft_netlink::nft::{Field, Set, Socket, Table, TableFamily};
use weft_tests::netns::Netns;

use super::cluster::{Cluster, cluster_ip};
use super::contenders::Mode;
use crate::pause::pause;

/// Between two looks while a single change is awaited: what a time is exact to.
const GLANCE: Duration = Duration::from_micros(100);
/// The same while something long is awaited, so that the look itself costs next to nothing. One at IPVS reads its whole table.
const LOOK: Duration = Duration::from_millis(1);
const LOOK_AT_IPVS: Duration = Duration::from_millis(100);
/// Between two questions to a daemon whether it is done.
const ASK: Duration = Duration::from_millis(20);
/// After so much quiet it is worth looking whether all is there.
const QUIET: Duration = Duration::from_millis(500);

/// A view of one namespace.
pub(crate) struct Kernel {
    netns: Netns,
    nft: Socket,
    /// Only if Services are in IPVS.
    ipvs: Option<ipvs::Socket>,
}

/// A map of nf_tables, with one element for each Service port.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frontends {
    pub(crate) family: TableFamily,
    pub(crate) table: &'static str,
    pub(crate) map: &'static str,
}

impl Kernel {
    /// Of a namespace.
    pub(crate) fn open(netns: &Netns, mode: Mode) -> Result<Self> {
        let ipvs = if mode == Mode::Ipvs { Some(netns.run(ipvs::Socket::open)??) } else { None };
        Ok(Self { netns: netns.clone(), nft: netns.run(Socket::open)??, ipvs })
    }

    /// The number of nf_tables' transactions so far. The look takes none of the kernel's locks.
    pub(crate) fn generation(&mut self) -> Result<u32> {
        Ok(self.nft.generation()?)
    }

    /// What differs as soon as something has changed.
    fn state(&mut self) -> Result<u64> {
        let mut hasher = DefaultHasher::new();
        self.generation()?.hash(&mut hasher);
        if self.ipvs.is_some() {
            // Name, address, kind, weight; behind them are numbers of connections.
            self.ipvs_table()?
                .lines()
                .for_each(|line| line.split_whitespace().take(4).for_each(|word| word.hash(&mut hasher)));
        }
        Ok(hasher.finish())
    }

    fn ipvs_table(&self) -> Result<String> {
        self.netns
            .run(|| std::fs::read_to_string("/proc/thread-self/net/ip_vs"))?
            .context("cannot read the table of IPVS")
    }

    /// Waits until a change of a Service's endpoints is there, and says when it was. `before` is the generation then.
    ///
    /// In nf_tables any transaction counts: nothing else goes on.
    ///
    /// # Errors
    /// When it does not come within the limit.
    pub(crate) fn await_change(
        &mut self,
        before: u32,
        cluster: &Cluster,
        number: u32,
        limit: Duration,
    ) -> Result<Instant> {
        let begin = Instant::now();
        let wanted: BTreeSet<IpAddr> = cluster.endpoints(number).into_iter().map(IpAddr::V4).collect();
        let target = Target::Address { address: cluster_ip(number).into(), port: 80, protocol: 6 };
        loop {
            let there = match &mut self.ipvs {
                None => self.generation()? != before,
                Some(ipvs) => {
                    let servers = ipvs.real_servers(&target)?.into_iter().map(|info| info.server);
                    let open = servers.filter(|server| server.weight > 0).map(|server| server.address);
                    open.collect::<BTreeSet<_>>() == wanted
                }
            };
            if there {
                return Ok(Instant::now());
            }
            if begin.elapsed() > limit {
                bail!("a change is not there within {} s", limit.as_secs());
            }
            pause(GLANCE);
        }
    }

    /// Waits until nothing has changed for so long.
    ///
    /// # Errors
    /// When it goes on for longer than the limit.
    pub(crate) fn await_calm(&mut self, calm: Duration, limit: Duration) -> Result<()> {
        let mut watch = Watch::begin(self)?;
        while watch.last.elapsed() < calm {
            if watch.begin.elapsed() > limit {
                bail!("the kernel changes without end");
            }
            watch.look(self)?;
        }
        Ok(())
    }

    /// Waits until `synced` and then, after some quiet, `complete` hold. Returns when the last change was; `None` if the limit
    /// has passed.
    ///
    /// `synced` is asked in a thread of its own: while its answer is waited for, the kernel is looked at. `complete` is asked
    /// only after some quiet, as the answer costs the contender time.
    ///
    /// # Errors
    /// Those of `complete`.
    pub(crate) fn settle(
        &mut self,
        limit: Duration,
        synced: impl Fn() -> bool + Sync,
        mut complete: impl FnMut(&mut Self) -> Result<bool>,
    ) -> Result<Option<Instant>> {
        let mut watch = Watch::begin(self)?;
        let (begin, done) = (watch.begin, AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !synced() && begin.elapsed() < limit {
                    pause(ASK);
                }
                done.store(true, Ordering::Relaxed);
            });
            let mut asked = begin;
            while begin.elapsed() < limit {
                watch.look(self)?;
                let quiet = watch.last.elapsed().min(asked.elapsed()) > QUIET;
                if quiet && done.load(Ordering::Relaxed) {
                    // If anything has changed meanwhile, it is not over.
                    if complete(self)? && self.state()? == watch.state {
                        return Ok(Some(watch.last));
                    }
                    asked = Instant::now();
                }
            }
            Ok(None)
        })
    }

    /// How many Services are there: elements of the map, or virtual servers that have as many real servers as they should,
    /// all taken together.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub(crate) fn services(&mut self, Frontends { family, table, map }: Frontends, cluster: &Cluster) -> Result<usize> {
        if self.ipvs.is_some() {
            let text = self.ipvs_table()?;
            let servers = text.lines().filter(|line| line.trim_start().starts_with("-> ")).count();
            let virtual_servers =
                text.lines().filter(|line| line.starts_with("TCP ") || line.starts_with("UDP ")).count();
            // The first "->" is the heading.
            return Ok(if servers > cluster.total_endpoints() { virtual_servers } else { 0 });
        }
        let set = Set::new(map, [Field::Ipv4, Field::Protocol, Field::Port]);
        match self.nft.elements(&Table::new(family, table), &set) {
            Ok(elements) => Ok(elements.len()),
            Err(error) if error.is_absent() => Ok(0),
            Err(error) => Err(error).context("cannot count elements"),
        }
    }
}

/// Looks at a namespace, one after the other.
struct Watch {
    begin: Instant,
    /// When it was last seen that something had changed.
    last: Instant,
    state: u64,
}

impl Watch {
    fn begin(kernel: &mut Kernel) -> Result<Self> {
        let now = Instant::now();
        Ok(Self { begin: now, last: now, state: kernel.state()? })
    }

    fn look(&mut self, kernel: &mut Kernel) -> Result<()> {
        pause(if kernel.ipvs.is_some() { LOOK_AT_IPVS } else { LOOK });
        let state = kernel.state()?;
        if state != self.state {
            (self.state, self.last) = (state, Instant::now());
        }
        Ok(())
    }
}
