//! The API servers that all clients of an agent share: [`Failover`] with its list on disk, its numbers, and what is said when
//! another server is asked.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use weft_cni::formats::files::{Durability, write_atomically};

use super::api::Api;
use super::failover::{Change, Failover};
use super::metrics::{ApiMetrics, ServerInUse};
use super::place::{Place, lines, of_lines, of_slice};
use super::watch::{Object, Target, Told, run as run_watch};

/// Name of the list in the state directory: one `host:port` a line, first the server that worked last.
pub const FILE: &str = "api-servers";

/// Addresses of the control plane are nobody else's business.
const MODE: u32 = 0o600;

/// What waits to be taken in of the watch for one object.
const QUEUE: usize = 16;

/// The EndpointSlice in which each API server enters itself, and where it is.
const SLICE: (&str, &str) = ("default", "kubernetes");
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

/// The API servers. Shared by the agent's threads.
#[derive(Debug, Default)]
pub struct Servers {
    plan: Mutex<Failover>,
    /// The list on disk, and what is in it.
    file: Option<PathBuf>,
    written: Mutex<String>,
    metrics: ApiMetrics,
}

impl Servers {
    /// Those that an agent has known last, for somebody who has a question and keeps nothing.
    #[must_use]
    pub fn of_agent(state_dir: &Path) -> Self {
        Self { file: None, ..Self::last_known(state_dir, ApiMetrics::default()) }
    }

    /// Those that were known last, by the list in the state directory, which is kept from now on. A list that is of no use is
    /// said to be so, and no more.
    #[must_use]
    pub fn last_known(state_dir: &Path, metrics: ApiMetrics) -> Self {
        let file = state_dir.join(FILE);
        let known = match std::fs::read(&file) {
            Ok(bytes) => {
                let (known, refused) = of_lines(&bytes);
                if refused > 0 {
                    let expected = "expected HOST:PORT, as in 192.0.2.10:6443";
                    tracing::warn!("{}: {refused} of its lines ignored; {expected}", file.display());
                }
                known
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                tracing::warn!("{} is of no use: {error}", file.display());
                Vec::new()
            }
        };
        let written = Mutex::new(lines(&known));
        // The standard library's only random source; another number on each node is all that is asked of it.
        let turn = usize::try_from(RandomState::new().hash_one(0) >> 33).unwrap_or_default();
        Self { plan: Mutex::new(Failover::new(known, turn)), file: Some(file), written, metrics }
    }

    /// The configuration names this server.
    pub(super) fn configure(&self, place: Place) {
        self.plan().configure(place);
    }

    /// Whom to ask, one after the other.
    pub(super) fn order(&self) -> Vec<Place> {
        self.plan().order(Instant::now())
    }

    /// A server has answered.
    pub(super) fn answered(self: &Arc<Self>, place: &Place) {
        let (change, configured) = {
            let mut plan = self.plan();
            let Some(change) = plan.answered(place) else { return };
            (change, plan.configured().cloned())
        };
        let is_configured = configured.as_ref() == Some(place);
        if self.file.is_some() {
            say(&change, is_configured);
        }
        let configured = configured.map(|place| place.to_string()).unwrap_or_default();
        let in_use = ServerInUse { server: place.to_string(), configured };
        self.metrics.asks(in_use, change.from.is_some());
        if !is_configured {
            self.keep();
        }
    }

    /// A server takes no connection.
    pub(super) fn refused(&self, place: &Place, why: String) {
        self.plan().refused(place, why, Instant::now());
    }

    /// A server took the question and has failed to answer it.
    pub(super) fn failed(&self, place: &Place, why: String) {
        self.plan().failed(place, why, Instant::now());
    }

    /// Takes in what a watch of EndpointSlices tells. The slice's end, or a list without it, is no word.
    pub(super) fn take(self: &Arc<Self>, told: &Told) {
        let (Told::Listed(object) | Told::Changed(object)) = told else { return };
        if (object.namespace.as_str(), object.name.as_str()) != SLICE {
            return;
        }
        let places = read(object);
        if self.plan().learn(places.clone()) {
            let words: Vec<String> = places.iter().map(ToString::to_string).collect();
            tracing::info!("the cluster's API servers are {}", words.join(", "));
            self.keep();
        }
    }

    /// Writes the list, if it is not what is there.
    fn keep(self: &Arc<Self>) {
        if self.file.is_none() {
            return;
        }
        let servers = Arc::clone(self);
        // A disk takes its time, and the agent has one thread for everything.
        spawn_blocking(move || servers.write());
    }

