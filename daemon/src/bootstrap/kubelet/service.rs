//! Whoever keeps kubelet and containerd running: systemd, OpenRC, or where there is neither, weft itself.

use std::ffi::OsStr;
use std::fmt::Display;
use std::fs;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{flags, log, supervise};
use crate::bootstrap::resolved::Paths;

/// How long a supervisor may take to begin, and to end beyond its program's time.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a program may take to end before its supervisor kills it.
const GRACE: Duration = Duration::from_secs(20);

/// What systemctl says where systemd is installed and does not run.
const NOT_BOOTED: [&str; 2] = ["not been booted with systemd", "Failed to connect to bus"];

/// Where programs are if the search path leads to none.
const PROGRAMS: [&str; 4] = ["/usr/local/bin", "/usr/bin", "/usr/sbin", "/usr/local/sbin"];

/// A service that bring-up starts and stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// kubelet.
    Kubelet,
    /// containerd.
    Containerd,
}

impl Service {
    /// Its name as a unit.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kubelet => "kubelet",
            Self::Containerd => "containerd",
        }
    }
}

/// Whoever keeps services running on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceManager {
    /// systemd, by this systemctl.
    Systemd(PathBuf),
    /// OpenRC, by this rc-service.
    OpenRc(PathBuf),
    /// Nobody: weft starts a supervisor for each.
    Plain(Plain),
}

/// What weft needs to supervise services itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plain {
    /// The weft binary.
    pub weft: PathBuf,
    /// kubelet, if it is not where the search path leads to.
    pub kubelet: Option<PathBuf>,
    /// containerd, likewise.
    pub containerd: Option<PathBuf>,
    /// Where things lie.
    pub paths: Paths,
}

/// A service could not be started, stopped or asked about.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The service manager refused.
    #[error("`{line}` failed: {reason}")]
    Manager {
        /// The command line.
        line: String,
        /// What it said.
        reason: String,
    },
    /// The program is not there.
    #[error("{0} is neither in the search path nor in /usr/bin, /usr/local/bin; install it, or give --kubernetes-bin")]
    NoProgram(&'static str),
    /// Weft's supervisor does not do as told.
    #[error("weft supervise for {name}: {reason}; its log is {}", .log.display())]
    Supervisor {
        /// Of which service.
        name: &'static str,
        /// What is wrong.
        reason: String,
        /// Where more is said.
        log: PathBuf,
    },
}

impl ServiceManager {
    /// Finds out who it is: systemd if a systemctl in the search path answers, else OpenRC, else weft.
    #[must_use]
    pub fn detect(search_path: &OsStr, plain: Plain) -> Self {
        if let Some(systemctl) = find(search_path, "systemctl") {
            // systemctl is installed in many images in which no systemd runs.
            let answer = run(&systemctl, &["is-active", "kubelet"]);
            if answer.is_ok_and(|(_, said)| !NOT_BOOTED.iter().any(|words| said.contains(words))) {
                return Self::Systemd(systemctl);
            }
        }
        match find(search_path, "rc-service") {
            Some(service) if Path::new("/etc/init.d/kubelet").exists() => Self::OpenRc(service),
            _ => Self::Plain(plain),
        }
    }

    /// Whether kubelet's unit file is of use here.
    #[must_use]
    pub fn has_units(&self) -> bool {
        matches!(self, Self::Systemd(_))
    }

    /// Has the manager read its units again. The stand-ins of containers do not know it, and need not.
    pub fn reload(&self) {
        if let Self::Systemd(systemctl) = self {
            let _ = run(systemctl, &["daemon-reload"]);
        }
    }

    /// Has a service start with the machine. Says what the user must know if that is not possible.
    pub fn enable(&self, service: Service) -> Option<String> {
        let name = service.name();
        let (done, hand) = match self {
            Self::Systemd(systemctl) => (run(systemctl, &["enable", name]), format!("systemctl enable {name}")),
            Self::OpenRc(service) => (
                run(&service.with_file_name("rc-update"), &["add", name, "default"]),
                format!("rc-update add {name} default"),
            ),
            Self::Plain(_) => {
                return Some(format!("nobody starts {name} when the machine starts; weft init does so again"));
            }
        };
        match done {
            Ok((true, _)) => None,
            Ok((false, said)) => {
                Some(format!("{name} does not start with the machine: {}; see to it with: {hand}", said.trim()))
            }
            Err(error) => Some(format!("{name} does not start with the machine: {error}; see to it with: {hand}")),
        }
    }

    /// Whether a unit starts with the machine; never where there are no units.
    #[must_use]
    pub fn is_enabled(&self, service: Service) -> bool {
        match self {
            Self::Systemd(systemctl) => ask(systemctl, &["is-enabled", service.name()]).unwrap_or(false),
            Self::OpenRc(_) | Self::Plain(_) => false,
        }
    }

