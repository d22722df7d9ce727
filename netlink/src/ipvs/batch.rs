//! Changes that travel together.

use std::net::SocketAddr;

use super::message::{
    ATTR_DEST, ATTR_SERVICE, DEL_DEST, DEL_SERVICE, NEW_DEST, NEW_SERVICE, SET_CONFIG, SET_DEST, SET_SERVICE, header,
};
use super::real_server::{read_identity, write_identity};
use super::{RealServer, Scheduler, Target, Timeouts, VirtualServer};
use crate::IpVersion;
use crate::codec::{Attributes, MESSAGE_HEADER, Writer};

/// `NLM_F_REQUEST`, linux/netlink.h.
const REQUEST: u16 = 0x1;

/// Changes for [`Socket::run`](super::Socket::run), which the kernel makes one after the other in this order.
///
/// * `add_…` is refused (`EEXIST`) for what exists, `set_…` and `delete_…` for what does not: `ESRCH` if that is the virtual
///   server, `ENOENT` if it is the real server. [`KernelError::is_present`](crate::KernelError::is_present) and
///   [`KernelError::is_absent`](crate::KernelError::is_absent) tell.
/// * Deleting a virtual server deletes its real servers.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    writer: Writer,
    starts: Vec<usize>,
    schedulers: Vec<Scheduler>,
}

impl Batch {
    /// The number of changes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there is nothing to change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Adds a virtual server. `ENOENT`: the kernel does not have its scheduler.
    pub fn add_virtual(&mut self, server: &VirtualServer) {
        self.needs(&server.scheduler);
        self.service(NEW_SERVICE, |w| server.write(w));
    }

    /// Changes scheduler, flags and persistence of a virtual server. A new scheduler costs an RCU grace period, some
    /// milliseconds.
    pub fn set_virtual(&mut self, server: &VirtualServer) {
        self.needs(&server.scheduler);
        self.service(SET_SERVICE, |w| server.write(w));
    }

    /// Deletes a virtual server with its real servers.
    pub fn delete_virtual(&mut self, target: &Target) {
        self.service(DEL_SERVICE, |w| target.write(w));
    }

    /// Adds a real server to a virtual server.
    ///
    /// `EINVAL`: its address is not unicast. So is none of IPv4 in a network namespace that never had an IPv4 address,
    /// where not even `lo` is up.
    pub fn add_real(&mut self, target: &Target, server: &RealServer) {
        self.dest(NEW_DEST, target, |w| server.write(w));
    }

    /// Changes a real server of a virtual server: weight, thresholds and way of forwarding, all of them.
    pub fn set_real(&mut self, target: &Target, server: &RealServer) {
        self.dest(SET_DEST, target, |w| server.write(w));
    }

    /// Deletes a real server from a virtual server, whatever connections it has.
    pub fn delete_real(&mut self, target: &Target, server: SocketAddr) {
        self.dest(DEL_DEST, target, |w| write_identity(w, server));
    }

    pub(super) fn set_timeouts(&mut self, timeouts: &Timeouts) {
        self.message(SET_CONFIG, |w| timeouts.write(w));
    }

    fn needs(&mut self, scheduler: &Scheduler) {
        // There are a dozen at most.
        if !self.schedulers.contains(scheduler) {
            self.schedulers.push(scheduler.clone());
        }
    }

    /// The schedulers of its virtual servers, each once.
    pub(super) fn schedulers(&self) -> &[Scheduler] {
        &self.schedulers
    }

    fn service(&mut self, command: u8, body: impl FnOnce(&mut Writer)) {
        self.message(command, |w| w.nest(ATTR_SERVICE, body));
    }

    fn dest(&mut self, command: u8, target: &Target, body: impl FnOnce(&mut Writer)) {
        self.message(command, |w| {
            w.nest(ATTR_SERVICE, |w| target.write(w));
            w.nest(ATTR_DEST, body);
        });
    }

    fn message(&mut self, command: u8, body: impl FnOnce(&mut Writer)) {
        self.starts.push(self.writer.len());
        // The family's number is not known here; the socket sets it.
        self.writer.message(0, REQUEST, header(command), body);
    }

