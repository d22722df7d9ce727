//! The plugin's table in the kernel.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use weft_netlink::nft::{Batch, CommitError, Element, ElementData, Socket, TableInfo, Value};
use weft_netlink::sysctl::Sysctl;
use weft_netlink::{Errno, Error, IpVersion};

use super::elements::{Elements, elements, leads_to, mappings, owner_of, port_key, targets};
use super::layout::{Kind, SetId, rules, structure, table};
use crate::formats::attachment::Attachment;

/// The way to the table. The socket is opened when it is first needed, in the namespace in which the thread is then.
#[derive(Debug, Default)]
pub struct PortTable {
    pub(super) socket: Option<Socket>,
}

/// What became of a claim.
#[derive(Debug)]
pub enum Claim {
    /// The host ports lead to the container.
    Made,
    /// Others have some of them; nothing was changed. None is named if they were gone again when they were looked for.
    Taken(Vec<Rival>),
    /// There is no table, or not all of it; nothing was changed.
    NoTable,
}

/// An element by which a host port leads to somebody else.
#[derive(Debug)]
pub struct Rival {
    id: SetId,
    element: Element,
}

impl Rival {
    /// Its owner's interface on the host; empty if it does not say so.
    #[must_use]
    pub fn interface(&self) -> &str {
        owner_of(&self.element).0
    }

    /// Its owner's container.
    #[must_use]
    pub fn container(&self) -> &str {
        owner_of(&self.element).1
    }

    /// Whether it is among the elements of this attachment.
    #[must_use]
    pub fn belongs_to(&self, attachment: &Attachment) -> bool {
        elements(attachment).iter().any(|(id, list)| {
            *id == self.id && list.iter().any(|own| own.key == self.element.key && own.data == self.element.data)
        })
    }

    /// Those of the mappings that it stands in the way of, in words.
    #[must_use]
    pub fn disputed(&self, wanted: &Attachment) -> String {
        let key = self.element.key.as_slice();
        let mut claims = targets(wanted).flat_map(|(version, _)| mappings(wanted, version));
        let found = claims.find(|(mapping, _)| {
            let port = port_key(mapping.protocol, mapping.host_port);
            key.ends_with(port.as_slice())
        });
        found.map(|(mapping, _)| mapping.to_string()).unwrap_or_default()
    }
}

