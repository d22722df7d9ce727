//! The socket: carries out batches and reads the tables.

use super::batch::words;
use super::message::{ATTR_DEST, ATTR_SERVICE, GET_CONFIG, GET_DEST, GET_INFO, GET_SERVICE, header};
use super::{Batch, RealServerInfo, Scheduler, Target, Timeouts, VirtualServerInfo, module};
use crate::codec::{Attributes, Message, Writer, read_all};
use crate::generic::{self, attributes};
use crate::socket::{Answers, Family, Socket as Netlink};
use crate::{Error, KernelError, Result};

/// How often the virtual servers are read before two dumps agree.
const ATTEMPTS: u32 = 16;
const FAMILY: generic::Family = generic::Family { name: "IPVS", feature: "IPVS", module: "ip_vs" };

/// What IPVS says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    /// Its version, which has been 1.2.1 since 2004.
    pub version: (u8, u8, u8),
    /// How many buckets the table of connections has (module parameter `conn_tab_bits`).
    pub connection_buckets: u32,
}

/// A blocking IPVS socket. It stays in the network namespace in which it was opened.
#[derive(Debug)]
pub struct Socket {
    netlink: Netlink,
    family: u16,
    /// Those schedulers that have been asked for.
    schedulers: Vec<Scheduler>,
}

impl Socket {
    /// Opens a socket in the network namespace of the calling thread. The kernel loads the module if it has it.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the kernel has no IPVS, [`Error::Io`] if the process may not open sockets.
    pub fn open() -> Result<Self> {
        let mut netlink = Netlink::open(Family::Generic)?;
        let family = FAMILY.number(&mut netlink)?;
        Ok(Self { netlink, family, schedulers: Vec::new() })
    }

    /// Carries out the changes in their order and returns the kernel's verdict on each; a refused one does not stop those
    /// behind it. Schedulers are loaded first.
    ///
    /// # Errors
    /// [`Error::Io`] if the socket itself fails; earlier changes may then have taken effect.
    pub fn run(&mut self, mut batch: Batch) -> Result<Vec<Result<(), KernelError>>> {
        for scheduler in batch.schedulers() {
            if !self.schedulers.contains(scheduler) {
                module::load(scheduler);
                self.schedulers.push(scheduler.clone());
            }
        }
        let (bytes, starts) = batch.messages(self.family);
        self.netlink.run_messages(bytes, starts, Answers::Refusals, &|_, request| words(request))
    }

    /// All virtual servers, whoever added them, in the order of their targets.
    ///
    /// # Errors
    /// [`Error::Kernel`] if the kernel refuses, [`Error::Decode`] if an answer cannot be read, [`Error::DumpInterrupted`]
    /// if the servers never stood still.
    pub fn virtual_servers(&mut self) -> Result<Vec<VirtualServerInfo>> {
        const OPERATION: &str = "list virtual servers";
        let mut last: Option<Vec<VirtualServerInfo>> = None;
        for _ in 0..ATTEMPTS {
            let mut found = self.dump(OPERATION, GET_SERVICE, ATTR_SERVICE, |_| {}, VirtualServerInfo::read)?;
            found.sort_by_key(|info| info.server.target);
            found.dedup_by_key(|info| info.server.target);
            // A dump goes on where it was by counting, and counts the servers of all network namespaces: whoever adds or
            // deletes one, anywhere on this machine, makes it repeat one or pass one over. Two that agree were not
            // disturbed.
            match last {
                Some(before) if same_servers(&before, &found) => return Ok(found),
                _ => last = Some(found),
            }
        }
        Err(Error::DumpInterrupted { operation: OPERATION.to_owned(), attempts: ATTEMPTS })
    }

