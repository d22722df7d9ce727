//! `weft init`: the first node of a cluster, kubeadm's way.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::bringup::{self, Ended, Speech, usage};
use crate::bootstrap::config::{self, Facts, InitFlags};
use crate::bootstrap::phases::init::{Init, InitOptions};
use crate::bootstrap::phases::{INIT, PhaseError, Teller, select};
use crate::bootstrap::resolved::Paths;

/// Bring up a cluster with this machine as its first node: control plane, pod network, Services and DNS.
///
/// It goes through kubeadm's phases and leaves kubeadm's artefacts behind. Run again, it goes on where it was ended, mends what
/// is not as it should be, and writes nothing if all is. weft reset takes everything back.
///
/// On each node api.weft.internal leads to a balancer of the API on the loopback device (weft balancer --help), and certificates
/// are renewed by themselves (weft certs renew --help): phase weft-helpers, apiBalancer in a WeftConfiguration.
///
/// Exit codes: 0 done; 1 something failed; 2 the machine cannot become a node as it is; 3 a flag or the configuration is
/// wrong; 4 images could not be had; 5 kubelet or the control plane did not get well.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  weft init\n  weft init --kubernetes-bin /opt/kubernetes/bin --apiserver-advertise-address 192.0.2.10\n  \
                  weft init --config kubeadm.yaml --skip-phases addon/coredns\n  weft init phase certs apiserver"
)]
pub(super) struct InitArgs {
    #[command(subcommand)]
    part: Option<Part>,

    #[command(flatten)]
    whole: Flags,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Run one phase with all of its parts, such as `certs` or `certs apiserver`
    #[command(after_help = "Example:\n  weft init phase control-plane apiserver --config kubeadm.yaml")]
    Phase {
        /// The phase, and a part of it; `all` is all parts
        #[arg(required = true, num_args = 1..=2, value_name = "PHASE")]
        names: Vec<String>,

        #[command(flatten)]
        flags: Box<Flags>,
    },
}

#[derive(Debug, Args)]
struct Flags {
    #[command(flatten)]
    init: InitFlags,

    #[command(flatten)]
    speech: Speech,
}

pub(super) fn run(args: &InitArgs) -> anyhow::Result<ExitCode> {
    let (flags, only) = match &args.part {
        Some(Part::Phase { names, flags }) => (flags.as_ref(), Some(names.join("/"))),
        None => (&args.whole, None),
    };
    bringup::run(&flags.speech, "init.log", |paths, tell| async move {
        initialise(&flags.init, only.as_deref(), paths, &tell).await
    })
}

async fn initialise(flags: &InitFlags, only: Option<&str>, mut paths: Paths, tell: &Teller) -> Result<(), Ended> {
    let facts = Facts::gather(&paths.root).map_err(|error| usage("init", error))?;
    let config = config::init(flags, &facts).map_err(|error| ("init".to_owned(), PhaseError::Config(error)))?;
    let is_dry = config.init.dry_run == Some(true);
    bringup::begin(tell, "init", is_dry, &config.notices);
    let phases = select(INIT, &config.init.skip_phases, only).map_err(|error| usage("init", error))?;
    let certificates = &config.cluster.certificates_dir;
    paths.pki = paths.root.join(certificates.strip_prefix("/").unwrap_or(certificates));
    let services = bringup::services(&paths, &config.weft).map_err(|error| usage("init", error))?;
    let dry_run_on = if is_dry { Some(bringup::elsewhere(&mut paths, "init")?) } else { None };
    let options = InitOptions {
        dry_run_on,
        upload_certs: flags.upload_certs,
        skip_token_print: flags.skip_token_print,
        skip_certificate_key_print: flags.skip_certificate_key_print,
    };
    let init = Init::new(&config, options, &paths, services, tell);
    init.map_err(|error| bringup::not_begun("init", error))?.run(&phases).await
}
