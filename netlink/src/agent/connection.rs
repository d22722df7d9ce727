//! Requests and dumps over rtnetlink's connection.

use futures_util::StreamExt;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::AsyncSocket;
use rtnetlink::Handle;

use crate::error::{Error, Result};
use crate::frames::refusal;
use crate::route::wire;
use crate::{AddressInfo, FdbEntry, Link, LinkRef, Neighbour, Request, Route, RouteFilter};

/// Requests under way at once. Their acknowledgements must fit into the receive buffer together.
const IN_FLIGHT: usize = 64;
/// How often a dump that was overtaken by changes is tried again.
const DUMP_ATTEMPTS: u32 = 16;

/// A connection to rtnetlink that many tasks may share. It stays in the network namespace in which it was opened.
#[derive(Debug, Clone)]
pub struct Connection {
    handle: Handle,
}

impl Connection {
    /// Opens a connection in the network namespace of the calling thread, and spawns the task that serves it.
    ///
    /// # Errors
    /// [`Error::Io`] if the process may not open sockets.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open() -> Result<Self> {
        let wrong = |error| Error::io("open a netlink connection", error);
        let (mut connection, handle, _unsolicited) = rtnetlink::new_connection_with_strict_check().map_err(wrong)?;
        let socket = connection.socket_mut().socket_mut();
        socket.set_ext_ack(true).map_err(wrong)?;
        socket.set_cap_ack(true).map_err(wrong)?;
        // The end of a dump says whether the dump was overtaken by changes.
        connection.set_forward_done(true);
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Sends the requests, in order, and returns the kernel's verdict on each; a refused one does not stop those behind.
    pub async fn run(&self, requests: Vec<Request>) -> Vec<Result<()>> {
        let mut verdicts = Vec::with_capacity(requests.len());
        let mut requests = requests.into_iter().peekable();
        while requests.peek().is_some() {
            let mut answers = Vec::with_capacity(IN_FLIGHT);
            for request in requests.by_ref().take(IN_FLIGHT) {
                let mut header = NetlinkHeader::default();
                header.flags = NLM_F_REQUEST | NLM_F_ACK | request.flags;
                let message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request.message));
                answers.push((request.operation, self.handle.clone().request(message)));
            }
            for (operation, answer) in answers {
                verdicts.push(match answer {
                    Ok(stream) => verdict(operation, stream).await,
                    Err(error) => Err(closed(operation, &error)),
                });
            }
        }
        verdicts
    }

    /// Sends one request.
    ///
    /// # Errors
    /// [`Error::Kernel`] if it was refused.
    pub async fn one(&self, request: Request) -> Result<()> {
        self.run(vec![request]).await.into_iter().collect()
    }

    /// All links of the namespace.
    ///
    /// # Errors
    /// [`Error`] if the dump fails.
    pub async fn links(&self) -> Result<Vec<Link>> {
        self.dump("list links", wire::all_links(), wire::link).await
    }

    /// One link; `None` if there is none of that name or index.
    ///
    /// # Errors
    /// [`Error`] if the kernel cannot be asked.
    pub async fn link(&self, link: impl Into<LinkRef>) -> Result<Option<Link>> {
        let link = link.into();
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST;
        let message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(wire::one_link(&link)));
        let operation = format!("look up link {link}");
        let mut stream = self.handle.clone().request(message).map_err(|error| closed(operation.clone(), &error))?;
        match stream.next().await.map(|answer| (answer.header.flags, answer.payload)) {
            Some((_, NetlinkPayload::InnerMessage(inner))) => Ok(wire::link(inner)),
            Some((flags, NetlinkPayload::Error(error))) => {
                let error = refusal(-error.raw_code(), flags, &error.header, false, operation);
                if error.is_absent() { Ok(None) } else { Err(error.into()) }
            }
            _ => Err(Error::decode(operation, "no answer")),
        }
    }

    /// All addresses, or those of one link.
    ///
    /// # Errors
    /// [`Error`] if the dump fails.
    pub async fn addresses(&self, link: Option<u32>) -> Result<Vec<AddressInfo>> {
        self.dump("list addresses", wire::addresses(link), |message| wire::address(&message, link)).await
    }

    /// The routes that the filter admits.
    ///
    /// # Errors
    /// [`Error`] if the dump fails.
    pub async fn routes(&self, filter: RouteFilter) -> Result<Vec<Route>> {
        let mut found = Vec::new();
        for filter in filter.by_family() {
            found
                .extend(self.dump("list routes", wire::routes(filter), |message| wire::route(&message, filter)).await?);
        }
        Ok(found)
    }

    /// The permanent neighbours behind a link, of both families.
    ///
    /// # Errors
    /// [`Error`] if the dump fails.
    pub async fn neighbours(&self, link: u32) -> Result<Vec<Neighbour>> {
        let request = wire::neighbours(link, AddressFamily::Unspec);
        self.dump("list neighbours", request, |message| wire::neighbour(&message, link)).await
    }

    /// The permanent FDB entries of a VXLAN device that have a remote.
    ///
    /// # Errors
    /// [`Error`] if the dump fails.
    pub async fn fdb(&self, link: u32) -> Result<Vec<FdbEntry>> {
        let request = wire::neighbours(link, AddressFamily::Bridge);
        self.dump("list FDB entries", request, |message| wire::fdb(&message, link)).await
    }

    async fn dump<T>(
        &self,
        operation: &str,
        request: RouteNetlinkMessage,
        keep: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>> {
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(found) = self.dump_once(operation, request.clone(), &keep).await? {
                return Ok(found);
            }
        }
        Err(Error::DumpInterrupted { operation: operation.to_owned(), attempts: DUMP_ATTEMPTS })
    }

    /// One try at a dump; `None` if it was overtaken by changes.
    async fn dump_once<T>(
        &self,
        operation: &str,
        request: RouteNetlinkMessage,
        keep: &impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Option<Vec<T>>> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
        let mut stream = self.handle.clone().request(message).map_err(|error| closed(operation.to_owned(), &error))?;
        let mut found = Vec::new();
        let mut interrupted = false;
        while let Some(answer) = stream.next().await {
            let flags = answer.header.flags;
            interrupted |= flags & NLM_F_DUMP_INTR != 0;
            match answer.payload {
                NetlinkPayload::InnerMessage(inner) => found.extend(keep(inner)),
                NetlinkPayload::Done(_) => return Ok((!interrupted).then_some(found)),
                NetlinkPayload::Error(error) => {
                    return Err(refusal(-error.raw_code(), flags, &error.header, false, operation.to_owned()).into());
                }
                NetlinkPayload::Overrun(_) => interrupted = true,
                _ => {}
            }
        }
        // Without its end a dump may be a part of the table, and a part must not be taken for the whole.
        Err(Error::decode(operation, "the answer stopped before its end"))
    }
}

async fn verdict(
    operation: String,
    stream: impl futures_util::Stream<Item = NetlinkMessage<RouteNetlinkMessage>>,
) -> Result<()> {
    let mut stream = std::pin::pin!(stream);
    // An acknowledgement ends the stream without a message; anything else that is no error is not for us.
    while let Some(answer) = stream.next().await {
        if let NetlinkPayload::Error(error) = &answer.payload
            && error.code.is_some()
        {
            return Err(refusal(-error.raw_code(), answer.header.flags, &error.header, false, operation).into());
        }
    }
    Ok(())
}

fn closed(operation: String, error: &rtnetlink::Error) -> Error {
    Error::io(operation, std::io::Error::other(format!("the netlink connection is closed: {error}")))
}
