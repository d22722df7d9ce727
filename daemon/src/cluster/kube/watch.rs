//! List and watch of one kind of objects: what the API server says, in order, to whoever takes it in.
//!
//! A watch that ends is opened again where it ended; only if the API server has forgotten that place (410 Gone) is everything
//! listed anew. The list is streamed by the watch itself where the server can do that, so that neither side ever holds it
//! whole, and read in pages where it cannot. Bookmarks move the place on while nothing happens, and show that the
//! connection lives.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use http::Request;
use kube::core::{Status, WatchEvent};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::api::{Api, code};
use super::explain::{explain, refusal};
use crate::cluster::backoff::jittered;
use crate::cluster::outage::Outage;

/// Longest time that the answer to a request may take to begin.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time that one page of a list may take.
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest silence of a watch. The API server sends a bookmark about every minute.
const SILENCE: Duration = Duration::from_secs(150);

/// How long a watch is asked to last, at most; half of it is random, so that the nodes do not all come back at once.
const WATCH_LASTS: Duration = Duration::from_secs(600);

/// After so long everything is listed anew when a watch ends anyway, so that nothing rests on watches having told all.
const RELIST_AFTER: Duration = Duration::from_secs(3600);

/// A watch that is over sooner than this did not work.
const SHORT: Duration = Duration::from_secs(1);

/// Objects a page.
const PAGE: &str = "500";

/// The bookmark that ends a streamed list has it (`metav1.InitialEventsAnnotationKey`).
const LIST_ENDS: &str = "k8s.io/initial-events-end";

/// Which objects.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// What they are called in the log, in the plural.
    pub(super) what: &'static str,
    /// What they are called in metrics.
    pub(super) resource: &'static str,
    /// The path of their collection.
    pub(super) path: &'static str,
    /// Parameters that select among them, encoded.
    pub(super) selector: String,
}

/// An object, as it came.
#[derive(Debug)]
pub(super) struct Object {
    /// Its namespace; empty if it has none.
    pub(super) namespace: String,
    /// Its name.
    pub(super) name: String,
    /// Its revision; 0 if that is no number.
    pub(super) revision: i64,
    /// The whole of it.
    pub(super) json: Box<RawValue>,
}

impl Object {
    /// Its bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        self.json.get().as_bytes()
    }
}

/// What a watcher has to say.
#[derive(Debug)]
pub(super) enum Told {
    /// A list begins; what was begun before counts for nothing.
    ListBegins,
    /// An object of the list.
    Listed(Object),
    /// The list is whole, and true at this revision.
    ListEnds(i64),
    /// An object is new or different.
    Changed(Object),
    /// An object was deleted.
    Deleted(Object),
    /// A watch is open.
    Watching,
    /// There is no watch, for this reason. What is known stands.
    Lost(String),
}

/// Why a watch or a list is over.
enum End {
    /// The server ended it, as it does from time to time.
    Over,
    /// The place to go on from is not known to the server any more.
    Gone(String),
    /// The server does not stream lists.
    NoStreams,
    /// Something is wrong.
    Failed(String),
    /// Nobody listens.
    Unheard,
}

/// Watches the objects of a target until nobody listens any more.
pub(super) async fn run(api: Api, target: Target, told: mpsc::Sender<Told>) {
    let outage = Outage::of(target.what);
    let mut watcher = Watcher { api, target, told, outage, place: None, listed: None, streams: true };
    loop {
        let began = Instant::now();
        let reason = match watcher.once().await {
            End::Unheard => return,
            End::Over if began.elapsed() > SHORT => {
                // The next list is due; it may as well be now.
                if watcher.listed.is_none_or(|listed| listed.elapsed() > RELIST_AFTER) {
                    watcher.place = None;
                }
                continue;
            }
            End::NoStreams => {
                tracing::debug!(what = watcher.target.what, "the API server does not stream lists");
                watcher.streams = false;
                continue;
            }
            End::Over => "the watch ended as soon as it was open".to_owned(),
            End::Gone(reason) => {
                watcher.place = None;
                reason
            }
            End::Failed(reason) => reason,
        };
        watcher.api.metrics.lost(watcher.target.resource);
        if watcher.tell(Told::Lost(reason.clone())).await.is_err() {
            return;
        }
        let wait = watcher.outage.failed(&reason, watcher.listed.is_some());
        tokio::select! {
            () = sleep(wait) => {}
            () = watcher.told.closed() => return,
        }
    }
}

struct Watcher {
    api: Api,
    target: Target,
    told: mpsc::Sender<Told>,
    outage: Outage,
    /// The `resourceVersion` to go on from; `None` if everything is to be listed.
    place: Option<String>,
    /// When a list was last whole.
    listed: Option<Instant>,
    /// Whether the server streams lists, as far as is known.
    streams: bool,
}

