//! The veth pair between container and bridge.

use std::fmt;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use weft_netlink::sysctl::Sysctl;
use weft_netlink::{
    Address, BridgePort, Errno, KernelError, LinkChange, LinkProbe, MacAddr, Neighbour, Request, Route, RouteKind,
    RouteSocket, Verb, Veth, VethPeer,
};

use crate::formats::attachment::{AssignedIp, AssignedRoute};
use crate::protocol::config::BridgeConfig;
use crate::protocol::{CniError, Code, Result};
use crate::wiring::plan;

/// Index that the container's interface asks for: the one after the loopback's. So it is known without asking.
const USUAL_INDEX: u32 = 2;
/// The kernel's own priority for IPv6 routes without one (`IP6_RT_PRIO_USER`).
const DEFAULT_PRIORITY: u32 = 1024;
/// How long a port may take until it forwards.
const FORWARDING_DEADLINE: Duration = Duration::from_secs(5);
/// How long duplicate address detection may take. The kernel probes once and listens for a second.
const DAD_DEADLINE: Duration = Duration::from_secs(10);

/// How long a bridge may take until it sends.
const BRIDGE_DEADLINE: Duration = Duration::from_millis(500);

/// A pair to be made.
#[derive(Debug, Clone, Copy)]
pub struct Pair<'a> {
    /// Name on the host.
    pub host_name: &'a str,
    /// Address on the host.
    pub host_mac: MacAddr,
    /// Name in the container.
    pub container_name: &'a str,
    /// Address in the container.
    pub container_mac: MacAddr,
    /// MTU of both ends in bytes; the kernel's choice if absent.
    pub mtu: Option<u32>,
}

/// Makes the pair out of the container's namespace, in which this thread and `container` are; the other end is born in
/// `host`. Returns the index of the container's end, which is up.
///
/// # Errors
/// Code 999 `… already exists` if the container has such an interface.
pub fn create(pair: Pair<'_>, host: impl AsFd, container: &mut RouteSocket) -> Result<u32> {
    let mut veth = Veth {
        name: pair.container_name.to_owned(),
        mac: Some(pair.container_mac),
        mtu: pair.mtu,
        index: Some(USUAL_INDEX),
        up: true,
        master: None,
        peer: VethPeer {
            name: pair.host_name.to_owned(),
            mac: Some(pair.host_mac),
            mtu: pair.mtu,
            netns: Some(host.as_fd()),
        },
    };
    let first = match container.one(veth.create()) {
        Ok(()) => return Ok(USUAL_INDEX),
        Err(error) => error,
    };
    let probe = LinkProbe::open()?;
    let exists = || {
        let name = pair.container_name;
        CniError::internal(format!("container veth name {name:?} already exists in the container's network namespace"))
    };
    if probe.index(pair.container_name)?.is_some() {
        return Err(exists());
    }
    // Fallback tunnels (tunl0, sit0) and a second interface sit where ours would have been.
    if !matches!(first.errno(), Some(Errno::EBUSY | Errno::EEXIST)) {
        return Err(first.into());
    }
    veth.index = None;
    container.one(veth.create())?;
    probe.index(pair.container_name)?.ok_or_else(|| {
        CniError::later(format!("container veth {:?} vanished while it was set up", pair.container_name))
    })
}

/// Plugs the host's end into the bridge with this index, and tells the host where the container's addresses are.
///
/// An address that was another container's a moment ago may be one that the host is asking for in vain: it would hear the
/// answer only when it asks again, a second later, and refuse all connections if it has asked for the last time.
///
/// # Errors
/// Code 11 if the bridge is full, 999 if the kernel refuses otherwise.
pub fn plug_in(
    pair: Pair<'_>,
    bridge: u32,
    config: &BridgeConfig,
    ips: &[AssignedIp],
    host: &mut RouteSocket,
) -> Result<()> {
    let port = || LinkChange::new(pair.host_name).master(bridge);
    // Down until its last option is set, as an option for the time of coming up is among them.
    let with_options = |port: LinkChange| {
        let hairpin = config.hairpin.then_some(true);
        let isolated = config.port_isolation.then_some(true);
        let options = BridgePort { link: pair.host_name.into(), hairpin, isolated };
        vec![port.request(), options.set_and_bring_up()]
    };
    let has_options = config.hairpin || config.port_isolation;
    let requests = if has_options { with_options(port().without_link_local()) } else { vec![port().up().request()] };
    let refused = match run_port(pair, bridge, requests, ips, host)? {
        Some(error) if error.errno == Errno::EAFNOSUPPORT => run_port(pair, bridge, with_options(port()), ips, host)?,
        refused => refused,
    };
    match refused {
        None => Ok(()),
        Some(error) if error.errno == Errno::EXFULL => Err(CniError::later(format!(
            "bridge: {:?} has reached the kernel's bridge port limit of 1023: {error}",
            config.name
        ))),
        Some(error) => Err(weft_netlink::Error::from(error).into()),
    }
}

