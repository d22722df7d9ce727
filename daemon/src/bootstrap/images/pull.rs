//! Having the runtime fetch images: several at once, again after what may pass, and not at all where nobody answers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};

use super::error::ImageError;
use super::provide::Event;
use super::reach::{endpoints, probe, registry, runtime_has_proxy};
use crate::bootstrap::cri::{Cri, CriError};
use crate::cluster::backoff::Backoff;

/// The first wait between two attempts, and the longest.
const WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(20));
/// Words of a runtime whose repetition will not help.
const FINAL: [&str; 7] =
    ["not found", "manifest unknown", "401", "403", "denied", "x509", "no match for platform in manifest"];

/// How images are fetched.
#[derive(Debug, Clone)]
pub struct Pulls {
    /// How many at once; 1 is kubeadm's `imagePullSerial: true`.
    pub at_once: usize,
    /// How often each is tried.
    pub attempts: u32,
    /// How long an attempt may take.
    pub limit: Duration,
    /// containerd's folder of mirrors, `/etc/containerd/certs.d`.
    pub certs_d: PathBuf,
    /// Whether to look first if anybody answers. Not needed behind a proxy that the runtime's environment names.
    pub probe: bool,
}

impl Default for Pulls {
    fn default() -> Self {
        Self {
            at_once: 3,
            attempts: 5,
            limit: Duration::from_secs(600),
            certs_d: "/etc/containerd/certs.d".into(),
            probe: true,
        }
    }
}

/// Pulls these images, which are not there, whatever that takes; `tell` hears how it goes.
///
/// # Errors
/// The first failure, when all the others have come to their ends.
pub async fn pull(cri: &Cri, names: &[String], how: &Pulls, tell: &(dyn Fn(&Event) + Sync)) -> Result<(), ImageError> {
    let closed = if how.probe && !runtime_has_proxy(cri.socket()) { closed(names, how).await } else { BTreeMap::new() };
    let one = |name: &String| {
        let refusal = closed.get(registry(name)).cloned();
        let name = name.clone();
        async move {
            match refusal {
                Some((endpoints, cause)) => Err(ImageError::Unreachable { name, endpoints, cause }),
                None => persist(cri, &name, how, tell).await,
            }
        }
    };
    let pulls: Vec<_> = names.iter().map(one).collect();
    let results: Vec<Result<(), ImageError>> = stream::iter(pulls).buffer_unordered(how.at_once.max(1)).collect().await;
    results.into_iter().collect()
}

/// The registries that nobody answers for, with who was tried and why it failed.
async fn closed(names: &[String], how: &Pulls) -> BTreeMap<String, (Vec<String>, String)> {
    let registries: BTreeSet<&str> = names.iter().map(|name| registry(name)).collect();
    let mut closed = BTreeMap::new();
    for host in registries {
        let endpoints = endpoints(&how.certs_d, host);
        if let Err(cause) = probe(&endpoints).await {
            closed.insert(host.to_owned(), (endpoints, cause));
        }
    }
    closed
}

/// Pulls one image.
async fn persist(cri: &Cri, name: &str, how: &Pulls, tell: &(dyn Fn(&Event) + Sync)) -> Result<(), ImageError> {
    let begin = Instant::now();
    let mut waits = Backoff::new(WAITS.0, WAITS.1);
    let mut attempt = 1;
    loop {
        tell(&Event::Pulling { name: name.to_owned(), attempt });
        let cause = match cri.pull_image(name, how.limit).await {
            Ok(_) => {
                let size = cri.find_image(name).await?.map_or(0, |image| image.size);
                tell(&Event::Pulled { name: name.to_owned(), size, took: begin.elapsed() });
                return Ok(());
            }
            Err(CriError::Refused { status, .. }) => status.message().to_owned(),
            Err(error @ CriError::Slow { .. }) => error.to_string(),
            Err(error) => return Err(error.into()),
        };
        if attempt >= how.attempts || is_final(&cause) {
            return Err(ImageError::Pull { name: name.to_owned(), attempts: attempt, cause });
        }
        let wait = waits.next_wait();
        tell(&Event::Waiting { name: name.to_owned(), wait, cause });
        tokio::time::sleep(wait).await;
        attempt += 1;
    }
}

/// Whether another attempt will end in the same way.
fn is_final(cause: &str) -> bool {
    FINAL.iter().any(|word| cause.contains(word)) && !cause.contains("429")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_tried_again() {
        for passing in ["dial tcp: i/o timeout", "unexpected status: 503", "429 Too Many Requests: denied", "EOF"] {
            assert!(!is_final(passing), "{passing}");
        }
        for lasting in ["registry.k8s.io/x:1: not found", "pull access denied", "x509: unknown authority"] {
            assert!(is_final(lasting), "{lasting}");
        }
    }
}
