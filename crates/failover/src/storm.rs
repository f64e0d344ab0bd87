//! The storm guard: when many hosts fall silent together the network is suspected, not the
//! hosts, and nothing is forced off.
//!
//! ```text
//! Calm ──enough silent within the window──► Storm ──no new silence for a while──► Releasing ──nobody silent──► Calm
//!                                             ▲                                      │ one fence at a time
//!                                             └──────────── a new storm ─────────────┘
//! ```
//!
//! While every host that counts is silent nothing is forced off, be it the only one that is left:
//! there is no host to recover on, and the management network, or the observer's own ear, is
//! suspected however long it takes. Nor is anything released just after a host has come back: the
//! network heals, and the others may follow.
//!
//! Hosts that are proven dead are known down: they count neither as silent nor among the
//! hosts. Proofs that are only read still count in a storm; the guard stops forcing only.

use std::collections::{BTreeMap, BTreeSet};

use model::HostName;
use serde::{Deserialize, Serialize};

use crate::host::machine::FencePermit;
use crate::policy::Policy;
use crate::reason::Reason;
use crate::time::Moment;

/// State of the guard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum StormState {
    /// Single hosts may be forced off.
    #[default]
    Calm,
    /// Nothing is forced off.
    Storm {
        /// Hosts silent at its height.
        silent: u32,
        /// Hosts that count.
        of: u32,
    },
    /// One host at a time.
    Releasing,
}

/// What the guard sees in one step.
#[derive(Clone, Debug, Default)]
pub struct StormFacts {
    /// Hosts that are silent and not proven dead.
    pub silent: BTreeSet<HostName>,
    /// Hosts that are registered and not proven dead.
    pub counted: u32,
    /// Hosts proven dead.
    pub known_down: BTreeSet<HostName>,
    /// Hosts being forced off.
    pub fencing: BTreeSet<HostName>,
    /// Hosts that would be forced off now if they were let, and those that are being. All others hold nobody up:
    /// they wait for a person, or nothing wants them off.
    pub wants: BTreeSet<HostName>,
    /// This operator can write to the API server.
    pub can_write: bool,
    /// A person disarmed failover.
    pub disarmed: bool,
    /// The API went back; a person has to rebase.
    pub frozen: bool,
}

/// The guard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StormGuard {
    state: StormState,
    fell_silent: BTreeMap<HostName, Moment>,
    silent_before: BTreeSet<HostName>,
    last_silence: Option<Moment>,
    facts_allow: Option<Reason>,
    /// When a host was last seen to come back.
    last_return: Option<Moment>,
    /// Silent hosts and hosts, while every host is silent or one has just come back: nothing is released
    /// although the storm is over.
    held: Option<(u32, u32)>,
    turn: Option<HostName>,
}

impl StormGuard {
    /// State of the guard.
    pub fn state(&self) -> &StormState {
        &self.state
    }

    /// Takes one step; returns whether a storm began with it.
    pub fn observe(&mut self, facts: &StormFacts, policy: &Policy, now: Moment) -> bool {
        for host in facts.silent.difference(&self.silent_before) {
            self.fell_silent.insert(host.clone(), now);
            self.last_silence = Some(now);
        }
        let mut returned = self.silent_before.difference(&facts.silent);
        if returned.any(|host| !facts.known_down.contains(host)) {
            self.last_return = Some(now);
        }
        self.silent_before.clone_from(&facts.silent);
        self.fell_silent.retain(|host, at| {
            now.since(*at) <= policy.storm_window_milliseconds && !facts.known_down.contains(host)
        });
        self.facts_allow = match (facts.frozen, facts.disarmed, facts.can_write) {
            (true, ..) => Some(Reason::Frozen),
            (_, true, _) => Some(Reason::Disarmed),
            (.., false) => Some(Reason::CannotWrite),
            _ => None,
        };
        let together = u32::try_from(self.fell_silent.len()).unwrap_or(u32::MAX);
        let began = self.advance(together, facts, policy, now);
        self.turn = self.next_turn(facts);
        let silent = u32::try_from(facts.silent.len()).unwrap_or(u32::MAX);
        let heals = self
            .last_return
            .is_some_and(|at| now.since(at) < policy.unreachable_after_milliseconds);
        self.held = (silent >= facts.counted || heals).then_some((silent, facts.counted));
        began
    }

