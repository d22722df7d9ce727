//! A client outside the machine, one hop away.

use std::net::IpAddr;

use super::Host;
use crate::netns::OwnedNetns;

/// A machine beside a [`Host`], on a network with it.
#[derive(Debug)]
pub struct Uplink {
    /// The client's namespace.
    pub client: OwnedNetns,
}

impl Uplink {
    /// Name of both ends of the link between them.
    pub const LINK: &str = "up0";
    /// The host's addresses there, one of each family.
    pub const HOST: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
    /// The host's second addresses there, from which it sends nothing unasked.
    pub const SECOND: [&str; 2] = ["192.0.2.11", "2001:db8::11"];
    /// The client's addresses.
    pub const CLIENT: [&str; 2] = ["192.0.2.2", "2001:db8::2"];

    /// Connects a new client to the host.
    ///
    /// # Panics
    /// When `ip` refuses.
    #[must_use]
    pub fn new(host: &Host) -> Self {
        let client = OwnedNetns::new(format!("{}-out", host.netns.name()));
        let ip = |netns: &crate::netns::Netns, words: &str| {
            let words: Vec<&str> = words.split(' ').collect();
            netns.tool("ip", &words).unwrap_or_else(|error| panic!("{error:#}"))
        };
        ip(&host.netns, &format!("link add up0 type veth peer name up0 netns {}", client.name()));
        let ends = [(&*host.netns, [Self::HOST, Self::SECOND].concat()), (&*client, Self::CLIENT.to_vec())];
        for (netns, addresses) in ends {
            for address in addresses {
                let prefix = match address.contains(':') {
                    false => "24",
                    true if Self::SECOND.contains(&address) => "64 nodad preferred_lft 0",
                    true => "64 nodad",
                };
                ip(netns, &format!("addr add {address}/{prefix} dev up0"));
            }
            ip(netns, "link set up0 up");
        }
        Self { client }
    }

    /// An address of a list, as a value.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn ip(text: &str) -> IpAddr {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }
}
