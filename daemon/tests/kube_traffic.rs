//! The kube source against API traffic as it was seen from kube-apiserver 1.36, played by a stand-in: what a real server
//! cannot be made to do on demand, and all there is where no real one is at hand.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, StreamExt as _};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use weft::cluster::kube::{Api, KubeOptions, connect, services};
use weft::cluster::services::ServicesHandle;

/// Longest time that anything in these tests may take.
const LIMIT: Duration = Duration::from_secs(30);

/// What the stand-in answers to a request for Services.
#[derive(Clone)]
enum Answer {
    /// These lines, and then nothing more, as long as the client listens.
    Lines(Vec<String>),
    /// These lines, and the end.
    Ends(Vec<String>),
    /// A refusal, or a page of a list.
    Body(StatusCode, String),
}

/// One line for each request for Services: its query, decoded as far as these tests need.
type Asked = Arc<Mutex<Vec<String>>>;

#[derive(Clone)]
struct StandIn {
    asked: Asked,
    script: Arc<Mutex<std::collections::VecDeque<Answer>>>,
}

fn service(name: &str, revision: u32) -> String {
    format!(
        r#"{{"kind":"Service","apiVersion":"v1","metadata":{{"name":"{name}","namespace":"default","resourceVersion":"{revision}"}},"spec":{{"clusterIP":"10.96.0.{}","ports":[{{"port":80}}]}}}}"#,
        name.trim_start_matches('s')
    )
}

fn event(kind: &str, object: &str) -> String {
    format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n")
}

