//! This node's ends of the overlay as the kernel has them: devices, MTUs, addresses.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::check::Group;
use super::{Check, Told};
use crate::cluster::Family;
use crate::overlay::backend::{vxlan_overhead, wireguard_overhead};

const GROUP: Group = Group("overlay");

/// What a device makes of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// VXLAN.
    Vxlan {
        /// The VXLAN network identifier.
        vni: u32,
    },
    /// WireGuard.
    Wireguard,
}

impl Carrier {
    /// Bytes that it adds to a packet.
    #[must_use]
    pub const fn overhead(self, outer: Family) -> u32 {
        match self {
            Self::Vxlan { .. } => vxlan_overhead(outer),
            Self::Wireguard => wireguard_overhead(),
        }
    }
}

/// A device of the overlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// The family of its outer packets.
    pub outer: Family,
    /// Its index.
    pub index: u32,
    /// What it makes of packets.
    pub carrier: Carrier,
    /// Its UDP port.
    pub port: u16,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it is set up.
    pub up: bool,
    /// The source address of outer packets.
    pub local: Option<IpAddr>,
    /// Name and MTU of the link that it is bound to; of WireGuard, which is bound to none, that by which the agent says it sends.
    pub uplink: Option<(String, u32)>,
    /// Its addresses, but those that the kernel gives every IPv6 link.
    pub addresses: Vec<IpNetwork>,
}

/// What is asked of the devices.
#[derive(Debug, Clone)]
pub struct OverlayFacts {
    /// The devices.
    pub devices: Told<Vec<Device>>,
    /// The addresses that the agent gives them; nothing if it does not tell.
    pub own: Option<Vec<IpAddr>>,
    /// Name and MTU of the bridge, if it is there, and whether it is set up.
    pub bridge: Told<Option<(String, u32, bool)>>,
}

/// The checks.
#[must_use]
pub fn judge(facts: &OverlayFacts) -> Vec<Check> {
    let devices = match &facts.devices {
        Ok(devices) => devices,
        Err(reason) => return vec![GROUP.unknown("device", reason.clone())],
    };
    let mut checks = Vec::new();
    if devices.is_empty() && facts.own.as_ref().is_some_and(Vec::is_empty) {
        checks.push(GROUP.good("device", "none is needed: peers are reached by plain routes"));
    } else if devices.is_empty() {
        let cause = "there is no device of the overlay on this node";
        checks.push(GROUP.problem("device", cause, "see what the agent says of links; it makes the device"));
    }
    for device in devices {
        checks.push(state(device));
        checks.push(mtu(device));
        checks.push(addresses(device, facts.own.as_deref()));
    }
    checks.push(bridge(&facts.bridge, devices));
    checks
}

fn state(device: &Device) -> Check {
    let Device { name, port, .. } = device;
    if device.up {
        return GROUP.good(
            name,
            match device.carrier {
                Carrier::Vxlan { vni } => format!("up, VNI {vni}, UDP port {port}"),
                Carrier::Wireguard => format!("up, WireGuard, UDP port {port}"),
            },
        );
    }
    GROUP.problem(
        name,
        format!("{name} is set down; somebody did that, or no agent runs to set it up"),
        format!("ip link set {name} up"),
    )
}

fn mtu(device: &Device) -> Check {
    let check = format!("{} mtu", device.name);
    let Some((uplink, outer)) = &device.uplink else {
        return GROUP.unknown(check, format!("{} is bound to no link", device.name));
    };
    let added = device.carrier.overhead(device.outer);
    let room = outer.saturating_sub(added);
    if device.mtu <= room {
        return GROUP.good(check, format!("{} inside, {outer} on {uplink}", device.mtu));
    }
    GROUP.problem(
        check,
        format!(
            "packets of {} bytes become {} on the way, and {uplink} takes {outer}: large ones are lost",
            device.mtu,
            device.mtu + added
        ),
        format!("ip link set {} mtu {room} (a running agent does that), or raise the MTU of {uplink}", device.name),
    )
}

