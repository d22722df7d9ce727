//! Tests that cannot run here: loud and counted, never passed off as passed.

use std::fs::OpenOptions;
use std::io::Write;

/// Leaves the test with a reason that is printed at once and counted by `make test`.
///
/// ```no_run
/// # use weft_tests::skip;
/// # fn test() {
/// skip!("needs two NUMA nodes");
/// # }
/// ```
#[macro_export]
macro_rules! skip {
    ($($reason:tt)+) => {
        return $crate::skip::record(&format!($($reason)+))
    };
}

/// Names the running test and the reason on stderr (past libtest's capture), and appends both to the file that
/// `WEFT_SKIP_LOG` names.
pub fn record(reason: &str) {
    let thread = std::thread::current();
    let line = format!("SKIP: {}: {reason}\n", thread.name().unwrap_or("unnamed test"));
    // Not eprintln!: libtest swallows that of a test which does not fail.
    let _ = std::io::stderr().write_all(line.as_bytes());
    let Some(log) = std::env::var_os("WEFT_SKIP_LOG") else { return };
    let written =
        OpenOptions::new().append(true).create(true).open(&log).and_then(|mut f| f.write_all(line.as_bytes()));
    if let Err(error) = written {
        panic!("cannot count a skip in {}: {error}", log.display());
    }
}
