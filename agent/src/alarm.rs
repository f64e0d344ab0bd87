//! Why this host starts nothing: the hook that guards starts was not seen to work, or the ledger
//! that says which epochs this boot has used was lost.
//!
//! A lost ledger shows by a copy of this boot under an epoch that the ledger never saw, or, where none runs, by
//! what this incarnation has said of such an epoch. The copy is kept, and may move away or be stopped by its
//! user; but which other epochs were used, and closed, nobody knows any more, so nothing is started before the
//! host has booted anew.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use failover::agent::copy::is_unaccounted;
use model::BootId;
use serde::{Deserialize, Serialize};

use crate::guard::files::replace;
use crate::ledger::{Known, Ledger};
use crate::vm::decide::domain as copy_of;

/// What the run folder keeps of a lost ledger: an agent that starts anew must know.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Lost {
    boot_id: BootId,
    why: String,
}

/// The reasons against starts.
#[derive(Debug)]
pub struct Alarms {
    path: PathBuf,
    boot_id: BootId,
    /// The ledger was lost in this boot.
    lost: Mutex<Option<String>>,
    /// An entry of the ledger could not be read at the last look.
    unread: Mutex<Option<String>>,
    /// The hook does not do its work.
    hook: Mutex<Option<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Alarms {
    /// The alarms of this boot, as the run folder has them.
    ///
    /// # Errors
    /// The file is there and can not be read: then nobody knows whether the ledger was lost.
    pub fn open(run_dir: &Path, boot_id: BootId) -> Result<Self> {
        let path = run_dir.join("ledger-lost.json");
        let lost: Option<Lost> = match std::fs::read(&path) {
            Ok(bytes) => {
                Some(serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        let why = lost
            .filter(|lost| lost.boot_id == boot_id)
            .map(|lost| lost.why);
        Ok(Self {
            path,
            boot_id,
            lost: Mutex::new(why),
            unread: Mutex::default(),
            hook: Mutex::new(Some("the qemu hook was not checked yet".to_owned())),
        })
    }

    /// Why this host starts nothing; none: it starts.
    pub fn starts_forbidden(&self) -> Option<String> {
        [&self.lost, &self.unread, &self.hook]
            .into_iter()
            .find_map(|alarm| lock(alarm).clone())
    }

    /// What is wrong with the hook; none: nothing.
    pub fn set_hook(&self, problem: Option<String>) {
        *lock(&self.hook) = problem;
    }

    /// Looks for copies of this boot that the ledger does not know, before anything is begun.
    pub fn audit(&self, ledger: &Ledger, all: Vec<Known<'_>>) {
        let mut unread = None;
        for known in all {
            let name = &known.domain.name;
            if let Err(error) = self.account(ledger, known) {
                let error = format!("{error:#}");
                tracing::error!(domain = name, error, "nothing is started here");
                unread = Some(error);
            }
        }
        *lock(&self.unread) = unread;
    }

    fn account(&self, ledger: &Ledger, known: Known<'_>) -> Result<()> {
        let owner = known.owner;
        let copy = copy_of(known.domain.state, owner);
        if !is_unaccounted(&self.boot_id, &copy, &known.entry?) {
            return Ok(());
        }
        let why = format!(
            "the ledger in the run folder was lost: it has no entry for epoch {} of VM {}/{}, which runs here; move the VMs away and boot this host anew",
            owner.epoch.0, owner.namespace, owner.name
        );
        self.ledger_lost(why)?;
        // What is known of this copy: with it the VM can be handed over, and its end is seen.
        ledger.adopt(owner.vm.as_str(), owner.epoch.0)?;
        Ok(())
    }

    /// The ledger was lost: this boot starts nothing any more, whoever asks and however often its agent is restarted.
    ///
    /// # Errors
    /// That it is so can not be kept; this agent starts nothing all the same.
    pub fn ledger_lost(&self, why: String) -> Result<()> {
        tracing::error!(why, "nothing is started here");
        // In memory first: whatever fails next, nothing is started.
        let why = lock(&self.lost).get_or_insert(why).clone();
        let lost = Lost {
            boot_id: self.boot_id.clone(),
            why,
        };
        replace(&self.path, &serde_json::to_vec(&lost)?)
            .with_context(|| self.path.display().to_string())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use failover::agent::ledger::EpochState;
    use hypervisor::{Domain, DomainState, Owner};
    use model::Epoch;

    /// A domain of the VM `u1`.
    pub(crate) fn copy(boot: &str, epoch: i64) -> Domain {
        Domain {
            uuid: uuid::Uuid::nil(),
            name: "n.v".to_owned(),
            state: DomainState::Running,
            owner: Some(Owner {
                vm: "u1".into(),
                namespace: "n".to_owned(),
                name: "v".to_owned(),
                boot_id: boot.into(),
                epoch: Epoch(epoch),
            }),
        }
    }

    fn open(folder: &Path, boot: &str) -> Alarms {
        let alarms = Alarms::open(folder, boot.into()).expect("readable");
        alarms.set_hook(None);
        alarms
    }

    #[test]
    fn nothing_is_started_before_the_hook_was_seen_to_work() {
        let folder = tempfile::tempdir().expect("a folder");
        let alarms = Alarms::open(folder.path(), "b1".into()).expect("readable");
        assert!(alarms.starts_forbidden().is_some());
        alarms.set_hook(None);
        assert_eq!(alarms.starts_forbidden(), None);
        alarms.set_hook(Some("gone".to_owned()));
        assert_eq!(alarms.starts_forbidden(), Some("gone".to_owned()));
    }

    #[test]
    fn a_copy_of_this_boot_without_an_entry_forbids_starts_until_the_next_boot() {
        let folder = tempfile::tempdir().expect("a folder");
        let ledger = Ledger::new(folder.path());
        let alarms = open(folder.path(), "b1");
        alarms.audit(&ledger, ledger.known(&[copy("b1", 3)]));
        assert!(alarms.starts_forbidden().is_some());
        let entry = ledger.entry("u1").expect("entry");
        assert_eq!(
            entry.state(3),
            Some(EpochState::Started),
            "it runs, so it can be handed over and its crash is seen"
        );
        // The copy is gone: what else was lost is not known any better.
        alarms.audit(&ledger, ledger.known(&[]));
        assert!(alarms.starts_forbidden().is_some());
        let again = open(folder.path(), "b1");
        assert!(again.starts_forbidden().is_some(), "an agent that restarts");
        assert_eq!(open(folder.path(), "b2").starts_forbidden(), None);
    }

    #[test]
    fn a_lost_ledger_that_was_noticed_without_a_copy_forbids_starts_as_long() {
        let folder = tempfile::tempdir().expect("a folder");
        let alarms = open(folder.path(), "b1");
        alarms.ledger_lost("first".to_owned()).expect("kept");
        alarms.ledger_lost("second".to_owned()).expect("kept");
        let told = Some("first".to_owned());
        assert_eq!(alarms.starts_forbidden(), told);
        assert_eq!(open(folder.path(), "b1").starts_forbidden(), told);
        assert_eq!(open(folder.path(), "b2").starts_forbidden(), None);
    }

    #[test]
    fn what_the_ledger_knows_and_copies_of_other_boots_raise_no_alarm() {
        let folder = tempfile::tempdir().expect("a folder");
        let ledger = Ledger::new(folder.path());
        ledger.take("u1", 3, 0).expect("use");
        let alarms = open(folder.path(), "b1");
        let mut stray = copy("b1", 9);
        stray.owner = None;
        alarms.audit(
            &ledger,
            ledger.known(&[copy("b1", 3), copy("b0", 2), stray]),
        );
        assert_eq!(alarms.starts_forbidden(), None);
        assert_eq!(ledger.entry("u1").expect("entry").state(2), None);
    }

    #[test]
    fn an_entry_that_can_not_be_read_forbids_starts_as_long() {
        let folder = tempfile::tempdir().expect("a folder");
        let ledger = Ledger::new(folder.path());
        ledger.take("u1", 3, 0).expect("use");
        let file = folder.path().join("ledger/u1.json");
        let kept = std::fs::read(&file).expect("entry");
        std::fs::write(&file, "?").expect("write");
        let alarms = open(folder.path(), "b1");
        alarms.audit(&ledger, ledger.known(&[copy("b1", 3)]));
        assert!(alarms.starts_forbidden().is_some());
        std::fs::write(&file, kept).expect("write");
        alarms.audit(&ledger, ledger.known(&[copy("b1", 3)]));
        assert_eq!(alarms.starts_forbidden(), None);
    }
}
