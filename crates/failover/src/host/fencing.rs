//! Forcing one incarnation of a host off.
//!
//! ```text
//! Intend ──intent held──► Look ──reads On──► Sent ──command over──► ReadBack ──reads Off──► Watch ──► proof
//!                          │ reads Off                                 │ still On               (witness)
//!                          └──────────────► Watch          next attempt, next BMC, then Failed
//! ```
//!
//! Power is read before anything is sent: a host that is off already needs no command. The
//! command's own answer proves nothing. Nothing is sent past the intent's expiry. Tries are
//! bounded; when all BMCs failed it says so once and needs a person.

use model::BootId;
use serde::{Deserialize, Serialize};

use super::machine::{HostAction, Intent};
use crate::policy::Policy;
use crate::proof::power::PowerState;
use crate::reason::Reason;
use crate::time::Moment;

/// Where a fencing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// The intent is being written.
    Intend,
    /// The intent is held; power is read before anything is sent.
    Look {
        /// Readings sent before this moment do not count.
        since: Moment,
    },
    /// A force-off is on its way.
    Sent {
        /// When it was ordered.
        at: Moment,
    },
    /// The command is over, whatever it answered; power is read back.
    ReadBack {
        /// Readings sent before this moment do not count.
        since: Moment,
    },
    /// It read Off; the witness watches for signs of life.
    Watch {
        /// When it began.
        since: Moment,
    },
    /// Every BMC was tried.
    Failed,
}

/// The outcome of a force-off as the shell reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommandEnd {
    /// The attempt that it belongs to.
    pub attempt: u32,
    /// When it ended (accepted, refused or timed out).
    pub at: Moment,
}

/// A fencing under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fencing {
    /// The incarnation to stop.
    pub boot_id: BootId,
    /// Where it stands.
    pub stage: Stage,
    /// Index of the BMC in use.
    pub bmc: u32,
    /// Attempts so far through any BMC; names commands.
    pub attempt: u32,
    /// Attempts through this BMC.
    attempts_here: u32,
}

/// What one step of the fencing sees.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sight<'a> {
    pub reading: Option<(PowerState, Moment)>,
    pub intent: &'a Intent,
    pub command: Option<CommandEnd>,
    /// A command is on its way, of this fencing or of a former one.
    pub forcing: bool,
    pub bmcs: u32,
}

/// What one step of the fencing wants.
#[derive(Debug, Default)]
pub(crate) struct Wants {
    pub actions: Vec<HostAction>,
    pub done: Vec<Reason>,
}

impl Fencing {
    /// Begins.
    pub fn begin(boot_id: BootId) -> Self {
        Self {
            boot_id,
            stage: Stage::Intend,
            bmc: 0,
            attempt: 0,
            attempts_here: 0,
        }
    }

    /// Whether a command may still take effect: the host must not count as alive before
    /// this is over.
    pub fn in_flight(&self) -> bool {
        matches!(self.stage, Stage::Sent { .. } | Stage::ReadBack { .. })
    }

