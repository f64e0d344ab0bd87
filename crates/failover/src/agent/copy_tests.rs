use super::*;
use proptest::prelude::*;

fn assignment(host: &str, boot: &str, epoch: i64) -> Assignment {
    Assignment {
        host: host.into(),
        boot_id: boot.into(),
        epoch: Epoch(epoch),
    }
}

fn domain(boot: &str, epoch: i64) -> Domain {
    Domain {
        boot_id: boot.into(),
        epoch: Epoch(epoch),
        ending: false,
        stalled: false,
    }
}

struct World {
    host: HostName,
    boot: BootId,
    ledger: Entry,
    api: Option<ApiFacts>,
    domain: Option<Domain>,
}

impl World {
    fn new(current: Option<Assignment>) -> Self {
        let api = ApiFacts {
            assignment: current,
            ..ApiFacts::default()
        };
        Self {
            host: "h1".into(),
            boot: "b1".into(),
            ledger: Entry::default(),
            api: Some(api),
            domain: None,
        }
    }

    fn ledger(mut self, epoch: i64, state: EpochState) -> Self {
        self.ledger.epochs.insert(epoch, state);
        self
    }

    fn domain(mut self, boot: &str, epoch: i64) -> Self {
        self.domain = Some(domain(boot, epoch));
        self
    }

    fn decide(&self) -> Action {
        decide(&Facts {
            host: &self.host,
            boot_id: &self.boot,
            api: self.api.clone(),
            ledger: &self.ledger,
            domain: self.domain.clone(),
            moving_out: false,
            shut_down_inside: false,
        })
    }
}

#[test]
fn starts_only_for_this_host_this_boot_and_an_epoch_never_seen() {
    let own = assignment("h1", "b1", 3);
    assert_eq!(
        World::new(Some(own.clone())).decide(),
        Action::Start(own.clone())
    );
    assert_eq!(
        World::new(Some(assignment("h2", "b1", 3))).decide(),
        Action::Nothing
    );
    assert_eq!(
        World::new(Some(assignment("h1", "b0", 3))).decide(),
        Action::Nothing
    );
    for state in [EpochState::Used, EpochState::Started] {
        let action = World::new(Some(own.clone())).ledger(3, state).decide();
        assert_eq!(
            action,
            Action::Close(own.clone(), CloseCause::Crashed),
            "{state:?}: its process is gone"
        );
    }
    let action = World::new(Some(own.clone()))
        .ledger(3, EpochState::Closed)
        .decide();
    assert_eq!(action, Action::Report(own, CopyPhase::Closed, None));
}

#[test]
fn a_copy_of_another_boot_or_of_a_closed_epoch_is_destroyed() {
    let own = assignment("h1", "b1", 3);
    let stale = World::new(Some(own.clone())).domain("b0", 2).decide();
    assert_eq!(
        stale,
        Action::Close(assignment("h1", "b0", 2), CloseCause::Superseded)
    );
    let closed = World::new(Some(own.clone()))
        .domain("b1", 3)
        .ledger(3, EpochState::Closed)
        .decide();
    assert_eq!(closed, Action::Close(own, CloseCause::Superseded));
}

#[test]
fn without_word_from_the_api_a_running_copy_is_kept_until_a_fresh_read() {
    let mut world = World::new(None).domain("b1", 3);
    world.api = None;
    assert_eq!(
        world.decide(),
        Action::CheckSuperseded(assignment("h1", "b1", 3))
    );
    let elsewhere = World::new(Some(assignment("h2", "b2", 4)))
        .domain("b1", 3)
        .decide();
    assert_eq!(
        elsewhere,
        Action::CheckSuperseded(assignment("h1", "b1", 3))
    );
}

#[test]
fn a_halt_shuts_the_guest_down_and_declines_what_never_started() {
    let own = assignment("h1", "b1", 3);
    let mut world = World::new(Some(own.clone()));
    world.api.as_mut().expect("api").halt = true;
    assert_eq!(
        world.decide(),
        Action::Close(own.clone(), CloseCause::Declined)
    );
    assert_eq!(world.domain("b1", 3).decide(), Action::Shutdown(own));
}

#[test]
fn a_copy_whose_disk_failed_is_told_and_runs_on_here_and_nowhere_else() {
    let own = assignment("h1", "b1", 3);
    let stalled = |current: Option<Assignment>| {
        let mut world = World::new(current).domain("b1", 3);
        world.domain.as_mut().expect("domain").stalled = true;
        world
    };
    let told = |mut world: World| {
        world.api.as_mut().expect("api").reported = Some((3, CopyPhase::Stalled));
        world
    };
    assert_eq!(
        stalled(Some(own.clone())).decide(),
        Action::Report(own.clone(), CopyPhase::Stalled, None)
    );
    assert_eq!(
        told(stalled(Some(own.clone()))).decide(),
        Action::Resume(own.clone())
    );
    let mut halted = told(stalled(Some(own.clone())));
    halted.api.as_mut().expect("api").halt = true;
    assert_eq!(halted.decide(), Action::Shutdown(own.clone()));
    let elsewhere = told(stalled(Some(assignment("h2", "b2", 4))));
    assert_eq!(elsewhere.decide(), Action::CheckSuperseded(own.clone()));
    let mut arrival = told(stalled(Some(assignment("h2", "b2", 2))));
    arrival.api.as_mut().expect("api").incoming = Some(own.clone());
    assert_eq!(arrival.decide(), Action::Nothing);
    let mut unknown = stalled(None);
    unknown.api = None;
    assert_eq!(unknown.decide(), Action::CheckSuperseded(own.clone()));
    // It runs on: that is told too.
    let mut runs = told(stalled(Some(own.clone())));
    runs.domain.as_mut().expect("domain").stalled = false;
    assert_eq!(runs.decide(), Action::Report(own, CopyPhase::Running, None));
}

