//! What an agent does for one live migration, as its source and as its target.
//!
//! The source says `HandedOver` only when its QEMU is dead after the switch-over or the job ended as
//! migrated (decision 0019), so the guest never runs here after switch-over. The target receives paused and resumes on the hand-over alone. A
//! copy that has run here is the VM itself: it is never refused, but said to run. One that was handed over is let run before anything
//! is refused; where that failed, and the operator asks for it, it is given up, and the VM starts from its disks.

use crate::agent::ledger::EpochState;
use crate::migration::{SourcePhase, TargetPhase};

/// What the source's decision rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceFacts {
    /// What this source said last in the migration's object.
    pub said: Option<SourcePhase>,
    /// What the target said last.
    pub target: Option<TargetPhase>,
    /// The source was asked to abort.
    pub abort_requested: bool,
    /// The migration has an outcome.
    pub ended: bool,
    /// This run of the agent is sending it right now.
    pub sending: bool,
    /// What the ledger has of the source's epoch.
    pub epoch: Option<EpochState>,
    /// A domain of that epoch is here, and no switch-over has stopped it: its guest runs, or stands still for another
    /// reason.
    pub running: bool,
    /// A domain of that epoch stands still here, for a switch-over as far as is known.
    pub paused: bool,
}

/// What the source does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceStep {
    /// Send it.
    Send,
    /// Once no job is left: say that it is here. One that stands still is looked at again, by a read that no cache answers.
    SayRunning,
    /// Say that it was handed over.
    SayHandedOver,
    /// Say that it is closed here.
    SayClosed,
    /// Once no job is left: close the epoch and say so. Switch-over was reached and its end is
    /// not known, so the guest may not run on here beside a copy there.
    GiveUp,
}

/// Decides for the source.
pub fn source(facts: SourceFacts) -> Option<SourceStep> {
    let final_word = matches!(
        facts.said,
        Some(SourcePhase::HandedOver | SourcePhase::StillRunning | SourcePhase::Closed)
    );
    if final_word || facts.sending {
        return None;
    }
    match facts.epoch {
        Some(EpochState::HandedOver) => return Some(SourceStep::SayHandedOver),
        // It died between `closed` and the domain's end.
        Some(EpochState::Closed) if facts.running || facts.paused => {
            return Some(SourceStep::GiveUp);
        }
        Some(EpochState::Closed) => return Some(SourceStep::SayClosed),
        _ => {}
    }
    // A migration that was under way when this agent was restarted: libvirt may still run it, or
    // it ended; either way it is not begun a second time.
    let begun_before = facts.said == Some(SourcePhase::Migrating);
    if !facts.ended && begun_before && facts.paused {
        return Some(SourceStep::GiveUp);
    }
    // A move that began nothing stopped nothing: without this word its cancellation waits for ever.
    if !facts.ended && facts.abort_requested && facts.said.is_none() && facts.paused {
        return Some(SourceStep::SayRunning);
    }
    if facts.ended || !facts.running {
        return None;
    }
    let prepared = facts.target == Some(TargetPhase::Prepared);
    match (facts.abort_requested || begun_before, prepared) {
        (true, _) => Some(SourceStep::SayRunning),
        (false, true) => Some(SourceStep::Send),
        (false, false) => None,
    }
}

/// What the target's decision rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetFacts {
    /// What this target said last in the migration's object.
    pub said: Option<TargetPhase>,
    /// What the source said last in the migration's object.
    pub source: Option<SourcePhase>,
    /// The source was asked to abort.
    pub abort_requested: bool,
    /// The target was asked to give up its copy.
    pub refuse_requested: bool,
    /// What the ledger has of the target's epoch.
    pub epoch: Option<EpochState>,
    /// A domain of that epoch is here, paused or not.
    pub copy: bool,
    /// That domain has run here: it runs, or stands still since a disk failed.
    pub ran: bool,
}

impl TargetFacts {
    fn handed_over(self) -> bool {
        self.source == Some(SourcePhase::HandedOver)
    }

    /// Whether the copy is given up for the asking. One that has run here is the VM itself, whatever was heard of the
    /// hand-over: only a hand-over lets it run. One that was handed over is given up when it was said that it could not
    /// be let run. Beside a source that runs on none may run, whoever let it.
    fn gives_up(self) -> bool {
        match self.source {
            Some(SourcePhase::StillRunning) => true,
            _ if !self.copy => true,
            _ if self.ran => false,
            Some(SourcePhase::HandedOver) => self.said == Some(TargetPhase::Arrived),
            _ => true,
        }
    }
}

/// What the target does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetStep {
    /// Make ready and say so.
    Prepare,
    /// The copy comes or is here: resume it on the hand-over.
    Receive,
    /// Close the epoch, destroy the copy, say so.
    Refuse,
    /// Say again that it is closed.
    SayRefused,
}

