//! Rights change only by proof: single steps, and random sequences against an
//! independent book of which copies may run.

use proptest::prelude::*;

use super::*;
use crate::copy::CopyReport;

fn report(assignment: &Assignment, phase: CopyPhase) -> CopyReport {
    CopyReport::new(assignment.clone(), phase)
}

fn closed(rights: &Rights, copy: &Assignment) -> StopProof {
    StopProof::closed(&rights.vm, copy, &report(copy, CopyPhase::Closed)).unwrap()
}

fn handed(rights: &Rights, copy: &Assignment) -> StopProof {
    StopProof::handed_over(&rights.vm, copy, &report(copy, CopyPhase::HandedOver)).unwrap()
}

fn assigned() -> Rights {
    first(&Rights::none("v".into()), "h1".into(), "b1".into())
        .unwrap()
        .after()
        .clone()
}

fn moving() -> Rights {
    begin_migration(&assigned(), "h2".into(), "b2".into())
        .unwrap()
        .after()
        .clone()
}

#[test]
fn a_first_assignment_needs_an_unassigned_vm() {
    let rights = assigned();
    assert_eq!(rights.assignment.as_ref().unwrap().epoch, Epoch(1));
    assert!(matches!(
        first(&rights, "h2".into(), "b".into()),
        Err(AssignmentError::AlreadyAssigned { .. })
    ));
}

#[test]
fn a_restart_needs_a_proof_of_every_copy() {
    let rights = moving();
    let (current, incoming) = (
        rights.assignment.clone().unwrap(),
        rights.incoming.clone().unwrap(),
    );
    let only_current = CopiesStopped {
        current: closed(&rights, &current),
        incoming: None,
    };
    assert!(matches!(
        restart(&rights, only_current, "h3".into(), "b3".into()),
        Err(AssignmentError::IncomingUnproven { .. })
    ));
    let swapped = CopiesStopped {
        current: closed(&rights, &incoming),
        incoming: Some(closed(&rights, &current)),
    };
    assert!(matches!(
        restart(&rights, swapped, "h3".into(), "b3".into()),
        Err(AssignmentError::WrongProof { .. })
    ));
    let both = CopiesStopped {
        current: closed(&rights, &current),
        incoming: Some(closed(&rights, &incoming)),
    };
    let after = restart(&rights, both, "h3".into(), "b3".into())
        .unwrap()
        .after()
        .clone();
    assert_eq!(
        after.assignment.unwrap().epoch,
        Epoch(3),
        "the incoming's epoch stays burned"
    );
    assert_eq!(after.proofs.len(), 2);
}

#[test]
fn a_proof_of_another_vm_is_refused() {
    let rights = assigned();
    let current = rights.assignment.clone().unwrap();
    let other = Rights {
        vm: "w".into(),
        ..rights.clone()
    };
    let stopped = CopiesStopped {
        current: closed(&other, &current),
        incoming: None,
    };
    assert!(matches!(
        clear(&rights, stopped),
        Err(AssignmentError::WrongProof { .. })
    ));
}

#[test]
fn only_a_hand_over_or_a_resumed_target_promotes() {
    let rights = moving();
    let (current, incoming) = (
        rights.assignment.clone().unwrap(),
        rights.incoming.clone().unwrap(),
    );
    assert!(matches!(
        promote(&rights, closed(&rights, &current)),
        Err(AssignmentError::WrongKind { .. })
    ));
    let after = promote(&rights, handed(&rights, &current))
        .unwrap()
        .after()
        .clone();
    assert_eq!(
        (after.assignment.as_ref(), after.incoming),
        (Some(&incoming), None)
    );
    assert_eq!(after.last_epoch, rights.last_epoch);
    for phase in [CopyPhase::Arrived, CopyPhase::Starting, CopyPhase::Closed] {
        assert!(
            promote_resumed(
                &rights,
                closed(&rights, &current),
                &report(&incoming, phase)
            )
            .is_err()
        );
    }
    assert!(
        promote_resumed(
            &rights,
            closed(&rights, &current),
            &report(&incoming, CopyPhase::Running)
        )
        .is_ok()
    );
}

#[test]
fn restored_counters_freeze_everything() {
    let rights = Rights {
        last_epoch: Epoch(0),
        ..assigned()
    };
    assert!(matches!(
        begin_migration(&rights, "h2".into(), "b".into()),
        Err(AssignmentError::EpochsWentBack { .. })
    ));
}

