//! Generic netlink: families have names, and numbers that the kernel gives out.

use crate::codec::{Attributes, Message};
use crate::socket::Socket;
use crate::{Error, Result};

/// The controller of generic netlink (`GENL_ID_CTRL`, linux/genetlink.h).
const CONTROLLER: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
/// `struct genlmsghdr`.
const HEADER: usize = 4;

/// A family of generic netlink, and where it is when the kernel does not have it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Family {
    /// Its name.
    pub(crate) name: &'static str,
    /// What has it, in words.
    pub(crate) feature: &'static str,
    /// The module that has it.
    pub(crate) module: &'static str,
}

impl Family {
    /// Its number. The kernel loads the module if it has it.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the kernel does not have it.
    pub(crate) fn number(&self, netlink: &mut Socket) -> Result<u16> {
        let operation = format!("look for {}", self.feature);
        let header = [CTRL_CMD_GETFAMILY, 1, 0, 0];
        let request = Message::new(CONTROLLER, header, |w| w.string(CTRL_ATTR_FAMILY_NAME, self.name));
        let number = netlink.look_up(&operation, request, |frame| {
            attributes(frame.payload()).u16(CTRL_ATTR_FAMILY_ID).ok_or_else(|| "the family has no number".to_owned())
        });
        number.map_err(|error| match error.is_absent() {
            true => Error::Unsupported { feature: self.feature, module: self.module },
            false => error,
        })
    }
}

/// What follows the header of a message.
pub(crate) fn attributes(payload: &[u8]) -> Attributes<'_> {
    Attributes(payload.get(HEADER..).unwrap_or_default())
}
