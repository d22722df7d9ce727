//! One blocking netlink socket that sends many requests at once and matches every answer to its request.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR,
    NLMSG_NOOP, NLMSG_OVERRUN, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable, NlasIterator,
};
use netlink_sys::SocketAddr;
use nix::errno::Errno;

use crate::error::{Error, KernelError, Result};

/// Requests sent in one `sendmsg`. Their acknowledgements (some 800 bytes each with the kernel's bookkeeping) queue up
/// before we can read the first, so the number is bounded by the default receive buffer of 208 KiB.
const REQUESTS_PER_SEND: usize = 128;
/// How often a dump that was overtaken by changes is tried again.
const DUMP_ATTEMPTS: u32 = 16;
/// Room for acknowledgements and single objects. Larger objects are seen coming.
const SMALL_BUFFER: usize = 8 * 1024;
/// Large enough for any datagram of a dump: the kernel fills at most 32 KiB (`NLMSG_GOODSIZE`, or the reader's size).
const DUMP_BUFFER: usize = 64 * 1024;
/// `struct nlmsghdr`, linux/netlink.h.
const HEADER_LENGTH: usize = 16;

/// A netlink protocol (`NETLINK_*`, linux/netlink.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Links, addresses, routes, neighbours.
    Route,
    /// nf_tables and conntrack.
    Netfilter,
}

impl Family {
    fn protocol(self) -> isize {
        match self {
            Self::Route => netlink_sys::protocols::NETLINK_ROUTE,
            Self::Netfilter => netlink_sys::protocols::NETLINK_NETFILTER,
        }
    }
}

/// Requests that travel together, each with the words that an error about it will use.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Where each request starts in `bytes`, and what it is.
    requests: Vec<(usize, String)>,
}

impl Batch {
    /// Adds a request. Its sequence number is set when it is sent; `flags` are those beside REQUEST and ACK.
    pub fn push<I: NetlinkSerializable>(&mut self, operation: impl Into<String>, flags: u16, payload: I) {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(payload));
        message.finalize();
        let start = self.bytes.len();
        self.bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut self.bytes[start..]);
        self.requests.push((start, operation.into()));
    }

    /// The number of requests.
    #[must_use]
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }
}

