//! `weft images`: what a node needs, and how it gets there without a registry.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;

use super::print::{self, Output};
use crate::bootstrap::cri::Cri;
use crate::bootstrap::images::{
    Change, Containerd, Event, KUBERNETES_VERSION, Names, Own, Pulls, Sources, Wanted, load_into, provide, save,
    weft_image,
};

/// List, pull, save and load the images that a node needs.
///
/// Only `pull` uses the network, and it leaves alone what is there. `load` and `save` need containerd.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  weft images list\n  weft images pull --image-repository registry.example/k8s\n  \
                  weft images save cluster.tar\n  weft images load cluster.tar")]
pub(super) struct ImagesArgs {
    #[command(subcommand)]
    command: Command,

    /// Socket of the container runtime
    #[arg(long, global = true, value_name = "SOCKET", default_value = "unix:///run/containerd/containerd.sock")]
    cri_socket: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(ListArgs),
    Pull(PullArgs),
    Save(SaveArgs),
    Load(LoadArgs),
}

/// What the names are made of.
#[derive(Debug, Args)]
struct NameArgs {
    /// Version of the control plane
    #[arg(long, value_name = "VERSION", default_value = KUBERNETES_VERSION)]
    kubernetes_version: String,

    /// Where Kubernetes' images come from
    #[arg(long, value_name = "REPOSITORY", default_value = "registry.k8s.io")]
    image_repository: String,

    /// weft's own image
    #[arg(long, value_name = "NAME", default_value_t = weft_image("localhost"))]
    weft_image: String,

    /// Only what a node without a control plane needs
    #[arg(long)]
    worker: bool,
}

impl NameArgs {
    fn wanted(&self) -> Vec<Wanted> {
        let usual = Names::usual(&self.image_repository, &self.kubernetes_version);
        Names { weft: self.weft_image.clone(), ..usual }.wanted(!self.worker)
    }
}

/// List the images that a node needs, and whether they are there.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  weft images list -o json")]
struct ListArgs {
    #[command(flatten)]
    names: NameArgs,

    /// How the answer looks
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Have the runtime fetch the images that are missing.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  weft images pull --kubernetes-version v1.36.2")]
struct PullArgs {
    #[command(flatten)]
    names: NameArgs,

    /// Take what can be made of the programs in this folder from there
    #[arg(long, value_name = "DIR")]
    kubernetes_bin: Option<PathBuf>,

    /// How many images at once
    #[arg(long, value_name = "NUMBER", default_value_t = 3)]
    parallel: usize,

    /// Do not look first whether the registry or a mirror answers
    #[arg(long)]
    no_probe: bool,
}

/// Write images of containerd's into an archive (an OCI layout in a tar file).
///
/// Without --image: those that a node needs and that are there.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  weft images save --image registry.k8s.io/pause:3.10.2 pause.tar")]
struct SaveArgs {
    /// Where to write
    file: PathBuf,

    /// Image to save; give one for each
    #[arg(long = "image", value_name = "NAME")]
    images: Vec<String>,

