//! What differs between desired and actual state, in the order in which it must change.

use std::collections::BTreeMap;

/// An object to create or change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update<K, V> {
    /// Which object.
    pub key: K,
    /// What it should be.
    pub value: V,
    /// What it is; `None` if it is not there.
    pub before: Option<V>,
}

/// Everything that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes<K, V> {
    /// To create or change, in ascending order of keys.
    pub update: Vec<Update<K, V>>,
    /// To delete, in descending order of keys.
    pub delete: Vec<(K, V)>,
}

impl<K, V> Changes<K, V> {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.update.is_empty() && self.delete.is_empty()
    }
}

/// Compares desired and actual state.
///
/// The order of a table's keys is the order in which its objects depend on each other: what comes later may need what
/// comes earlier. So objects are created in ascending and deleted in descending order.
pub fn diff<K, V>(desired: &BTreeMap<K, V>, actual: &BTreeMap<K, V>) -> Changes<K, V>
where
    K: Ord + Clone,
    V: PartialEq + Clone,
{
    let update = desired
        .iter()
        .filter(|(key, value)| actual.get(key) != Some(value))
        .map(|(key, value)| Update { key: key.clone(), value: value.clone(), before: actual.get(key).cloned() })
        .collect();
    let delete = actual
        .iter()
        .rev()
        .filter(|(key, _)| !desired.contains_key(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    Changes { update, delete }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn applying_the_changes_gives_the_desired_state(
            desired: BTreeMap<u8, u8>,
            actual: BTreeMap<u8, u8>,
        ) {
            let changes = diff(&desired, &actual);
            let mut result = actual.clone();
            for update in &changes.update {
                prop_assert_eq!(update.before, actual.get(&update.key).copied());
                result.insert(update.key, update.value);
            }
            for (key, value) in &changes.delete {
                prop_assert_eq!(result.remove(key), Some(*value));
            }
            prop_assert_eq!(&result, &desired);
            prop_assert!(changes.update.is_sorted_by_key(|update| update.key));
            prop_assert!(changes.delete.iter().rev().is_sorted_by_key(|(key, _)| key));
            prop_assert!(diff(&desired, &result).is_empty());
        }
    }
}
