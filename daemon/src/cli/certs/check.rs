//! `weft certs check`: how long the certificates hold.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use jiff::Timestamp;

use super::{Places, time};
use crate::bootstrap::pki::{expiry, upkeep};

/// Exit code when a certificate ends within the time of `--fail-if-within`.
const ENDS: u8 = 3;

/// How the answer looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Output {
    /// Tables.
    #[default]
    Text,
    /// kubeadm's `CertificateExpirationInfo`.
    Json,
    /// The same as YAML.
    Yaml,
}

/// Show how long the certificates of this node hold.
///
/// Exit codes: 0 they have been shown; 1 they cannot be; 3 with --fail-if-within, if one ends within that time, has ended or
/// cannot be read, and with --fail-if-overdue, if the automatic renewal has not done its work.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weft certs check\n  weft certs check -o json\n  weft certs check --fail-if-within 30d"
)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    places: Places,

    /// How the answer looks
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,

    /// End with exit code 3 if one of them ends within this time, as 30d or 12h
    #[arg(long, value_name = "TIME", value_parser = time)]
    fail_if_within: Option<Duration>,

    /// End with exit code 3 if one of the leaves has less than a quarter of its time left: renewal begins at a third
    #[arg(long)]
    fail_if_overdue: bool,
}

pub(super) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let (paths, now) = (args.places.paths(), Timestamp::now());
    let found = expiry::look(&paths, now);
    let text = match args.output {
        Output::Text => found.text(),
        Output::Json => serde_json::to_string_pretty(&found)? + "\n",
        Output::Yaml => serde_saphyr::to_string(&found)?,
    };
    io::stdout().lock().write_all(text.as_bytes()).context("cannot write the answer")?;
    let seconds = args.fail_if_within.map(|time| i64::try_from(time.as_secs()).unwrap_or(i64::MAX));
    let overdue = if args.fail_if_overdue { upkeep::overdue(&paths, now) } else { Vec::new() };
    if !overdue.is_empty() {
        eprintln!("weft certs check: not renewed in time: {}", overdue.join(", "));
    }
    let ends = seconds.is_some_and(|seconds| found.ends_within(seconds)) || !overdue.is_empty();
    Ok(if ends { ExitCode::from(ENDS) } else { ExitCode::SUCCESS })
}