    /// The messages, of this family, and where each starts.
    pub(super) fn messages(&mut self, family: u16) -> (&mut [u8], &[usize]) {
        let bytes = self.writer.bytes_mut();
        for start in &self.starts {
            if let Some(kind) = bytes.get_mut(start + 4..start + 6) {
                kind.copy_from_slice(&family.to_ne_bytes());
            }
        }
        (bytes, &self.starts)
    }
}

/// Says in words what a request asks for, read back from its own bytes: so nothing has to be formatted for the thousands
/// that go well.
pub(super) fn words(request: &[u8]) -> String {
    let attributes = Attributes(request.get(MESSAGE_HEADER..).unwrap_or_default());
    let target = attributes.nest(ATTR_SERVICE).and_then(|service| Target::read(service).ok());
    let version = target.map_or(IpVersion::V4, |target| target.version());
    let server = attributes.nest(ATTR_DEST).and_then(|dest| read_identity(dest, version).ok());
    let target = target.map_or_else(|| "?".to_owned(), |target| target.to_string());
    let server = server.map_or_else(|| "?".to_owned(), |server| server.to_string());
    match request.get(16).copied().unwrap_or_default() {
        NEW_SERVICE => format!("add virtual server {target}"),
        SET_SERVICE => format!("set virtual server {target}"),
        DEL_SERVICE => format!("delete virtual server {target}"),
        NEW_DEST => format!("add real server {server} to {target}"),
        SET_DEST => format!("set real server {server} of {target}"),
        DEL_DEST => format!("delete real server {server} of {target}"),
        SET_CONFIG => "set the IPVS timeouts".to_owned(),
        other => format!("IPVS command {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::virtual_server::tests::any_target;
    use super::*;
    use crate::protocol;
    use proptest::prelude::*;

    #[test]
    fn requests_are_said_in_words() {
        let target = Target::Address { address: "10.96.0.1".parse().unwrap(), port: 80, protocol: protocol::TCP };
        let server = RealServer::new("10.244.1.2".parse().unwrap(), 8080, 1);
        let mut batch = Batch::default();
        batch.add_virtual(&VirtualServer::new(target, Scheduler::ROUND_ROBIN));
        batch.add_real(&target, &server);
        batch.set_real(&target, &server);
        batch.delete_real(&target, server.socket_address());
        batch.delete_virtual(&target);
        assert_eq!(batch.len(), 5);
        let (bytes, starts) = batch.messages(0x21);
        let said: Vec<String> = starts.iter().map(|start| words(&bytes[*start..])).collect();
        assert_eq!(
            said,
            [
                "add virtual server TCP 10.96.0.1:80",
                "add real server 10.244.1.2:8080 to TCP 10.96.0.1:80",
                "set real server 10.244.1.2:8080 of TCP 10.96.0.1:80",
                "delete real server 10.244.1.2:8080 of TCP 10.96.0.1:80",
                "delete virtual server TCP 10.96.0.1:80",
            ]
        );
    }

    proptest! {
        #[test]
        fn every_message_is_whole_and_of_the_family(targets in proptest::collection::vec(any_target(), 1..20)) {
            let mut batch = Batch::default();
            targets.iter().for_each(|target| batch.delete_virtual(target));
            let (bytes, starts) = batch.messages(0x21);
            let mut rest = &bytes[..];
            for (start, target) in starts.iter().zip(&targets) {
                prop_assert_eq!(bytes.len() - rest.len(), *start);
                let length = u32::from_ne_bytes(*rest.first_chunk().unwrap()) as usize;
                prop_assert_eq!(u16::from_ne_bytes([rest[4], rest[5]]), 0x21);
                prop_assert_eq!(words(&rest[..length]), format!("delete virtual server {target}"));
                rest = &rest[length..];
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn any_bytes_are_said_without_a_panic(bytes: Vec<u8>) {
            let _ = words(&bytes);
        }
    }
}
