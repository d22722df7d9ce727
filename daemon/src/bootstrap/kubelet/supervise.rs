//! Keeping a program running where no service manager does: `weft supervise`.
//!
//! The supervisor holds a lock on its state file for as long as it lives, so whether it runs can be told without trusting a
//! process number. It ends its program only when it is told to; pods of a kubelet and shims of a containerd live on, as
//! they do under systemd with `KillMode=process`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, setsid};

use super::log::BEGIN;

/// The first pause before a program is started again; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Who has run for so long begins anew with the first pause.
const GOOD_RUN: Duration = Duration::from_secs(30);

/// Whoever looks whether a supervisor runs holds the lock for a moment, too.
const LOOKS_PASS: Duration = Duration::from_secs(1);

/// What is to be kept running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Supervised {
    /// The file that is locked and holds the numbers of supervisor and program.
    pub state: PathBuf,
    /// Where both outputs go; an older part is kept beside it as `<log>.1`.
    pub log: PathBuf,
    /// Bytes of a log before it is put aside.
    pub log_limit: u64,
    /// How long the program may take to end before it is killed.
    pub grace: Duration,
    /// The program and its arguments.
    pub command: Vec<String>,
}

/// Supervision did not come about, or broke off.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// Another supervisor has the state file.
    #[error("{} is locked: another weft supervise keeps this program running", .0.display())]
    Runs(PathBuf),
    /// No program was given.
    #[error("no program is given; expected one behind --")]
    NoProgram,
    /// The system refused.
    #[error("cannot {verb}: {source}")]
    Io {
        /// What.
        verb: String,
        /// The system's reason.
        source: io::Error,
    },
}

fn io_error<E: Into<io::Error>>(verb: impl Into<String>) -> impl FnOnce(E) -> SuperviseError {
    let verb = verb.into();
    move |source| SuperviseError::Io { verb, source: source.into() }
}

/// The numbers in a state file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    pub(super) supervisor: i32,
    /// The program with its start in clock ticks since boot, so that a number used again is not taken for it.
    pub(super) program: Option<(i32, u64)>,
}

impl State {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let supervisor = words.next()?.parse().ok()?;
        let program =
            words.next().and_then(|pid| pid.parse().ok()).zip(words.next().and_then(|start| start.parse().ok()));
        Some(Self { supervisor, program })
    }
}

/// The state of a supervisor that runs; `None` if none does.
///
/// # Errors
/// When the file is there and cannot be opened.
pub(super) fn running(state: &Path) -> io::Result<Option<State>> {
    let file = match File::open(state) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(_) => Ok(None),
        // It writes its numbers right after it has taken the lock.
        Err((mut file, Errno::EWOULDBLOCK)) => {
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            Ok(Some(State::parse(&text).unwrap_or(State { supervisor: 0, program: None })))
        }
        Err((_, error)) => Err(error.into()),
    }
}

/// When a process started, in clock ticks since boot (proc_pid_stat(5), field 22); `None` for one that has ended.
fn started(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    // In a container without an init nobody buries it.
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Keeps the program running until SIGTERM or SIGINT comes, then ends it.
///
/// # Errors
/// [`SuperviseError`]; a program that cannot be started is tried again and is none.
pub fn run(supervised: &Supervised) -> Result<(), SuperviseError> {
    let (program, arguments) = supervised.command.split_first().ok_or(SuperviseError::NoProgram)?;
    let mut state = lock(&supervised.state)?;
    // Already its own leader if a shell started it so.
    let _ = setsid();
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD, Signal::SIGHUP] {
        signals.add(signal);
    }
    // Before any thread: each inherits it. A program that is started begins with none blocked.
    signals.thread_block().map_err(io_error("block signals"))?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(io_error("wait for signals"))?;
    let log = Arc::new(Mutex::new(Log::open(&supervised.log, supervised.log_limit)?));
    let say = |text: &str| log.lock().unwrap_or_else(PoisonError::into_inner).write(format!("{text}\n").as_bytes());
    say(&format!("{BEGIN}{program}"));
    let orphan = orphan(&mut state)?;
    record(&mut state, orphan)?;
    end_orphan(orphan, supervised.grace);
    let mut pause = FIRST_PAUSE;
    loop {
        let begin = Instant::now();
        record(&mut state, None)?;
        match spawn(program, arguments, &log) {
            Ok(mut child) => {
                record(&mut state, i32::try_from(child.id()).ok().and_then(|pid| Some((pid, started(pid)?))))?;
                let ended = loop {
                    if let Some(status) = child.try_wait().map_err(io_error("wait for the program"))? {
                        break status;
                    }
                    if asked_to_end(&signals, None)? {
                        end(&mut child, supervised.grace, &signals)?;
                        say("weft: ended it, as told");
                        return clear(&mut state);
                    }
                };
                if begin.elapsed() >= GOOD_RUN {
                    pause = FIRST_PAUSE;
                }
                say(&format!(
                    "weft: {program} ended ({ended}) after {:.1} s; again in {} s",
                    begin.elapsed().as_secs_f64(),
                    pause.as_secs()
                ));
            }
            Err(error) => say(&format!("weft: cannot start {program}: {error}; again in {} s", pause.as_secs())),
        }
        record(&mut state, None)?;
        let until = Instant::now() + pause;
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            if asked_to_end(&signals, Some(left))? {
                return clear(&mut state);
            }
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn lock(path: &Path) -> Result<Flock<File>, SuperviseError> {
    let verb = || format!("open {}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(io_error(verb()))?;
    }
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let mut file = file.map_err(io_error(verb()))?;
    let until = Instant::now() + LOOKS_PASS;
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => return Ok(locked),
            Err((_, Errno::EWOULDBLOCK)) if Instant::now() > until => {
                return Err(SuperviseError::Runs(path.to_owned()));
            }
            Err((file, Errno::EWOULDBLOCK)) => file,
            Err((_, error)) => return Err(io_error(format!("lock {}", path.display()))(error)),
        };
        rest();
    }
}

