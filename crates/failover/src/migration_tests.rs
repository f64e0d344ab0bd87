//! The outcome matrix of one move, each cell as facts and the step that follows.

#[path = "migration_ends_tests.rs"]
mod ends;
#[path = "migration_handed_over_tests.rs"]
mod handed_over;
#[path = "migration_pending_tests.rs"]
mod pending;

use model::{BootId, Epoch};
use std::collections::BTreeSet;

use super::*;
use crate::proof::HostStopProof;
use crate::proof::storage::StorageCut;

fn source() -> Assignment {
    Assignment {
        host: "h1".into(),
        boot_id: "b1".into(),
        epoch: Epoch(1),
    }
}

fn target() -> Assignment {
    Assignment {
        host: "h2".into(),
        boot_id: "b2".into(),
        epoch: Epoch(2),
    }
}

fn moving() -> Rights {
    Rights {
        assignment: Some(source()),
        incoming: Some(target()),
        last_epoch: Epoch(2),
        ..Rights::none("v".into())
    }
}

fn facts(rights: &Rights) -> MigrationFacts<'_> {
    MigrationFacts {
        rights,
        wanted_running: true,
        cancel: false,
        wanted_target: None,
        other_move: false,
        sides: Some((source(), target())),
        begun_at: Some(Moment(0)),
        handed_over_at: None,
        source: Some(SourcePhase::Migrating),
        target: Some(TargetPhase::Prepared),
        report: None,
        incoming_report: None,
        source_host: HostSight::default(),
        target_host: HostSight::default(),
        pools: BTreeSet::from(["pool".to_owned()]),
        abort_requested: false,
        refuse_requested: false,
    }
}

fn step(facts: &MigrationFacts<'_>) -> MigrationStep {
    decide(facts, &Policy::default(), Moment(1_000)).step
}

fn dead(copy: &Assignment) -> HostSight {
    let retired = BTreeSet::from([copy.boot_id.clone()]);
    let proof =
        HostStopProof::rebooted(&copy.host, &copy.boot_id, &BootId::from("new"), &retired).unwrap();
    HostSight {
        stop_proof: Some(proof),
        silent: true,
        lost: true,
        ..HostSight::default()
    }
}

#[test]
fn the_happy_path() {
    let rights = Rights {
        incoming: None,
        last_epoch: Epoch(1),
        ..moving()
    };
    let running = CopyReport::new(source(), CopyPhase::Running);
    let pending = MigrationFacts {
        sides: None,
        source: None,
        target: None,
        report: Some(&running),
        ..facts(&rights)
    };
    assert_eq!(step(&pending), MigrationStep::Begin);
    let rights = moving();
    assert_eq!(step(&facts(&rights)), MigrationStep::Wait);
    let handed = MigrationFacts {
        source: Some(SourcePhase::HandedOver),
        ..facts(&rights)
    };
    assert_eq!(
        step(&handed),
        MigrationStep::Wait,
        "the target has not resumed yet"
    );
    let resumed = MigrationFacts {
        target: Some(TargetPhase::Resumed),
        ..handed
    };
    assert!(matches!(step(&resumed), MigrationStep::Promote(_)));
    let promoted = Rights {
        assignment: Some(target()),
        incoming: None,
        ..moving()
    };
    assert_eq!(
        step(&facts(&promoted)),
        MigrationStep::Finish(MigrationOutcome::Succeeded)
    );
}

#[test]
fn a_cancel_asks_the_source_then_the_target_then_drops() {
    let rights = moving();
    let cancel = MigrationFacts {
        cancel: true,
        ..facts(&rights)
    };
    assert_eq!(step(&cancel), MigrationStep::RequestAbort);
    let asked = MigrationFacts {
        abort_requested: true,
        ..cancel
    };
    assert_eq!(
        step(&asked),
        MigrationStep::Wait,
        "the target refuses nothing before the source has spoken"
    );
    let runs = MigrationFacts {
        source: Some(SourcePhase::StillRunning),
        ..asked
    };
    assert_eq!(step(&runs), MigrationStep::RequestRefuse);
    let refusing = MigrationFacts {
        refuse_requested: true,
        ..runs
    };
    assert_eq!(step(&refusing), MigrationStep::Wait);
    let refused = MigrationFacts {
        target: Some(TargetPhase::Refused),
        ..refusing
    };
    assert!(matches!(step(&refused), MigrationStep::DropIncoming(_)));
    let dropped = Rights {
        incoming: None,
        ..moving()
    };
    let done = MigrationFacts {
        cancel: true,
        ..facts(&dropped)
    };
    assert_eq!(
        step(&done),
        MigrationStep::Finish(MigrationOutcome::Cancelled)
    );
}

