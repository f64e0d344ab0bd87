//! What must hold in the cluster, always, in the end, and somewhere.

use failover::copy::CopyPhase;
use failover::migration::{MigrationOutcome, SourcePhase, TargetPhase};
use stateright::{Model, Property};

use super::{Cluster, Effect, Host, Job, State};
use crate::words::{EPOCHS, Slot};

/// The property that must never break.
pub const ONE_WRITER: &str = "at most one writer";

fn writes(host: &Host) -> bool {
    host.on && host.cut.is_none() && host.domain.is_some_and(|domain| domain.runs)
}

fn one_writer(_: &Cluster, state: &State) -> bool {
    state.hosts.iter().filter(|host| writes(host)).count() <= 1
}

/// A copy whose disks changed behind its memory, or whose memory has not all come, would write them to pieces.
fn no_old_memory(_: &Cluster, state: &State) -> bool {
    let broken = |host: &Host| {
        host.domain
            .is_some_and(|domain| domain.runs && (domain.old_memory || !domain.whole))
    };
    !state.hosts.iter().any(broken)
}

/// Who reads that a copy is closed may rely on it: no domain of that epoch is left.
fn closed_is_true(_: &Cluster, state: &State) -> bool {
    let object = state.api.moving;
    let reports = [state.api.report, state.api.incoming_report];
    let closed = reports
        .into_iter()
        .flatten()
        .filter(|report| report.phase == CopyPhase::Closed)
        .map(|report| report.slot);
    let refused = object
        .sides
        .filter(|_| object.target == Some(TargetPhase::Refused));
    let gone = object
        .sides
        .filter(|_| object.source == Some(SourcePhase::Closed));
    closed
        .chain(refused.map(|(_, target)| target))
        .chain(gone.map(|(source, _)| source))
        .all(|slot| !lives(state, slot))
}

fn lives(state: &State, slot: Slot) -> bool {
    let host = state.hosts[usize::from(slot.host)];
    host.domain
        .is_some_and(|domain| (domain.boot, domain.epoch) == (slot.boot, slot.epoch))
}

/// The configuration's epochs fit in the model, so that nothing was left out.
fn epochs_fit(_: &Cluster, state: &State) -> bool {
    usize::from(state.api.rights.last) < EPOCHS - 1
}

/// Without a failure of a host, a guest or an agent, and unless its user halts it, the VM
/// exists at every instant, whatever becomes of its move.
fn moves_stop_nothing(model: &Cluster, state: &State) -> bool {
    let there = |host: &Host| host.domain.is_some_and(|domain| !domain.dead);
    !model.moves || state.disturbed || state.hosts.iter().any(there)
}

fn never_touched(model: &Cluster, state: &State) -> bool {
    !model.calm
        || state.hosts[0]
            .domain
            .is_some_and(|domain| domain.runs && domain.epoch == 1)
}

fn healthy_is_not_fenced(_: &Cluster, state: &State) -> bool {
    !state.forced_healthy
}

/// The VM is as its user wants it, under its assignment, once; the move has ended; nobody
/// is cut off for nothing. Or no proof can be had, and a person is needed.
fn settled(model: &Cluster, state: &State) -> bool {
    let rights = state.api.rights;
    let gone = |slot: Option<Slot>| {
        slot.is_some_and(|slot| {
            let host = state.hosts[usize::from(slot.host)];
            !model.bmc && (!host.on || (host.isolated && !model.cuts && !model.guard))
        })
    };
    let reachable = |host: &&Host| host.on && !host.isolated;
    // A rebase waits for every host's report.
    if state.versions.frozen && state.hosts.iter().any(|host| host.isolated) {
        return true;
    }
    if !state.hosts[..usize::from(model.hosts)]
        .iter()
        .any(|host| reachable(&host))
        || gone(rights.assignment)
        || gone(rights.incoming)
    {
        return true;
    }
    let still_cut = state
        .hosts
        .iter()
        .filter(reachable)
        .any(|host| host.cut.is_some());
    let object = state.api.moving;
    // A move without any host to go to is blocked, and says so.
    let blocked = object.sides.is_none() && state.hosts.iter().filter(reachable).count() < 2;
    let open = model.moves && object.ended.is_none() && !blocked;
    let copies = state
        .hosts
        .iter()
        .filter(|host| host.domain.is_some() && !host.isolated)
        .count();
    if still_cut || open || rights.incoming.is_some() {
        return false;
    }
    match rights.assignment {
        None => state.api.halt && copies == 0,
        Some(slot) => {
            let host = state.hosts[usize::from(slot.host)];
            let runs = host.domain.is_some_and(|domain| domain.runs) && lives(state, slot);
            !state.api.halt && copies == 1 && runs
        }
    }
}

fn never_stuck(model: &Cluster, state: &State) -> bool {
    !state.quiet || settled(model, state)
}

fn recovered(model: &Cluster, state: &State) -> bool {
    state.quiet && settled(model, state) && model.next_states(state).is_empty()
}

fn elsewhere(_: &Cluster, state: &State) -> bool {
    state.api.rights.incoming.is_none()
        && state.api.moving.sides.is_none()
        && state
            .api
            .rights
            .assignment
            .is_some_and(|slot| slot.host != 0 && writes(&state.hosts[usize::from(slot.host)]))
}

fn restarted_at_home(_: &Cluster, state: &State) -> bool {
    state
        .api
        .rights
        .assignment
        .is_some_and(|slot| slot.host == 0 && slot.epoch > 1 && lives(state, slot))
}

