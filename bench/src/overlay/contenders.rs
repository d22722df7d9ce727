//! Who is measured. All read the same leases, and are asked the same.

use std::ffi::OsString;
use std::time::Duration;

use anyhow::Result;
use weft_tests::etcd::Etcd;
use weft_tests::process::ProcessId;

/// A daemon that brings the other nodes into the kernel.
pub(crate) trait Contender {
    /// What it is called in the report.
    fn name(&self) -> &'static str;
    /// Starts it by way of another program, if there are words for that, and does not wait.
    fn start(&mut self, etcd: &Etcd, under: &[OsString]) -> Result<()>;
    /// The process that was started last; `None` before the first start.
    fn process(&self) -> Option<ProcessId>;
    /// Whether it says that the node can take pods.
    fn is_ready(&self) -> bool;
    /// How long its passes took so far, by its own account.
    fn own_time(&self) -> Result<Option<Duration>>;
}
