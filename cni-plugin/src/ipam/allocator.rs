//! Choosing the addresses of one attachment: one of each range set, the requested ones first, else the next free.

use std::net::IpAddr;

use super::pool::Pool;
use super::range::{Range, RangeSet, describe};
use crate::formats::attachment::AssignedIp;

/// Why there are no addresses. The phrases are those that operators of host-local look for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllocateError {
    /// All are taken.
    #[error("failed to allocate for range {set}: no IP addresses available in range set: {ranges}")]
    Exhausted {
        /// Number of the range set.
        set: usize,
        /// Its ranges.
        ranges: String,
    },
    /// The requested one is taken.
    #[error("failed to allocate for range {set}: requested IP address {ip} is not available in range set {ranges}")]
    Taken {
        /// Number of the range set.
        set: usize,
        /// The address.
        ip: IpAddr,
        /// The set's ranges.
        ranges: String,
    },
    /// The one that the configuration gives is another container's.
    #[error("requested IP address {ip} is in use by another container of this network, or may be")]
    InUse {
        /// The address.
        ip: IpAddr,
    },
    /// The requested one is the gateway, the network's or the broadcast address.
    #[error("failed to allocate for range {set}: requested IP {ip} is subnet's gateway, network or broadcast address")]
    NotAHost {
        /// Number of the range set.
        set: usize,
        /// The address.
        ip: IpAddr,
    },
    /// Requested ones that no range set has, or that are more than one of a set.
    #[error("failed to allocate all requested IPs: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Leftover(Vec<IpAddr>),
}

impl AllocateError {
    /// Whether it may go away with another container.
    #[must_use]
    pub fn is_want_of_addresses(&self) -> bool {
        matches!(self, Self::Exhausted { .. } | Self::Taken { .. } | Self::InUse { .. })
    }
}

/// What is asked of the pool.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// Addresses that it must be.
    pub requested: &'a [IpAddr],
    /// Addresses that it should be if they are free: those of an earlier ADD that did not come to its end.
    pub preferred: &'a [IpAddr],
    /// Seconds since boot.
    pub now: u64,
}

