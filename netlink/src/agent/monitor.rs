//! What others do to the kernel's tables, as it happens.

use std::os::fd::{AsFd, OwnedFd};

use futures_util::StreamExt;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload, NlasIterator};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::RouteAttribute;
use netlink_sys::{AsyncSocket, AsyncSocketExt, TokioSocket};
use rtnetlink::MulticastGroup;
use tokio::sync::mpsc;

use super::deaf;
use crate::error::{Error, Result};
use crate::frames::Frames;

/// `NFNLGRP_NFTABLES`, linux/netfilter/nfnetlink.h.
const NFNLGRP_NFTABLES: u32 = 7;
/// `NFNL_SUBSYS_NFTABLES`, the upper byte of the message type.
const NFNL_SUBSYS_NFTABLES: u16 = 10;
/// `struct nfgenmsg`.
const NFGENMSG_LENGTH: usize = 4;
/// Events that may wait for the reader. Those beyond are told as one [`Event::Overrun`].
const WAITING: usize = 1024;
/// Receive buffer of each subscription: a burst of a few thousand route changes fits.
const RECEIVE_BUFFER: usize = 1 << 20;

/// Somebody changed something, possibly ourselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A link appeared, changed or went.
    Link {
        /// Its index.
        index: u32,
    },
    /// An address of a link appeared, changed or went.
    Address {
        /// The link's index.
        link: u32,
    },
    /// A route through a link appeared, changed or went.
    Route {
        /// The link's index; 0 for a route without one (blackhole, multipath).
        link: u32,
    },
    /// A neighbour or FDB entry of a link appeared, changed or went.
    Neighbour {
        /// The link's index.
        link: u32,
    },
    /// Something in an nf_tables table changed. A long transaction may be several of these.
    Nftables {
        /// The table's name.
        table: String,
        /// Whether it was nothing but elements of sets and maps.
        elements_only: bool,
        /// Whose doing it was: see [`nft::Socket::port_id`](crate::nft::Socket::port_id).
        by: u32,
    },
    /// Events were lost (`ENOBUFS`): anything may have changed.
    Overrun,
}

/// The subscription to links, addresses, routes, neighbours and nf_tables of one network namespace.
#[derive(Debug)]
pub struct Monitor {
    events: mpsc::Receiver<Event>,
    /// The nf_tables subscription once more, for [`Monitor::ignore`].
    nft: OwnedFd,
    lost: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

/// The sending side, which never waits: a slow reader learns that it lost events.
#[derive(Debug, Clone)]
struct Reporter {
    events: mpsc::Sender<Event>,
    lost: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

impl Reporter {
    fn report(&self, event: Event) {
        if event == Event::Overrun || self.events.try_send(event).is_err() {
            self.lost.store(true, std::sync::atomic::Ordering::Release);
            // Wakes a reader that waits on an empty queue; with a full one it is awake.
            let _ = self.events.try_send(Event::Overrun);
        }
    }
}

impl Monitor {
    /// Subscribes in the network namespace of the calling thread, and spawns the tasks that listen.
    ///
    /// # Errors
    /// [`Error::Io`] if the process may not subscribe.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open() -> Result<Self> {
        let wrong = |error| Error::io("subscribe to kernel events", error);
        let (sender, events) = mpsc::channel(WAITING);
        let lost = std::sync::Arc::default();
        let reporter = Reporter { events: sender, lost: std::sync::Arc::clone(&lost) };

        let (mut connection, _handle, messages) = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
            MulticastGroup::Neigh,
        ])
        .map_err(wrong)?;
        grow(connection.socket_mut().socket_mut());

        let mut nft = TokioSocket::new(netlink_sys::protocols::NETLINK_NETFILTER).map_err(wrong)?;
        nft.socket_mut().bind_auto().map_err(wrong)?;
        nft.socket_mut().add_membership(NFNLGRP_NFTABLES).map_err(wrong)?;
        grow(nft.socket_mut());
        let again = nft.socket_mut().as_fd().try_clone_to_owned().map_err(wrong)?;

        tokio::spawn(connection);
        tokio::spawn(listen_rtnetlink(messages, reporter.clone()));
        tokio::spawn(listen_nftables(nft, reporter));
        Ok(Self { events, nft: again, lost })
    }

    /// Leaves out from now on what these sockets do to nf_tables ([`nft::Socket::port_id`]), and nothing else any more.
    ///
    /// The kernel reports each element. What the agent itself writes would be more than a subscription holds, and as an
    /// [`Event::Overrun`] have everything looked at; so it does not even get that far.
    ///
    /// [`nft::Socket::port_id`]: crate::nft::Socket::port_id
    ///
    /// # Errors
    /// [`Error::Io`] if there are more than 255, or the kernel refuses the filter.
    pub fn ignore(&self, ports: &[u32]) -> Result<()> {
        deaf::ignore(self.nft.as_fd(), ports).map_err(|error| Error::io("leave out nftables events of our own", error))
    }

    /// The next event; `None` when the subscription has ended and nothing more will come.
    ///
    /// Can be dropped while it waits without losing an event.
    pub async fn next(&mut self) -> Option<Event> {
        if self.lost.swap(false, std::sync::atomic::Ordering::AcqRel) {
            return Some(Event::Overrun);
        }
        self.events.recv().await
    }
}

