//! Health of storage pools as this host sees them. A pool that hangs holds up only the thread
//! that looks at it, and is reported as lost meanwhile.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use api::HostStoragePool;
use hardware::{PoolAnswer, PoolSample};

use super::folder::PoolFolder;
use super::locks;

/// An answer that takes longer is slow.
const SLOW: Duration = Duration::from_secs(2);
/// Without an answer for this long the pool is lost.
const LOST: Duration = Duration::from_secs(8);
/// Free space is reported in steps, so that its every change is not a write to the API: of a hundredth of the pool, which a bulk
/// write to a large one passes seldom too, and of this many bytes at least.
const STEP_BYTES_MIN: u64 = 256 << 20;

/// Free space of a pool as it is reported, bytes.
fn in_steps(available: u64, capacity: u64) -> u64 {
    let step = (capacity / 100).max(STEP_BYTES_MIN);
    available / step * step
}

/// What an answer of a pool says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Measured {
    capacity: u64,
    available: u64,
    /// Image locks work; none where the pool does not answer about locks.
    locks: Option<bool>,
}

/// An answer of a pool, or what went wrong; and how long it took.
type Answer = (Result<Measured, String>, Duration);

#[derive(Clone, Debug, Default)]
struct Look {
    /// When the look that is under way began.
    pending: Option<Instant>,
    /// The last answer; it stands until the next is there or overdue.
    answer: Option<Answer>,
    /// It was there once in this run of the agent.
    was_there: bool,
    /// It is not mounted, and was not in this run of the agent: a mount that comes after a boot is waited for, and is no
    /// fault of the host that keeps VMs away for long.
    awaited: bool,
}

/// Looks at pools, each on its own thread, one at a time.
#[derive(Clone, Default)]
pub struct PoolProbes(Arc<Mutex<BTreeMap<PoolFolder, Look>>>);

/// The looks of this agent: its report and its hardware probes see the same ones.
static SHARED: LazyLock<PoolProbes> = LazyLock::new(PoolProbes::default);

impl PoolProbes {
    /// The looks of this agent.
    pub fn shared() -> Self {
        SHARED.clone()
    }

    /// How a pool answers, for the hardware probes; none while nothing is known of it.
    pub fn sample(&self, name: &str, folder: &PoolFolder, now: Instant) -> Option<PoolSample> {
        let _begun = self.look(name, folder, now);
        let looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Some(PoolSample {
            pool: name.to_owned(),
            answer: answer_of(looks.get(folder)?, now)?,
        })
    }

    /// Begins a look at a pool, unless one is still under way; returns what is known.
    pub fn look(&self, name: &str, folder: &PoolFolder, now: Instant) -> HostStoragePool {
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let look = looks.entry(folder.clone()).or_default();
        if look.pending.is_none() {
            look.pending = Some(now);
            let (folder, looks, was_there) = (folder.clone(), self.0.clone(), look.was_there);
            std::thread::spawn(move || {
                let look = look_now(&folder, was_there, now);
                let mut looks = looks.lock().unwrap_or_else(PoisonError::into_inner);
                looks.insert(folder, look);
            });
        }
        judge(name, look, now)
    }
}

/// A whole look, begun at `begun`. Blocks, as long as the storage hangs.
fn look_now(folder: &PoolFolder, was_there: bool, begun: Instant) -> Look {
    let answer = measure(folder);
    let was_there = was_there || answer.is_ok();
    Look {
        pending: None,
        was_there,
        awaited: !was_there && folder.check().is_err(),
        answer: Some((answer, begun.elapsed())),
    }
}

fn answer_of(look: &Look, now: Instant) -> Option<PoolAnswer> {
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let waited = look
        .pending
        .map_or(Duration::ZERO, |since| now.duration_since(since));
    if waited > SLOW {
        return Some(PoolAnswer::Pending {
            milliseconds: milliseconds(waited),
        });
    }
    if look.awaited {
        return None;
    }
    Some(match look.answer.as_ref()? {
        (Ok(_), took) => PoolAnswer::Answered {
            milliseconds: milliseconds(*took),
        },
        (Err(message), _) => PoolAnswer::Failed {
            message: message.clone(),
        },
    })
}

/// Of this host and no other: on a shared pool another host's probe would remove ours. Process ids are
/// of one host each and may be equal.
fn probe_name() -> std::io::Result<String> {
    let host = nix::unistd::gethostname()?;
    Ok(format!(".zhengyun-probe-{}", host.to_string_lossy()))
}

