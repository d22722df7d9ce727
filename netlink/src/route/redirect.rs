//! Packets that come in through a link, sent out through another: how what comes in is made to wait in a queue.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcHandle, TcMessage};

use super::request::{Request, Verb};
use super::token_bucket::{TC_HEADER, TCA_KIND, TCA_OPTIONS, message, options};
use crate::codec::Attributes;

/// linux/pkt_cls.h.
const TCA_U32_SEL: u16 = 5;
const TCA_U32_ACT: u16 = 7;
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
/// linux/tc_act/tc_mirred.h.
const TCA_MIRRED_PARMS: u16 = 2;
const TCA_EGRESS_REDIR: u32 = 1;
/// The packet has a new owner (`TC_ACT_STOLEN`, linux/pkt_cls.h).
const STOLEN: u32 = 4;
/// No filter behind this one is asked (`TC_U32_TERMINAL`, linux/pkt_cls.h).
const TERMINAL: u8 = 1;
/// Any protocol (`ETH_P_ALL`, linux/if_ether.h), in network order as the kernel wants it.
const ALL_PROTOCOLS: u16 = 3_u16.to_be();
const PRIORITY: u16 = 1;
/// The handle that the kernel gives to the first u32 filter of a link.
const FIRST: u32 = 0x8000_0800;
const KIND: &str = "u32";
const ACTION: &str = "mirred";

/// All that comes in through one link goes out through another, an ifb device, which has it come in again through the
/// first (drivers/net/ifb.c).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redirect {
    /// Index of the link.
    pub link: u32,
    /// Index of the ifb device.
    pub to: u32,
}

impl Redirect {
    /// The requests that make it: the link's ingress hook, and the filter in it.
    #[must_use]
    pub fn create(&self) -> [Request; 2] {
        let mut hook = message(self.link, TcHandle::INGRESS, "ingress");
        hook.header.handle = TcHandle { major: u16::MAX, minor: 0 };
        let mut filter = message(self.link, hook.header.handle, KIND);
        filter.header.info = information();
        // struct tc_u32_sel without keys, which matches everything.
        let mut selector = [0; 16];
        selector[0] = TERMINAL;
        // struct tc_mirred: index, capab, action, refcnt, bindcnt, eaction, ifindex.
        let words = [0, 0, STOLEN, 0, 0, TCA_EGRESS_REDIR, self.to];
        let mirred: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        filter.attributes.push(options(|writer| {
            writer.raw(TCA_U32_SEL, &selector);
            writer.nest(TCA_U32_ACT, |writer| {
                writer.nest(1, |writer| {
                    writer.string(TCA_ACT_KIND, ACTION);
                    writer.nest(TCA_ACT_OPTIONS, |writer| writer.raw(TCA_MIRRED_PARMS, &mirred));
                });
            });
        }));
        let Self { link, to } = self;
        let flags = Verb::Create.flags();
        [
            Request::new(format!("hook into link {link}"), flags, RouteNetlinkMessage::NewQueueDiscipline(hook)),
            Request::new(
                format!("redirect what comes in through link {link} to link {to}"),
                flags,
                RouteNetlinkMessage::NewTrafficFilter(filter),
            ),
        ]
    }

    /// Asks for the filter.
    pub(super) fn request(&self) -> RouteNetlinkMessage {
        let mut message = TcMessage::with_index(self.link.cast_signed());
        message.header.parent = TcHandle { major: u16::MAX, minor: 0 };
        message.header.handle = TcHandle::from(FIRST);
        message.header.info = information();
        RouteNetlinkMessage::GetTrafficFilter(message)
    }

    /// Whether the kernel's report of a filter is of this one.
    pub(super) fn is_shown_by(&self, payload: &[u8]) -> bool {
        let attributes = Attributes(payload.get(TC_HEADER..).unwrap_or_default());
        let action = attributes.nest(TCA_OPTIONS).and_then(|options| options.nest(TCA_U32_ACT)?.nest(1));
        let Some(action) = action else { return false };
        let mirred = action.nest(TCA_ACT_OPTIONS).and_then(|options| options.raw(TCA_MIRRED_PARMS)).unwrap_or_default();
        let word = |at: usize| mirred.get(at * 4..).and_then(<[u8]>::first_chunk).map(|word| u32::from_ne_bytes(*word));
        attributes.string(TCA_KIND).as_deref() == Some(KIND)
            && action.string(TCA_ACT_KIND).as_deref() == Some(ACTION)
            && (word(5), word(6)) == (Some(TCA_EGRESS_REDIR), Some(self.to))
    }
}

/// Priority and protocol of the filter, as `tcm_info` has them.
fn information() -> u32 {
    u32::from(PRIORITY) << 16 | u32::from(ALL_PROTOCOLS)
}