fn wakes_too_late(_: &Cluster, state: &State) -> bool {
    matches!(state.paused, Some(Effect::Rights(before, after))
        if before != state.api.rights && after != state.api.rights)
}

fn moved(_: &Cluster, state: &State) -> bool {
    state.api.moving.ended == Some(MigrationOutcome::Succeeded) && !state.disturbed
}

fn stayed(_: &Cluster, state: &State) -> bool {
    let object = state.api.moving;
    object.source == Some(SourcePhase::StillRunning)
        && object.target == Some(TargetPhase::Refused)
        && object.ended.is_some()
        && writes(&state.hosts[0])
}

fn broke_at_switch_over(_: &Cluster, state: &State) -> bool {
    state.job == Job::Failed
        && state.hosts.iter().any(|host| {
            host.domain
                .is_some_and(|domain| domain.old_memory && !domain.runs)
        })
}

fn died_after_hand_over(_: &Cluster, state: &State) -> bool {
    state.api.moving.sides.is_some_and(|(source, target)| {
        state.api.rights.assignment == Some(target)
            && state.api.moving.source != Some(SourcePhase::HandedOver)
            && !state.hosts[usize::from(source.host)].on
            && lives(state, target)
    })
}

/// The copy runs on the target while the source's libvirt still clears up.
fn runs_before_cleared(_: &Cluster, state: &State) -> bool {
    state.job == Job::Ended
        && state.hosts.iter().any(writes)
        && state
            .hosts
            .iter()
            .any(|host| host.domain.is_some_and(|domain| domain.dead))
}

/// Handed over, given up by the target, and started anew: the source's QEMU crashed at switch-over before the target had
/// finished, or the target could not let the copy run.
fn handed_over_and_started_anew(_: &Cluster, state: &State) -> bool {
    let object = state.api.moving;
    object.source == Some(SourcePhase::HandedOver)
        && object.target == Some(TargetPhase::Refused)
        && object.ended.is_some()
        && state
            .api
            .rights
            .assignment
            .is_some_and(|slot| slot.epoch > 2 && lives(state, slot))
}

/// The target let the copy run in the end, though it could not at first.
fn resumed_late(_: &Cluster, state: &State) -> bool {
    let object = state.api.moving;
    object.ended == Some(MigrationOutcome::Succeeded)
        && state.left.resume_failures == 0
        && state.hosts.iter().any(writes)
}

/// After a restore that took an assignment back, the VM runs under a new one.
fn rebased(_: &Cluster, state: &State) -> bool {
    let versions = state.versions;
    let rights = state.api.rights;
    versions.restored
        && !versions.frozen
        && versions.now >= versions.leader
        && rights.last > 3
        && rights.assignment.is_some_and(|slot| lives(state, slot))
}

fn halted(_: &Cluster, state: &State) -> bool {
    state.api.halt && state.api.rights.assignment.is_none()
}

fn cut_and_given_away(_: &Cluster, state: &State) -> bool {
    state
        .hosts
        .iter()
        .filter(|host| host.domain.is_some())
        .count()
        == 2
}

pub(super) fn all(model: &Cluster) -> Vec<Property<Cluster>> {
    let mut list = vec![
        Property::always(ONE_WRITER, one_writer),
        Property::always("no old memory over newer disks", no_old_memory),
        Property::always("closed is true", closed_is_true),
        Property::always("no epoch beyond the model", epochs_fit),
        Property::always("a move stops no VM", moves_stop_nothing),
        Property::always("agent, libvirt and API may restart", never_touched),
        Property::always("no healthy host is forced off", healthy_is_not_fenced),
        Property::always("never stuck", never_stuck),
        Property::eventually("recovered", recovered),
    ];
    let faults = model.faults;
    let mut guard = |wanted: bool, name, condition| {
        if wanted {
            list.push(Property::sometimes(name, condition));
        }
    };
    guard(
        (faults.power_losses > 0 || faults.isolations > 0)
            && !model.moves
            && !model.calm
            && (model.bmc || model.cuts || model.guard),
        "restarted elsewhere",
        elsewhere,
    );
    guard(
        faults.power_returns > 0 || faults.guest_crashes > 0,
        "restarted at home",
        restarted_at_home,
    );
    guard(
        faults.pauses > 0,
        "an old leader wakes too late",
        wakes_too_late,
    );
    guard(model.moves, "moved", moved);
    guard(
        model.moves,
        "runs before the source is cleared up",
        runs_before_cleared,
    );
    guard(
        model.moves && faults.guest_crashes > 0,
        "crashed at switch-over and started anew",
        handed_over_and_started_anew,
    );
    guard(model.moves, "stayed after a failed move", stayed);
    guard(
        faults.resume_failures > 0,
        "given up by the target and started anew",
        handed_over_and_started_anew,
    );
    guard(
        faults.resume_failures > 0,
        "let run after all",
        resumed_late,
    );
    guard(
        faults.job_breaks > 0,
        "broke at switch-over",
        broke_at_switch_over,
    );
    guard(
        model.moves && faults.power_losses > 0,
        "source died after the hand-over",
        died_after_hand_over,
    );
    guard(faults.restores > 0, "rebased", rebased);
    guard(faults.halts > 0, "halted", halted);
    guard(model.cuts, "cut off and given away", cut_and_given_away);
    list
}
