//! What runs in every cluster: CoreDNS, and weft itself in the place of flannel and kube-proxy.

mod coredns;
mod kustomize;
mod ready;
mod weft;

pub use coredns::{CoreDns, apply_coredns, coredns_image, coredns_objects};
pub use ready::{Hear, await_available, await_node};
pub(super) use ready::{LOOK, Patience};
pub use weft::{WeftAddon, apply_weft, read_weft_settings, weft_objects};

use ipnetwork::IpNetwork;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The address of CoreDNS's Service: the tenth of the range, as kubeadm and kubelet's `clusterDNS` have it. `None` if the
/// range is too small for it.
#[must_use]
pub fn dns_address(service_subnet: IpNetwork) -> Option<IpAddr> {
    const TENTH: u8 = 10;
    let address = match service_subnet.network() {
        IpAddr::V4(base) => IpAddr::V4(Ipv4Addr::from(u32::from(base).checked_add(TENTH.into())?)),
        IpAddr::V6(base) => IpAddr::V6(Ipv6Addr::from(u128::from(base).checked_add(TENTH.into())?)),
    };
    service_subnet.contains(address).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_is_the_tenth_address() {
        let of = |range: &str| dns_address(range.parse().unwrap()).map(|address| address.to_string());
        assert_eq!(of("10.96.0.0/12").as_deref(), Some("10.96.0.10"));
        assert_eq!(of("fd00:10:96::/112").as_deref(), Some("fd00:10:96::a"));
        assert_eq!((of("10.96.0.0/29"), of("255.255.255.252/30")), (None, None));
    }
}
