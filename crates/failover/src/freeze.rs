//! The freeze of a whole site, as its operators see it: who notices that etcd was restored, what is written
//! then, and when a rebase may be carried out.
//!
//! ```text
//!            somebody remembers more than the API holds
//!  Listen ─► Act ───────────────────────────────────────► Freeze ─► CallTheRoll ─► Rebase ─► Act
//!    │  every host heard                                               ▲             │
//!    └─ or late                                                        └─────────────┘
//!                                                        another operator, or etcd went back once more
//! ```
//!
//! What a rebase does is decided by [`crate::rebase`]; what one host remembers of the API, and when it freezes
//! by itself, by [`crate::agent::freeze`].

use std::fmt;

use model::{BootId, HostName};

use crate::agent::freeze::went_back;
use crate::proof::HostStopProof;
use crate::rebase::{HostSaid, HostWord};
use crate::time::Moment;

/// What is known of the site at one turn of an operator.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The roll-call of the freeze that stands in the API, if one does.
    pub roll_call: Option<&'a str>,
    /// The last rebase that the API knows of; empty: there was none. Later ones have later words.
    pub last_rebase: &'a str,
    /// This operator saw the API hold less than before: by its Lease, or by an object that a watch showed older.
    pub went_back: bool,
    /// Every host.
    pub hosts: Vec<HostFacts<'a>>,
    /// A host that has been silent for so long is unreachable.
    pub unreachable_after_milliseconds: u64,
}

/// What is known of one host.
#[derive(Clone, Debug)]
pub struct HostFacts<'a> {
    /// Its name.
    pub name: HostName,
    /// It is one of the site's: it was accepted.
    pub accepted: bool,
    /// How often this operator saw its Lease change, its first sight included.
    pub renewals: u64,
    /// What it remembers of the API, and the version of the Lease that tells it.
    pub remembers: Option<(String, u64)>,
    /// The rebase that it knows of and why it froze, where it says that it is frozen.
    pub frozen: Option<(&'a str, &'a str)>,
}

/// Who noticed that the API went back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// This operator.
    Operator,
    /// This operator froze the site, and the API knows neither of that nor of a rebase.
    Forgotten,
    /// A host that froze.
    Host {
        /// Its name.
        host: HostName,
        /// What it says.
        cause: String,
    },
    /// A host that remembers a later version than there is.
    HostRemembers {
        /// Its name.
        host: HostName,
        /// What it remembers: a version, and the rebase that it knows of.
        word: String,
        /// The version there is.
        version: u64,
    },
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator => f.write_str("the operator saw the API server hold less than before"),
            Self::Forgotten => f.write_str("the API server has forgotten that the site is frozen"),
            Self::Host { host, cause } => write!(f, "host {host}: {cause}"),
            Self::HostRemembers {
                host,
                word,
                version,
            } => write!(
                f,
                "host {host} remembers version {word} of the API server, which is at {version}"
            ),
        }
    }
}

/// What may be done with VMs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Turn {
    /// What is right.
    Act,
    /// Nothing yet: this operator has just begun and has not heard from every host.
    Listen,
    /// Nothing before a rebase.
    Frozen {
        /// Versions are used anew since: what this operator wrote from them means nothing any more.
        forget_written: bool,
        /// What is due.
        due: Due,
    },
}

/// What brings a frozen site on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// To write that the site is frozen, with a roll-call.
    Freeze(Cause),
    /// To ask every host anew what runs there.
    CallTheRoll {
        /// Etcd went back once more: a rebase that was asked for before is none of this freeze.
        again: bool,
    },
    /// To carry out the rebase, if it was asked for.
    Rebase,
}

/// What an operator remembers of freezes and rebases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperatorMemory {
    stands: bool,
    /// The last rebase that this operator knows of.
    rebase: String,
    /// The roll-call that this operator made and that no rebase has used up: what hosts say counts as an answer to
    /// it alone. What a restored API holds of a former freeze answers another.
    roll_call: String,
    began: Option<Moment>,
    /// Every host was heard since, or is silent.
    heard: bool,
}

impl OperatorMemory {
    /// Whether this operator holds the site for frozen.
    pub fn stands(&self) -> bool {
        self.stands
    }

    /// Another operator leads: what this one held grows old.
    pub fn forget(&mut self) {
        self.stands = false;
    }

