//! One pass over a table, and the memory between passes.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Instant;

use super::diff::{Changes, Update, diff};
use super::retry::Failures;

/// One kind of kernel object.
///
/// Every method is idempotent: updating what is right already and deleting what is not there are no errors.
pub trait Table {
    /// Which object. The order is that of dependence: what comes later may need what comes earlier.
    type Key: Ord + Clone + Display;
    /// What the object is, as far as weft cares.
    type Value: PartialEq + Clone;
    /// Why an operation failed.
    type Error: Display;

    /// What the kernel has of ours.
    fn dump(&mut self) -> impl Future<Output = Result<BTreeMap<Self::Key, Self::Value>, Self::Error>>;

    /// Creates or changes objects, in this order; one result each.
    fn update(
        &mut self,
        objects: &[Update<Self::Key, Self::Value>],
    ) -> impl Future<Output = Vec<Result<(), Self::Error>>>;

    /// Deletes objects, in this order; one result each.
    fn delete(&mut self, objects: &[(Self::Key, Self::Value)]) -> impl Future<Output = Vec<Result<(), Self::Error>>>;
}

/// What one pass did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pass<K> {
    /// Objects created or changed because the desired state is new.
    pub updated: usize,
    /// Objects put back although the desired state is as it was: somebody else had changed them.
    pub repaired: usize,
    /// Objects deleted.
    pub deleted: usize,
    /// What is not as it should be, and why.
    pub failed: Vec<(K, String)>,
    /// When the next failed object may be tried again.
    pub retry_at: Option<Instant>,
}

impl<K> Default for Pass<K> {
    fn default() -> Self {
        Self { updated: 0, repaired: 0, deleted: 0, failed: Vec::new(), retry_at: None }
    }
}

impl<K> Pass<K> {
    /// How many objects the pass wrote.
    #[must_use]
    pub fn writes(&self) -> usize {
        self.updated + self.repaired + self.deleted
    }
}

/// Brings a table to its desired state, pass by pass.
#[derive(Debug)]
pub struct Reconciler<T: Table> {
    table: T,
    failures: Failures<T::Key>,
    /// What the last pass left in the kernel, as far as it succeeded.
    settled: BTreeMap<T::Key, T::Value>,
}

impl<T: Table> Reconciler<T> {
    /// A reconciler that knows nothing yet.
    pub fn new(table: T) -> Self {
        Self { table, failures: Failures::new(), settled: BTreeMap::new() }
    }

    /// The table, to tell it what has changed around it.
    pub fn table_mut(&mut self) -> &mut T {
        &mut self.table
    }

    /// What the last pass left in the kernel, as far as it succeeded.
    pub fn settled(&self) -> &BTreeMap<T::Key, T::Value> {
        &self.settled
    }

    /// Compares, and changes what differs. Nothing that the desired state lacks is left.
    ///
    /// # Errors
    /// The table's error if it cannot be read; then nothing was changed.
    pub async fn pass(&mut self, desired: &BTreeMap<T::Key, T::Value>, now: Instant) -> Result<Pass<T::Key>, T::Error> {
        let actual = self.table.dump().await?;
        let changes = diff(desired, &actual);
        let mut pass = self.change(&changes, now).await;
        // An object that became right by itself, or that nobody has or wants any more, has not failed.
        self.failures.retain(|key| match (desired.get(key), actual.get(key)) {
            (None, None) => false,
            (wanted, found) => wanted != found,
        });
        if self.settled != *desired {
            self.settled.clone_from(desired);
        }
        self.tell_failed(&mut pass);
        Ok(pass)
    }

    /// The same without reading the table, which holds what the last pass has left there. To be called only if nothing failed
    /// in that pass, and nobody has changed anything since.
    pub async fn follow(&mut self, desired: &BTreeMap<T::Key, T::Value>, now: Instant) -> Pass<T::Key> {
        let changes = diff(desired, &self.settled);
        for update in &changes.update {
            // Else what is changed now would pass for a repair.
            self.settled.remove(&update.key);
        }
        let mut pass = self.change(&changes, now).await;
        for (key, _) in changes.delete {
            self.settled.remove(&key);
        }
        self.settled.extend(changes.update.into_iter().map(|update| (update.key, update.value)));
        self.tell_failed(&mut pass);
        pass
    }

