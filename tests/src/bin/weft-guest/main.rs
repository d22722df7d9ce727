//! `weft-guest`: runs a program on another kernel, in a virtual machine. Also that machine's `/init`.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use weft_tests::binaries;
use weft_tests::guest::init;
use weft_tests::guest::initramfs::Initramfs;
use weft_tests::guest::kernel::Kernel;
use weft_tests::guest::machine::{Ended, Machine};
use weft_tests::guest::programs::PATH;
use weft_tests::guest::protocol::{BINARIES, SKIP_LOG, TASK, Task};
use weft_tests::scratch::Scratch;

/// Lines of the kernel's log that are shown.
const LOG_LINES: usize = 60;

/// Runs a program on another kernel, in a virtual machine without network, and ends as the program did.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Example:\n  weft-guest /usr/bin/bash -c 'modprobe ip_vs; cat /proc/net/ip_vs'\n  \
weft-guest --kernel 6.12 target/x86_64-unknown-linux-musl/debug/deps/route-0123456789abcdef vxlan"
)]
struct Cli {
    /// The kernel's series; `tests/guest-kernels.sh` fetches them.
    #[arg(long, env = "WEFT_GUEST_KERNEL", default_value = "6.1")]
    kernel: String,
    /// The guest's memory in MiB.
    #[arg(long, env = "WEFT_GUEST_MEMORY", default_value_t = 1536)]
    memory: u32,
    /// How many seconds all may take; then the guest is killed.
    #[arg(long, env = "WEFT_GUEST_LIMIT", default_value_t = 240)]
    limit: u64,
    /// More programs of this machine for the guest: names or paths.
    #[arg(long, env = "WEFT_GUEST_PROGRAMS", value_delimiter = ' ')]
    programs: Vec<String>,
    /// The program: static, or with libraries that are installed here.
    program: PathBuf,
    /// Its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

fn main() -> ExitCode {
    if std::process::id() == 1 {
        init::run();
    }
    let cli = Cli::parse();
    let code = run(&cli).and_then(|ended| report(&cli, &ended));
    code.unwrap_or_else(|error| fail(&format!("{error:#}")))
}

/// Packs the guest and runs it.
fn run(cli: &Cli) -> Result<Ended> {
    let kernel = Kernel::find(&cli.kernel)?;
    let scratch = Scratch::new();
    let initramfs = scratch.join("initramfs");
    pack(cli, &kernel, &initramfs).context("cannot pack the guest")?;
    let limit = Duration::from_secs(cli.limit);
    let machine =
        Machine { kernel: &kernel, initramfs: &initramfs, log: &scratch.join("log"), memory: cli.memory, limit };
    machine.run(&mut std::io::stdout().lock())
}

fn pack(cli: &Cli, kernel: &Kernel, to: &Path) -> Result<()> {
    let mut archive = Initramfs::new(BufWriter::new(File::create(to)?))?;
    archive.copy("/init", &std::env::current_exe()?)?;
    kernel.add_modules(&mut archive)?;
    archive.add_programs(&cli.programs)?;
    for path in ["weft", "weft-cni"].into_iter().filter_map(|name| binaries::find(name).ok()) {
        archive.copy(Path::new(BINARIES).join(path.file_name().unwrap_or_default()), &path)?;
    }
    archive.file("/etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n")?;
    archive.file("/etc/hosts", 0o644, b"127.0.0.1 localhost\n::1 localhost\n")?;
    archive.folder("/root")?;

    let program = cli.program.canonicalize().with_context(|| format!("no {}", cli.program.display()))?;
    archive.add_test(&program)?;
    let task = Task {
        program: program.to_string_lossy().into_owned(),
        arguments: cli.arguments.clone(),
        environment: environment(cli),
    };
    archive.file(TASK, 0o644, &serde_json::to_vec(&task)?)?;
    archive.finish()?;
    Ok(())
}

/// What the program finds in its environment: what a guest has, and what steers tests.
fn environment(cli: &Cli) -> BTreeMap<String, String> {
    let forwarded = std::env::vars().filter(|(name, _)| {
        ["RUST_", "PROPTEST_", "WEFT_TEST_"].iter().any(|prefix| name.starts_with(prefix)) || name == "CI"
    });
    let own = [
        ("PATH", PATH),
        ("HOME", "/root"),
        ("TMPDIR", "/tmp"),
        ("WEFT_BIN_DIR", BINARIES),
        ("WEFT_SKIP_LOG", SKIP_LOG),
        ("WEFT_GUEST_KERNEL", &cli.kernel),
    ];
    forwarded.chain(own.map(|(name, value)| (name.to_owned(), value.to_owned()))).collect()
}

/// Says what a reader of the program's output does not see, and ends as the program did.
fn report(cli: &Cli, ended: &Ended) -> Result<ExitCode> {
    if let (Some(log), false) = (std::env::var_os("WEFT_SKIP_LOG"), ended.skips.is_empty()) {
        let mut file = OpenOptions::new().append(true).create(true).open(&log)?;
        for line in &ended.skips {
            writeln!(file, "{line} (guest {})", cli.kernel)?;
        }
    }
    // Also of a success: what a kernel warns of is worth a look.
    let lines = ended.log.lines().collect::<Vec<_>>();
    for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
        eprintln!("guest {}: {line}", cli.kernel);
    }
    match &ended.exit {
        Ok(code) => Ok(ExitCode::from(u8::try_from(*code).unwrap_or(u8::MAX))),
        Err(why) => Ok(fail(why)),
    }
}

/// Without the program's own result, that of one failed test: `tests/run.sh` counts these lines.
fn fail(why: &str) -> ExitCode {
    eprintln!("guest: {why}");
    println!("test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; the guest: {why}");
    ExitCode::from(101)
}