#[test]
fn a_cancel_at_switch_over_comes_too_late() {
    let rights = moving();
    let late = MigrationFacts {
        cancel: true,
        abort_requested: true,
        source: Some(SourcePhase::HandedOver),
        target: Some(TargetPhase::Resumed),
        ..facts(&rights)
    };
    assert!(matches!(step(&late), MigrationStep::Promote(_)));
}

#[test]
fn the_source_dies() {
    let rights = moving();
    let lost = MigrationFacts {
        source_host: HostSight {
            silent: true,
            lost: true,
            ..HostSight::default()
        },
        ..facts(&rights)
    };
    assert_eq!(step(&lost), MigrationStep::Wait, "silence proves nothing");
    let proven = MigrationFacts {
        source_host: dead(&source()),
        target: Some(TargetPhase::Arrived),
        ..facts(&rights)
    };
    assert_eq!(
        step(&proven),
        MigrationStep::RequestRefuse,
        "it may have run on after switch-over"
    );
    let resumed = MigrationFacts {
        target: Some(TargetPhase::Resumed),
        ..proven
    };
    assert!(
        matches!(step(&resumed), MigrationStep::PromoteResumed(..)),
        "it had handed over before it died"
    );
}

#[test]
fn the_target_dies() {
    let rights = moving();
    let proven = MigrationFacts {
        target_host: dead(&target()),
        ..facts(&rights)
    };
    assert_eq!(
        step(&proven),
        MigrationStep::RequestAbort,
        "the source first"
    );
    let runs = MigrationFacts {
        abort_requested: true,
        source: Some(SourcePhase::StillRunning),
        ..proven.clone()
    };
    assert!(matches!(step(&runs), MigrationStep::DropIncoming(_)));
    let handed = MigrationFacts {
        source: Some(SourcePhase::HandedOver),
        ..proven
    };
    let verdict = decide(&handed, &Policy::default(), Moment(1_000));
    assert!(matches!(verdict.step, MigrationStep::DropIncoming(_)));
    assert_eq!(verdict.reason, Reason::ColdStart);
}

/// Found by the model check: the source's agent reported the hand-over to the VM's status, and
/// died before it said so in the migration, which alone the target reads.
#[test]
fn a_target_that_can_not_learn_of_the_hand_over_is_told_to_refuse() {
    let rights = moving();
    let report = CopyReport::new(source(), CopyPhase::HandedOver);
    let handed = MigrationFacts {
        report: Some(&report),
        ..facts(&rights)
    };
    assert_eq!(step(&handed), MigrationStep::Wait, "the target asks it");
    let gone = MigrationFacts {
        source_host: dead(&source()),
        ..handed
    };
    assert_eq!(step(&gone), MigrationStep::RequestRefuse);
    let said = MigrationFacts {
        source: Some(SourcePhase::HandedOver),
        ..gone.clone()
    };
    assert_eq!(step(&said), MigrationStep::Wait, "the API tells it");
    let resumed = MigrationFacts {
        target: Some(TargetPhase::Resumed),
        ..gone
    };
    assert!(matches!(step(&resumed), MigrationStep::Promote(_)));
}

/// A host that nobody reaches and that its pools' servers have cut off.
fn cut_off(copy: &Assignment, pools: &[&str]) -> HostSight {
    let cut = |pool: &&str| {
        let (host, boot_id) = (copy.host.clone(), copy.boot_id.clone());
        StorageCut::read_back((*pool).to_owned(), host, boot_id, true)
    };
    HostSight {
        silent: true,
        lost: true,
        cuts: pools.iter().map(cut).collect(),
        ..HostSight::default()
    }
}

#[test]
fn a_source_that_storage_cut_off_is_a_source_that_died() {
    let rights = moving();
    let cut = MigrationFacts {
        source_host: cut_off(&source(), &["pool"]),
        target: Some(TargetPhase::Arrived),
        ..facts(&rights)
    };
    let verdict = decide(&cut, &Policy::default(), Moment(1_000));
    assert_eq!(
        (verdict.step, verdict.reason),
        (MigrationStep::RequestRefuse, Reason::SourceStopped)
    );
    let refused = MigrationFacts {
        target: Some(TargetPhase::Refused),
        refuse_requested: true,
        ..cut.clone()
    };
    let verdict = decide(&refused, &Policy::default(), Moment(1_000));
    assert!(matches!(verdict.step, MigrationStep::DropIncoming(_)));
    assert_eq!(verdict.reason, Reason::ColdStart);
    let resumed = MigrationFacts {
        target: Some(TargetPhase::Resumed),
        ..cut.clone()
    };
    assert!(
        matches!(step(&resumed), MigrationStep::PromoteResumed(..)),
        "it had handed over before it was cut off"
    );
    for unproven in [
        BTreeSet::from(["pool".to_owned(), "other".to_owned()]),
        BTreeSet::new(),
    ] {
        let facts = MigrationFacts {
            pools: unproven,
            ..cut.clone()
        };
        assert_eq!(
            step(&facts),
            MigrationStep::Wait,
            "a pool that lets it in, or none known: it may still write"
        );
    }
}