/// A blocking netlink socket. It stays in the network namespace in which it was opened, wherever its owner goes.
#[derive(Debug)]
pub struct Socket {
    inner: netlink_sys::Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`Error::Io`] if the kernel lacks the protocol or the process may not open sockets.
    pub fn open(family: Family) -> Result<Self> {
        let open = || -> io::Result<netlink_sys::Socket> {
            let mut socket = netlink_sys::Socket::new(family.protocol())?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            // The kernel's own sentence in errors, and not the whole request again.
            socket.set_ext_ack(true)?;
            socket.set_cap_ack(true)?;
            if family == Family::Route {
                // Dumps filtered by the kernel instead of by us (NETLINK_GET_STRICT_CHK, Linux 4.20).
                socket.set_netlink_get_strict_chk(true)?;
            }
            Ok(socket)
        };
        let inner = open().map_err(|error| Error::io(format!("open a netlink socket ({family:?})"), error))?;
        Ok(Self { inner, sequence: 0, buffer: vec![0; SMALL_BUFFER] })
    }

    /// Sends all requests of the batch, in order, and returns the kernel's verdict on each.
    ///
    /// A refused request does not stop those behind it.
    ///
    /// # Errors
    /// [`Error::Io`] if the socket itself fails; the requests of earlier sends may then have taken effect.
    pub fn run(&mut self, mut batch: Batch) -> Result<Vec<Result<(), KernelError>>> {
        let mut verdicts = Vec::with_capacity(batch.requests.len());
        let ends = batch.requests.iter().skip(1).map(|(start, _)| *start).chain([batch.bytes.len()]);
        let ends: Vec<usize> = ends.collect();
        let mut first = 0;
        for group in batch.requests.chunks(REQUESTS_PER_SEND) {
            let start = group.first().map_or(0, |(start, _)| *start);
            let end = ends[first + group.len() - 1];
            let base = self.sequence.wrapping_add(1);
            for (offset, (position, _)) in (0u32..).zip(group) {
                self.sequence = base.wrapping_add(offset);
                // nlmsg_seq is the third word of the header.
                batch.bytes[position + 8..position + 12].copy_from_slice(&self.sequence.to_ne_bytes());
            }
            self.send(&batch.bytes[start..end], &group[0].1)?;
            self.collect_verdicts(group, base, &mut verdicts)?;
            first += group.len();
        }
        Ok(verdicts)
    }

    /// Asks for a whole table; `keep` turns each message into what is wanted of it, or passes it over.
    ///
    /// A dump that was overtaken by changes is asked for again.
    ///
    /// # Errors
    /// [`Error::Kernel`] if the kernel refuses, [`Error::DumpInterrupted`] if the table never stood still,
    /// [`Error::Decode`] if an answer cannot be read.
    pub fn dump<I, T>(&mut self, operation: &str, request: &I, mut keep: impl FnMut(I) -> Option<T>) -> Result<Vec<T>>
    where
        I: NetlinkSerializable + NetlinkDeserializable + Clone,
    {
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(found) = self.dump_once(operation, request.clone(), &mut keep)? {
                return Ok(found);
            }
        }
        Err(Error::DumpInterrupted { operation: operation.to_owned(), attempts: DUMP_ATTEMPTS })
    }

    /// Asks for one object.
    ///
    /// # Errors
    /// [`Error::Kernel`] if there is no such object or the kernel refuses, [`Error::Decode`] if the answer cannot be read.
    pub fn get<I>(&mut self, operation: &str, request: I) -> Result<I>
    where
        I: NetlinkSerializable + NetlinkDeserializable,
    {
        self.look_up(operation, request, |frame| {
            let message = NetlinkMessage::<I>::deserialize(frame.bytes).map_err(|error| error.to_string())?;
            match message.payload {
                NetlinkPayload::InnerMessage(inner) => Ok(inner),
                _ => Err(format!("the answer is a control message (type {})", frame.kind)),
            }
        })
    }

    /// Asks for one object and has `read` take out of the answer what is wanted.
    ///
    /// # Errors
    /// [`Error::Kernel`] if there is no such object or the kernel refuses, [`Error::Decode`] with what `read` says.
    pub(crate) fn look_up<I: NetlinkSerializable, T>(
        &mut self,
        operation: &str,
        request: I,
        read: impl FnOnce(Frame<'_>) -> Result<T, String>,
    ) -> Result<T> {
        self.ask(operation, NLM_F_REQUEST, request)?;
        loop {
            let length = self.receive_any_length().map_err(|error| Error::io(operation, error))?;
            for frame in Frames::new(&self.buffer[..length]) {
                let frame = frame.map_err(|reason| Error::decode(operation, reason))?;
                if frame.sequence != self.sequence || frame.kind == NLMSG_NOOP {
                    continue; // a late answer to an earlier, abandoned request
                }
                if frame.kind == NLMSG_ERROR {
                    let code = frame.error_code().unwrap_or_default();
                    return Err(frame.refusal(code, operation.to_owned()).into());
                }
                return read(frame).map_err(|reason| Error::decode(operation, reason));
            }
        }
    }

    /// Sends one request that is answered with data, under the next sequence number.
    fn ask<I: NetlinkSerializable>(&mut self, operation: &str, flags: u16, request: I) -> Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.send(&bytes, operation)
    }

    /// One try at a dump; `None` if it was overtaken by changes.
    fn dump_once<I, T>(
        &mut self,
        operation: &str,
        request: I,
        keep: &mut impl FnMut(I) -> Option<T>,
    ) -> Result<Option<Vec<T>>>
    where
        I: NetlinkSerializable + NetlinkDeserializable,
    {
        self.make_room(DUMP_BUFFER);
        self.ask(operation, NLM_F_REQUEST | NLM_F_DUMP, request)?;
        let mut found = Vec::new();
        let mut interrupted = false;
        loop {
            let length = match self.receive(0) {
                Ok(length) => length,
                // The receive buffer overflowed: what was dropped is not known, so neither is the table.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    interrupted = true;
                    continue;
                }
                Err(error) => return Err(Error::io(operation, error)),
            };
            for frame in Frames::new(&self.buffer[..length]) {
                let frame = frame.map_err(|reason| Error::decode(operation, reason))?;
                if frame.sequence != self.sequence {
                    continue; // a late answer to an earlier, abandoned request
                }
                interrupted |= frame.flags & NLM_F_DUMP_INTR != 0;
                match frame.kind {
                    NLMSG_NOOP => {}
                    NLMSG_DONE => {
                        return match frame.error_code() {
                            Some(0) | None => Ok((!interrupted).then_some(found)),
                            Some(code) => Err(frame.refusal(code, operation.to_owned()).into()),
                        };
                    }
                    NLMSG_ERROR => {
                        let code = frame.error_code().unwrap_or_default();
                        return Err(frame.refusal(code, operation.to_owned()).into());
                    }
                    NLMSG_OVERRUN => interrupted = true,
                    _ => {
                        let message = NetlinkMessage::<I>::deserialize(frame.bytes)
                            .map_err(|error| Error::decode(operation, error))?;
                        if let NetlinkPayload::InnerMessage(inner) = message.payload {
                            found.extend(keep(inner));
                        }
                    }
                }
            }
        }
    }

    /// Sends bytes that are whole netlink messages already, as one datagram.
    pub(crate) fn send(&self, bytes: &[u8], operation: &str) -> Result<()> {
        loop {
            match self.inner.send(bytes, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io(operation, error)),
            }
        }
    }

    fn make_room(&mut self, length: usize) {
        if self.buffer.len() < length {
            self.buffer.resize(length, 0);
        }
    }

    /// Waits for one datagram and reads it into the buffer, which grows if need be.
    fn receive_any_length(&mut self) -> io::Result<usize> {
        // A peek into no room at all tells the length and leaves the datagram where it is.
        let mut no_room: &mut [u8] = &mut [];
        let length = loop {
            match self.inner.recv(&mut no_room, libc::MSG_PEEK | libc::MSG_TRUNC) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        self.make_room(length);
        self.receive(0)
    }

    /// Reads one datagram into the buffer; waits unless `flags` hold `MSG_DONTWAIT`.
    pub(crate) fn receive(&mut self, flags: libc::c_int) -> io::Result<usize> {
        loop {
            // netlink-sys appends to the spare room of a BufMut, which for a slice is its whole length.
            let mut room = &mut self.buffer[..];
            match self.inner.recv(&mut room, flags) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    pub(crate) fn received(&self, length: usize) -> Frames<'_> {
        Frames::new(&self.buffer[..length])
    }

    /// The next sequence number, `count` of them being taken.
    pub(crate) fn take_sequence(&mut self, count: u32) -> u32 {
        let first = self.sequence.wrapping_add(1);
        self.sequence = self.sequence.wrapping_add(count);
        first
    }

    /// Reads the acknowledgements of one send.
    ///
    /// rtnetlink works inside `sendmsg`: when that has returned, every answer is queued. So an empty queue with answers
    /// missing means that the receive buffer overflowed, and waiting would be for ever.
    fn collect_verdicts(
        &mut self,
        group: &[(usize, String)],
        base: u32,
        verdicts: &mut Vec<Result<(), KernelError>>,
    ) -> Result<()> {
        let mut answers: Vec<Option<Result<(), KernelError>>> = vec![None; group.len()];
        let mut missing = group.len();
        while missing > 0 {
            let length = match self.receive(libc::MSG_DONTWAIT) {
                Ok(length) => length,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(Error::io(group[0].1.as_str(), error)),
            };
            for frame in Frames::new(&self.buffer[..length]) {
                let frame = frame.map_err(|reason| Error::decode(group[0].1.as_str(), reason))?;
                let position = frame.sequence.wrapping_sub(base) as usize;
                let (Some((_, operation)), Some(answer)) = (group.get(position), answers.get_mut(position)) else {
                    continue;
                };
                if frame.kind != NLMSG_ERROR || answer.is_some() {
                    continue; // an echo, or data that nobody asked for
                }
                *answer = Some(match frame.error_code() {
                    Some(0) => Ok(()),
                    code => Err(frame.refusal(code.unwrap_or_default(), operation.clone())),
                });
                missing -= 1;
            }
        }
        verdicts.extend(answers.into_iter().zip(group).map(|(answer, (_, operation))| {
            answer.unwrap_or_else(|| {
                Err(KernelError {
                    operation: operation.clone(),
                    errno: Errno::ENOBUFS,
                    message: Some("the answer was lost; the request may have taken effect".to_owned()),
                    offset: None,
                })
            })
        }));
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

/// One netlink message, its header read and the rest as it came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// The message with its header.
    pub(crate) bytes: &'a [u8],
}

impl<'a> Frame<'a> {
    pub(crate) fn payload(&self) -> &'a [u8] {
        &self.bytes[HEADER_LENGTH..]
    }

    /// The error number of an NLMSG_ERROR or NLMSG_DONE, not negated: 0 is an acknowledgement.
    pub(crate) fn error_code(&self) -> Option<i32> {
        let code = self.payload().first_chunk::<4>()?;
        Some(i32::from_ne_bytes(*code).wrapping_neg())
    }

    /// The kernel's refusal with its extended ACK (`NLMSGERR_ATTR_*`, linux/netlink.h).
    pub(crate) fn refusal(&self, code: i32, operation: String) -> KernelError {
        let behind_code = self.payload().get(4..).unwrap_or_default();
        refusal(code, self.flags, behind_code, self.kind == NLMSG_DONE, operation)
    }
}

/// A refusal, read from what stands behind the error code of a message with these flags: the request's header, or all of
/// the request if the kernel sent it back whole (a dump's end has neither), and then the extended ACK.
pub(crate) fn refusal(code: i32, flags: u16, behind_code: &[u8], ends_dump: bool, operation: String) -> KernelError {
    let mut refusal = KernelError { operation, errno: Errno::from_raw(code), message: None, offset: None };
    if flags & NLM_F_ACK_TLVS == 0 {
        return refusal;
    }
    let echoed = if ends_dump {
        0
    } else if flags & NLM_F_CAPPED != 0 {
        HEADER_LENGTH
    } else {
        behind_code.first_chunk().map_or(0, |length| u32::from_ne_bytes(*length) as usize).next_multiple_of(4)
    };
    for attribute in behind_code.get(echoed..).into_iter().flat_map(NlasIterator::new).flatten() {
        match attribute.kind() {
            1 => {
                let text = attribute.value().strip_suffix(&[0]).unwrap_or(attribute.value());
                refusal.message = Some(String::from_utf8_lossy(text).into_owned());
            }
            2 => refusal.offset = attribute.value().first_chunk().map(|bytes| u32::from_ne_bytes(*bytes)),
            _ => {}
        }
    }
    refusal
}

/// The messages of one datagram.
#[derive(Debug)]
pub(crate) struct Frames<'a> {
    rest: &'a [u8],
}

