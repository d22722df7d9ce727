//! The elements that the kernel has, and what of a start is to be adopted from them.

use std::collections::{HashMap, HashSet};

use weft_netlink::nft::{Element, Socket};
use weft_netlink::{Error, nft};

use super::changes::Changes;
use super::elements::Places;
use super::entry::{Datum, Endpoint, Entry, Key, decode};
use super::layout::{Entrance, LOCAL_LIST, SetId};
use super::state::{Adopted, State};
use crate::cluster::Family;
use crate::service::model::{FrontendKey, PortPlan};

/// An element, or what weft would not write.
type Reading = Result<Entry, Box<Element>>;

/// How often a set is read until two readings agree.
const READINGS: u32 = 16;
/// So many backends are asked for at once, for the sake of memory.
const BACKENDS_AT_ONCE: usize = 4096;
/// A list of ours is never longer.
const MOST_BACKENDS: u32 = 1 << 16;

/// The elements that the kernel had at one moment. What has been compared with what there is to be is taken out.
#[derive(Debug, Default)]
pub(super) struct Image {
    entries: HashMap<Key, Datum>,
    strays: Vec<(SetId, Element)>,
    /// Keys that several ports have, of which the first was asked about already.
    asked: HashSet<Key>,
    /// What was taken out since the last [`Image::settle`], so that it can be put back.
    taken: Vec<(Key, Option<Datum>)>,
}

impl Image {
    /// Reads all sets: whole, but for that of the backends, which is much larger than all others together. Of these only
    /// those are asked for that a list leads to, which takes much less time than to list them; the others mean nothing to
    /// any packet, but the kernel refuses to put something else in their place. If it does, all have to be read.
    ///
    /// # Errors
    /// As [`Socket::glance`]; [`Error::DumpInterrupted`] if somebody changes the table all the time.
    pub(super) fn read(socket: &mut Socket, table: &nft::Table, all: bool) -> Result<Self, Error> {
        let mut image = Self::default();
        for set in SetId::all().filter(|set| !set.is_written_by_rules()) {
            if all || !matches!(set, SetId::Backends(_)) {
                let elements = list(socket, table, set)?;
                image.take_in(set, elements);
            }
        }
        if !all {
            image.read_backends(socket, table)?;
        }
        Ok(image)
    }

    fn read_backends(&mut self, socket: &mut Socket, table: &nft::Table) -> Result<(), Error> {
        for family in Family::ALL {
            let lists = self.entries.iter().filter_map(|(key, datum)| match (key, datum) {
                (Key::Size(list), Datum::Class(class)) if class.family == family && class.affinity.is_none() => {
                    Some((*list, class.size))
                }
                _ => None,
            });
            // A size that somebody else has written may be any number.
            let backends = lists.flat_map(|(list, size)| (0..size.min(MOST_BACKENDS)).map(move |index| (list, index)));
            let keys: Vec<Key> = backends.map(|(list, index)| Key::Backend(family, list, index)).collect();
            let set = SetId::Backends(family);
            for keys in keys.chunks(BACKENDS_AT_ONCE) {
                let values: Vec<_> = keys.iter().map(|key| key.element(Datum::None).key).collect();
                let found = socket.elements_of(table, &set.definition(), &values)?;
                let entries = found.iter().flatten().filter_map(|element| decode(set, element));
                self.entries.extend(entries);
            }
        }
        Ok(())
    }

    fn take_in(&mut self, set: SetId, elements: Vec<Reading>) {
        self.entries.reserve(elements.len());
        for element in elements {
            match element {
                Ok((key, datum)) => {
                    self.entries.insert(key, datum);
                }
                Err(element) => self.strays.push((set, *element)),
            }
        }
    }

    /// Compares an element that there is to be.
    pub(super) fn want(&mut self, (key, datum): Entry, changes: &mut Changes) {
        let found = self.entries.remove(&key);
        self.taken.push((key, found));
        if found != Some(datum) {
            changes.change(key, found, Some(datum));
        }
    }

    /// The kernel is as was wanted.
    pub(super) fn settle(&mut self) {
        self.taken.clear();
    }

    /// The kernel is as it was before: what was wanted since then has to be asked for again.
    pub(super) fn unsettle(&mut self) {
        for (key, found) in self.taken.drain(..) {
            self.asked.remove(&key);
            self.entries.extend(found.map(|datum| (key, datum)));
        }
    }

    /// Compares an element that there is to be, once however often it is asked about.
    pub(super) fn want_once(&mut self, entry: Entry, changes: &mut Changes) {
        if self.asked.insert(entry.0) {
            self.want(entry, changes);
        }
    }

    /// Takes out elements that nobody wanted, to be deleted.
    pub(super) fn drop_all(&mut self, which: impl Fn(&Key) -> bool, changes: &mut Changes) {
        self.drop_some(usize::MAX, which, changes);
    }

    /// Takes out ranges that weft would not write, to be deleted.
    pub(super) fn drop_stray_ranges(&mut self, changes: &mut Changes) {
        let (ranges, others) = self.strays.drain(..).partition(|(set, _)| set.definition().interval);
        self.strays = others;
        let ranges: Vec<(SetId, Element)> = ranges;
        ranges.into_iter().for_each(|(set, element)| changes.delete(set, element));
    }

