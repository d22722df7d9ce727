//! The guest's side: process number 1. Makes the file systems that a Linux has, runs the task, says how it ended, and
//! switches the machine off.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::termios::{SetArg, cfmakeraw, tcdrain, tcgetattr, tcsetattr};
use nix::sys::utsname::uname;
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::Pid;

use crate::guest::protocol::{Mark, SKIP_LOG, TASK, Task};
use crate::tool;

/// The serial port for the program's output. The first one is the kernel's.
const OUTPUT: &str = "/dev/ttyS1";

/// What is mounted: file system, where, options.
const MOUNTS: [(&str, &str, &str); 9] = [
    ("devtmpfs", "/dev", ""),
    ("devpts", "/dev/pts", "ptmxmode=0666"),
    ("tmpfs", "/dev/shm", ""),
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("cgroup2", "/sys/fs/cgroup", ""),
    ("tmpfs", "/run", "mode=0755"),
    ("tmpfs", "/tmp", "mode=1777"),
    ("tmpfs", "/var", "mode=0755"),
];

/// Does all of it, and does not return: without its init the kernel would panic.
pub fn run() -> ! {
    let ended = prepare().and_then(|output| {
        let mut port = output.try_clone()?;
        let code = work(&output).map_or_else(|error| Mark::Broken(format!("{error:#}")), Mark::Exit);
        for line in fs::read_to_string(SKIP_LOG).unwrap_or_default().lines() {
            say(&mut port, &Mark::Skip(line.to_owned()))?;
        }
        say(&mut port, &code)?;
        Ok(tcdrain(&port)?)
    });
    if let Err(error) = ended {
        // To the kernel's console: there is no other.
        eprintln!("init: {error:#}");
    }
    match reboot(RebootMode::RB_POWER_OFF) {
        Ok(never) => match never {},
        Err(error) => panic!("cannot power off: {error}"),
    }
}

/// The file systems; then the port for the output.
fn prepare() -> Result<File> {
    for (kind, place, options) in MOUNTS {
        fs::create_dir_all(place).with_context(|| format!("cannot make {place}"))?;
        // What we were given lies where it lay on the host, be it in /tmp. All is memory here anyway.
        if kind == "tmpfs" && fs::read_dir(place)?.next().is_some() {
            continue;
        }
        mount(Some(kind), place, Some(kind), MsFlags::empty(), Some(options))
            .with_context(|| format!("cannot mount {kind} on {place}"))?;
    }
    // As any distribution has it, both; namespaces that are made under /run/netns depend on the second.
    if !Path::new("/var/run").exists() {
        symlink("/run", "/var/run").context("cannot make /var/run")?;
    }
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>)
        .context("cannot share the mounts")?;
    let port =
        OpenOptions::new().read(true).write(true).open(OUTPUT).with_context(|| format!("cannot open {OUTPUT}"))?;
    let mut settings = tcgetattr(&port)?;
    cfmakeraw(&mut settings);
    tcsetattr(&port, SetArg::TCSANOW, &settings)?;
    Ok(port)
}

/// Runs the task to its end.
fn work(output: &File) -> Result<i32> {
    let task: Task = serde_json::from_str(&fs::read_to_string(TASK).context("no task")?)?;
    let mut setup = tool::command("ip");
    // PID 1 has no environment, so neither a path.
    setup.args(["link", "set", "lo", "up"]).envs(&task.environment);
    let up = wait_for(setup.spawn().context("cannot start ip")?.id())?;
    anyhow::ensure!(up == 0, "cannot bring lo up: ip ended with {up}");

    say(&mut output.try_clone()?, &Mark::Start(uname()?.release().to_string_lossy().into_owned()))?;
    let mut command = tool::command(&task.program);
    command.args(&task.arguments).env_clear().envs(&task.environment).current_dir("/");
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output.try_clone()?);
    let child = command.spawn().with_context(|| format!("cannot start {}", task.program))?;
    wait_for(child.id())
}

/// Waits for one child, and meanwhile for all that lost their parents.
fn wait_for(child: u32) -> Result<i32> {
    let child = Pid::from_raw(i32::try_from(child)?);
    loop {
        match wait()? {
            WaitStatus::Exited(pid, code) if pid == child => return Ok(code),
            WaitStatus::Signaled(pid, signal, _) if pid == child => return Ok(128 + signal as i32),
            _ => {}
        }
    }
}

/// On a line of its own, wherever the program stopped.
fn say(port: &mut File, mark: &Mark) -> Result<()> {
    let before = if matches!(mark, Mark::Start(_)) { "" } else { "\n" };
    Ok(port.write_all(format!("{before}{mark}\n").as_bytes())?)
}
