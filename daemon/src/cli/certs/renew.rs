//! `weft certs renew`: new certificates, and the components that use them restarted; once, or for ever.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::{Places, kind, time};
use crate::bootstrap::config::model::EncryptionAlgorithm;
use crate::bootstrap::hex;
use crate::bootstrap::pki::renew::{RenewOptions, Renewal, names_here, renew};
use crate::bootstrap::pki::restart::affected;
use crate::bootstrap::pki::rollout::{Rollout, roll_out};
use crate::bootstrap::pki::upkeep;
use crate::bootstrap::resolved::Paths;

/// How long a component may take to come back.
const LIMIT: Duration = Duration::from_secs(60);
/// Whom the others need is restarted first.
const ORDER: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// Renew certificates, and restart the components that use them.
///
/// A new key and a certificate with the same subject, names and purposes, which holds as long as the old one did. Authorities
/// and kubelet's own certificate are not renewed here. Static pods that use a renewed one are restarted by kubelet, one after
/// the other, and it is looked what certificate they show then. With --if-due only those are renewed that have less than a
/// third of their time left, so that a timer can call it each day.
///
/// With --every it goes on for ever: it looks as often as that and whenever one becomes due, and also restarts components that
/// were started before their certificates were renewed. `weft init` and `weft join --control-plane` run it so, as the static
/// pod weft-cert-renewal, which is not Ready when a certificate is overdue.
///
/// Exit codes: 0 all is renewed or needs nothing; 1 something is not, as its line says; 2 wrong arguments.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weft certs renew all\n  weft certs renew apiserver\n  weft certs renew all --if-due\n  \
                  weft certs renew all --if-due --every 1h\n  weft certs renew admin.conf --validity-period 90d"
)]
pub(super) struct RenewArgs {
    /// Name of the certificate, as `weft certs check` shows it, or all
    #[arg(value_name = "NAME|all")]
    name: String,

    #[command(flatten)]
    places: Places,

    /// Only what has less than a third of its time left
    #[arg(long)]
    if_due: bool,

    /// Go on for ever, and look so often, as 1h
    #[arg(long, value_name = "TIME", value_parser = time, requires = "if_due")]
    every: Option<Duration>,

    /// How long the new ones hold, as 8760h or 90d; as long as the old ones if not given
    #[arg(long, value_name = "TIME", value_parser = time)]
    validity_period: Option<Duration>,

    /// Kind of the new keys, such as ECDSA-P256 or RSA-2048; as the old ones if not given
    #[arg(long, value_name = "KIND", value_parser = kind)]
    encryption_algorithm: Option<EncryptionAlgorithm>,

    /// Leave the components that use them alone
    #[arg(long)]
    no_restart: bool,
}

/// What one pass does.
#[derive(Debug, Clone)]
struct Work {
    name: String,
    paths: Paths,
    options: RenewOptions,
    restart: bool,
    /// Whether it comes again: then what needs nothing is not worth a line, and who is behind is restarted.
    again: bool,
}

pub(super) fn run(args: &RenewArgs) -> anyhow::Result<ExitCode> {
    let work = Work {
        name: args.name.clone(),
        paths: args.places.paths(),
        options: RenewOptions {
            kind: args.encryption_algorithm,
            validity: args.validity_period,
            only_due: args.if_due,
        },
        restart: !args.no_restart,
        again: args.every.is_some(),
    };
    match args.every {
        None => Ok(if work.pass() { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
        Some(every) if every.is_zero() => bail!("--every is 0; expected a time such as 1h"),
        Some(every) => forever(&work, every),
    }
}

/// Passes until SIGTERM or SIGINT. Ended in the middle of one it leaves what the next finds and finishes.
fn forever(work: &Work, every: Duration) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let ended = runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        let mut interrupted = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
        println!("weft certs renew: looking after the certificates in {}", work.paths.pki.display());
        let splay = splay(every)?;
        let passes = async {
            loop {
                let this = work.clone();
                spawn_blocking(move || this.pass()).await.context("a pass has broken off")?;
                sleep(upkeep::pause(&work.paths, every, splay, Timestamp::now())).await;
            }
        };
        tokio::select! {
            broken = passes => broken,
            _ = terminated.recv() => Ok(ExitCode::SUCCESS),
            _ = interrupted.recv() => Ok(ExitCode::SUCCESS),
        }
    });
    // A pass that waits for a component is not waited for.
    runtime.shutdown_background();
    ended
}

/// A time up to `every` that no other node is likely to have.
fn splay(every: Duration) -> anyhow::Result<Duration> {
    let mut bytes = [0; 2];
    getrandom::fill(&mut bytes).context("the system gives no random numbers")?;
    Ok(every / u32::from(u16::MAX) * u32::from(u16::from_ne_bytes(bytes)))
}

impl Work {
    /// Renews, restarts, and says so; whether all is as it should be.
    fn pass(&self) -> bool {
        let paths = &self.paths;
        let locked = upkeep::lock(paths);
        if let Err(error) = &locked
            && paths.pki.exists()
        {
            eprintln!("weft certs renew: {} cannot be locked: {error}", paths.pki.display());
            return false;
        }
        let one = [self.name.as_str()];
        let here = names_here(paths);
        let names: &[&str] = if self.name == "all" { &here } else { &one };
        let mut well = true;
        let mut concerned: BTreeSet<&str> = BTreeSet::new();
        for name in names {
            match renew(name, paths, self.options, Timestamp::now()) {
                Ok(Renewal::Renewed { until, .. }) => {
                    println!("{name}: renewed, holds until {until}");
                    concerned.extend(affected(name));
                }
                // Who asks for one by name expects it to be there.
                Ok(Renewal::Missing) if self.name != "all" => {
                    eprintln!("weft certs renew: {name}: it is not there");
                    well = false;
                }
                Ok(Renewal::External) => println!("{name}: not renewed, its authority's key is not here"),
                Ok(Renewal::NotDue { until }) => self.usual(&format!("{name}: nothing to do, holds until {until}")),
                Ok(Renewal::Missing) => self.usual(&format!("{name}: nothing to do, it is not there")),
                Err(error) => {
                    eprintln!("weft certs renew: {name}: {error}");
                    well = false;
                }
            }
        }
        // A restart may take a minute, and writes no certificate.
        drop(locked);
        if !self.restart {
            return well;
        }
        for component in ORDER {
            let behind = self.again
                && upkeep::is_behind(component, paths).unwrap_or_else(|error| {
                    eprintln!("weft certs renew: {component}: {error}");
                    false
                });
            if behind || concerned.contains(component) {
                well &= tell_rollout(component, paths);
            }
        }
        well
    }

    /// What is no news to who comes again.
    fn usual(&self, line: &str) {
        if !self.again {
            println!("{line}");
        }
    }
}

/// Restarts a component and says what came of it; whether it is as it should be.
fn tell_rollout(component: &str, paths: &Paths) -> bool {
    match roll_out(component, paths, LIMIT, Timestamp::now()) {
        Ok(Rollout::NotHere) => println!("{component}: nothing to do, this node has no such static pod"),
        Ok(Rollout::NotRunning) => println!("{component}: does not run; it will start with the new certificates"),
        Ok(Rollout::Serving { serial }) => {
            println!("{component}: restarted, shows the certificate with serial number {}", hex::encode(&serial));
        }
        Err(error) => {
            eprintln!("weft certs renew: {error}");
            return false;
        }
    }
    true
}
