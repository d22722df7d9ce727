//! Locks that die with their holder.

use std::fs::{File, TryLockError};
use std::io;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

/// How long to wait for another process.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

/// Locks a whole file for this process (flock(2)) until it is closed, waiting until `deadline` has passed.
///
/// # Errors
/// `EWOULDBLOCK` if somebody else still holds it; another error number if it cannot be locked.
pub(crate) fn exclusive(file: File, deadline: Duration) -> io::Result<File> {
    retry(deadline, || {
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => Errno::EWOULDBLOCK,
            TryLockError::Error(error) => error.raw_os_error().map_or(Errno::EIO, Errno::from_raw),
        })
    })?;
    Ok(file)
}

/// Takes the lock that marks a record as being worked on: an open file description lock (fcntl(2), `F_OFD_SETLK`), which
/// no other descriptor of this process can lose by being closed.
///
/// # Errors
/// `EWOULDBLOCK` if somebody else still holds it after `deadline`.
pub(crate) fn record(file: &File, deadline: Duration) -> io::Result<()> {
    let whole = libc::flock {
        l_type: i16::try_from(libc::F_WRLCK).unwrap_or_default(),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    retry(deadline, || match fcntl(file, FcntlArg::F_OFD_SETLK(&whole)) {
        Ok(_) => Ok(()),
        // POSIX allows either.
        Err(Errno::EACCES) => Err(Errno::EWOULDBLOCK),
        Err(errno) => Err(errno),
    })
}

fn retry<T>(deadline: Duration, mut attempt: impl FnMut() -> Result<T, Errno>) -> io::Result<T> {
    let begun = Instant::now();
    let mut pause = Duration::from_micros(20);
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(Errno::EINTR) => {}
            Err(Errno::EWOULDBLOCK) if begun.elapsed() < deadline => {
                pause_for(pause);
                // Who has waited for long will wait longer, and shall not keep the machine busy with it.
                pause = (pause * 2).min(Duration::from_millis(1) + begun.elapsed() / 16);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "locks cannot be waited for with a limit; this polls one")]
fn pause_for(pause: Duration) {
    std::thread::sleep(pause);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_is_waited_for_with_a_limit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let open = || File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
        let held = exclusive(open(), DEADLINE).unwrap();
        let error = exclusive(open(), Duration::from_millis(5)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(held);
        exclusive(open(), Duration::ZERO).unwrap();
        let (first, second) = (open(), open());
        record(&first, Duration::ZERO).unwrap();
        assert!(record(&second, Duration::ZERO).is_err());
        drop(first);
        record(&second, Duration::ZERO).unwrap();
    }
}
