//! What other deciders and people may know of a host.

use super::{HostFacts, HostMachine, HostState, HostView, Intent, Life};
use crate::host::fencing::Stage;
use crate::host::table::{Conclusion, PowerSignal, Response, power_signal};
use crate::policy::Policy;
use crate::proof::HostStopProof;
use crate::proof::confirmation::ConfirmationError;
use crate::proof::power::PowerState;
use crate::reason::Reason;
use crate::time::Moment;

impl HostMachine {
    /// What others may know.
    pub fn view(&self, facts: &HostFacts, policy: &Policy, now: Moment) -> HostView {
        let power = self.current_power(policy, now);
        let silent_milliseconds = facts
            .signs
            .lease
            .map_or(0, |sign| now.since(sign.changed_at.max(self.floor)));
        let boot_confirmed = facts.identity.as_ref().map(|identity| &identity.boot_id)
            == facts.lease_boot_id.as_ref();
        // Of another boot it says nothing about this one.
        let agent_down = facts
            .loop_age_milliseconds
            .filter(|age| boot_confirmed && *age > policy.agent_down_after_milliseconds);
        let problem = self
            .alive_after_proof
            .then(|| "it shows life although it was proven off".to_owned());
        let held = self
            .identity_problem
            .as_ref()
            .map(|(problem, _)| problem.clone());
        let problem = held.clone().or(problem);
        let overlay = problem
            .map(|detail| Reason::IdentityConflict { detail })
            .or((facts.faults > 0).then_some(Reason::FaultsStand {
                count: facts.faults,
            }))
            .map(|reason| (HostState::Quarantined, reason))
            .or(facts
                .maintenance
                .then_some((HostState::Maintenance, Reason::InMaintenance)));
        let (state, mut reasons) = match (self.life, overlay) {
            (Life::NotRegistered, _) => (HostState::NotRegistered, vec![Reason::NotRegistered]),
            (Life::Suspect, _) => (
                HostState::Suspect,
                vec![Reason::MissedRenewal {
                    silent_milliseconds,
                }],
            ),
            (Life::Unreachable, _) => (
                HostState::Unreachable,
                self.unreachable_reasons(facts, silent_milliseconds, policy, now),
            ),
            (Life::Fencing, _) => (HostState::Fencing, vec![Reason::FenceIntended]),
            (Life::Fenced, _) => (HostState::Fenced, self.proof.iter().map(proven).collect()),
            (_, Some((state, reason))) => (state, vec![reason]),
            (Life::Recovering, None) => (
                HostState::Recovering,
                vec![Reason::Reconciling {
                    left: facts.unsettled,
                }],
            ),
            (Life::Ready, None) if facts.close_stuck > 0 => (
                HostState::Ready,
                vec![Reason::CloseStuck {
                    host: self.host.clone(),
                }],
            ),
            (Life::Ready, None) if facts.storage_lost => (
                HostState::Ready,
                vec![Reason::Concluded {
                    conclusion: Conclusion::AliveWithoutStorage,
                }],
            ),
            (Life::Ready, None) => (HostState::Ready, vec![Reason::Alive]),
        };
        let lost = self.is_lost();
        if lost || matches!(self.life, Life::Suspect | Life::NotRegistered) {
            // Another machine bears its name, or it is not accepted: what is to be done is told beside.
            reasons.extend(held.map(|detail| Reason::IdentityConflict { detail }));
        }
        reasons.extend(agent_down.map(|age_milliseconds| Reason::AgentDown { age_milliseconds }));
        // A command may land there: one of another operator, or of a fencing that is over.
        let commanded =
            facts.forcing || matches!(&facts.intent, Intent::Foreign { until } if *until > now);
        let not_placeable = match state {
            // Whatever its state: this one does not pass.
            _ if facts.deleted => Some(Reason::BeingDeleted),
            HostState::Ready | HostState::Recovering if facts.unkept => Some(Reason::NotKeptYet),
            HostState::Ready | HostState::Recovering if commanded => Some(Reason::FenceIntended),
            HostState::Ready | HostState::Recovering if self.storage_cut => {
                Some(Reason::StorageIsCut)
            }
            HostState::Ready | HostState::Recovering if facts.close_stuck > 0 => {
                Some(Reason::CloseStuck {
                    host: self.host.clone(),
                })
            }
            HostState::Ready | HostState::Recovering if !boot_confirmed => {
                Some(Reason::BootNotConfirmed)
            }
            HostState::Ready | HostState::Recovering if facts.storage_lost => {
                Some(Reason::Concluded {
                    conclusion: Conclusion::AliveWithoutStorage,
                })
            }
            HostState::Ready | HostState::Recovering => {
                agent_down.map(|age_milliseconds| Reason::AgentDown { age_milliseconds })
            }
            _ => reasons.first().cloned(),
        };
        HostView {
            state,
            reasons,
            not_placeable,
            power,
            silent: lost || self.life == Life::Suspect,
            lost,
            refused_word: self.refusal(facts),
            void_confirmation: self.void_word().cloned().filter(|word| {
                facts
                    .confirmation
                    .as_ref()
                    .is_some_and(|(given, _)| given == word)
            }),
        }
    }

