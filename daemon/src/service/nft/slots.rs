//! Places of backends in their list.

use super::entry::Endpoint;

/// Gives each of the new backends, sorted, a place below their number. Who stays keeps the place as far as there is one; the
/// others take the free places. So few elements change: one where one backend goes or comes.
#[must_use]
pub(super) fn assign(old: &[Endpoint], new: &[Endpoint]) -> Box<[Endpoint]> {
    let mut placed = vec![false; new.len()];
    let mut places: Vec<Option<Endpoint>> = vec![None; new.len()];
    for (place, backend) in places.iter_mut().zip(old) {
        if let Ok(position) = new.binary_search(backend)
            && let Some(placed) = placed.get_mut(position).filter(|placed| !**placed)
        {
            *placed = true;
            *place = Some(*backend);
        }
    }
    let mut rest = new.iter().zip(placed).filter(|(_, placed)| !placed).map(|(backend, _)| *backend);
    places.into_iter().filter_map(|place| place.or_else(|| rest.next())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(ports: &[u16]) -> Vec<Endpoint> {
        ports.iter().map(|port| Endpoint { address: "10.0.0.1".parse().unwrap(), port: *port }).collect()
    }

    #[test]
    fn a_hole_is_filled_by_the_last() {
        assert_eq!(*assign(&list(&[1, 2, 3, 4]), &list(&[1, 3, 4])), list(&[1, 4, 3]));
        assert_eq!(*assign(&list(&[1, 2, 3]), &list(&[1, 3, 9])), list(&[1, 9, 3]));
        assert_eq!(*assign(&[], &list(&[1, 3])), list(&[1, 3]));
        assert_eq!(*assign(&list(&[2]), &[]), []);
    }

    proptest! {
        #[test]
        fn everybody_has_one_place_and_few_move(
            old in proptest::collection::btree_set(0u16..40, 0..20),
            new in proptest::collection::btree_set(0u16..40, 0..20),
        ) {
            let (gone, come) = (old.difference(&new).count(), new.difference(&old).count());
            let [old, new] = [old, new].map(|ports| list(&ports.into_iter().collect::<Vec<_>>()));
            let start = assign(&[], &old);
            let places = assign(&start, &new);
            let mut sorted = places.to_vec();
            sorted.sort_unstable();
            prop_assert_eq!(&sorted, &new);
            let changed = places.iter().zip(start.iter()).filter(|(now, before)| now != before).count();
            prop_assert!(changed <= gone.max(come), "{} of {} and {}", changed, gone, come);
        }
    }
}
