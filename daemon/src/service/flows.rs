//! Deletes stale UDP flows from the connection table.

use std::collections::HashSet;
use std::net::IpAddr;

use weft_netlink::conntrack::{self, Filter, FlowKey};
use weft_netlink::{Error, IpVersion, RouteSocket};

use super::conntrack::{StaleFlows, UdpFlow};
use super::model::PortPlan;
use super::outcome::Outcome;
use crate::cluster::Family;
use crate::cluster::services::Protocol;

/// The connection table of this node.
#[derive(Debug)]
pub(super) struct Flows {
    socket: conntrack::Socket,
    route: RouteSocket,
}

impl Flows {
    /// Opens the way to conntrack in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the kernel has no conntrack over netlink.
    pub(super) fn open() -> Result<Self, Error> {
        Ok(Self { socket: conntrack::Socket::open()?, route: RouteSocket::open()? })
    }

    /// Deletes the flows of these ports that would be answered by anybody who does not serve. The kernel is asked only if a
    /// UDP port is among them.
    pub(super) fn clean<'a>(&mut self, ports: impl IntoIterator<Item = &'a PortPlan>) -> Outcome {
        let mut udp = ports.into_iter().filter(|port| port.key.protocol == Protocol::Udp).peekable();
        if udp.peek().is_none() {
            return Outcome::default();
        }
        let mut outcome = Outcome::default();
        match self.try_clean(udp) {
            Ok(deleted) => outcome.flows += deleted,
            // The flows end by themselves, if later; the Services stand.
            Err(error) => outcome.problems.push(format!("stale UDP flows stay: {error}")),
        }
        outcome
    }

    fn try_clean<'a>(&mut self, udp: impl Iterator<Item = &'a PortPlan>) -> Result<usize, Error> {
        let local: HashSet<IpAddr> = self.route.addresses(None)?.into_iter().map(|info| info.network.ip()).collect();
        let stale = StaleFlows::of(udp, &local);
        let mut doomed: Vec<FlowKey> = Vec::new();
        for family in stale.families() {
            let version = match family {
                Family::V4 => IpVersion::V4,
                Family::V6 => IpVersion::V6,
            };
            let filter = Filter { version, protocol: Protocol::Udp.number() };
            doomed.extend(self.socket.flows(filter, |flow| {
                let udp = UdpFlow { destination: flow.key.original.destination, answers_from: flow.reply.source };
                stale.holds(&udp).then_some(flow.key)
            })?);
        }
        let verdicts = self.socket.delete(&doomed)?;
        if let Some(error) = verdicts.iter().find_map(|verdict| verdict.as_ref().err().filter(|e| !e.is_absent())) {
            return Err(error.clone().into());
        }
        Ok(doomed.len())
    }
}
