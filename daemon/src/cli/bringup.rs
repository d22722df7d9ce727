//! What `weft init` and `weft join` have in common on the command line.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};

use crate::bootstrap::config::WeftOptions;
use crate::bootstrap::kubelet::service::{Plain, ServiceManager};
use crate::bootstrap::phases::{Format, PhaseError, Teller, scratch};
use crate::bootstrap::resolved::Paths;

/// How a run speaks.
#[derive(Debug, Args)]
pub(super) struct Speech {
    /// Lines for people, or one JSON object a line
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Output {
    #[default]
    Text,
    Json,
}

/// What ended a run: the phase, and why.
pub(super) type Ended = (String, PhaseError);

/// Runs `work` with a teller whose log is `log`, and ends as it ended.
pub(super) fn run<F>(
    speech: &Speech,
    log: &str,
    work: impl FnOnce(Paths, std::sync::Arc<Teller>) -> F,
) -> anyhow::Result<ExitCode>
where
    F: Future<Output = Result<(), Ended>>,
{
    let format = match speech.output {
        Output::Text => Format::Text,
        Output::Json => Format::Json,
    };
    let paths = Paths::under("/");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start")?;
    let tell = std::sync::Arc::new(Teller::new(format, &paths, log));
    let outcome = runtime.block_on(work(paths, std::sync::Arc::clone(&tell)));
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

/// Whoever keeps services running on this host.
pub(super) fn services(paths: &Paths, weft: &WeftOptions) -> std::io::Result<ServiceManager> {
    let brought = |name: &str| weft.kubernetes_bin.as_ref().map(|folder| folder.join(name));
    let kubelet: Vec<PathBuf> =
        [Some(paths.root.join("usr/bin/kubelet")), brought("kubelet")].into_iter().flatten().collect();
    let plain = Plain {
        weft: std::env::current_exe()?,
        kubelet: kubelet.into_iter().find(|path| path.is_file()),
        containerd: None,
        paths: paths.clone(),
    };
    Ok(ServiceManager::detect(&std::env::var_os("PATH").unwrap_or_default(), plain))
}

/// Says what should be known of the configuration. A dry run keeps no log.
pub(super) fn begin(tell: &Teller, verb: &str, is_dry: bool, notices: &[impl std::fmt::Display]) {
    if is_dry {
        tell.forget_log();
    }
    notices.iter().for_each(|notice| tell.warning(verb, notice.to_string()));
}

/// Has the files of a dry run go to a directory of their own. Returns the paths of the machine.
pub(super) fn elsewhere(paths: &mut Paths, verb: &str) -> Result<Paths, Ended> {
    let elsewhere = scratch(paths, verb).map_err(|error| ("dry-run".to_owned(), PhaseError::File(error)))?;
    Ok(std::mem::replace(paths, elsewhere))
}

/// What a run was not even begun for: phase `preflight` has not passed without root, the rest is the command's own.
pub(super) fn not_begun(verb: &str, error: PhaseError) -> Ended {
    let phase = if matches!(error, PhaseError::Preflight(_)) { "preflight" } else { verb };
    (phase.to_owned(), error)
}

/// A mistake in what was given, before any phase.
pub(super) fn usage(verb: &str, error: impl std::fmt::Display) -> Ended {
    (verb.to_owned(), PhaseError::Usage(error.to_string()))
}