/// Sends the requests for a port, and with them where the addresses are. Returns the first refusal of one for the port: a
/// neighbour table that is full is no reason to refuse a container, the host asks on the wire then.
fn run_port(
    pair: Pair<'_>,
    bridge: u32,
    mut requests: Vec<Request>,
    ips: &[AssignedIp],
    host: &mut RouteSocket,
) -> Result<Option<KernelError>> {
    let port_requests = requests.len();
    let mac = pair.container_mac;
    requests.extend(ips.iter().map(|ip| Neighbour { link: bridge, ip: ip.address.ip(), mac }.confirm()));
    Ok(host.run(requests)?.into_iter().take(port_requests).find_map(std::result::Result::err))
}

/// Gives the container's end its addresses and routes. Returns the routes as they were made: one that had to go behind
/// another interface's has a priority now.
///
/// # Errors
/// Code 999 with the kernel's words for the address or route that it refused.
pub fn address(
    index: u32,
    name: &str,
    ips: &[AssignedIp],
    routes: &[AssignedRoute],
    detect_duplicates: bool,
    container: &mut RouteSocket,
) -> Result<Vec<AssignedRoute>> {
    let addresses: Vec<Request> = ips
        .iter()
        .map(|ip| Address { link: index, network: ip.address, no_dad: !detect_duplicates }.request(Verb::Create))
        .collect();
    let configured = routes;
    let routes = plan::kernel_routes(configured, index);
    let route_requests: Vec<Request> = routes.iter().map(|route| route.request(Verb::Create)).collect();
    if ips.iter().any(|ip| ip.address.is_ipv6()) {
        let sysctl = Sysctl::default();
        for link in ["lo", name] {
            sysctl.ensure(&format!("net/ipv6/conf/{link}/disable_ipv6"), "0")?;
        }
        // Else the addresses are lost whenever somebody sets the interface down.
        sysctl.ensure(&format!("net/ipv6/conf/{name}/keep_addr_on_down"), "1")?;
    }
    if detect_duplicates {
        container.all(addresses)?;
        await_unique(index, container)?;
        let verdicts = container.run(route_requests)?;
        let behind = add_routes(index, &routes, verdicts, container)?;
        return Ok(plan::moved_behind(configured, &behind));
    }
    let mut verdicts = container.run(addresses.into_iter().chain(route_requests).collect())?;
    let of_routes = verdicts.split_off(ips.len());
    if let Some(refused) = verdicts.into_iter().find_map(Result::err) {
        return Err(weft_netlink::Error::from(refused).into());
    }
    let behind = add_routes(index, &routes, of_routes, container)?;
    Ok(plan::moved_behind(configured, &behind))
}

/// Deals with refused routes. One that is there already belongs to another interface of this container: ours goes behind
/// it, by a priority that no other interface has, or after it where the configuration gives it one. Returns those that got
/// a priority.
fn add_routes(
    index: u32,
    routes: &[Route],
    verdicts: Vec<std::result::Result<(), KernelError>>,
    container: &mut RouteSocket,
) -> Result<Vec<Route>> {
    let (mut requests, mut behind) = (Vec::new(), Vec::new());
    for (route, verdict) in routes.iter().zip(verdicts) {
        match verdict {
            Ok(()) => {}
            Err(error) if error.errno == Errno::EEXIST && route.priority.is_none() => {
                let mut second = route.clone();
                second.priority = Some(DEFAULT_PRIORITY.saturating_add(index));
                requests.push(second.request(Verb::Create));
                behind.push(second);
            }
            Err(error) if error.errno == Errno::EEXIST => requests.push(route.request(Verb::Append)),
            Err(error) => return Err(weft_netlink::Error::from(error).into()),
        }
    }
    if !requests.is_empty() {
        container.all(requests)?;
    }
    Ok(behind)
}

