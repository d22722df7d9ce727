//! The record of one attachment: one container interface in one network.
//!
//! Records lie at `<stateDir>/<network>/att/<key>` and are the truth about what the plugin gave out; the address pool
//! beside them is only an index. A record is written when its addresses are reserved (state *pending*, its writer holding
//! a lock on it) and becomes *committed* when the runtime has been given the result. What it says suffices to undo or
//! check the attachment without the configuration that made it.
//!
//! A file is 32 bytes of header and a body in JSON:
//!
//! | offset | bytes | content (little endian) |
//! |---|---|---|
//! | 0 | 8 | `weftatt` and the format's version, 1 |
//! | 8 | 4, 4 | length and CRC-32C of the body |
//! | 16 | 4 | state: 0 pending, 1 committed |
//! | 20 | 4, 4 | index of the host's and of the container's interface |
//! | 28 | 4 | CRC-32C of bytes 16 to 28 |
//!
//! The last four words change in one 16-byte write, which a kill cannot tear.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::checksum::crc32c;
use super::host_port::HostPorts;

/// Directory of the records in a network's directory.
pub const RECORDS: &str = "att";
/// The address pool in a network's directory.
pub const POOL: &str = "pool";
/// The file whose lock guards the pool and the coming and going of records.
pub const LOCK: &str = "lock";
/// In a network's directory: while this file is there, each address is reserved in host-local's store, too.
pub const HANDOVER: &str = "handover";
/// Beside the networks' directories: the file whose lock lets one process a node lease a subnet. No network's name begins
/// with a dot.
pub const LEASE_LOCK: &str = ".lease.lock";
/// Offset of the part of a record that changes.
pub const STATUS_OFFSET: u64 = 16;
/// A record is far smaller; what is longer is not one.
pub const MAX_LENGTH: usize = 64 * 1024;
const MAGIC: &[u8; 8] = b"weftatt\x01";
const HEADER: usize = 32;
/// Hexadecimal digits of a record's file name.
const KEY_LENGTH: usize = 32;
/// Hexadecimal digits in the name of an interface on the host: with `veth`, the 15 bytes that the kernel allows.
const LINK_DIGITS: usize = 11;
/// What the name of a device that limits what comes out of a container begins with.
const LIMITER: &str = "wifb";

/// The directory of one network.
#[must_use]
pub fn directory(state_dir: &Path, network: &str) -> PathBuf {
    state_dir.join(network)
}

/// What an attachment is known by: a container may have several interfaces, even in one network.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    /// Network name of the configuration.
    pub network: String,
    /// The runtime's id of the container (of the pod's sandbox).
    pub container: String,
    /// Name of the interface in the container.
    pub interface: String,
}

impl Identity {
    fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for (part, end) in [(&self.network, &[0][..]), (&self.container, &[0]), (&self.interface, &[])] {
            hash.update(part);
            hash.update(end);
        }
        hash.finalize().into()
    }

    /// File name of its record: 32 hexadecimal digits.
    #[must_use]
    pub fn key(&self) -> String {
        hex(&self.digest(), KEY_LENGTH)
    }

    /// Name of its interface on the host: `veth` and 11 hexadecimal digits. It follows from the identity, so that it can be
    /// found when everything else is lost.
    #[must_use]
    pub fn host_interface(&self) -> String {
        host_interface_of(&hex(&self.digest(), LINK_DIGITS))
    }

    /// Names of all interfaces on the host that it may have.
    #[must_use]
    pub fn links(&self) -> Vec<String> {
        vec![self.host_interface(), self.limiter()]
    }

    /// Name of the device that limits what comes out of it, if something does: `wifb` and the digits of
    /// [`host_interface`](Self::host_interface).
    #[must_use]
    pub fn limiter(&self) -> String {
        limiter_of(&hex(&self.digest(), LINK_DIGITS))
    }
}

