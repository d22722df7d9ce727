//! `weft token create`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use jiff::Timestamp;
use serde_json::Value;

use super::TokenArgs;
use crate::bootstrap::api::{
    CertificateArgument, CertificateKey, JoinCommand, Joiner, Pin, Server, Token, TokenSpec, create_token,
    read_cluster_info, sign_cluster_info,
};
use crate::bootstrap::config::model::{BootstrapToken, InitConfiguration};

/// Make a token by which nodes may join, and print it.
///
/// When this returns, nodes can join with the token at once. Without one a new token is made. Exit code 1 if there is a
/// token with that id.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weft token create\n  weft token create --ttl 2h --print-join-command\n  weft token create --ttl 0 --description 'for the lab'"
)]
pub(super) struct CreateArgs {
    /// The token, [a-z0-9]{6}.[a-z0-9]{16}
    #[arg(value_name = "TOKEN")]
    token: Option<String>,

    /// How long it holds, such as 90m or 24h; 0 is for ever [default: 24h]
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,

    /// What it may be used for: signing, authentication [default: both]
    #[arg(long, value_delimiter = ',', value_name = "USAGE")]
    usages: Vec<String>,

    /// Groups of whoever authenticates with it [default: system:bootstrappers:kubeadm:default-node-token]
    #[arg(long, value_delimiter = ',', value_name = "GROUP")]
    groups: Vec<String>,

    /// What it is for
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,

    /// Print the whole line by which a node joins, and nothing else
    #[arg(long)]
    print_join_command: bool,

    /// The line is for kubeadm, not for weft
    #[arg(long, requires = "print_join_command")]
    kubeadm: bool,

    /// The line is for a control-plane node, with this key of the uploaded certificates
    #[arg(long, requires = "print_join_command", value_name = "KEY")]
    certificate_key: Option<String>,

    /// kubeadm's configuration: the tokens of its InitConfiguration are made; flags go before
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) async fn run(args: &TokenArgs, create: &CreateArgs) -> anyhow::Result<ExitCode> {
    let key = create.certificate_key.as_deref().map(str::parse::<CertificateKey>).transpose()?;
    let now = Timestamp::now();
    let specs = wanted(create)?.iter().map(|one| TokenSpec::from_config(one, now)).collect::<Result<Vec<_>, _>>()?;
    let Some(first) = specs.first() else { bail!("the configuration has no bootstrapTokens") };
    let server = args.server().await?;
    let mut code = ExitCode::SUCCESS;
    if !args.dry_run {
        for spec in &specs {
            create_token(&server, spec).await?;
            if let Err(error) = sign_cluster_info(&server, spec).await {
                eprintln!("weft token: the token is made, but nobody can find the cluster by it yet: {error}");
                code = ExitCode::FAILURE;
            }
        }
    }
    if create.print_join_command {
        println!("{}", line(&server, &first.token, key, create.kubeadm).await?);
    } else {
        println!("{}", first.token.reveal());
    }
    Ok(code)
}

async fn line(server: &Server, token: &Token, key: Option<CertificateKey>, kubeadm: bool) -> anyhow::Result<String> {
    let info = read_cluster_info(server).await?;
    let command = JoinCommand {
        endpoint: info.server.trim_start_matches("https://").to_owned(),
        token: Some(token.clone()),
        pins: Pin::of_all(info.ca.as_bytes())?,
        control_plane: key.map(CertificateArgument::Key),
        further: Vec::new(),
    };
    Ok(command.line(if kubeadm { Joiner::Kubeadm } else { Joiner::Weft }))
}

/// The tokens of the file with the flags over them; without a file, one of the flags.
fn wanted(create: &CreateArgs) -> anyhow::Result<Vec<BootstrapToken>> {
    let mut tokens = match &create.config {
        Some(path) => of_file(path).with_context(|| path.display().to_string())?,
        None => vec![BootstrapToken::default()],
    };
    for token in &mut tokens {
        if let Some(given) = &create.token {
            token.token.clone_from(given);
        }
        if token.token.is_empty() {
            token.token = Token::generate()?.reveal();
        }
        if let Some(ttl) = &create.ttl {
            (token.ttl, token.expires) = (Some(ttl.clone()), None);
        }
        if create.description.is_some() {
            token.description.clone_from(&create.description);
        }
        for (field, given) in [(&mut token.usages, &create.usages), (&mut token.groups, &create.groups)] {
            if !given.is_empty() {
                field.clone_from(given);
            }
        }
    }
    Ok(tokens)
}

fn of_file(path: &Path) -> anyhow::Result<Vec<BootstrapToken>> {
    let text = std::fs::read_to_string(path)?;
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text)?;
    let Some(init) = documents.into_iter().find(|document| document["kind"] == "InitConfiguration") else {
        return Ok(vec![BootstrapToken::default()]);
    };
    let init: InitConfiguration = serde_json::from_value(init)?;
    Ok(if init.bootstrap_tokens.is_empty() { vec![BootstrapToken::default()] } else { init.bootstrap_tokens })
}
