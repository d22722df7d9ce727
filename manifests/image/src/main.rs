//! `weft-image`: what `make image` calls.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use weft_image::build::{Input, outputs, write};
use weft_image::elf::Architecture;
use weft_image::layer::Binaries;
use weft_image::oci::About;
use weft_image::reference::{Reference, Repository};
use weft_image::{cargo, date};

/// Build weft's container image from static binaries, without a container engine.
///
/// Writes an OCI archive with an index of every architecture that is given, and for each of them a docker archive and a
/// list of materials. The same input gives the same bytes.
#[derive(Debug, Parser)]
#[command(
    name = "weft-image",
    version,
    after_help = "Example:\n  weft-image --binaries target/x86_64-unknown-linux-musl/release --out target/image"
)]
struct Args {
    /// Folder with `weft` and `weft-cni` of one architecture; give one for each
    #[arg(long, value_name = "FOLDER", required = true)]
    binaries: Vec<PathBuf>,

    /// Folder to write to
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,

    /// Repository of the image's name, with its host
    #[arg(long, default_value = "localhost")]
    repository: Repository,

    /// Tag of the image
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    tag: String,

    /// Commit that the binaries were built from
    #[arg(long, value_name = "COMMIT")]
    revision: Option<String>,

    /// Date of that commit, in seconds since 1970; without it the image has no date
    #[arg(long, value_name = "SECONDS", env = "SOURCE_DATE_EPOCH")]
    date: Option<u32>,

    /// Cargo.toml of the workspace that the binaries were built from
    #[arg(long, value_name = "FILE", default_value = "Cargo.toml")]
    manifest: PathBuf,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let about = About {
        reference: Reference { repository: args.repository, tag: args.tag },
        revision: args.revision,
        created: args.date.map(date::rfc3339),
    };
    let mut inputs = Vec::new();
    for folder in &args.binaries {
        let (architecture, binaries) = Binaries::read(folder)?;
        inputs.push(Input {
            architecture,
            binaries,
            packages: cargo::packages(&args.manifest, architecture.target())?,
        });
    }
    let files = outputs(&about, &inputs)?;
    println!("{}", about.reference);
    for architecture in Architecture::ALL {
        match inputs.iter().find(|input| input.architecture == architecture) {
            Some(Input { binaries, .. }) => {
                println!("  {architecture}: {} bytes unpacked", binaries.agent.len() + binaries.plugin.len());
            }
            None => println!("  {architecture}: not in it; make build TARGET={} first", architecture.target()),
        }
    }
    for path in write(&args.out, &files)? {
        println!("  {}", path.display());
    }
    Ok(())
}
