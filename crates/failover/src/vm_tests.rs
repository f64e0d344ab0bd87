//! Each row of the VM's life, and the wall that no assignment is replaced without proof.

use model::{Epoch, StopProofKind, VmUid};
use std::collections::BTreeSet as Set;

use super::*;

fn copy(epoch: i64) -> Assignment {
    Assignment {
        host: "h1".into(),
        boot_id: "b1".into(),
        epoch: Epoch(epoch),
    }
}

fn rights() -> Rights {
    Rights {
        assignment: Some(copy(1)),
        last_epoch: Epoch(1),
        ..Rights::none(VmUid::from("v"))
    }
}

fn facts(rights: &Rights) -> VmFacts<'_> {
    VmFacts {
        rights,
        wanted: Wanted::Running,
        report: None,
        incoming_report: None,
        host: HostSight::default(),
        incoming_host: HostSight::default(),
        volumes: Volumes::Ready,
        pools: Set::from(["fast".to_owned(), "large".to_owned()]),
        pinned_to: None,
        restart_elsewhere: true,
        handed_over_at: None,
        failures: Failures::default(),
    }
}

fn judge(facts: &VmFacts<'_>) -> VmVerdict {
    decide(facts, &Policy::default(), Moment(1_000_000))
}

fn dead_host() -> HostSight {
    let proof = HostStopProof::rebooted(
        &"h1".into(),
        &"b1".into(),
        &"b2".into(),
        &Set::from(["b1".into()]),
    )
    .unwrap();
    HostSight {
        stop_proof: Some(proof),
        silent: true,
        lost: true,
        ..HostSight::default()
    }
}

#[test]
fn a_vm_starts_elsewhere_once_every_pool_of_its_volumes_has_cut_its_host_off() {
    let rights = rights();
    let read_back = |pool: &str, host: &str, connections_gone| {
        StorageCut::read_back(pool.into(), host.into(), "b1".into(), connections_gone)
    };
    let cut = |pool, host| read_back(pool, host, true);
    let judge = |cuts: Vec<StorageCut>| {
        let host = HostSight {
            silent: true,
            lost: true,
            cuts,
            ..HostSight::default()
        };
        judge(&VmFacts {
            host,
            ..facts(&rights)
        })
        .decision
    };
    let whole = judge(vec![cut("fast", "h1"), cut("large", "h1")]);
    let VmDecision::Restart {
        stopped, recovery, ..
    } = whole
    else {
        panic!("{whole:?}");
    };
    assert_eq!(stopped.current.kind(), StopProofKind::StorageFenced);
    assert!(recovery);
    for short in [
        vec![],
        vec![cut("fast", "h1")],
        vec![cut("fast", "h1"), cut("large", "h2")],
        vec![cut("fast", "h1"), read_back("large", "h1", false)],
    ] {
        assert_eq!(judge(short.clone()), VmDecision::Wait, "{short:?}");
    }
}

#[test]
fn unassigned_vms_wait_for_volumes_then_need_a_host() {
    let none = Rights::none("v".into());
    assert_eq!(
        judge(&facts(&none)).decision,
        VmDecision::Place { only: None }
    );
    let not_ready = VmFacts {
        volumes: Volumes::NotReady("data is being created".to_owned()),
        ..facts(&none)
    };
    assert_eq!(
        (judge(&not_ready).decision, judge(&not_ready).phase),
        (VmDecision::Wait, VmPhase::Pending)
    );
    assert_eq!(
        judge(&VmFacts {
            wanted: Wanted::Halted,
            ..facts(&none)
        })
        .phase,
        VmPhase::Stopped
    );
    assert_eq!(
        judge(&VmFacts {
            wanted: Wanted::Deleted,
            ..facts(&none)
        })
        .decision,
        VmDecision::Finalize
    );
}

#[test]
fn a_silent_host_makes_a_vm_unknown_and_nothing_more() {
    let rights = rights();
    let report = CopyReport::new(copy(1), CopyPhase::Running);
    let host = HostSight {
        silent: true,
        lost: true,
        ..HostSight::default()
    };
    for wanted in [
        Wanted::Running,
        Wanted::RunningUntilShutDown,
        Wanted::Halted,
        Wanted::Deleted,
    ] {
        let verdict = judge(&VmFacts {
            wanted,
            host: host.clone(),
            report: Some(&report),
            ..facts(&rights)
        });
        assert_eq!(
            (verdict.decision, verdict.phase),
            (VmDecision::Wait, VmPhase::Unknown),
            "{wanted:?}"
        );
    }
}

