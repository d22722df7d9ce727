//! The messages of a datagram, and the kernel's refusals among them.

use netlink_packet_core::{
    NLM_F_ACK_TLVS, NLM_F_CAPPED, NLMSG_DONE, NetlinkDeserializable, NetlinkMessage, NetlinkPayload, NlasIterator,
};
use nix::errno::Errno;

use crate::error::{KernelError, Result};

/// `struct nlmsghdr`, linux/netlink.h.
const HEADER_LENGTH: usize = 16;

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

    /// The message as a value; `None` for one of netlink's own.
    pub(crate) fn message<I: NetlinkDeserializable>(&self) -> Result<Option<I>, String> {
        let message = NetlinkMessage::<I>::deserialize(self.bytes).map_err(|error| error.to_string())?;
        match message.payload {
            NetlinkPayload::InnerMessage(inner) => Ok(Some(inner)),
            _ => Ok(None),
        }
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
    use netlink_packet_core::NLMSG_ERROR;

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
