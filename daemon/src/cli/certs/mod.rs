//! `weft certs`: the certificates of a node: how long they hold, new ones, and keys.

mod check;
mod key;
mod renew;
mod request;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::{Span, SpanRelativeTo};

use crate::bootstrap::config::model::EncryptionAlgorithm;
use crate::bootstrap::resolved::Paths;

/// Show and renew the certificates of a control-plane node.
///
/// They are those of kubeadm, under the same names, whoever has made them. Nothing but files is needed: it works when all
/// certificates have run out and no API answers.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weft certs check\n  weft certs check --fail-if-within 30d\n  weft certs renew all\n  \
                  weft certs renew all --if-due"
)]
pub(super) struct CertsArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(visible_alias = "check-expiration")]
    Check(check::CheckArgs),
    Renew(renew::RenewArgs),
    CertificateKey(key::KeyArgs),
    GenerateCsr(request::RequestArgs),
}

pub(super) fn run(args: &CertsArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Check(args) => check::run(args),
        Command::Renew(args) => renew::run(args),
        Command::CertificateKey(key::KeyArgs {}) => key::run(),
        Command::GenerateCsr(args) => request::run(args),
    }
}

/// Where the files are.
#[derive(Debug, Args)]
pub(super) struct Places {
    /// Directory that everything is under, in place of /
    #[arg(long, value_name = "DIR", default_value = "/")]
    rootfs: PathBuf,

    /// Directory of certificates and keys; /etc/kubernetes/pki if not given
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<PathBuf>,

    /// Directory of kubeconfigs; /etc/kubernetes if not given
    #[arg(long, value_name = "DIR")]
    kubeconfig_dir: Option<PathBuf>,
}

impl Places {
    pub(super) fn paths(&self) -> Paths {
        let mut paths = Paths::under(&self.rootfs);
        if let Some(directory) = &self.kubeconfig_dir {
            paths.kubernetes.clone_from(directory);
        }
        if let Some(directory) = &self.cert_dir {
            paths.pki.clone_from(directory);
        }
        paths
    }
}

/// Reads a time such as `30d`, `12h` or `8760h0m0s`; a day has 24 hours.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let expected = |_| format!("{text:?} is no time: expected such as 30d or 8760h");
    let span: Span = text.parse().map_err(expected)?;
    let time = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(expected)?;
    Duration::try_from(time).map_err(|_| format!("{text:?} is less than no time"))
}

/// Reads a kind of keys as the configuration has it.
pub(super) fn kind(text: &str) -> Result<EncryptionAlgorithm, String> {
    serde_json::from_value(serde_json::Value::String(text.to_owned()))
        .map_err(|_| format!("{text:?} is none of ECDSA-P256, ECDSA-P384, RSA-2048, RSA-3072, RSA-4096"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_and_go_write_them() {
        for (text, hours) in [("30d", 720), ("12h", 12), ("8760h0m0s", 8760)] {
            assert_eq!(time(text), Ok(Duration::from_secs(hours * 3600)), "{text}");
        }
        for text in ["", "30", "-1h", "soon"] {
            assert!(time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn kinds_are_those_of_the_configuration() {
        assert_eq!(kind("RSA-3072"), Ok(EncryptionAlgorithm::Rsa3072));
        assert!(kind("rsa").unwrap_err().contains("ECDSA-P256"));
    }
}
