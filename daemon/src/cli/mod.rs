//! The command line: one file a subcommand, each with its arguments and a `run`.

mod agent;
mod balancer;
mod bringup;
mod certs;
mod cleanup;
mod cluster;
mod config;
mod doctor;
mod export;
mod images;
mod init;
mod join;
mod known;
mod kubeconfig;
mod lease;
mod logging;
mod migrate;
mod network;
mod pause;
mod preflight;
mod print;
mod reset;
mod services;
mod settings;
mod source;
mod status;
mod supervise;
mod token;
mod upgrade;

use std::ffi::OsStr;
use std::process::ExitCode;

use clap::{ArgAction, Parser, Subcommand};

use crate::bootstrap::phases::Exit;
use crate::config::with_two_dashes;

/// Exit code for what may work later: the store does not answer, or has no subnet to give (`EX_TEMPFAIL` of sysexits.h).
const TRY_AGAIN: u8 = 75;
/// Exit code for wrong arguments, as clap and most programs have it.
const WRONG_WORDS: u8 = 2;

/// A Kubernetes cluster's pod network and Services.
#[derive(Debug, Parser)]
#[command(name = "weft", version, propagate_version = true)]
struct Cli {
    /// As upstream's pause program has it, whose place weft's image takes: `kubeadm upgrade` has a Job run the pause image so, and
    /// goes on once that has ended well.
    #[arg(short = 'v', action = ArgAction::Version, hide = true)]
    version_of_pause: Option<bool>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(Box<init::InitArgs>),
    Join(Box<join::JoinArgs>),
    Reset(reset::ResetArgs),
    Upgrade(upgrade::UpgradeArgs),
    Agent(agent::AgentArgs),
    Lease(lease::LeaseArgs),
    Status(status::StatusArgs),
    Doctor(doctor::DoctorArgs),
    Cleanup(cleanup::CleanupArgs),
    Export(export::ExportArgs),
    Migrate(migrate::MigrateArgs),
    Config(config::ConfigArgs),
    Preflight(Box<preflight::PreflightArgs>),
    Images(images::ImagesArgs),
    Pause(pause::PauseArgs),
    Certs(certs::CertsArgs),
    Balancer(balancer::BalancerArgs),
    Kubeconfig(kubeconfig::KubeconfigArgs),
    #[command(hide = true)]
    Supervise(supervise::SuperviseArgs),
    Token(token::TokenArgs),
}

/// Runs the command that the process was started with.
///
/// # Errors
/// What the command could not do, in words for a person.
pub fn run() -> anyhow::Result<ExitCode> {
    let cli = match Cli::try_parse_from(with_two_dashes(std::env::args_os())) {
        Ok(cli) => cli,
        Err(error) => return Ok(answered(&error, std::env::args_os().nth(1).as_deref())),
    };
    match cli.command {
        Command::Init(args) => init::run(&args),
        Command::Join(args) => join::run(&args),
        Command::Reset(args) => reset::run(&args),
        Command::Upgrade(args) => upgrade::run(&args),
        Command::Agent(args) => agent::run(&args),
        Command::Lease(args) => lease::run(&args),
        Command::Status(args) => Ok(status::run(&args)),
        Command::Doctor(args) => Ok(doctor::run(&args)),
        Command::Cleanup(args) => cleanup::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Migrate(args) => migrate::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Preflight(args) => Ok(preflight::run(&args)),
        Command::Images(args) => images::run(&args),
        Command::Pause(pause::PauseArgs {}) => pause::run(),
        Command::Certs(args) => certs::run(&args),
        Command::Balancer(args) => balancer::run(args),
        Command::Kubeconfig(args) => kubeconfig::run(&args),
        Command::Supervise(args) => supervise::run(args),
        Command::Token(args) => token::run(&args),
    }
}

/// Prints what clap answers in the place of a command: help, the version, or what is wrong with the words. Where a command tells
/// exit codes apart, wrong words have that of a wrong flag, and not clap's, which means another thing there.
fn answered(answer: &clap::Error, command: Option<&OsStr>) -> ExitCode {
    const TELLING: [&str; 3] = ["init", "join", "upgrade"];
    // Whoever has closed the pipe does not want to read it.
    let _ = answer.print();
    match answer.exit_code() {
        0 => ExitCode::SUCCESS,
        _ if command.is_some_and(|name| TELLING.iter().any(|telling| name == *telling)) => {
            ExitCode::from(Exit::Config as u8)
        }
        _ => ExitCode::from(WRONG_WORDS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    #[test]
    fn it_tells_its_version_as_a_pause_program_is_asked_for_it() {
        for flag in ["-v", "-V", "--version"] {
            assert_eq!(Cli::try_parse_from(["weft", flag]).unwrap_err().kind(), ErrorKind::DisplayVersion, "{flag}");
        }
    }

    #[test]
    fn each_command_has_an_example() {
        let mut cli = Cli::command();
        cli.build();
        for command in cli.get_subcommands_mut().filter(|command| command.get_name() != "help") {
            let help = command.render_long_help().to_string();
            assert!(help.contains("Example"), "{}", command.get_name());
        }
    }
}