    pub(crate) fn step(&mut self, sight: Sight<'_>, policy: &Policy, now: Moment) -> Wants {
        let mut wants = Wants::default();
        let (held, expires_at) = match sight.intent {
            Intent::Ours {
                boot_id,
                expires_at,
            } if *boot_id == self.boot_id => (
                now.plus(policy.fence_send_milliseconds) < *expires_at,
                *expires_at,
            ),
            _ => (false, now),
        };
        match self.stage {
            Stage::Intend if held => self.stage = Stage::Look { since: now },
            Stage::Intend => {
                if !matches!(sight.intent, Intent::Foreign { until } if *until > now) {
                    wants.actions.push(HostAction::WriteIntent {
                        boot_id: self.boot_id.clone(),
                        expires_after_milliseconds: policy.fence_expiry_milliseconds,
                    });
                }
            }
            Stage::Look { since } => {
                self.look(since, sight, (held, expires_at), policy, now, &mut wants)
            }
            Stage::Sent { at } => {
                // What ended before this was ordered belongs to a former fencing.
                let ended = sight
                    .command
                    .filter(|end| end.attempt == self.attempt && end.at >= at)
                    .map(|end| end.at);
                let overdue =
                    now.since(at) > policy.fence_send_milliseconds + policy.grace_milliseconds;
                if let Some(since) = ended.or(overdue.then_some(now)) {
                    self.stage = Stage::ReadBack { since };
                    wants.actions.push(HostAction::ReadPower);
                }
            }
            Stage::ReadBack { since } => match sight.reading {
                Some((PowerState::Off, sent)) if sent >= since => {
                    self.stage = Stage::Watch { since: now };
                }
                _ if now.since(since) > policy.fence_read_back_milliseconds => {
                    self.try_again(sight, policy, now, &mut wants)
                }
                _ => wants.actions.push(HostAction::ReadPower),
            },
            Stage::Watch { since } => {
                if matches!(sight.reading, Some((PowerState::On, _))) {
                    self.try_again(sight, policy, now, &mut wants);
                } else if now.since(since) > watched_milliseconds(policy) {
                    // The BMC has gone dark since, or the host shows life: nothing comes of waiting.
                    self.attempts_here += 1;
                    wants.done.push(Reason::OffNotProven { bmc: self.bmc });
                    self.try_again(sight, policy, now, &mut wants);
                }
            }
            Stage::Failed => {}
        }
        wants
    }

    fn look(
        &mut self,
        since: Moment,
        sight: Sight<'_>,
        (held, expires_at): (bool, Moment),
        policy: &Policy,
        now: Moment,
        wants: &mut Wants,
    ) {
        if !held {
            self.stage = Stage::Intend;
            return;
        }
        if sight.forcing {
            // The end of a former fencing's command would be taken for this one's.
            wants.actions.push(HostAction::ReadPower);
            return;
        }
        match sight.reading.filter(|(_, sent)| *sent >= since) {
            Some((PowerState::Off, _)) => {
                wants.done.push(Reason::PowerAlreadyOff);
                self.stage = Stage::Watch { since: now };
            }
            // A BMC that reads On is told; one that does not answer a reading may still obey
            // a command, but another machine's BMC must never be told anything.
            Some((PowerState::On | PowerState::NoAnswer, _)) => {
                self.attempt += 1;
                self.attempts_here += 1;
                self.stage = Stage::Sent { at: now };
                wants.done.push(Reason::ForcedOff {
                    bmc: self.bmc,
                    attempt: self.attempt,
                });
                wants.actions.push(HostAction::ForceOff {
                    bmc: self.bmc,
                    attempt: self.attempt,
                    expires_at,
                });
            }
            Some((PowerState::OtherMachine, _)) => {
                self.attempts_here = policy.fence_attempts;
                self.try_again(sight, policy, now, wants);
            }
            None => wants.actions.push(HostAction::ReadPower),
        }
    }

    fn try_again(&mut self, sight: Sight<'_>, policy: &Policy, now: Moment, wants: &mut Wants) {
        if self.attempts_here >= policy.fence_attempts {
            wants.done.push(Reason::StaysOn {
                bmc: self.bmc,
                attempts: self.attempts_here,
            });
            if self.bmc + 1 >= sight.bmcs {
                self.stage = Stage::Failed;
                wants.done.push(Reason::FenceFailed);
                return;
            }
            self.bmc += 1;
            self.attempts_here = 0;
            wants.done.push(Reason::NextBmc { bmc: self.bmc });
        }
        self.stage = Stage::Look { since: now };
        wants.actions.push(HostAction::ReadPower);
    }
}

/// How long a BMC that has read Off is watched before another try: a proof takes the longest interval of the host's
/// signs and readings that are valid, twice over where some of them were late.
fn watched_milliseconds(policy: &Policy) -> u64 {
    let interval = policy
        .lease_interval_milliseconds
        .max(policy.heartbeat_interval_milliseconds);
    2 * (interval + policy.grace_milliseconds + policy.power_valid_milliseconds)
}

#[cfg(test)]
#[path = "fencing_tests.rs"]
mod tests;
