//! One change to ask of the kernel, with the words in which a refusal will be reported.

use std::fmt;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;

/// What to do with an object (the modifiers of a NEW request, linux/netlink.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Create it; refused with `EEXIST` if it is there (`NLM_F_CREATE|NLM_F_EXCL`).
    Create,
    /// Create it or put it in the place of the one that is there (`NLM_F_CREATE|NLM_F_REPLACE`).
    Replace,
    /// Add it beside the one that is there: multipath routes, further FDB remotes (`NLM_F_CREATE|NLM_F_APPEND`).
    Append,
    /// Remove it.
    Delete,
}

impl Verb {
    /// The flags beside REQUEST and ACK.
    pub(crate) fn flags(self) -> u16 {
        match self {
            Self::Create => NLM_F_CREATE | NLM_F_EXCL,
            Self::Replace => NLM_F_CREATE | NLM_F_REPLACE,
            Self::Append => NLM_F_CREATE | NLM_F_APPEND,
            Self::Delete => 0,
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "create",
            Self::Replace => "set",
            Self::Append => "add",
            Self::Delete => "delete",
        })
    }
}

/// One rtnetlink request.
#[derive(Debug, Clone)]
pub struct Request {
    pub(crate) operation: String,
    pub(crate) flags: u16,
    pub(crate) message: RouteNetlinkMessage,
}

impl Request {
    pub(crate) fn new(operation: String, flags: u16, message: RouteNetlinkMessage) -> Self {
        Self { operation, flags, message }
    }

    /// What the request does, as an operator would say it.
    #[must_use]
    pub fn operation(&self) -> &str {
        &self.operation
    }
}
