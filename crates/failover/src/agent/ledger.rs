//! What this incarnation of a host did with each epoch of one VM.
//!
//! ```text
//!             take               started by the hook          close
//!   (nothing) ────► used ───────────────────────► started ───────────► closed   (for ever)
//!       │             └──────────── close ───────────────────────────────┘ ▲
//!       └── close (declined) ────────────────────────────────────────────────┘
//!                                                  started ──hand over──► handedOver (for ever)
//! ```
//!
//! Storing an entry durably, and the lock around each change, are the agent's work.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::copy::CopyPhase;

/// What was done with an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EpochState {
    /// Taken for a start, or for an arrival; QEMU is not there yet.
    Used,
    /// The hook let QEMU start.
    Started,
    /// Never (again) started.
    Closed,
    /// Migrated away; never ran after switch-over.
    HandedOver,
}

/// Why a step was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The step is not allowed from this state.
    #[error("epoch {epoch} is {state:?}, so it can not be {step}")]
    State {
        /// The epoch.
        epoch: i64,
        /// Its state; none: never seen.
        state: Option<EpochState>,
        /// The step.
        step: &'static str,
    },
    /// The guard fired between the read that allowed the start and the start.
    #[error("the guard fired since this start was allowed; a new epoch is needed")]
    GuardFired,
}

/// One VM's epochs on this incarnation, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// State of each epoch.
    pub epochs: BTreeMap<i64, EpochState>,
    /// How often the guard had fired when the newest epoch was used.
    #[serde(default)]
    pub guard_firings: u64,
}

impl Entry {
    /// State of an epoch.
    pub fn state(&self, epoch: i64) -> Option<EpochState> {
        self.epochs.get(&epoch).copied()
    }

    /// Takes an epoch for a start or an arrival. `guard_firings` was counted before the read
    /// that allowed it.
    ///
    /// # Errors
    /// The epoch was seen before, or an epoch at least as high was.
    pub fn take(&mut self, epoch: i64, guard_firings: u64) -> Result<(), Refusal> {
        let highest = self.epochs.last_key_value().map(|(epoch, _)| *epoch);
        if highest.is_some_and(|highest| highest >= epoch) {
            return Err(self.refusal(epoch, "used"));
        }
        self.epochs.insert(epoch, EpochState::Used);
        self.guard_firings = guard_firings;
        Ok(())
    }

    /// Turns `used` into `started`, exactly once. `guard_firings` is counted now.
    ///
    /// # Errors
    /// The epoch is not `used`, or the guard has fired since.
    pub fn start(&mut self, epoch: i64, guard_firings: u64) -> Result<(), Refusal> {
        match self.state(epoch) {
            Some(EpochState::Used) if self.guard_firings != guard_firings => {
                Err(Refusal::GuardFired)
            }
            Some(EpochState::Used) => {
                self.epochs.insert(epoch, EpochState::Started);
                Ok(())
            }
            _ => Err(self.refusal(epoch, "started")),
        }
    }

    /// Takes note of a copy that runs here under an epoch that has no entry: the ledger was lost.
    /// What has one stays as it is.
    pub fn adopt(&mut self, epoch: i64) {
        self.epochs.entry(epoch).or_insert(EpochState::Started);
    }

    /// Takes note of an epoch that has no entry as the ledger was lost, and of which this incarnation said that `phase`.
    /// No copy of it is here: it is over, in the way that was said if that was its end. What has one stays as it is.
    pub fn recall(&mut self, epoch: i64, phase: CopyPhase) {
        let over = match phase {
            CopyPhase::HandedOver => EpochState::HandedOver,
            _ => EpochState::Closed,
        };
        self.epochs.entry(epoch).or_insert(over);
    }

    /// Closes an epoch for ever; closing what is closed is fine.
    ///
    /// # Errors
    /// The epoch was handed over.
    pub fn close(&mut self, epoch: i64) -> Result<(), Refusal> {
        if self.state(epoch) == Some(EpochState::HandedOver) {
            return Err(self.refusal(epoch, "closed"));
        }
        self.epochs.insert(epoch, EpochState::Closed);
        Ok(())
    }

    /// Marks an epoch as handed over; saying it again is fine.
    ///
    /// # Errors
    /// The epoch does not run here.
    pub fn hand_over(&mut self, epoch: i64) -> Result<(), Refusal> {
        match self.state(epoch) {
            Some(EpochState::Started | EpochState::HandedOver) => {
                self.epochs.insert(epoch, EpochState::HandedOver);
                Ok(())
            }
            _ => Err(self.refusal(epoch, "handed over")),
        }
    }

    fn refusal(&self, epoch: i64, step: &'static str) -> Refusal {
        Refusal::State {
            epoch,
            state: self.state(epoch),
            step,
        }
    }
}