    /// Starts a service; none that runs is started anew.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn start(&self, service: Service) -> Result<(), ServiceError> {
        self.call(service, "start", Plain::start)
    }

    /// Stops a service; one that does not run is none to stop.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn stop(&self, service: Service) -> Result<(), ServiceError> {
        self.call(service, "stop", Plain::stop)
    }

    /// Stops and starts a service, so that it reads its files again.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn restart(&self, service: Service) -> Result<(), ServiceError> {
        self.call(service, "restart", |plain, service| plain.stop(service).and_then(|()| plain.start(service)))
    }

    /// Whether a service runs: for a supervised one, whether it is being kept running.
    ///
    /// # Errors
    /// [`ServiceError`] when nobody can tell.
    pub fn is_active(&self, service: Service) -> Result<bool, ServiceError> {
        match self {
            Self::Systemd(systemctl) => ask(systemctl, &["is-active", service.name()]),
            Self::OpenRc(rc_service) => ask(rc_service, &[service.name(), "status"]),
            Self::Plain(plain) => plain.running(service).map(|state| state.is_some()),
        }
    }

    /// Whether a service is this manager's to start anew: weft's own supervision knows only what it has started itself.
    ///
    /// # Errors
    /// [`ServiceError`] when nobody can tell.
    pub fn is_in_charge(&self, service: Service) -> Result<bool, ServiceError> {
        match self {
            Self::Systemd(_) | Self::OpenRc(_) => Ok(true),
            Self::Plain(plain) => plain.running(service).map(|state| state.is_some()),
        }
    }

    /// Whether a unit of this name runs; never where there are no units.
    #[must_use]
    pub fn is_unit_active(&self, unit: &str) -> bool {
        match self {
            Self::Systemd(systemctl) => ask(systemctl, &["is-active", unit]).unwrap_or(false),
            Self::OpenRc(_) | Self::Plain(_) => false,
        }
    }

    /// What a service has said last, since that time where that can be told; empty if nobody knows.
    #[must_use]
    pub fn last_lines(&self, root: &Path, service: Service, lines: usize, since: SystemTime) -> Vec<String> {
        let name = service.name();
        let file = |path: &str| log::tail(&root.join(path), lines).unwrap_or_default();
        match self {
            Self::Systemd(systemctl) => {
                let journal = journal(systemctl, name, lines, since).unwrap_or_default();
                // A systemctl that is not systemd's writes elsewhere.
                if journal.is_empty() { file(&format!("var/log/{name}.log")) } else { journal }
            }
            Self::OpenRc(_) => file(&format!("var/log/{name}/{name}.log")),
            Self::Plain(plain) => log::tail(&plain.log(service), lines).unwrap_or_default(),
        }
    }

    fn call(
        &self,
        service: Service,
        verb: &str,
        plain: impl FnOnce(&Plain, Service) -> Result<(), ServiceError>,
    ) -> Result<(), ServiceError> {
        match self {
            Self::Systemd(systemctl) => must(systemctl, &[verb, service.name()]),
            Self::OpenRc(rc_service) => must(rc_service, &[service.name(), verb]),
            Self::Plain(this) => plain(this, service),
        }
    }
}

impl Plain {
    fn state(&self, service: Service) -> PathBuf {
        // What a supervisor's lock is on does not outlive a reboot.
        self.paths.root.join(format!("run/weft/{}.pid", service.name()))
    }

    /// Where a supervised service writes to.
    #[must_use]
    pub fn log(&self, service: Service) -> PathBuf {
        self.paths.logs().join(format!("{}.log", service.name()))
    }

    fn error(&self, service: Service, reason: &dyn Display) -> ServiceError {
        ServiceError::Supervisor { name: service.name(), reason: reason.to_string(), log: self.log(service) }
    }

    fn running(&self, service: Service) -> Result<Option<supervise::State>, ServiceError> {
        supervise::running(&self.state(service)).map_err(|error| self.error(service, &error))
    }

    /// The command line that the unit of a package would have. kubelet's flags are read anew at each start.
    fn command(&self, service: Service) -> Result<Vec<String>, ServiceError> {
        let given = match service {
            Service::Kubelet => &self.kubelet,
            Service::Containerd => &self.containerd,
        };
        let search_path = std::env::var_os("PATH").unwrap_or_default();
        let program = given.clone().or_else(|| find(&search_path, service.name()));
        let program = program.ok_or(ServiceError::NoProgram(service.name()))?.display().to_string();
        let mut command = vec![program];
        if service == Service::Kubelet {
            let (kubernetes, kubelet, root) = (&self.paths.kubernetes, &self.paths.kubelet, &self.paths.root);
            command.extend([
                format!("--bootstrap-kubeconfig={}", kubernetes.join("bootstrap-kubelet.conf").display()),
                format!("--kubeconfig={}", kubernetes.join("kubelet.conf").display()),
                format!("--config={}", kubelet.join("config.yaml").display()),
            ]);
            command.extend(flags::kubeadm_words(
                &fs::read_to_string(kubelet.join("kubeadm-flags.env")).unwrap_or_default(),
            ));
            for file in ["etc/default/kubelet", "etc/sysconfig/kubelet"] {
                let text = fs::read_to_string(root.join(file)).unwrap_or_default();
                command.extend(flags::words(&text, "KUBELET_EXTRA_ARGS"));
            }
        }
        Ok(command)
    }

