//! Reads single elements, by their keys.

use std::io::ErrorKind;

use super::element::{Element, NFTA_LIST_ELEM, NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_LIST_ELEMENTS, RawElement};
use super::set::NFTA_SET_NAME;
use super::{Set, Socket, Table, Value, data, message};
use crate::codec::{Attributes, MESSAGE_HEADER, Writer};
use crate::{Errno, Error, Result};

/// `NLM_F_REQUEST | NLM_F_ACK`, linux/netlink.h.
const FLAGS: u16 = 0x5;
/// So many keys in a request: each answer is a datagram of its own, some 800 bytes of the receive buffer, which has room for
/// 250 by default.
const KEYS: usize = 128;

/// How the kernel came to the end of a request.
enum End {
    /// All keys were answered.
    All,
    /// The first key that was not answered is in no element.
    Absent,
    /// The receive buffer was full.
    Full,
}

impl Socket {
    /// The elements with these keys, `None` where there is none. The set has no intervals.
    ///
    /// A dump of a hash table begins at its start for each datagram of some 600 elements, so that it takes time with the
    /// square of the table's size. Asking for keys does not: some 3 µs each.
    ///
    /// # Errors
    /// [`Error::Kernel`] if the kernel refuses, [`Error::Decode`] if an answer cannot be read, [`Error::Io`] if the socket
    /// fails. That the table or the set is missing looks like none of the elements being there.
    pub fn elements_of(&mut self, table: &Table, set: &Set, keys: &[Value]) -> Result<Vec<Option<Element>>> {
        let operation = format!("read elements of set {} of table {table}", set.name);
        let mut found = Vec::with_capacity(keys.len());
        let mut width = KEYS;
        while let Some(rest) = keys.get(found.len()..).filter(|rest| !rest.is_empty()) {
            let part = &rest[..rest.len().min(width)];
            let before = found.len();
            match self.ask_for(&operation, table, set, part, &mut found)? {
                End::All => width = KEYS,
                End::Absent => found.push(None),
                // Those that came have made room.
                End::Full => width = (found.len() - before).max(1),
            }
        }
        Ok(found)
    }

    fn ask_for(
        &mut self,
        operation: &str,
        table: &Table,
        set: &Set,
        keys: &[Value],
        found: &mut Vec<Option<Element>>,
    ) -> Result<End> {
        let sequence = self.netlink.take_sequence(1);
        let mut writer = Writer::default();
        message::about(&mut writer, message::GET_ELEMENTS, FLAGS, table, |w| {
            w.string(NFTA_SET_NAME, &set.name);
            w.nest(NFTA_SET_ELEM_LIST_ELEMENTS, |w| {
                for key in keys {
                    w.nest(NFTA_LIST_ELEM, |w| w.nest(NFTA_SET_ELEM_KEY, |w| data::write_value(w, key)));
                }
            });
        });
        writer.bytes_mut()[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.netlink.send(writer.bytes(), operation)?;
        loop {
            // The kernel has answered when it has taken the request.
            let length = match self.netlink.receive(libc::MSG_DONTWAIT) {
                Ok(length) => length,
                // Not even the verdict had room.
                Err(error) if error.kind() == ErrorKind::WouldBlock && keys.len() > 1 => return Ok(End::Full),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => continue,
                Err(error) => return Err(Error::io(operation, error)),
            };
            for frame in self.netlink.received(length) {
                let frame = frame.map_err(|reason| Error::decode(operation, reason))?;
                if frame.sequence != sequence {
                    continue; // a late answer to an earlier, abandoned request
                }
                if frame.kind != message::kind(message::NEW_ELEMENTS) {
                    let code = frame.error_code().unwrap_or_default();
                    let refusal = frame.refusal(code, operation.to_owned());
                    return match refusal.errno {
                        _ if code == 0 => Ok(End::All),
                        Errno::ENOENT => Ok(End::Absent),
                        Errno::ENOBUFS if keys.len() > 1 => Ok(End::Full),
                        _ => Err(refusal.into()),
                    };
                }
                let list = Attributes(frame.bytes.get(MESSAGE_HEADER..).unwrap_or_default());
                let list = list.nest(NFTA_SET_ELEM_LIST_ELEMENTS);
                let element = list
                    .and_then(|list| list.nest(NFTA_LIST_ELEM))
                    .ok_or_else(|| "an answer without an element".to_owned())
                    .and_then(RawElement::read)
                    .map_err(|reason| Error::decode(operation, reason))?;
                found.push(Some(element.into_element()));
            }
        }
    }
}
