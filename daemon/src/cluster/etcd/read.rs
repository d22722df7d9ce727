//! Reading everything that concerns leases at one revision, in one transaction.

use etcd_client::{Client, Error, GetOptions, KeyValue, Txn, TxnOp, TxnOpResponse, TxnResponse};

use crate::cluster::layout::Layout;
use crate::cluster::view::{Entry, StoreView};

/// The reads that make up a [`StoreView`]; also the `else` of every conditional write, so that a write that lost a race
/// comes back with what it lost to.
#[must_use]
pub fn view_operations(layout: &Layout) -> Vec<TxnOp> {
    let (first, end) = layout.leases_and_nodes();
    vec![TxnOp::get(layout.config(), None), TxnOp::get(first, Some(GetOptions::new().with_range(end)))]
}

/// The view in the answer to [`view_operations`].
///
/// # Errors
/// An answer that is not whole: it must not pass for a store with fewer keys.
pub fn view_of(layout: &Layout, response: &TxnResponse) -> Result<StoreView, Error> {
    let partial = || Error::Internal("the answer to a read was not whole".to_owned());
    let revision = response.header().ok_or_else(partial)?.revision();
    let mut view = StoreView { revision, ..StoreView::default() };
    // The answers to writes of the same transaction come before.
    let answers = response.op_responses();
    let [.., TxnOpResponse::Get(config), TxnOpResponse::Get(keys)] = answers.as_slice() else { return Err(partial()) };
    for answer in [config, keys] {
        if answer.more() {
            return Err(partial());
        }
        for kv in answer.kvs() {
            view.set(layout, &String::from_utf8_lossy(kv.key()), Some(entry(kv)));
        }
    }
    Ok(view)
}

/// Reads the store (linearizable: what was committed before the call is seen).
///
/// # Errors
/// Whatever etcd or the connection says, and an answer that is not whole.
pub async fn read_view(client: &Client, layout: &Layout) -> Result<StoreView, Error> {
    let response = client.kv_client().txn(Txn::new().and_then(view_operations(layout))).await?;
    view_of(layout, &response)
}

/// One key as read.
pub(super) fn entry(kv: &KeyValue) -> Entry {
    Entry {
        value: kv.value().to_vec(),
        create_revision: kv.create_revision(),
        mod_revision: kv.mod_revision(),
        etcd_lease: kv.lease(),
    }
}