/// The program of a supervisor that was killed.
fn orphan(state: &mut File) -> Result<Option<(i32, u64)>, SuperviseError> {
    let mut text = String::new();
    state.read_to_string(&mut text).map_err(io_error("read the state file"))?;
    Ok(State::parse(&text).and_then(|state| state.program).filter(|(pid, begin)| started(*pid) == Some(*begin)))
}

/// Ends it: two kubelets on one node fight.
fn end_orphan(orphan: Option<(i32, u64)>, grace: Duration) {
    let Some((pid, begin)) = orphan else { return };
    let lives = || started(pid) == Some(begin);
    for (signal, limit) in [(Signal::SIGTERM, grace), (Signal::SIGKILL, Duration::from_secs(5))] {
        let until = Instant::now() + limit;
        if lives() {
            let _ = kill(Pid::from_raw(pid), signal);
        }
        while lives() && Instant::now() < until {
            rest();
        }
    }
}

/// Leaves no number behind that could be somebody else's by the time it is read.
fn clear(state: &mut File) -> Result<(), SuperviseError> {
    state.set_len(0).map_err(io_error("write the state file"))
}

fn record(state: &mut File, program: Option<(i32, u64)>) -> Result<(), SuperviseError> {
    use std::io::{Seek, SeekFrom};
    let program = program.map(|(pid, start)| format!("{pid} {start}\n")).unwrap_or_default();
    let text = format!("{}\n{program}", std::process::id());
    let write = state.seek(SeekFrom::Start(0)).and_then(|_| state.write_all(text.as_bytes()));
    let length = u64::try_from(text.len()).unwrap_or_default();
    write.and_then(|()| state.set_len(length)).map_err(io_error("write the state file"))
}

#[expect(clippy::disallowed_methods, reason = "bring-up: this is what a service manager would do")]
fn spawn(program: &str, arguments: &[String], log: &Arc<Mutex<Log>>) -> io::Result<Child> {
    let (mut reader, writer) = io::pipe()?;
    let mut command = Command::new(program);
    command.args(arguments).current_dir("/").stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let child = command.spawn()?;
    // The command holds ends for writing as well, and with them open there would be no end to read.
    drop(command);
    let log = Arc::clone(log);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length) = reader.read(&mut buffer) {
            if length == 0 {
                break;
            }
            log.lock().unwrap_or_else(PoisonError::into_inner).write(&buffer[..length]);
        }
    });
    Ok(child)
}

/// Waits for a signal, and says whether it asks to end. Others only wake up.
fn asked_to_end(signals: &SignalFd, limit: Option<Duration>) -> Result<bool, SuperviseError> {
    let timeout = limit.map_or(PollTimeout::NONE, |limit| PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX));
    match poll(&mut [PollFd::new(signals.as_fd(), PollFlags::POLLIN)], timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(io_error("wait for signals")(error)),
    }
    while let Some(signal) = signals.read_signal().map_err(io_error("read a signal"))? {
        let number = i32::try_from(signal.ssi_signo).unwrap_or_default();
        if number == Signal::SIGTERM as i32 || number == Signal::SIGINT as i32 {
            return Ok(true);
        }
    }
    Ok(false)
}

fn end(child: &mut Child, grace: Duration, signals: &SignalFd) -> Result<(), SuperviseError> {
    let wait = "wait for the program";
    if let Ok(pid) = i32::try_from(child.id()) {
        // Not reaped yet, so the number is still its own.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    let until = Instant::now() + grace;
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        if child.try_wait().map_err(io_error(wait))?.is_some() {
            return Ok(());
        }
        asked_to_end(signals, Some(left))?;
    }
    child.kill().map_err(io_error("kill the program"))?;
    child.wait().map(drop).map_err(io_error(wait))
}

#[expect(clippy::disallowed_methods, reason = "the pause between two looks at a process that is not our child")]
pub(super) fn rest() {
    std::thread::sleep(Duration::from_millis(20));
}

/// A log that is put aside when it is full.
struct Log {
    path: PathBuf,
    limit: u64,
    file: File,
    length: u64,
}

impl Log {
    fn open(path: &Path, limit: u64) -> Result<Self, SuperviseError> {
        let verb = || format!("open {}", path.display());
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(io_error(verb()))?;
        }
        let (file, length) = Self::file(path).map_err(io_error(verb()))?;
        Ok(Self { path: path.to_owned(), limit, file, length })
    }

    fn file(path: &Path) -> io::Result<(File, u64)> {
        // What a component says may hold what is not for everybody.
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        let length = file.metadata()?.len();
        Ok((file, length))
    }

    /// Writes what it can: a full disk must not end the program that is told of.
    fn write(&mut self, bytes: &[u8]) {
        if self.length >= self.limit {
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            if fs::rename(&self.path, old).is_ok()
                && let Ok((file, length)) = Self::file(&self.path)
            {
                (self.file, self.length) = (file, length);
            }
        }
        if self.file.write_all(bytes).is_ok() {
            self.length += u64::try_from(bytes.len()).unwrap_or_default();
        }
    }
}
