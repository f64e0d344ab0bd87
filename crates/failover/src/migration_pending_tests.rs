//! A move that has not begun: it takes up what a dead writer left, waits for another one of its VM, or begins.

use super::*;

#[test]
fn a_writer_that_died_between_incoming_and_record_is_continued() {
    let rights = moving();
    let unrecorded = MigrationFacts {
        sides: None,
        ..facts(&rights)
    };
    assert_eq!(
        step(&unrecorded),
        MigrationStep::Record {
            source: source(),
            target: target()
        }
    );
    let cancelled = MigrationFacts {
        cancel: true,
        ..unrecorded
    };
    assert!(
        matches!(step(&cancelled), MigrationStep::Record { .. }),
        "first own it, then abort it"
    );
}

/// A move that has not begun, of a VM that runs on its source.
fn pending<'a>(rights: &'a Rights, running: &'a CopyReport) -> MigrationFacts<'a> {
    MigrationFacts {
        sides: None,
        begun_at: None,
        source: None,
        target: None,
        report: Some(running),
        ..facts(rights)
    }
}

#[test]
fn a_second_move_waits_for_the_first_wherever_it_goes() {
    let (rights, running) = (moving(), CopyReport::new(source(), CopyPhase::Running));
    let (there, elsewhere) = (target().host, HostName::from("h3"));
    for wanted in [None, Some(&there), Some(&elsewhere)] {
        let second = MigrationFacts {
            wanted_target: wanted,
            other_move: true,
            ..pending(&rights, &running)
        };
        let said = decide(&second, &Policy::default(), Moment(1_000));
        let waits = (MigrationStep::Wait, Reason::WaitsForOtherMove);
        assert_eq!((said.step, said.reason), waits, "{wanted:?}");
        let cancelled = MigrationFacts {
            cancel: true,
            ..second.clone()
        };
        let end = MigrationStep::Finish(MigrationOutcome::Cancelled);
        assert_eq!(step(&cancelled), end, "the first goes on");
        let stopped = MigrationFacts {
            wanted_running: false,
            ..second
        };
        let end = MigrationStep::Finish(MigrationOutcome::Failed);
        assert_eq!(step(&stopped), end);
    }
}

#[test]
fn an_incoming_that_nobody_recorded_is_taken_up_only_by_a_move_that_may_go_there() {
    let (rights, running) = (moving(), CopyReport::new(source(), CopyPhase::Running));
    let (there, elsewhere) = (target().host, HostName::from("h3"));
    let of = |wanted| MigrationFacts {
        wanted_target: wanted,
        ..pending(&rights, &running)
    };
    for wanted in [None, Some(&there)] {
        let taken = matches!(step(&of(wanted)), MigrationStep::Record { .. });
        assert!(taken, "{wanted:?}");
    }
    let said = decide(&of(Some(&elsewhere)), &Policy::default(), Moment(1_000));
    let waits = (MigrationStep::Wait, Reason::WaitsForOtherMove);
    assert_eq!((said.step, said.reason), waits);
    let free = Rights {
        incoming: None,
        ..moving()
    };
    let turn = MigrationFacts {
        wanted_target: Some(&elsewhere),
        ..pending(&free, &running)
    };
    assert_eq!(step(&turn), MigrationStep::Begin, "its turn has come");
}

#[test]
fn a_move_to_where_the_vm_runs_is_over() {
    let running = CopyReport::new(source(), CopyPhase::Running);
    let (here, rights) = (
        source().host,
        Rights {
            incoming: None,
            ..moving()
        },
    );
    let there = MigrationFacts {
        wanted_target: Some(&here),
        ..pending(&rights, &running)
    };
    let said = decide(&there, &Policy::default(), Moment(1_000));
    let end = MigrationStep::Finish(MigrationOutcome::Succeeded);
    let runs = Reason::RunsThere { host: here.clone() };
    assert_eq!((said.step, said.reason), (end, runs));
    let unheard = MigrationFacts {
        report: None,
        ..there
    };
    assert_eq!(
        step(&unheard),
        MigrationStep::Wait,
        "nobody says that it runs"
    );
}
