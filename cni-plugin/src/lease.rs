//! A node without a subnet file gets itself a subnet: `weft lease` is run once, and writes the file.
//!
//! This serves hand-written configurations on nodes whose agent is not up yet.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::SigSet;

use crate::formats::SubnetEnv;
use crate::formats::attachment::LEASE_LOCK;
use crate::formats::conflist::Etcd;
use crate::ipam::lock;
use crate::node;
use crate::protocol::config::NetConf;
use crate::protocol::{CniError, Result};

/// How long the command may take, and how long to wait for another process that runs it.
const DEADLINE: Duration = Duration::from_secs(30);
/// Prefix of all keys, as flannel has it.
const PREFIX: &str = "/coreos.com/network";
/// How much of what the command says is kept: the end of it, in bytes.
const KEPT: usize = 4096;
/// What the command may look for other programs in.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Has a subnet leased, one process a node at a time, and returns the subnet file then written. `read` reads it.
///
/// # Errors
/// Code 11 if the configuration does not say from where, or if it fails.
pub(crate) fn obtain(conf: &NetConf, read: impl Fn() -> Result<Option<SubnetEnv>>) -> Result<SubnetEnv> {
    let (Some(etcd), Some(command)) = (&conf.etcd, &conf.lease_command) else {
        return Err(node::missing(conf));
    };
    let _lock = lock(&conf.base.state_dir)?;
    // Whoever held the lock before may have done it.
    if let Some(env) = read()? {
        return Ok(env);
    }
    let arguments = arguments(etcd, &conf.subnet_file);
    let outcome = execute(command, &arguments, etcd.password.as_deref());
    match (read()?, outcome) {
        (Some(env), _) => Ok(env),
        (None, Ok(())) => Err(CniError::later(format!(
            "leaseCommand: {} ended well and did not write subnet file {}",
            command.display(),
            conf.subnet_file.display()
        ))),
        (None, Err(reason)) => Err(CniError::later(format!(
            "leaseCommand: {} did not lease a subnet: {reason}; subnet file {} is missing",
            command.display(),
            conf.subnet_file.display()
        ))),
    }
}

fn lock(state_dir: &Path) -> Result<File> {
    let path = state_dir.join(LEASE_LOCK);
    let open = || -> io::Result<File> {
        std::fs::create_dir_all(state_dir)?;
        File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)
    };
    let file = open().map_err(|error| CniError::io(path.display(), error))?;
    lock::exclusive(file, DEADLINE)
        .map_err(|error| CniError::later(format!("another process still leases a subnet: {}: {error}", path.display())))
}

fn arguments(etcd: &Etcd, subnet_file: &Path) -> Vec<String> {
    let text = |path: &std::path::PathBuf| path.display().to_string();
    let mut arguments = vec!["lease".to_owned()];
    let mut put = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            arguments.extend([format!("--{key}"), value]);
        }
    };
    put("etcd-endpoints", Some(etcd.endpoints.join(",")));
    put("etcd-prefix", Some(etcd.prefix.clone().unwrap_or_else(|| PREFIX.to_owned())));
    put("etcd-cafile", etcd.ca_file.as_ref().map(text));
    put("etcd-certfile", etcd.cert_file.as_ref().map(text));
    put("etcd-keyfile", etcd.key_file.as_ref().map(text));
    put("etcd-username", etcd.username.clone());
    put("subnet-file", Some(subnet_file.display().to_string()));
    arguments
}

#[expect(
    clippy::disallowed_methods,
    reason = "the plugin's one command: an operator's choice of how a node gets its subnet"
)]
fn execute(command: &Path, arguments: &[String], password: Option<&str>) -> Result<(), String> {
    // Signals that the runtime has blocked would stay blocked in the command.
    let _ = SigSet::all().thread_unblock();
    let mut child = Command::new(command)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        // Arguments are everybody's to read, the environment is not.
        .envs(password.map(|password| ("WEFT_ETCD_PASSWORD", password)))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("it could not be run: {error}"))?;
    let mut words = LastWords::new(child.stderr.take());
    let begun = Instant::now();
    loop {
        let ended = child.try_wait();
        words.listen();
        match ended {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("{status}: {words}")),
            // Where the runtime ignores SIGCHLD the status is lost; what the command was for will show.
            Err(_) => return Ok(()),
            Ok(None) if begun.elapsed() > DEADLINE => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("it did not end within {} s: {words}", DEADLINE.as_secs()));
            }
            Ok(None) => pause_for(Duration::from_millis(5)),
        }
    }
}

/// The end of what the command has said on standard error. It is listened to without waiting: a full pipe would stop the
/// command, and a grandchild may hold the pipe open for long.
struct LastWords {
    pipe: Option<ChildStderr>,
    heard: Vec<u8>,
}

impl LastWords {
    fn new(pipe: Option<ChildStderr>) -> Self {
        let pipe = pipe.filter(|pipe| fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).is_ok());
        Self { pipe, heard: Vec::new() }
    }

    /// Takes what is there, once a pipe's capacity at most.
    fn listen(&mut self) {
        let Some(pipe) = &mut self.pipe else { return };
        let mut buffer = [0; KEPT];
        for _ in 0..64 * 1024 / KEPT {
            match pipe.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(length) => self.heard.extend_from_slice(buffer.get(..length).unwrap_or_default()),
            }
        }
        self.heard.drain(..self.heard.len().saturating_sub(KEPT));
    }
}

impl fmt::Display for LastWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy(&self.heard);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        f.write_str(&lines.get(lines.len().saturating_sub(3)..).unwrap_or_default().join("; "))
    }
}

#[expect(clippy::disallowed_methods, reason = "a child and a lock cannot be waited for with a limit; this polls them")]
fn pause_for(pause: Duration) {
    std::thread::sleep(pause);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_told_everything_the_configuration_says() {
        let etcd = Etcd {
            endpoints: vec!["http://a:2379".into(), "http://b:2379".into()],
            ca_file: Some("/ca".into()),
            username: Some("u".into()),
            ..Etcd::default()
        };
        assert_eq!(
            arguments(&etcd, Path::new("/run/subnet.env")).join(" "),
            "lease --etcd-endpoints http://a:2379,http://b:2379 --etcd-prefix /coreos.com/network --etcd-cafile /ca \
             --etcd-username u --subnet-file /run/subnet.env"
        );
    }

    #[test]
    fn a_failing_command_is_quoted() {
        let shell = |script: &str, password| execute(Path::new("/bin/sh"), &["-c".into(), script.into()], password);
        let error = shell("echo no etcd >&2; exit 3", None).unwrap_err();
        assert!(error.contains('3') && error.contains("no etcd"), "{error}");
        assert!(execute(Path::new("/nonexistent"), &[], None).unwrap_err().contains("could not be run"));
        shell("test \"$WEFT_ETCD_PASSWORD\" = secret", Some("secret")).unwrap();
        // More than a pipe holds, and a grandchild that keeps it open.
        let error = shell("sleep 5 & head -c 300000 /dev/zero >&2; echo; echo the end >&2; exit 4", None).unwrap_err();
        assert!(error.contains('4') && error.ends_with("the end"), "{error}");
        shell("test -z \"$WEFT_ETCD_PASSWORD\"", None).unwrap();
    }
}