    /// Follows rebases, leading or not; whether there was a later one than was known: versions from before it mean
    /// nothing, to an operator that did not lead then too.
    #[must_use]
    pub fn learns_of(&mut self, last_rebase: &str) -> bool {
        let later = last_rebase > self.rebase.as_str();
        if later {
            last_rebase.clone_into(&mut self.rebase);
            self.roll_call.clear();
        }
        later
    }

    /// One turn of the leader, before anything is decided about VMs.
    pub fn turn(&mut self, facts: &Facts<'_>, now: Moment) -> Turn {
        if let Some(roll_call) = facts.roll_call {
            let forget_written = !self.stands || facts.went_back;
            self.stands = true;
            let called = !roll_call.is_empty() && self.roll_call == roll_call;
            let due = if called && !facts.went_back {
                Due::Rebase
            } else {
                let again = facts.went_back;
                Due::CallTheRoll { again }
            };
            return Turn::Frozen {
                forget_written,
                due,
            };
        }
        if let Some(cause) = self.noticed(facts) {
            let forget_written = !self.stands || facts.went_back;
            self.stands = true;
            let due = Due::Freeze(cause);
            return Turn::Frozen {
                forget_written,
                due,
            };
        }
        self.stands = false;
        if self.everybody_heard(facts, now) {
            Turn::Act
        } else {
            Turn::Listen
        }
    }

    /// This roll-call of this operator was written. A floor of epochs from before is void: there may be higher ones.
    pub fn called(&mut self, roll_call: &str) {
        roll_call.clone_into(&mut self.roll_call);
    }

    /// Its rebase was written. What answered its roll-call is used up: a backup that holds the freeze holds those
    /// answers too.
    pub fn rebased(&mut self) {
        self.roll_call.clear();
    }

    /// A name for the next rebase: later ones have later words, whatever the clock does, and whatever etcd has
    /// forgotten.
    pub fn name_rebase(&self, last_rebase: &str, wall: String) -> String {
        let last = last_rebase.max(self.rebase.as_str());
        wall.max(format!("{last}+"))
    }

    /// Who noticed that the API went back.
    fn noticed(&self, facts: &Facts<'_>) -> Option<Cause> {
        if facts.went_back {
            return Some(Cause::Operator);
        }
        // A freeze that ended by no rebase was forgotten.
        if !self.roll_call.is_empty() {
            return Some(Cause::Forgotten);
        }
        facts
            .hosts
            .iter()
            .find_map(|host| host.noticed(facts.last_rebase))
    }

    /// An operator that has just begun knows no more than the API does: it listens until every host has renewed its
    /// Lease once more, or has been silent for as long as makes it unreachable.
    fn everybody_heard(&mut self, facts: &Facts<'_>, now: Moment) -> bool {
        let began = *self.began.get_or_insert(now);
        let late = now.since(began) >= facts.unreachable_after_milliseconds;
        let heard = |host: &HostFacts<'_>| !host.accepted || host.renewals > 1;
        self.heard |= late || facts.hosts.iter().all(heard);
        self.heard
    }
}

impl HostFacts<'_> {
    fn noticed(&self, last_rebase: &str) -> Option<Cause> {
        if let Some((rebase, cause)) = self.frozen
            && rebase == last_rebase
        {
            return Some(Cause::Host {
                host: self.name.clone(),
                cause: cause.to_owned(),
            });
        }
        let (word, version) = self.remembers.as_ref()?;
        went_back(word, *version, last_rebase).then(|| Cause::HostRemembers {
            host: self.name.clone(),
            word: word.clone(),
            version: *version,
        })
    }
}

/// What a frozen host says.
#[derive(Clone, Debug)]
pub struct Answer<'a> {
    /// The rebase that it knows of.
    pub rebase: &'a str,
    /// The roll-call that it answers.
    pub roll_call: &'a str,
    /// Its word.
    pub word: HostWord,
}

/// What counts of a host in a rebase. Its word counts for the incarnation that renews its Lease, as an answer to the
/// roll-call of this freeze; `off` is proof that it is off now.
pub fn host_said(
    answer: Option<Answer<'_>>,
    renews: Option<&BootId>,
    last_rebase: &str,
    roll_call: &str,
    off: Option<HostStopProof>,
) -> HostSaid {
    let counts = |answer: &Answer<'_>| {
        answer.rebase == last_rebase
            && answer.roll_call == roll_call
            && renews == Some(&answer.word.boot_id)
    };
    match answer.filter(counts) {
        Some(answer) => HostSaid::Heard(answer.word),
        None => off.map_or(HostSaid::Silent, HostSaid::Off),
    }
}

#[cfg(test)]
#[path = "freeze_tests.rs"]
mod tests;
