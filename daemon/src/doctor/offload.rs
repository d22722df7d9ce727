//! Checksums: hardware, or a hypervisor's device, that fills in those of encapsulated packets wrongly.
//!
//! The kernel leaves the inner checksum to whoever sends the outer packet. Devices that get it wrong (vmxnet3 with some
//! versions of ESXi is the known one: flannel-io/flannel#1279, projectcalico/calico#9433) let echoes through, whose checksum
//! nobody leaves to them, and lose TCP and UDP.

use super::check::Group;
use super::path::{Connect, Peer};
use super::{Check, Told};

const GROUP: Group = Group("offload");

/// Drivers that are known to get it wrong with some versions of what is below them.
const SUSPECTS: [&str; 1] = ["vmxnet3"];

/// A device's part in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Whether it leaves checksums to others (`ethtool -k`: tx-checksumming); `None` if it cannot tell.
    pub tx_checksum: Told<Option<bool>>,
    /// The driver of the link below it.
    pub driver: Told<Option<String>>,
}

/// What is asked of checksums.
#[derive(Debug, Clone)]
pub struct OffloadFacts {
    /// The devices of the overlay.
    pub devices: Vec<Device>,
    /// Packets with wrong checksums that came in for this machine (TCP and UDP, `InCsumErrors`), and all that came in.
    pub errors: Told<(u64, u64)>,
    /// The same of those that came in while the doctor looked.
    pub fresh: (u64, u64),
}

/// The checks. `peers` are those that were asked through the overlay.
#[must_use]
pub fn judge(facts: &OffloadFacts, peers: &[Peer]) -> Vec<Check> {
    let mut checks: Vec<Check> = facts.devices.iter().map(|device| probe(device, peers)).collect();
    checks.push(errors(facts));
    checks
}

fn probe(device: &Device, peers: &[Peer]) -> Check {
    let name = format!("{} tx-checksum", device.name);
    let remedy = format!(
        "ethtool -K {} tx-checksum-ip-generic off (after each start of the device); nstat -az TcpInCsumErrors UdpInCsumErrors on the peer counts what arrives broken",
        device.name
    );
    let asked = peers.iter().filter(|peer| peer.echo && peer.tcp.is_some());
    // Whose agent answers at its node's address, and whose echoes come through: only what is in between is left.
    let broken: Vec<&str> = asked
        .clone()
        .filter(|peer| peer.tcp == Some(Connect::Silent) && peer.underlay_tcp == Connect::Answered)
        .map(|peer| peer.name.as_str())
        .collect();
    let (offloaded, driver) = match (&device.tx_checksum, &device.driver) {
        (Ok(offloaded), Ok(driver)) => (*offloaded, driver.as_deref()),
        (Err(reason), _) | (_, Err(reason)) => return GROUP.unknown(name, reason.clone()),
    };
    if !broken.is_empty() {
        let cause = format!(
            "{} answers echoes through the overlay and no TCP, which its agent does answer outside of it: checksums of encapsulated packets arrive wrong{}, or a firewall there takes TCP from the overlay for foreign",
            broken.join(", "),
            if offloaded == Some(true) { " (they are left to the hardware)" } else { "" }
        );
        return GROUP.problem(name, cause, remedy);
    }
    match (offloaded, driver) {
        (Some(true), Some(driver)) if SUSPECTS.contains(&driver) && asked.count() == 0 => GROUP.note(
            name,
            format!("checksums are left to {driver}, which gets them wrong in some versions, and there was no peer to try it with; if TCP hangs between nodes: {remedy}"),
        ),
        (Some(on), _) => GROUP.good(name, if on { "left to others, and TCP comes through" } else { "off" }),
        (None, _) => GROUP.good(name, "the device has no such feature"),
    }
}

/// Fewer wrong ones while the doctor looks are what a bad cable, or somebody's scan, sends now and then.
const MANY: u64 = 5;
/// One in so many, at least, is wrong if a device gets them wrong.
const ONE_IN: u64 = 1000;

fn errors(facts: &OffloadFacts) -> Check {
    let remedy = "on the nodes that send them: ethtool -K flannel.1 tx-checksum-ip-generic off; tcpdump -nvvi flannel.1 shows whose checksums are incorrect";
    let (fresh, of) = facts.fresh;
    match &facts.errors {
        Ok((errors, _)) if fresh >= MANY && fresh.saturating_mul(ONE_IN) >= of => GROUP.problem(
            "checksum errors",
            format!("{fresh} of {of} packets that came in just now had wrong checksums ({errors} since the start)"),
            remedy,
        ),
        Ok((errors, all)) if *errors > 0 => GROUP.note(
            "checksum errors",
            format!("{errors} of {all} packets that came in had wrong checksums; {fresh} just now"),
        ),
        Ok(_) => GROUP.good("checksum errors", "none came in"),
        Err(reason) => GROUP.unknown("checksum errors", reason.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Outcome;

    fn facts(offloaded: Option<bool>, driver: &str) -> OffloadFacts {
        let device = Device { name: "flannel.1".into(), tx_checksum: Ok(offloaded), driver: Ok(Some(driver.into())) };
        OffloadFacts { devices: vec![device], errors: Ok((0, 100)), fresh: (0, 50) }
    }

    fn peer(tcp: Connect) -> Peer {
        let address = "192.0.2.2".parse().unwrap();
        Peer {
            name: "n2".into(),
            inner: address,
            outer: address,
            echo: true,
            tcp: Some(tcp),
            underlay: true,
            underlay_tcp: Connect::Answered,
            wire: None,
            untold: None,
            port: 8472,
            encrypted: false,
            mtu: 1450,
            added: 50,
            largest: Some(1450),
        }
    }

    #[test]
    fn echoes_without_tcp_are_what_wrong_checksums_look_like() {
        let checks = judge(&facts(Some(true), "vmxnet3"), &[peer(Connect::Silent)]);
        assert_eq!(checks[0].outcome, Outcome::Problem);
        assert!(checks[0].remedy.as_ref().unwrap().starts_with("ethtool -K flannel.1"));
        // Nobody listens, or a firewall is in the way, outside of the overlay too.
        let closed = Peer { underlay_tcp: Connect::Silent, ..peer(Connect::Silent) };
        assert_eq!(judge(&facts(Some(true), "veth"), &[closed])[0].outcome, Outcome::Good);
        assert_eq!(judge(&facts(Some(true), "vmxnet3"), &[peer(Connect::Answered)])[0].outcome, Outcome::Good);
    }

    #[test]
    fn a_suspect_that_could_not_be_tried_is_noted() {
        assert_eq!(judge(&facts(Some(true), "vmxnet3"), &[])[0].outcome, Outcome::Note);
        assert_eq!(judge(&facts(Some(false), "vmxnet3"), &[])[0].outcome, Outcome::Good);
    }

    #[test]
    fn errors_that_come_in_now_are_a_problem_old_ones_a_note() {
        let counted = |errors, fresh| {
            let facts = OffloadFacts { errors, fresh: (fresh, 500), ..facts(None, "veth") };
            judge(&facts, &[])[1].outcome
        };
        assert_eq!(counted(Ok((17, 100)), 9), Outcome::Problem);
        assert_eq!(counted(Ok((7, 100)), 1), Outcome::Note);
        assert_eq!(counted(Ok((7, 100)), 0), Outcome::Note);
        assert_eq!(counted(Ok((0, 100)), 0), Outcome::Good);
        assert_eq!(counted(Err("denied".into()), 0), Outcome::Unknown);
    }
}
