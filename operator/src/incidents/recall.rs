//! What a former leader did, or left undone, and had no time to tell: read back from what the API keeps,
//! never from memory. Each entry has the step that the one who acted would have given it, so nothing is
//! told twice.

use std::borrow::Borrow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use api::{Host, Incident, RuntimePhase, VirtualMachine};
use failover::Reason;
use failover::host::machine::{EventKind, HostEvent};
use failover::incident::rules::{STORM_CAUSE, host_cause, host_step};
use failover::incident::{Ledger, WallTime};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use model::{BootId, HostName, StopProofKind, StopProofRecord};

use super::now;
use super::waiting::Noted;

/// What happened longer ago is not told any more: a leader is followed within seconds, and an operator
/// that is away for longer finds VMs that have long been started anew.
const RECENT: SignedDuration = SignedDuration::from_mins(10);

/// A fencing intent belongs to a silence that was opened up to so many microseconds after it.
const BEFORE_OPENING: i64 = 60_000_000;

/// Whether a VM is being started, or was not long ago by its host's clock.
pub(super) fn is_recent(vm: &VirtualMachine, wall: Timestamp) -> bool {
    let Some(status) = vm
        .status
        .as_ref()
        .filter(|status| status.assignment.is_some())
    else {
        return false;
    };
    let own = status
        .runtime
        .as_ref()
        .filter(|runtime| status.assignment.as_ref() == Some(&runtime.assignment));
    // A copy that is past its start began no later than what is told of it, whether it ever ran or not.
    let starts = |phase| matches!(phase, RuntimePhase::Preparing | RuntimePhase::Starting);
    let started = own.filter(|runtime| !starts(runtime.phase));
    let started = started.map(|runtime| runtime.started_at.as_ref().unwrap_or(&runtime.since));
    started.is_none_or(|started| wall.duration_since(started.0) < RECENT)
}

/// Whether one of these Incidents tells a step.
pub(super) fn is_told<'a>(mut stored: impl Iterator<Item = &'a Incident>, step: &str) -> bool {
    stored.any(|incident| {
        let timeline = incident.status.iter().flat_map(|status| &status.timeline);
        timeline.into_iter().any(|entry| entry.step == step)
    })
}

/// Forgets what this operator saw of silences while it did not lead, and the leader has told to their end, in incidents of
/// their own or in that of a storm: told again, they would be incidents of their own. Those that last are not forgotten,
/// whatever is stored.
pub(super) fn forget_told(waiting: &mut VecDeque<Noted>, stored: &[Incident]) {
    let closed: Vec<&Incident> = stored
        .iter()
        .filter(|incident| incident.is_closed())
        .collect();
    // The last return of each host, by its place.
    let mut back: BTreeMap<HostName, (usize, String)> = BTreeMap::new();
    for (place, Noted { event, .. }) in waiting.iter().enumerate() {
        if matches!(event.reason, Reason::Returned | Reason::Alive) {
            back.insert(event.host.clone(), (place, host_step(event)));
        }
    }
    let told = |place: usize, event: &HostEvent, at: WallTime| {
        let ended = back.get(&event.host).filter(|(end, _)| place < *end);
        let cause = host_cause(event);
        let mut own = closed
            .iter()
            .filter(|incident| incident.spec.cause == cause || incident.spec.cause == STORM_CAUSE);
        ended.is_some_and(|(_, end)| own.any(|incident| is_over(incident, end, at)))
    };
    let mut place = 0;
    waiting.retain(|Noted { event, at, .. }| {
        place += 1;
        !told(place - 1, event, *at)
    });
}

/// Whether an incident that is closed was about a silence that ended by this step: a boot returns from once only; of
/// others the time tells.
fn is_over(incident: &Incident, end: &str, at: WallTime) -> bool {
    let status = incident.status.as_ref();
    let closed = status.and_then(|status| status.closed_at.as_ref());
    let later = closed.is_some_and(|closed| closed.0.as_microsecond() >= at.0);
    // A storm's steps name no boot: an old one tells the same.
    let of_boot = incident.spec.cause != STORM_CAUSE && end.ends_with("/Returned");
    later || (of_boot && is_told(std::iter::once(incident), end))
}

/// What a proof on record says of a host, if it is about a host's death.
fn death(proof: &StopProofRecord) -> Option<HostEvent> {
    let of_host = !matches!(
        proof.kind,
        StopProofKind::Closed | StopProofKind::HandedOver
    );
    of_host.then(|| HostEvent {
        host: proof.assignment.host.clone(),
        boot_id: proof.assignment.boot_id.clone(),
        kind: EventKind::Decided,
        reason: Reason::Proven {
            kind: proof.kind,
            evidence: proof.evidence.clone(),
        },
    })
}

/// Fencing intents and proofs that stand in the API, told in the incidents of their hosts.
pub(super) fn follow(ledger: &mut Ledger, hosts: &[Arc<Host>], vms: &[Arc<VirtualMachine>]) {
    if ledger.open().is_empty() {
        return;
    }
    for host in hosts {
        let status = host.status.as_ref();
        let Some(intent) = status.and_then(|status| status.fencing.as_ref()) else {
            continue;
        };
        let event = HostEvent {
            host: HostName(host.name_any()),
            boot_id: BootId::from(intent.boot_id.as_str()),
            kind: EventKind::Decided,
            reason: Reason::FenceIntended,
        };
        let at = WallTime(intent.started_at.0.as_microsecond());
        // One that was left behind by an earlier silence of this incarnation is another story.
        let incident = ledger.get(&host_cause(&event));
        if incident.is_some_and(|incident| at.0 + BEFORE_OPENING >= incident.opened_at.0) {
            ledger.host_event(&event, at);
        }
    }
    for vm in vms {
        let proofs = vm.status.iter().flat_map(|status| &status.proofs);
        for event in proofs.filter_map(death) {
            if ledger.get(&host_cause(&event)).is_some() {
                ledger.host_event(&event, now());
            }
        }
    }
}

/// Deaths of hosts whose VMs were started anew, and about which nothing is stored: the former leader died between
/// the new assignment and its first word of it, or the host was away for too short a time to be told as silent.
pub(super) fn deaths(
    ledger: &mut Ledger,
    stored: &[impl Borrow<Incident>],
    vms: &[Arc<VirtualMachine>],
    wall: Timestamp,
) {
    let recent = vms.iter().filter(|vm| is_recent(vm, wall));
    let proofs = recent.filter_map(|vm| vm.status.as_ref()?.proofs.last());
    let mut untold: BTreeMap<String, HostEvent> = proofs
        .filter_map(death)
        .map(|event| (host_cause(&event), event))
        .collect();
    for incident in stored.iter().map(Borrow::borrow) {
        if is_storm_of_now(incident, wall) {
            return;
        }
        untold.remove(&incident.spec.cause);
    }
    for event in untold.values() {
        ledger.host_event(event, now());
    }
}

/// A storm tells of all hosts in it; one that is over may have told of this one.
fn is_storm_of_now(incident: &Incident, wall: Timestamp) -> bool {
    let closed = incident
        .status
        .as_ref()
        .and_then(|status| status.closed_at.as_ref());
    let long_over =
        incident.is_closed() && closed.is_none_or(|closed| wall.duration_since(closed.0) > RECENT);
    incident.spec.cause == STORM_CAUSE && !long_over
}

#[cfg(test)]
#[path = "recall_tests.rs"]
mod tests;
