//! Finding a record by what is left of its attachment.

use std::fs;
use std::io;
use std::path::Path;

use super::record::Record;
use super::store::{Store, StoreError, wrong};
use crate::formats::attachment::host_interface_of;

/// The record of the attachment with this interface on the host, in whatever network beside the one of `store`, with that
/// network's store.
///
/// # Errors
/// [`StoreError::Io`].
pub fn record_of_interface(store: &Store, interface: &str) -> Result<Option<(Store, Record)>, StoreError> {
    let state_dir = store.directory.parent().unwrap_or(Path::new("."));
    let entries = match fs::read_dir(state_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries.map_err(wrong("list", state_dir))?,
    };
    for entry in entries {
        let name = entry.map_err(wrong("list", state_dir))?.file_name();
        // What begins with a dot is no network.
        let Some(network) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
        let store = store.beside(network);
        let mut found = None;
        store.visit_named(
            |key| host_interface_of(key) == interface,
            |record| {
                found = Some(record);
                Ok(())
            },
        )?;
        if let Some(record) = found {
            return Ok(Some((store, record)));
        }
    }
    Ok(None)
}
