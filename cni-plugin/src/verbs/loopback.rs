//! The loopback interface, for runtimes that leave it to a plugin called `loopback`.

use weft_netlink::netns::NetNs;
use weft_netlink::{LinkChange, LinkProbe, RouteSocket};

use super::host::open_sandbox;
use crate::protocol::config::Base;
use crate::protocol::env::Call;
use crate::protocol::result::{AddResult, Interface, ResultIp};
use crate::protocol::{CniError, Result};

/// Name of the interface, whatever `CNI_IFNAME` says.
const NAME: &str = "lo";

/// Sets it up.
///
/// # Errors
/// Codes 4 and 8 for the namespace, 999 if the kernel refuses.
pub fn add(base: &Base, call: &Call, answer: &mut dyn FnMut(&str) -> Result<()>) -> Result<()> {
    open_sandbox(call, &NetNs::current()?)?.enter()?;
    RouteSocket::open()?.one(LinkChange::new(NAME).up().request())?;
    let ip = |address: &str| address.parse().ok().map(|address| ResultIp { address, gateway: None, interface: 0 });
    // Where IPv6 is off the kernel gives no ::1.
    let v6 = std::fs::read_to_string("/proc/thread-self/net/if_inet6").is_ok_and(|table| bears_loopback(&table));
    let result = AddResult {
        interfaces: vec![Interface {
            name: NAME.to_owned(),
            mac: "00:00:00:00:00:00".to_owned(),
            mtu: None,
            sandbox: call.netns.as_ref().map(|path| path.display().to_string()),
        }],
        ips: ip("127.0.0.1/8").into_iter().chain(ip("::1/128").filter(|_| v6)).collect(),
        ..AddResult::default()
    };
    answer(&result.to_json(base.version))
}

/// Whether a table of IPv6 addresses, one a line and in no order, has `::1`.
fn bears_loopback(table: &str) -> bool {
    table.lines().any(|line| line.starts_with("00000000000000000000000000000001 "))
}

/// Sets it down, if its namespace is still there.
///
/// # Errors
/// Only if the kernel refuses.
pub fn del(call: &Call) -> Result<()> {
    let host = NetNs::current()?;
    let sandbox = call.netns.as_ref().and_then(|_| open_sandbox(call, &host).ok());
    let Some(sandbox) = sandbox else { return Ok(()) };
    sandbox.enter()?;
    Ok(RouteSocket::open()?.one(LinkChange::new(NAME).down().request())?)
}

/// Looks whether it is up.
///
/// # Errors
/// If it is not, or cannot be looked at.
pub fn check(call: &Call) -> Result<()> {
    open_sandbox(call, &NetNs::current()?)?.enter()?;
    match LinkProbe::open()?.flags(NAME)? {
        Some(flags) if flags.up => Ok(()),
        _ => Err(CniError::internal("loopback interface lo is not up")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_address_is_found_in_any_line() {
        let other = "fd000000000000000000000000000005 02 40 00 80     eth0\n";
        assert!(!bears_loopback("") && !bears_loopback(other));
        assert!(bears_loopback(&format!("{other}00000000000000000000000000000001 01 80 10 80       lo\n")));
    }
}