#[test]
fn old_proofs_are_forgotten_newest_last() {
    let mut rights = assigned();
    for _ in 0..6 {
        let current = rights.assignment.clone().unwrap();
        let stopped = CopiesStopped {
            current: closed(&rights, &current),
            incoming: None,
        };
        rights = restart(&rights, stopped, "h1".into(), "b1".into())
            .unwrap()
            .after()
            .clone();
    }
    let epochs: Vec<i64> = rights.proofs.iter().map(|p| p.assignment.epoch.0).collect();
    assert_eq!(epochs, [3, 4, 5, 6]);
}

/// What the world may do next.
#[derive(Clone, Debug)]
enum Event {
    First(u8),
    Restart(u8),
    Clear,
    Begin(u8),
    Promote,
    Drop,
    CloseCurrent,
    CloseIncoming,
    HandOver,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0..3_u8).prop_map(Event::First),
        (0..3_u8).prop_map(Event::Restart),
        Just(Event::Clear),
        (0..3_u8).prop_map(Event::Begin),
        Just(Event::Promote),
        Just(Event::Drop),
        Just(Event::CloseCurrent),
        Just(Event::CloseIncoming),
        Just(Event::HandOver),
    ]
}

/// The independent book: which epochs were issued, and which of them can still run.
#[derive(Default)]
struct Book {
    issued: Vec<i64>,
    live: std::collections::BTreeSet<i64>,
    handed: std::collections::BTreeSet<i64>,
}

fn attempt(rights: &Rights, event: &Event, book: &Book) -> Option<RightsChange> {
    let host = |n: &u8| {
        (
            HostName::from(format!("h{n}")),
            BootId::from(format!("b{n}")),
        )
    };
    // Proofs exist only for copies that the book says are stopped.
    let proof = |copy: &Option<Assignment>| {
        let copy = copy.clone()?;
        if book.live.contains(&copy.epoch.0) {
            return None;
        }
        Some(if book.handed.contains(&copy.epoch.0) {
            handed(rights, &copy)
        } else {
            closed(rights, &copy)
        })
    };
    let stopped = || {
        Some(CopiesStopped {
            current: proof(&rights.assignment)?,
            incoming: proof(&rights.incoming),
        })
    };
    match event {
        Event::First(n) => first(rights, host(n).0, host(n).1).ok(),
        Event::Restart(n) => restart(rights, stopped()?, host(n).0, host(n).1).ok(),
        Event::Clear => clear(rights, stopped()?).ok(),
        Event::Begin(n) => begin_migration(rights, host(n).0, host(n).1).ok(),
        Event::Promote => promote(rights, proof(&rights.assignment)?).ok(),
        Event::Drop => drop_incoming(rights, proof(&rights.incoming)?).ok(),
        Event::CloseCurrent | Event::CloseIncoming | Event::HandOver => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Never a right that vanished while its copy could run, never an epoch twice or back,
    /// never a second copy that may run outside a move.
    #[test]
    fn rights_never_outrun_proofs(events in proptest::collection::vec(event(), 1..60)) {
        let mut rights = Rights::none("v".into());
        let mut book = Book::default();
        for event in events {
            let epoch = |copy: &Option<Assignment>| copy.as_ref().map(|a| a.epoch.0);
            match &event {
                Event::CloseCurrent => { epoch(&rights.assignment).map(|e| book.live.remove(&e)); }
                Event::CloseIncoming => { epoch(&rights.incoming).map(|e| book.live.remove(&e)); }
                Event::HandOver if rights.incoming.is_some() => {
                    if let Some(e) = epoch(&rights.assignment) && book.live.remove(&e) {
                        book.handed.insert(e);
                    }
                }
                _ => {}
            }
            let Some(change) = attempt(&rights, &event, &book) else { continue };
            let after = change.after().clone();
            prop_assert!(after.last_epoch >= rights.last_epoch);
            if after.last_epoch > rights.last_epoch {
                let new = after.last_epoch.0;
                prop_assert!(!book.issued.contains(&new));
                book.issued.push(new);
                book.live.insert(new);
            }
            let standing: Vec<i64> = [epoch(&after.assignment), epoch(&after.incoming)].into_iter().flatten().collect();
            for live in &book.live {
                prop_assert!(standing.contains(live), "epoch {live} may run and stands nowhere after {event:?}");
            }
            let may_run_unsupervised = book.live.iter().filter(|e| Some(**e) != epoch(&after.incoming)).count();
            prop_assert!(may_run_unsupervised <= 1);
            rights = after;
        }
    }
}
