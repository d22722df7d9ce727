//! Finding a cluster by a token: nobody is trusted until a signature or a pinned key says so, and the token is shown to
//! nobody before (kubeadm's `discovery/token`).
//!
//! With the hash of the authority's key the signature is not waited for: the server that has the key is the cluster, and
//! it says itself whether it knows the token. So a node can join while the controller manager has not signed yet, and a
//! token that is unknown is told from one that is not signed with yet.

use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep};

use super::error::DiscoveryError;
use super::fetch::{Answer, Failure, Trust, get};
use super::judge::{Authority, Seen, Signature, kubeconfig, see, skew};
use crate::bootstrap::api::cluster_info::{ClusterInfo, PATH};
use crate::bootstrap::api::pin::Pin;
use crate::bootstrap::api::token::Token;

/// Between two rounds.
const PAUSE: Duration = Duration::from_secs(1);

/// How long an answer that condemns a token has to last: it may just have been made, and not be known everywhere.
const PATIENCE: Duration = Duration::from_secs(3);

/// The same where only the signature tells, which the controller manager may be slow with.
const PATIENCE_UNPINNED: Duration = Duration::from_secs(8);

/// Where to look, and for what.
#[derive(Debug, Clone)]
pub(super) struct Search {
    /// `host:port`, in the order in which they are tried.
    pub(super) endpoints: Vec<String>,
    pub(super) token: Token,
    /// None at all is only for those who have said that they do without.
    pub(super) pins: Vec<Pin>,
}

/// What was found, and at which endpoint.
pub(super) type Found = (ClusterInfo, String);

/// Looks until the cluster is found, the time is over, or there is nothing to wait for. `tell` hears why it is not found
/// yet, when that changes and every few seconds.
pub(super) async fn search(
    search: &Search,
    limit: Duration,
    tell: &mut (dyn FnMut(&DiscoveryError) + Send),
) -> Result<Found, DiscoveryError> {
    let end = Instant::now() + limit;
    let patience = if search.pins.is_empty() { PATIENCE_UNPINNED } else { PATIENCE };
    let mut told: Option<(DiscoveryError, Instant)> = None;
    let mut condemned: Option<Instant> = None;
    loop {
        let error = match round(search).await {
            Ok(found) => return Ok(found),
            Err(error) => error,
        };
        let now = Instant::now();
        let lasts = matches!(
            error,
            DiscoveryError::UnknownToken { .. }
                | DiscoveryError::BadSecret { .. }
                | DiscoveryError::BadSignature { .. }
                | DiscoveryError::Mismatch { .. }
        );
        let since = *condemned.get_or_insert(now);
        condemned = lasts.then_some(since);
        let is_over = now >= end || if lasts { now - since >= patience } else { !error.is_temporary() };
        if is_over {
            return Err(error);
        }
        if !told.as_ref().is_some_and(|(last, at)| *last == error && now - *at < Duration::from_secs(5)) {
            tell(&error);
            told = Some((error, now));
        }
        sleep(PAUSE).await;
    }
}

/// Tries each endpoint; the first that is reached decides.
async fn round(search: &Search) -> Result<Found, DiscoveryError> {
    let mut silent = Vec::new();
    for endpoint in &search.endpoints {
        let url = format!("https://{endpoint}{PATH}");
        match get(&url, &Trust::Anybody, None).await {
            Ok(answer) => match decide(search, endpoint, &url, &answer).await {
                // Another API server may be further than this one.
                Err(error @ (DiscoveryError::NotPublished { .. } | DiscoveryError::NoApiServer { .. })) => {
                    silent.push(error);
                }
                decided => return decided.map(|info| (info, endpoint.clone())),
            },
            Err(Failure::Question(words)) => return Err(DiscoveryError::Given(words)),
            Err(failure) => silent.push(DiscoveryError::Unreachable(format!("{endpoint}: {failure}"))),
        }
    }
    if let Some(answered) = silent.iter().find(|error| !matches!(error, DiscoveryError::Unreachable(_))) {
        return Err(answered.clone());
    }
    let words = silent.into_iter().filter_map(|error| match error {
        DiscoveryError::Unreachable(words) => Some(words),
        _ => None,
    });
    Err(DiscoveryError::Unreachable(words.collect::<Vec<_>>().join("; ")))
}

