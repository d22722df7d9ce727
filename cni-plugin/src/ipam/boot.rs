//! Which boot of the machine this is, and how long it has lasted.

use std::fs::File;
use std::io::{self, Read};

use nix::time::{ClockId, clock_gettime};

use super::pool::BootId;

/// Where the kernel says which boot this is.
pub(super) const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The id of this boot.
///
/// # Errors
/// If `/proc` is not mounted.
pub(super) fn boot_id() -> io::Result<BootId> {
    // 36 characters and a line end, which the kernel gives in one piece.
    let mut text = [0; 64];
    let length = File::open(BOOT_ID)?.read(&mut text)?;
    let text = text.iter().take(length);
    let mut id = BootId::default();
    let mut digits =
        text.filter_map(|byte| char::from(*byte).to_digit(16)).filter_map(|digit| u8::try_from(digit).ok());
    for byte in &mut id {
        *byte = digits.next().unwrap_or_default() << 4 | digits.next().unwrap_or_default();
    }
    Ok(id)
}

/// Seconds since boot, suspended ones among them.
pub(super) fn seconds_since_boot() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME).ok().and_then(|time| u64::try_from(time.tv_sec()).ok()).unwrap_or_default()
}
