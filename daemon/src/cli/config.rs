//! `weft config`: kubeadm's configuration files, printed, checked, brought up to date, and shown as they are in effect; and the
//! agent's configuration, shown.

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use serde_json::json;
use weft_cni::formats::files::{Durability, write_atomically};

use crate::bootstrap::config::{self, Defaults, Facts, Finding, InEffect, InitFlags, JoinFlags};
use crate::config::{AgentConfig, AgentFlags};

/// kubeadm's configuration files: print, check, migrate; and show what is in effect, of those and of the agent's settings.
///
/// weft reads kubeadm's files, v1beta2 to v1beta4, and a document of its own in them (weft.dev/v1 WeftConfiguration). Flags
/// go over the file, the file over defaults. Exit code 0 if all is well, 1 if a file is wrong, 2 for wrong arguments.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weft config print init-defaults\n  weft config validate --config kubeadm.yaml\n  weft config migrate --old-config kubeadm.yaml --new-config new.yaml\n  weft config effective init --config kubeadm.yaml --node-ip 192.0.2.7\n  weft config effective agent --iface eth1"
)]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Print(PrintArgs),
    Validate(ValidateArgs),
    Migrate(MigrateArgs),
    Effective(EffectiveArgs),
}

/// Print a file with all defaults, and placeholders for what depends on the machine.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  weft config print init-defaults > kubeadm.yaml")]
struct PrintArgs {
    /// Whose defaults
    #[arg(value_enum)]
    which: Which,

    /// Add weft's own document, with what kubeadm has no field for
    #[arg(long)]
    weft: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Which {
    /// weft init's
    #[value(name = "init-defaults")]
    Init,
    /// weft join's
    #[value(name = "join-defaults")]
    Join,
    /// weft reset's
    #[value(name = "reset-defaults")]
    Reset,
}

/// Check a file as strictly as can be, and print ok. Unknown and repeated fields are errors, each with its line and column.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  weft config validate --config kubeadm.yaml")]
struct ValidateArgs {
    /// The file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Write a file of v1beta2 or v1beta3 as v1beta4, and say what has changed its name or has gone.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  weft config migrate --old-config kubeadm.yaml --new-config new.yaml")]
struct MigrateArgs {
    /// The file as it is
    #[arg(long, value_name = "FILE")]
    old_config: PathBuf,

    /// Where it is written to; standard output if not given
    #[arg(long, value_name = "FILE")]
    new_config: Option<PathBuf>,
}

/// Show every value that a command would go by on this machine, and where it is from. Secrets are hidden.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  weft config effective init --config kubeadm.yaml")]
struct EffectiveArgs {
    #[command(subcommand)]
    command: Effective,
}

#[derive(Debug, Subcommand)]
enum Effective {
    Init(EffectiveInit),
    Join(EffectiveJoin),
    Agent(EffectiveAgent),
}

/// What weft init would go by
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  weft config effective init --pod-network-cidr 10.0.0.0/16")]
struct EffectiveInit {
    #[command(flatten)]
    flags: Box<InitFlags>,

    /// How the answer looks
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

/// What weft join would go by
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  weft config effective join --config join.yaml")]
struct EffectiveJoin {
    #[command(flatten)]
    flags: Box<JoinFlags>,

    /// How the answer looks
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

/// What weft agent would go by, with the same flags, variables and file
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  FLANNELD_IP_MASQ=true weft config effective agent --iface eth1 -o json")]
struct EffectiveAgent {
    #[command(flatten)]
    flags: AgentFlags,

    /// How the answer looks
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

/// How an answer looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A line a value.
    Text,
    /// One JSON list.
    Json,
}

pub(super) fn run(args: &ConfigArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Print(args) => print(args),
        Command::Validate(args) => {
            tell(&config::validate(&args.config)?);
            println!("ok");
        }
        Command::Migrate(args) => migrate(args)?,
        Command::Effective(EffectiveArgs { command }) => effective(command)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn print(args: &PrintArgs) {
    let which = match args.which {
        Which::Init => Defaults::Init,
        Which::Join => Defaults::Join,
        Which::Reset => Defaults::Reset,
    };
    print!("{}", config::print_defaults(which, args.weft));
}

fn migrate(args: &MigrateArgs) -> anyhow::Result<()> {
    let (text, notices) = config::migrate(&args.old_config)?;
    tell(&notices);
    let Some(path) = &args.new_config else {
        print!("{text}");
        return Ok(());
    };
    // There may be tokens in it; a file that is there already keeps its mode out of this, as it gets a new one.
    write_atomically(&absolute(path)?, text.as_bytes(), 0o600, Durability::Durable)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// A file beside others needs the directory that they are in.
fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = fs::canonicalize(directory).with_context(|| format!("cannot find {}", directory.display()))?;
    let name = path.file_name().with_context(|| format!("{} is no name of a file", path.display()))?;
    Ok(directory.join(name))
}

fn effective(command: &Effective) -> anyhow::Result<()> {
    let facts = || Facts::gather(Path::new("/"));
    let (layers, notices, output) = match command {
        Effective::Init(args) => {
            let config = config::init(&args.flags, &facts()?)?;
            (config.layers, config.notices, args.output)
        }
        Effective::Join(args) => {
            let config = config::join(&args.flags, &facts()?)?;
            (config.layers, config.notices, args.output)
        }
        Effective::Agent(args) => {
            let config = AgentConfig::load(&args.flags)?;
            config.warnings.iter().for_each(|warning| eprintln!("weft config: {warning}"));
            show(config.effective().map(|line| (line.key, line.value, line.origin)), args.output);
            return Ok(());
        }
    };
    tell(&notices);
    show(layers.listing().into_iter().map(|InEffect { path, value, origin }| (path, value, origin)), output);
    Ok(())
}

/// Shows each value by its name, with where it is from.
fn show<N, V, O>(listing: impl Iterator<Item = (N, V, O)>, output: Output)
where
    N: Display + Serialize,
    V: Display + Serialize,
    O: Display,
{
    match output {
        Output::Text => listing.for_each(|(name, value, origin)| println!("{name}: {value}  ({origin})")),
        Output::Json => {
            let value =
                |(name, value, origin): (N, V, O)| json!({"path": name, "value": value, "origin": origin.to_string()});
            println!("{:#}", serde_json::Value::from(listing.map(value).collect::<Vec<_>>()));
        }
    }
}

fn tell(notices: &[Finding]) {
    notices.iter().for_each(|notice| eprintln!("weft config: {notice}"));
}
