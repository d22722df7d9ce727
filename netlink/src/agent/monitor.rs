//! What others do to the kernel's tables, as it happens.

use std::net::IpAddr;

use futures_util::StreamExt;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::AsyncSocket;
use rtnetlink::MulticastGroup;
use tokio::sync::mpsc;

use crate::error::{Error, Result};
use crate::{FdbEntry, Neighbour, Route};

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
        /// The route, if it is one that [`Route`] can say.
        route: Option<Box<Route>>,
        /// Whether it is there now.
        is_there: bool,
    },
    /// A neighbour of a link appeared, changed or went.
    Neighbour {
        /// The link's index.
        link: u32,
        /// Its IP address.
        ip: Option<IpAddr>,
        /// What it is now, if that is permanent.
        now: Option<Neighbour>,
    },
    /// An FDB entry of a link appeared, changed or went.
    Fdb {
        /// The link's index.
        link: u32,
        /// The entry, if it is a permanent one of a VXLAN device.
        entry: Option<FdbEntry>,
        /// Whether it is there now.
        is_there: bool,
    },
    /// Events were lost (`ENOBUFS`): anything may have changed.
    Overrun,
}

/// The subscription to links, addresses, routes and neighbours of one network namespace.
///
/// Not to nf_tables: as long as anybody listens, the kernel makes a message of each element of each transaction, which costs
/// more than the transaction. There, [`nft::Socket::generation`](crate::nft::Socket::generation) tells whether to look.
#[derive(Debug)]
pub struct Monitor {
    events: mpsc::Receiver<Event>,
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

        tokio::spawn(connection);
        tokio::spawn(listen_rtnetlink(messages, reporter));
        Ok(Self { events, lost })
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

fn event(message: &RouteNetlinkMessage) -> Option<Event> {
    match message {
        RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => {
            Some(Event::Link { index: link.header.index })
        }
        RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) => {
            Some(Event::Address { link: address.header.index })
        }
        RouteNetlinkMessage::NewNeighbour(entry) => Some(neighbour(entry, true)),
        RouteNetlinkMessage::DelNeighbour(entry) => Some(neighbour(entry, false)),
        RouteNetlinkMessage::NewRoute(message) => Some(route(message, true)),
        RouteNetlinkMessage::DelRoute(message) => Some(route(message, false)),
        _ => None,
    }
}

fn neighbour(message: &NeighbourMessage, is_there: bool) -> Event {
    let link = message.header.ifindex;
    if message.header.family == AddressFamily::Bridge {
        return Event::Fdb { link, entry: FdbEntry::from_message(message), is_there };
    }
    let now = Neighbour::from_message(message).filter(|_| is_there);
    Event::Neighbour { link, ip: Neighbour::ip_of(message), now }
}

fn route(message: &RouteMessage, is_there: bool) -> Event {
    let link = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(link) => Some(*link),
        _ => None,
    });
    let route = Route::from_message(message).map(Box::new);
    Event::Route { link: link.unwrap_or_default(), route, is_there }
}
