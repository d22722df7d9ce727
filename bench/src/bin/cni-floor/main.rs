//! The floor under a CNI plugin: the least that a process can do and still attach a container as `weft-cni` does.
//!
//! It sends the requests that `weft-cni` sends, byte for byte but for names and addresses (`weft-bench` compares them),
//! and does nothing else: it reads its input because every plugin has to, but parses nothing, allocates no address, keeps
//! no record, checks nothing but the kernel's verdicts, prints nothing. What `weft-cni` takes longer is the price of all
//! that; what the floor takes is the kernel's.
//!
//! ```text
//! cni-floor add NETNS HOST_INTERFACE BRIDGE_INDEX ADDRESS PREFIX_LENGTH GATEWAY
//! cni-floor del HOST_INTERFACE
//! ```

mod message;
mod socket;

use std::fs::File;
use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::process::ExitCode;

use nix::sched::{CloneFlags, setns};
use weft_netlink::{LinkProbe, RouteSocket, delete_link, detach};

use crate::message::Batch;
use crate::socket::Socket;

/// The calling thread's network namespace.
const OWN: &str = "/proc/thread-self/ns/net";
/// Index that the container's interface asks for: the one after the loopback's.
const CONTAINER_INDEX: u32 = 2;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    if read_input().is_err() {
        return ExitCode::FAILURE;
    }
    let done = match *words {
        ["add", netns, host, bridge, address, prefix, gateway] => {
            match (bridge.parse(), address.parse(), prefix.parse(), gateway.parse()) {
                (Ok(bridge), Ok(address), Ok(prefix), Ok(gateway)) => {
                    add(netns, host, bridge, (address, prefix), gateway).is_ok()
                }
                _ => return ExitCode::from(2),
            }
        }
        ["del", host] => del(host).is_ok(),
        _ => return ExitCode::from(2),
    };
    if done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn add(netns: &str, host_name: &str, bridge: u32, address: (Ipv4Addr, u8), gateway: Ipv4Addr) -> io::Result<()> {
    let own = File::open(OWN)?;
    let sandbox = File::open(netns)?;
    let host = Socket::open()?;
    // weft-cni looks whether the bridge still has its gateways.
    let mut gateways = Batch::default();
    gateways.list_addresses(bridge);
    host.dump(&gateways)?;
    setns(&sandbox, CloneFlags::CLONE_NEWNET)?;
    let container = Socket::open()?;

    let mut pair = Batch::default();
    pair.create_pair(CONTAINER_INDEX, address.0, host_name, own.as_raw_fd());
    container.run(&pair)?;

    let mut port = Batch::default();
    port.plug_in(host_name, bridge);
    port.hairpin_and_up(host_name);
    port.confirm_neighbour(bridge, address.0);
    host.run(&port)?;

    let mut network = Batch::default();
    network.address(CONTAINER_INDEX, address);
    network.default_route(CONTAINER_INDEX, gateway);
    container.run(&network)?;

    // The kernel opens the interface's queue before it answers.
    let mut state = Batch::default();
    state.look_up(CONTAINER_INDEX);
    container.run(&state)?;

    // And that of a bridge that had no port.
    let mut state = Batch::default();
    state.look_up(bridge);
    host.run(&state)
}

/// Has a child delete the pair and looks until it is gone, as `weft-cni` does. Only the fork and its request come from
/// weft's own code, as this crate has no `unsafe`.
fn del(host_name: &str) -> Result<(), weft_netlink::Error> {
    let socket = RouteSocket::open()?;
    let probe = LinkProbe::open()?;
    detach(&socket, delete_link(host_name), None)?;
    while probe.index(host_name)?.is_some() {
        std::thread::yield_now();
    }
    Ok(())
}

fn read_input() -> io::Result<()> {
    let mut input = [0; 4096];
    let mut stdin = io::stdin().lock();
    while stdin.read(&mut input)? > 0 {}
    Ok(())
}
