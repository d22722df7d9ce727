//! Which API servers there are, as files: one `host:port` a line.
//!
//! `start` is what the node was told when it joined, `known` what the cluster said last. Both are read at each start, so that
//! a node finds its cluster after a reboot though the server that it joined by is gone.

use std::fs;
use std::io;
use std::path::Path;

use weft_cni::formats::files::{Durability, write_atomically};

use crate::cluster::kube::place::{Place, lines, of_lines};

/// Name of the list that init and join write.
pub const START: &str = "start";
/// Name of the list that the balancer writes.
pub const KNOWN: &str = "known";
/// Addresses of API servers are no secret.
pub const MODE: u32 = 0o644;

/// The list of that name in a directory; empty if there is none. Lines that name no server are passed over: a damaged line
/// must not cost the others.
///
/// # Errors
/// A file that is there and cannot be read.
pub fn read(directory: &Path, name: &str) -> io::Result<Vec<Place>> {
    match fs::read(directory.join(name)) {
        Ok(bytes) => Ok(of_lines(&bytes).0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Puts what the cluster has said into the list [`KNOWN`], in one step that survives a power failure.
///
/// # Errors
/// Whatever the file system says.
pub fn write_known(directory: &Path, places: &[Place]) -> io::Result<()> {
    write_atomically(&directory.join(KNOWN), lines(places).as_bytes(), MODE, Durability::Durable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_survives_lines_that_are_none() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read(directory.path(), KNOWN).unwrap(), []);
        let places: Vec<Place> = ["192.0.2.1:6443", "[2001:db8::1]:6443"].map(|text| text.parse().unwrap()).to_vec();
        write_known(directory.path(), &places).unwrap();
        assert_eq!(read(directory.path(), KNOWN).unwrap(), places);
        let damaged = format!("# by hand\n{}\u{0}\u{fffd}:::\n192.0.2.1:6443\n", lines(&places));
        fs::write(directory.path().join(KNOWN), damaged).unwrap();
        assert_eq!(read(directory.path(), KNOWN).unwrap(), places, "each once");
        assert!(read(Path::new("/dev/null"), KNOWN).is_err());
    }
}