/// Whether a file name is that of a record.
#[must_use]
pub fn is_key(name: &str) -> bool {
    name.len() == KEY_LENGTH && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Name of the interface on the host that belongs to the record of this file name: both begin with the same digits.
#[must_use]
pub fn host_interface_of(key: &str) -> String {
    format!("veth{}", key.get(..LINK_DIGITS).unwrap_or(key))
}

/// Name of the device that limits what comes out of the attachment whose record has this file name, if something does.
#[must_use]
pub fn limiter_of(key: &str) -> String {
    format!("{LIMITER}{}", key.get(..LINK_DIGITS).unwrap_or(key))
}

/// The digits in the name of such a device; `None` for another name.
#[must_use]
pub fn limiter_digits(name: &str) -> Option<&str> {
    let digits = name.strip_prefix(LIMITER)?;
    (digits.len() == LINK_DIGITS && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
        .then_some(digits)
}

fn hex(bytes: &[u8], digits: usize) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .take(digits)
        .map(|nibble| char::from_digit(nibble.into(), 16).unwrap_or('0'))
        .collect()
}

/// Where the container's end lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// Path of the namespace as the runtime gave it.
    pub path: String,
    /// Device number of the namespace file, which with the inode says which namespace it was.
    pub device: u64,
    /// Inode number of the namespace file.
    pub inode: u64,
}

/// One address of an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedIp {
    /// The address with the prefix length of its subnet.
    pub address: IpNetwork,
    /// The gateway of its subnet.
    pub gateway: Option<IpAddr>,
}

/// A route in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedRoute {
    /// Destination.
    pub dst: IpNetwork,
    /// Gateway; on the link if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
    /// MTU along the route, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Largest TCP segment to advertise, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advmss: Option<u32>,
    /// Priority, the lower the better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// Routing table; the main one if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// Scope (`RT_SCOPE_*`); universe if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<u8>,
}

/// How much traffic may pass one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Bits a second.
    pub rate: u64,
    /// Bits that may pass at once after a pause.
    pub burst: u64,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bits a second, {} at once", self.rate, self.burst)
    }
}

/// Limits of a container's traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Into the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Limit>,
    /// Out of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Limit>,
}

impl Limits {
    /// The limits, if there is any.
    #[must_use]
    pub fn any(self) -> Option<Self> {
        (self != Self::default()).then_some(self)
    }
}

/// How far an attachment has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// Being made, by whoever holds the lock on the record; dead if nobody does.
    #[default]
    Pending,
    /// Handed to the runtime.
    Committed,
}

/// The part of a record that changes after it was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Status {
    /// How far it has come.
    pub state: State,
    /// Index of the interface on the host; 0 while it is not known.
    pub host_index: u32,
    /// Index of the interface in the container; 0 while it is not known.
    pub container_index: u32,
}

impl Status {
    /// The bytes at [`STATUS_OFFSET`].
    #[must_use]
    pub fn encode(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        let state: u32 = match self.state {
            State::Pending => 0,
            State::Committed => 1,
        };
        bytes[..4].copy_from_slice(&state.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.host_index.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.container_index.to_le_bytes());
        let crc = crc32c(&bytes[..12]);
        bytes[12..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; 16]) -> Option<Self> {
        let (words, _) = bytes.as_chunks::<4>();
        let [state, host, container, crc] = words else { return None };
        if u32::from_le_bytes(*crc) != crc32c(&bytes[..12]) {
            return None;
        }
        let state = match u32::from_le_bytes(*state) {
            0 => State::Pending,
            1 => State::Committed,
            _ => return None,
        };
        Some(Self { state, host_index: u32::from_le_bytes(*host), container_index: u32::from_le_bytes(*container) })
    }
}

