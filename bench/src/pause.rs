//! Letting time pass.

use std::time::Duration;

/// Does nothing for so long.
#[expect(
    clippy::disallowed_methods,
    reason = "a look every so often, or a flow of so many a second: whoever is listened to would work for it"
)]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}