impl<'a> Frames<'a> {
    pub(crate) fn new(datagram: &'a [u8]) -> Self {
        Self { rest: datagram }
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, String>;

    fn next(&mut self) -> Option<Self::Item> {
        let header = self.rest.first_chunk::<HEADER_LENGTH>()?;
        let word = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let length = word(0) as usize;
        if length < HEADER_LENGTH || length > self.rest.len() {
            let reason = format!("a message claims {length} bytes, {} are there", self.rest.len());
            self.rest = &[];
            return Some(Err(reason));
        }
        let frame = Frame { kind: half(4), flags: half(6), sequence: word(8), bytes: &self.rest[..length] };
        self.rest = self.rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Ok(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            for frame in Frames::new(&bytes).flatten() {
                if let Some(code) = frame.error_code() {
                    let _ = frame.refusal(code, String::new()).to_string();
                }
            }
        }
    }

    #[test]
    fn a_refusal_carries_the_kernels_sentence() {
        let text = b"Nexthop has invalid gateway\0";
        let mut bytes = Vec::new();
        let attribute_length = 4 + u16::try_from(text.len()).unwrap();
        let total = 16 + 4 + 16 + usize::from(attribute_length).next_multiple_of(4);
        bytes.extend(u32::try_from(total).unwrap().to_ne_bytes());
        bytes.extend(NLMSG_ERROR.to_ne_bytes());
        bytes.extend((NLM_F_CAPPED | NLM_F_ACK_TLVS).to_ne_bytes());
        bytes.extend(7u32.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend((-22i32).to_ne_bytes());
        bytes.extend([0; 16]);
        bytes.extend(attribute_length.to_ne_bytes());
        bytes.extend(1u16.to_ne_bytes());
        bytes.extend(text);
        bytes.resize(total, 0);

        let frame = Frames::new(&bytes).next().unwrap().unwrap();
        let refusal = frame.refusal(frame.error_code().unwrap(), "add route".to_owned());
        assert_eq!(refusal.errno, Errno::EINVAL);
        assert_eq!(refusal.to_string(), "add route: Invalid argument (EINVAL): Nexthop has invalid gateway");
    }
}