    /// The real servers of a virtual server, in the order of their addresses; none if there is no such virtual server, which the kernel does not tell
    /// apart from one that has none.
    ///
    /// # Errors
    /// See [`virtual_servers`](Self::virtual_servers).
    pub fn real_servers(&mut self, target: &Target) -> Result<Vec<RealServerInfo>> {
        let service = |w: &mut Writer| w.nest(ATTR_SERVICE, |w| target.write(w));
        let read = |attributes: Attributes<'_>| RealServerInfo::read(attributes, target.version());
        let mut found = self.dump("list real servers", GET_DEST, ATTR_DEST, service, read)?;
        // These are counted for themselves; only another writer of this network namespace can disturb.
        found.sort_by_key(|info| info.server.socket_address());
        found.dedup_by_key(|info| info.server.socket_address());
        Ok(found)
    }

    /// One virtual server; `None` if there is none that takes this.
    ///
    /// # Errors
    /// See [`virtual_servers`](Self::virtual_servers).
    pub fn virtual_server(&mut self, target: &Target) -> Result<Option<VirtualServerInfo>> {
        let service = |w: &mut Writer| w.nest(ATTR_SERVICE, |w| target.write(w));
        let found = self.look_up(&format!("look up virtual server {target}"), GET_SERVICE, service, |attributes| {
            VirtualServerInfo::read(attributes.nest(ATTR_SERVICE).ok_or("the answer holds no virtual server")?)
        });
        match found {
            Ok(info) => Ok(Some(info)),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// After what time connections are forgotten.
    ///
    /// # Errors
    /// [`Error::Kernel`] if the kernel refuses.
    pub fn timeouts(&mut self) -> Result<Timeouts> {
        self.look_up("read the IPVS timeouts", GET_CONFIG, |_| {}, |attributes| Ok(Timeouts::read(attributes)))
    }

    /// Sets those timeouts that are `Some`.
    ///
    /// # Errors
    /// [`Error::Kernel`] (`EINVAL`) if one is longer than the kernel can count.
    pub fn set_timeouts(&mut self, timeouts: &Timeouts) -> Result<()> {
        let mut batch = Batch::default();
        batch.set_timeouts(timeouts);
        self.run(batch)?.into_iter().collect::<Result<(), KernelError>>().map_err(Error::from)
    }

    /// What IPVS says of itself.
    ///
    /// # Errors
    /// [`Error::Kernel`] if the kernel refuses, [`Error::Decode`] if the answer cannot be read.
    pub fn info(&mut self) -> Result<Info> {
        const VERSION: u16 = 1;
        const CONN_TAB_SIZE: u16 = 2;
        self.look_up(
            "ask IPVS for its version",
            GET_INFO,
            |_| {},
            |attributes| {
                let [_, major, minor, patch] =
                    attributes.u32(VERSION).ok_or("the answer holds no version")?.to_be_bytes();
                let connection_buckets = attributes.u32(CONN_TAB_SIZE).ok_or("the answer holds no table size")?;
                Ok(Info { version: (major, minor, patch), connection_buckets })
            },
        )
    }

    fn look_up<T>(
        &mut self,
        operation: &str,
        command: u8,
        body: impl FnOnce(&mut Writer),
        read: impl FnOnce(Attributes<'_>) -> Result<T, String>,
    ) -> Result<T> {
        let request = Message::new(self.family, header(command), body);
        self.netlink.look_up(operation, request, |frame| read(attributes(frame.payload())))
    }

    /// Asks for a table; of each message the attribute `kind` is read.
    fn dump<T>(
        &mut self,
        operation: &str,
        command: u8,
        kind: u16,
        body: impl FnOnce(&mut Writer),
        read: impl Fn(Attributes<'_>) -> Result<T, String>,
    ) -> Result<Vec<T>> {
        let request = Message::new(self.family, header(command), body);
        read_all(&mut self.netlink, operation, &request, |message| message.attributes().nest(kind).map(&read))
    }
}

/// Whether both are the same servers, whatever they have served meanwhile.
fn same_servers(one: &[VirtualServerInfo], other: &[VirtualServerInfo]) -> bool {
    one.iter().map(|info| &info.server).eq(other.iter().map(|info| &info.server))
}
