//! What can go wrong with the store.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::allocator::AllocateError;
use crate::formats::attachment;

/// Why the store cannot do what it is asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Something could not be read or written.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was being done.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Another process held a lock for too long.
    #[error("{} is still locked by another process after {waited:?}", path.display())]
    Busy {
        /// The locked file.
        path: PathBuf,
        /// How long was waited.
        waited: Duration,
    },
    /// The pool has to be built anew, and a record that cannot be read may stand for any address.
    #[error(
        "attachment record {} is damaged and its interface {interface} may be in use: until its container is deleted, or \
         the interface is, no address can be given safely",
        path.display()
    )]
    Unknowable {
        /// The record.
        path: PathBuf,
        /// Name of its interface on the host.
        interface: String,
    },
    /// Another ADD of the same attachment came first.
    #[error("another ADD for container {container} interface {interface} is under way")]
    Overtaken {
        /// The container.
        container: String,
        /// Its interface.
        interface: String,
    },
    /// The record would be longer than one may be.
    #[error(
        "a record of {length} bytes cannot be written, only one of {}: with fewer routes or shorter names it could",
        attachment::MAX_LENGTH
    )]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// There are no addresses.
    #[error(transparent)]
    Allocate(#[from] AllocateError),
}
