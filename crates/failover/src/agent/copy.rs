//! What a host does with one VM, from facts alone. Rules 1, 2, 3 and 7 of the failover
//! design; the migration's two sides are decided in [`super::moving`].
//!
//! Starting, and closing for a higher epoch elsewhere, are only proposed here: the agent reads
//! the API afresh before it does either.

use model::{Assignment, BootId, Epoch, HostName};

use super::ledger::{Entry, EpochState};
use crate::copy::{CloseCause, CopyPhase};

/// What the API says of a VM, as cached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiFacts {
    /// Who may run it.
    pub assignment: Option<Assignment>,
    /// Who may receive it.
    pub incoming: Option<Assignment>,
    /// Its user wants it halted or deleted.
    pub halt: bool,
    /// The phase and epoch that this host last reported.
    pub reported: Option<(i64, CopyPhase)>,
}

/// Everything that a decision rests on.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// This host.
    pub host: &'a HostName,
    /// This boot.
    pub boot_id: &'a BootId,
    /// The API's view; none: the VM is not in our caches.
    pub api: Option<ApiFacts>,
    /// The ledger's entry.
    pub ledger: &'a Entry,
    /// The domain of ours, if one is active.
    pub domain: Option<Domain>,
    /// A migration of it runs from here.
    pub moving_out: bool,
    /// Its guest was last seen to shut itself down.
    pub shut_down_inside: bool,
}

/// A domain of the platform as libvirt shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// The incarnation that started it, or received it.
    pub boot_id: BootId,
    /// The epoch under which it was started, or received.
    pub epoch: Epoch,
    /// It is being destroyed.
    pub ending: bool,
    /// Its guest stands still since a disk failed.
    pub stalled: bool,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Nothing,
    /// Read the API afresh and start it under this assignment.
    Start(Assignment),
    /// Ask the guest to shut down, then destroy and close.
    Shutdown(Assignment),
    /// Close the epoch, destroy the domain, report.
    Close(Assignment, CloseCause),
    /// Read the API afresh; close if a higher epoch stands elsewhere.
    CheckSuperseded(Assignment),
    /// It stands still since a disk failed, and that was reported: read the API afresh, and let it
    /// run on once its storage answers.
    Resume(Assignment),
    /// Report this phase.
    Report(Assignment, CopyPhase, Option<CloseCause>),
}

/// Decides.
pub fn decide(facts: &Facts<'_>) -> Action {
    match &facts.domain {
        Some(domain) => with_domain(facts, domain),
        None => without_domain(facts),
    }
}

/// Rule 3: whether a copy of this boot runs under an epoch that the ledger never saw, though every
/// start writes its entry first. The ledger was lost, and with it which epochs this boot has used:
/// the copy is kept, and the host starts nothing.
pub fn is_unaccounted(boot_id: &BootId, domain: &Domain, ledger: &Entry) -> bool {
    domain.boot_id == *boot_id && ledger.state(domain.epoch.0).is_none()
}

fn mine(facts: &Facts<'_>, assignment: &Assignment) -> bool {
    assignment.host == *facts.host && assignment.boot_id == *facts.boot_id
}

fn own_assignment<'a>(facts: &'a Facts<'_>) -> Option<&'a Assignment> {
    let assignment = facts.api.as_ref()?.assignment.as_ref()?;
    mine(facts, assignment).then_some(assignment)
}

fn with_domain(facts: &Facts<'_>, domain: &Domain) -> Action {
    let running = Assignment {
        host: facts.host.clone(),
        boot_id: domain.boot_id.clone(),
        epoch: domain.epoch,
    };
    // A copy of another boot: everything of that boot is dead to the site.
    if domain.boot_id != *facts.boot_id
        || facts.ledger.state(domain.epoch.0) == Some(EpochState::Closed)
    {
        return Action::Close(running, CloseCause::Superseded);
    }
    let Some(api) = &facts.api else {
        // Not in our caches: it moved away, was deleted, or the API is out of reach.
        return if facts.moving_out {
            Action::Nothing
        } else {
            Action::CheckSuperseded(running)
        };
    };
    if api.assignment.as_ref() == Some(&running) {
        if facts.moving_out || domain.ending {
            return Action::Nothing;
        }
        if api.halt {
            return Action::Shutdown(running);
        }
        if !domain.stalled {
            return report(facts, running, CopyPhase::Running);
        }
        return match report(facts, running.clone(), CopyPhase::Stalled) {
            Action::Nothing => Action::Resume(running),
            report => report,
        };
    }
    // The arrival's side acts on its own.
    if api.incoming.as_ref() == Some(&running) {
        return Action::Nothing;
    }
    Action::CheckSuperseded(running)
}

fn report(facts: &Facts<'_>, assignment: Assignment, phase: CopyPhase) -> Action {
    let reported = facts.api.as_ref().and_then(|api| api.reported);
    if reported == Some((assignment.epoch.0, phase)) {
        Action::Nothing
    } else {
        Action::Report(assignment, phase, None)
    }
}

fn without_domain(facts: &Facts<'_>) -> Action {
    let Some(assignment) = own_assignment(facts).cloned() else {
        return Action::Nothing;
    };
    let api = facts.api.as_ref();
    match facts.ledger.state(assignment.epoch.0) {
        None if api.is_some_and(|api| api.halt) => Action::Close(assignment, CloseCause::Declined),
        None => Action::Start(assignment),
        Some(EpochState::Used | EpochState::Started) => {
            let cause = if facts.shut_down_inside {
                CloseCause::GuestShutdown
            } else {
                CloseCause::Crashed
            };
            Action::Close(assignment, cause)
        }
        Some(EpochState::Closed) => match api.and_then(|api| api.reported) {
            Some((epoch, CopyPhase::Closed)) if epoch == assignment.epoch.0 => Action::Nothing,
            _ => Action::Report(assignment, CopyPhase::Closed, None),
        },
        Some(EpochState::HandedOver) => report(facts, assignment, CopyPhase::HandedOver),
    }
}

#[cfg(test)]
mod tests {
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
        ) {
            let mut world = World::new(current.clone());
            let api = world.api.as_mut().expect("api");
            (api.incoming, api.halt) = (incoming, halt);
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
                prop_assert_eq!(Some(assignment), current);
            }
        }
    }
}