#[test]
fn a_copy_without_an_entry_is_kept_and_noticed() {
    let own = assignment("h1", "b1", 3);
    let lost = World::new(Some(own.clone())).domain("b1", 3);
    assert_eq!(
        lost.decide(),
        Action::Report(own, CopyPhase::Running, None),
        "kept"
    );
    let known = [
        EpochState::Used,
        EpochState::Started,
        EpochState::Closed,
        EpochState::HandedOver,
    ];
    for (boot, state, noticed) in [("b1", None, true), ("b0", None, false)]
        .into_iter()
        .chain(known.map(|state| ("b1", Some(state), false)))
    {
        let mut entry = Entry::default();
        // Another epoch's entry accounts for nothing.
        entry.epochs.insert(2, EpochState::Closed);
        entry.epochs.extend(state.map(|state| (3, state)));
        let noticed_now = is_unaccounted(&"b1".into(), &domain(boot, 3), &entry);
        assert_eq!(noticed_now, noticed, "{boot} {state:?}");
    }
}

#[test]
fn an_epoch_that_something_was_said_of_is_not_started_without_its_entry() {
    use CopyPhase::*;
    let own = assignment("h1", "b1", 3);
    let decided = |said: Option<(i64, CopyPhase)>, arriving: bool, state: Option<EpochState>| {
        let mut world = World::new(Some(own.clone()));
        world.ledger.epochs.extend(state.map(|state| (3, state)));
        let api = world.api.as_mut().expect("api");
        let told = if arriving {
            &mut api.reported_incoming
        } else {
            &mut api.reported
        };
        *told = said;
        world.decide()
    };
    for phase in [
        Starting, Running, Arrived, Stopping, Closed, HandedOver, CloseStuck, Stalled,
    ] {
        for arriving in [false, true] {
            assert_eq!(
                decided(Some((3, phase)), arriving, None),
                Action::Forgotten(own.clone(), phase),
                "{phase:?}"
            );
            // Of an earlier epoch it says nothing about this one.
            assert_eq!(
                decided(Some((2, phase)), arriving, None),
                Action::Start(own.clone()),
                "{phase:?}"
            );
        }
    }
    // An agent that restarts while it prepares goes on.
    let prepares = decided(Some((3, Preparing)), false, None);
    assert_eq!(prepares, Action::Start(own.clone()));
    // With an entry the ledger says what is to be done.
    let crashed = decided(Some((3, Running)), false, Some(EpochState::Started));
    assert_eq!(crashed, Action::Close(own, CloseCause::Crashed));
}

#[test]
fn a_user_who_halts_it_meanwhile_changes_nothing_about_a_lost_ledger() {
    let own = assignment("h1", "b1", 3);
    let mut world = World::new(Some(own.clone()));
    let api = world.api.as_mut().expect("api");
    (api.halt, api.reported) = (true, Some((3, CopyPhase::Running)));
    assert_eq!(world.decide(), Action::Forgotten(own, CopyPhase::Running));
}

#[test]
fn an_adopted_copy_can_be_handed_over_and_its_epoch_is_not_started_again() {
    let mut entry = Entry::default();
    entry.adopt(3);
    entry.take(3, 0).expect_err("its start is used up");
    entry.hand_over(3).expect("it may move away");
    let mut closed = Entry::default();
    closed.close(3).expect("close");
    closed.adopt(3);
    assert_eq!(closed.state(3), Some(EpochState::Closed), "for ever");
    let own = assignment("h1", "b1", 3);
    let crashed = World::new(Some(own.clone()))
        .ledger(3, EpochState::Started)
        .decide();
    assert_eq!(crashed, Action::Close(own, CloseCause::Crashed));
}

fn any_assignment() -> impl Strategy<Value = Option<Assignment>> {
    proptest::option::of(
        (0..2_u8, 0..2_u8, 1..4_i64).prop_map(|(host, boot, epoch)| {
            assignment(
                if host == 0 { "h1" } else { "h2" },
                if boot == 0 { "b1" } else { "b0" },
                epoch,
            )
        }),
    )
}

proptest! {
    /// Whatever the facts: a start needs our own assignment, an unseen epoch and no copy here.
    #[test]
    fn no_facts_lead_to_a_start_that_the_rules_forbid(
        current in any_assignment(), incoming in any_assignment(), halt: bool,
        states in proptest::collection::btree_map(1..4_i64, 0..4_u8, 0..3),
        domain in proptest::option::of((0..2_u8, 1..4_i64)),
        said in proptest::option::of((1..4_i64, proptest::bool::ANY)),
    ) {
        let mut world = World::new(current.clone());
        let api = world.api.as_mut().expect("api");
        (api.incoming, api.halt) = (incoming, halt);
        api.reported = said.map(|(epoch, prepares)| {
            (epoch, if prepares { CopyPhase::Preparing } else { CopyPhase::Closed })
        });
        for (epoch, state) in states {
            let states = [EpochState::Used, EpochState::Started, EpochState::Closed, EpochState::HandedOver];
            world.ledger.epochs.insert(epoch, states[usize::from(state)]);
        }
        if let Some((boot, epoch)) = domain {
            world = world.domain(if boot == 0 { "b1" } else { "b0" }, epoch);
        }
        if let Action::Start(assignment) = world.decide() {
            prop_assert!(world.domain.is_none() && !halt);
            prop_assert_eq!(&assignment.host, &world.host);
            prop_assert_eq!(&assignment.boot_id, &world.boot);
            prop_assert_eq!(world.ledger.state(assignment.epoch.0), None);
            prop_assert_ne!(said, Some((assignment.epoch.0, false)));
            prop_assert_eq!(Some(assignment), current);
        }
    }
}