    fn drop_some(&mut self, count: usize, which: impl Fn(&Key) -> bool, changes: &mut Changes) -> usize {
        let keys: Vec<Key> = self.entries.keys().copied().filter(which).take(count).collect();
        for key in &keys {
            let found = self.entries.remove(key);
            changes.change(*key, found, None);
        }
        keys.len()
    }

    /// Takes out up to so many elements that nobody wanted, to be deleted. Frontends go first, as they lead to the others.
    pub(super) fn leftovers(&mut self, count: usize, changes: &mut Changes) {
        let leads = |key: &Key| matches!(key, Key::Frontend(_) | Key::Restricted(_) | Key::Door(_));
        let mut left = count - self.drop_some(count, leads, changes);
        if left == count {
            left -= self.drop_some(count, |_| true, changes);
        }
        for (set, element) in self.strays.drain(..left.min(self.strays.len())) {
            changes.delete(set, element);
        }
    }

    /// Whether every element was wanted.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.strays.is_empty()
    }

    /// The doors that are open.
    pub(super) fn doors(&self) -> impl Iterator<Item = FrontendKey> {
        self.entries.keys().filter_map(|key| match key {
            Key::Door(frontend) => Some(*frontend),
            _ => None,
        })
    }
}

/// Ids and places that are in the kernel.
#[derive(Debug, Default)]
pub(super) struct Adoption {
    ids: HashMap<FrontendKey, u32>,
    places: HashMap<u32, Vec<(u32, Endpoint)>>,
}

impl Adoption {
    /// Collects them.
    #[must_use]
    pub(super) fn of(image: &Image) -> Self {
        let mut adoption = Self::default();
        for (key, datum) in &image.entries {
            match (key, datum) {
                (Key::Frontend(frontend), Datum::Number(number)) => {
                    adoption.ids.insert(*frontend, number & !Entrance::MASK);
                }
                (Key::Backend(_, list, index), Datum::Endpoint(backend)) => {
                    adoption.places.entry(*list).or_default().push((*index, *backend));
                }
                (Key::Tag(list, index), Datum::Number(tag)) => {
                    let tagged = Family::ALL.map(|family| image.entries.get(&Key::Tagged(family, *tag, *list)));
                    if let Some(Datum::Endpoint(backend)) = tagged.into_iter().flatten().next() {
                        adoption.places.entry(*list).or_default().push((*index, *backend));
                    }
                }
                _ => {}
            }
        }
        adoption.places.values_mut().for_each(|places| places.sort_unstable());
        adoption
    }

    /// The largest id that is worth to be adopted, of so many ports. Ids are positions in a table of ours, so that one that
    /// somebody has made up must not make it huge.
    #[must_use]
    pub(super) fn highest(&self, ports: usize) -> u32 {
        let bound = u32::try_from(ports).unwrap_or(u32::MAX).saturating_mul(16).saturating_add(1 << 19);
        self.ids.values().copied().filter(|id| *id <= bound).max().unwrap_or(0)
    }

    /// Puts the port into the state, with the id and the places that it has in the kernel.
    pub(super) fn put(&self, plan: std::sync::Arc<PortPlan>, state: &mut State) {
        let id = plan.frontends.iter().find_map(|frontend| self.ids.get(&frontend.key)).copied();
        let places = |list: u32| -> Vec<Endpoint> {
            self.places.get(&list).into_iter().flatten().map(|(_, backend)| *backend).collect()
        };
        let (cluster, local) = id.map(|id| (places(id), places(id | LOCAL_LIST))).unwrap_or_default();
        let places = Places { cluster: &cluster, local: &local };
        let key = plan.key.clone();
        let adopted = id.map(|id| Adopted { id, places });
        state.set_adopted(&key, Some(plan), adopted, &mut super::state::Draft::default());
    }
}

/// All elements of a set, read until two readings agree: a dump may pass over elements, or give them twice.
fn list(socket: &mut Socket, table: &nft::Table, set: SetId) -> Result<Vec<Reading>, Error> {
    let definition = set.definition();
    let mut read =
        || socket.glance(table, &definition, |element| decode(set, &element).ok_or_else(|| Box::new(element)));
    let (mut elements, mut settled) = read()?;
    for _ in 0..READINGS {
        if settled {
            return Ok(elements);
        }
        let (again, _) = read()?;
        settled = same(&elements, &again);
        elements = again;
    }
    let operation = format!("list the elements of set {} of table {table}", set.name());
    Err(Error::DumpInterrupted { operation, attempts: READINGS })
}

/// Whether two readings found the same, in whatever order.
fn same(one: &[Reading], other: &[Reading]) -> bool {
    let known = |elements: &[Reading]| -> Vec<Entry> {
        let mut known: Vec<Entry> = elements.iter().filter_map(|element| element.as_ref().ok()).copied().collect();
        known.sort_unstable();
        known
    };
    one.len() == other.len() && known(one) == known(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_as_wanted_changes_nothing_and_the_rest_goes() {
        let mut image = Image::default();
        image.entries.extend([
            (Key::Size(8), Datum::Foreign),
            (Key::NoEndpoints(8), Datum::None),
            (Key::NoEndpoints(16), Datum::None),
        ]);
        let mut changes = Changes::default();
        image.want((Key::NoEndpoints(8), Datum::None), &mut changes);
        assert!(changes.is_empty());
        image.leftovers(10, &mut changes);
        assert!(image.is_empty());
        assert_eq!((changes.keys(), changes.len()), (2, 2));
    }
}
