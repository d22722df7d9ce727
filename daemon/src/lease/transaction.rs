//! A conditional write to the store, as a value: what must still be true, and what is then written.

/// A write that happens as a whole, or not at all because its conditions no longer hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    /// If set, no lease and no node record may have been written after this revision.
    pub no_lease_since: Option<i64>,
    /// Keys that must not have changed: full key, and the revision of its last write; 0 for a key that does not exist.
    pub unchanged: Vec<(String, i64)>,
    /// What is written.
    pub writes: Vec<Write>,
}

/// One write of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Sets a key.
    Put {
        /// The full key.
        key: String,
        /// Its new value.
        value: Vec<u8>,
        /// The etcd lease it will die with; 0 for none. The store refuses the whole transaction if there is no such lease.
        etcd_lease: i64,
    },
    /// Removes a key.
    Delete {
        /// The full key.
        key: String,
    },
}
