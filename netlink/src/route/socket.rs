//! The blocking rtnetlink socket.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_route::route::RouteFlags;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;

use super::route::lookup;
use super::{
    AddressInfo, FdbEntry, Link, LinkRef, Neighbour, Redirect, Request, Route, RouteFilter, TokenBucket, token_bucket,
    wire,
};
use crate::error::{Error, KernelError, Result};
use crate::socket::{Batch, Family, Socket};

/// A blocking rtnetlink socket. It stays in the network namespace in which it was opened.
#[derive(Debug)]
pub struct RouteSocket(pub(super) Socket);

impl RouteSocket {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`Error::Io`] if the process may not open sockets.
    pub fn open() -> Result<Self> {
        Socket::open(Family::Route).map(Self)
    }

    /// Sends the requests together and returns the kernel's verdict on each; a refused one does not stop those behind it.
    ///
    /// # Errors
    /// [`Error::Io`] if the socket itself fails.
    pub fn run(&mut self, requests: Vec<Request>) -> Result<Vec<Result<(), KernelError>>> {
        let mut batch = Batch::default();
        for request in requests {
            batch.push(request.operation, request.flags, request.message);
        }
        self.0.run(batch)
    }

    /// Sends the requests together, and returns the first refusal if there is one.
    ///
    /// # Errors
    /// [`Error::Kernel`] if any was refused (the others have been carried out all the same).
    pub fn all(&mut self, requests: Vec<Request>) -> Result<()> {
        self.run(requests)?.into_iter().collect::<Result<(), KernelError>>().map_err(Error::from)
    }

    /// Sends one request.
    ///
    /// # Errors
    /// [`Error::Kernel`] if it was refused.
    pub fn one(&mut self, request: Request) -> Result<()> {
        self.all(vec![request])
    }

    /// All links of the namespace.
    ///
    /// # Errors
    /// [`Error`] if the dump fails.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        self.0.dump("list links", &wire::all_links(), wire::link)
    }

    /// One link; `None` if there is none of that name or index.
    ///
    /// # Errors
    /// [`Error`] if the kernel cannot be asked.
    pub fn link(&mut self, link: impl Into<LinkRef>) -> Result<Option<Link>> {
        let link = link.into();
        match self.0.get(&format!("look up link {link}"), wire::one_link(&link)) {
            Ok(found) => Ok(wire::link(found)),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether a link is operational, as [`Link::operational`] has it, without the work of reading all of the answer.
    ///
    /// # Errors
    /// [`Error::Kernel`] (`ENODEV`) if there is none of that index.
    pub fn is_operational(&mut self, link: u32) -> Result<bool> {
        let link = LinkRef::from(link);
        self.0.look_up("look up the state of a link", wire::one_link(&link), |frame| {
            Ok(wire::is_operational(frame.payload()))
        })
    }

    /// All addresses, or those of one link.
    ///
    /// # Errors
    /// [`Error`] if the dump fails.
    pub fn addresses(&mut self, link: Option<u32>) -> Result<Vec<AddressInfo>> {
        self.0.dump("list addresses", &wire::addresses(link), |message| wire::address(&message, link))
    }

    /// The routes that the filter admits.
    ///
    /// # Errors
    /// [`Error`] if the dump fails.
    pub fn routes(&mut self, filter: RouteFilter) -> Result<Vec<Route>> {
        let mut found = Vec::new();
        for filter in filter.by_family() {
            let dumped = self.0.dump("list routes", &wire::routes(filter), |message| wire::route(&message, filter));
            found.extend(wire::found_routes(dumped)?);
        }
        Ok(found)
    }

    /// The default routes of the main table, without the work of reading the thousands of others.
    ///
    /// # Errors
    /// [`Error`] if the dump fails.
    pub fn default_routes(&mut self) -> Result<Vec<Route>> {
        let operation = "list default routes";
        let mut found = Vec::new();
        for filter in (RouteFilter { table: Some(Route::MAIN), ..RouteFilter::default() }).by_family() {
            let mut of_family = Vec::new();
            let dumped = self.0.dump_frames(operation, &wire::routes(filter), |frame| {
                match frame {
                    None => of_family.clear(),
                    Some(frame) if !wire::is_default_route(frame.payload()) => {}
                    Some(frame) => {
                        let message = frame.message().map_err(|reason| Error::decode(operation, reason))?;
                        of_family.extend(message.and_then(|message| wire::route(&message, filter)));
                    }
                }
                Ok(())
            });
            wire::found_routes(dumped)?;
            found.append(&mut of_family);
        }
        Ok(found)
    }

    /// The route that a packet of this machine to `destination` takes.
    ///
    /// # Errors
    /// [`Error::Kernel`] (`ENETUNREACH`) if there is none.
    pub fn route_to(&mut self, destination: IpAddr) -> Result<Route> {
        let operation = format!("look up the route to {destination}");
        match self.0.get(&operation, RouteNetlinkMessage::GetRoute(lookup(destination)))? {
            RouteNetlinkMessage::NewRoute(mut route) => {
                // The answer is a cached clone of the route; that is what was asked for.
                route.header.flags = RouteFlags::empty();
                Route::from_message(&route).ok_or_else(|| Error::decode(operation, "a route without a single next hop"))
            }
            _ => Err(Error::decode(operation, "the answer is not a route")),
        }
    }

    /// The permanent neighbours behind a link, of both families.
    ///
    /// # Errors
    /// [`Error`] if the dump fails.
    pub fn neighbours(&mut self, link: u32) -> Result<Vec<Neighbour>> {
        let request = wire::neighbours(link, AddressFamily::Unspec);
        self.0.dump("list neighbours", &request, |message| wire::neighbour(&message, link))
    }

    /// Whether the queue at the root of a link is this one.
    ///
    /// # Errors
    /// [`Error`] if the kernel cannot be asked; there being no such link is one.
    pub fn has_token_bucket(&mut self, link: u32, bucket: &TokenBucket) -> Result<bool> {
        self.shows("look up the queue of a link", token_bucket::root_of(link), |payload| bucket.is_shown_by(payload))
    }

    /// Whether a redirection is there.
    ///
    /// # Errors
    /// [`Error`] if the kernel cannot be asked; there being no such link is one.
    pub fn has_redirect(&mut self, redirect: &Redirect) -> Result<bool> {
        self.shows("look up a redirection", redirect.request(), |payload| redirect.is_shown_by(payload))
    }

    /// Asks for one queue or filter. What is not there is refused with `ENOENT` or `EINVAL`, or passed over in silence.
    fn shows(&mut self, operation: &str, request: RouteNetlinkMessage, is: impl Fn(&[u8]) -> bool) -> Result<bool> {
        match self.0.look_up_echoed(operation, request, |frame| Ok(is(frame.payload()))) {
            Ok(found) => Ok(found.unwrap_or(false)),
            Err(error) if matches!(error.errno(), Some(Errno::ENOENT | Errno::EINVAL)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The permanent FDB entries of a VXLAN device that have a remote.
    ///
    /// # Errors
    /// [`Error`] if the dump fails.
    pub fn fdb(&mut self, link: u32) -> Result<Vec<FdbEntry>> {
        let request = wire::neighbours(link, AddressFamily::Bridge);
        self.0.dump("list FDB entries", &request, |message| wire::fdb(&message, link))
    }
}

impl AsFd for RouteSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
