//! The `weft-cni` binary: a process around [`weft_cni::run`].

use std::io;
use std::process::ExitCode;

use nix::sys::stat::{Mode, umask};
use weft_cni::protocol::env::ProcessEnvironment;
use weft_cni::{Invocation, run};

/// A call makes some hundred small objects and ends.
#[global_allocator]
static MEMORY: weft_netlink::Arena = weft_netlink::Arena::new();

fn main() -> ExitCode {
    // The runtime's umask may be anything; what we write is nobody else's business. SIGPIPE is ignored by Rust's start-up,
    // so that a closed standard output is an error to roll back from and not a silent death.
    umask(Mode::from_bits_truncate(0o077));
    let invocation = Invocation {
        program: std::env::args_os().next().unwrap_or_default(),
        variables: &ProcessEnvironment,
        input: &mut io::stdin().lock(),
        output: &mut io::stdout().lock(),
        log: &mut io::stderr().lock(),
    };
    ExitCode::from(run(invocation))
}
