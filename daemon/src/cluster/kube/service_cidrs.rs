//! List and watch of ServiceCIDRs: the networks that cluster IPs are taken from, as the cluster itself says.

use std::collections::HashMap;

use ipnetwork::IpNetwork;
use serde::Deserialize;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::api::Api;
use super::watch::{Object, Target, Told, run as run_watch};

/// What waits to be taken in, at most: there are few.
const QUEUE: usize = 16;

/// Shortest prefix of a network that is believed: to hold half of all addresses for service addresses would cut the node off.
const SHORTEST_PREFIX: u8 = 8;

/// The networks of all ServiceCIDRs, without repetitions; `None` while nothing is known, or there are none.
pub type ServiceCidrs = watch::Receiver<Option<Vec<IpNetwork>>>;

/// Starts a source on the current runtime.
#[must_use]
pub fn spawn(api: &Api, stop: CancellationToken) -> ServiceCidrs {
    let (networks, out) = watch::channel(None);
    let (sender, told) = mpsc::channel(QUEUE);
    let target = Target {
        what: "ServiceCIDRs",
        resource: "servicecidrs",
        path: "/apis/networking.k8s.io/v1/servicecidrs",
        selector: String::new(),
    };
    tokio::spawn(run_watch(api.clone(), target, sender));
    let source = Source { told, known: HashMap::new(), listing: None, networks };
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = source.run() => {}
        }
    });
    out
}

type Known = HashMap<String, Vec<IpNetwork>>;

struct Source {
    told: mpsc::Receiver<Told>,
    known: Known,
    listing: Option<Known>,
    networks: watch::Sender<Option<Vec<IpNetwork>>>,
}

#[derive(Deserialize)]
struct Raw {
    spec: RawSpec,
}

#[derive(Deserialize)]
struct RawSpec {
    cidrs: Vec<String>,
}

impl Source {
    async fn run(mut self) {
        while let Some(told) = self.told.recv().await {
            if self.take(told) {
                self.publish();
            }
            if self.networks.is_closed() {
                return;
            }
        }
    }

    /// Takes in one word of the watch; says whether the networks may be others now.
    fn take(&mut self, told: Told) -> bool {
        match told {
            Told::ListBegins => self.listing = Some(Known::new()),
            Told::Listed(object) => {
                let networks = read(&object).or_else(|| self.known.get(&object.name).cloned());
                if let (Some(listing), Some(networks)) = (&mut self.listing, networks) {
                    listing.insert(object.name, networks);
                }
            }
            Told::Unlisted(object) => {
                self.listing.as_mut().map(|listing| listing.remove(&object.name));
            }
            Told::ListEnds(_) => {
                self.known = self.listing.take().unwrap_or_default();
                return true;
            }
            Told::Changed(object) => {
                let Some(networks) = read(&object) else { return false };
                self.known.insert(object.name, networks);
                return true;
            }
            Told::Deleted(object) => return self.known.remove(&object.name).is_some(),
            Told::Reached(_) | Told::Watching | Told::Lost(_) => {}
        }
        false
    }

    fn publish(&self) {
        let mut networks: Vec<IpNetwork> = self.known.values().flatten().copied().collect();
        networks.sort_unstable();
        networks.dedup();
        let networks = Some(networks).filter(|networks| !networks.is_empty());
        self.networks.send_if_modified(|current| {
            let is_news = *current != networks;
            *current = networks;
            is_news
        });
    }
}

/// The networks of an object. One that cannot be read changes nothing.
fn read(object: &Object) -> Option<Vec<IpNetwork>> {
    let networks = parse(object.bytes());
    if let Err(reason) = &networks {
        tracing::warn!(servicecidr = object.name, reason, "ignored a ServiceCIDR");
    }
    networks.ok()
}

fn parse(json: &[u8]) -> Result<Vec<IpNetwork>, String> {
    let Raw { spec } = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let network = |text: &String| {
        let network = text.parse().ok().filter(|network: &IpNetwork| network.prefix() >= SHORTEST_PREFIX);
        network.ok_or_else(|| {
            format!("spec.cidrs has {text:?}; expected such as 10.96.0.0/12, with a prefix of at least {SHORTEST_PREFIX} bits")
        })
    };
    spec.cidrs.iter().map(network).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, cidrs: &str) -> Object {
        let json = format!(r#"{{"metadata": {{"name": "{name}"}}, "spec": {{"cidrs": {cidrs}}}}}"#);
        Object {
            namespace: String::new(),
            name: name.to_owned(),
            revision: 1,
            json: serde_json::from_str(&json).unwrap(),
        }
    }

    #[test]
    fn networks_follow_the_objects_and_bad_ones_change_nothing() {
        let (networks, out) = watch::channel(None);
        let mut source = Source { told: mpsc::channel(1).1, known: Known::new(), listing: None, networks };
        let mut take = |told| {
            if source.take(told) {
                source.publish();
            }
            out.borrow().iter().flatten().map(ToString::to_string).collect::<Vec<_>>()
        };
        take(Told::ListBegins);
        assert!(take(Told::Listed(object("kubernetes", r#"["10.96.0.0/16", "fd96::/108"]"#))).is_empty());
        assert_eq!(take(Told::ListEnds(1)), ["10.96.0.0/16", "fd96::/108"]);
        let more = take(Told::Changed(object("more", r#"["10.112.0.0/16", "10.96.0.0/16"]"#)));
        assert_eq!(more, ["10.96.0.0/16", "10.112.0.0/16", "fd96::/108"]);
        for bad in [r#"["0.0.0.0/0"]"#, r#"["x"]"#, "7"] {
            assert_eq!(take(Told::Changed(object("more", bad))).len(), 3, "{bad}");
        }
        assert_eq!(take(Told::Deleted(object("more", "[]"))).len(), 2);
        take(Told::ListBegins);
        assert!(take(Told::ListEnds(2)).is_empty(), "none at all: whoever asks goes by the configuration");
    }
}
