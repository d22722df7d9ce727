//! Whether anybody has written to nf_tables.

use std::time::Duration;

use tokio::time::sleep;
use weft_netlink::Error;
use weft_netlink::nft::Socket;

/// How often the kernel is asked. A subscription would tell at once, but make each transaction several times as dear: the
/// kernel tells of every single element, and Services have many.
const GLANCE: Duration = Duration::from_secs(1);

/// Compares the number of transactions that the kernel has made with the last one seen.
#[derive(Debug)]
pub struct TablesWatch {
    socket: Socket,
    seen: Option<u32>,
}

impl TablesWatch {
    /// Opens the way to nf_tables in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`Error::Io`] if the kernel lacks nf_tables.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { socket: Socket::open()?, seen: None })
    }

    /// All tables are about to be looked at.
    pub(super) fn seen(&mut self) {
        // What cannot be asked is looked at when the timer says so.
        self.seen = self.socket.generation().ok();
    }

    /// Waits until somebody has written to any table since then. Can be dropped while it waits.
    pub(super) async fn changed(&mut self) {
        loop {
            sleep(GLANCE).await;
            if self.socket.generation().ok() != self.seen {
                return;
            }
        }
    }
}
