//! Whether the file system of a pool keeps QEMU's image locks, the last line of defence against a second writer:
//! tried the way QEMU does it (`raw_apply_lock_bytes` and `raw_check_lock_bytes` of its `block/file-posix.c`), by
//! locks of open file descriptions on single bytes.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};

/// The byte by which a QEMU that may write tells others so: `RAW_LOCK_PERM_BASE` (100) and the bit of
/// `BLK_PERM_WRITE` (1).
const WRITES: libc::off_t = 101;

/// How long an answer about locks is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// Questions of this process that wait for their answer. Past so many none is asked.
const WAITING_MAX: usize = 8;
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// As [`work`]; none where there is no answer in time. A lock manager may stand still for minutes (NFS after its server's
/// restart) while the pool reads and writes: that must not count as a pool that is lost, so it is asked beside it.
///
/// # Errors
/// As for [`work`].
pub(super) fn answer(file: &Path) -> io::Result<Option<bool>> {
    if WAITING.fetch_add(1, Ordering::AcqRel) >= WAITING_MAX {
        WAITING.fetch_sub(1, Ordering::AcqRel);
        return Ok(None);
    }
    let (file, (sender, answer)) = (file.to_owned(), mpsc::channel());
    thread::spawn(move || {
        let found = work(&file);
        WAITING.fetch_sub(1, Ordering::AcqRel);
        // Nobody may be waiting any more.
        let _ = sender.send(found);
    });
    answer.recv_timeout(PATIENCE).ok().transpose()
}

/// Whether a lock on this file is seen through another open file description, and gone once it is given back. A file
/// system that refuses locks has none.
///
/// # Errors
/// The file can not be opened: of locks nothing is known.
fn work(file: &Path) -> io::Result<bool> {
    let open = || OpenOptions::new().read(true).write(true).open(file);
    let (one, other) = (open()?, open()?);
    Ok(judge(&one, &other).unwrap_or(false))
}

fn judge(one: &File, other: &File) -> nix::Result<bool> {
    if is_locked(other)? {
        // Whatever is asked, the answer is yes: no VM would start here, and no lock is a lock.
        return Ok(false);
    }
    fcntl(one.as_fd(), FcntlArg::F_OFD_SETLK(&byte(libc::F_RDLCK)))?;
    let seen = is_locked(other)?;
    fcntl(one.as_fd(), FcntlArg::F_OFD_SETLK(&byte(libc::F_UNLCK)))?;
    Ok(seen && !is_locked(other)?)
}

/// Whether somebody else holds the byte, as QEMU asks before it writes.
fn is_locked(file: &File) -> nix::Result<bool> {
    let mut asked = byte(libc::F_WRLCK);
    fcntl(file.as_fd(), FcntlArg::F_OFD_GETLK(&mut asked))?;
    Ok(i32::from(asked.l_type) != libc::F_UNLCK)
}

fn byte(kind: i32) -> libc::flock {
    libc::flock {
        // Constants of the kernel, 0 to 2.
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: WRITES,
        l_len: 1,
        // Locks of open file descriptions want none.
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_work_on_a_local_file_system() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert!(work(file.path()).expect("opened"));
        assert!(work(file.path()).expect("opened"), "none is left behind");
    }

    /// As on a file system that does not carry locks: one is not seen through the other.
    #[test]
    fn a_lock_that_is_not_seen_is_none() {
        let (one, other) = (tempfile::tempfile(), tempfile::tempfile());
        let judged = judge(&one.expect("a file"), &other.expect("another"));
        assert_eq!(judged, Ok(false));
    }

    /// As on a file system that answers yes whatever is asked.
    #[test]
    fn a_lock_that_nobody_gave_is_none() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let holder = file.reopen().expect("opened");
        let locked = fcntl(holder.as_fd(), FcntlArg::F_OFD_SETLK(&byte(libc::F_WRLCK)));
        locked.expect("locked");
        assert!(!work(file.path()).expect("opened"));
    }

    #[test]
    fn a_file_that_can_not_be_opened_tells_nothing() {
        work(Path::new("/proc/nowhere")).expect_err("not there");
    }
}