/// As large as we may: beyond `rmem_max` the kernel gives what is allowed, and an overrun is told either way.
fn grow(socket: &mut netlink_sys::Socket) {
    let _ = socket.set_rx_buf_sz(RECEIVE_BUFFER);
}

async fn listen_rtnetlink<A>(
    mut messages: impl futures_util::Stream<Item = (NetlinkMessage<RouteNetlinkMessage>, A)> + Unpin,
    reporter: Reporter,
) {
    while let Some((message, _)) = messages.next().await {
        let event = match message.payload {
            NetlinkPayload::InnerMessage(inner) => event(&inner),
            // ENOBUFS arrives as one of these.
            NetlinkPayload::Overrun(_) | NetlinkPayload::Error(_) => Some(Event::Overrun),
            _ => None,
        };
        if let Some(event) = event {
            reporter.report(event);
        }
    }
}

async fn listen_nftables(socket: TokioSocket, reporter: Reporter) {
    let mut buffer = Vec::with_capacity(64 * 1024);
    loop {
        buffer.clear();
        match socket.recv(&mut buffer).await {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                reporter.report(Event::Overrun);
                continue;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            // The socket is gone; the reader's timer goes on without us.
            Err(_) => return,
        }
        nftables_events(&buffer).into_iter().for_each(|event| reporter.report(event));
    }
}

fn event(message: &RouteNetlinkMessage) -> Option<Event> {
    match message {
        RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => {
            Some(Event::Link { index: link.header.index })
        }
        RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) => {
            Some(Event::Address { link: address.header.index })
        }
        RouteNetlinkMessage::NewNeighbour(entry) | RouteNetlinkMessage::DelNeighbour(entry) => {
            Some(Event::Neighbour { link: entry.header.ifindex })
        }
        RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
            let link = route.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Oif(link) => Some(*link),
                _ => None,
            });
            Some(Event::Route { link: link.unwrap_or_default() })
        }
        _ => None,
    }
}

/// The events of one datagram. A transaction reports each of its objects; one event is enough for those that follow each
/// other and belong together.
fn nftables_events(datagram: &[u8]) -> Vec<Event> {
    const NFT_MSG_NEWSETELEM: u16 = 12;
    const NFT_MSG_DELSETELEM: u16 = 14;
    let mut events: Vec<Event> = Vec::new();
    for frame in Frames::new(datagram).flatten() {
        let Some(changed) = changed_table(frame.kind, frame.payload()) else { continue };
        let element = matches!(frame.kind & 0xff, NFT_MSG_NEWSETELEM | NFT_MSG_DELSETELEM);
        match events.last_mut() {
            Some(Event::Nftables { table, elements_only, by }) if *table == changed && *by == frame.port => {
                *elements_only &= element;
            }
            _ => events.push(Event::Nftables { table: changed, elements_only: element, by: frame.port }),
        }
    }
    events
}

/// The table of which an nf_tables message speaks. In every message of nf_tables attribute 1 is the table's name
/// (`NFTA_TABLE_NAME`, `NFTA_CHAIN_TABLE`, …), but in that of a new generation, which ends each transaction.
fn changed_table(kind: u16, payload: &[u8]) -> Option<String> {
    const NFT_MSG_NEWGEN: u16 = 15;
    if kind >> 8 != NFNL_SUBSYS_NFTABLES || kind & 0xff == NFT_MSG_NEWGEN {
        return None;
    }
    let attributes = payload.get(NFGENMSG_LENGTH..)?;
    let name = NlasIterator::new(attributes).flatten().find(|attribute| attribute.kind() == 1)?;
    let text = name.value().strip_suffix(&[0]).unwrap_or(name.value());
    Some(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::Writer;

    /// A datagram of messages: number, table, port.
    fn datagram(messages: &[(u16, &str, u32)]) -> Vec<u8> {
        let mut writer = Writer::default();
        for (message, table, port) in messages {
            let start = writer.len();
            writer.message(NFNL_SUBSYS_NFTABLES << 8 | message, 0, [1, 0, 0, 0], |w| w.string(1, table));
            writer.bytes_mut()[start + 12..start + 16].copy_from_slice(&port.to_ne_bytes());
        }
        writer.bytes().to_vec()
    }

    fn event(table: &str, elements_only: bool, by: u32) -> Event {
        Event::Nftables { table: table.to_owned(), elements_only, by }
    }

    #[test]
    fn what_belongs_together_is_one_event() {
        let (new_rule, new_element, delete_element, generation) = (6, 12, 14, 15);
        let elements = [(new_element, "weft", 7), (delete_element, "weft", 7), (generation, "", 7)];
        assert_eq!(nftables_events(&datagram(&elements)), [event("weft", true, 7)]);
        let mixed = [(new_element, "weft", 7), (new_rule, "weft", 7), (new_element, "weft", 7)];
        assert_eq!(nftables_events(&datagram(&mixed)), [event("weft", false, 7)]);
        let others = [(new_element, "weft", 7), (new_element, "kube", 7), (new_element, "kube", 8)];
        let expected = [event("weft", true, 7), event("kube", true, 7), event("kube", true, 8)];
        assert_eq!(nftables_events(&datagram(&others)), expected);
    }

    proptest! {
        #[test]
        fn any_datagram_is_read_without_a_panic(bytes: Vec<u8>) {
            let _ = nftables_events(&bytes);
        }
    }
}