    fn advance(&mut self, together: u32, facts: &StormFacts, policy: &Policy, now: Moment) -> bool {
        let enough = together >= policy.storm_minimum_hosts
            && u64::from(together) * 100
                >= u64::from(policy.storm_percent) * u64::from(facts.counted);
        let calm_for = self.last_silence.map_or(u64::MAX, |last| now.since(last));
        match &mut self.state {
            StormState::Storm { silent, of } => {
                if enough && together > *silent {
                    (*silent, *of) = (together, facts.counted);
                }
                if facts.silent.is_empty() && !enough {
                    self.state = StormState::Calm;
                } else if calm_for >= policy.storm_release_milliseconds {
                    self.fell_silent.clear();
                    self.state = StormState::Releasing;
                }
                false
            }
            StormState::Calm | StormState::Releasing if enough => {
                self.state = StormState::Storm {
                    silent: together,
                    of: facts.counted,
                };
                true
            }
            StormState::Releasing => {
                if facts.silent.is_empty() {
                    self.state = StormState::Calm;
                }
                false
            }
            StormState::Calm => false,
        }
    }

    /// While releasing, the one host whose turn it is: one that is being forced off keeps
    /// its turn until it is proven dead, lives, or has failed; then the next by name that wants it.
    fn next_turn(&self, facts: &StormFacts) -> Option<HostName> {
        if self.state != StormState::Releasing {
            return None;
        }
        let waiting = |host: &&HostName| facts.wants.contains(*host);
        let begun = facts.fencing.iter().find(waiting);
        let current = self.turn.as_ref().filter(waiting);
        begun.or(current).or_else(|| facts.wants.first()).cloned()
    }

