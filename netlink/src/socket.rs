//! One blocking netlink socket that sends many requests at once and matches every answer to its request.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_ECHO, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP,
    NLMSG_OVERRUN, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::SocketAddr;
use nix::errno::Errno;

use crate::error::{Error, KernelError, Result};
use crate::frames::{Frame, Frames};

/// Requests sent in one `sendmsg`. Their acknowledgements (some 800 bytes each with the kernel's bookkeeping) queue up
/// before we can read the first, so the number is bounded by the default receive buffer of 208 KiB.
const REQUESTS_PER_SEND: usize = 128;
/// How often a dump that was overtaken by changes is tried again.
const DUMP_ATTEMPTS: u32 = 16;
/// Room for acknowledgements and single objects. Larger objects are seen coming.
const SMALL_BUFFER: usize = 8 * 1024;
/// Large enough for any datagram of a dump: the kernel fills at most 32 KiB (`NLMSG_GOODSIZE`, or the reader's size).
const DUMP_BUFFER: usize = 64 * 1024;

/// A netlink protocol (`NETLINK_*`, linux/netlink.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Links, addresses, routes, neighbours.
    Route,
    /// nf_tables and conntrack.
    Netfilter,
    /// Families that are found by their names: IPVS.
    Generic,
}

impl Family {
    fn protocol(self) -> isize {
        match self {
            Self::Route => netlink_sys::protocols::NETLINK_ROUTE,
            Self::Netfilter => netlink_sys::protocols::NETLINK_NETFILTER,
            Self::Generic => netlink_sys::protocols::NETLINK_GENERIC,
        }
    }
}

