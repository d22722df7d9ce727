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
    /// Reads all sets. A single reading is enough to see that everything is as it should be; where it is not, only a
    /// certain one says what has to be written.
    ///
    /// # Errors
    /// As [`Socket::glance`]; [`Error::DumpInterrupted`] if it is to be certain, and somebody changes the table all the time.
    pub(super) fn read(socket: &mut Socket, table: &nft::Table, certain: bool) -> Result<Self, Error> {
        let mut image = Self::default();
        for set in SetId::all().filter(|set| !set.is_written_by_rules()) {
            let definition = set.definition();
            let mut read =
                || socket.glance(table, &definition, |element| decode(set, &element).ok_or_else(|| Box::new(element)));
            let (mut elements, mut settled) = read()?;
            for _ in 0..READINGS {
                if settled || !certain {
                    break;
                }
                let (again, _) = read()?;
                settled = same(&elements, &again);
                elements = again;
            }
            if certain && !settled {
                let operation = format!("list the elements of set {} of table {table}", set.name());
                return Err(Error::DumpInterrupted { operation, attempts: READINGS });
            }
            image.take_in(set, elements);
        }
        Ok(image)
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