fn await_unique(index: u32, container: &mut RouteSocket) -> Result<()> {
    let mut outcome = Ok(());
    wait(DAD_DEADLINE, || {
        let addresses = match container.addresses(Some(index)) {
            Ok(addresses) => addresses,
            Err(error) => {
                outcome = Err(error.into());
                return true;
            }
        };
        if let Some(duplicate) = addresses.iter().find(|address| address.dad_failed) {
            let message =
                format!("IPv6 address {} is in use on the link (duplicate address detection)", duplicate.network);
            outcome = Err(CniError::internal(message));
            return true;
        }
        !addresses.iter().any(|address| address.global && address.tentative)
    })
    .map_err(|waited| CniError::later(format!("enabledad: addresses are still tentative after {waited}")))?;
    outcome
}

/// Waits until the host's end has a carrier and so its bridge port forwards. Takes no kernel lock.
///
/// # Errors
/// Code 11 if it does not within 5 s.
pub fn await_forwarding(name: &str, probe: &LinkProbe) -> Result<()> {
    let running = || probe.flags(name).is_ok_and(|flags| flags.is_some_and(|flags| flags.running));
    wait(FORWARDING_DEADLINE, running).map_err(|waited| {
        CniError::new(Code::TryAgainLater, format!("bridge port {name} is not running after {waited}"))
    })
}

/// Waits until what the container sends is sent.
///
/// Its end came up before the host's, so it got its carrier late, and the kernel opens its queue later still: what the pod
/// sends at once, be it an answer to ARP, would be dropped. No lock-free question tells; this one makes it so.
///
/// # Errors
/// Code 11 if it is not so within 5 s.
pub fn await_sending(index: u32, name: &str, container: &mut RouteSocket) -> Result<()> {
    let sends = || container.is_operational(index).is_ok_and(|operational| operational);
    wait(FORWARDING_DEADLINE, sends).map_err(|waited| {
        CniError::new(Code::TryAgainLater, format!("interface {name} is not operational after {waited}"))
    })
}

/// Waits until a bridge that had no port sends. Without any it had no carrier either, and the kernel shut its queue; the
/// carrier comes back with the port's, and the queue a little later still: what the node sends to the pod at once would be
/// dropped. With spanning tree that takes half a minute, for which no pod is kept waiting.
pub fn await_bridge(index: u32, host: &mut RouteSocket) {
    let sends = || host.is_operational(index).is_ok_and(|operational| operational);
    let _ = wait(BRIDGE_DEADLINE, sends);
}

/// Waits until these addresses are this namespace's own.
///
/// The kernel makes the route by which packets to an IPv6 address of its own reach it from a work queue, a moment after the
/// address, also where no duplicates are looked for; and the queue waits for a lock that a burst of pods keeps busy. What
/// arrives before is taken for somebody else's: with it goes the answer to the first question for a neighbour, which is asked
/// again after a second. IPv4 addresses have their routes at once.
///
/// # Errors
/// Code 11 if they are not within 5 s.
pub fn await_own(ips: impl Iterator<Item = IpAddr>, socket: &mut RouteSocket) -> Result<()> {
    for ip in ips.filter(IpAddr::is_ipv6) {
        let is_own = || socket.route_to(ip).is_ok_and(|route| route.kind == RouteKind::Local);
        wait(FORWARDING_DEADLINE, is_own)
            .map_err(|waited| CniError::later(format!("IPv6 address {ip} has no local route after {waited}")))?;
    }
    Ok(())
}

/// How long was waited in vain.
struct Waited(Duration);

impl fmt::Display for Waited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} s", self.0.as_secs())
    }
}

fn wait(deadline: Duration, mut done: impl FnMut() -> bool) -> std::result::Result<(), Waited> {
    let begun = Instant::now();
    let mut pause = Duration::from_micros(50);
    while !done() {
        if begun.elapsed() > deadline {
            return Err(Waited(deadline));
        }
        pause_for(pause);
        pause = (pause * 2).min(Duration::from_millis(1));
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "polls a condition that the kernel does not notify of, with a limit")]
fn pause_for(pause: Duration) {
    std::thread::sleep(pause);
}