#[test]
fn a_copy_whose_disk_failed_is_not_shown_as_running() {
    let rights = rights();
    let report = CopyReport::new(copy(1), CopyPhase::Stalled);
    let verdict = judge(&VmFacts {
        report: Some(&report),
        ..facts(&rights)
    });
    assert_eq!(
        (verdict.decision, verdict.phase),
        (VmDecision::Wait, VmPhase::Stalled)
    );
}

#[test]
fn without_a_proof_no_report_and_no_wish_restarts_or_clears() {
    let rights = rights();
    for phase in [
        CopyPhase::Preparing,
        CopyPhase::Starting,
        CopyPhase::Running,
        CopyPhase::Arrived,
        CopyPhase::Stopping,
        CopyPhase::CloseStuck,
        CopyPhase::Stalled,
    ] {
        let report = CopyReport::new(copy(1), phase);
        for wanted in [Wanted::Running, Wanted::Halted, Wanted::Deleted] {
            let verdict = judge(&VmFacts {
                wanted,
                report: Some(&report),
                ..facts(&rights)
            });
            assert_eq!(verdict.decision, VmDecision::Wait, "{phase:?} {wanted:?}");
        }
    }
    let stale = CopyReport::closed(copy(7), CloseCause::Crashed);
    assert_eq!(
        judge(&VmFacts {
            report: Some(&stale),
            ..facts(&rights)
        })
        .decision,
        VmDecision::Wait
    );
}

#[test]
fn a_proof_restarts_elsewhere_as_recovery() {
    let rights = rights();
    let verdict = judge(&VmFacts {
        host: dead_host(),
        ..facts(&rights)
    });
    let VmDecision::Restart {
        stopped,
        only,
        recovery,
        ..
    } = verdict.decision
    else {
        panic!("{verdict:?}")
    };
    assert_eq!(
        (stopped.current.kind(), only, recovery),
        (StopProofKind::Rebooted, None, true)
    );
    assert_eq!(verdict.phase, VmPhase::Recovering);
}

#[test]
fn user_stop_and_deletion_during_recovery_clear() {
    let rights = rights();
    for wanted in [Wanted::Halted, Wanted::Deleted] {
        let verdict = judge(&VmFacts {
            wanted,
            host: dead_host(),
            ..facts(&rights)
        });
        assert!(
            matches!(verdict.decision, VmDecision::Clear { .. }),
            "{wanted:?}"
        );
    }
}

#[test]
fn pinned_and_unavailable_vms_want_their_host_only() {
    let rights = rights();
    let pinned = judge(&VmFacts {
        pinned_to: Some("h1".into()),
        host: dead_host(),
        ..facts(&rights)
    });
    assert_eq!(pinned.phase, VmPhase::Pinned);
    assert!(matches!(
        pinned.decision,
        VmDecision::Restart { only: Some(_), .. }
    ));
    let not_available = judge(&VmFacts {
        restart_elsewhere: false,
        host: dead_host(),
        ..facts(&rights)
    });
    assert!(matches!(
        not_available.decision,
        VmDecision::Restart { only: Some(_), .. }
    ));
    assert_eq!(
        not_available.reasons[0],
        Reason::WaitsForItsHost { host: "h1".into() }
    );
}

#[test]
fn crashes_back_off_and_then_stay_in_error() {
    let rights = rights();
    let report = CopyReport::closed(copy(1), CloseCause::StartFailed);
    let at = |in_a_row, ago: u64| Failures {
        in_a_row,
        last_seen_at: Some(Moment(1_000_000 - ago)),
        hosts: Set::from(["h2".into()]),
        ..Failures::default()
    };
    let judge_after = |failures| {
        judge(&VmFacts {
            report: Some(&report),
            failures,
            ..facts(&rights)
        })
    };
    assert_eq!(
        judge_after(at(1, 1_000)).reasons[0],
        Reason::BacksOff {
            left_milliseconds: 4_000,
            failures: 1
        }
    );
    assert_eq!(judge_after(at(5, 1_000)).phase, VmPhase::Failed);
    let VmDecision::Restart {
        avoid, recovery, ..
    } = judge_after(at(2, 10_000)).decision
    else {
        panic!()
    };
    assert_eq!(
        (avoid, recovery),
        (Set::from([HostName::from("h1"), "h2".into()]), false)
    );
}