/// One attachment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// What it is known by.
    #[serde(flatten)]
    pub identity: Identity,
    /// How far it has come. Kept in the header.
    #[serde(skip)]
    pub status: Status,
    /// Process that made it, for an operator.
    pub pid: u32,
    /// When it was made, in milliseconds since 1970.
    pub created: u64,
    /// Where the container's end is.
    pub sandbox: Sandbox,
    /// Name of the interface on the host.
    pub host_interface: String,
    /// Address of the interface on the host.
    pub host_mac: String,
    /// Address of the interface in the container.
    pub container_mac: String,
    /// The bridge that the host's end is plugged into.
    pub bridge: String,
    /// MTU of both ends in bytes; the kernel's choice if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Its addresses.
    pub ips: Vec<AssignedIp>,
    /// Its routes.
    #[serde(default)]
    pub routes: Vec<AssignedRoute>,
    /// `namespace/name` of the pod, if the runtime said so; for an operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Ports of the host that lead to it. Records of earlier versions have none.
    #[serde(default, skip_serializing_if = "HostPorts::is_empty")]
    pub host_ports: HostPorts,
    /// Limits of its traffic, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
}

/// Why bytes are not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Too short, or not begun like one.
    #[error("not an attachment record of version 1")]
    Foreign,
    /// The checksums do not fit.
    #[error("damaged attachment record (checksum)")]
    Damaged,
    /// The body cannot be read.
    #[error("unreadable attachment record: {0}")]
    Body(String),
}

impl Attachment {
    /// Names of all interfaces on the host that are there for it alone.
    #[must_use]
    pub fn links(&self) -> Vec<String> {
        let limiter = self.limits.and_then(|limits| limits.egress).map(|_| self.identity.limiter());
        std::iter::once(self.host_interface.clone()).chain(limiter).collect()
    }

