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
        let own = self.route.addresses(None).map(|all| all.into_iter().map(|info| info.network.ip()).collect());
        told(own.and_then(|local: HashSet<IpAddr>| self.delete(&StaleFlows::of(udp, &local))))
    }

    /// Deletes all flows to the cluster IPs of these ports: another back end serves them from now on, and would never see the
    /// packets of a flow that conntrack knows.
    pub(super) fn forget<'a>(&mut self, ports: impl IntoIterator<Item = &'a PortPlan>) -> Outcome {
        told(self.delete(&StaleFlows::moved(ports)))
    }

    fn delete(&mut self, stale: &StaleFlows<'_>) -> Result<usize, Error> {
        let mut doomed: Vec<FlowKey> = Vec::new();
        for family in stale.families() {
            let version = match family {
                Family::V4 => IpVersion::V4,
                Family::V6 => IpVersion::V6,
            };
            let filter = Filter { version, protocol: Protocol::Udp.number(), port: None };
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

fn told(deleted: Result<usize, Error>) -> Outcome {
    let mut outcome = Outcome::default();
    match deleted {
        Ok(deleted) => outcome.flows += deleted,
        // The flows end by themselves, if later; the Services stand.
        Err(error) => outcome.problems.push(format!("stale UDP flows stay: {error}")),
    }
    outcome
}