    /// Why the word that stands counts for nothing, or not yet; none where it proves the host off.
    fn refusal(&self, facts: &HostFacts) -> Option<ConfirmationError> {
        let (word, _) = facts.confirmation.as_ref()?;
        if self.is_void(word, facts) {
            return Some(ConfirmationError::Void(self.host.clone()));
        }
        let refused = self.refused_word.as_ref();
        refused
            .filter(|(refused, _)| refused == word)
            .map(|(_, why)| why.clone())
    }

    fn unreachable_reasons(
        &self,
        facts: &HostFacts,
        silent_milliseconds: u64,
        policy: &Policy,
        now: Moment,
    ) -> Vec<Reason> {
        let mut reasons = vec![Reason::Unreachable {
            silent_milliseconds,
        }];
        let failed = self
            .fencing
            .as_ref()
            .is_some_and(|fencing| fencing.stage == Stage::Failed);
        let mute = matches!(
            self.power,
            Some((PowerState::NoAnswer | PowerState::OtherMachine, _))
        );
        if let Some(ConfirmationError::Void(_)) = self.refusal(facts) {
            reasons.push(Reason::WordIsVoid);
        }
        // A reading that fails now and then changes nothing; where none comes any more, nobody knows.
        let holds = 2 * policy.power_valid_milliseconds;
        let concluded = self.concluded.filter(|(_, at)| now.since(*at) <= holds);
        let runs = concluded.map(|(conclusion, _)| conclusion).filter(|it| {
            let response = it.response();
            matches!(response, Response::AlertOnly | Response::FenceIsolated)
        });
        reasons.extend(runs.map(|conclusion| Reason::Concluded { conclusion }));
        let is_left_alone = runs.is_some_and(|it| it.response() == Response::AlertOnly);
        if self.storage_cut {
            reasons.push(Reason::StorageIsCut);
        } else if is_left_alone {
            // It shows life: a person's word would be refused.
        } else if failed || facts.bmcs == 0 || mute || self.bmc_lies() {
            reasons.push(Reason::NeedsPerson {
                host: self.host.clone(),
            });
        }
        reasons
    }

    /// Power as it would be shown: for tests and metrics.
    pub fn power_signal(&self, facts: &HostFacts, policy: &Policy, now: Moment) -> PowerSignal {
        power_signal(self.current_power(policy, now), false, facts.bmcs > 0)
    }
}

