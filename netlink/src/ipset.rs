//! IP sets (ip_set over nfnetlink), as far as to find out that others have left some, and to remove them.
//!
//! weft makes none: its sets are those of nf_tables. Numbers are those of linux/netfilter/ipset/ip_set.h; sets are those of
//! the socket's network namespace. Needs `CAP_NET_ADMIN`.

use crate::codec::{Message, Writer};
use crate::socket::{Answers, Family, Socket as Netlink};
use crate::{Errno, KernelError, Result};

/// `NFNL_SUBSYS_IPSET`, the upper byte of every message's type.
const SUBSYSTEM: u16 = 6 << 8;
/// `IPSET_CMD_DESTROY`.
const DESTROY: u16 = SUBSYSTEM | 3;
/// `IPSET_CMD_LIST`.
const LIST: u16 = SUBSYSTEM | 7;
const IPSET_ATTR_PROTOCOL: u16 = 1;
const IPSET_ATTR_SETNAME: u16 = 2;
const IPSET_ATTR_FLAGS: u16 = 6;
/// `IPSET_PROTOCOL_MIN`, which every kernel understands.
const PROTOCOL: u8 = 6;
/// `IPSET_FLAG_LIST_SETNAME`: names and nothing else.
const NAMES_ONLY: u32 = 1 << 1;
/// `NLM_F_REQUEST`, linux/netlink.h.
const REQUEST: u16 = 0x1;
/// `struct nfgenmsg`: any family, version 0 and no resource.
const HEADER: [u8; 4] = [0; 4];

/// A blocking socket for IP sets. It stays in the network namespace in which it was opened.
#[derive(Debug)]
pub struct Socket {
    netlink: Netlink,
}

impl Socket {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the process may not.
    pub fn open() -> Result<Self> {
        Ok(Self { netlink: Netlink::open(Family::Netfilter)? })
    }

    /// The names of all sets; none where the kernel has no sets at all.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) if the kernel refuses.
    pub fn names(&mut self) -> Result<Vec<String>> {
        let request = Message::new(LIST, HEADER, |w| {
            w.byte(IPSET_ATTR_PROTOCOL, PROTOCOL);
            w.be32(IPSET_ATTR_FLAGS, NAMES_ONLY);
        });
        let listed = self.netlink.dump("list IP sets", &request, |message: Message| {
            (message.kind == LIST).then(|| message.attributes().string(IPSET_ATTR_SETNAME)).flatten()
        });
        match listed {
            // What nfnetlink says of a subsystem that it does not have.
            Err(error) if error.errno() == Some(Errno::EINVAL) => Ok(Vec::new()),
            listed => listed,
        }
    }

    /// Removes sets, and returns the kernel's verdict on each. One that a rule or another set still asks is refused, with a
    /// number that only IP sets have (`IPSET_ERR_BUSY`); one that is gone already is no error.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the socket itself fails; some sets may then be gone.
    pub fn destroy(&mut self, names: &[String]) -> Result<Vec<Result<(), KernelError>>> {
        let mut writer = Writer::default();
        let mut starts = Vec::with_capacity(names.len());
        for name in names {
            starts.push(writer.len());
            // Without a name this message would remove all sets there are.
            writer.message(DESTROY, REQUEST, HEADER, |w| {
                w.byte(IPSET_ATTR_PROTOCOL, PROTOCOL);
                w.string(IPSET_ATTR_SETNAME, name);
            });
        }
        let words = |position: usize, _: &[u8]| match names.get(position) {
            Some(name) => format!("remove IP set {name}"),
            None => "remove an IP set".to_owned(),
        };
        self.netlink.run_messages(writer.bytes_mut(), &starts, Answers::Refusals, &words)
    }
}
