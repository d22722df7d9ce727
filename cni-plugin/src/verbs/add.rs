//! ADD: attach a container.
//!
//! Everything that belongs to the host's namespace is opened before the one `setns`, as sockets stay where they were
//! opened: there is no way back and none is needed. The record is committed after the runtime has the result, not before:
//! a process that is killed in between has failed in the runtime's eyes, and its pending record is reclaimed.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use weft_netlink::netns::NetNs;
use weft_netlink::{MacAddr, RouteSocket, announce};

use super::claims;
use super::host::{Host, now, open_sandbox, store_of, undo};
use crate::formats::attachment::{AssignedIp, AssignedRoute, Attachment, Identity, Sandbox, State, Status};
use crate::ipam::pool::KnownBridge;
use crate::ipam::reclaim::{has_link, sweep};
use crate::ipam::store::{Reservation, Store, StoreError};
use crate::node::{self, NodeNetwork};
use crate::protocol::config::NetConf;
use crate::protocol::env::{Args, Call, Variables};
use crate::protocol::json::Json;
use crate::protocol::result::{AddResult, Dns, Interface, ResultIp};
use crate::protocol::{CniError, Result};
use crate::wiring::bridge::{self, BridgeWish};
use crate::wiring::limits;
use crate::wiring::plan::{self, RouteWish};
use crate::wiring::teardown::{delete_all, delete_now};
use crate::wiring::veth::{self, Pair};

/// How long an exhausted pool waits for interfaces that the kernel is removing: it takes 9 to 20 ms, more under load.
const DYING: Duration = Duration::from_millis(200);

/// Attaches the container and answers with the result.
///
/// # Errors
/// As the specification says; nothing is left behind.
pub fn add(
    json: &Json,
    call: &Call,
    variables: &impl Variables,
    answer: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<()> {
    let args = Args::from_env(variables)?;
    let conf = NetConf::parse(json, &args)?;
    check_names(&conf, call)?;
    let dns = read_dns(&conf)?;
    let host_netns = NetNs::current()?;
    let sandbox = open_sandbox(call, &host_netns)?;
    let network = node::network(&conf)?;
    AddResult::check_expressible(
        conf.base.version,
        // One address is given of each set, and all ranges of a set are of one family.
        network
            .sets
            .iter()
            .filter_map(|set| set.first())
            .map(|range| range.subnet().is_ipv6())
            .chain(conf.ipam.fixed.iter().flatten().map(|ip| ip.address.is_ipv6())),
    )?;

    // Which gateway a route without one gets makes no difference to what is checked.
    plan::check_routes(&conf.ipam.routes)?;

    let attach = Attach { conf, network, call, pod: args.pod, dns };
    let mut host = Host::open()?;
    let store = store_of(&attach.conf.base);
    let mut reservation = attach.reserve(&store, &sandbox, &mut host)?;
    let wired = attach.wire(&store, &reservation, &mut host, &host_netns, &sandbox).and_then(|(indexes, result)| {
        answer(&result.to_json(attach.conf.base.version))?;
        Ok(reservation.set_status(indexes)?)
    });
    match wired {
        Ok(()) => {
            // The process ends now and the kernel closes everything at once; closing one by one is time after the deed.
            std::mem::forget((host, host_netns, sandbox, reservation));
            Ok(())
        }
        Err(error) => Err(roll_back(error, &store, &reservation, &mut host)),
    }
}

/// What is to be attached, all of it checked.
struct Attach<'a> {
    conf: NetConf,
    network: NodeNetwork,
    call: &'a Call,
    pod: Option<String>,
    dns: Dns,
}

