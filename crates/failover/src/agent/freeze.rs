//! What an agent remembers of the API, and when it freezes because the API went back.
//!
//! Versions of objects in one etcd only grow. One that is lower than what was seen before, or
//! a copy that runs under an epoch above the API's `lastEpoch`, means that etcd was restored from
//! a backup: what the API says about who may run what is old. From then on this host starts and
//! stops nothing, says what runs here, and waits until a person has rebased the site
//! ([`crate::rebase`]). The memory lasts as long as the ledger: one boot.

use model::{Epoch, VmUid};
use serde::{Deserialize, Serialize};

/// Former rebases that are remembered: a site sees few in its life, and a memory lasts one boot.
const FORMER_MAX: usize = 64;

/// What the site's policy says about a freeze.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiteWord {
    /// The site is frozen.
    pub frozen: bool,
    /// Names the last rebase, later ones by later words; empty: there was none.
    pub rebase: String,
}

/// Why this host is frozen, and since which rebase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Freeze {
    /// Why, in one sentence.
    pub cause: String,
    /// The last rebase that the API knew of when it was last seen frozen; none: not read yet.
    /// A later one ends the freeze.
    pub rebase: Option<String>,
}

/// What a host had seen when it began a read of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Begun {
    highest: u64,
    rebase: String,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Act as ever.
    Act,
    /// Start and stop nothing, and say what runs here.
    Report,
    /// The site was rebased: close every epoch that the rights do not name, then thaw.
    Settle,
}

/// The memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiMemory {
    /// The highest version seen.
    pub highest: u64,
    /// The last rebase that this host knows of.
    pub rebase: String,
    /// Those that it knew before, the latest last.
    pub former: Vec<String>,
    /// The highest `lastEpoch` of any VM when this host last thawed: epochs of that rebase are not
    /// issued again though etcd forgets it.
    pub epochs: Epoch,
    /// Why this host is frozen, if it is.
    pub freeze: Option<Freeze>,
}

impl ApiMemory {
    /// To be taken before a read is sent. Answers of several reads may come in another order than the API gave
    /// them: only what was seen before a read was begun can show that the API went back.
    pub fn begin(&self) -> Begun {
        Begun {
            highest: self.highest,
            rebase: self.rebase.clone(),
        }
    }

    /// Takes the version of the whole store at a fresh read; whether this host may act.
    pub fn see(&mut self, version: u64, begun: &Begun) -> bool {
        // What was seen before a rebase counts no more.
        if version < begun.highest && begun.rebase == self.rebase {
            let seen = begun.highest;
            self.freeze_for(format!(
                "the API server is at version {version} and was at {seen} before; was etcd restored?"
            ));
        }
        self.highest = self.highest.max(version);
        self.freeze.is_none()
    }

    /// Takes the epoch of a copy that runs here beside `lastEpoch` at a fresh read; whether this
    /// host may act.
    pub fn see_epoch(&mut self, vm: &VmUid, running: Epoch, last: Epoch) -> bool {
        if running > last {
            self.freeze_for(format!(
                "VM {vm} runs here under epoch {running}, and the API has issued none above {last}; was etcd restored?"
            ));
        }
        self.freeze.is_none()
    }

    /// What is due, given what the policy says in a read that was begun after whatever was seen
    /// before.
    pub fn step(&mut self, site: &SiteWord) -> Step {
        if site.frozen {
            self.freeze_for("the site is frozen".to_owned());
        } else if site.rebase < self.rebase {
            let known = &self.rebase;
            self.freeze_for(format!(
                "the API has forgotten the rebase of {known}; was etcd restored?"
            ));
        }
        let acted_by = self.rebase == site.rebase || self.former.contains(&site.rebase);
        let Some(freeze) = &mut self.freeze else {
            self.learn(&site.rebase);
            return Step::Act;
        };
        let known = freeze.rebase.get_or_insert_with(|| site.rebase.clone());
        // One that this host acted by before it froze is no later one: a second restore, of a younger
        // backup, brings it back, and nobody has rebased since.
        if !site.frozen && *known < site.rebase && !acted_by {
            return Step::Settle;
        }
        // A freeze that missed a rebase goes on as the one that stands now, and one whose rebase etcd
        // has forgotten is not over: both are named as the site knows them.
        known.clone_from(&site.rebase);
        Step::Report
    }

    /// Everything is closed that the rights do not name: acts again, from this version and
    /// rebase on. `epochs` is the highest `lastEpoch` of those rights.
    pub fn thaw(&mut self, version: u64, rebase: &str, epochs: Epoch) {
        (self.highest, self.freeze) = (version, None);
        self.epochs = self.epochs.max(epochs);
        self.learn(rebase);
    }

    fn learn(&mut self, rebase: &str) {
        if self.rebase == rebase {
            return;
        }
        self.former
            .push(std::mem::replace(&mut self.rebase, rebase.to_owned()));
        let excess = self.former.len().saturating_sub(FORMER_MAX);
        self.former.drain(..excess);
    }

    /// What the host tells with its Lease while it is not frozen: a leader that has just begun
    /// learns from it that the API went back.
    pub fn word(&self) -> Option<String> {
        let tells = self.freeze.is_none() && self.highest > 0;
        tells.then(|| format!("{} {}", self.highest, self.rebase))
    }

    fn freeze_for(&mut self, cause: String) {
        self.freeze.get_or_insert(Freeze {
            cause,
            rebase: None,
        });
    }
}

/// Whether a host's word in its Lease says that the API went back: it remembers a version above
/// that of the Lease itself, and no rebase has been since.
pub fn went_back(word: &str, lease_version: u64, last_rebase: &str) -> bool {
    let (version, rebase) = word.split_once(' ').unwrap_or((word, ""));
    version
        .parse::<u64>()
        .is_ok_and(|seen| seen > lease_version && rebase >= last_rebase)
}
