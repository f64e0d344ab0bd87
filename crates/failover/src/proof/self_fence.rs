//! `SelfFenced`: evidence that a host's armed guard must have killed everything.
//!
//! An observer on another host writes and reads back its own heartbeat on every pool that
//! keeps the host alive, and reads the host's unchanged, for contract + watchdog + margin.
//! The window begins at the latest of the host's last Lease change, its last heartbeat
//! change and the assignment's writing. Gathering the readings is the shell's work.

use std::collections::{BTreeMap, BTreeSet};

use model::{BootId, HostName, StopProofKind};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::HostStopProof;
use crate::policy::Policy;
use crate::time::{Moment, seconds};

/// What the host's guard last registered as in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GuardRegistration {
    /// A hardware watchdog is armed and the contract is accepted.
    pub armed: bool,
    /// Silence after which it kills, milliseconds.
    pub contract_milliseconds: u64,
    /// The watchdog's time-out, milliseconds.
    pub watchdog_milliseconds: u64,
    /// Pools whose heartbeat keeps the host alive.
    pub pools: BTreeSet<String>,
}

/// One look at a host's heartbeat on one pool by an observer on another host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeartbeatReading {
    /// Host of the observer.
    pub observer: HostName,
    /// The pool.
    pub pool: String,
    /// The observer wrote its own heartbeat by direct I/O and read it back.
    pub observer_wrote: bool,
    /// The heartbeat of the observed host, as a counter.
    pub beat: u64,
    /// When, on the operator's clock.
    pub at: Moment,
}

/// The last words before a proof: what must be true at the end of the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastLook {
    /// When the operator last saw the Lease change.
    pub lease_changed_at: Moment,
    /// A quorum read at the end showed the Lease unchanged.
    pub lease_confirmed_unchanged: bool,
    /// When the youngest assignment to the host was written.
    pub assigned_at: Moment,
    /// When a probe of a VM on this host was last answered.
    pub probe_answered_at: Option<Moment>,
}

/// Why there is no `SelfFenced`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SelfFenceError {
    /// The guard gives no contract.
    #[error("the guard of this host is not armed or has no heartbeat pool; it gives no proof")]
    NotArmed,
    /// A pool was not observed at all, or by nobody else.
    #[error("nobody on another host observes pool {0}")]
    Unobserved(String),
    /// The window is not over.
    #[error("pool {pool}: {waited} s of {needed} s without a heartbeat have passed")]
    TooEarly {
        /// The pool.
        pool: String,
        /// Seconds so far.
        waited: String,
        /// Seconds needed.
        needed: String,
    },
    /// The Lease was not confirmed unchanged.
    #[error("the Lease was not confirmed unchanged by a quorum read")]
    LeaseUnconfirmed,
    /// A VM on the host answered after guard and watchdog should have killed it.
    #[error("a VM on this host answered a probe; it runs")]
    ProbeAnswered,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct PoolWindow {
    beat: u64,
    began: Moment,
    last: Moment,
}

/// Watches the heartbeats of one incarnation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelfFenceWitness {
    host: HostName,
    boot_id: BootId,
    guard: GuardRegistration,
    pools: BTreeMap<String, PoolWindow>,
}

impl SelfFenceWitness {
    /// A witness for one incarnation, under the contract that its guard registered.
    pub fn new(host: HostName, boot_id: BootId, guard: GuardRegistration) -> Self {
        Self {
            host,
            boot_id,
            guard,
            pools: BTreeMap::new(),
        }
    }

    /// Takes one reading. A changed heartbeat, a gap of more than one interval or an
    /// observer without its own proof of access restarts the pool's window.
    pub fn observe(&mut self, reading: &HeartbeatReading, policy: &Policy) {
        if reading.observer == self.host || !self.guard.pools.contains(&reading.pool) {
            return;
        }
        if !reading.observer_wrote {
            self.pools.remove(&reading.pool);
            return;
        }
        let allowed = policy.heartbeat_interval_milliseconds + policy.grace_milliseconds;
        match self.pools.get_mut(&reading.pool) {
            Some(window)
                if window.beat == reading.beat && reading.at.since(window.last) <= allowed =>
            {
                window.last = window.last.max(reading.at);
            }
            _ => {
                let window = PoolWindow {
                    beat: reading.beat,
                    began: reading.at,
                    last: reading.at,
                };
                self.pools.insert(reading.pool.clone(), window);
            }
        }
    }

