//! Who is measured. Each reads the cluster from where it reads it in life, and all are asked the same.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value;
use weft_tests::netns::Netns;
use weft_tests::process::ProcessId;

use super::cluster::Cluster;
use super::kernel::Frontends;
use crate::metric::{sample, scrape};

/// Where both daemons show kube-proxy's metrics.
const METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 10249);

/// Where contenders keep Services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// In nf_tables.
    Nftables,
    /// In IPVS, which this kernel may not have: see tests/guest.sh.
    Ipvs,
}

impl Mode {
    /// As both daemons call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Ipvs => "ipvs",
        }
    }
}

/// A service proxy on a node of its own.
pub(crate) trait Contender: Sync {
    /// What it is called in the report.
    fn name(&self) -> &'static str;
    /// Puts the whole cluster where it reads it from.
    fn provide(&mut self, cluster: &Cluster) -> Result<()>;
    /// Puts a changed slice there.
    fn publish(&self, number: u32, slice: &Value) -> Result<()>;
    /// Starts it, and does not wait.
    fn start(&mut self) -> Result<()>;
    /// Its process; `None` before the first start.
    fn process(&self) -> Option<ProcessId>;
    /// The map that has an element for each Service, if they are in nf_tables.
    fn frontends(&self) -> Frontends;
    /// Whether it says that it has programmed what it was given.
    fn synced(&self) -> Result<bool>;
    /// How long its passes took so far, by its own account.
    fn own_time(&self) -> Result<Option<Duration>>;
    /// How many netlink messages it has sent to change Services, if it counts them.
    fn messages(&self) -> Result<Option<f64>> {
        Ok(None)
    }
    /// How long to leave it alone between two changes, so that the second is not held back for the sake of the first.
    fn pause(&self) -> Duration;
    /// Whether it is a daemon, which can be restarted and holds memory.
    fn is_daemon(&self) -> bool {
        true
    }
}

/// The sum of a metric of a daemon over its labels; 0 if it is not there.
pub(crate) fn metric(netns: &Netns, name: &str) -> Result<f64> {
    Ok(sample(&scrape(netns, METRICS)?, name))
}

/// Number and sum of the passes of IPv4, in seconds, by kube-proxy's metric `sync_proxy_rules_duration_seconds`.
pub(crate) fn passes(netns: &Netns) -> Result<(f64, f64)> {
    let text = scrape(netns, METRICS)?;
    let name = "kubeproxy_sync_proxy_rules_duration_seconds";
    Ok((sample(&text, &format!("{name}_count")), sample(&text, &format!("{name}_sum"))))
}