#[test]
fn a_target_that_storage_cut_off_replaces_its_refusal() {
    let rights = moving();
    let cut = MigrationFacts {
        target_host: cut_off(&target(), &["pool"]),
        ..facts(&rights)
    };
    assert_eq!(step(&cut), MigrationStep::RequestAbort, "the source first");
    let runs = MigrationFacts {
        abort_requested: true,
        source: Some(SourcePhase::StillRunning),
        ..cut
    };
    assert!(matches!(step(&runs), MigrationStep::DropIncoming(_)));
    let let_in = MigrationFacts {
        target_host: cut_off(&target(), &[]),
        ..runs
    };
    assert_eq!(step(&let_in), MigrationStep::RequestRefuse);
}

#[test]
fn time_outs_abort_and_never_more() {
    let rights = moving();
    let slow = MigrationFacts {
        target: None,
        source: None,
        ..facts(&rights)
    };
    let verdict = decide(&slow, &Policy::default(), Moment(60_000));
    assert_eq!(
        (verdict.step, verdict.reason),
        (MigrationStep::RequestAbort, Reason::PreparedTooLate)
    );
    let verdict = decide(&facts(&rights), &Policy::default(), Moment(600_000));
    assert_eq!(
        (verdict.step, verdict.reason),
        (MigrationStep::RequestAbort, Reason::TookTooLong)
    );
}

#[test]
fn a_vm_that_is_to_stop_does_not_move() {
    let rights = moving();
    let stop = MigrationFacts {
        wanted_running: false,
        ..facts(&rights)
    };
    assert_eq!(step(&stop), MigrationStep::RequestAbort);
}

/// Every combination of what the two sides can say, with and without a cancel: the VM is
/// promoted only after a hand-over or a resume, `incoming` is dropped only after the
/// target's proof while the source runs, and the target is asked to refuse only once the
/// source has spoken or is proven stopped.
#[test]
fn every_combination_of_both_sides_keeps_the_rules() {
    let sources = [
        None,
        Some(SourcePhase::Migrating),
        Some(SourcePhase::HandedOver),
        Some(SourcePhase::StillRunning),
        Some(SourcePhase::Closed),
    ];
    let targets = [
        None,
        Some(TargetPhase::Prepared),
        Some(TargetPhase::Arrived),
        Some(TargetPhase::Resumed),
        Some(TargetPhase::Refused),
    ];
    let rights = moving();
    let mut walked = 0;
    for s in sources {
        for t in targets {
            for bits in 0..32_u8 {
                let on = |bit: u8| bits & (1 << bit) != 0;
                let facts = MigrationFacts {
                    source: s,
                    target: t,
                    cancel: on(0),
                    abort_requested: on(1),
                    refuse_requested: on(2),
                    source_host: if on(3) {
                        dead(&source())
                    } else {
                        HostSight::default()
                    },
                    target_host: if on(4) {
                        dead(&target())
                    } else {
                        HostSight::default()
                    },
                    ..facts(&rights)
                };
                let source_stopped =
                    on(3) || matches!(s, Some(SourcePhase::HandedOver | SourcePhase::Closed));
                let target_stopped = on(4) || t == Some(TargetPhase::Refused);
                match step(&facts) {
                    MigrationStep::Promote(_) => assert!(
                        s == Some(SourcePhase::HandedOver)
                            && t == Some(TargetPhase::Resumed)
                            && !on(4)
                    ),
                    MigrationStep::PromoteResumed(..) => {
                        assert!(source_stopped && t == Some(TargetPhase::Resumed) && !on(4))
                    }
                    MigrationStep::DropIncoming(_) => assert!(
                        target_stopped && (source_stopped || s == Some(SourcePhase::StillRunning))
                    ),
                    MigrationStep::RequestRefuse => {
                        assert!(
                            s == Some(SourcePhase::StillRunning)
                                || (source_stopped && s != Some(SourcePhase::HandedOver))
                        );
                        assert!(
                            t != Some(TargetPhase::Resumed) || s == Some(SourcePhase::StillRunning)
                        );
                    }
                    MigrationStep::RequestAbort => assert!(!source_stopped && !on(1)),
                    MigrationStep::Wait
                    | MigrationStep::Finish(_)
                    | MigrationStep::Begin
                    | MigrationStep::Record { .. } => {}
                }
                walked += 1;
            }
        }
    }
    assert_eq!(walked, 800);
}
