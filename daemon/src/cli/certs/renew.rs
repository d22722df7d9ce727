//! `weft certs renew`: new certificates, and the components that use them restarted.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::{Places, kind, time};
use crate::bootstrap::config::model::EncryptionAlgorithm;
use crate::bootstrap::hex;
use crate::bootstrap::pki::renew::{RenewOptions, Renewal, names_here, renew};
use crate::bootstrap::pki::restart::affected;
use crate::bootstrap::pki::rollout::{Rollout, roll_out};
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
/// Exit codes: 0 all is renewed or needs nothing; 1 something is not, as its line says; 2 wrong arguments.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weft certs renew all\n  weft certs renew apiserver\n  weft certs renew all --if-due\n  \
                  weft certs renew admin.conf --validity-period 90d"
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

pub(super) fn run(args: &RenewArgs) -> anyhow::Result<ExitCode> {
    let paths = args.places.paths();
    let options =
        RenewOptions { kind: args.encryption_algorithm, validity: args.validity_period, only_due: args.if_due };
    let one = [args.name.as_str()];
    let here = names_here(&paths);
    let names: &[&str] = if args.name == "all" { &here } else { &one };
    let mut failed = false;
    let mut concerned: BTreeSet<&str> = BTreeSet::new();
    for name in names {
        match renew(name, &paths, options, Timestamp::now()) {
            Ok(Renewal::Renewed { until, .. }) => {
                println!("{name}: renewed, holds until {until}");
                concerned.extend(affected(name));
            }
            Ok(Renewal::NotDue { until }) => println!("{name}: nothing to do, holds until {until}"),
            Ok(Renewal::External) => println!("{name}: not renewed, its authority's key is not here"),
            // Who asks for one by name expects it to be there.
            Ok(Renewal::Missing) if args.name != "all" => {
                eprintln!("weft certs renew: {name}: it is not there");
                failed = true;
            }
            Ok(Renewal::Missing) => println!("{name}: nothing to do, it is not there"),
            Err(error) => {
                eprintln!("weft certs renew: {name}: {error}");
                failed = true;
            }
        }
    }
    if !args.no_restart {
        for component in ORDER.into_iter().filter(|component| concerned.contains(component)) {
            failed |= !tell_rollout(component, &paths);
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
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
