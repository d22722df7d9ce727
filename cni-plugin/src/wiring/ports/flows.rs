//! UDP clients that the kernel remembers.
//!
//! A UDP client that goes on sending from one port goes on meeting what its first packet met: nobody, or a container that is
//! gone. The flows that host ports are about are forgotten, so that their next packet is a new one.
//!
//! They are listed first, which takes 16 ms a family where the kernel's table has 262,144 buckets. Newer kernels could forget
//! them unseen in less time, but their filter takes every IPv6 address for the one that is meant, except that one itself
//! (Linux 6.18).

use std::net::IpAddr;

use weft_netlink::conntrack::{Filter, Flow, FlowKey, Socket};
use weft_netlink::{Errno, Error, IpVersion, RouteSocket};

use super::elements::{mappings, targets};
use super::table::PortTable;
use crate::formats::attachment::Attachment;
use crate::formats::host_port::Protocol;

impl PortTable {
    /// Forgets flows to the attachment's UDP ports that meet somebody else than the attachment.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn forget_earlier_flows(&mut self, attachment: &Attachment, route: &mut RouteSocket) -> Result<(), Error> {
        let ports = udp_ports(attachment);
        let mut local = Vec::new();
        // Only then: to list them takes a lock of the kernel's before Linux 6.9.
        if ports.iter().any(|port| port.host_ip.is_none()) {
            local.extend(route.addresses(None)?.into_iter().map(|info| info.network.ip()));
        }
        let is_local = |ip: IpAddr| ip.is_loopback() || local.contains(&ip);
        self.forget(&ports, |port, flow| {
            let to = flow.key.original.destination.ip();
            let meant = port.host_ip.map_or_else(|| is_local(to), |ip| ip == to);
            meant && flow.reply.source.ip() != port.target
        })
    }

    /// Forgets flows that were led through the attachment's UDP ports to it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn forget_own_flows(&mut self, attachment: &Attachment) -> Result<(), Error> {
        self.forget(&udp_ports(attachment), |port, flow| {
            flow.reply.source.ip() == port.target && flow.key.original.destination.ip() != port.target
        })
    }

    fn forget(&mut self, ports: &[UdpPort], is_stale: impl Fn(&UdpPort, &Flow) -> bool) -> Result<(), Error> {
        if ports.is_empty() {
            return Ok(());
        }
        self.socket()?;
        let Some(socket) = self.socket.take() else { return Ok(()) };
        let mut conntrack = Socket::from(socket);
        let outcome = delete(&mut conntrack, ports, is_stale);
        self.socket = Some(conntrack.into());
        match outcome {
            // What nfnetlink says of a subsystem that it does not have: flows end by themselves then, if later.
            Err(error) if error.errno() == Some(Errno::EINVAL) => Ok(()),
            outcome => outcome,
        }
    }
}

/// A UDP port of the host.
struct UdpPort {
    port: u16,
    /// The address of the host that it is of; all if absent.
    host_ip: Option<IpAddr>,
    /// The container's address.
    target: IpAddr,
}

fn udp_ports(attachment: &Attachment) -> Vec<UdpPort> {
    let of_family = |(version, target)| {
        let udp = mappings(attachment, version).filter(|(mapping, _)| mapping.protocol == Protocol::Udp);
        udp.map(move |(mapping, host_ip)| UdpPort { port: mapping.host_port, host_ip, target })
    };
    targets(attachment).flat_map(of_family).collect()
}

fn delete(conntrack: &mut Socket, ports: &[UdpPort], is_stale: impl Fn(&UdpPort, &Flow) -> bool) -> Result<(), Error> {
    let mut doomed: Vec<FlowKey> = Vec::new();
    for version in [IpVersion::V4, IpVersion::V6] {
        let mut of_family = ports.iter().filter(|port| IpVersion::of(port.target) == version);
        // Each question has the kernel walk through all flows; several ports are told apart here.
        let port = match (of_family.next(), of_family.next()) {
            (None, _) => continue,
            (Some(only), None) => Some(only.port),
            _ => None,
        };
        let filter = Filter { version, protocol: Protocol::Udp.number(), port };
        doomed.extend(conntrack.flows(filter, |flow| {
            let to = flow.key.original.destination.port();
            let of_port = |port: &&UdpPort| port.port == to && IpVersion::of(port.target) == version;
            ports.iter().filter(of_port).any(|port| is_stale(port, &flow)).then_some(flow.key)
        })?);
    }
    let refused = conntrack.delete(&doomed)?.into_iter().filter_map(Result::err).find(|error| !error.is_absent());
    refused.map_or(Ok(()), |error| Err(error.into()))
}
