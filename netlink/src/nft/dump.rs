//! Reads what the kernel has.

use super::element::{self, Element, NFTA_SET_ELEM_LIST_ELEMENTS, RawElement};
use super::message;
use super::set::NFTA_SET_NAME;
use super::{ChainInfo, RuleInfo, Set, SetInfo, Socket, Table, TableInfo};
use crate::codec::Attributes;
use crate::codec::{MESSAGE_HEADER, Message, Writer, read_all};
use crate::{Error, Result};

const NFTA_RULE_CHAIN: u16 = super::rule::NFTA_RULE_CHAIN;
const NFTA_GEN_ID: u16 = 1;
const REQUEST: u16 = 1;
/// How often the elements of a set are read before two dumps agree.
const ELEMENT_ATTEMPTS: u32 = 16;

/// A request; the body writes its attributes.
fn request(message: u16, family: u8, body: impl FnOnce(&mut Writer)) -> Message {
    Message::new(message::kind(message), message::header(family), body)
}

fn elements_request(table: &Table, set: &Set) -> Message {
    request(message::GET_ELEMENTS, table.family.number(), |w| {
        w.string(message::TABLE_NAME, &table.name);
        w.string(NFTA_SET_NAME, &set.name);
    })
}

/// Whether a message is of this kind, and about this table.
fn is_about(found: &Message, message: u16, table: &Table) -> bool {
    found.kind == message::kind(message)
        && found.first() == table.family.number()
        && found.attributes().string(message::TABLE_NAME).as_deref() == Some(&table.name)
}

impl Socket {
    /// All tables, but those of families that [`TableFamily`](super::TableFamily) does not know.
    ///
    /// # Errors
    /// As all dumps: [`Error::Kernel`] if the kernel refuses, [`Error::DumpInterrupted`] if the tables never stood still,
    /// [`Error::Decode`] if an answer cannot be read.
    pub fn tables(&mut self) -> Result<Vec<TableInfo>> {
        let request = request(message::GET_TABLE, 0, |_| {});
        self.dump("list nftables tables", &request, |message| {
            if message.kind != message::kind(message::NEW_TABLE) {
                return None;
            }
            TableInfo::read(message.first(), message.attributes()).transpose()
        })
    }

    /// The chains of a table; none if the table does not exist.
    ///
    /// # Errors
    /// See [`tables`](Self::tables).
    pub fn chains(&mut self, table: &Table) -> Result<Vec<ChainInfo>> {
        let request = request(message::GET_CHAIN, table.family.number(), |_| {});
        self.dump(&format!("list the chains of table {table}"), &request, |message| {
            let ours = is_about(message, message::NEW_CHAIN, table);
            ours.then(|| ChainInfo::read(table.family, message.attributes()))
        })
    }

    /// The chain of that name; `None` if it, or its table, does not exist. Asked for by its name, as a table of iptables' may
    /// have thousands of others.
    ///
    /// # Errors
    /// [`Error::Kernel`] if the kernel refuses, [`Error::Decode`] if the answer cannot be read.
    pub fn chain(&mut self, table: &Table, name: &str) -> Result<Option<ChainInfo>> {
        let operation = format!("look up chain {name} of table {table}");
        let request = request(message::GET_CHAIN, table.family.number(), |w| {
            w.string(message::TABLE_NAME, &table.name);
            w.string(super::chain::NFTA_CHAIN_NAME, name);
        });
        match self.netlink.get::<Message>(&operation, request) {
            Err(error) if error.is_absent() => Ok(None),
            answered => ChainInfo::read(table.family, answered?.attributes())
                .map(Some)
                .map_err(|reason| Error::decode(operation, reason)),
        }
    }

    /// The rules of a table, or of one of its chains, in their order; none if it does not exist.
    ///
    /// # Errors
    /// See [`tables`](Self::tables).
    pub fn rules(&mut self, table: &Table, chain: Option<&str>) -> Result<Vec<RuleInfo>> {
        let request = request(message::GET_RULE, table.family.number(), |w| {
            w.string(message::TABLE_NAME, &table.name);
            if let Some(chain) = chain {
                w.string(NFTA_RULE_CHAIN, chain);
            }
        });
        self.dump(&format!("list the rules of table {table}"), &request, |message| {
            is_about(message, message::NEW_RULE, table).then(|| RuleInfo::read(message.attributes()))
        })
    }

    /// The sets and maps of a table.
    ///
    /// # Errors
    /// See [`tables`](Self::tables); a table that does not exist is an error for which [`Error::is_absent`] holds, and a
    /// key type that [`Field`](super::Field) does not know is [`Error::Decode`].
    pub fn sets(&mut self, table: &Table) -> Result<Vec<SetInfo>> {
        let request = request(message::GET_SET, table.family.number(), |w| {
            w.string(message::TABLE_NAME, &table.name);
        });
        self.dump(&format!("list the sets of table {table}"), &request, |message| {
            is_about(message, message::NEW_SET, table).then(|| SetInfo::read(message.attributes()))
        })
    }

