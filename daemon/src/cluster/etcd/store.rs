//! The store as those have it who need it all the time: its client is made when it is first asked for.
//!
//! With a user there is no client before the store has taken the user, and an agent that starts while its store is away
//! has other things to do than to wait for that.

use std::fmt;
use std::sync::Arc;

use etcd_client::{Client, Error};
use tokio::sync::OnceCell;

use super::connect::{ConnectError, EtcdOptions, connect};
use super::read::read_view;
use crate::cluster::layout::Layout;
use crate::cluster::view::StoreView;

/// etcd, reached already or not. All clones share one client.
#[derive(Clone)]
pub struct Store {
    options: Arc<EtcdOptions>,
    client: Arc<OnceCell<Client>>,
}

impl fmt::Debug for Store {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Store").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Store {
    /// The store that is reached so. Nothing is done yet.
    #[must_use]
    pub fn new(options: EtcdOptions) -> Self {
        Self { options: Arc::new(options), client: Arc::default() }
    }

    /// The client. The first call makes it, see [`connect`]; as long as none has succeeded, each tries.
    ///
    /// # Errors
    /// As [`connect`]'s.
    pub async fn client(&self) -> Result<Client, ConnectError> {
        self.client.get_or_try_init(|| connect(&self.options)).await.cloned()
    }

    /// Everything that concerns leases, see [`read_view`].
    ///
    /// # Errors
    /// In words: there is no client, or the read failed or was not whole.
    pub async fn view(&self, layout: &Layout) -> Result<StoreView, String> {
        let client = self.client().await.map_err(|error| error.to_string())?;
        read_view(&client, layout).await.map_err(|error| self.explain(&error))
    }

    /// What an error of the client's means, see [`EtcdOptions::explain`].
    #[must_use]
    pub fn explain(&self, error: &Error) -> String {
        self.options.explain(error)
    }
}