fn proven(proof: &HostStopProof) -> Reason {
    Reason::Proven {
        kind: proof.kind(),
        evidence: proof.evidence().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::machine::FencePermit;
    use crate::host::machine::fixtures::{facts, identity, word};
    use crate::proof::power::{PowerAnswer, PowerReading};
    use crate::signs::{LifeSigns, Sign};

    /// A dead host of whose name another machine reports: it is silent, and that machine's remedy is told.
    #[test]
    fn a_silent_host_is_told_with_the_machine_that_bears_its_name() {
        let policy = Policy::default();
        let mut machine = HostMachine::new("h1".into(), Moment(0));
        let mut facts = HostFacts {
            lease_boot_id: Some("b2".into()),
            ..facts("b1", 1)
        };
        let _ = machine.step(&facts, &FencePermit::Granted, &policy, Moment(1_000));
        let detail = "create it anew".to_owned();
        let conflict = Reason::IdentityConflict {
            detail: detail.clone(),
        };
        let view = machine.view(&facts, &policy, Moment(1_000));
        assert!(!view.reasons.contains(&conflict), "{:?}", view.reasons);
        facts.identity_problem = Some(detail);
        for seconds in [1, 20] {
            let now = Moment(seconds * 1_000);
            let _ = machine.step(&facts, &FencePermit::Granted, &policy, now);
            let view = machine.view(&facts, &policy, now);
            assert!(view.silent, "{:?}", view.state);
            assert!(view.reasons.contains(&conflict), "{:?}", view.reasons);
        }
    }

    /// A host and a clone of it report in turn: it is closed all the time, and open again when the clone has gone
    /// for good or a new boot of the host itself was accepted.
    #[test]
    fn a_host_is_closed_between_two_reports_of_a_clone() {
        let policy = Policy::default();
        let mut machine = HostMachine::new("h1".into(), Moment(0));
        let mut renewals = 0;
        let mut state = |seconds: u64, boot: &str, problem: bool| {
            let now = Moment(seconds * 1_000);
            renewals += 1;
            let facts = HostFacts {
                identity_problem: problem.then(|| "two machines".to_owned()),
                signs: LifeSigns {
                    lease: Some(Sign {
                        changed_at: now,
                        changes: renewals,
                    }),
                    ..LifeSigns::default()
                },
                ..facts(boot, 0)
            };
            let _ = machine.step(&facts, &FencePermit::Granted, &policy, now);
            machine.view(&facts, &policy, now).state
        };
        assert_eq!(state(1, "b1", false), HostState::Ready);
        for turn in 0..10 {
            assert_eq!(state(2 + turn * 10, "b1", true), HostState::Quarantined);
            assert_eq!(state(7 + turn * 10, "b1", false), HostState::Quarantined);
        }
        assert_eq!(state(151, "b1", false), HostState::Quarantined);
        assert_eq!(state(152, "b1", false), HostState::Ready);
        assert_eq!(state(153, "b1", true), HostState::Quarantined);
        assert_eq!(state(154, "b2", false), HostState::Ready);
    }

    /// A host that may be deleted under what is assigned to it, or that is being deleted, takes nothing new; it is
    /// watched as ever.
    #[test]
    fn nothing_is_placed_on_a_host_that_may_go() {
        let policy = Policy::default();
        let mut machine = HostMachine::new("h1".into(), Moment(0));
        let mut facts = facts("b1", 0);
        let _ = machine.step(&facts, &FencePermit::Granted, &policy, Moment(1_000));
        let closed = |machine: &HostMachine, facts: &HostFacts, at: u64| {
            let view = machine.view(facts, &policy, Moment(at));
            (view.state, view.not_placeable)
        };
        let ready = HostState::Ready;
        assert_eq!(closed(&machine, &facts, 1_000), (ready, None));
        facts.unkept = true;
        let why = Some(Reason::NotKeptYet);
        assert_eq!(closed(&machine, &facts, 1_000), (ready, why));
        (facts.unkept, facts.deleted) = (false, true);
        let why = Some(Reason::BeingDeleted);
        assert_eq!(closed(&machine, &facts, 1_000), (ready, why.clone()));
        let _ = machine.step(&facts, &FencePermit::Granted, &policy, Moment(5_000));
        let suspect = HostState::Suspect;
        assert_eq!(closed(&machine, &facts, 5_000), (suspect, why));
    }

    /// A machine that was never accepted says why, and not only that no agent has registered.
    #[test]
    fn a_host_that_is_not_accepted_says_why() {
        let policy = Policy::default();
        let mut machine = HostMachine::new("h1".into(), Moment(0));
        let detail = "set a unique UUID in the firmware".to_owned();
        let facts = HostFacts {
            identity_problem: Some(detail.clone()),
            ..HostFacts::default()
        };
        let _ = machine.step(&facts, &FencePermit::Granted, &policy, Moment(1_000));
        let view = machine.view(&facts, &policy, Moment(1_000));
        let conflict = Reason::IdentityConflict { detail };
        assert_eq!(view.reasons, [Reason::NotRegistered, conflict]);
    }

    /// Whoever gave a word that counts for nothing sees so where they look.
    #[test]
    fn a_silent_host_tells_that_a_word_is_void() {
        let policy = Policy::default();
        let mut machine = HostMachine::new("h1".into(), Moment(0));
        let word = word();
        let mut facts = HostFacts {
            identity: Some(identity("b1")),
            confirmation: Some((word.clone(), Moment(9_000))),
            ..HostFacts::default()
        };
        let _ = machine.step(&facts, &FencePermit::Granted, &policy, Moment(10_000));
        let tells = |machine: &HostMachine, facts: &HostFacts| {
            let view = machine.view(facts, &policy, Moment(10_000));
            view.reasons.contains(&Reason::WordIsVoid)
        };
        assert!(!tells(&machine, &facts), "it is being watched");
        facts.void_confirmation = Some(word);
        assert!(tells(&machine, &facts));
    }

    /// A person's word about a host whose heart beats would be refused: it is not asked for.
    #[test]
    fn nobody_is_told_to_switch_off_a_host_that_shows_life() {
        let policy = Policy::default();
        let mut machine = HostMachine::new("h1".into(), Moment(0));
        let mut facts = facts("b1", 0);
        let concluded = |conclusion| Reason::Concluded { conclusion };
        let person = Reason::NeedsPerson { host: "h1".into() };
        let mut reasons = |second: u64, beats: bool| {
            let now = Moment(second * 1_000);
            if beats {
                facts.signs.heartbeat = Some(Sign {
                    changes: second,
                    changed_at: now,
                });
            }
            let _ = machine.step(&facts, &FencePermit::Granted, &policy, now);
            machine.view(&facts, &policy, now).reasons
        };
        for second in 1..40 {
            let told = reasons(second, true);
            assert!(!told.contains(&person), "{told:?}");
            assert!(second < 9 || told.contains(&concluded(Conclusion::SwitchDead)));
        }
        let told: Vec<_> = (40..60).map(|second| reasons(second, false)).collect();
        let last = told.last().expect("twenty steps");
        assert!(last.contains(&person), "{last:?}");
        assert!(!last.contains(&concluded(Conclusion::SwitchDead)));
    }

    /// Its heart beat while its BMC was silent; then it died, and no reading of its BMC comes to an end any more.
    #[test]
    fn what_was_concluded_long_ago_keeps_nobody_from_being_asked() {
        let policy = Policy::default();
        let mut machine = HostMachine::new("h1".into(), Moment(0));
        let mut facts = facts("b1", 1);
        let mut asked = Vec::new();
        for second in 1..60 {
            let now = Moment(second * 1_000);
            if second < 30 {
                facts.signs.heartbeat = Some(Sign {
                    changes: second,
                    changed_at: now,
                });
                facts.reading = Some(PowerReading {
                    answer: PowerAnswer::NoAnswer,
                    system_uuid: None,
                    unanimous: true,
                    contradicted: false,
                    sent_at: now,
                    received_at: now,
                });
            }
            let _ = machine.step(&facts, &FencePermit::Granted, &policy, now);
            let told = machine.view(&facts, &policy, now).reasons;
            if told.contains(&Reason::NeedsPerson { host: "h1".into() }) {
                asked.push(second);
            }
        }
        assert!(asked.iter().all(|second| *second > 30), "{asked:?}");
        assert_eq!(asked.last(), Some(&59));
    }
}
