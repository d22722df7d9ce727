//! The requests, written by hand (rtnetlink(7), linux/rtnetlink.h, linux/if_link.h).

use std::net::Ipv4Addr;
use std::os::fd::RawFd;

const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;
const REPLACE: u16 = 0x100;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;

const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const GET_ADDRESS: u16 = 22;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const NEW_NEIGHBOUR: u16 = 28;

const IFF_UP: u32 = 1;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const AF_INET6: u16 = 10;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const VETH_INFO_PEER: u16 = 1;
const IFLA_BRPORT_MODE: u16 = 4;
const RTEXT_FILTER_SKIP_STATS: u32 = 8;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_REACHABLE: u16 = 2;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;

const AF_INET: u8 = 2;
const TABLE_MAIN: u8 = 254;
/// The protocol number of routes that weft makes.
const PROTOCOL: u8 = 0x77;
const UNICAST: u8 = 1;

/// Requests that are sent together.
#[derive(Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    requests: usize,
}

impl Batch {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The number of requests.
    pub(crate) fn len(&self) -> usize {
        self.requests
    }

    /// `eth0` here, up, and its peer in the namespace behind `netns`; one queue each.
    pub(crate) fn create_pair(&mut self, index: u32, address: Ipv4Addr, peer: &str, netns: RawFd) {
        let [a, b, c, d] = address.octets();
        self.request(NEW_LINK, ACK | EXCLUSIVE | CREATE, &link(index, IFF_UP, IFF_UP), |end| {
            end.name("eth0");
            end.attribute(IFLA_ADDRESS, &mac(address));
            end.single_queue();
            end.nest(IFLA_LINKINFO, |info| {
                info.attribute(IFLA_INFO_KIND, b"veth\0");
                info.nest(IFLA_INFO_DATA, |data| {
                    data.nest(VETH_INFO_PEER, |end| {
                        end.bytes.extend_from_slice(&link(0, 0, 0));
                        end.name(peer);
                        end.attribute(IFLA_ADDRESS, &[0x0e, 0x58, a, b, c, d]);
                        end.attribute(IFLA_NET_NS_FD, &netns.to_ne_bytes());
                        end.single_queue();
                    });
                });
            });
        });
    }

