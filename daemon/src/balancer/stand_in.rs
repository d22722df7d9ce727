//! A balancer within the process that joins a node, until the one of the node, which kubelet has to start first, is there: kubelet
//! finds the API where it will always find it.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use tokio::task::JoinHandle;

use super::forward::serve;
use super::lists::{self, KNOWN, START};
use super::run::{Shared, bind};

/// Takes connections until it is ended; those that it has taken go on as long as the process.
#[derive(Debug)]
pub struct StandIn(Vec<JoinHandle<()>>);

impl StandIn {
    /// Begins to forward to the servers of the lists in `state`. The port may be shared with a balancer of this user.
    ///
    /// # Errors
    /// The first address cannot be had, or a list cannot be read. Of the others, one that this machine does not have is left out.
    pub fn begin(listen: &[SocketAddr], state: &Path) -> io::Result<Self> {
        let shared = Shared::new(&lists::read(state, KNOWN)?, &lists::read(state, START)?);
        let mut tasks = Vec::new();
        for (at, address) in listen.iter().enumerate() {
            match bind(*address) {
                Ok(listener) => tasks.push(tokio::spawn(serve(listener, shared.clone()))),
                Err(error) if at == 0 => return Err(error),
                Err(error) => tracing::debug!(%address, "not listened on: {error}"),
            }
        }
        Ok(Self(tasks))
    }

    /// Takes no more: whoever connects from now on comes to the other balancer, if there is one.
    pub async fn end(self) {
        for task in self.0 {
            task.abort();
            // Its socket is closed only then.
            let _ = task.await;
        }
    }
}