impl PortTable {
    /// The socket, opened now if it is not open.
    pub(super) fn socket(&mut self) -> Result<&mut Socket, Error> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => Socket::open()?,
        };
        Ok(self.socket.insert(socket))
    }

    /// The socket, if it has been opened. To close it takes time after elements were deleted.
    #[must_use]
    pub fn opened(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// Leaves the closing of the socket to a child. If there can be none, it takes its time when this process ends.
    pub fn close_soon(&self) {
        let _ = self.socket.as_ref().map(weft_netlink::hold);
    }

    /// Makes the host ports lead to the container, all or none of them. `making` makes the table what it has to be first.
    ///
    /// Ports of one host address and those of all do not meet as elements, so the others are looked at afterwards: whoever
    /// comes second then sees whoever came first.
    ///
    /// # Errors
    /// What the kernel says; the ports may then be claimed.
    pub fn claim(&mut self, attachment: &Attachment, making: bool) -> Result<Claim, Error> {
        let wanted = elements(attachment);
        if wanted.is_empty() {
            return Ok(Claim::Made);
        }
        let mut batch = if making { structure() } else { Batch::new() };
        let table = table();
        for (id, list) in &wanted {
            if id.is_map() {
                batch.create_elements(&table, &id.set(), list);
            } else {
                batch.add_elements(&table, &id.set(), list);
            }
        }
        match self.socket()?.commit(batch) {
            Ok(()) => {}
            Err(CommitError::Refused { first, .. }) if first.errno == Errno::EEXIST => {
                return Ok(Claim::Taken(self.holders(&wanted)?));
            }
            Err(CommitError::Refused { first, .. }) if first.errno == Errno::ENOENT && !making => {
                return Ok(Claim::NoTable);
            }
            Err(error) => return Err(error.into()),
        }
        // Maps outlive a flush of the rules that look into them.
        if !making && self.lost()?.is_some() {
            self.release(&[attachment])?;
            return Ok(Claim::NoTable);
        }
        let overlapping = self.overlapping(attachment, &wanted)?;
        if overlapping.is_empty() {
            return Ok(Claim::Made);
        }
        self.release(&[attachment])?;
        Ok(Claim::Taken(overlapping))
    }

    /// The elements of others with the keys that are wanted.
    fn holders(&mut self, wanted: &Elements) -> Result<Vec<Rival>, Error> {
        let mut rivals = Vec::new();
        for (id, list) in wanted.iter().filter(|(id, _)| id.is_map()) {
            let keys: Vec<Value> = list.iter().map(|element| element.key).collect();
            let found = self.socket()?.elements_of(&table(), &id.set(), &keys)?;
            rivals.extend(found.into_iter().flatten().map(|element| Rival { id: *id, element }));
        }
        Ok(rivals)
    }

    /// The elements of others that claim a wanted port for one address where it is wanted for all, or the other way round.
    fn overlapping(&mut self, attachment: &Attachment, wanted: &Elements) -> Result<Vec<Rival>, Error> {
        let mut rivals = Vec::new();
        for (id, list) in wanted.iter().filter(|(id, _)| id.is_map()) {
            let version = id.version;
            let Some((_, target)) = targets(attachment).find(|(found, _)| *found == version) else { continue };
            let of = |kind| SetId { kind, version };
            let found = if id.kind == Kind::Port {
                let claims_same = |element: Element| {
                    let key = element.key.as_slice();
                    list.iter().any(|own| key.ends_with(own.key.as_slice())).then_some(element)
                };
                self.socket()?.glance(&table(), &of(Kind::AddressPort).set(), claims_same)?.0
            } else {
                let keys: Vec<Value> = list.iter().map(|element| behind_address(&element.key, target)).collect();
                self.socket()?.elements_of(&table(), &of(Kind::Port).set(), &keys)?
            };
            let other = if id.kind == Kind::Port { of(Kind::AddressPort) } else { of(Kind::Port) };
            let foreign = found.into_iter().flatten().filter(|element| !leads_to(element, target));
            rivals.extend(foreign.map(|element| Rival { id: other, element }));
        }
        Ok(rivals)
    }

    /// Takes away everything of these attachments, and nothing of others: a port that has another owner by now keeps it.
    ///
    /// # Errors
    /// What the kernel says; as much as possible is gone then.
    pub fn release(&mut self, attachments: &[&Attachment]) -> Result<(), Error> {
        let all: Elements = attachments.iter().flat_map(|attachment| elements(attachment)).collect();
        if all.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new();
        for (id, list) in &all {
            batch.remove_elements(&table(), &id.set(), list);
        }
        match self.socket()?.commit(batch) {
            Err(CommitError::Refused { first, .. }) if is_settled(first.errno) => {}
            other => return Ok(other?),
        }
        // Some are others', or some of the table is missing: one by one.
        let mut outcome = Ok(());
        for (id, list) in &all {
            for element in list {
                let gone = self.remove(*id, element);
                outcome = outcome.and(gone);
            }
        }
        outcome
    }

    /// Takes away what leads to an attachment of which only the interface on the host is known, as its record is lost.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn release_of(&mut self, interface: &str) -> Result<(), Error> {
        let owned = match self.strays(|owner| owner != interface) {
            Err(error) if error.errno().is_some_and(is_settled) => return Ok(()),
            owned => owned?,
        };
        owned.iter().try_for_each(|element| self.disown(element))
    }

    /// Takes away what leads to these addresses of a container that has no record, as `weft migrate` took its ports over
    /// from another plugin.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn release_inherited(&mut self, container: &str, ips: &[IpAddr]) -> Result<(), Error> {
        let all = match self.strays(|_| false) {
            Err(error) if error.errno().is_some_and(is_settled) => return Ok(()),
            all => all?,
        };
        // A comment may be too short for all of the container's name.
        let is_its = |rival: &Rival| !rival.container().is_empty() && container.starts_with(rival.container());
        let leads_there = |rival: &Rival| ips.iter().any(|ip| leads_to(&rival.element, *ip));
        all.iter().filter(|rival| is_its(rival) && leads_there(rival)).try_for_each(|rival| self.disown(rival))
    }

    /// Takes away an element that nobody stands behind, and what the sets say of its container.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn disown(&mut self, stray: &Rival) -> Result<(), Error> {
        self.evict(stray)?;
        self.forget_target(stray)
    }

    /// Takes away what the sets say of an address that an element led to, if no other leads there.
    fn forget_target(&mut self, gone: &Rival) -> Result<(), Error> {
        let version = gone.id.version;
        let Some(target) = gone.element.data.as_ref().and_then(|data| target_of(data, version)) else { return Ok(()) };
        loop {
            let generation = self.socket()?.generation()?;
            let mut batch = Batch::only_at(generation);
            for id in SetId::all().filter(|id| id.version == version) {
                let mut found = match self.socket()?.glance(&table(), &id.set(), |element| element) {
                    Err(error) if error.is_absent() => continue,
                    found => found?.0.into_iter(),
                };
                if id.is_map() {
                    let leads_there =
                        |data: &ElementData| target_of(data, version).is_some_and(|other| other == target);
                    if found.any(|element| element.data.as_ref().is_some_and(leads_there)) {
                        return Ok(());
                    }
                    continue;
                }
                let about: Vec<Element> = found
                    .filter(|element| match id.kind {
                        Kind::Home => element.key.as_slice().ends_with(target),
                        _ => element.key.as_slice().starts_with(target),
                    })
                    .collect();
                if !about.is_empty() {
                    batch.delete_elements(&table(), &id.set(), &about);
                }
            }
            match self.socket()?.commit(batch) {
                Err(CommitError::Refused { first, .. }) if first.errno == Errno::ERESTART => {}
                other => return Ok(other?),
            }
        }
    }

    /// Takes away an element that nobody stands behind, if it is still the same: it may have another owner by now.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn evict(&mut self, rival: &Rival) -> Result<(), Error> {
        let (set, key) = (rival.id.set(), rival.element.key);
        loop {
            let generation = self.socket()?.generation()?;
            let found = self.socket()?.elements_of(&table(), &set, &[key])?;
            if found.into_iter().flatten().all(|found| found != rival.element) {
                return Ok(());
            }
            let mut batch = Batch::only_at(generation);
            batch.delete_elements(&table(), &set, [&rival.element]);
            match self.socket()?.commit(batch) {
                Err(CommitError::Refused { first, .. }) if first.errno == Errno::ERESTART => {}
                other => return Ok(other?),
            }
        }
    }

    /// Removes an element if it is there with this data. It is added before, which the kernel refuses for other data.
    fn remove(&mut self, id: SetId, element: &Element) -> Result<(), Error> {
        let mut batch = Batch::new();
        batch.remove_elements(&table(), &id.set(), [element]);
        match self.socket()?.commit(batch) {
            Err(CommitError::Refused { first, .. }) if is_settled(first.errno) => Ok(()),
            other => Ok(other?),
        }
    }

    /// What is missing of the attachment's ports, in words; `None` if they are as ADD left them.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn missing(&mut self, attachment: &Attachment) -> Result<Option<String>, Error> {
        let all = elements(attachment);
        for (id, list) in &all {
            let keys: Vec<Value> = list.iter().map(|element| element.key).collect();
            let found = self.socket()?.elements_of(&table(), &id.set(), &keys)?;
            for (wanted, found) in list.iter().zip(found) {
                if found.is_none_or(|found| found.data != wanted.data) {
                    let (key, name, table) = (wanted.key, id.name(), table());
                    return Ok(Some(format!("element {key} of map {name} in table {table}")));
                }
            }
        }
        if all.is_empty() {
            return Ok(None);
        }
        self.lost()
    }

    /// What is missing of the table beside elements, in words.
    fn lost(&mut self) -> Result<Option<String>, Error> {
        let is_ours = |found: &TableInfo| (found.table.family, &found.table.name) == (table().family, &table().name);
        if self.socket()?.tables()?.iter().any(|found| is_ours(found) && found.dormant) {
            return Ok(Some(format!("table {}, which is dormant,", table())));
        }
        let found = self.socket()?.rules(&table(), None)?;
        let lost = rules().into_iter().find(|rule| {
            !found.iter().any(|found| found.chain == rule.chain && found.comment.as_deref() == rule.comment.as_deref())
        });
        Ok(lost.map(|rule| {
            format!("rule {:?} of chain {} in table {}", rule.comment.unwrap_or_default(), rule.chain, table())
        }))
    }

    /// The elements of maps whose owner's interface does not satisfy `lives`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn strays(&mut self, lives: impl Fn(&str) -> bool) -> Result<Vec<Rival>, Error> {
        let mut strays = Vec::new();
        for id in SetId::all().filter(|id| id.is_map()) {
            let found = match self.socket()?.glance(&table(), &id.set(), |element| element) {
                Err(error) if error.is_absent() => continue,
                found => found?.0,
            };
            let all = found.into_iter().map(|element| Rival { id, element });
            strays.extend(all.filter(|rival| !rival.interface().is_empty() && !lives(rival.interface())));
        }
        Ok(strays)
    }
}