    /// The elements of a set or map, in the order of their keys.
    ///
    /// # Errors
    /// See [`tables`](Self::tables); a table or set that does not exist is an error for which [`Error::is_absent`] holds.
    pub fn elements(&mut self, table: &Table, set: &Set) -> Result<Vec<Element>> {
        let request = elements_request(table, set);
        let operation = format!("list the elements of set {} of table {table}", set.name);
        let mut last: Option<Vec<Element>> = None;
        for _ in 0..ELEMENT_ATTEMPTS {
            let lists = self.element_lists(&operation, &request, table)?;
            let in_one_go = lists.len() <= 1;
            let mut elements = element::join(set, lists.into_iter().flatten().collect());
            if set.interval || in_one_go {
                return Ok(elements);
            }
            // While a hash table of the kernel grows or shrinks, which it does some time after a change, a dump passes
            // over elements or gives them twice, and does not say so. Two dumps that agree were not disturbed.
            elements.dedup_by(|a, b| a.key == b.key);
            match last {
                Some(before) if before == elements => return Ok(elements),
                _ => last = Some(elements),
            }
        }
        Err(Error::DumpInterrupted { operation, attempts: ELEMENT_ATTEMPTS })
    }

    /// Reads the elements of a set or map once, in no order, and keeps of each what `read` makes of it. Whether they came in
    /// one go: if not, the kernel may have passed over elements that were there, or given them twice, and only another
    /// reading that gives the same is certain (see [`elements`](Self::elements), which takes more time and room).
    ///
    /// # Errors
    /// As [`elements`](Self::elements).
    pub fn glance<T>(
        &mut self,
        table: &Table,
        set: &Set,
        mut read: impl FnMut(Element) -> T,
    ) -> Result<(Vec<T>, bool)> {
        if set.interval {
            return Ok((self.elements(table, set)?.into_iter().map(read).collect(), true));
        }
        let operation = format!("list the elements of set {} of table {table}", set.name);
        let lists = self.dump(&operation, &elements_request(table, set), |message| {
            let list = message.attributes().nest(NFTA_SET_ELEM_LIST_ELEMENTS)?;
            let mut keep = |(_, element)| RawElement::read(Attributes(element)).map(|raw| read(raw.into_element()));
            let ours = is_about(message, message::NEW_ELEMENTS, table);
            ours.then(|| list.iter().map(&mut keep).collect::<Result<Vec<_>, _>>())
        })?;
        let in_one_go = lists.len() <= 1;
        Ok((lists.into_iter().flatten().collect(), in_one_go))
    }

    /// The elements of each message of a dump.
    fn element_lists(&mut self, operation: &str, request: &Message, table: &Table) -> Result<Vec<Vec<RawElement>>> {
        self.dump(operation, request, |message| {
            let list = message.attributes().nest(NFTA_SET_ELEM_LIST_ELEMENTS)?;
            let read = |(_, element)| RawElement::read(Attributes(element));
            is_about(message, message::NEW_ELEMENTS, table)
                .then(|| list.iter().map(read).collect::<Result<Vec<_>, _>>())
        })
    }

    /// The number of the transactions so far: as long as it stays the same, so do all tables of this network namespace.
    ///
    /// # Errors
    /// [`Error::Kernel`] if the kernel refuses, [`Error::Io`] if the answer does not come.
    pub fn generation(&mut self) -> Result<u32> {
        const OPERATION: &str = "read the nftables generation";
        let sequence = self.netlink.take_sequence(1);
        let mut writer = Writer::default();
        writer.message(message::kind(message::GET_GENERATION), REQUEST, message::header(0), |_| {});
        writer.bytes_mut()[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.netlink.send(writer.bytes(), OPERATION)?;
        loop {
            let length = self.netlink.receive(libc::MSG_DONTWAIT).map_err(|error| Error::io(OPERATION, error))?;
            for frame in self.netlink.received(length) {
                let frame = frame.map_err(|reason| Error::decode(OPERATION, reason))?;
                if frame.sequence != sequence {
                    continue;
                }
                if frame.kind != message::kind(message::NEW_GENERATION) {
                    return Err(frame.refusal(frame.error_code().unwrap_or_default(), OPERATION.to_owned()).into());
                }
                let attributes = Attributes(frame.bytes.get(MESSAGE_HEADER..).unwrap_or_default());
                return attributes
                    .be32(NFTA_GEN_ID)
                    .ok_or_else(|| Error::decode(OPERATION, "the answer holds no generation"));
            }
        }
    }

    fn dump<T>(
        &mut self,
        operation: &str,
        request: &Message,
        read: impl FnMut(&Message) -> Option<Result<T, String>>,
    ) -> Result<Vec<T>> {
        read_all(&mut self.netlink, operation, request, read)
    }
}
