//! `weft-probe`: the server that pods of the end-to-end tests run. It answers who it is and whom it sees, on every port that is
//! named, over every transport and family, until it is told to end.

use std::os::fd::AsFd;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use weft_tests::probe::Listeners;

/// Answers each question with this pod's name, the port, and the client's address and port.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// The ports.
    #[arg(required = true)]
    ports: Vec<u16>,
}

fn main() -> ExitCode {
    match serve(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-probe: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(cli: &Cli) -> Result<()> {
    // The first process of a namespace does not die of a signal that it does not handle: kubelet would wait half a minute.
    let end = SigSet::from(Signal::SIGTERM);
    end.thread_block()?;
    let told = SignalFd::new(&end)?;
    let name = nix::unistd::gethostname()?;
    let name = name.to_str().context("the host's name is not UTF-8")?;
    Ok(Listeners::bind(name, &cli.ports)?.serve(told.as_fd())?)
}