/// Decides for the target.
pub fn target(facts: TargetFacts) -> Option<TargetStep> {
    if matches!(
        facts.said,
        Some(TargetPhase::Resumed | TargetPhase::Refused)
    ) {
        return None;
    }
    match (facts.epoch, facts.refuse_requested) {
        // It was handed over and died before it was said to run, or the source died before anything came: the VM
        // starts from its disks.
        (Some(EpochState::Started | EpochState::Used), _) if facts.handed_over() && !facts.copy => {
            Some(TargetStep::Refuse)
        }
        // It died between `closed` and the copy's end: closed is said when no copy is left.
        (Some(EpochState::Closed), _) if facts.copy => Some(TargetStep::Refuse),
        (Some(EpochState::Closed), _) => Some(TargetStep::SayRefused),
        // It ran, moved on, and etcd was restored: this move is one of the past. Nothing of that epoch is
        // left here, and the move must end. It can not be refused: the ledger closes no epoch that was handed over.
        (Some(EpochState::HandedOver), _) => (!facts.copy).then_some(TargetStep::SayRefused),
        (_, true) if facts.gives_up() => Some(TargetStep::Refuse),
        (None, _) => {
            (facts.said.is_none() && !facts.abort_requested).then_some(TargetStep::Prepare)
        }
        (Some(EpochState::Used | EpochState::Started), _) => Some(TargetStep::Receive),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a copy that came here, was handed over, and does not run yet.
    const ARRIVED: TargetFacts = TargetFacts {
        said: Some(TargetPhase::Prepared),
        source: Some(SourcePhase::HandedOver),
        abort_requested: false,
        refuse_requested: false,
        epoch: Some(EpochState::Started),
        copy: true,
        ran: false,
    };

    #[test]
    fn a_source_sends_once_and_only_to_a_prepared_target() {
        let ready = SourceFacts {
            said: None,
            target: Some(TargetPhase::Prepared),
            abort_requested: false,
            ended: false,
            sending: false,
            epoch: Some(EpochState::Started),
            running: true,
            paused: false,
        };
        assert_eq!(source(ready), Some(SourceStep::Send));
        for (facts, step) in [
            (
                SourceFacts {
                    target: None,
                    ..ready
                },
                None,
            ),
            (
                SourceFacts {
                    sending: true,
                    ..ready
                },
                None,
            ),
            (
                SourceFacts {
                    ended: true,
                    ..ready
                },
                None,
            ),
            (
                SourceFacts {
                    running: false,
                    ..ready
                },
                None,
            ),
            (
                SourceFacts {
                    said: Some(SourcePhase::Migrating),
                    ..ready
                },
                Some(SourceStep::SayRunning),
            ),
            (
                SourceFacts {
                    said: Some(SourcePhase::Migrating),
                    running: false,
                    paused: true,
                    ..ready
                },
                Some(SourceStep::GiveUp),
            ),
            (
                SourceFacts {
                    epoch: Some(EpochState::HandedOver),
                    ended: true,
                    ..ready
                },
                Some(SourceStep::SayHandedOver),
            ),
        ] {
            assert_eq!(source(facts), step, "{facts:?}");
        }
    }

    /// It was suspended by a person, or by its guest, before the move began anything.
    #[test]
    fn a_copy_that_stood_still_before_the_move_is_said_to_be_here_when_it_is_aborted() {
        let still = SourceFacts {
            said: None,
            target: None,
            abort_requested: true,
            ended: false,
            sending: false,
            epoch: Some(EpochState::Started),
            running: false,
            paused: true,
        };
        assert_eq!(source(still), Some(SourceStep::SayRunning));
        let begun = SourceFacts {
            said: Some(SourcePhase::Migrating),
            ..still
        };
        assert_eq!(
            source(begun),
            Some(SourceStep::GiveUp),
            "it may have been switched over"
        );
        let handed_over = SourceFacts {
            epoch: Some(EpochState::HandedOver),
            ..still
        };
        assert_eq!(source(handed_over), Some(SourceStep::SayHandedOver));
        for facts in [
            SourceFacts {
                abort_requested: false,
                target: Some(TargetPhase::Prepared),
                ..still
            },
            SourceFacts {
                ended: true,
                ..still
            },
        ] {
            assert_eq!(source(facts), None, "{facts:?}");
        }
    }

    /// Found by the model check: an agent that dies between `closed` and the domain's end.
    #[test]
    fn closed_is_said_only_when_no_domain_is_left() {
        let closed = SourceFacts {
            said: Some(SourcePhase::Migrating),
            target: Some(TargetPhase::Prepared),
            abort_requested: false,
            ended: false,
            sending: false,
            epoch: Some(EpochState::Closed),
            running: false,
            paused: false,
        };
        assert_eq!(source(closed), Some(SourceStep::SayClosed));
        for (running, paused) in [(true, false), (false, true)] {
            let left = SourceFacts {
                running,
                paused,
                ..closed
            };
            assert_eq!(source(left), Some(SourceStep::GiveUp));
        }
        let refused = TargetFacts {
            source: Some(SourcePhase::Migrating),
            abort_requested: true,
            refuse_requested: true,
            epoch: Some(EpochState::Closed),
            copy: false,
            ..ARRIVED
        };
        assert_eq!(target(refused), Some(TargetStep::SayRefused));
        let left = TargetFacts {
            copy: true,
            ..refused
        };
        assert_eq!(target(left), Some(TargetStep::Refuse));
    }

    /// Found by the model check: the copy died after the hand-over, and nobody had said that it
    /// ran; the move waited for it for ever.
    #[test]
    fn a_copy_that_died_after_the_hand_over_is_closed() {
        assert_eq!(target(ARRIVED), Some(TargetStep::Receive));
        let died = TargetFacts {
            copy: false,
            ..ARRIVED
        };
        assert_eq!(target(died), Some(TargetStep::Refuse));
    }

    /// Simulation seed 37713: etcd was restored to a moment before the copy was said to run.
    #[test]
    fn a_target_that_has_moved_on_says_that_nothing_is_left() {
        let past = TargetFacts {
            epoch: Some(EpochState::HandedOver),
            copy: false,
            ..ARRIVED
        };
        assert_eq!(target(past), Some(TargetStep::SayRefused));
        // Simulation seed 3374: the rebase took what libvirt still showed for a copy that arrives.
        let refuse = TargetFacts {
            source: Some(SourcePhase::Migrating),
            refuse_requested: true,
            ..past
        };
        assert_eq!(target(refuse), Some(TargetStep::SayRefused));
        for facts in [past, refuse] {
            let left = TargetFacts {
                copy: true,
                ..facts
            };
            assert_eq!(target(left), None, "libvirt has not ended it yet");
        }
    }

    #[test]
    fn a_target_refuses_unless_the_copy_was_handed_over() {
        let asked = TargetFacts {
            source: Some(SourcePhase::Migrating),
            abort_requested: true,
            refuse_requested: true,
            ..ARRIVED
        };
        assert_eq!(target(asked), Some(TargetStep::Refuse));
        let handed = TargetFacts {
            source: Some(SourcePhase::HandedOver),
            ..asked
        };
        assert_eq!(target(handed), Some(TargetStep::Receive));
        assert_eq!(
            target(TargetFacts {
                copy: false,
                ..handed
            }),
            Some(TargetStep::Refuse)
        );
        let fresh = TargetFacts {
            said: None,
            epoch: None,
            refuse_requested: false,
            abort_requested: false,
            ..asked
        };
        assert_eq!(target(fresh), Some(TargetStep::Prepare));
        assert_eq!(
            target(TargetFacts {
                abort_requested: true,
                ..fresh
            }),
            None
        );
    }

    /// The target's agent ended when it had let the copy run and before it said so; meanwhile the source's host died,
    /// and its word never reached the API.
    #[test]
    fn a_copy_that_runs_is_said_to_run_and_never_refused() {
        for source in [
            None,
            Some(SourcePhase::Migrating),
            Some(SourcePhase::HandedOver),
            Some(SourcePhase::Closed),
        ] {
            let runs = TargetFacts {
                source,
                refuse_requested: true,
                ran: true,
                ..ARRIVED
            };
            assert_eq!(target(runs), Some(TargetStep::Receive), "{source:?}");
            let beside = TargetFacts {
                source: Some(SourcePhase::StillRunning),
                ..runs
            };
            assert_eq!(target(beside), Some(TargetStep::Refuse), "two would run");
            let told = TargetFacts {
                epoch: Some(EpochState::Closed),
                ..runs
            };
            assert_eq!(target(told), Some(TargetStep::Refuse), "closed is closed");
        }
    }

    #[test]
    fn a_copy_that_could_not_be_let_run_is_tried_until_its_refusal_is_asked_for() {
        let tried = TargetFacts {
            said: Some(TargetPhase::Arrived),
            ..ARRIVED
        };
        assert_eq!(target(tried), Some(TargetStep::Receive));
        let asked = TargetFacts {
            refuse_requested: true,
            ..tried
        };
        assert_eq!(target(asked), Some(TargetStep::Refuse));
        let untried = TargetFacts {
            said: Some(TargetPhase::Prepared),
            ..asked
        };
        assert_eq!(target(untried), Some(TargetStep::Receive), "it may run yet");
        let runs = TargetFacts { ran: true, ..asked };
        assert_eq!(target(runs), Some(TargetStep::Receive));
        let closed = TargetFacts {
            epoch: Some(EpochState::Closed),
            copy: false,
            ..asked
        };
        assert_eq!(target(closed), Some(TargetStep::SayRefused));
    }
}
