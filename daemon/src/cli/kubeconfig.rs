//! `weft kubeconfig`: kubeconfigs for people.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::certs::{Places, kind, time};
use crate::bootstrap::config::model::EncryptionAlgorithm;
use crate::bootstrap::kubeconfig::{Kubeconfig, UserRequest, for_user};
use crate::bootstrap::pki::Secret;

/// Make kubeconfigs.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  weft kubeconfig user --client-name bob --org developers > bob.conf")]
pub(super) struct KubeconfigArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    User(UserArgs),
}

/// Print a kubeconfig for a user, with a certificate that the cluster's authority signs.
///
/// The user may do what RBAC grants to his name and groups. A certificate cannot be taken back: it holds until it runs out.
/// With --token the kubeconfig has that token and no certificate. Server and name of the cluster are those of admin.conf.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weft kubeconfig user --client-name bob --org developers --validity-period 90d > bob.conf\n  \
                  weft kubeconfig user --client-name bob --token \"$TOKEN\" > bob.conf"
)]
struct UserArgs {
    /// Name of the user
    #[arg(long, value_name = "NAME")]
    client_name: String,

    /// A group of the user; may be given several times
    #[arg(long, value_name = "GROUP")]
    org: Vec<String>,

    /// A token, in place of a certificate
    #[arg(long, value_name = "TOKEN", value_parser = secret)]
    token: Option<Secret>,

    /// How long the certificate holds, as 8760h or 90d
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "8760h")]
    validity_period: Duration,

    /// Kind of the key, such as ECDSA-P256 or RSA-2048
    #[arg(long, value_name = "KIND", value_parser = kind, default_value = "ECDSA-P256")]
    encryption_algorithm: EncryptionAlgorithm,

    /// URL of the API, in place of that of admin.conf
    #[arg(long, value_name = "URL")]
    server: Option<String>,

    #[command(flatten)]
    places: Places,
}

/// Never an error: a token is any text.
#[expect(clippy::unnecessary_wraps, reason = "clap's parsers may fail")]
fn secret(text: &str) -> Result<Secret, String> {
    Ok(Secret::new(text))
}

pub(super) fn run(args: &KubeconfigArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::User(args) => user(args),
    }
}

fn user(args: &UserArgs) -> anyhow::Result<ExitCode> {
    let paths = args.places.paths();
    let admin = Kubeconfig::load(&paths.kubernetes.join("admin.conf"))?;
    let admin_server = admin.as_ref().and_then(Kubeconfig::server);
    let server = args.server.as_deref().or(admin_server).ok_or_else(|| {
        anyhow!("where is the API? {} does not tell; give --server", paths.kubernetes.join("admin.conf").display())
    })?;
    let request = UserRequest {
        user: &args.client_name,
        groups: &args.org,
        token: args.token.clone(),
        cluster: admin.as_ref().and_then(Kubeconfig::cluster_name).unwrap_or("kubernetes"),
        server,
        kind: args.encryption_algorithm,
        validity: args.validity_period,
    };
    let made = for_user(&request, &paths, Timestamp::now())?;
    io::stdout().lock().write_all(made.render().expose()).context("cannot write the kubeconfig")?;
    Ok(ExitCode::SUCCESS)
}
