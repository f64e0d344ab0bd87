//! The ledger: what this incarnation of the host did with each epoch of each VM.
//! What each step allows is decided in `failover::agent::ledger`; here it is made durable.
//! It lies in `/run`, so an entry means something for this boot only. A per-VM lock covers
//! each write, never a call to libvirt. The hook and the agent share it.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use failover::copy::CopyPhase;
use hypervisor::{Domain, Owner};
use nix::fcntl::{Flock, FlockArg};
use thiserror::Error;

use crate::guard::files::Firings;

pub use failover::agent::ledger::{Entry, EpochState, Refusal};

/// Why a step was refused.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// The file can not be read or written.
    #[error("ledger {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The step is not allowed.
    #[error("VM {uid}: {refusal}")]
    Refused {
        /// The VM.
        uid: String,
        /// Why.
        refusal: Refusal,
    },
}

/// A domain of ours, with what the ledger knows of its VM.
#[derive(Debug)]
pub struct Known<'d> {
    /// As libvirt shows it.
    pub domain: &'d Domain,
    /// Whose copy it is.
    pub owner: &'d Owner,
    /// The VM's entry.
    pub entry: Result<Entry, LedgerError>,
}

/// The ledger of this boot.
#[derive(Clone, Debug)]
pub struct Ledger {
    folder: PathBuf,
    run_dir: PathBuf,
}

impl Ledger {
    /// The ledger in a run folder.
    pub fn new(run_dir: &Path) -> Self {
        Self {
            folder: run_dir.join("ledger"),
            run_dir: run_dir.to_owned(),
        }
    }

    /// The ledger of volume jobs, beside that of VMs: their numbers are counted apart.
    pub fn of_jobs(run_dir: &Path) -> Self {
        Self {
            folder: run_dir.join("job-ledger"),
            run_dir: run_dir.to_owned(),
        }
    }

    /// Takes an epoch for a start or an arrival. `guard_firings` was counted when this
    /// incarnation began, so before any read that allowed it.
    ///
    /// # Errors
    /// The epoch was seen before, or an epoch at least as high was.
    pub fn take(&self, uid: &str, epoch: i64, guard_firings: u64) -> Result<(), LedgerError> {
        self.change(uid, |entry| entry.take(epoch, guard_firings))
    }

    /// Turns `used` into `started`, exactly once.
    ///
    /// # Errors
    /// The epoch is not `used`, or the guard has fired since.
    pub fn start(&self, uid: &str, epoch: i64) -> Result<(), LedgerError> {
        let path = self.run_dir.join("guard-firings");
        let firings =
            Firings::read(&self.run_dir).map_err(|source| LedgerError::Io { path, source })?;
        self.change(uid, |entry| entry.start(epoch, firings.count))
    }

    /// Takes note of a copy that runs here under an epoch without an entry.
    ///
    /// # Errors
    /// The entry can not be read or written.
    pub fn adopt(&self, uid: &str, epoch: i64) -> Result<(), LedgerError> {
        self.change(uid, |entry| {
            entry.adopt(epoch);
            Ok(())
        })
    }

    /// Takes note of an epoch without an entry, of which this incarnation said that `phase`, and of which no copy is here.
    ///
    /// # Errors
    /// The entry can not be read or written.
    pub fn recall(&self, uid: &str, epoch: i64, phase: CopyPhase) -> Result<(), LedgerError> {
        self.change(uid, |entry| {
            entry.recall(epoch, phase);
            Ok(())
        })
    }

    /// Closes an epoch for ever; closing what is closed is fine.
    ///
    /// # Errors
    /// The epoch was handed over.
    pub fn close(&self, uid: &str, epoch: i64) -> Result<(), LedgerError> {
        self.change(uid, |entry| entry.close(epoch))
    }

    /// Marks an epoch as handed over.
    ///
    /// # Errors
    /// The epoch does not run here.
    pub fn hand_over(&self, uid: &str, epoch: i64) -> Result<(), LedgerError> {
        self.change(uid, |entry| entry.hand_over(epoch))
    }

