//! `weft certs certificate-key`: a key for uploaded certificates.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

/// Bytes of a key: AES-256.
const LENGTH: usize = 32;

/// Print a new key that certificates can be uploaded with.
///
/// 64 hexadecimal digits, for `weft init --certificate-key` and `weft join --certificate-key`. It is a secret.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  weft certs certificate-key")]
pub(super) struct KeyArgs {}

pub(super) fn run() -> anyhow::Result<ExitCode> {
    let mut key = [0; LENGTH];
    getrandom::fill(&mut key).context("the system gives no random numbers")?;
    let mut text = String::new();
    for byte in key {
        write!(text, "{byte:02x}")?;
    }
    println!("{text}");
    Ok(ExitCode::SUCCESS)
}