/// DHCP clients and network managers like to give every link an address (k3s-io/k3s#2599, flannel-io/flannel#1401).
fn addresses(device: &Device, own: Option<&[IpAddr]>) -> Check {
    let check = format!("{} addresses", device.name);
    let Some(own) = own else {
        return GROUP.unknown(check, "the agent does not tell which address is its own");
    };
    let (ours, foreign): (Vec<_>, Vec<_>) = device.addresses.iter().partition(|address| own.contains(&address.ip()));
    let list = |addresses: &[&IpNetwork]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if ours.is_empty() {
        let cause = format!(
            "{} has no address of this node's subnet, so the node itself reaches no pods elsewhere",
            device.name
        );
        return GROUP.problem(check, cause, "a running agent puts it back; see what it says of links");
    }
    if foreign.is_empty() {
        return GROUP.good(check, list(&ours));
    }
    GROUP.problem(
        check,
        format!("{} has {} beside its own; a DHCP client or network manager takes it for its own", device.name, list(&foreign)),
        format!(
            "ip addr del {} dev {}, and have the manager leave it alone (NetworkManager: [keyfile] unmanaged-devices=interface-name:flannel*;interface-name:cni0;interface-name:veth*)",
            list(&foreign[..1]),
            device.name
        ),
    )
}

fn bridge(bridge: &Told<Option<(String, u32, bool)>>, devices: &[Device]) -> Check {
    match bridge {
        Err(reason) => GROUP.unknown("bridge", reason.clone()),
        Ok(None) => GROUP.problem("bridge", "the bridge of the pods is not there", "see what the agent says of links; it makes the bridge"),
        Ok(Some((name, _, false))) => {
            GROUP.problem("bridge", format!("{name} is set down"), format!("ip link set {name} up"))
        }
        Ok(Some((name, mtu, true))) => match devices.iter().map(|device| device.mtu).min() {
            Some(smallest) if smallest < *mtu => GROUP.problem(
                "bridge",
                format!("{name} has MTU {mtu}, the overlay {smallest}: what pods send in large packets is lost on the way to other nodes"),
                format!("ip link set {name} mtu {smallest}, and restart pods that were made with the larger MTU"),
            ),
            _ => GROUP.good("bridge", format!("{name} is up, MTU {mtu}")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Outcome;

    fn device() -> Device {
        Device {
            name: "flannel.1".into(),
            outer: Family::V4,
            index: 4,
            carrier: Carrier::Vxlan { vni: 1 },
            port: 8472,
            mtu: 1450,
            up: true,
            local: Some("192.0.2.1".parse().unwrap()),
            uplink: Some(("eth0".into(), 1500)),
            addresses: vec!["10.244.1.0/32".parse().unwrap()],
        }
    }

    fn facts(device: Device) -> OverlayFacts {
        OverlayFacts {
            devices: Ok(vec![device]),
            own: Some(vec!["10.244.1.0".parse().unwrap()]),
            bridge: Ok(Some(("cni0".into(), 1450, true))),
        }
    }

    fn problems(facts: &OverlayFacts) -> Vec<String> {
        let bad = judge(facts).into_iter().filter(|check| check.outcome == Outcome::Problem);
        bad.map(|check| check.name).collect()
    }

    #[test]
    fn a_device_as_it_should_be_is_good() {
        assert!(judge(&facts(device())).iter().all(|check| check.outcome == Outcome::Good));
    }

    #[test]
    fn each_fault_has_its_check() {
        assert_eq!(problems(&facts(Device { up: false, ..device() })), ["flannel.1"]);
        assert_eq!(problems(&facts(Device { uplink: Some(("eth0".into(), 1499)), ..device() })), ["flannel.1 mtu"]);
        assert_eq!(problems(&facts(Device { outer: Family::V6, ..device() })), ["flannel.1 mtu"]);
        assert_eq!(problems(&facts(Device { carrier: Carrier::Wireguard, ..device() })), ["flannel.1 mtu"]);
        let greedy = vec!["10.244.1.0/32".parse().unwrap(), "169.254.3.4/16".parse().unwrap()];
        assert_eq!(problems(&facts(Device { addresses: greedy, ..device() })), ["flannel.1 addresses"]);
        assert_eq!(problems(&facts(Device { addresses: Vec::new(), ..device() })), ["flannel.1 addresses"]);
        let larger = OverlayFacts { bridge: Ok(Some(("cni0".into(), 1500, true))), ..facts(device()) };
        assert_eq!(problems(&larger), ["bridge"]);
        let none = OverlayFacts { devices: Ok(Vec::new()), bridge: Ok(None), ..facts(device()) };
        assert_eq!(problems(&none), ["device", "bridge"]);
        let plain = OverlayFacts { devices: Ok(Vec::new()), own: Some(Vec::new()), ..facts(device()) };
        assert_eq!(problems(&plain), [""; 0]);
    }
}
