//! The generic part of every table: compare what the kernel should hold with what it holds, and make it so.
//!
//! A [`Table`] knows one kind of kernel object: how to dump, update and delete it. A [`Reconciler`] knows nothing of the
//! kernel: it orders the changes, keeps failures per object, and retries them with back-off without holding up the
//! others. What comes in is desired state and a table; nothing here knows what either is about.

mod diff;
mod reconciler;
mod retry;

pub use diff::{Changes, Update, diff};
pub use reconciler::{Pass, Reconciler, Table};
pub use retry::{FIRST_DELAY, LONGEST_DELAY};