#[test]
fn a_guest_that_shuts_down_stays_down_only_when_asked_to() {
    let rights = rights();
    let report = CopyReport::closed(copy(1), CloseCause::GuestShutdown);
    let stays = judge(&VmFacts {
        wanted: Wanted::RunningUntilShutDown,
        report: Some(&report),
        ..facts(&rights)
    });
    assert_eq!(
        (stays.decision, stays.phase),
        (VmDecision::Wait, VmPhase::Stopped)
    );
    let again = judge(&VmFacts {
        report: Some(&report),
        ..facts(&rights)
    });
    assert!(matches!(again.decision, VmDecision::Restart { .. }));
}

fn incoming() -> Assignment {
    Assignment {
        host: "h2".into(),
        boot_id: "b2".into(),
        epoch: Epoch(2),
    }
}

fn moving() -> Rights {
    Rights {
        incoming: Some(incoming()),
        last_epoch: Epoch(2),
        ..rights()
    }
}

#[test]
fn while_moving_only_a_double_proof_restarts() {
    let rights = moving();
    let handed = CopyReport::new(copy(1), CopyPhase::HandedOver);
    let moving = VmFacts {
        report: Some(&handed),
        ..facts(&rights)
    };
    assert_eq!(
        (judge(&moving).decision, judge(&moving).phase),
        (VmDecision::Wait, VmPhase::Migrating)
    );
    let refused = CopyReport::closed(incoming(), CloseCause::MigrationFailed);
    let both = VmFacts {
        incoming_report: Some(&refused),
        ..moving
    };
    assert!(matches!(
        judge(&both).decision,
        VmDecision::Restart {
            stopped: CopiesStopped {
                incoming: Some(_),
                ..
            },
            ..
        }
    ));
}

/// A VM whose source is proven stopped is down until the target's copy runs: only the moment of a hand-over is shown as
/// part of its move.
#[test]
fn a_vm_whose_target_does_not_run_yet_is_not_shown_as_moving_for_long() {
    let rights = moving();
    let handed = CopyReport::new(copy(1), CopyPhase::HandedOver);
    let now = 1_000_000;
    let since = |milliseconds: u64| VmFacts {
        report: Some(&handed),
        handed_over_at: Some(Moment(now - milliseconds)),
        ..facts(&rights)
    };
    let shown = |facts: &VmFacts<'_>| {
        let verdict = judge(facts);
        assert_eq!(verdict.decision, VmDecision::Wait, "nothing is proven");
        (verdict.phase, verdict.reasons[0].clone())
    };
    let moves = (VmPhase::Migrating, Reason::Moves);
    assert_eq!(shown(&since(4_900)), moves);
    let host = incoming().host;
    let down = (VmPhase::Recovering, Reason::NotResumed { host });
    assert_eq!(shown(&since(5_000)), down);
    for wanted in [Wanted::Halted, Wanted::Deleted] {
        let unwanted = VmFacts {
            wanted,
            ..since(5_000)
        };
        assert_eq!(shown(&unwanted), (VmPhase::Stopping, Reason::Stops));
    }
    let running = CopyReport::new(incoming(), CopyPhase::Running);
    let runs = VmFacts {
        incoming_report: Some(&running),
        ..since(60_000)
    };
    assert_eq!(shown(&runs), moves);
    let dead = VmFacts {
        host: dead_host(),
        ..facts(&rights)
    };
    let host = incoming().host;
    let left = (VmPhase::Recovering, Reason::IncomingLeft { host });
    assert_eq!(shown(&dead), left, "its source died, and ran until then");
}

#[test]
fn a_vm_that_arrives_on_a_silent_host_is_shown_so() {
    let rights = moving();
    let handed = CopyReport::new(copy(1), CopyPhase::HandedOver);
    let running = CopyReport::new(incoming(), CopyPhase::Running);
    for incoming_report in [None, Some(&running)] {
        let silent = VmFacts {
            report: Some(&handed),
            incoming_report,
            incoming_host: HostSight {
                silent: true,
                ..HostSight::default()
            },
            ..facts(&rights)
        };
        let host = incoming().host;
        let verdict = judge(&silent);
        let reasons = vec![Reason::HostSilent { host: host.clone() }];
        assert_eq!(
            (verdict.phase, verdict.reasons),
            (VmPhase::Unknown, reasons)
        );
        let mut lost = silent;
        lost.incoming_host.lost = true;
        assert_eq!(judge(&lost).reasons[1], Reason::WaitsForProof { host });
    }
}

#[test]
fn restored_counters_start_nothing() {
    let rights = Rights {
        last_epoch: Epoch(0),
        ..rights()
    };
    let verdict = judge(&VmFacts {
        host: dead_host(),
        ..facts(&rights)
    });
    assert_eq!(
        (verdict.decision, verdict.reasons[0].clone()),
        (VmDecision::Wait, Reason::EpochsWentBack)
    );
}