/// Which requests the kernel answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answers {
    /// Each (`NLM_F_ACK`).
    Each,
    /// Only those that it refuses, which is what it does unless asked otherwise.
    Refusals,
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
        let (starts, words): (Vec<usize>, Vec<String>) = batch.requests.into_iter().unzip();
        self.run_messages(&mut batch.bytes, &starts, Answers::Each, &|position, _| words[position].clone())
    }

    /// Sends whole messages, each starting at one of `starts`, and returns the kernel's verdict on each. `words` says what
    /// a request is, told its number and its bytes; it is asked only about those that were refused.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub(crate) fn run_messages(
        &mut self,
        bytes: &mut [u8],
        starts: &[usize],
        answers: Answers,
        words: &dyn Fn(usize, &[u8]) -> String,
    ) -> Result<Vec<Result<(), KernelError>>> {
        let mut verdicts = Vec::with_capacity(starts.len());
        for (number, group) in starts.chunks(REQUESTS_PER_SEND).enumerate() {
            let first = number * REQUESTS_PER_SEND;
            let end = |position: usize| starts.get(first + position + 1).copied().unwrap_or(bytes.len());
            let ends: Vec<usize> = (0..group.len()).map(end).collect();
            let base = self.take_sequence(u32::try_from(group.len()).unwrap_or(u32::MAX));
            for (offset, start) in (0u32..).zip(group) {
                // nlmsg_seq is the third word of the header.
                bytes[start + 8..start + 12].copy_from_slice(&base.wrapping_add(offset).to_ne_bytes());
            }
            let operation = |position: usize| words(first + position, &bytes[group[position]..ends[position]]);
            let (start, end) = (group[0], ends[group.len() - 1]);
            if let Err(error) = self.send_quietly(&bytes[start..end]) {
                return Err(Error::io(operation(0), error));
            }
            self.collect_verdicts(group.len(), base, answers, &operation, &mut verdicts)?;
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
        let mut found = Vec::new();
        self.dump_frames(operation, request, |frame| {
            let Some(frame) = frame else {
                found.clear();
                return Ok(());
            };
            let message = frame.message().map_err(|reason| Error::decode(operation, reason))?;
            found.extend(message.and_then(&mut keep));
            Ok(())
        })?;
        Ok(found)
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
            frame.message()?.ok_or_else(|| format!("the answer is a control message (type {})", frame.kind))
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
        self.answer(operation, read)?.ok_or_else(|| Error::decode(operation, "an acknowledgement without an object"))
    }

    /// The same where the kernel takes the object for a notification: it is asked to send it to us too, and may send none.
    ///
    /// # Errors
    /// As [`look_up`](Self::look_up).
    pub(crate) fn look_up_echoed<I: NetlinkSerializable, T>(
        &mut self,
        operation: &str,
        request: I,
        read: impl FnOnce(Frame<'_>) -> Result<T, String>,
    ) -> Result<Option<T>> {
        self.ask(operation, NLM_F_REQUEST | NLM_F_ECHO | NLM_F_ACK, request)?;
        self.answer(operation, read)
    }

    /// Waits for the object that was asked for; `None` if the request was acknowledged without one.
    fn answer<T>(&mut self, operation: &str, read: impl FnOnce(Frame<'_>) -> Result<T, String>) -> Result<Option<T>> {
        loop {
            let length = self.receive_any_length().map_err(|error| Error::io(operation, error))?;
            for frame in Frames::new(&self.buffer[..length]) {
                let frame = frame.map_err(|reason| Error::decode(operation, reason))?;
                if frame.sequence != self.sequence || frame.kind == NLMSG_NOOP {
                    continue; // a late answer to an earlier, abandoned request
                }
                if frame.kind == NLMSG_ERROR {
                    return match frame.error_code() {
                        Some(0) => Ok(None),
                        code => Err(frame.refusal(code.unwrap_or_default(), operation.to_owned()).into()),
                    };
                }
                return read(frame).map(Some).map_err(|reason| Error::decode(operation, reason));
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

    /// Asks for a whole table and shows each message to `each`, as it came.
    ///
    /// A dump that was overtaken by changes is asked for again: `each` is told with `None` to forget what it has seen.
    ///
    /// # Errors
    /// As [`dump`](Self::dump), and what `each` says.
    pub(crate) fn dump_frames<I>(
        &mut self,
        operation: &str,
        request: &I,
        mut each: impl FnMut(Option<Frame<'_>>) -> Result<()>,
    ) -> Result<()>
    where
        I: NetlinkSerializable + Clone,
    {
        for _ in 0..DUMP_ATTEMPTS {
            each(None)?;
            if self.dump_once(operation, request.clone(), &mut each)? {
                return Ok(());
            }
        }
        Err(Error::DumpInterrupted { operation: operation.to_owned(), attempts: DUMP_ATTEMPTS })
    }

    /// One try at a dump. Returns whether it is whole, and was not overtaken by changes.
    fn dump_once<I: NetlinkSerializable>(
        &mut self,
        operation: &str,
        request: I,
        each: &mut impl FnMut(Option<Frame<'_>>) -> Result<()>,
    ) -> Result<bool> {
        self.make_room(DUMP_BUFFER);
        self.ask(operation, NLM_F_REQUEST | NLM_F_DUMP, request)?;
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
                            Some(0) | None => Ok(!interrupted),
                            Some(code) => Err(frame.refusal(code, operation.to_owned()).into()),
                        };
                    }
                    NLMSG_ERROR => {
                        let code = frame.error_code().unwrap_or_default();
                        return Err(frame.refusal(code, operation.to_owned()).into());
                    }
                    NLMSG_OVERRUN => interrupted = true,
                    _ => each(Some(frame))?,
                }
            }
        }
    }

    /// Sends bytes that are whole netlink messages already, as one datagram.
    pub(crate) fn send(&self, bytes: &[u8], operation: &str) -> Result<()> {
        self.send_quietly(bytes).map_err(|error| Error::io(operation, error))
    }

    fn send_quietly(&self, bytes: &[u8]) -> io::Result<()> {
        loop {
            match self.inner.send(bytes, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other.map(|_| ()),
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

    /// Reads the answers to one send of `count` requests.
    ///
    /// The kernel works inside `sendmsg`: when that has returned, every answer is queued. So an empty queue with answers
    /// missing means that the receive buffer overflowed, and waiting would be for ever.
    fn collect_verdicts(
        &mut self,
        count: usize,
        base: u32,
        expected: Answers,
        operation: &dyn Fn(usize) -> String,
        verdicts: &mut Vec<Result<(), KernelError>>,
    ) -> Result<()> {
        let mut answers: Vec<Option<Result<(), KernelError>>> = vec![None; count];
        let mut missing = count;
        let mut lost = expected == Answers::Each;
        while missing > 0 {
            let length = match self.receive(libc::MSG_DONTWAIT) {
                Ok(length) => length,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    lost = true;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(Error::io(operation(0), error)),
            };
            for frame in Frames::new(&self.buffer[..length]) {
                let frame = frame.map_err(|reason| Error::decode(operation(0), reason))?;
                let position = frame.sequence.wrapping_sub(base) as usize;
                let Some(answer) = answers.get_mut(position) else { continue };
                if frame.kind != NLMSG_ERROR || answer.is_some() {
                    continue; // an echo, or data that nobody asked for
                }
                *answer = Some(match frame.error_code() {
                    Some(0) => Ok(()),
                    code => Err(frame.refusal(code.unwrap_or_default(), operation(position))),
                });
                missing -= 1;
            }
        }
        verdicts.extend(answers.into_iter().enumerate().map(|(position, answer)| match answer {
            Some(answer) => answer,
            None if !lost => Ok(()),
            None => Err(KernelError {
                operation: operation(position),
                errno: Errno::ENOBUFS,
                message: Some("the answer was lost; the request may have taken effect".to_owned()),
                offset: None,
            }),
        }));
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}
