//! `SelfFenced`: evidence that a host's armed guard must have killed everything.
//!
//! An observer on another host writes and reads back its own heartbeat on every pool that
//! keeps the host alive, and reads the host's unchanged, for contract + watchdog + margin.
//! The window begins at the latest of the host's last Lease change, its last heartbeat
//! change and the assignment's writing. What observers saw, and after what, is in
//! `guard::heartbeats`; gathering it is the shell's work. One observer is enough, and any other
//! one that saw the heartbeat change within the window vetoes: where nobody else looks, or all
//! that look are wrong, a false word can not be told from a true one.

use std::collections::BTreeSet;

use model::{BootId, HostName, StopProofKind};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::HostStopProof;
use super::evidence::SELF_FENCED;
use crate::guard::heartbeats::Heartbeats;
use crate::policy::Policy;
use crate::time::{Moment, seconds};

/// What the host's guard last registered as in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// When this look is taken, on the operator's clock.
    pub at: Moment,
}

impl LastLook {
    /// The window lies wholly after this: a token that observers are asked to see must be
    /// younger.
    pub fn floor(&self) -> Moment {
        self.lease_changed_at
            .max(self.assigned_at)
            .max(self.probe_answered_at.unwrap_or_default())
    }
}

/// Why there is no `SelfFenced`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SelfFenceError {
    /// The guard gives no contract.
    #[error("the guard of this host is not armed or has no heartbeat pool; it gives no proof")]
    NotArmed,
    /// Nobody else observes the host there, or none has seen a token since the window began.
    #[error("no other host has told of its heartbeat on pool {0} since it fell silent")]
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
    /// One observer saw no heartbeat, another one saw it change meanwhile.
    #[error("pool {pool}: {observer} saw the heartbeat change within the window; it beats")]
    Contradicted {
        /// The pool.
        pool: String,
        /// Who saw it change.
        observer: HostName,
    },
    /// The Lease was not confirmed unchanged.
    #[error("the Lease was not confirmed unchanged by a quorum read")]
    LeaseUnconfirmed,
    /// A VM on the host answered after guard and watchdog should have killed it.
    #[error("a VM on this host answered a probe; it runs")]
    ProbeAnswered,
}