impl Attach<'_> {
    /// Reserves the addresses; reclaims what dead attachments hold if there are no others.
    fn reserve(&self, store: &Store, sandbox: &NetNs, host: &mut Host) -> Result<Reservation> {
        let identity = self.conf.base.identity(&self.call.container, &self.call.interface);
        let id = sandbox.id()?;
        let sandbox = Sandbox { path: self.sandbox_path(), device: id.device, inode: id.inode };
        let requested: Vec<IpAddr> = self.conf.ips.iter().map(|request| request.ip).collect();
        let preferred = settle_previous(store, &identity, host)?;
        let attempt = || {
            let describe = |ips: &[AssignedIp]| self.describe(&identity, &sandbox, ips);
            match &self.conf.ipam.fixed {
                Some(fixed) => store.reserve_fixed(fixed, describe),
                None => store.reserve(&self.network.sets, &requested, &preferred, describe),
            }
        };
        let begun = Instant::now();
        loop {
            let outcome = attempt();
            if !matches!(&outcome, Err(StoreError::Allocate(error)) if error.is_want_of_addresses()) {
                return Ok(outcome?);
            }
            let Host { probe, socket, ports } = &mut *host;
            let swept = sweep(store, probe, |record| undo(record, socket, ports).map_err(|error| error.to_string()))?;
            if swept.freed == 0 {
                // Addresses that are about to come free are worth a moment; otherwise the answer is no, at once.
                if swept.dying == 0 || begun.elapsed() > DYING {
                    return Ok(attempt()?);
                }
                pause_for(Duration::from_millis(2));
            }
        }
    }

    fn sandbox_path(&self) -> String {
        self.call.netns.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
    }

    fn describe(&self, identity: &Identity, sandbox: &Sandbox, ips: &[AssignedIp]) -> Attachment {
        let wish = RouteWish {
            configured: &self.conf.ipam.routes,
            default_gateway: self.conf.bridge.is_default_gateway,
            networks: &self.network.networks,
        };
        Attachment {
            identity: identity.clone(),
            status: Status::default(),
            pid: std::process::id(),
            created: now(),
            sandbox: sandbox.clone(),
            host_interface: identity.host_interface(),
            host_mac: plan::host_mac(identity).to_string(),
            container_mac: plan::container_mac(self.conf.mac, ips).to_string(),
            bridge: self.conf.bridge.name.clone(),
            mtu: self.network.mtu,
            ips: ips.to_vec(),
            routes: plan::routes(wish, ips),
            pod: self.pod.clone(),
            host_ports: self.conf.host_ports.clone(),
            limits: self.conf.limits.any(),
        }
    }

    /// Makes what the reservation describes. Ends in the container's namespace.
    fn wire(
        &self,
        store: &Store,
        reservation: &Reservation,
        host: &mut Host,
        host_netns: &NetNs,
        sandbox: &NetNs,
    ) -> Result<(Status, AddResult)> {
        let attachment = &reservation.attachment;
        let host_name = attachment.host_interface.as_str();
        let bridge = self.bridge(store, reservation, host)?;
        // Left by an ADD whose record is lost: the name is ours.
        if host.probe.index(host_name)?.is_some() {
            delete_now(host_name, &mut host.socket)?;
        }
        claims::claim(attachment, store, host)?;

        sandbox.enter()?;
        let mut container = RouteSocket::open()?;
        let container_mac = plan::container_mac(self.conf.mac, &attachment.ips);
        let pair = Pair {
            host_name,
            host_mac: plan::host_mac(&attachment.identity),
            container_name: &self.call.interface,
            container_mac,
            mtu: self.network.mtu,
        };
        let container_index = veth::create(pair, host_netns.as_fd(), &mut container)?;
        let limiter = limits::apply(attachment, &host.probe, &mut host.socket)?;
        veth::plug_in(pair, bridge.index, &self.conf.bridge, &attachment.ips, &mut host.socket)?;
        let detect = self.conf.bridge.detect_duplicates;
        // Duplicates are detected on the wire, so the port has to forward first.
        if detect {
            veth::await_forwarding(host_name, &host.probe)?;
        }
        let (ips, routes) = (&attachment.ips, &attachment.routes);
        let routes = veth::address(container_index, &self.call.interface, ips, routes, detect, &mut container)?;
        veth::await_forwarding(host_name, &host.probe)?;
        veth::await_sending(container_index, &self.call.interface, &mut container)?;
        veth::await_bridge(bridge.index, &mut host.socket);
        veth::await_own(ips.iter().map(|ip| ip.address.ip()), &mut container)?;
        for ip in plan::to_announce(container_mac, ips) {
            announce(container_index, container_mac, ip)?;
        }

        let vanished = || CniError::later(format!("interface {host_name} vanished while it was set up"));
        let host_index = host.probe.index(host_name)?.ok_or_else(vanished)?;
        // udev may have given the host's end another address.
        let host_mac = host.probe.mac(host_name)?.ok_or_else(vanished)?;
        let bridge_mac = host.probe.mac(&bridge.name)?.ok_or_else(vanished)?;
        let status = Status { state: State::Committed, host_index, container_index };
        Ok((status, self.result(attachment, routes, [bridge_mac, host_mac, container_mac], limiter)))
    }

    /// The bridge, made right under the store's lock if it is not as it was last found.
    fn bridge(&self, store: &Store, reservation: &Reservation, host: &mut Host) -> Result<KnownBridge> {
        let gateways = plan::gateways(&reservation.attachment.ips);
        let wish = BridgeWish {
            config: &self.conf.bridge,
            gateways: &gateways,
            sets: &self.network.sets,
            mtu: self.network.mtu,
            networks: &self.network.networks,
        };
        match &reservation.bridge {
            Some(known) if bridge::is_as_known(wish, known, &host.probe, &mut host.socket) => Ok(known.clone()),
            _ => store.with_bridge(|| bridge::ensure(wish, &mut host.socket)),
        }
    }

    fn result(
        &self,
        attachment: &Attachment,
        routes: Vec<AssignedRoute>,
        [bridge, host, container]: [MacAddr; 3],
        limiter: Option<(String, MacAddr)>,
    ) -> AddResult {
        let mtu = self.network.mtu;
        let interface = |name: &str, mac: MacAddr, mtu, sandbox| Interface {
            name: name.to_owned(),
            mac: mac.to_string(),
            mtu,
            sandbox,
        };
        let mut interfaces = vec![
            // The bridge's own MTU follows its smallest port; it says nothing about this container.
            interface(&attachment.bridge, bridge, None, None),
            interface(&attachment.host_interface, host, mtu, None),
            interface(&self.call.interface, container, mtu, Some(self.sandbox_path())),
        ];
        // Behind the others, whose places consumers know.
        interfaces.extend(limiter.map(|(name, mac)| interface(&name, mac, mtu, None)));
        AddResult {
            interfaces,
            ips: attachment
                .ips
                .iter()
                .map(|ip| ResultIp { address: ip.address, gateway: ip.gateway, interface: 2 })
                .collect(),
            routes,
            dns: self.dns.clone(),
        }
    }
}

