//! `weft certs certificate-key`: a key for uploaded certificates.

use std::process::ExitCode;

use clap::Args;

use crate::bootstrap::api::CertificateKey;

/// Print a new key that certificates can be uploaded with.
///
/// 64 hexadecimal digits, for `weft init --certificate-key` and `weft join --certificate-key`. It is a secret.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  weft certs certificate-key")]
pub(super) struct KeyArgs {}

pub(super) fn run() -> anyhow::Result<ExitCode> {
    println!("{}", CertificateKey::generate()?.reveal());
    Ok(ExitCode::SUCCESS)
}
