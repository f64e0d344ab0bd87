//! What a move says last, when its VM stayed with its source or was started anew.

use super::*;

#[test]
fn both_die_and_the_vm_is_started_anew() {
    let rights = moving();
    let both = MigrationFacts {
        source_host: dead(&source()),
        target_host: dead(&target()),
        ..facts(&rights)
    };
    assert_eq!(
        decide(&both, &Policy::default(), Moment(1_000)).reason,
        Reason::ColdStart
    );
    let third = Assignment {
        host: HostName::from("h3"),
        epoch: Epoch(3),
        ..source()
    };
    let restarted = Rights {
        assignment: Some(third),
        incoming: None,
        last_epoch: Epoch(3),
        ..moving()
    };
    let said = decide(&facts(&restarted), &Policy::default(), Moment(1_000));
    let failed = MigrationStep::Finish(MigrationOutcome::Failed);
    let host = HostName::from("h3");
    let elsewhere = Reason::RestartedElsewhere { host };
    assert_eq!((said.step, said.reason), (failed, elsewhere));
    let cleared = Rights {
        assignment: None,
        incoming: None,
        ..moving()
    };
    let said = decide(&facts(&cleared), &Policy::default(), Moment(1_000));
    assert_eq!(said.reason, Reason::NotRunning, "it was not started anew");
}

/// `incoming` was taken back and the VM is still assigned to its source: what the move says last is so.
#[test]
fn the_last_word_tells_what_became_of_the_source() {
    use MigrationOutcome::{Cancelled, Failed};
    let rights = Rights {
        incoming: None,
        ..moving()
    };
    let host = source().host;
    let silent = HostSight {
        silent: true,
        ..HostSight::default()
    };
    let kind = StopProofKind::Rebooted;
    let stopped = |kind| Reason::SourceProvenStopped {
        host: host.clone(),
        kind,
    };
    let unknown = Reason::HostSilent { host: host.clone() };
    let on = SourcePhase::StillRunning;
    for (said, sight, reason) in [
        (on, HostSight::default(), Reason::SourceRunsOn),
        (on, silent.clone(), unknown.clone()),
        (on, dead(&source()), stopped(kind)),
        (SourcePhase::Migrating, dead(&source()), stopped(kind)),
        (SourcePhase::Closed, silent, stopped(StopProofKind::Closed)),
        (SourcePhase::HandedOver, dead(&source()), Reason::ColdStart),
    ] {
        let over = MigrationFacts {
            source: Some(said),
            source_host: sight,
            ..facts(&rights)
        };
        let told = decide(&over, &Policy::default(), Moment(1_000));
        let end = MigrationStep::Finish(Failed);
        assert_eq!((told.step, &told.reason), (end, &reason), "{said:?}");
        let runs_on = reason == Reason::SourceRunsOn;
        let english = reason.english();
        assert_eq!(english.contains("runs on where it was"), runs_on);
        let cancelled = MigrationFacts {
            cancel: true,
            ..over.clone()
        };
        let told = decide(&cancelled, &Policy::default(), Moment(1_000));
        let why = if runs_on {
            Reason::CancelRequested
        } else {
            reason
        };
        let end = MigrationStep::Finish(Cancelled);
        assert_eq!((told.step, told.reason), (end, why), "{said:?}");
        let halted = MigrationFacts {
            wanted_running: false,
            ..over
        };
        let told = decide(&halted, &Policy::default(), Moment(1_000));
        assert_ne!(told.reason, Reason::SourceRunsOn, "it is to stop");
    }
}