    /// What is known of each domain of ours.
    pub fn known<'d>(&self, domains: &'d [Domain]) -> Vec<Known<'d>> {
        let ours = domains
            .iter()
            .filter_map(|domain| Some((domain, domain.owner.as_ref()?)));
        ours.map(|(domain, owner)| Known {
            domain,
            owner,
            entry: self.entry(owner.vm.as_str()),
        })
        .collect()
    }

    /// What is known of a VM.
    ///
    /// # Errors
    /// The file can not be read.
    pub fn entry(&self, uid: &str) -> Result<Entry, LedgerError> {
        let path = self.path(uid);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| LedgerError::Io {
                path,
                source: error.into(),
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Entry::default()),
            Err(source) => Err(LedgerError::Io { path, source }),
        }
    }

    /// Every VM that this boot knows.
    ///
    /// # Errors
    /// The folder can not be read.
    pub fn uids(&self) -> Result<BTreeSet<String>, LedgerError> {
        let io = |source| LedgerError::Io {
            path: self.folder.clone(),
            source,
        };
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(BTreeSet::new());
            }
            Err(error) => return Err(io(error)),
        };
        let mut uids = BTreeSet::new();
        for entry in entries {
            let name = entry.map_err(io)?.file_name();
            let uid = name.to_string_lossy();
            uids.extend(uid.strip_suffix(".json").map(str::to_owned));
        }
        Ok(uids)
    }

    /// The highest epoch that this boot ever saw, of any VM; 0: none.
    ///
    /// # Errors
    /// An entry can not be read.
    pub fn highest(&self) -> Result<i64, LedgerError> {
        let mut highest = 0;
        for uid in self.uids()? {
            let entry = self.entry(&uid)?;
            highest = entry
                .epochs
                .last_key_value()
                .map_or(highest, |(epoch, _)| highest.max(*epoch));
        }
        Ok(highest)
    }

    fn path(&self, uid: &str) -> PathBuf {
        // A uid is a UUID from the API or from our own metadata; anything else stays in the folder.
        let name: String = uid
            .chars()
            .filter(|character| character.is_ascii_alphanumeric() || *character == '-')
            .take(64)
            .collect();
        self.folder.join(format!("{name}.json"))
    }

    fn change(
        &self,
        uid: &str,
        step: impl FnOnce(&mut Entry) -> Result<(), Refusal>,
    ) -> Result<(), LedgerError> {
        let path = self.path(uid);
        let io = |source| LedgerError::Io {
            path: path.clone(),
            source,
        };
        fs::create_dir_all(&self.folder).map_err(io)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.with_extension("lock"))
            .map_err(io)?;
        let _lock =
            Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| io(errno.into()))?;
        let before = self.entry(uid)?;
        let mut after = before.clone();
        step(&mut after).map_err(|refusal| LedgerError::Refused {
            uid: uid.to_owned(),
            refusal,
        })?;
        if after == before {
            return Ok(());
        }
        let temporary = path.with_extension("tmp");
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(&serde_json::to_vec(&after)?)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)
        };
        write().map_err(io)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    fn ledger() -> (tempfile::TempDir, Ledger) {
        let folder = tempfile::tempdir().expect("a folder");
        let ledger = Ledger::new(folder.path());
        (folder, ledger)
    }

    #[test]
    fn an_epoch_buys_one_start() {
        let (_folder, ledger) = ledger();
        ledger.take("vm", 1, 0).expect("first use");
        ledger.take("vm", 1, 0).expect_err("no second use");
        ledger.start("vm", 1).expect("first start");
        ledger.start("vm", 1).expect_err("no second start");
        ledger.close("vm", 1).expect("close");
        ledger.start("vm", 1).expect_err("closed is for ever");
        ledger.take("vm", 2, 0).expect("a new epoch");
    }

    #[test]
    fn a_closed_epoch_that_was_never_used_can_not_be_used() {
        let (_folder, ledger) = ledger();
        ledger.close("vm", 5).expect("declined");
        ledger.take("vm", 5, 0).expect_err("closed");
        ledger.take("vm", 4, 0).expect_err("an older one neither");
    }

    #[test]
    fn a_firing_of_the_guard_voids_a_start_that_was_allowed_before() {
        let (folder, ledger) = ledger();
        ledger.take("vm", 1, 0).expect("use");
        let firings = Firings {
            count: 1,
            killing: true,
        };
        firings.write(folder.path()).expect("firing");
        assert!(matches!(
            ledger.start("vm", 1),
            Err(LedgerError::Refused {
                refusal: Refusal::GuardFired,
                ..
            })
        ));
        fs::write(folder.path().join("guard-firings"), "?").expect("write");
        ledger.take("vm", 2, 0).expect("use");
        assert!(
            matches!(ledger.start("vm", 2), Err(LedgerError::Io { .. })),
            "nobody knows whether it fired"
        );
    }

    #[test]
    fn what_was_handed_over_is_neither_closed_nor_started() {
        let (_folder, ledger) = ledger();
        ledger.take("vm", 1, 0).expect("use");
        ledger.hand_over("vm", 1).expect_err("it does not run yet");
        ledger.start("vm", 1).expect("start");
        ledger.hand_over("vm", 1).expect("hand over");
        ledger.close("vm", 1).expect_err("handed over is for ever");
        ledger.hand_over("vm", 1).expect("saying it again is fine");
    }

    #[test]
    fn an_epoch_that_is_recalled_is_over_and_what_has_an_entry_stays_as_it_is() {
        let (_folder, ledger) = ledger();
        ledger
            .recall("vm", 3, CopyPhase::Running)
            .expect("recalled");
        ledger.take("vm", 3, 0).expect_err("it is over");
        ledger
            .recall("vm", 4, CopyPhase::HandedOver)
            .expect("recalled");
        ledger.take("vm", 4, 0).expect_err("it is over");
        ledger.hand_over("vm", 4).expect("the target may ask again");
        ledger.take("vm", 5, 0).expect("a new epoch");
        ledger
            .recall("vm", 5, CopyPhase::Closed)
            .expect("nothing to do");
        ledger.start("vm", 5).expect("it was taken");
    }

    #[test]
    fn tells_every_vm_and_the_highest_epoch() {
        let (_folder, ledger) = ledger();
        assert_eq!(ledger.highest().expect("nothing yet"), 0);
        ledger.take("one", 7, 0).expect("use");
        ledger.close("two", 9).expect("close");
        assert_eq!(ledger.highest().expect("highest"), 9);
        let uids: Vec<_> = ledger.uids().expect("uids").into_iter().collect();
        assert_eq!(uids, ["one", "two"]);
    }

    proptest! {
        #[test]
        fn no_order_of_steps_starts_an_epoch_twice(steps in proptest::collection::vec((0..4_u8, 1..4_i64), 1..40)) {
            let (_folder, ledger) = ledger();
            let mut starts = BTreeMap::new();
            for (step, epoch) in steps {
                let result = match step {
                    0 => ledger.take("vm", epoch, 0),
                    1 => ledger.start("vm", epoch),
                    2 => ledger.close("vm", epoch),
                    _ => ledger.hand_over("vm", epoch),
                };
                if step == 1 && result.is_ok() {
                    *starts.entry(epoch).or_insert(0) += 1;
                }
            }
            prop_assert!(starts.values().all(|count| *count == 1));
        }
    }
}