fn bookmark(revision: u32, ends_list: bool) -> String {
    let note = if ends_list { r#","annotations":{"k8s.io/initial-events-end":"true"}"# } else { "" };
    let metadata = format!(r#"{{"resourceVersion":"{revision}","creationTimestamp":null{note}}}"#);
    event("BOOKMARK", &format!(r#"{{"kind":"Service","apiVersion":"v1","metadata":{metadata},"spec":{{}}}}"#))
}

fn refusal(code: u16, reason: &str, message: &str) -> String {
    format!(
        r#"{{"kind":"Status","apiVersion":"v1","metadata":{{}},"status":"Failure","message":"{message}","reason":"{reason}","code":{code}}}"#
    )
}

async fn answer(State(stand_in): State<StandIn>, uri: Uri, Query(query): Query<HashMap<String, String>>) -> Response {
    let lines = |lines: Vec<String>, ends: bool| {
        let lines = stream::iter(lines.into_iter().map(Ok::<_, std::io::Error>));
        let body = if ends { Body::from_stream(lines) } else { Body::from_stream(lines.chain(stream::pending())) };
        body.into_response()
    };
    if uri.path() != "/api/v1/services" {
        // Of nothing, and far ahead: what all watches have reached is what the Services' has.
        return lines(vec![bookmark(1000, true)], false);
    }
    let words = ["watch", "sendInitialEvents", "resourceVersion", "continue"];
    let said: Vec<String> = words.iter().filter_map(|word| Some(format!("{word}={}", query.get(*word)?))).collect();
    stand_in.asked.lock().unwrap().push(said.join(" "));
    let answer = stand_in.script.lock().unwrap().pop_front();
    match answer {
        Some(Answer::Lines(all)) => lines(all, false),
        Some(Answer::Ends(all)) => lines(all, true),
        Some(Answer::Body(status, text)) => (status, text).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, refusal(503, "ServiceUnavailable", "down")).into_response(),
    }
}

struct Source {
    handle: ServicesHandle,
    asked: Asked,
    _stop: DropGuard,
}

impl Source {
    /// A source whose API server plays a script.
    async fn start(script: &[Answer]) -> Self {
        let asked = Asked::default();
        let stand_in =
            StandIn { asked: Arc::clone(&asked), script: Arc::new(Mutex::new(script.iter().cloned().collect())) };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(stand_in);
        tokio::spawn(async move { axum::serve(listener, router).await });
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = format!(
            r#"{{"clusters": [{{"name": "c", "cluster": {{"server": "http://{address}"}}}}], "users": [{{"name": "u", "user": {{}}}}],
                "contexts": [{{"name": "x", "context": {{"cluster": "c", "user": "u"}}}}], "current-context": "x"}}"#
        );
        std::fs::write(file.path(), text).unwrap();
        let options = KubeOptions { kubeconfig: Some(file.path().to_owned()), kube_api_server: None };
        let client = connect(&options).await.unwrap();
        let stop = CancellationToken::new();
        let handle = services::spawn(&Api::new(client), &"n1".parse().unwrap(), stop.clone());
        Self { handle, asked, _stop: stop.drop_guard() }
    }

    /// Waits until the source is at a revision with so many Services.
    async fn reaches(&self, revision: i64, count: usize) {
        let mut status = self.handle.status();
        let there = status.wait_for(|status| status.revision == revision && self.handle.store().len() == count);
        let found = timeout(LIMIT, there).await.map(drop);
        found.unwrap_or_else(|_| panic!("{} {:?}", self.handle.store().len(), self.handle.status().borrow()));
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

const LIST: &str = "watch=true sendInitialEvents=true";

#[tokio::test]
async fn a_streamed_list_goes_on_as_a_watch_and_a_watch_where_it_ended() {
    let source = Source::start(&[
        Answer::Ends(vec![
            event("ADDED", &service("s1", 5)),
            event("ADDED", &service("s2", 7)),
            bookmark(9, true),
            event("MODIFIED", &service("s3", 11)),
            bookmark(14, false),
        ]),
        Answer::Lines(vec![event("DELETED", &service("s1", 15))]),
    ])
    .await;
    source.reaches(15, 2).await;
    // It was over at once, so the source waited a little; what it had it kept.
    assert_eq!(source.asked(), [LIST, "watch=true resourceVersion=14"]);
}

#[tokio::test]
async fn a_forgotten_place_is_answered_by_a_list_that_takes_out_what_is_gone() {
    let expired = refusal(410, "Expired", "too old resource version: 9 (20)");
    let source = Source::start(&[
        Answer::Ends(vec![event("ADDED", &service("s1", 5)), event("ADDED", &service("s2", 7)), bookmark(9, true)]),
        Answer::Lines(vec![event("ERROR", &expired)]),
        Answer::Lines(vec![event("ADDED", &service("s2", 7)), bookmark(20, true)]),
    ])
    .await;
    source.reaches(20, 1).await;
    assert_eq!(source.asked(), [LIST, "watch=true resourceVersion=9", LIST]);
}

#[tokio::test]
async fn what_is_deleted_before_a_list_is_whole_is_not_of_it() {
    // As a server tells it whose cache is behind: the list as it was, what happened since, and then that it is whole.
    let list = vec![event("ADDED", &service("s1", 5)), event("ADDED", &service("s2", 7)), bookmark(7, true)];
    let expired = refusal(410, "Expired", "too old resource version: 7 (20)");
    let late = vec![
        event("ADDED", &service("s1", 5)),
        event("ADDED", &service("s2", 7)),
        event("ADDED", &service("s3", 18)),
        event("DELETED", &service("s2", 19)),
        event("DELETED", &service("s3", 20)),
    ];
    let mut whole = late.clone();
    whole.push(bookmark(21, true));
    let source = Source::start(&[
        Answer::Ends(list),
        Answer::Lines(vec![event("ERROR", &expired)]),
        // It breaks off, and counts for nothing: the next one is a list again.
        Answer::Ends(late),
        Answer::Lines(whole),
    ])
    .await;
    source.reaches(21, 1).await;
    assert_eq!(source.asked(), [LIST, "watch=true resourceVersion=7", LIST, LIST]);
}

#[tokio::test]
async fn a_list_that_breaks_off_takes_nothing_out() {
    let source = Source::start(&[
        Answer::Ends(vec![event("ADDED", &service("s1", 5)), event("ADDED", &service("s2", 7)), bookmark(9, true)]),
        Answer::Body(StatusCode::GONE, refusal(410, "Expired", "too old resource version")),
        Answer::Ends(vec![event("ADDED", &service("s2", 7))]),
    ])
    .await;
    source.reaches(9, 2).await;
    let mut status = source.handle.status();
    let failed = status.wait_for(|status| status.error.as_ref().is_some_and(|error| error.contains("503")));
    timeout(LIMIT, failed).await.unwrap().unwrap();
    assert_eq!(source.handle.store().len(), 2);
}

#[tokio::test]
async fn where_lists_are_not_streamed_they_are_read_in_pages() {
    let page = |items: &[String], more: &str| {
        let metadata = format!(r#"{{"resourceVersion":"9","continue":"{more}"}}"#);
        Answer::Body(
            StatusCode::OK,
            format!(r#"{{"kind":"ServiceList","metadata":{metadata},"items":[{}]}}"#, items.join(",")),
        )
    };
    let source = Source::start(&[
        Answer::Body(StatusCode::UNPROCESSABLE_ENTITY, refusal(422, "Invalid", "sendInitialEvents: Forbidden")),
        page(&[service("s1", 5), service("s2", 7)], "a/b"),
        page(&[service("s3", 8)], ""),
        Answer::Lines(vec![event("ADDED", &service("s4", 10))]),
    ])
    .await;
    source.reaches(10, 4).await;
    assert_eq!(source.asked(), [LIST, "continue=", "continue=a/b", "watch=true resourceVersion=9"]);
}

#[tokio::test]
async fn an_object_that_became_unreadable_leaves_what_was_known_of_it() {
    let bad = service("s1", 10).replace(":80", ":0");
    let lines = vec![event("ADDED", &service("s1", 5)), bookmark(9, true), event("MODIFIED", &bad)];
    let source = Source::start(&[Answer::Lines(lines)]).await;
    source.reaches(10, 1).await;
    assert_eq!(source.handle.status().borrow().rejected, 1);
}
