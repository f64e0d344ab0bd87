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
    /// The epoch and phase that this incarnation of the host last reported.
    pub reported: Option<(i64, CopyPhase)>,
    /// The same of a copy that was arriving here.
    pub reported_incoming: Option<(i64, CopyPhase)>,
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
    /// This incarnation said so of it, and its ledger, which was lost, knows nothing of it: raise the alarm, never
    /// start it, and report it closed where that was not its last word.
    Forgotten(Assignment, CopyPhase),
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

/// The same where no copy runs: what this incarnation has said of an epoch that its ledger does not know, though an
/// epoch is written there before anything but `Preparing` is said of it. It may not be started again: the copy may
/// have moved away, or its VM have been given to another host since.
pub fn forgotten(api: &ApiFacts, epoch: Epoch, ledger: &Entry) -> Option<CopyPhase> {
    let said = [api.reported, api.reported_incoming];
    let mut said = said
        .into_iter()
        .flatten()
        .filter(|(of, phase)| *of == epoch.0 && *phase != CopyPhase::Preparing);
    let (_, phase) = said.next()?;
    ledger.state(epoch.0).is_none().then_some(phase)
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
    if let Some(said) = api.and_then(|api| forgotten(api, assignment.epoch, facts.ledger)) {
        return Action::Forgotten(assignment, said);
    }
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
#[path = "copy_tests.rs"]
mod tests;