    /// The named link becomes a port of the bridge, and gets no IPv6 address of the kernel's once it is up.
    pub(crate) fn plug_in(&mut self, name: &str, bridge: u32) {
        self.request(NEW_LINK, ACK, &link(0, 0, 0), |port| {
            port.name(name);
            port.attribute(IFLA_MASTER, &bridge.to_ne_bytes());
            port.nest(IFLA_AF_SPEC, |families| {
                families.nest(AF_INET6, |v6| v6.attribute(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]));
            });
        });
    }

    /// The named bridge port reflects, and comes up.
    pub(crate) fn hairpin_and_up(&mut self, name: &str) {
        self.request(NEW_LINK, ACK, &link(0, IFF_UP, IFF_UP), |port| {
            port.name(name);
            port.nest(IFLA_LINKINFO, |info| {
                info.attribute(IFLA_INFO_SLAVE_KIND, b"bridge\0");
                info.nest(IFLA_INFO_SLAVE_DATA, |data| data.attribute(IFLA_BRPORT_MODE, &[1]));
            });
        });
    }

    /// An address with its prefix length, and the broadcast address that follows from it.
    pub(crate) fn address(&mut self, index: u32, (address, prefix): (Ipv4Addr, u8)) {
        let host_bits = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
        let broadcast = (address.to_bits() | host_bits).to_be_bytes();
        let [a, b, c, d] = index.to_ne_bytes();
        self.request(NEW_ADDRESS, ACK | EXCLUSIVE | CREATE, &[AF_INET, prefix, 0, 0, a, b, c, d], |message| {
            message.attribute(IFA_LOCAL, &address.octets());
            message.attribute(IFA_ADDRESS, &address.octets());
            message.attribute(IFA_BROADCAST, &broadcast);
        });
    }

    /// The default route.
    pub(crate) fn default_route(&mut self, index: u32, gateway: Ipv4Addr) {
        let header = [AF_INET, 0, 0, 0, TABLE_MAIN, PROTOCOL, 0, UNICAST, 0, 0, 0, 0];
        self.request(NEW_ROUTE, ACK | EXCLUSIVE | CREATE, &header, |message| {
            message.attribute(RTA_DST, &[0; 4]);
            message.attribute(RTA_GATEWAY, &gateway.octets());
            message.attribute(RTA_OIF, &index.to_ne_bytes());
        });
    }

    /// The address is behind the bridge, at its pair's Ethernet address.
    pub(crate) fn confirm_neighbour(&mut self, bridge: u32, address: Ipv4Addr) {
        let [a, b, c, d] = bridge.to_ne_bytes();
        let [low, high] = NUD_REACHABLE.to_ne_bytes();
        let header = [AF_INET, 0, 0, 0, a, b, c, d, low, high, 0, UNICAST];
        self.request(NEW_NEIGHBOUR, ACK | CREATE | REPLACE, &header, |message| {
            message.attribute(NDA_DST, &address.octets());
            message.attribute(NDA_LLADDR, &mac(address));
        });
    }

    /// A question: which addresses the link has.
    pub(crate) fn list_addresses(&mut self, index: u32) {
        let [a, b, c, d] = index.to_ne_bytes();
        self.request(GET_ADDRESS, DUMP, &[0, 0, 0, 0, a, b, c, d], |_| {});
    }

    /// A question: how the link is doing.
    pub(crate) fn look_up(&mut self, index: u32) {
        self.request(GET_LINK, 0, &link(index, 0, 0), |message| {
            message.attribute(IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
        });
    }

    fn name(&mut self, name: &str) {
        self.attribute(IFLA_IFNAME, &[name.as_bytes(), b"\0"].concat());
    }

    fn single_queue(&mut self) {
        self.attribute(IFLA_NUM_TX_QUEUES, &1u32.to_ne_bytes());
        self.attribute(IFLA_NUM_RX_QUEUES, &1u32.to_ne_bytes());
    }

    fn request(&mut self, kind: u16, flags: u16, header: &[u8], attributes: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.requests += 1;
        // nlmsg_len, patched below; nlmsg_seq and nlmsg_pid are 0: answers come in order.
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(REQUEST | flags).to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 8]);
        self.bytes.extend_from_slice(header);
        attributes(self);
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.patch(start, &length.to_ne_bytes());
    }

    fn attribute(&mut self, kind: u16, payload: &[u8]) {
        self.nest(kind, |inside| inside.bytes.extend_from_slice(payload));
    }

    fn nest(&mut self, kind: u16, inside: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        inside(self);
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.patch(start, &length.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn patch(&mut self, start: usize, length: &[u8]) {
        for (slot, byte) in self.bytes.iter_mut().skip(start).zip(length) {
            *slot = *byte;
        }
    }
}

/// The container's Ethernet address, which follows from its IP address.
fn mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x0a, 0x58, a, b, c, d]
}

/// `struct ifinfomsg`.
fn link(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    let words = index.to_ne_bytes().into_iter().chain(flags.to_ne_bytes()).chain(change.to_ne_bytes());
    for (slot, byte) in header.iter_mut().skip(4).zip(words) {
        *slot = byte;
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_cover_the_padding_of_all_but_the_last_attribute() {
        let mut batch = Batch::default();
        batch.hairpin_and_up("veth0123456789a");
        assert_eq!((batch.bytes.len(), batch.bytes[..4].to_vec()), (80, 80u32.to_ne_bytes().to_vec()));
        // LINKINFO { SLAVE_KIND "bridge\0", SLAVE_DATA { MODE 1 } }
        assert_eq!(batch.bytes[52..56], [28, 0, 18, 0]);
        assert_eq!(batch.bytes[68..], [12, 0, 5, 0, 5, 0, 4, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn the_broadcast_address_is_the_subnets_last() {
        let mut batch = Batch::default();
        batch.address(2, ("10.88.3.4".parse().unwrap(), 16));
        assert_eq!(batch.bytes[44..], [10, 88, 255, 255]);
    }
}
