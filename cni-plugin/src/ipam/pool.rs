//! The address pool of a network: which addresses are taken, and where the search goes on.
//!
//! It is an index over the attachment records, kept in one small file: whenever it is in doubt (another boot, another
//! configuration, a writer that was killed, a checksum that does not fit) it is built anew from the records.
//!
//! A range counts with its first 65,536 addresses: more than any bridge can have ports (1023), and enough that an IPv6
//! /64 needs neither a search without end nor a bitmap without end. A requested address beyond is looked for in the
//! records themselves.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::bitmap::Bitmap;
use super::range::{Range, RangeSet, from_number, number};
use crate::formats::crc32c;

/// Addresses of a range that take part in the search.
pub const WINDOW: u32 = 65_536;
/// Offset of the word that says that a writer is at work.
pub const DIRTY_OFFSET: usize = 8;
/// How many freed addresses are remembered.
const REMEMBERED: usize = 64;
/// How long a freed address is passed over while there are others, in seconds: longer than a neighbour entry that was
/// confirmed a moment ago stays in use.
const REST: u64 = 10;
const MAGIC: &[u8; 8] = b"weftpol\x02";
const HEADER: usize = 16;

/// Which boot of the machine this is; all attachments end with it.
pub type BootId = [u8; 16];

/// The bridge as it was last found right, so that the next ADD need not look again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownBridge {
    /// Its name.
    pub name: String,
    /// Its index, which no other link will have in this namespace.
    pub index: u32,
}

/// The address pool of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    boot: BootId,
    /// The bridge, once it was found right.
    pub bridge: Option<KnownBridge>,
    /// Whether host-local's store had addresses in use when the pool was built.
    pub has_foreign: bool,
    sets: Vec<PoolSet>,
    /// Freed addresses and when (seconds since boot), oldest first.
    freed: Vec<(IpAddr, u64)>,
}

/// One set of ranges, their bits one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PoolSet {
    ranges: RangeSet,
    /// The bit that was given last.
    cursor: u32,
    bits: Bitmap,
}

impl Pool {
    /// A pool in which nothing is taken but what no host may have.
    #[must_use]
    pub fn new(boot: BootId, sets: &[RangeSet]) -> Self {
        let sets = sets.iter().map(|ranges| PoolSet::new(ranges.clone())).collect();
        Self { boot, bridge: None, has_foreign: false, sets, freed: Vec::new() }
    }

    /// Whether it is of this boot and of these ranges.
    #[must_use]
    pub fn is_for(&self, boot: &BootId, sets: &[RangeSet]) -> bool {
        self.boot == *boot
            && self.sets.len() == sets.len()
            && self.sets.iter().zip(sets).all(|(own, set)| own.ranges == *set)
    }

    /// Its range sets.
    #[must_use]
    pub fn sets(&self) -> Vec<RangeSet> {
        self.sets.iter().map(|set| set.ranges.clone()).collect()
    }

    /// Goes on where another pool of the same ranges stopped, so that rebuilding does not give just-freed addresses again.
    pub fn take_cursors(&mut self, other: &Self) {
        for set in &mut self.sets {
            if let Some(same) = other.sets.iter().find(|same| same.ranges == set.ranges) {
                set.cursor = same.cursor;
            }
        }
        self.freed.clone_from(&other.freed);
    }

    /// Takes everything that is taken in `other` too. Returns whether that is all there is to know: `other` is of the same
    /// boot and has all of these ranges.
    pub fn take_all_of(&mut self, other: &Self) -> bool {
        let mut complete = self.boot == other.boot;
        for set in &mut self.sets {
            match other.sets.iter().find(|same| same.ranges == set.ranges) {
                Some(same) => set.bits.include(&same.bits),
                None => complete = false,
            }
        }
        complete
    }

    /// Whether an address is taken; `None` if it is not in the window of any range.
    #[must_use]
    pub fn is_taken(&self, ip: IpAddr) -> Option<bool> {
        self.sets.iter().find_map(|set| set.position(ip).map(|position| set.bits.is_set(position)))
    }

    /// Marks an address as taken.
    pub fn take(&mut self, ip: IpAddr) {
        for set in &mut self.sets {
            if let Some(position) = set.position(ip) {
                set.bits.assign(position, true);
            }
        }
    }

    /// Marks an address as free, at `now` seconds since boot. What no host may have stays taken.
    pub fn free(&mut self, ip: IpAddr, now: u64) {
        for set in &mut self.sets {
            if let Some(position) = set.position(ip)
                && set.ranges.iter().all(|range| range.is_host(ip))
            {
                set.bits.assign(position, false);
                if self.freed.len() == REMEMBERED {
                    self.freed.remove(0);
                }
                self.freed.push((ip, now));
            }
        }
    }