    #[expect(clippy::disallowed_methods, reason = "bring-up: there is no service manager to ask")]
    fn start(&self, service: Service) -> Result<(), ServiceError> {
        if self.running(service)?.is_some() {
            return Ok(());
        }
        let (state, log) = (self.state(service), self.log(service));
        let mut command = Command::new(&self.weft);
        command.arg("supervise").arg("--state").arg(&state).arg("--log").arg(&log);
        command.arg("--grace").arg(format!("{}s", GRACE.as_secs())).arg("--").args(self.command(service)?);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
        let mut child =
            command.spawn().map_err(|error| self.error(service, &format!("{}: {error}", self.weft.display())))?;
        // Until it has its lock: then it lives on without us.
        let until = Instant::now() + PATIENCE;
        loop {
            if self.running(service)?.is_some() {
                return Ok(());
            }
            match child.try_wait() {
                Ok(Some(status)) => return Err(self.error(service, &format!("it ended at once ({status})"))),
                Ok(None) if Instant::now() < until => supervise::rest(),
                Ok(None) => {
                    return Err(self.error(service, &format!("it did not begin within {} s", PATIENCE.as_secs())));
                }
                Err(error) => return Err(self.error(service, &error)),
            }
        }
    }

    fn stop(&self, service: Service) -> Result<(), ServiceError> {
        let until = Instant::now() + GRACE + PATIENCE;
        let mut told = false;
        while let Some(state) = self.running(service)? {
            if Instant::now() > until {
                return Err(self.error(service, &format!("process {} does not end", state.supervisor)));
            }
            // The number is there a moment after the lock.
            if !told && state.supervisor > 0 {
                kill(Pid::from_raw(state.supervisor), Signal::SIGTERM).map_err(|error| self.error(service, &error))?;
                told = true;
            }
            supervise::rest();
        }
        match fs::remove_file(self.state(service)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.error(service, &error)),
            _ => Ok(()),
        }
    }
}

/// Where a program is.
#[must_use]
pub fn find(search_path: &OsStr, program: &str) -> Option<PathBuf> {
    let folders = std::env::split_paths(search_path).chain(PROGRAMS.map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

fn journal(systemctl: &Path, unit: &str, lines: usize, since: SystemTime) -> io::Result<Vec<String>> {
    let since = since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    #[expect(clippy::disallowed_methods, reason = "the journal's format is journalctl's alone")]
    let mut command = Command::new(systemctl.with_file_name("journalctl"));
    command.args(["--unit", unit, "--no-pager", "--output", "cat", "--quiet"]);
    command.args(["--lines".to_owned(), lines.to_string(), "--since".into(), format!("@{since}")]);
    let output = command.stdin(Stdio::null()).output()?;
    Ok(log::last(&String::from_utf8_lossy(&output.stdout), lines))
}

fn must(program: &Path, arguments: &[&str]) -> Result<(), ServiceError> {
    let line = || format!("{} {}", program.display(), arguments.join(" "));
    match run(program, arguments) {
        Ok((true, _)) => Ok(()),
        Ok((false, said)) => Err(ServiceError::Manager { line: line(), reason: said.trim().to_owned() }),
        Err(error) => Err(ServiceError::Manager { line: line(), reason: error.to_string() }),
    }
}

fn ask(program: &Path, arguments: &[&str]) -> Result<bool, ServiceError> {
    let line = || format!("{} {}", program.display(), arguments.join(" "));
    run(program, arguments)
        .map(|(yes, _)| yes)
        .map_err(|error| ServiceError::Manager { line: line(), reason: error.to_string() })
}

/// Whether it succeeded, and what it said to stderr.
fn run(program: &Path, arguments: &[&str]) -> io::Result<(bool, String)> {
    let (mut reader, writer) = io::pipe()?;
    #[expect(clippy::disallowed_methods, reason = "bring-up: the service manager is asked by its own program")]
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer);
    let status = command.status()?;
    drop(command);
    // A stand-in may leave the pipe to the service that it has started: what is there is all there will be.
    fcntl(reader.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let mut said = Vec::new();
    match reader.read_to_end(&mut said) {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Ok((status.success(), String::from_utf8_lossy(&said).into_owned())),
    }
}