    /// The proof, once the rules are met.
    ///
    /// # Errors
    /// What is missing.
    pub fn conclude(
        &self,
        look: &LastLook,
        policy: &Policy,
    ) -> Result<HostStopProof, SelfFenceError> {
        if !self.guard.armed || self.guard.pools.is_empty() {
            return Err(SelfFenceError::NotArmed);
        }
        let needed = self.guard.contract_milliseconds
            + self.guard.watchdog_milliseconds
            + policy.self_fence_margin_milliseconds;
        let floor = look.lease_changed_at.max(look.assigned_at);
        for pool in &self.guard.pools {
            let window = self
                .pools
                .get(pool)
                .ok_or_else(|| SelfFenceError::Unobserved(pool.clone()))?;
            let silent_since = window.began.max(floor);
            // By then everything is gone, if guard and watchdog kept their word: a VM that
            // answers later proves that they did not.
            let gone_by = silent_since
                .plus(self.guard.contract_milliseconds)
                .plus(self.guard.watchdog_milliseconds);
            if look.probe_answered_at.is_some_and(|at| at >= gone_by) {
                return Err(SelfFenceError::ProbeAnswered);
            }
            // One that answers while it may still run begins the window anew.
            let began = silent_since.max(look.probe_answered_at.unwrap_or_default());
            let waited = window.last.since(began);
            if waited < needed {
                return Err(SelfFenceError::TooEarly {
                    pool: pool.clone(),
                    waited: seconds(waited),
                    needed: seconds(needed),
                });
            }
        }
        if !look.lease_confirmed_unchanged {
            return Err(SelfFenceError::LeaseUnconfirmed);
        }
        Ok(HostStopProof {
            host: self.host.clone(),
            boot_id: self.boot_id.clone(),
            kind: StopProofKind::SelfFenced,
            evidence: format!(
                "armed guard; no Lease and no heartbeat on {} for {} s under observation from another host",
                self.guard
                    .pools
                    .iter()
                    .map(String::as_str)
                    .collect::<Vec<_>>()
                    .join(", "),
                seconds(needed),
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> GuardRegistration {
        GuardRegistration {
            armed: true,
            contract_milliseconds: 20_000,
            watchdog_milliseconds: 20_000,
            pools: BTreeSet::from(["p".to_owned()]),
        }
    }

    fn look() -> LastLook {
        LastLook {
            lease_changed_at: Moment(0),
            lease_confirmed_unchanged: true,
            assigned_at: Moment(0),
            probe_answered_at: None,
        }
    }

    fn watched(seconds: u64, edit: impl Fn(u64, &mut HeartbeatReading)) -> SelfFenceWitness {
        let mut witness = SelfFenceWitness::new("h1".into(), "b1".into(), guard());
        for at in (0..=seconds).step_by(2) {
            let mut reading = HeartbeatReading {
                observer: "h2".into(),
                pool: "p".to_owned(),
                observer_wrote: true,
                beat: 7,
                at: Moment(at * 1000),
            };
            edit(at, &mut reading);
            witness.observe(&reading, &Policy::default());
        }
        witness
    }

    #[test]
    fn fifty_silent_seconds_under_observation_prove() {
        let policy = Policy::default();
        assert!(watched(50, |_, _| {}).conclude(&look(), &policy).is_ok());
        assert!(matches!(
            watched(48, |_, _| {}).conclude(&look(), &policy),
            Err(SelfFenceError::TooEarly { .. })
        ));
    }

    #[test]
    fn each_rule_alone_refuses() {
        let policy = Policy::default();
        let too_early = |witness: SelfFenceWitness| {
            matches!(
                witness.conclude(&look(), &policy),
                Err(SelfFenceError::TooEarly { .. })
            )
        };
        assert!(
            too_early(watched(50, |at, r| r.beat = if at < 10 { 6 } else { 7 })),
            "a beat restarts"
        );
        assert!(
            too_early(watched(50, |at, r| r.observer_wrote = at != 20)),
            "an observer that hangs restarts"
        );
        assert!(
            too_early(watched(52, |at, r| if at > 20 {
                r.at = r.at.plus(3_000)
            })),
            "a gap restarts"
        );
        let whole = watched(50, |_, _| {});
        let late = LastLook {
            lease_changed_at: Moment(2_000),
            ..look()
        };
        assert!(matches!(
            whole.conclude(&late, &policy),
            Err(SelfFenceError::TooEarly { .. })
        ));
        let assigned = LastLook {
            assigned_at: Moment(2_000),
            ..look()
        };
        assert!(matches!(
            whole.conclude(&assigned, &policy),
            Err(SelfFenceError::TooEarly { .. })
        ));
        let probed = |at| LastLook {
            probe_answered_at: Some(Moment(at)),
            ..look()
        };
        assert_eq!(
            whole.conclude(&probed(40_000), &policy),
            Err(SelfFenceError::ProbeAnswered)
        );
        assert!(matches!(
            whole.conclude(&probed(9_000), &policy),
            Err(SelfFenceError::TooEarly { .. })
        ));
        // Found by the model check: an answer from before the guard fired vetoed for ever.
        assert!(
            watched(60, |_, _| {})
                .conclude(&probed(9_000), &policy)
                .is_ok(),
            "a VM may answer until the guard fires"
        );
        let unconfirmed = LastLook {
            lease_confirmed_unchanged: false,
            ..look()
        };
        assert_eq!(
            whole.conclude(&unconfirmed, &policy),
            Err(SelfFenceError::LeaseUnconfirmed)
        );
        assert_eq!(
            watched(50, |_, r| r.observer = "h1".into()).conclude(&look(), &policy),
            Err(SelfFenceError::Unobserved("p".to_owned()))
        );
        let mut unarmed = whole;
        unarmed.guard.armed = false;
        assert_eq!(
            unarmed.conclude(&look(), &policy),
            Err(SelfFenceError::NotArmed)
        );
    }
}
