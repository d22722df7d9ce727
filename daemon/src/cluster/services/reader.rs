//! Objects as they come from a source: what of them is new, what cannot be used, and what has been said of it.
//!
//! Lists and changes of every source go through here, so that all of them keep to the same rules: only a whole list or a
//! deletion takes anything out, and an object that has become unreadable leaves what was known of it.

use std::collections::HashMap;

use super::{Batch, Interner, ObjectName, parse};

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::cluster) enum Kind {
    /// A Service.
    Service,
    /// An EndpointSlice.
    Slice,
    /// The Node that we run on.
    Node,
}

/// One version of an object.
#[derive(Debug, Clone, Copy)]
pub(in crate::cluster) struct Version<'a> {
    /// What to call the object in the log.
    pub(in crate::cluster) label: &'a str,
    /// The object, JSON.
    pub(in crate::cluster) json: &'a [u8],
    /// Its revision in the source.
    pub(in crate::cluster) revision: i64,
}

/// What is known of an object.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// The revision that was last looked at.
    revision: i64,
    /// Whether that one or one before it could be used.
    was_good: bool,
}

/// What has been said of an object, so that it is said once.
#[derive(Debug, Clone, Copy)]
struct Complaint {
    revision: i64,
    is_rejected: bool,
}

type Id = (Kind, ObjectName);

/// The objects of a source.
#[derive(Debug, Default)]
pub(in crate::cluster) struct Reader {
    strings: Interner,
    seen: HashMap<Id, Seen>,
    complaints: HashMap<Id, Complaint>,
}

/// A list in the making: nothing of it counts before it is whole.
#[derive(Debug, Default)]
pub(in crate::cluster) struct Listing {
    batch: Batch,
    seen: HashMap<Id, Seen>,
}

impl Listing {
    /// Takes back an object that was deleted while the list was being told.
    pub(in crate::cluster) fn forget(&mut self, id: Id) {
        self.seen.remove(&id);
        take_out(&mut self.batch, id.0, id.1);
    }
}

impl Reader {
    /// How many objects cannot be used.
    pub(in crate::cluster) fn rejected(&self) -> usize {
        self.complaints.values().filter(|complaint| complaint.is_rejected).count()
    }

    /// The name of an object; its parts are kept once.
    pub(in crate::cluster) fn name(&mut self, namespace: &str, name: &str) -> ObjectName {
        ObjectName::new(self.strings.get(namespace), self.strings.get(name))
    }

    /// Takes one object of a list. If `is_same_store`, a revision that is known need not be looked at again.
    pub(in crate::cluster) fn list(
        &mut self,
        listing: &mut Listing,
        id: Id,
        version: Version<'_>,
        is_same_store: bool,
    ) {
        let known = self.seen.get(&id).copied();
        let known = known.filter(|known| is_same_store && known.revision == version.revision);
        let seen = known.unwrap_or_else(|| self.read(&mut listing.batch, &id, version));
        listing.seen.insert(id, seen);
    }

    /// A list of all objects of these kinds is whole: what has changed, and what is not there any more.
    pub(in crate::cluster) fn listed(&mut self, listing: Listing, kinds: &[Kind]) -> Batch {
        let Listing { mut batch, seen } = listing;
        let is_gone = |id: &Id| kinds.contains(&id.0) && !seen.contains_key(id);
        for (kind, name) in self.seen.keys().filter(|id| is_gone(id)) {
            take_out(&mut batch, *kind, name.clone());
        }
        self.complaints.retain(|id, _| !is_gone(id));
        self.seen.retain(|id, _| !kinds.contains(&id.0));
        self.seen.extend(seen);
        batch
    }

    /// Takes a new version of an object.
    pub(in crate::cluster) fn change(&mut self, batch: &mut Batch, id: Id, version: Version<'_>) {
        let seen = self.read(batch, &id, version);
        self.seen.insert(id, seen);
    }

    /// Takes in that an object was deleted.
    pub(in crate::cluster) fn delete(&mut self, batch: &mut Batch, id: Id) {
        self.complaints.remove(&id);
        self.seen.remove(&id);
        take_out(batch, id.0, id.1);
    }

    /// Reads a version. One that cannot be used changes nothing: what was good before it goes on being served, because an
    /// object of which nothing is known any more is no reason to break what depends on it.
    fn read(&mut self, batch: &mut Batch, id: &Id, version: Version<'_>) -> Seen {
        let Version { json, revision, .. } = version;
        let (kind, name) = id;
        let was_good = self.seen.get(id).is_some_and(|seen| seen.was_good);
        let result = match kind {
            Kind::Service => parse::service(json, Some(name), &mut self.strings).map(|parsed| {
                batch.services.push((name.clone(), parsed.object));
                parsed.warnings
            }),
            Kind::Slice => parse::slice(json, Some(name), &mut self.strings).map(|parsed| {
                batch.slices.push((name.clone(), parsed.object));
                parsed.warnings
            }),
            Kind::Node => parse::node(json, Some(name), &mut self.strings).map(|parsed| {
                batch.node.push(parsed.object);
                parsed.warnings
            }),
        };
        let warnings = match result {
            Ok(warnings) => warnings,
            Err(error) => {
                let outcome = if was_good { "what was known of it before stays" } else { "ignored" };
                self.complain(id, version, true, &format!("{error}; {outcome}"));
                return Seen { revision, was_good };
            }
        };
        match warnings.as_slice() {
            [] => drop(self.complaints.remove(id)),
            [only] => self.complain(id, version, false, only),
            [first, more @ ..] => self.complain(id, version, false, &format!("{first} (and {} more)", more.len())),
        }
        Seen { revision, was_good: true }
    }

    /// Says, once for each revision, what is wrong with an object.
    fn complain(&mut self, id: &Id, version: Version<'_>, is_rejected: bool, message: &str) {
        let Version { label, revision, .. } = version;
        let said = self.complaints.insert(id.clone(), Complaint { revision, is_rejected });
        if said.is_none_or(|said| said.revision != revision) {
            tracing::warn!(key = label, revision, "{message}");
        }
    }
}

fn take_out(batch: &mut Batch, kind: Kind, name: ObjectName) {
    match kind {
        Kind::Service => batch.services.push((name, None)),
        Kind::Slice => batch.slices.push((name, None)),
        Kind::Node => batch.node.push(None),
    }
}