    /// The bytes of its record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes.reserve(1024);
        // Neither the map keys nor the writer can fail: all keys are field names, and a Vec takes everything.
        let _ = serde_json::to_writer(&mut bytes, self);
        let body = bytes.get(HEADER..).unwrap_or_default();
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let crc = crc32c(body);
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&length.to_le_bytes());
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes[16..HEADER].copy_from_slice(&self.status.encode());
        bytes
    }

    /// The record in `bytes`.
    ///
    /// # Errors
    /// [`RecordError`] if it is none, or damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let (header, body) = bytes.split_first_chunk::<HEADER>().ok_or(RecordError::Foreign)?;
        if !header.starts_with(MAGIC) {
            return Err(RecordError::Foreign);
        }
        let word = |at: usize| header.get(at..).and_then(<[u8]>::first_chunk).map(|word| u32::from_le_bytes(*word));
        let length = word(8).and_then(|length| usize::try_from(length).ok());
        if length != Some(body.len()) || word(12) != Some(crc32c(body)) {
            return Err(RecordError::Damaged);
        }
        let status = header.last_chunk().and_then(Status::decode).ok_or(RecordError::Damaged)?;
        let mut attachment: Self =
            serde_json::from_slice(body).map_err(|error| RecordError::Body(error.to_string()))?;
        attachment.status = status;
        Ok(attachment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn sample() -> Attachment {
        Attachment {
            identity: Identity { network: "cbr0".into(), container: "c1".into(), interface: "eth0".into() },
            status: Status::default(),
            pid: 7,
            created: 1,
            sandbox: Sandbox { path: "/run/netns/x".into(), device: 4, inode: 40_000_000 },
            host_interface: "veth0".into(),
            host_mac: "0a:58:00:00:00:01".into(),
            container_mac: "0a:58:0a:f4:01:02".into(),
            bridge: "cni0".into(),
            mtu: Some(1450),
            ips: vec![AssignedIp {
                address: "10.244.1.2/24".parse().unwrap(),
                gateway: Some("10.244.1.1".parse().unwrap()),
            }],
            routes: vec![],
            pod: None,
            host_ports: HostPorts::default(),
            limits: None,
        }
    }

    #[test]
    fn bytes_and_back_then_committed_in_place() {
        let mut attachment = sample();
        let mut bytes = attachment.encode();
        assert!(bytes.len() <= 1024, "{}", bytes.len());
        assert_eq!(Attachment::decode(&bytes).unwrap(), attachment);
        attachment.status = Status { state: State::Committed, host_index: 9, container_index: 2 };
        bytes[16..32].copy_from_slice(&attachment.status.encode());
        assert_eq!(Attachment::decode(&bytes).unwrap(), attachment);
    }

    #[test]
    fn t121_what_has_to_go_stands_in_the_record_and_old_records_still_do() {
        let mut attachment = sample();
        assert_eq!(attachment.links(), ["veth0"]);
        // A record of a version that knew no limits is the same as one without.
        assert!(!String::from_utf8_lossy(&attachment.encode()).contains("limits"));
        let limit = Limit { rate: 8_000_000, burst: 800_000 };
        attachment.limits = Limits { ingress: Some(limit), egress: None }.any();
        assert_eq!(attachment.links(), ["veth0"]);
        attachment.limits = Limits { ingress: None, egress: Some(limit) }.any();
        assert_eq!(attachment.links(), ["veth0".to_owned(), attachment.identity.limiter()]);
        assert_eq!(Attachment::decode(&attachment.encode()).unwrap(), attachment);
    }

    #[test]
    fn names_follow_from_the_identity() {
        let eth0 = sample().identity;
        let net1 = Identity { interface: "net1".into(), ..eth0.clone() };
        assert_eq!(eth0.key().len(), 32);
        assert_eq!(eth0.host_interface().len(), 15);
        assert_ne!(eth0.host_interface(), net1.host_interface());
        // The parts cannot run into each other.
        let shifted = Identity { network: "cbr0c".into(), container: "1".into(), interface: "eth0".into() };
        assert_ne!(eth0.key(), shifted.key());
        // The file's name is enough to find the interface of a record that cannot be read.
        assert_eq!(host_interface_of(&eth0.key()), eth0.host_interface());
        assert_eq!(limiter_of(&eth0.key()), eth0.limiter());
        assert_eq!(eth0.limiter().len(), 15);
        assert_eq!(limiter_digits(&eth0.limiter()).map(host_interface_of), Some(eth0.host_interface()));
        assert!(limiter_digits("wifb0").is_none() && limiter_digits(&eth0.host_interface()).is_none());
        assert!(is_key(&eth0.key()));
        for other in ["", "lost+found", &eth0.key()[1..], &eth0.key().to_uppercase()] {
            assert!(!is_key(other), "{other}");
        }
    }

    /// Record files as some version wrote them: each later one must read them, and each earlier one what a later one adds.
    #[test]
    fn t102_records_of_other_versions_are_read() {
        let first = r#""network":"cbr0","container":"c1","interface":"eth0","pid":7,"created":1,
            "sandbox":{"path":"/run/netns/x","device":4,"inode":40000000},"hostInterface":"veth0",
            "hostMac":"0a:58:00:00:00:01","containerMac":"0a:58:0a:f4:01:02","bridge":"cni0","mtu":1450,
            "ips":[{"address":"10.244.1.2/24","gateway":"10.244.1.1"}],"routes":[]"#;
        for added in ["", r#","aLaterVersion":{"adds":[1,null]}"#] {
            let body = format!("{{{first}{added}}}");
            let mut bytes = sample().encode();
            bytes.truncate(HEADER);
            bytes[8..12].copy_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
            bytes[12..16].copy_from_slice(&crc32c(body.as_bytes()).to_le_bytes());
            bytes.extend_from_slice(body.as_bytes());
            assert_eq!(Attachment::decode(&bytes).unwrap(), sample());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_not_a_panic(bytes: Vec<u8>) {
            let _ = Attachment::decode(&bytes);
        }

        #[test]
        fn t093_every_single_damaged_byte_and_every_torn_tail_is_seen(at in 0usize..512, flip in 1u8..=255, cut in 0usize..512) {
            let bytes = sample().encode();
            let mut damaged = bytes.clone();
            let at = at % bytes.len();
            damaged[at] ^= flip;
            prop_assert!(Attachment::decode(&damaged).is_err());
            prop_assert!(Attachment::decode(&bytes[..cut % bytes.len()]).is_err());
        }
    }
}
