//! One message, as the socket sends and receives it.

use std::convert::Infallible;

use netlink_packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};

use super::{Attributes, Writer};
use crate::socket::Socket;
use crate::{Error, Result};

/// `struct nlmsghdr`.
const NETLINK_HEADER: usize = 16;
/// `struct nfgenmsg`, `struct genlmsghdr`.
const PROTOCOL_HEADER: usize = 4;

/// A message without its netlink header.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) kind: u16,
    body: Vec<u8>,
}

impl Message {
    /// A message of this kind; `attributes` writes what follows the protocol's header.
    pub(crate) fn new(kind: u16, header: [u8; 4], attributes: impl FnOnce(&mut Writer)) -> Self {
        let mut writer = Writer::default();
        writer.message(kind, 0, header, attributes);
        Self { kind, body: writer.bytes()[NETLINK_HEADER..].to_vec() }
    }

    /// The first byte of the protocol's header: the address family, or the command.
    pub(crate) fn first(&self) -> u8 {
        self.body.first().copied().unwrap_or_default()
    }

    pub(crate) fn attributes(&self) -> Attributes<'_> {
        Attributes(self.body.get(PROTOCOL_HEADER..).unwrap_or_default())
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.body.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer[..self.body.len()].copy_from_slice(&self.body);
    }
}

impl NetlinkDeserializable for Message {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        Ok(Self { kind: header.message_type, body: payload.to_vec() })
    }
}

/// Asks for a whole table; `read` turns each message into a value, or passes it over.
///
/// # Errors
/// Those of [`Socket::dump`], and [`Error::Decode`] with what `read` says.
pub(crate) fn read_all<T>(
    socket: &mut Socket,
    operation: &str,
    request: &Message,
    mut read: impl FnMut(&Message) -> Option<Result<T, String>>,
) -> Result<Vec<T>> {
    let found = socket.dump(operation, request, |message| read(&message))?;
    found.into_iter().collect::<Result<_, _>>().map_err(|reason| Error::decode(operation, reason))
}