    /// The next free address of a set, taken; addresses that were freed a moment ago only if there are no others.
    pub fn take_next(&mut self, set: usize, now: u64) -> Option<IpAddr> {
        let freed = &self.freed;
        let set = self.sets.get_mut(set)?;
        let rests = |ip: IpAddr| freed.iter().any(|(other, at)| *other == ip && at.saturating_add(REST) > now);
        // While nothing rests there is no reason to look twice.
        let anything_rests = freed.iter().any(|(_, at)| at.saturating_add(REST) > now);
        let rested = |position: u32| !anything_rests || set.ip(position).is_some_and(|ip| !rests(ip));
        let after = set.cursor.saturating_add(1);
        let search =
            |suits: &dyn Fn(u32) -> bool| set.bits.first_clear(after, suits).or_else(|| set.bits.first_clear(0, suits));
        let position = search(&rested).or_else(|| anything_rests.then(|| search(&|_| true)).flatten())?;
        let ip = set.ip(position)?;
        set.bits.assign(position, true);
        set.cursor = position;
        Some(ip)
    }

    /// The file's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[0; HEADER - 8]);
        out.extend_from_slice(&self.boot);
        out.push(self.has_foreign.into());
        match &self.bridge {
            None => out.push(0),
            Some(bridge) => {
                // The kernel's names have at most 15 bytes.
                let name = bridge.name.as_bytes().get(..15).unwrap_or(bridge.name.as_bytes());
                out.push(u8::try_from(name.len()).unwrap_or_default());
                out.extend_from_slice(name);
                out.extend_from_slice(&bridge.index.to_le_bytes());
            }
        }
        put_length(&mut out, self.sets.len());
        for set in &self.sets {
            out.extend_from_slice(&set.cursor.to_le_bytes());
            put_length(&mut out, set.ranges.len());
            for range in &set.ranges {
                out.push(range.subnet().prefix());
                for ip in [range.subnet().ip(), range.start(), range.end(), range.gateway()] {
                    put_ip(&mut out, ip);
                }
            }
            out.extend_from_slice(set.bits.as_bytes());
        }
        put_length(&mut out, self.freed.len());
        for (ip, at) in &self.freed {
            put_ip(&mut out, *ip);
            out.extend_from_slice(&at.to_le_bytes());
        }
        let crc = crc32c(&out[HEADER..]);
        out[12..HEADER].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The pool in a file's bytes; `None` if they are none, damaged, or a writer was killed over them.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let clean = bytes.get(DIRTY_OFFSET..)?.starts_with(&[0; 4]);
        if clean { Self::salvage(bytes) } else { None }
    }

    /// What is left of a pool whose writer was killed: sound in itself, and perhaps behind the records.
    #[must_use]
    pub fn salvage(bytes: &[u8]) -> Option<Self> {
        let (header, body) = bytes.split_first_chunk::<HEADER>()?;
        let crc = header.last_chunk().map(|crc| u32::from_le_bytes(*crc));
        if !header.starts_with(MAGIC) || crc != Some(crc32c(body)) {
            return None;
        }
        let mut reader = Reader(body);
        let boot = *reader.array()?;
        let has_foreign = reader.byte()? != 0;
        let bridge = match reader.byte()? {
            0 => None,
            length => Some(KnownBridge {
                name: String::from_utf8(reader.take(length.into())?.to_vec()).ok()?,
                index: u32::from_le_bytes(*reader.array()?),
            }),
        };
        let mut sets = Vec::new();
        for _ in 0..reader.length()? {
            let cursor = u32::from_le_bytes(*reader.array()?);
            let mut ranges = RangeSet::new();
            for _ in 0..reader.length()? {
                let prefix = reader.byte()?;
                let subnet = IpNetwork::new(reader.ip()?, prefix).ok()?;
                let (start, end, gateway) = (reader.ip()?, reader.ip()?, reader.ip()?);
                ranges.push(Range::new(subnet, Some(start), Some(end), Some(gateway)).ok()?);
            }
            let length = ranges.iter().map(window).sum();
            let bits = Bitmap::from_bytes(reader.take(Bitmap::bytes_for(length))?, length)?;
            sets.push(PoolSet { ranges, cursor, bits });
        }
        let mut freed = Vec::new();
        for _ in 0..reader.length()? {
            freed.push((reader.ip()?, u64::from_le_bytes(*reader.array()?)));
        }
        reader.0.is_empty().then_some(Self { boot, bridge, has_foreign, sets, freed })
    }
}

