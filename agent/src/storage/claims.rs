//! The claim of a volume beside its data, `POOL/volumes/VOLUME-UID.claim`: what the API's claim
//! says, written by the agent before it starts a copy or works on the file. Within one fleet the
//! API's claim decides; this one keeps out a second fleet that uses the same pool, and a fleet
//! whose API was restored to a moment before this copy was started.
//!
//! Changed under a lock on a file beside it, and read back. Where the lock does not reach the
//! other hosts (some network file systems), a race of two fleets within the same milliseconds is
//! left to QEMU's own image locks.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use model::Claim;
use nix::fcntl::{Flock, FlockArg};
use thiserror::Error;

use super::folder::PoolFolder;

/// Longest wait for the lock: whoever holds it writes one small file.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the lock is tried.
const AGAIN: Duration = Duration::from_millis(20);
/// Longest claim that is read, bytes.
const BYTES_MAX: u64 = 64 * 1024;

/// Why a volume may not be written.
#[derive(Debug, Error)]
pub enum ClaimError {
    /// Another fleet's.
    #[error(
        "{path} names fleet {fleet}: another fleet uses this volume; if that fleet is gone for good, remove the file"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The fleet that it names.
        fleet: String,
    },
    /// A later start of the same VM.
    #[error(
        "{path} names epoch {standing} of this VM, above epoch {wanted}: the API server was restored to an older state"
    )]
    Higher {
        /// The file.
        path: PathBuf,
        /// The epoch that it names.
        standing: i64,
        /// The epoch of the start.
        wanted: i64,
    },
    /// No claim.
    #[error("{path} holds no claim; if nobody uses the volume, remove the file")]
    Unreadable {
        /// The file.
        path: PathBuf,
    },
    /// Whoever wanted it waits no more.
    #[error("{path}: the pool answered too late; the claim was given up")]
    GivenUp {
        /// The file.
        path: PathBuf,
    },
    /// The file system failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// File of a volume's claim on its pool.
pub fn claim_file(pool: &Path, volume_uid: &str) -> PathBuf {
    pool.join("volumes").join(format!("{volume_uid}.claim"))
}

/// Whether a claim may follow the standing one.
fn judge(path: &Path, standing: Option<&Claim>, wanted: &Claim) -> Result<(), ClaimError> {
    let Some(standing) = standing else {
        return Ok(());
    };
    if standing.fleet != wanted.fleet {
        return Err(ClaimError::Foreign {
            path: path.to_owned(),
            fleet: standing.fleet.clone(),
        });
    }
    let same = (standing.holder, &standing.uid) == (wanted.holder, &wanted.uid);
    if same && standing.assignment.epoch > wanted.assignment.epoch {
        return Err(ClaimError::Higher {
            path: path.to_owned(),
            standing: standing.assignment.epoch.0,
            wanted: wanted.assignment.epoch.0,
        });
    }
    Ok(())
}

/// Writes a claim beside the volume, or says why it must not be used. Blocks.
///
/// # Errors
/// See [`ClaimError`].
pub fn write(pool: &PoolFolder, volume_uid: &str, wanted: &Claim) -> Result<(), ClaimError> {
    write_while(pool, volume_uid, wanted, || true)
}

/// As [`write`], for somebody who may give up waiting while a pool hangs. Once `is_wanted` says so nothing is written any
/// more: [`judge`] refuses an older claim of the same VM, but not one of a VM that the volume has been taken from since.
///
/// # Errors
/// See [`ClaimError`].
pub fn write_while(
    pool: &PoolFolder,
    volume_uid: &str,
    wanted: &Claim,
    is_wanted: impl Fn() -> bool,
) -> Result<(), ClaimError> {
    let path = claim_file(pool.path(), volume_uid);
    let io = |source| ClaimError::Io {
        path: path.clone(),
        source,
    };
    pool.check().map_err(io)?;
    fs::create_dir_all(pool.path().join("volumes")).map_err(io)?;
    let _lock = lock(&path.with_extension("claim-lock")).map_err(io)?;
    let standing = read(&path)?;
    judge(&path, standing.as_ref(), wanted)?;
    if standing.as_ref() == Some(wanted) {
        return Ok(());
    }
    if !replace(&path, wanted, is_wanted).map_err(io)? {
        return Err(ClaimError::GivenUp { path });
    }
    // Read back: a pool that does not keep what was written, or another writer, shows here.
    match read(&path)? {
        Some(found) if found == *wanted => Ok(()),
        found => judge(&path, found.as_ref(), wanted).and_then(|()| {
            let lost = io::Error::other("the claim was not read back as written");
            Err(io(lost))
        }),
    }
}

/// Removes a claim with its volume, unless it is another fleet's. Blocks.
///
/// # Errors
/// See [`ClaimError`].
pub fn remove(pool: &PoolFolder, volume_uid: &str, fleet: &str) -> Result<(), ClaimError> {
    let path = claim_file(pool.path(), volume_uid);
    if let Err(source) = pool.check() {
        return Err(ClaimError::Io { path, source });
    }
    if let Some(standing) = read(&path)?
        && standing.fleet != fleet
    {
        return Err(ClaimError::Foreign {
            path,
            fleet: standing.fleet,
        });
    }
    for file in [path.clone(), path.with_extension("claim-lock")] {
        match fs::remove_file(&file) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                return Err(ClaimError::Io { path: file, source });
            }
            _ => {}
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Option<Claim>, ClaimError> {
    let io = |source| ClaimError::Io {
        path: path.to_owned(),
        source,
    };
    let unreadable = || ClaimError::Unreadable {
        path: path.to_owned(),
    };
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
        Ok(metadata) if metadata.len() > BYTES_MAX => return Err(unreadable()),
        Ok(_) => {}
    }
    let bytes = fs::read(path).map_err(io)?;
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|_| unreadable())
}