/// The proof that one incarnation of a host has fenced itself, once the rules are met.
///
/// # Errors
/// What is missing.
pub fn self_fenced(
    (host, boot_id): (&HostName, &BootId),
    guard: &GuardRegistration,
    heartbeats: &Heartbeats,
    look: &LastLook,
    policy: &Policy,
) -> Result<HostStopProof, SelfFenceError> {
    if !guard.armed || guard.pools.is_empty() {
        return Err(SelfFenceError::NotArmed);
    }
    let silent_since = heartbeats
        .sign(host)
        .map_or(look.lease_changed_at, |sign| sign.changed_at)
        .max(look.lease_changed_at)
        .max(look.assigned_at);
    // By then everything is gone, if guard and watchdog kept their word: a VM that answers
    // later proves that they did not. One that answers while it may still run begins the
    // window anew.
    let gone_by = silent_since
        .plus(guard.contract_milliseconds)
        .plus(guard.watchdog_milliseconds);
    if look.probe_answered_at.is_some_and(|at| at >= gone_by) {
        return Err(SelfFenceError::ProbeAnswered);
    }
    // What a guard registers is a host's word: numbers beyond all measure must not wrap to few.
    let needed = guard
        .contract_milliseconds
        .saturating_add(guard.watchdog_milliseconds)
        .saturating_add(policy.self_fence_margin_milliseconds);
    let mut observers = BTreeSet::new();
    for pool in &guard.pools {
        let evidence = heartbeats
            .evidence(host, pool, look.floor())
            .ok_or_else(|| SelfFenceError::Unobserved(pool.clone()))?;
        if evidence.unchanged_milliseconds < needed {
            return Err(SelfFenceError::TooEarly {
                pool: pool.clone(),
                waited: seconds(evidence.unchanged_milliseconds),
                needed: seconds(needed),
            });
        }
        if let Some(observer) = heartbeats.contradiction(host, pool, needed, look.at) {
            return Err(SelfFenceError::Contradicted {
                pool: pool.clone(),
                observer,
            });
        }
        observers.insert(evidence.observer.0);
    }
    if !look.lease_confirmed_unchanged {
        return Err(SelfFenceError::LeaseUnconfirmed);
    }
    let list = |names: &BTreeSet<String>| {
        names
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(", ")
    };
    Ok(HostStopProof {
        host: host.clone(),
        boot_id: boot_id.clone(),
        kind: StopProofKind::SelfFenced,
        evidence: SELF_FENCED.told(&[&list(&guard.pools), &seconds(needed), &list(&observers)]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::heartbeats::HeartbeatReport;
    use crate::guard::observer::{PoolWatch, Round};

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
            at: Moment(60_000),
        }
    }

    /// An observer that looks once a second, is asked at 0, and whose clock is a day ahead.
    fn watched(seconds: u64, observer: &str, edit: impl Fn(u64, &mut Round)) -> Heartbeats {
        let mut heartbeats = Heartbeats::default();
        watch_on(&mut heartbeats, seconds, observer, edit);
        heartbeats
    }

    fn watch_on(
        heartbeats: &mut Heartbeats,
        seconds: u64,
        observer: &str,
        edit: impl Fn(u64, &mut Round),
    ) {
        let mut watch = PoolWatch::default();
        let token = heartbeats.token("op", Moment(0));
        for second in 0..=seconds {
            let at = Moment(86_400_000 + second * 1000);
            let mut round = Round {
                own: true,
                began: at,
                ended: at,
                seen: [("h1".into(), 7)].into(),
            };
            edit(second, &mut round);
            watch.take(&round, &Policy::default());
            let seen = (token.clone(), Moment(86_400_000));
            let report = HeartbeatReport::of(Some(seen), [("p", &watch)]);
            heartbeats.take(
                &observer.into(),
                &"b9".into(),
                report,
                Moment(second * 1000),
            );
        }
    }

    fn verdict(heartbeats: &Heartbeats, look: &LastLook) -> Result<HostStopProof, SelfFenceError> {
        let incarnation = (&"h1".into(), &"b1".into());
        self_fenced(incarnation, &guard(), heartbeats, look, &Policy::default())
    }

    fn too_early(heartbeats: &Heartbeats) -> bool {
        matches!(
            verdict(heartbeats, &look()),
            Err(SelfFenceError::TooEarly { .. })
        )
    }

    #[test]
    fn fifty_silent_seconds_under_observation_prove() {
        assert!(verdict(&watched(50, "h2", |_, _| {}), &look()).is_ok());
        assert!(too_early(&watched(49, "h2", |_, _| {})));
    }

    #[test]
    fn each_rule_of_the_observer_alone_refuses() {
        let beat = |second: u64, round: &mut Round| {
            round
                .seen
                .insert("h1".into(), if second < 10 { 6 } else { 7 });
        };
        assert!(too_early(&watched(50, "h2", beat)), "a beat restarts");
        assert!(
            too_early(&watched(50, "h2", |second, round| round.own = second != 20)),
            "an observer that hangs restarts"
        );
        let gap = |second: u64, round: &mut Round| {
            if second > 20 {
                (round.began, round.ended) = (round.began.plus(3_000), round.ended.plus(3_000));
            }
        };
        assert!(too_early(&watched(52, "h2", gap)), "a gap restarts");
        assert_eq!(
            verdict(&watched(50, "h1", |_, _| {}), &look()),
            Err(SelfFenceError::Unobserved("p".to_owned())),
            "a host does not observe itself"
        );
    }

    /// Found by an audit: the numbers of one observer proved it alone, whatever others saw.
    #[test]
    fn who_saw_a_beat_within_the_window_vetoes_whoever_saw_none() {
        let last_beat = |at: u64| {
            move |second: u64, round: &mut Round| {
                round.seen.insert("h1".into(), 7 + second.min(at));
            }
        };
        let both = |at| {
            let mut heartbeats = watched(60, "liar", |_, _| {});
            watch_on(&mut heartbeats, 60, "h3", last_beat(at));
            heartbeats
        };
        assert!(
            verdict(&both(0), &look()).is_ok(),
            "the other one saw none either"
        );
        assert!(
            verdict(&both(10), &look()).is_ok(),
            "the window began with the last beat"
        );
        for at in [11, 30, 60] {
            assert_eq!(
                verdict(&both(at), &look()),
                Err(SelfFenceError::Contradicted {
                    pool: "p".to_owned(),
                    observer: "h3".into()
                }),
                "{at}"
            );
        }
        // An observer whose own storage hung for a moment has seen no beat.
        let mut hung = watched(60, "h2", |_, _| {});
        watch_on(&mut hung, 60, "h3", |second, round| {
            round.own = second != 40;
        });
        assert!(verdict(&hung, &look()).is_ok());
    }

    #[test]
    fn each_last_look_alone_refuses() {
        let whole = watched(50, "h2", |_, _| {});
        let unseen = Err(SelfFenceError::Unobserved("p".to_owned()));
        let late = LastLook {
            lease_changed_at: Moment(1),
            ..look()
        };
        assert_eq!(verdict(&whole, &late), unseen, "the token is older");
        let assigned = LastLook {
            assigned_at: Moment(1),
            ..look()
        };
        assert_eq!(verdict(&whole, &assigned), unseen);
        let unconfirmed = LastLook {
            lease_confirmed_unchanged: false,
            ..look()
        };
        assert_eq!(
            verdict(&whole, &unconfirmed),
            Err(SelfFenceError::LeaseUnconfirmed)
        );
        let unarmed = GuardRegistration {
            armed: false,
            ..guard()
        };
        let incarnation = (&"h1".into(), &"b1".into());
        assert_eq!(
            self_fenced(incarnation, &unarmed, &whole, &look(), &Policy::default()),
            Err(SelfFenceError::NotArmed)
        );
    }

    #[test]
    fn a_contract_beyond_all_measure_is_never_over() {
        let whole = watched(60, "h2", |_, _| {});
        for (contract, watchdog) in [(u64::MAX, 20_000), (20_000, u64::MAX), (u64::MAX, u64::MAX)] {
            let absurd = GuardRegistration {
                contract_milliseconds: contract,
                watchdog_milliseconds: watchdog,
                ..guard()
            };
            let incarnation = (&"h1".into(), &"b1".into());
            let verdict = self_fenced(incarnation, &absurd, &whole, &look(), &Policy::default());
            assert!(
                matches!(verdict, Err(SelfFenceError::TooEarly { .. })),
                "{verdict:?}"
            );
        }
    }

    #[test]
    fn an_answer_vetoes_or_begins_anew() {
        let mut heartbeats = watched(60, "h2", |_, _| {});
        let probed = |at| LastLook {
            probe_answered_at: Some(Moment(at)),
            ..look()
        };
        assert_eq!(
            verdict(&heartbeats, &probed(40_000)),
            Err(SelfFenceError::ProbeAnswered)
        );
        assert_eq!(
            verdict(&heartbeats, &probed(9_000)),
            Err(SelfFenceError::Unobserved("p".to_owned())),
            "a VM may answer until the guard fires; a younger token is needed"
        );
        // Found by the model check: an answer from before the guard fired vetoed for ever.
        let token = heartbeats.token("op", Moment(9_000));
        let watch = PoolWatch {
            wrote_at: None,
            runs: [(
                "h1".into(),
                crate::guard::observer::Run {
                    beat: 7,
                    since: Moment(86_400_000),
                    until: Moment(86_460_000),
                },
            )]
            .into(),
        };
        let report = HeartbeatReport::of(Some((token, Moment(86_409_500))), [("p", &watch)]);
        heartbeats.take(&"h2".into(), &"b9".into(), report, Moment(61_000));
        assert!(verdict(&heartbeats, &probed(9_000)).is_ok());
    }
}