    #[command(flatten)]
    names: NameArgs,
}

/// Bring the images of archives into containerd: OCI layouts and what `docker save` writes, .tar, .tar.gz or unpacked.
///
/// Every digest is checked before the first image is brought in.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  weft images load cluster.tar")]
struct LoadArgs {
    /// Archives, or folders of archives
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

/// An image in the list.
#[derive(Debug, Serialize)]
struct Line {
    name: String,
    /// `None` if the runtime does not answer.
    present: Option<bool>,
    /// Bytes, compressed.
    size: u64,
}

pub(super) fn run(args: &ImagesArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start")?;
    let result = runtime.block_on(async {
        match &args.command {
            Command::List(list) => list_images(args, list).await,
            Command::Pull(pull) => pull_images(args, pull).await,
            Command::Save(save) => save_images(args, save).await,
            Command::Load(load) => load_images(args, load).await,
        }
    });
    // A name that is still being looked up shall not hold up the end.
    runtime.shutdown_background();
    result
}

async fn list_images(args: &ImagesArgs, list: &ListArgs) -> anyhow::Result<ExitCode> {
    let cri = Cri::connect(&args.cri_socket).await;
    let mut lines = Vec::new();
    let mut silent = cri.as_ref().err().map(ToString::to_string);
    for Wanted { name, .. } in list.names.wanted() {
        let found = match &cri {
            Ok(cri) => cri.find_image(&name).await.map_err(|error| silent = Some(error.to_string())).ok(),
            Err(_) => None,
        };
        let size = found.iter().flatten().map(|image| image.size).sum();
        lines.push(Line { name, present: found.map(|image| image.is_some()), size });
    }
    if let Some(why) = silent {
        // The names are the answer; that is only what they lack.
        let _ = writeln!(std::io::stderr(), "weft images: not known what is there: {why}");
    }
    Ok(print::whole(list.output, &json!({"images": lines}), |_| table(&lines), 0))
}

fn table(lines: &[Line]) -> String {
    let width = lines.iter().map(|line| line.name.len()).max().unwrap_or_default();
    let mut text = String::new();
    for Line { name, present, size } in lines {
        let state = match present {
            Some(true) => format!("present  {}", megabytes(*size)),
            Some(false) => "missing".to_owned(),
            None => "unknown".to_owned(),
        };
        text += format!("{name:width$}  {state}").trim_end();
        text.push('\n');
    }
    text
}

/// A size for people.
fn megabytes(bytes: u64) -> String {
    let tenths = bytes.div_ceil(100_000);
    format!("{}.{} MB", tenths / 10, tenths % 10)
}

async fn pull_images(args: &ImagesArgs, pull: &PullArgs) -> anyhow::Result<ExitCode> {
    let cri = Cri::connect(&args.cri_socket).await?;
    let how = Pulls { at_once: pull.parallel, probe: !pull.no_probe, ..Default::default() };
    let own = if pull.kubernetes_bin.is_some() { Some(Own::find(pull.kubernetes_bin.as_deref())?) } else { None };
    let sources = Sources { programs: pull.kubernetes_bin.clone(), own, pull: Some(how), ..Default::default() };
    provide(&cri, &pull.names.wanted(), &sources, &tell).await?;
    Ok(ExitCode::SUCCESS)
}

async fn save_images(args: &ImagesArgs, asked: &SaveArgs) -> anyhow::Result<ExitCode> {
    let cri = Cri::connect(&args.cri_socket).await?;
    let mut names = asked.images.clone();
    if names.is_empty() {
        for Wanted { name, .. } in asked.names.wanted() {
            if cri.find_image(&name).await?.is_some() {
                names.push(name);
            } else {
                let _ = writeln!(std::io::stderr(), "weft images: {name} is not here and will not be in the archive");
            }
        }
        anyhow::ensure!(!names.is_empty(), "none of the images that a node needs is here; name some with --image");
    }
    for name in save(&Containerd::of(&cri), &names, &asked.file).await? {
        say(&format!("saved {name}"));
    }
    Ok(ExitCode::SUCCESS)
}

async fn load_images(args: &ImagesArgs, load: &LoadArgs) -> anyhow::Result<ExitCode> {
    let cri = Cri::connect(&args.cri_socket).await?;
    for file in &load.files {
        load_into(&cri, file, &std::env::temp_dir(), &tell).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A line a step. How far a copy is only matters to who sees it move, and it takes a second.
fn tell(event: &Event) {
    match event {
        Event::Present(name) => say(&format!("present {name}")),
        Event::Reading(path) => say(&format!("reading {}", path.display())),
        Event::Wrote { .. } => {}
        Event::Imported(image) => {
            let verb = match image.change {
                Change::Made => "loaded",
                Change::Kept => "present",
                Change::Changed => "replaced",
            };
            say(&format!("{verb} {} ({})", image.name, image.digest));
        }
        Event::Pulling { name, attempt: 1 } => say(&format!("pulling {name}")),
        Event::Pulling { name, attempt } => say(&format!("pulling {name}, attempt {attempt}")),
        Event::Waiting { name, wait, cause } => {
            say(&format!("waiting {} s for {name}: {cause}", wait.as_secs_f32().ceil()));
        }
        Event::Pulled { name, size, took } => {
            say(&format!("pulled {name}, {}, in {:.1} s", megabytes(*size), took.as_secs_f32()));
        }
    }
}

/// Who has closed stdout does not want to know.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_is_there() {
        let line = |name: &str, present, size| Line { name: name.into(), present, size };
        let lines = [line("a/b:1", Some(true), 1_250_000), line("a/long:1", Some(false), 0), line("c", None, 0)];
        assert_eq!(table(&lines), "a/b:1     present  1.3 MB\na/long:1  missing\nc         unknown\n");
    }
}