    /// Whether a host may be forced off now.
    pub fn permit(&self, host: &HostName) -> FencePermit {
        if let Some(reason) = &self.facts_allow {
            return FencePermit::Refused(reason.clone());
        }
        match &self.state {
            StormState::Calm => match self.held {
                Some((silent, of)) if silent >= of => FencePermit::Refused(Reason::NoOtherHost),
                _ => FencePermit::Granted,
            },
            StormState::Storm { silent, of } => FencePermit::Refused(Reason::Storm {
                silent: *silent,
                of: *of,
            }),
            StormState::Releasing => match (&self.held, &self.turn) {
                (Some((silent, of)), _) => FencePermit::Refused(Reason::Storm {
                    silent: *silent,
                    of: *of,
                }),
                (None, Some(turn)) if turn == host => FencePermit::Granted,
                // Whoever asks gets its turn with the next look: two may ask at once.
                (None, turn) => FencePermit::Refused(Reason::StormReleases {
                    other: turn.as_ref().unwrap_or(host).clone(),
                }),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(silent: &[&str], counted: u32) -> StormFacts {
        let silent: BTreeSet<HostName> = silent.iter().map(|name| HostName::from(*name)).collect();
        StormFacts {
            wants: silent.clone(),
            silent,
            counted,
            can_write: true,
            ..StormFacts::default()
        }
    }

    fn refused(guard: &StormGuard, host: &str) -> bool {
        matches!(guard.permit(&host.into()), FencePermit::Refused(_))
    }

    #[test]
    fn one_host_is_no_storm_two_of_four_are() {
        let policy = Policy::default();
        let mut guard = StormGuard::default();
        assert!(
            !guard.observe(&facts(&["a"], 2), &policy, Moment(0)),
            "one host never is, even of two"
        );
        assert!(!refused(&guard, "a"));
        assert!(guard.observe(&facts(&["a", "b"], 4), &policy, Moment(10_000)));
        assert!(refused(&guard, "a") && refused(&guard, "b"));
    }

    #[test]
    fn silences_far_apart_or_explained_are_no_storm() {
        let policy = Policy::default();
        let mut guard = StormGuard::default();
        guard.observe(&facts(&["a"], 4), &policy, Moment(0));
        assert!(!guard.observe(&facts(&["a", "b"], 4), &policy, Moment(60_001)));
        let mut guard = StormGuard::default();
        guard.observe(&facts(&["a"], 4), &policy, Moment(0));
        let explained = StormFacts {
            known_down: BTreeSet::from(["a".into()]),
            ..facts(&["b"], 3)
        };
        assert!(!guard.observe(&explained, &policy, Moment(5_000)));
    }

    #[test]
    fn a_flap_of_many_hosts_still_counts_after_they_returned() {
        let policy = Policy::default();
        let mut guard = StormGuard::default();
        guard.observe(&facts(&["a"], 4), &policy, Moment(0));
        guard.observe(&facts(&[], 4), &policy, Moment(4_000));
        assert!(guard.observe(&facts(&["b"], 4), &policy, Moment(8_000)));
    }

    #[test]
    fn after_calm_it_releases_one_at_a_time() {
        let policy = Policy::default();
        let mut guard = StormGuard::default();
        guard.observe(&facts(&["a", "b"], 4), &policy, Moment(0));
        guard.observe(&facts(&["a", "b"], 4), &policy, Moment(59_000));
        assert!(refused(&guard, "a"));
        guard.observe(&facts(&["a", "b"], 4), &policy, Moment(60_000));
        assert_eq!(guard.state(), &StormState::Releasing);
        assert!(!refused(&guard, "a") && refused(&guard, "b"));
        let a_is_down = StormFacts {
            known_down: BTreeSet::from(["a".into()]),
            ..facts(&["b"], 3)
        };
        guard.observe(&a_is_down, &policy, Moment(70_000));
        assert!(!refused(&guard, "b"));
        guard.observe(&facts(&[], 4), &policy, Moment(80_000));
        assert_eq!(guard.state(), &StormState::Calm);
    }

    #[test]
    fn nothing_is_forced_off_while_no_host_lives() {
        let policy = Policy::default();
        let mut guard = StormGuard::default();
        guard.observe(&facts(&["a", "b", "c"], 3), &policy, Moment(0));
        guard.observe(&facts(&["a", "b", "c"], 3), &policy, Moment(90_000));
        assert_eq!(guard.state(), &StormState::Releasing);
        assert!(refused(&guard, "a"), "a switch that is away for long");
        guard.observe(&facts(&["a", "b"], 3), &policy, Moment(91_000));
        assert!(refused(&guard, "a"), "the others may follow");
        guard.observe(&facts(&["a", "b"], 3), &policy, Moment(99_000));
        assert!(!refused(&guard, "a") && refused(&guard, "b"));
    }

    #[test]
    fn the_last_host_is_not_forced_off_before_another_lives() {
        let policy = Policy::default();
        let mut guard = StormGuard::default();
        let others_are_down = StormFacts {
            known_down: BTreeSet::from(["a".into(), "b".into()]),
            ..facts(&["c"], 1)
        };
        guard.observe(&others_are_down, &policy, Moment(0));
        guard.observe(&others_are_down, &policy, Moment(600_000));
        assert_eq!(guard.state(), &StormState::Calm, "one silence is no storm");
        assert_eq!(
            guard.permit(&"c".into()),
            FencePermit::Refused(Reason::NoOtherHost)
        );
        let one_is_back = StormFacts {
            known_down: BTreeSet::from(["b".into()]),
            ..facts(&["c"], 2)
        };
        guard.observe(&one_is_back, &policy, Moment(601_000));
        assert_eq!(guard.permit(&"c".into()), FencePermit::Granted);
    }

    #[test]
    fn a_failed_fence_holds_nobody_up() {
        let policy = Policy::default();
        let mut guard = StormGuard::default();
        guard.observe(&facts(&["a", "b"], 4), &policy, Moment(0));
        let failed = StormFacts {
            wants: BTreeSet::from(["b".into()]),
            ..facts(&["a", "b"], 4)
        };
        guard.observe(&failed, &policy, Moment(60_000));
        assert!(!refused(&guard, "b"));
    }

    /// Hosts that nothing wants forced off may stay silent for hours; one that hangs meanwhile has its turn, and of
    /// two that want it at once one is first.
    #[test]
    fn who_waits_for_a_person_holds_nobody_up_and_two_never_go_at_once() {
        let policy = Policy::default();
        let mut guard = StormGuard::default();
        let with = |wants: &[&str]| StormFacts {
            wants: wants.iter().map(|name| HostName::from(*name)).collect(),
            ..facts(&["a", "b", "c", "d"], 8)
        };
        guard.observe(&with(&[]), &policy, Moment(0));
        guard.observe(&with(&[]), &policy, Moment(60_000));
        assert_eq!(guard.state(), &StormState::Releasing);
        assert!(
            refused(&guard, "c") && refused(&guard, "d"),
            "nobody asked yet"
        );
        guard.observe(&with(&["c", "d"]), &policy, Moment(3_600_000));
        assert!(!refused(&guard, "c") && refused(&guard, "d"));
        guard.observe(&with(&["d"]), &policy, Moment(3_610_000));
        assert!(refused(&guard, "c") && !refused(&guard, "d"));
    }

    #[test]
    fn disarmed_or_unable_to_write_forces_nothing() {
        let policy = Policy::default();
        let mut guard = StormGuard::default();
        guard.observe(
            &StormFacts {
                disarmed: true,
                ..facts(&["a"], 4)
            },
            &policy,
            Moment(0),
        );
        assert_eq!(
            guard.permit(&"a".into()),
            FencePermit::Refused(Reason::Disarmed)
        );
        guard.observe(
            &StormFacts {
                can_write: false,
                ..facts(&["a"], 4)
            },
            &policy,
            Moment(1),
        );
        assert_eq!(
            guard.permit(&"a".into()),
            FencePermit::Refused(Reason::CannotWrite)
        );
    }
}