impl Watcher {
    /// One list, if that is needed, and one watch; says how it ended.
    async fn once(&mut self) -> End {
        let result = async {
            if self.place.is_none() {
                self.tell(Told::ListBegins).await?;
                if !self.streams {
                    let place = self.list().await?;
                    self.list_is_whole(place).await?;
                }
            }
            self.watch().await
        };
        match result.await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn tell(&self, what: Told) -> Result<(), End> {
        if matches!(what, Told::Listed(_) | Told::Changed(_) | Told::Deleted(_)) {
            self.api.metrics.came(self.target.resource);
        }
        self.told.send(what).await.map_err(|_| End::Unheard)
    }

    async fn list_is_whole(&mut self, place: String) -> Result<(), End> {
        self.tell(Told::ListEnds(number(&place))).await?;
        self.place = Some(place);
        self.listed = Some(Instant::now());
        self.api.metrics.listed(self.target.resource);
        Ok(())
    }

    /// Reads the list in pages; returns the place to watch from.
    async fn list(&self) -> Result<String, End> {
        let mut token = String::new();
        loop {
            let parameters = format!("limit={PAGE}&continue={}", encoded(&token));
            let asked = Instant::now();
            let answer = timeout(PAGE_TIMEOUT, self.api.client.request::<Page>(self.request(&parameters)?)).await;
            self.api.metrics.asked(self.target.resource, code(&answer), asked.elapsed());
            let page = match answer {
                Ok(page) => page.map_err(|error| failed("cannot list", &error))?,
                Err(_) => return Err(End::Failed("cannot list: no answer in time".to_owned())),
            };
            for json in page.items {
                self.tell(Told::Listed(object(json)?)).await?;
            }
            token = page.metadata.token;
            if token.is_empty() {
                return Ok(page.metadata.resource_version);
            }
        }
    }

    /// Watches from the place that is known, or else with a streamed list first.
    async fn watch(&mut self) -> Result<std::convert::Infallible, End> {
        let mut is_list = self.place.is_none();
        let place = match &self.place {
            Some(place) => format!("resourceVersion={}", encoded(place)),
            None => "sendInitialEvents=true&resourceVersionMatch=NotOlderThan".to_owned(),
        };
        let lasts = jittered(WATCH_LASTS).as_secs();
        let request = self.request(&format!("watch=true&allowWatchBookmarks=true&timeoutSeconds={lasts}&{place}"))?;
        let mut stream = self.open(request, is_list).await?;
        if !is_list {
            self.is_open().await?;
        }
        loop {
            // Whoever listens may be gone for good while nothing happens.
            let event = tokio::select! {
                event = timeout(SILENCE, stream.next()) => event,
                () = self.told.closed() => return Err(End::Unheard),
            };
            let event = match event {
                Ok(Some(Ok(event))) => event,
                Ok(Some(Err(error))) => return Err(failed("the watch ended", &error)),
                Ok(None) if is_list => return Err(End::Failed("the list broke off".to_owned())),
                Ok(None) => return Err(End::Over),
                Err(_) => return Err(End::Failed(format!("no word from the API server for {SILENCE:?}"))),
            };
            let told = match event {
                WatchEvent::Added(json) | WatchEvent::Modified(json) if is_list => Told::Listed(object(json)?),
                WatchEvent::Added(json) | WatchEvent::Modified(json) => Told::Changed(object(json)?),
                WatchEvent::Deleted(json) => Told::Deleted(object(json)?),
                WatchEvent::Bookmark(bookmark) => {
                    let place = bookmark.metadata.resource_version;
                    if !is_list {
                        self.place = Some(place);
                    } else if bookmark.metadata.annotations.contains_key(LIST_ENDS) {
                        is_list = false;
                        self.list_is_whole(place).await?;
                        self.is_open().await?;
                    }
                    continue;
                }
                WatchEvent::Error(status) if is_list && streams_no_lists(&status) => return Err(End::NoStreams),
                WatchEvent::Error(status) => return Err(refused("the watch ended", &status)),
            };
            if let Told::Changed(object) | Told::Deleted(object) = &told
                && object.revision > 0
            {
                self.place = Some(object.revision.to_string());
            }
            self.tell(told).await?;
        }
    }

    async fn open(
        &self,
        request: Request<Vec<u8>>,
        is_list: bool,
    ) -> Result<BoxStream<'static, kube::Result<WatchEvent<Box<RawValue>>>>, End> {
        let asked = Instant::now();
        let opened = timeout(ANSWER_TIMEOUT, self.api.client.request_events::<Box<RawValue>>(request)).await;
        let code = code(&opened);
        self.api.metrics.asked(self.target.resource, code, asked.elapsed());
        match opened {
            Ok(Ok(stream)) => Ok(stream.boxed()),
            Ok(Err(kube::Error::Api(status))) if is_list && streams_no_lists(&status) => Err(End::NoStreams),
            Ok(Err(error)) => Err(failed("cannot watch", &error)),
            Err(_) => Err(End::Failed("cannot watch: no answer in time".to_owned())),
        }
    }