/// Deals with what an earlier ADD of the same attachment has left: refuses if it lives, else clears it away and returns its
/// addresses, to be given again.
fn settle_previous(store: &Store, identity: &Identity, host: &mut Host) -> Result<Vec<IpAddr>> {
    let Some(mut record) = store.find(identity)? else { return Ok(Vec::new()) };
    let under_way =
        || StoreError::Overtaken { container: identity.container.clone(), interface: identity.interface.clone() };
    let lives =
        |attachment: &Attachment| attachment.status.state == State::Committed && has_link(attachment, &host.probe);
    if !record.content.as_ref().is_ok_and(lives) {
        record.lock(Duration::ZERO).map_err(|_| under_way())?;
    }
    if record.is_forgotten() {
        return Ok(Vec::new());
    }
    let ips: Vec<IpAddr> = match &record.content {
        Ok(attachment) if lives(attachment) => {
            let ip = attachment.ips.first().map(|ip| ip.address.ip().to_string()).unwrap_or_default();
            let (container, interface) = (&identity.container, &identity.interface);
            return Err(CniError::internal(format!(
                "{ip} has been allocated to {container}, duplicate allocation is not allowed: interface {interface} already exists, on the host as {}",
                attachment.host_interface
            )));
        }
        Ok(attachment) => attachment.ips.iter().map(|ip| ip.address.ip()).collect(),
        Err(_) => Vec::new(),
    };
    undo(&record, &mut host.socket, &mut host.ports)?;
    store.forget(&[&record])?;
    Ok(ips)
}

/// Undoes a failed ADD. What cannot be undone is told, and keeps its address until it is reclaimed.
fn roll_back(mut error: CniError, store: &Store, reservation: &Reservation, host: &mut Host) -> CniError {
    let attachment = &reservation.attachment;
    // Where no socket was opened no port was claimed; and one that is opened now may be in the container's namespace.
    let released = host.ports.opened().is_some().then(|| host.ports.release(&[attachment]));
    let undone = released
        .unwrap_or(Ok(()))
        .and_then(|()| delete_all(&attachment.links(), &mut host.socket))
        .map_err(CniError::from)
        .and_then(|()| Ok(store.forget(&[reservation.record()])?));
    if let Err(left) = undone {
        let details = format!("and could not be undone: {left}");
        error.details = if error.details.is_empty() { details } else { format!("{}; {details}", error.details) };
    }
    error
}

/// Refuses a bridge that is called like the container's interface: in the result nobody could tell one from the other.
fn check_names(conf: &NetConf, call: &Call) -> Result<()> {
    if conf.bridge.name != call.interface {
        return Ok(());
    }
    let value = format!("{:?}", conf.bridge.name);
    Err(CniError::invalid("bridge", value, "another name than that of the container's interface (CNI_IFNAME)"))
}

fn read_dns(conf: &NetConf) -> Result<Dns> {
    match &conf.ipam.resolv_conf {
        Some(path) if conf.dns.is_empty() => {
            std::fs::read_to_string(path).map(|text| Dns::from_resolv_conf(&text)).map_err(|error| {
                CniError::invalid(
                    "ipam.resolvConf",
                    format!("{:?}", path.display().to_string()),
                    format!("a file that can be read ({error})"),
                )
            })
        }
        _ => Ok(conf.dns.clone()),
    }
}

#[expect(clippy::disallowed_methods, reason = "polls the kernel's removal of interfaces, with a limit")]
fn pause_for(pause: Duration) {
    std::thread::sleep(pause);
}
