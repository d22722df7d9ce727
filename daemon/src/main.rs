//! The `weft` binary: a thin shell around the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    weft::cli::run().unwrap_or_else(|error| {
        eprintln!("weft: {error:#}");
        ExitCode::FAILURE
    })
}