/// Whether it was replaced: asked last of all, as each step before it may hang, and its lock be lost meanwhile.
fn replace(path: &Path, claim: &Claim, is_wanted: impl Fn() -> bool) -> io::Result<bool> {
    let temporary = path.with_extension(format!("claim-{}", claim.assignment.host));
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(claim)?)?;
    file.sync_all()?;
    if !is_wanted() {
        fs::remove_file(&temporary)?;
        return Ok(false);
    }
    fs::rename(&temporary, path)?;
    Ok(true)
}

fn lock(path: &Path) -> io::Result<Flock<File>> {
    let begin = Instant::now();
    loop {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((_, errno)) if begin.elapsed() > PATIENCE => return Err(errno.into()),
            Err(_) => std::thread::sleep(AGAIN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Assignment, ClaimHolder, Epoch};

    fn pool() -> (tempfile::TempDir, PoolFolder) {
        let folder = tempfile::tempdir().expect("a folder");
        let pool = PoolFolder::new(folder.path(), false);
        (folder, pool)
    }

    fn claim(fleet: &str, vm: &str, host: &str, epoch: i64) -> Claim {
        Claim {
            fleet: fleet.to_owned(),
            holder: ClaimHolder::VirtualMachine,
            uid: vm.to_owned(),
            assignment: Assignment {
                host: host.into(),
                boot_id: "b".into(),
                epoch: Epoch(epoch),
            },
        }
    }

    #[test]
    fn a_claim_grows_moves_within_its_fleet_and_never_falls_back() {
        let (_folder, pool) = pool();
        let put = |claim: &Claim| write(&pool, "vol", claim);
        put(&claim("f", "v", "h1", 3)).expect("first");
        put(&claim("f", "v", "h1", 3)).expect("again");
        put(&claim("f", "v", "h2", 4)).expect("a later start");
        let older = put(&claim("f", "v", "h1", 3)).expect_err("an older start");
        assert!(
            matches!(
                older,
                ClaimError::Higher {
                    standing: 4,
                    wanted: 3,
                    ..
                }
            ),
            "{older}"
        );
        put(&claim("f", "w", "h1", 1)).expect("given to another VM by the API");
    }

    #[test]
    fn what_was_given_up_writes_nothing_any_more() {
        let folder = tempfile::tempdir().expect("a folder");
        let pool = PoolFolder::new(folder.path(), false);
        // The volume has been given to another VM since: nothing in the file refuses the old one.
        write(&pool, "vol", &claim("f", "w", "h2", 1)).expect("the new one");
        let late = write_while(&pool, "vol", &claim("f", "v", "h1", 3), || false);
        let late = late.expect_err("given up");
        assert!(matches!(late, ClaimError::GivenUp { .. }), "{late}");
        let standing = read(&claim_file(folder.path(), "vol")).expect("read");
        assert_eq!(standing, Some(claim("f", "w", "h2", 1)));
        let files = fs::read_dir(folder.path().join("volumes")).expect("a folder");
        assert_eq!(files.count(), 2, "the claim and its lock");
    }

    #[test]
    fn another_fleet_neither_takes_nor_removes_it() {
        let (_folder, pool) = pool();
        write(&pool, "vol", &claim("f", "v", "h1", 3)).expect("first");
        let taken = write(&pool, "vol", &claim("g", "v", "h1", 9)).expect_err("foreign");
        assert!(taken.to_string().contains("fleet f"), "{taken}");
        remove(&pool, "vol", "g").expect_err("foreign");
        assert!(claim_file(pool.path(), "vol").exists());
        remove(&pool, "vol", "f").expect("its own");
        remove(&pool, "vol", "f").expect("gone already");
        write(&pool, "vol", &claim("g", "v", "h1", 1)).expect("free");
    }

    #[test]
    fn what_is_no_claim_keeps_everybody_out() {
        let (_folder, pool) = pool();
        fs::create_dir_all(pool.path().join("volumes")).expect("a folder");
        for content in [&b""[..], b"{}", b"null", &[0xff; 64]] {
            fs::write(claim_file(pool.path(), "vol"), content).expect("write");
            let error = write(&pool, "vol", &claim("f", "v", "h1", 1)).expect_err("none");
            assert!(matches!(error, ClaimError::Unreadable { .. }), "{error}");
        }
    }

    #[test]
    fn of_many_fleets_at_once_one_wins() {
        let (_folder, pool) = pool();
        let won: usize = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..8)
                .map(|number| {
                    let pool = &pool;
                    scope.spawn(move || {
                        let claim = claim(&format!("f{number}"), "v", "h1", 1);
                        usize::from(write(pool, "vol", &claim).is_ok())
                    })
                })
                .collect();
            tries
                .into_iter()
                .map(|one| one.join().expect("ended"))
                .sum()
        });
        assert_eq!(won, 1);
    }

    #[test]
    fn a_shared_pool_that_is_not_mounted_holds_no_claims() {
        let (folder, local) = pool();
        let shared = PoolFolder::new(folder.path(), true);
        let claim = claim("f", "v", "h1", 1);
        let error = write(&shared, "vol", &claim).expect_err("not mounted");
        assert!(error.to_string().contains("nothing is mounted"), "{error}");
        assert!(!folder.path().join("volumes").exists());
        write(&local, "vol", &claim).expect("written");
        remove(&shared, "vol", "f").expect_err("not mounted");
        assert!(claim_file(folder.path(), "vol").exists());
    }
}