async fn decide(search: &Search, endpoint: &str, url: &str, answer: &Answer) -> Result<ClusterInfo, DiscoveryError> {
    skew(answer, endpoint, SystemTime::now())?;
    let seen = see(answer, endpoint, &search.token, &search.pins)?;
    let (id, endpoint) = (search.token.id().to_owned(), endpoint.to_owned());
    match (seen.signature, &seen.authority) {
        (Signature::Good, Authority::NotAsked) => Ok(seen.info),
        (Signature::Good, Authority::Pinned(_)) => confirm(&seen, endpoint, url).await,
        (Signature::None | Signature::Bad, Authority::Pinned(pinned)) => {
            introduce(search, &seen, endpoint, url, pinned).await
        }
        (Signature::Good | Signature::None, Authority::Other(found)) => {
            let found = found.iter().map(Pin::to_string).collect::<Vec<_>>().join(" or ");
            Err(DiscoveryError::WrongPin { endpoint, found })
        }
        (Signature::Bad, Authority::Other(_)) => Err(DiscoveryError::Intercepted { endpoint }),
        (Signature::Bad, Authority::NotAsked) => Err(DiscoveryError::BadSignature { id, endpoint }),
        // Without any pin nobody may be asked: that would show the token to whoever it is.
        (Signature::None, Authority::NotAsked) if seen.others_signed => {
            Err(DiscoveryError::UnknownToken { id, endpoint })
        }
        (Signature::None, Authority::NotAsked) => Err(DiscoveryError::NotSigned { id, endpoint }),
    }
}

/// The same again over a connection that the authority vouches for: it has to say the same, byte for byte.
async fn confirm(seen: &Seen, endpoint: String, url: &str) -> Result<ClusterInfo, DiscoveryError> {
    let trust = Trust::Authorities(seen.info.ca.clone());
    let answer = get(url, &trust, None).await.map_err(|failure| distrust(failure, &endpoint))?;
    let (_, text) = kubeconfig(&answer, &endpoint)?;
    if text == seen.text { Ok(seen.info.clone()) } else { Err(DiscoveryError::Mismatch { endpoint }) }
}

/// Shows the token to the server that has the pinned key, which says whether it knows it. What it tells then counts.
async fn introduce(
    search: &Search,
    seen: &Seen,
    endpoint: String,
    url: &str,
    pinned: &str,
) -> Result<ClusterInfo, DiscoveryError> {
    let trust = Trust::Authorities(pinned.to_owned());
    let token = search.token.reveal();
    let answer = get(url, &trust, Some(&token)).await.map_err(|failure| distrust(failure, &endpoint))?;
    if answer.status == 401 {
        let id = search.token.id().to_owned();
        return Err(match seen.signature {
            Signature::Bad => DiscoveryError::BadSecret { id, endpoint },
            Signature::Good | Signature::None => DiscoveryError::UnknownToken { id, endpoint },
        });
    }
    let (_, text) = kubeconfig(&answer, &endpoint)?;
    ClusterInfo::from_yaml(&text).map_err(|words| DiscoveryError::NoApiServer { endpoint, words })
}

/// What it means that the second connection fails, when the first did not.
fn distrust(failure: Failure, endpoint: &str) -> DiscoveryError {
    let endpoint = endpoint.to_owned();
    match failure {
        Failure::NotTrusted(words) => DiscoveryError::NotTrusted { endpoint, words },
        Failure::NotNow(words) => DiscoveryError::NotNow { endpoint, words },
        Failure::Unreachable(words) => DiscoveryError::Unreachable(format!("{endpoint}: {words}")),
        Failure::Question(words) => DiscoveryError::Given(words),
    }
}