    async fn is_open(&mut self) -> Result<(), End> {
        self.outage.over();
        self.api.metrics.watched(self.target.resource);
        self.tell(Told::Watching).await
    }

    fn request(&self, parameters: &str) -> Result<Request<Vec<u8>>, End> {
        let Target { path, selector, .. } = &self.target;
        let uri = format!("{path}?{parameters}{selector}");
        Request::get(&uri).body(Vec::new()).map_err(|error| End::Failed(format!("cannot ask for {uri}: {error}")))
    }
}

/// A page of a list.
#[derive(Deserialize)]
struct Page {
    metadata: PageMetadata,
    #[serde(default)]
    items: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageMetadata {
    #[serde(default)]
    resource_version: String,
    #[serde(default, rename = "continue")]
    token: String,
}

/// What every object tells of itself.
#[derive(Deserialize)]
struct Head {
    metadata: HeadMetadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HeadMetadata {
    #[serde(default)]
    namespace: String,
    name: String,
    resource_version: String,
}

fn object(json: Box<RawValue>) -> Result<Object, End> {
    let Head { metadata } = serde_json::from_str(json.get())
        .map_err(|error| End::Failed(format!("the API server sent what is no object: {error}")))?;
    let HeadMetadata { namespace, name, resource_version } = metadata;
    Ok(Object { namespace, name, revision: number(&resource_version), json })
}

/// Resource versions are numbers that grow (promised since Kubernetes 1.35, true since ever with etcd).
fn number(resource_version: &str) -> i64 {
    resource_version.parse().unwrap_or_default()
}

fn failed(what: &str, error: &kube::Error) -> End {
    match error {
        kube::Error::Api(status) => refused(what, status),
        other => End::Failed(format!("{what}: {}", explain(other))),
    }
}

fn refused(what: &str, status: &Status) -> End {
    let text = format!("{what}: {}", refusal(status));
    // The second is what a server says whose store was put back in time.
    if status.code == 410 || status.message.contains("Too large resource version") {
        return End::Gone(text);
    }
    End::Failed(text)
}

/// Whether a server says that it cannot stream a list: one without the feature refuses the parameter, one whose etcd is
/// older than 3.4.25 misses what it needs for it, which it says when the watch is open already.
fn streams_no_lists(status: &Status) -> bool {
    matches!(status.code, 400 | 422) || status.message.contains("RequestWatchProgress")
}

/// A value in a query.
pub(super) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_gone_is_told_from_a_failure() {
        let of = |code, message: &str| {
            refused("the watch ended", &Status { code, message: message.to_owned(), ..Status::default() })
        };
        assert!(matches!(of(410, "too old resource version"), End::Gone(_)));
        assert!(matches!(of(504, "Timeout: Too large resource version: 9, current: 5"), End::Gone(_)));
        assert!(matches!(of(500, "etcd is slow"), End::Failed(_)));
    }

    #[test]
    fn a_server_that_cannot_stream_lists_is_told_from_one_that_fails() {
        let of =
            |code, message: &str| streams_no_lists(&Status { code, message: message.to_owned(), ..Status::default() });
        assert!(of(422, "sendInitialEvents is forbidden"));
        assert!(of(500, "the required storage feature RequestWatchProgress is disabled"));
        assert!(!of(500, "etcdserver: leader changed") && !of(403, "forbidden") && !of(410, "gone"));
    }

    #[test]
    fn queries_are_encoded() {
        assert_eq!(encoded("!a/b-c.d e=1,2"), "%21a%2Fb-c.d%20e%3D1%2C2");
    }

    #[test]
    fn of_an_object_only_its_head_is_read() {
        let json = r#"{"metadata": {"name": "n1", "resourceVersion": "12", "labels": null}, "spec": [1]}"#;
        let Ok(object) = object(serde_json::from_str(json).unwrap()) else { panic!("refused") };
        assert_eq!((object.namespace.as_str(), object.name.as_str(), object.revision), ("", "n1", 12));
        assert_eq!(object.bytes(), json.as_bytes());
    }
}