/// Whether a refused removal means that there is nothing of ours to remove: the key is another's, there is no such set, one
/// of somebody else's that cannot have such a key, or no nf_tables at all.
fn is_settled(errno: Errno) -> bool {
    matches!(errno, Errno::EEXIST | Errno::ENOENT | Errno::EINVAL | Errno::EOPNOTSUPP)
}

/// The address in the data of a map's element.
fn target_of(data: &ElementData, version: IpVersion) -> Option<&[u8]> {
    let length = match version {
        IpVersion::V4 => 4,
        IpVersion::V6 => 16,
    };
    match data {
        ElementData::Value(value) => value.as_slice().get(..length),
        ElementData::Verdict(_) => None,
    }
}

/// The part of a key that stands behind an address of this family.
fn behind_address(key: &Value, family: IpAddr) -> Value {
    Value::bytes(key.as_slice().get(Value::from(family).as_slice().len()..).unwrap_or_default())
}

/// Lets the kernel route packets from a loopback address out by the attachment's bridge, and their answers in: IPv4 clients
/// on this host that connect to 127.0.0.1. For the namespace that the thread is in.
///
/// # Errors
/// [`Error::Io`] if it cannot be set.
pub fn open_loopback(attachment: &Attachment) -> Result<(), Error> {
    let v4 = IpVersion::V4;
    let is_reached = targets(attachment).any(|(version, _)| version == v4) && mappings(attachment, v4).next().is_some();
    if !attachment.host_ports.snat || !is_reached {
        return Ok(());
    }
    Sysctl::default().ensure(&format!("net/ipv4/conf/{}/route_localnet", attachment.bridge), "1").map(drop)
}