/// Takes one address of each set. The pool is only changed if there is one of each.
///
/// `recorded` says whether an address beyond the pool's window is taken; it is only asked for requested ones.
///
/// # Errors
/// [`AllocateError`].
pub fn allocate(
    pool: &mut Pool,
    sets: &[RangeSet],
    wish: Wish<'_>,
    recorded: impl Fn(IpAddr) -> bool,
) -> Result<Vec<AssignedIp>, AllocateError> {
    let mut requested = wish.requested.to_vec();
    let mut chosen = Vec::with_capacity(sets.len());
    let mut trial = pool.clone();
    for (set, ranges) in sets.iter().enumerate() {
        let range_of = |ip: IpAddr| ranges.iter().find(|range| range.contains(ip));
        let is_free = |ip: IpAddr| !trial.is_taken(ip).unwrap_or_else(|| recorded(ip));
        let (ip, range) = if let Some(at) = requested.iter().position(|ip| range_of(*ip).is_some()) {
            let ip = requested.remove(at);
            // position() has just found it.
            let Some(range) = range_of(ip) else { continue };
            if ranges.iter().any(|range| !range.is_host(ip)) {
                return Err(AllocateError::NotAHost { set, ip });
            }
            if !is_free(ip) {
                return Err(AllocateError::Taken { set, ip, ranges: describe(ranges) });
            }
            trial.take(ip);
            (ip, range)
        } else if let Some((ip, range)) = wish.preferred.iter().find_map(|ip| {
            let usable = |range: &&Range| range.is_host(*ip) && trial.is_taken(*ip) == Some(false);
            range_of(*ip).filter(usable).map(|range| (*ip, range))
        }) {
            trial.take(ip);
            (ip, range)
        } else {
            let exhausted = || AllocateError::Exhausted { set, ranges: describe(ranges) };
            let ip = trial.take_next(set, wish.now).ok_or_else(exhausted)?;
            (ip, range_of(ip).ok_or_else(exhausted)?)
        };
        chosen.push(AssignedIp { address: range.with_prefix(ip), gateway: Some(range.gateway()) });
    }
    if !requested.is_empty() {
        return Err(AllocateError::Leftover(requested));
    }
    *pool = trial;
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn range(subnet: &str, start: Option<&str>, end: Option<&str>) -> Range {
        let ip = |text: Option<&str>| text.map(|text| text.parse().unwrap());
        Range::new(subnet.parse().unwrap(), ip(start), ip(end), None).unwrap()
    }

    fn ips(text: &[&str]) -> Vec<IpAddr> {
        text.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    struct Bench {
        sets: Vec<RangeSet>,
        pool: Pool,
        now: u64,
    }

    impl Bench {
        fn new(sets: Vec<RangeSet>) -> Self {
            Self { pool: Pool::new([0; 16], &sets), sets, now: 1000 }
        }

        fn want(&mut self, requested: &[&str]) -> Result<Vec<String>, AllocateError> {
            let requested = ips(requested);
            let wish = Wish { requested: &requested, preferred: &[], now: self.now };
            allocate(&mut self.pool, &self.sets, wish, |_| false)
                .map(|all| all.iter().map(|ip| ip.address.to_string()).collect())
        }

        fn free(&mut self, ip: &str) {
            self.pool.free(ip.parse().unwrap(), self.now);
        }
    }

    #[test]
    fn t065_next_fit_wraps_and_skips_what_is_not_a_host() {
        let mut bench = Bench::new(vec![vec![range("10.1.0.0/29", None, None)]]);
        for last in 2..=6 {
            assert_eq!(bench.want(&[]).unwrap(), [format!("10.1.0.{last}/29")]);
        }
        bench.free("10.1.0.3");
        bench.now += 60;
        assert_eq!(bench.want(&[]).unwrap(), ["10.1.0.3/29"]);
        let mut bench = Bench::new(vec![vec![range("10.1.0.0/24", Some("10.1.0.7"), Some("10.1.0.8"))]]);
        assert_eq!(
            (bench.want(&[]).unwrap(), bench.want(&[]).unwrap()),
            (vec!["10.1.0.7/24".into()], vec!["10.1.0.8/24".into()])
        );
        assert!(bench.want(&[]).is_err());
    }

    #[test]
    fn t066_t067_an_exhausted_set_says_so_and_recovers() {
        let mut bench = Bench::new(vec![vec![range("10.1.0.0/24", Some("10.1.0.2"), Some("10.1.0.6"))]]);
        (0..5).for_each(|_| drop(bench.want(&[]).unwrap()));
        let error = bench.want(&[]).unwrap_err().to_string();
        assert!(error.contains("no IP addresses available in range set"), "{error}");
        assert!(error.contains("failed to allocate for range 0"), "{error}");
        bench.free("10.1.0.4");
        assert_eq!(bench.want(&[]).unwrap(), ["10.1.0.4/24"]);
    }

    #[test]
    fn f74_a_freed_address_rests_while_there_are_others() {
        let mut bench = Bench::new(vec![vec![range("10.1.0.0/24", Some("10.1.0.2"), Some("10.1.0.4"))]]);
        assert_eq!(bench.want(&[]).unwrap(), ["10.1.0.2/24"]);
        bench.free("10.1.0.2");
        assert_eq!(bench.want(&[]).unwrap(), ["10.1.0.3/24"]);
        assert_eq!(bench.want(&[]).unwrap(), ["10.1.0.4/24"]);
        bench.free("10.1.0.4");
        bench.now += 11;
        bench.free("10.1.0.3");
        // .2 and .4 have rested, .3 has not.
        assert_eq!(bench.want(&[]).unwrap(), ["10.1.0.2/24"]);
    }

    #[test]
    fn t069_t070_sets_spill_over_and_give_one_each() {
        let first = range("10.1.0.0/30", None, None);
        let mut bench =
            Bench::new(vec![vec![first, range("10.2.0.0/30", None, None)], vec![range("fd00::/64", None, None)]]);
        assert_eq!(bench.want(&[]).unwrap(), ["10.1.0.2/30", "fd00::2/64"]);
        assert_eq!(bench.want(&[]).unwrap(), ["10.2.0.2/30", "fd00::3/64"]);
        let before = bench.pool.clone();
        assert!(matches!(bench.want(&[]), Err(AllocateError::Exhausted { set: 0, .. })));
        assert_eq!(bench.pool, before);
    }

    #[test]
    fn t073_requested_addresses() {
        let mut bench = Bench::new(vec![vec![range("10.1.0.0/24", None, None)], vec![range("fd00::/64", None, None)]]);
        assert_eq!(bench.want(&["10.1.0.77", "fd00::99:0:0"]).unwrap(), ["10.1.0.77/24", "fd00::99:0:0/64"]);
        let before = bench.pool.clone();
        assert!(bench.want(&["10.1.0.77"]).unwrap_err().to_string().contains("not available"));
        assert!(bench.want(&["10.1.0.1"]).unwrap_err().to_string().contains("gateway"));
        assert!(bench.want(&["10.1.0.255"]).is_err());
        for outside in [&["10.9.0.1"][..], &["10.1.0.8", "10.1.0.9"]] {
            assert!(bench.want(outside).unwrap_err().to_string().starts_with("failed to allocate all requested IPs: "));
        }
        assert_eq!(bench.pool, before);
        // Beyond the window only the records know.
        let requested = ips(&["fd00::99:0:0"]);
        let wish = Wish { requested: &requested, preferred: &[], now: 0 };
        assert!(allocate(&mut bench.pool, &bench.sets, wish, |_| true).is_err());
    }

    #[test]
    fn t074_the_addresses_of_a_crashed_add_are_taken_up_if_free() {
        let mut bench = Bench::new(vec![vec![range("10.1.0.0/24", None, None)]]);
        let preferred = ips(&["10.1.0.50"]);
        let wish = Wish { requested: &[], preferred: &preferred, now: 0 };
        let mut take = || allocate(&mut bench.pool, &bench.sets, wish, |_| false).unwrap()[0].address.to_string();
        assert_eq!(take(), "10.1.0.50/24");
        assert_eq!(take(), "10.1.0.2/24");
    }

    proptest! {
        /// Against a set of strings: nothing is given twice, nothing that is no host, nothing is lost.
        #[test]
        fn like_a_set_of_free_addresses(steps in proptest::collection::vec((any::<bool>(), any::<u8>(), 0u64..20), 1..200)) {
            let sets = vec![
                vec![range("10.1.0.0/29", None, None), range("10.2.0.0/30", None, None)],
                vec![range("fd00::/125", None, None)],
            ];
            let mut pool = Pool::new([0; 16], &sets);
            let mut held: Vec<Vec<IpAddr>> = Vec::new();
            let mut now = 0;
            for (add, which, pause) in steps {
                now += pause;
                if add {
                    let wish = Wish { requested: &[], preferred: &[], now };
                    match allocate(&mut pool, &sets, wish, |_| false) {
                        Ok(given) => {
                            let ips: Vec<IpAddr> = given.iter().map(|ip| ip.address.ip()).collect();
                            let all: BTreeSet<_> = held.iter().flatten().copied().collect();
                            for (ip, set) in ips.iter().zip(&sets) {
                                prop_assert!(!all.contains(ip));
                                prop_assert!(set.iter().any(|range| range.contains(*ip) && range.is_host(*ip)));
                            }
                            held.push(ips);
                        }
                        // 5 + 1 IPv4 hosts, 6 IPv6 hosts.
                        Err(_) => prop_assert_eq!(held.len(), 6),
                    }
                } else if !held.is_empty() {
                    for ip in held.swap_remove(usize::from(which) % held.len()) {
                        pool.free(ip, now);
                    }
                }
                pool = Pool::decode(&pool.encode()).unwrap();
            }
        }
    }
}
