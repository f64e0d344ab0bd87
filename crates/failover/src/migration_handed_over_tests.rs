//! What becomes of a move whose source has handed over and whose target does not run.

use super::*;

/// Handed over, as this operator heard at 1 s.
fn handed(rights: &Rights) -> MigrationFacts<'_> {
    MigrationFacts {
        source: Some(SourcePhase::HandedOver),
        handed_over_at: Some(Moment(1_000)),
        ..facts(rights)
    }
}

fn at(facts: &MigrationFacts<'_>, now: u64) -> (MigrationStep, Reason) {
    let verdict = decide(facts, &Policy::default(), Moment(now));
    (verdict.step, verdict.reason)
}

#[test]
fn a_copy_that_can_not_be_let_run_is_given_up_after_the_bound() {
    let rights = moving();
    let tries = MigrationFacts {
        target: Some(TargetPhase::Arrived),
        ..handed(&rights)
    };
    let host = target().host;
    assert_eq!(
        at(&tries, 5_900),
        (MigrationStep::Wait, Reason::TargetResumes)
    );
    for now in [6_000, 60_900] {
        let late = Reason::NotResumed { host: host.clone() };
        assert_eq!(at(&tries, now), (MigrationStep::Wait, late));
    }
    let given_up = (MigrationStep::RequestRefuse, Reason::ResumedTooLate);
    assert_eq!(at(&tries, 61_000), given_up);
    let asked = MigrationFacts {
        refuse_requested: true,
        ..tries
    };
    let waits = (MigrationStep::Wait, Reason::WaitsForRefusal);
    assert_eq!(
        at(&asked, 3_600_000),
        waits,
        "nothing starts before its word"
    );
    let refused = MigrationFacts {
        target: Some(TargetPhase::Refused),
        ..asked.clone()
    };
    let (step, reason) = at(&refused, 61_500);
    assert!(matches!(step, MigrationStep::DropIncoming(_)));
    assert_eq!(reason, Reason::ColdStart);
    let resumed = MigrationFacts {
        target: Some(TargetPhase::Resumed),
        ..asked
    };
    let (step, _) = at(&resumed, 61_500);
    assert!(
        matches!(step, MigrationStep::Promote(_)),
        "it ran after all"
    );
}

/// In the moment that a hand-over takes the copy is still let run, so that a halt can shut its guest down.
#[test]
fn a_copy_that_nobody_wants_any_more_is_given_up_soon() {
    let rights = moving();
    let unwanted = MigrationFacts {
        wanted_running: false,
        ..handed(&rights)
    };
    let resumes = (MigrationStep::Wait, Reason::TargetResumes);
    assert_eq!(at(&unwanted, 5_900), resumes);
    let given_up = (MigrationStep::RequestRefuse, Reason::NoLongerWanted);
    assert_eq!(at(&unwanted, 6_000), given_up);
    let cancelled = MigrationFacts {
        cancel: true,
        ..handed(&rights)
    };
    assert_eq!(at(&cancelled, 5_900), resumes, "it comes too late");
    let given_up = (MigrationStep::RequestRefuse, Reason::CancelRequested);
    assert_eq!(at(&cancelled, 6_000), given_up);
}

#[test]
fn who_leads_next_begins_the_bound_anew() {
    let rights = moving();
    let unheard = MigrationFacts {
        handed_over_at: None,
        ..handed(&rights)
    };
    let resumes = (MigrationStep::Wait, Reason::TargetResumes);
    assert_eq!(at(&unheard, 3_600_000), resumes);
}

/// The hand-over stands in the VM's report alone: a target that was asked to refuse now would give up a healthy copy.
#[test]
fn a_target_that_can_not_know_of_the_hand_over_is_not_asked_to_give_up() {
    let rights = moving();
    let report = CopyReport::new(source(), CopyPhase::HandedOver);
    let untold = MigrationFacts {
        source: Some(SourcePhase::Migrating),
        report: Some(&report),
        wanted_running: false,
        ..handed(&rights)
    };
    let host = target().host;
    let waits = (MigrationStep::Wait, Reason::NotResumed { host });
    assert_eq!(at(&untold, 3_600_000), waits);
}