    fn write(&self) {
        let Some(file) = &self.file else { return };
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        // As it is now: of two writes that overtake each other the last one is right.
        let text = lines(self.plan().list());
        if *written == text {
            return;
        }
        match write_atomically(file, text.as_bytes(), MODE, Durability::Durable) {
            Ok(()) => *written = text,
            Err(error) => tracing::warn!("{} cannot be written: {error}", file.display()),
        }
    }

    fn plan(&self) -> MutexGuard<'_, Failover> {
        // Nothing in it is half done when somebody panics.
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The servers in the slice. What cannot be read names none.
fn read(object: &Object) -> Vec<Place> {
    match serde_json::from_slice::<Value>(object.bytes()) {
        Ok(slice) => of_slice(&slice),
        Err(error) => {
            tracing::warn!("ignored EndpointSlice default/kubernetes: {error}");
            Vec::new()
        }
    }
}

/// One line for each change.
fn say(Change { to, from, why }: &Change, is_configured: bool) {
    let why = why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    match (is_configured, from) {
        (true, None) => tracing::info!("the API is asked at {to}"),
        (true, Some(_)) => tracing::info!("the API is asked at {to} again, the configured server"),
        (false, _) => tracing::warn!("the API is asked at {to} now, which the configuration does not name{why}"),
    }
}

/// Watches the slice for an agent that watches no others, as it serves no Services.
pub fn watch(api: &Api, servers: Arc<Servers>, stop: CancellationToken) {
    let (sender, mut told) = mpsc::channel(QUEUE);
    let target = Target {
        what: "API servers' addresses",
        resource: "apiservers",
        path: SLICES,
        selector: "&fieldSelector=metadata.name%3Dkubernetes".to_owned(),
    };
    tokio::spawn(run_watch(api.clone(), target, sender));
    tokio::spawn(stop.run_until_cancelled_owned(async move {
        while let Some(told) = told.recv().await {
            servers.take(&told);
        }
    }));
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn slice(namespace: &str, name: &str, hosts: &[&str]) -> Told {
        let endpoints: Vec<Value> = hosts.iter().map(|host| serde_json::json!({"addresses": [host]})).collect();
        let json = serde_json::json!({"endpoints": endpoints, "ports": [{"name": "https", "port": 6443}]});
        Told::Changed(Object {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            revision: 1,
            json: serde_json::value::to_raw_value(&json).unwrap(),
        })
    }

    #[tokio::test]
    async fn what_the_cluster_names_is_there_at_the_next_start() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        let metrics = ApiMetrics::default();
        let servers = Arc::new(Servers::last_known(&state, metrics.clone()));
        servers.configure("192.0.2.1:6443".parse().unwrap());
        servers.answered(&"192.0.2.1:6443".parse().unwrap());
        for other in [slice("default", "web", &["10.0.0.1"]), slice("shop", "kubernetes", &["10.0.0.2"])] {
            servers.take(&other);
        }
        assert_eq!(servers.order().len(), 1, "that is another Service's");
        servers.take(&slice("default", "kubernetes", &["192.0.2.1", "192.0.2.2"]));
        servers.take(&slice("default", "kubernetes", &[]));
        servers.refused(&"192.0.2.1:6443".parse().unwrap(), "refused".to_owned());
        servers.answered(&"192.0.2.2:6443".parse().unwrap());
        let in_use = metrics.server().unwrap();
        assert_eq!((in_use.server.as_str(), in_use.configured.as_str()), ("192.0.2.2:6443", "192.0.2.1:6443"));
        // What was begun in the background may be over or not; this is what it does.
        servers.write();
        let file = state.join(FILE);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "192.0.2.2:6443\n192.0.2.1:6443\n");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

        let next = Servers::last_known(&state, ApiMetrics::default());
        next.configure("192.0.2.1:6443".parse().unwrap());
        let order: Vec<String> = next.order().iter().map(Place::to_string).collect();
        assert_eq!(order, ["192.0.2.1:6443", "192.0.2.2:6443"]);
    }

    #[test]
    fn a_list_that_is_of_no_use_is_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let known = || Servers::last_known(directory.path(), ApiMetrics::default()).order();
        std::fs::write(directory.path().join(FILE), b"\xff\xfe\n{}\n192.0.2.7:6443\n").unwrap();
        assert_eq!(known(), ["192.0.2.7:6443".parse().unwrap()]);
        std::fs::remove_file(directory.path().join(FILE)).unwrap();
        assert!(known().is_empty());
        std::fs::create_dir(directory.path().join(FILE)).unwrap();
        assert!(known().is_empty());
    }
}
