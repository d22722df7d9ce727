//! What the machine says of itself: all that a configuration depends on beyond flags and file.

use std::path::{Path, PathBuf};

use weft_netlink::{Route, RouteFilter, RouteSocket};

use super::secret::Secret;
use crate::overlay::uplink::Machine;

/// Sockets of container runtimes, the first one preferred (kubeadm 1.36, constants and util/runtime).
pub const CRI_SOCKETS: [&str; 3] =
    ["/var/run/containerd/containerd.sock", "/var/run/crio/crio.sock", "/var/run/cri-dockerd.sock"];

/// The machine's facts, as a value, so that what is made of them is pure.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The host's name, as it says it.
    pub hostname: String,
    /// Its links, addresses and routes.
    pub machine: Machine,
    /// Those of [`CRI_SOCKETS`] that are there.
    pub cri_sockets: Vec<PathBuf>,
    /// A bootstrap token that nobody has seen yet.
    pub token: Secret,
    /// Whether this is a real machine. Else placeholders stand for what only one can tell, and nobody is asked to check them.
    pub real: bool,
}

/// Why the machine cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// The kernel does not tell its links, addresses or routes.
    #[error("cannot list this machine's addresses: {0}")]
    Addresses(#[from] weft_netlink::Error),
    /// The kernel has no name, or none in UTF-8.
    #[error("this machine's host name cannot be told ({0}); give the node's name with --node-name")]
    Hostname(String),
    /// The kernel gives no random numbers.
    #[error("cannot make a token: no random numbers: {0}")]
    Random(getrandom::Error),
}

impl Facts {
    /// Asks this machine; sockets are looked for below `root`.
    ///
    /// # Errors
    /// Says what cannot be told.
    pub fn gather(root: &Path) -> Result<Self, FactsError> {
        let mut socket = RouteSocket::open()?;
        let filter = RouteFilter { table: Some(Route::MAIN), ..RouteFilter::default() };
        let machine = Machine {
            links: socket.links()?,
            addresses: socket.addresses(None)?,
            routes: socket.routes(filter)?,
            reach: None,
        };
        let hostname = nix::unistd::gethostname().map_err(|errno| FactsError::Hostname(errno.to_string()))?;
        let hostname = hostname.into_string().map_err(|name| FactsError::Hostname(format!("{name:?} is not UTF-8")))?;
        let below = |path: &&str| root.join(path.trim_start_matches('/')).exists();
        let cri_sockets = CRI_SOCKETS.iter().filter(|path| below(path)).map(PathBuf::from).collect();
        Ok(Self { hostname, machine, cri_sockets, token: new_token()?, real: true })
    }

    /// A machine that nothing is known of, for what needs none: printing defaults, validating a file.
    #[must_use]
    pub fn unknown() -> Self {
        Self {
            hostname: "node".to_owned(),
            machine: Machine::default(),
            cri_sockets: Vec::new(),
            token: Secret("abcdef.0123456789abcdef".to_owned()),
            real: false,
        }
    }
}

/// A bootstrap token: 6 and 16 characters of `[a-z0-9]`, each of them equally likely.
fn new_token() -> Result<Secret, FactsError> {
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut token = String::with_capacity(23);
    let mut bytes = [0_u8; 64];
    while token.len() < 23 {
        getrandom::fill(&mut bytes).map_err(FactsError::Random)?;
        // 252 is the largest multiple of 36 in a byte: what is above would favour the first characters.
        for byte in bytes.into_iter().filter(|byte| *byte < 252) {
            if token.len() == 6 {
                token.push('.');
            }
            if token.len() < 23 {
                token.extend(ALPHABET.get(usize::from(byte % 36)).map(|byte| char::from(*byte)));
            }
        }
    }
    Ok(Secret(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_well_formed_and_new() {
        let (one, other) = (new_token().unwrap().0, new_token().unwrap().0);
        for token in [&one, &other] {
            let (id, secret) = token.split_once('.').unwrap();
            assert_eq!((id.len(), secret.len()), (6, 16));
            assert!(token.bytes().all(|b| b == b'.' || b.is_ascii_lowercase() || b.is_ascii_digit()));
        }
        assert_ne!(one, other);
    }

    #[test]
    fn a_runtime_is_found_by_its_socket() {
        let root = tempfile::tempdir().unwrap();
        assert!(Facts::gather(root.path()).unwrap().cri_sockets.is_empty());
        let socket = root.path().join("var/run/crio/crio.sock");
        std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
        std::fs::write(socket, "").unwrap();
        assert_eq!(Facts::gather(root.path()).unwrap().cri_sockets, [PathBuf::from("/var/run/crio/crio.sock")]);
    }
}
