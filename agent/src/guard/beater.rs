//! A thread per pool that beats and looks at the others. A pool that hangs holds up its thread
//! and nothing else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use failover::guard::observer::{PoolWatch, Round};
use failover::{Moment, Policy};
use model::HostName;

use super::clock;
use super::slot::{Beat, Slots};

/// How many rounds use one list of the folder's slots.
const LIST_EVERY: u64 = 10;

/// What is known of one pool.
#[derive(Clone, Debug, Default)]
pub struct PoolState {
    /// When the last beat was begun that was written and read back.
    pub beaten_at: Option<Moment>,
    /// What was seen of others.
    pub watch: PoolWatch,
    /// Why the last beat failed.
    pub problem: Option<String>,
}

/// The thread of one pool.
pub struct Beater {
    state: Arc<Mutex<PoolState>>,
    stop: Arc<AtomicBool>,
}

impl Drop for Beater {
    fn drop(&mut self) {
        // Not joined: it may hang in the pool.
        self.stop.store(true, Ordering::Release);
    }
}

impl Beater {
    /// Begins to beat on a pool, twice in each interval.
    pub fn start(slots: Slots, host: HostName, boot_id: String, policy: Policy) -> Self {
        let state = Arc::new(Mutex::new(PoolState {
            problem: Some("waits for the first answer".to_owned()),
            ..PoolState::default()
        }));
        let stop = Arc::new(AtomicBool::new(false));
        let mut work = Work {
            count: 0,
            slots,
            host,
            boot_id,
            policy,
            others: Vec::new(),
            rounds: 0,
        };
        let (shared, stopped) = (state.clone(), stop.clone());
        thread::spawn(move || {
            // Here and not before: it reads the pool, which may hang, and whoever starts a beater renews the Lease.
            work.count = first_count(&work.slots, &work.host);
            while !stopped.load(Ordering::Acquire) {
                let Ok(began) = clock::now() else { return };
                work.round(&shared, began);
                let half = work.policy.heartbeat_interval_milliseconds / 2;
                let passed = clock::now().map_or(half, |now| now.since(began));
                thread::sleep(Duration::from_millis(half.saturating_sub(passed).max(50)));
            }
        });
        Self { state, stop }
    }

    /// What is known now.
    pub fn state(&self) -> PoolState {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Beyond everything that was ever beaten here, even where the slot is lost.
fn first_count(slots: &Slots, host: &HostName) -> u64 {
    let known = slots.read(host).map_or(0, |beat| beat.count);
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let wall = wall.map_or(0, |passed| u64::try_from(passed.as_millis()).unwrap_or(0));
    known.max(wall) + 1
}

struct Work {
    slots: Slots,
    host: HostName,
    boot_id: String,
    policy: Policy,
    count: u64,
    others: Vec<HostName>,
    rounds: u64,
}

impl Work {
    fn round(&mut self, shared: &Mutex<PoolState>, began: Moment) {
        self.count += 1;
        let beat = Beat {
            host: self.host.clone(),
            boot_id: self.boot_id.clone(),
            count: self.count,
        };
        let written = self.slots.write(&beat);
        if self.rounds.is_multiple_of(LIST_EVERY)
            && let Ok(hosts) = self.slots.hosts()
        {
            self.others = hosts;
        }
        self.rounds += 1;
        let chosen = shared
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .watch
            .whom(&self.host, &self.others, &self.policy);
        let seen = chosen
            .into_iter()
            .filter_map(|host| {
                let count = self.slots.read(&host).ok()?.count;
                Some((host, count))
            })
            .collect();
        let Ok(ended) = clock::now() else { return };
        let round = Round {
            own: written.is_ok(),
            began,
            ended,
            seen,
        };
        let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
        state.watch.take(&round, &self.policy);
        match written {
            Ok(()) => (state.beaten_at, state.problem) = (Some(began), None),
            Err(error) => state.problem = Some(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
        let begin = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(
                begin.elapsed() < Duration::from_secs(20),
                "waited for too long"
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_pool_that_hangs_holds_up_nobody_who_starts_to_beat_on_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let slots = Slots::new(folder.path(), false);
        std::fs::create_dir(folder.path().join("heartbeat")).expect("a folder of slots");
        // Whoever opens it to read waits for a writer who never comes.
        let slot = folder.path().join("heartbeat/h1.beat");
        nix::unistd::mkfifo(&slot, nix::sys::stat::Mode::S_IRWXU).expect("a slot that hangs");
        let (started, hears) = std::sync::mpsc::channel();
        thread::spawn(move || {
            started.send(Beater::start(
                slots,
                "h1".into(),
                "b".to_owned(),
                Policy::default(),
            ))
        });
        let beater = hears.recv_timeout(Duration::from_secs(30));
        let beater = beater.expect("the guard goes on");
        assert_eq!(beater.state().beaten_at, None);
    }

    #[test]
    fn two_hosts_on_one_folder_see_each_other_beat_and_stop() {
        let folder = tempfile::tempdir().expect("a folder");
        let policy = Policy {
            heartbeat_interval_milliseconds: 200,
            ..Policy::default()
        };
        let start = |host: &str| {
            Beater::start(
                Slots::new(folder.path(), false),
                host.into(),
                "b".to_owned(),
                policy.clone(),
            )
        };
        let (one, two) = (start("h1"), start("h2"));
        let beat = || one.state().watch.runs.get(&HostName::from("h2")).copied();
        let first = until(beat);
        until(|| beat().filter(|run| run.beat > first.beat));
        drop(two);
        let quiet = until(|| beat().filter(|run| run.until.since(run.since) > 1_000));
        assert!(quiet.beat > first.beat);
        let own = one.state();
        assert_eq!(own.problem, None);
        assert!(own.beaten_at.is_some());
    }

    #[test]
    fn counts_grow_over_boots() {
        let folder = tempfile::tempdir().expect("a folder");
        let slots = Slots::new(folder.path(), false);
        let beat = Beat {
            host: "h1".into(),
            boot_id: "b".to_owned(),
            count: u64::MAX / 2,
        };
        slots.write(&beat).expect("write");
        assert!(first_count(&slots, &"h1".into()) > beat.count);
    }
}
