//! `weft init`: the first node of a cluster, kubeadm's way.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};

use crate::bootstrap::config::{self, Facts, InitFlags};
use crate::bootstrap::kubelet::service::{Plain, ServiceManager};
use crate::bootstrap::phases::init::{Init, InitOptions};
use crate::bootstrap::phases::{Format, INIT, PhaseError, Teller, select};
use crate::bootstrap::resolved::Paths;

/// Bring up a cluster with this machine as its first node: control plane, pod network, Services and DNS.
///
/// It goes through kubeadm's phases and leaves kubeadm's artefacts behind. Run again, it goes on where it was ended, mends what
/// is not as it should be, and writes nothing if all is. weft reset takes everything back.
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

    /// How the run speaks: lines for people, or one JSON object a line
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Output {
    #[default]
    Text,
    Json,
}

pub(super) fn run(args: &InitArgs) -> anyhow::Result<ExitCode> {
    let (flags, only) = match &args.part {
        Some(Part::Phase { names, flags }) => (flags.as_ref(), Some(names.join("/"))),
        None => (&args.whole, None),
    };
    let format = match flags.output {
        Output::Text => Format::Text,
        Output::Json => Format::Json,
    };
    let paths = Paths::under("/");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start")?;
    let tell = Teller::new(format, &paths, "init.log");
    let outcome = runtime.block_on(initialise(&flags.init, only.as_deref(), &paths, &tell));
    // A look-up that hangs must not keep the command.
    runtime.shutdown_background();
    Ok(match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err((phase, error)) => {
            let log = tell.log().map(|path| format!("\nThe whole run is in {}", path.display())).unwrap_or_default();
            tell.error(&phase, format!("error execution phase {phase}: {error}{log}"));
            ExitCode::from(error.exit() as u8)
        }
    })
}

async fn initialise(
    flags: &InitFlags,
    only: Option<&str>,
    paths: &Paths,
    tell: &Teller,
) -> Result<(), (String, PhaseError)> {
    let usage = |error: String| ("init".to_owned(), PhaseError::Usage(error));
    let facts = Facts::gather(&paths.root).map_err(|error| usage(error.to_string()))?;
    let config = config::init(flags, &facts).map_err(|error| ("init".to_owned(), PhaseError::Config(error)))?;
    for notice in &config.notices {
        tell.warning("init", notice.to_string());
    }
    let phases = select(INIT, &config.init.skip_phases, only).map_err(|error| usage(error.to_string()))?;
    let mut paths = paths.clone();
    let certificates = &config.cluster.certificates_dir;
    paths.pki = paths.root.join(certificates.strip_prefix("/").unwrap_or(certificates));
    if config.init.dry_run == Some(true) {
        tell.step("init", format!("would go through {}", phases.join(", ")));
        return Ok(());
    }
    let weft = std::env::current_exe().map_err(|error| usage(format!("where weft itself is: {error}")))?;
    let program = |name: &str| {
        let folder = config.weft.kubernetes_bin.as_ref()?;
        Some(folder.join(name)).filter(|path| path.is_file())
    };
    let plain = Plain {
        weft,
        kubelet: installed(&paths, "kubelet").or_else(|| program("kubelet")),
        containerd: None,
        paths: paths.clone(),
    };
    let services = ServiceManager::detect(&std::env::var_os("PATH").unwrap_or_default(), plain);
    let options = InitOptions {
        upload_certs: flags.upload_certs,
        skip_token_print: flags.skip_token_print,
        skip_certificate_key_print: flags.skip_certificate_key_print,
    };
    let mut init = Init::new(&config, options, &paths, services, tell).map_err(|error| ("init".to_owned(), error))?;
    init.run(&phases).await
}

/// A program that is there already, or that preflight installs.
fn installed(paths: &Paths, name: &str) -> Option<PathBuf> {
    Some(paths.root.join("usr/bin").join(name)).filter(|path| path.is_file())
}
