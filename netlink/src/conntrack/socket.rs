//! The socket: lists, counts and deletes flows.

use super::flow::{Flow, FlowKey};
use super::message::{
    CTA_FILTER, CTA_PROTO_DST_PORT, CTA_PROTO_NUM, CTA_TUPLE_ORIG, CTA_TUPLE_PROTO, DELETE, GET, GET_STATS, NEW, header,
};
use crate::codec::{Attributes, Message, Writer};
use crate::nft;
use crate::socket::{Answers, Family, Socket as Netlink};
use crate::{Errno, Error, IpVersion, KernelError, Result};

/// `NLM_F_REQUEST`, linux/netlink.h.
const REQUEST: u16 = 0x1;
/// `CTA_FILTER_ORIG_FLAGS`: which parts of the original tuple must be the same.
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
/// The protocol must (net/netfilter/nf_conntrack_netlink.c; the header leaves these flags out).
const FILTER_PROTOCOL: u32 = 1 << 3;
/// The destination port must.
const FILTER_DESTINATION_PORT: u32 = 1 << 5;

/// Which flows are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter {
    /// Those of this version of IP.
    pub version: IpVersion,
    /// Those of this IP protocol, one that has ports.
    pub protocol: u8,
    /// Those whose first packet went to this port; `None`: to any.
    pub port: Option<u16>,
}

/// How full the table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// Flows of all protocols in this network namespace.
    pub flows: u32,
    /// How many there may be in each network namespace; `None` if the kernel does not say.
    pub limit: Option<u32>,
}

/// A blocking conntrack socket. It stays in the network namespace in which it was opened.
#[derive(Debug)]
pub struct Socket {
    netlink: Netlink,
}

impl Socket {
    /// Opens a socket in the network namespace of the calling thread. The kernel loads the module if it has it.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the kernel does not let anyone ask about flows, [`Error::Io`] if the process may not open
    /// sockets, [`Error::Kernel`] (`EPERM`) if it may not ask.
    pub fn open() -> Result<Self> {
        let mut socket = Self { netlink: Netlink::open(Family::Netfilter)? };
        match socket.count() {
            Ok(_) => Ok(socket),
            // What nfnetlink says of a subsystem that it does not have.
            Err(error) if error.errno() == Some(Errno::EINVAL) => {
                Err(Error::Unsupported { feature: "conntrack over netlink", module: "nf_conntrack_netlink" })
            }
            Err(error) => Err(error),
        }
    }

    /// How many flows there are.
    ///
    /// # Errors
    /// [`Error::Kernel`] if the kernel refuses, [`Error::Decode`] if the answer cannot be read.
    pub fn count(&mut self) -> Result<Count> {
        const CTA_STATS_GLOBAL_ENTRIES: u16 = 1;
        const CTA_STATS_GLOBAL_MAX_ENTRIES: u16 = 2;
        let request = Message::new(GET_STATS, header(0), |_| {});
        self.netlink.look_up("count the flows", request, |frame| {
            let attributes = Attributes(frame.payload().get(header(0).len()..).unwrap_or_default());
            let flows = attributes.be32(CTA_STATS_GLOBAL_ENTRIES).ok_or("the answer holds no count")?;
            Ok(Count { flows, limit: attributes.be32(CTA_STATS_GLOBAL_MAX_ENTRIES) })
        })
    }

    /// Lists flows; `keep` takes of each what is wanted, or passes it over. A table may be long, and most of it unwanted.
    ///
    /// Flows that come and go meanwhile may be among them or not, and one may be given twice.
    ///
    /// # Errors
    /// [`Error::Kernel`] if the kernel refuses: `EINVAL`, `EOPNOTSUPP` if it cannot filter.
    pub fn flows<T>(&mut self, filter: Filter, mut keep: impl FnMut(Flow) -> Option<T>) -> Result<Vec<T>> {
        let Filter { version, protocol, port } = filter;
        let request = Message::new(GET, header(version.number()), |w| {
            // All else stays in the kernel: the address family by the header, protocol and port by the filter.
            w.nest(CTA_TUPLE_ORIG, |w| {
                w.nest(CTA_TUPLE_PROTO, |w| {
                    w.byte(CTA_PROTO_NUM, protocol);
                    if let Some(port) = port {
                        w.be16(CTA_PROTO_DST_PORT, port);
                    }
                });
            });
            let port = port.map_or(0, |_| FILTER_DESTINATION_PORT);
            w.nest(CTA_FILTER, |w| w.u32(CTA_FILTER_ORIG_FLAGS, FILTER_PROTOCOL | port));
        });
        self.netlink.dump("list flows", &request, |message| {
            let flow = (message.kind == NEW).then(|| Flow::read(message.attributes(), version)).flatten();
            let wanted = |flow: &Flow| {
                let original = &flow.key.original;
                original.protocol == protocol && port.is_none_or(|port| original.destination.port() == port)
            };
            flow.filter(wanted).and_then(&mut keep)
        })
    }

    /// Has the kernel forget flows, and returns its verdict on each: one that is gone already is
    /// [`KernelError::is_absent`]. The next packet of a flow is that of a new one, and translated anew.
    ///
    /// # Errors
    /// [`Error::Io`] if the socket itself fails; some flows may then be gone.
    pub fn delete(&mut self, flows: &[FlowKey]) -> Result<Vec<Result<(), KernelError>>> {
        let mut writer = Writer::default();
        let mut starts = Vec::with_capacity(flows.len());
        for flow in flows {
            starts.push(writer.len());
            // Without a tuple this message would delete all flows there are.
            writer.message(DELETE, REQUEST, header(flow.original.version().number()), |w| flow.write(w));
        }
        let words = |position: usize, _: &[u8]| match flows.get(position) {
            Some(flow) => format!("delete flow {}", flow.original),
            None => "delete a flow".to_owned(),
        };
        self.netlink.run_messages(writer.bytes_mut(), &starts, Answers::Refusals, &words)
    }
}

/// Both speak over the same kind of socket; whether the kernel lets anyone ask about flows is not asked.
impl From<nft::Socket> for Socket {
    fn from(socket: nft::Socket) -> Self {
        Self { netlink: socket.netlink }
    }
}

impl From<Socket> for nft::Socket {
    fn from(socket: Socket) -> Self {
        Self { netlink: socket.netlink }
    }
}