/// By writing, as a hung or read-only pool still answers questions.
fn measure(folder: &PoolFolder) -> Result<Measured, String> {
    folder.check().map_err(|error| error.to_string())?;
    let path = folder.path();
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let probe = path.join(probe_name().map_err(failed)?);
    std::fs::write(&probe, b"probe").map_err(failed)?;
    let locks = locks::answer(&probe);
    std::fs::remove_file(&probe).map_err(failed)?;
    let stat =
        nix::sys::statvfs::statvfs(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let unit = stat.fragment_size();
    let capacity = stat.blocks() * unit;
    Ok(Measured {
        capacity,
        available: in_steps(stat.blocks_available() * unit, capacity),
        locks: locks.map_err(failed)?,
    })
}

fn judge(name: &str, look: &Look, now: Instant) -> HostStoragePool {
    let bytes = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let report = |state: &str, message: Option<String>, known: Option<Measured>| HostStoragePool {
        name: name.to_owned(),
        state: state.to_owned(),
        message,
        capacity_bytes: known.map_or(0, |known| bytes(known.capacity)),
        available_bytes: known.map_or(0, |known| bytes(known.available)),
        image_locks: known.and_then(|known| known.locks),
    };
    let waited = look
        .pending
        .map_or(Duration::ZERO, |since| now.duration_since(since));
    if waited > LOST {
        let message = format!("no answer for {} s; the storage hangs", waited.as_secs());
        return report("Lost", Some(message), None);
    }
    if waited > SLOW
        && let Some((Ok(known), _)) = &look.answer
    {
        let message = format!("a small write takes more than {} s", SLOW.as_secs());
        return report("Slow", Some(message), Some(*known));
    }
    match &look.answer {
        None => report("Lost", Some("waits for the first answer".to_owned()), None),
        Some((Err(error), _)) => report("Lost", Some(error.clone()), None),
        Some((Ok(known), took)) if *took > SLOW => report(
            "Slow",
            Some(format!("a small write took {:.1} s", took.as_secs_f64())),
            Some(*known),
        ),
        Some((Ok(known), _)) => report("Ready", None, Some(*known)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Measured = Measured {
        capacity: 2,
        available: 1,
        locks: Some(true),
    };

    #[test]
    fn a_bulk_write_changes_what_is_reported_of_a_pool_a_hundred_times_at_most() {
        const GIB: u64 = 1 << 30;
        for (capacity, reports) in [(2 * GIB, 9), (25 * GIB, 101), (100_000 * GIB, 101)] {
            let told: std::collections::BTreeSet<u64> = (0..=10_000)
                .map(|part| in_steps(capacity / 10_000 * part, capacity))
                .collect();
            assert!(told.len() <= reports, "{} of {capacity}", told.len());
        }
        assert_eq!(in_steps(3 * GIB, 10 * GIB), 3 * GIB, "small ones as ever");
    }

    #[test]
    fn whether_locks_work_is_told_as_long_as_the_pool_answers() {
        let now = Instant::now();
        let told = |answer: Option<Answer>, waited: Duration| {
            let look = Look {
                pending: Some(now),
                answer,
                ..Look::default()
            };
            judge("p", &look, now + waited).image_locks
        };
        let without = Measured {
            locks: Some(false),
            ..GOOD
        };
        assert_eq!(told(Some((Ok(GOOD), SLOW * 2)), Duration::ZERO), Some(true));
        let good = Some((Ok(without), Duration::ZERO));
        assert_eq!(told(good.clone(), Duration::ZERO), Some(false));
        assert_eq!(told(good, LOST * 2), None, "it hangs now");
        let failed = Some((Err("cut".to_owned()), Duration::ZERO));
        assert_eq!(told(failed, Duration::ZERO), None);
    }

    #[test]
    fn a_probe_bears_the_name_of_its_host() {
        let host = nix::unistd::gethostname().expect("a name");
        let name = probe_name().expect("a name");
        assert!(name.ends_with(&*host.to_string_lossy()), "{name}");
    }

    #[test]
    fn a_pool_is_ready_slow_or_lost_by_its_answer() {
        let now = Instant::now();
        let state = |answer: Option<Answer>, waited: Duration| {
            judge(
                "p",
                &Look {
                    pending: Some(now),
                    answer,
                    ..Look::default()
                },
                now + waited,
            )
            .state
        };
        let good = || Some((Ok(GOOD), Duration::ZERO));
        assert_eq!(state(good(), Duration::ZERO), "Ready");
        assert_eq!(state(Some((Ok(GOOD), SLOW * 2)), Duration::ZERO), "Slow");
        let waits = SLOW + Duration::from_millis(1);
        assert_eq!(state(good(), waits), "Slow", "so far");
        assert_eq!(state(Some((Err("cut".to_owned()), SLOW)), waits), "Lost");
        assert_eq!(
            state(
                Some((Err("read-only".to_owned()), Duration::ZERO)),
                Duration::ZERO
            ),
            "Lost"
        );
        assert_eq!(
            state(good(), LOST * 2),
            "Lost",
            "an old answer does not hide that it hangs now"
        );
        assert_eq!(state(None, Duration::ZERO), "Lost");
    }

    #[test]
    fn a_pool_that_hangs_is_told_to_the_probes_however_well_it_answered_before() {
        let now = Instant::now();
        let told = |answer: Option<Answer>, waited: Duration| {
            let look = Look {
                pending: Some(now),
                answer,
                ..Look::default()
            };
            answer_of(&look, now + waited)
        };
        let good = || Some((Ok(GOOD), Duration::from_millis(3)));
        assert_eq!(
            told(good(), Duration::ZERO),
            Some(PoolAnswer::Answered { milliseconds: 3 })
        );
        assert_eq!(
            told(good(), Duration::from_secs(11)),
            Some(PoolAnswer::Pending {
                milliseconds: 11_000
            })
        );
        let failed = Some((Err("cut".to_owned()), Duration::ZERO));
        assert!(matches!(
            told(failed, Duration::ZERO),
            Some(PoolAnswer::Failed { .. })
        ));
        assert_eq!(told(None, Duration::ZERO), None, "nothing is known yet");
    }

    #[test]
    fn a_real_folder_is_measured() {
        let folder = tempfile::tempdir().expect("a folder");
        let local = PoolFolder::new(folder.path(), false);
        let measured = measure(&local).expect("sizes");
        assert!(measured.capacity >= measured.available && measured.capacity > 0);
        assert_eq!(measured.locks, Some(true), "a local file system has locks");
        let left = std::fs::read_dir(folder.path()).expect("a folder").count();
        assert_eq!(left, 0, "the probe is taken away");
        let nowhere = PoolFolder::new("/proc/nowhere", false);
        measure(&nowhere).expect_err("can not be written");
    }

    /// NFS servers come up after the hosts of a site that lost its power.
    #[test]
    fn a_mount_that_comes_after_a_boot_is_waited_for_and_one_that_is_lost_is_a_fault() {
        let folder = tempfile::tempdir().expect("a folder");
        let now = Instant::now();
        let (absent, there) = (
            PoolFolder::new(folder.path(), true),
            PoolFolder::new(folder.path(), false),
        );
        let at_boot = look_now(&absent, false, now);
        assert_eq!(judge("p", &at_boot, now).state, "Lost");
        assert_eq!(answer_of(&at_boot, now), None);
        let mounted = look_now(&there, at_boot.was_there, now);
        assert!(matches!(
            answer_of(&mounted, now),
            Some(PoolAnswer::Answered { .. })
        ));
        let lost = look_now(&absent, mounted.was_there, now);
        assert!(matches!(
            answer_of(&lost, now),
            Some(PoolAnswer::Failed { .. })
        ));
        let broken = look_now(&PoolFolder::new("/proc/nowhere", false), false, now);
        assert!(matches!(
            answer_of(&broken, now),
            Some(PoolAnswer::Failed { .. })
        ));
    }

    #[test]
    fn a_shared_pool_that_is_not_mounted_is_lost_and_nothing_is_written_below_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let now = Instant::now();
        let answer = measure(&PoolFolder::new(folder.path(), true));
        let left = std::fs::read_dir(folder.path()).expect("a folder").count();
        assert_eq!(left, 0);
        let look = Look {
            answer: Some((answer, Duration::ZERO)),
            ..Look::default()
        };
        let told = judge("p", &look, now);
        assert_eq!(told.state, "Lost");
        let message = told.message.expect("why");
        assert!(message.contains("nothing is mounted"), "{message}");
    }
}