impl PoolSet {
    fn new(ranges: RangeSet) -> Self {
        let length = ranges.iter().map(window).sum();
        // The search begins behind the cursor: with the first bit, to begin with.
        let mut set = Self { ranges, cursor: u32::MAX, bits: Bitmap::new(length) };
        for range in set.ranges.clone() {
            let broadcast = range.subnet().is_ipv4().then(|| range.subnet().broadcast());
            for ip in [Some(range.gateway()), Some(range.subnet().network()), broadcast].into_iter().flatten() {
                if let Some(position) = set.position(ip) {
                    set.bits.assign(position, true);
                }
            }
        }
        set.cursor = length.saturating_sub(1);
        set
    }

    fn position(&self, ip: IpAddr) -> Option<u32> {
        let mut before = 0;
        for range in &self.ranges {
            if range.contains(ip) {
                let offset = u32::try_from(number(ip) - number(range.start())).ok()?;
                return (offset < window(range)).then_some(before + offset);
            }
            before += window(range);
        }
        None
    }

    fn ip(&self, position: u32) -> Option<IpAddr> {
        let mut offset = position;
        for range in &self.ranges {
            if offset < window(range) {
                let start = range.start();
                return Some(from_number(number(start) + u128::from(offset), start.is_ipv4()));
            }
            offset -= window(range);
        }
        None
    }
}

/// How many addresses of a range take part in the search.
fn window(range: &Range) -> u32 {
    let size = (number(range.end()) - number(range.start())).saturating_add(1);
    u32::try_from(size).map_or(WINDOW, |size| size.min(WINDOW))
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes());
}

fn put_ip(out: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(v4) => {
            out.push(4);
            out.extend_from_slice(&v4.octets());
        }
        IpAddr::V6(v6) => {
            out.push(6);
            out.extend_from_slice(&v6.octets());
        }
    }
}

/// Takes bytes off the front; `None` where there are no more.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        self.take(N)?.first_chunk()
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| *byte)
    }

    fn length(&mut self) -> Option<u16> {
        self.array().map(|bytes| u16::from_le_bytes(*bytes))
    }

    fn ip(&mut self) -> Option<IpAddr> {
        match self.byte()? {
            4 => self.array::<4>().map(|octets| IpAddr::from(*octets)),
            6 => self.array::<16>().map(|octets| IpAddr::from(*octets)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pool(subnets: &[&str]) -> Pool {
        let set = |text: &&str| vec![Range::new(text.parse().unwrap(), None, None, None).unwrap()];
        Pool::new([7; 16], &subnets.iter().map(set).collect::<Vec<_>>())
    }

    #[test]
    fn t075_an_ipv6_64_is_searched_in_a_window() {
        let mut pool = pool(&["fd00::/64"]);
        assert_eq!(pool.take_next(0, 0).unwrap().to_string(), "fd00::2");
        assert_eq!(pool.is_taken("fd00::1".parse().unwrap()), Some(true));
        assert_eq!(pool.is_taken("fd00:0:0:0:ffff::".parse().unwrap()), None);
        assert!(pool.encode().len() < 10_000);
    }

    #[test]
    fn a_killed_writer_or_a_torn_page_is_seen() {
        let bytes = pool(&["10.1.0.0/24", "fd00::/64"]).encode();
        assert!(Pool::decode(&bytes).is_some());
        let mut dirty = bytes.clone();
        dirty[DIRTY_OFFSET] = 1;
        assert!(Pool::decode(&dirty).is_none());
        let mut torn = bytes.clone();
        let last = torn.len() - 1;
        torn[last] ^= 1;
        assert!(Pool::decode(&torn).is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_not_a_panic(mut bytes: Vec<u8>, honest: bool) {
            if honest && bytes.len() >= HEADER {
                bytes[..8].copy_from_slice(MAGIC);
                bytes[8..12].fill(0);
                let crc = crc32c(&bytes[HEADER..]);
                bytes[12..HEADER].copy_from_slice(&crc.to_le_bytes());
            }
            let _ = Pool::decode(&bytes);
        }

        #[test]
        fn bytes_and_back(takes in 0usize..300, frees: Vec<u8>, bridge: bool) {
            let mut pool = pool(&["10.1.0.0/24", "fd00::/64"]);
            for _ in 0..takes {
                pool.take_next(0, 5);
                pool.take_next(1, 5);
            }
            for last in frees {
                pool.free(IpAddr::from([10, 1, 0, last]), 5);
            }
            if bridge {
                pool.bridge = Some(KnownBridge { name: "cni0".into(), index: 5 });
                pool.has_foreign = true;
            }
            prop_assert_eq!(Pool::decode(&pool.encode()).unwrap(), pool);
        }
    }
}
