//! `weft token`: the tokens by which nodes join.

mod create;
mod list;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};

use crate::bootstrap::api::{Server, Token, delete_token, id_of};
use crate::bootstrap::resolved::Limits;

/// Where an administrator's credentials are on a node of the control plane.
const ADMIN: &str = "/etc/kubernetes/admin.conf";

/// Make, list and take back the tokens by which nodes join the cluster.
///
/// The same tokens as kubeadm's: either program sees the other's. Exit codes: 0 done, 1 not done, for the reason that is
/// told, 2 wrong arguments.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weft token create --ttl 2h --print-join-command\n  weft token list -o json\n  weft token delete abcdef"
)]
pub(super) struct TokenArgs {
    /// File with an administrator's credentials; $KUBECONFIG, ~/.kube/config or /etc/kubernetes/admin.conf if not given
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// Say what would be done, and do nothing
    #[arg(long, global = true)]
    dry_run: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(create::CreateArgs),
    List(list::ListArgs),
    /// Take tokens back: nobody can join with them any more. Nodes that have joined stay
    #[command(after_help = "Example:\n  weft token delete abcdef")]
    Delete {
        /// Tokens, or their ids: the six letters before the dot
        #[arg(required = true, value_name = "TOKEN")]
        tokens: Vec<String>,
    },
    /// Print a new token, and ask no cluster
    #[command(after_help = "Example:\n  weft init --token $(weft token generate)")]
    Generate,
}

pub(super) fn run(args: &TokenArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    match &args.command {
        Command::Create(create) => runtime.block_on(create::run(args, create)),
        Command::List(list) => runtime.block_on(list::run(args, list)),
        Command::Delete { tokens } => runtime.block_on(delete(args, tokens)),
        Command::Generate => {
            println!("{}", Token::generate()?.reveal());
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn delete(args: &TokenArgs, tokens: &[String]) -> anyhow::Result<ExitCode> {
    // All or none: a slip in the last is told before the first is gone.
    let ids = tokens.iter().map(|token| id_of(token)).collect::<Result<Vec<_>, _>>()?;
    if args.dry_run {
        ids.iter().for_each(|id| println!("bootstrap token {id} would be deleted"));
        return Ok(ExitCode::SUCCESS);
    }
    let server = args.server().await?;
    let mut code = ExitCode::SUCCESS;
    for id in ids {
        match delete_token(&server, &id).await? {
            true => println!("bootstrap token {id} deleted"),
            false => {
                eprintln!("weft token: there is no token {id}");
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

impl TokenArgs {
    /// The file with the credentials: what is given, else the first that is there.
    fn credentials(&self) -> PathBuf {
        let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".kube/config"));
        let given = std::env::var_os("KUBECONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
        let found = given.into_iter().chain(home).find(|path| path.is_file());
        self.kubeconfig.clone().or(found).unwrap_or_else(|| ADMIN.into())
    }

    async fn server(&self) -> anyhow::Result<Server> {
        Ok(Server::connect(&self.credentials(), None, &Limits::default()).await?)
    }
}
