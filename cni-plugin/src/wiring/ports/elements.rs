//! The elements of one attachment: which host ports lead to it, and which of its clients are masqueraded. Pure.

use std::net::IpAddr;

use weft_netlink::IpVersion;
use weft_netlink::nft::{Element, ElementData, Value};

use super::layout::{Kind, SetId, VERSIONS};
use crate::formats::attachment::Attachment;
use crate::formats::host_port::{PortMapping, Protocol};

/// The longest comment that the kernel takes, in bytes.
const COMMENT: usize = 127;

/// Elements of each map and set, none of them empty.
pub(super) type Elements = Vec<(SetId, Vec<Element>)>;

/// The addresses that host ports lead to: the first of each family.
pub(super) fn targets(attachment: &Attachment) -> impl Iterator<Item = (IpVersion, IpAddr)> {
    VERSIONS.into_iter().filter_map(|version| {
        let ips = attachment.ips.iter().map(|ip| ip.address.ip());
        ips.into_iter().find(|ip| IpVersion::of(*ip) == version).map(|ip| (version, ip))
    })
}

/// The mappings that mean something in a family, each with the host's address if it is for one only. One with an address of
/// the other family is passed over, and so is what follows from an earlier one already.
pub(super) fn mappings(
    attachment: &Attachment,
    version: IpVersion,
) -> impl Iterator<Item = (&PortMapping, Option<IpAddr>)> {
    let mappings = &attachment.host_ports.mappings;
    mappings.iter().filter_map(move |mapping| match mapping.host_ip {
        Some(ip) if IpVersion::of(ip) != version => None,
        ip => Some((mapping, ip.filter(|ip| !ip.is_unspecified()))),
    })
}

/// All elements of an attachment.
pub(super) fn elements(attachment: &Attachment) -> Elements {
    let mut all = Elements::new();
    for (version, target) in targets(attachment) {
        let mut ports = mappings(attachment, version).peekable();
        if ports.peek().is_none() {
            continue;
        }
        let mut add = |kind, element: Element| push(&mut all, SetId { kind, version }, element);
        for (mapping, host_ip) in ports {
            let PortMapping { host_port, container_port, protocol, .. } = *mapping;
            let port = port_key(protocol, host_port);
            let (kind, key) = match host_ip {
                Some(ip) => (Kind::AddressPort, Value::from(ip).and(port)),
                None => (Kind::Port, port),
            };
            let target_port = Value::from(target).and(Value::port(container_port));
            add(kind, Element::new(key).value(target_port).comment(comment(attachment)));
            if attachment.host_ports.masq_all {
                let key = Value::from(target).and(port_key(protocol, container_port));
                add(Kind::All, Element::new(key));
            }
        }
        if attachment.host_ports.snat {
            add(Kind::Own, Element::new(Value::from(target).and(target)));
            add(Kind::Home, Element::new(Value::interface(&attachment.bridge).and(target)));
        }
    }
    all
}

fn push(all: &mut Elements, id: SetId, element: Element) {
    match all.iter_mut().find(|(known, _)| *known == id) {
        Some((_, list)) if list.iter().any(|known| known.key == element.key) => {}
        Some((_, list)) => list.push(element),
        None => all.push((id, vec![element])),
    }
}

/// Protocol and port, as they stand in keys.
pub(super) fn port_key(protocol: Protocol, port: u16) -> Value {
    Value::byte(protocol.number()).and(Value::port(port))
}

/// Whether the element leads to this address.
pub(super) fn leads_to(element: &Element, target: IpAddr) -> bool {
    let address = Value::from(target);
    matches!(&element.data, Some(ElementData::Value(data)) if data.as_slice().starts_with(address.as_slice()))
}

/// Whose element it is, for whoever lists the table and for whoever wants the same port: the interface on the host, by
/// which the record is found, and the container.
fn comment(attachment: &Attachment) -> String {
    let mut text = format!("{} {}", attachment.host_interface, attachment.identity.container);
    // All of it is ASCII: names of interfaces that we chose, and identifiers.
    text.truncate(COMMENT);
    text
}

/// The interface on the host and the container that an element's comment names.
pub(super) fn owner_of(element: &Element) -> (&str, &str) {
    element.comment.as_deref().and_then(|text| text.split_once(' ')).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::attachment::{AssignedIp, Identity, Sandbox, Status};
    use crate::formats::host_port::HostPorts;

    fn attachment(ips: &[&str], mappings: &[PortMapping]) -> Attachment {
        Attachment {
            identity: Identity { network: "net".into(), container: "c".repeat(200), interface: "eth0".into() },
            status: Status::default(),
            pid: 1,
            created: 1,
            sandbox: Sandbox { path: String::new(), device: 0, inode: 0 },
            host_interface: "veth0123456789a".into(),
            host_mac: String::new(),
            container_mac: String::new(),
            bridge: "cni0".into(),
            mtu: None,
            ips: ips.iter().map(|ip| AssignedIp { address: ip.parse().unwrap(), gateway: None }).collect(),
            routes: Vec::new(),
            pod: None,
            host_ports: HostPorts { mappings: mappings.to_vec(), ..HostPorts::default() },
            limits: None,
        }
    }

    fn mapping(host_port: u16, host_ip: &str) -> PortMapping {
        PortMapping { host_port, container_port: 80, protocol: Protocol::Tcp, host_ip: host_ip.parse().ok() }
    }

    fn counts(attachment: &Attachment) -> Vec<(&'static str, usize)> {
        elements(attachment).iter().map(|(id, list)| (id.name(), list.len())).collect()
    }

    #[test]
    fn t106_a_host_address_of_the_other_family_is_passed_over() {
        let v4_only = |host_ip| attachment(&["10.1.0.2/24"], &[mapping(8080, host_ip)]);
        for skipped in ["fd00::1", "::"] {
            assert_eq!(elements(&v4_only(skipped)), []);
        }
        assert_eq!(counts(&v4_only("192.0.2.1")), [("address-ports4", 1), ("own4", 1), ("home4", 1)]);
        for all in ["", "0.0.0.0"] {
            assert_eq!(counts(&v4_only(all)), [("ports4", 1), ("own4", 1), ("home4", 1)]);
        }
    }

    #[test]
    fn each_family_leads_to_its_first_address_and_nothing_is_said_twice() {
        let ports = [mapping(8080, ""), mapping(8080, "0.0.0.0"), mapping(8081, "")];
        let mut both = attachment(&["10.1.0.2/24", "10.2.0.2/24", "fd00::2/64"], &ports);
        both.host_ports.masq_all = true;
        both.host_ports.snat = false;
        let expected = [("ports4", 2), ("masquerade-all4", 1), ("ports6", 2), ("masquerade-all6", 1)];
        assert_eq!(counts(&both), expected);
        let all = elements(&both);
        assert!(leads_to(&all[0].1[0], "10.1.0.2".parse().unwrap()));
        assert!(!leads_to(&all[0].1[0], "10.2.0.2".parse().unwrap()));
    }

    #[test]
    fn a_comment_tells_the_owner_and_is_not_too_long() {
        let all = elements(&attachment(&["10.1.0.2/24"], &[mapping(8080, "")]));
        let element = &all[0].1[0];
        assert_eq!(element.comment.as_ref().unwrap().len(), COMMENT);
        let (interface, container) = owner_of(element);
        assert_eq!(interface, "veth0123456789a");
        assert!(container.chars().all(|c| c == 'c') && !container.is_empty());
    }
}