    async fn change(&mut self, changes: &Changes<T::Key, T::Value>, now: Instant) -> Pass<T::Key> {
        let mut pass = Pass::default();
        let update: Vec<_> =
            changes.update.iter().filter(|update| self.failures.due(&update.key, now)).cloned().collect();
        let delete: Vec<_> = changes.delete.iter().filter(|(key, _)| self.failures.due(key, now)).cloned().collect();
        if !update.is_empty() {
            for (update, result) in update.iter().zip(self.table.update(&update).await) {
                if self.note(&update.key, result, now) {
                    if self.settled.get(&update.key) == Some(&update.value) {
                        pass.repaired += 1;
                    } else {
                        pass.updated += 1;
                    }
                }
            }
        }
        if !delete.is_empty() {
            for ((key, _), result) in delete.iter().zip(self.table.delete(&delete).await) {
                pass.deleted += usize::from(self.note(key, result, now));
            }
        }
        pass
    }

    fn tell_failed(&mut self, pass: &mut Pass<T::Key>) {
        for (key, reason) in self.failures.reasons() {
            self.settled.remove(key);
            pass.failed.push((key.clone(), reason.to_owned()));
        }
        pass.retry_at = self.failures.next_due();
    }

    fn note(&mut self, key: &T::Key, result: Result<(), T::Error>, now: Instant) -> bool {
        match result {
            Ok(()) => {
                self.failures.clear(key);
                true
            }
            Err(error) => {
                self.failures.record(key, error.to_string(), now);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::retry::FIRST_DELAY;
    use super::*;
    use std::time::Duration;

    /// A kernel in memory that refuses what it is told to.
    #[derive(Debug, Default)]
    struct Memory {
        objects: BTreeMap<u8, u8>,
        refuse: Vec<u8>,
        log: Vec<String>,
    }

    impl Table for Memory {
        type Key = u8;
        type Value = u8;
        type Error = String;

        async fn dump(&mut self) -> Result<BTreeMap<u8, u8>, String> {
            if self.refuse.contains(&u8::MAX) { Err("no dump".into()) } else { Ok(self.objects.clone()) }
        }

        async fn update(&mut self, objects: &[Update<u8, u8>]) -> Vec<Result<(), String>> {
            let mut results = Vec::new();
            for update in objects {
                self.log.push(format!("+{}", update.key));
                results.push(if self.refuse.contains(&update.key) {
                    Err("refused".to_owned())
                } else {
                    self.objects.insert(update.key, update.value);
                    Ok(())
                });
            }
            results
        }

        async fn delete(&mut self, objects: &[(u8, u8)]) -> Vec<Result<(), String>> {
            objects
                .iter()
                .map(|(key, _)| {
                    self.log.push(format!("-{key}"));
                    self.objects.remove(key);
                    Ok(())
                })
                .collect()
        }
    }

    fn desired(pairs: &[(u8, u8)]) -> BTreeMap<u8, u8> {
        pairs.iter().copied().collect()
    }

    #[tokio::test]
    async fn creates_upwards_and_deletes_downwards() {
        let mut reconciler = Reconciler::new(Memory { objects: desired(&[(7, 1), (8, 1)]), ..Memory::default() });
        let now = Instant::now();
        let pass = reconciler.pass(&desired(&[(1, 1), (2, 1)]), now).await.unwrap();
        assert_eq!((pass.updated, pass.deleted, pass.repaired), (2, 2, 0));
        assert_eq!(reconciler.table_mut().log, ["+1", "+2", "-8", "-7"]);
        let pass = reconciler.pass(&desired(&[(1, 1), (2, 1)]), now).await.unwrap();
        assert_eq!(pass, Pass::default(), "nothing to do, nothing written");
    }

    #[tokio::test]
    async fn tells_a_repair_from_a_change() {
        let mut reconciler = Reconciler::new(Memory::default());
        let now = Instant::now();
        reconciler.pass(&desired(&[(1, 1), (2, 1)]), now).await.unwrap();
        reconciler.table_mut().objects.clear();
        let pass = reconciler.pass(&desired(&[(1, 1), (2, 2)]), now).await.unwrap();
        assert_eq!((pass.repaired, pass.updated), (1, 1));
    }

    #[tokio::test]
    async fn what_is_known_is_not_read_again() {
        let mut reconciler = Reconciler::new(Memory::default());
        let now = Instant::now();
        reconciler.pass(&desired(&[(1, 1), (2, 1), (3, 1)]), now).await.unwrap();
        reconciler.table_mut().refuse = vec![u8::MAX];
        let pass = reconciler.follow(&desired(&[(1, 1), (2, 2), (4, 1)]), now).await;
        assert_eq!((pass.updated, pass.repaired, pass.deleted), (2, 0, 1));
        assert_eq!(*reconciler.settled(), desired(&[(1, 1), (2, 2), (4, 1)]));
        let there = reconciler.table_mut().objects.clone();
        assert_eq!(there, *reconciler.settled());
        assert_eq!(reconciler.follow(&desired(&[(1, 1), (2, 2), (4, 1)]), now).await, Pass::default());

        reconciler.table_mut().refuse.push(5);
        let pass = reconciler.follow(&desired(&[(1, 1), (5, 1)]), now).await;
        assert_eq!((pass.deleted, pass.failed.len()), (2, 1));
        assert_eq!(*reconciler.settled(), desired(&[(1, 1)]), "what failed is not there");
    }

    #[tokio::test]
    async fn one_failure_holds_up_nobody_and_is_tried_again_later() {
        let mut reconciler = Reconciler::new(Memory { refuse: vec![2], ..Memory::default() });
        let wanted = desired(&[(1, 1), (2, 1), (3, 1)]);
        let start = Instant::now();
        let pass = reconciler.pass(&wanted, start).await.unwrap();
        assert_eq!(pass.updated, 2);
        assert_eq!(pass.failed, [(2, "refused".to_owned())]);
        assert_eq!(pass.retry_at, Some(start + FIRST_DELAY));

        reconciler.table_mut().log.clear();
        let pass = reconciler.pass(&wanted, start + Duration::from_millis(1)).await.unwrap();
        assert!(reconciler.table_mut().log.is_empty(), "not before its time");
        assert_eq!(pass.failed.len(), 1, "and still reported");

        reconciler.table_mut().refuse.clear();
        let pass = reconciler.pass(&wanted, start + FIRST_DELAY).await.unwrap();
        assert_eq!((pass.updated, pass.failed.len(), pass.retry_at), (1, 0, None));
    }

    #[tokio::test]
    async fn waits_double_up_to_the_promise() {
        let mut reconciler = Reconciler::new(Memory { refuse: vec![1], ..Memory::default() });
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..7 {
            let again = reconciler.pass(&desired(&[(1, 1)]), now).await.unwrap().retry_at.unwrap();
            waits.push((again - now).as_millis());
            now = again;
        }
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
    }

    #[tokio::test]
    async fn an_unreadable_table_is_not_touched() {
        let mut reconciler =
            Reconciler::new(Memory { objects: desired(&[(1, 1)]), refuse: vec![u8::MAX], ..Memory::default() });
        assert_eq!(reconciler.pass(&desired(&[]), Instant::now()).await, Err("no dump".to_owned()));
        assert_eq!(reconciler.table_mut().objects.len(), 1);
    }

    #[tokio::test]
    async fn what_nobody_wants_any_more_has_not_failed() {
        let mut reconciler = Reconciler::new(Memory { refuse: vec![1], ..Memory::default() });
        let now = Instant::now();
        assert_eq!(reconciler.pass(&desired(&[(1, 1)]), now).await.unwrap().failed.len(), 1);
        assert_eq!(reconciler.pass(&desired(&[]), now).await.unwrap(), Pass::default());
    }
}
