//! What a call asks of the kernel.

use std::ffi::OsStr;
use std::path::Path;

use anyhow::{Context, Result};
use weft_tests::trace::{Trace, read, wrapper};

use crate::call::Call;

/// Makes the call under strace, whose files go to `folder`.
///
/// # Errors
/// When the call fails, or strace may not trace.
pub(crate) fn trace(call: &Call, folder: &Path) -> Result<Trace> {
    let words = wrapper(folder)?;
    let (program, arguments) = words.split_first().context("nothing to start it under")?;
    let arguments: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
    call.clone().under(Path::new(program), &arguments).time().context("under strace")?;
    read(folder)
}
