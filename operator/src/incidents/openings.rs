//! What else opens an Incident or belongs in one: guests that crashed, are left in error or wait for
//! the only copy of their data, agents that stand still, business systems that do not answer while
//! people work on a host. Looks at the whole state each turn; the ledger tells each step once.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use api::names::LEASE_LOOP_NEVER;
use api::{
    BusinessSystem, CloseReason, EndpointStatus, Host, Incident, Runtime, RuntimePhase,
    VirtualMachine, VirtualMachineMigration, VirtualMachinePhase,
};
use failover::Moment;
use failover::incident::causes::{self, Guest, Interrupted};
use failover::incident::{Ledger, WallTime};
use failover::proof::CRASHED;
use fleet::system::system_of;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use model::{Assignment, HostName, NamespacedName, StopProofKind};

use super::affected::{assignment, find};
use super::{locked, now, recall};
use crate::hosts::HostWatch;
use crate::runtime::Context;
use crate::store::Renewals;
use crate::{clock, door, evacuation};

/// A system that people's work, or storage that stalls, interrupts for no longer has no Incident: the pause of a move is none.
pub(super) const INTERRUPTED: SignedDuration = SignedDuration::from_secs(5);

/// A system that stops answering so soon after a move does so because of it.
const AFTER_MOVE: SignedDuration = SignedDuration::from_secs(60);

/// A crash is told so many microseconds after it was seen: a host that goes down in good order ends its
/// guests first, and their ends are its incident's.
const HELD: i64 = 10_000_000;
/// A crash on a silent host waits for that host's incident, and no longer than this, microseconds.
const HELD_MAX: i64 = 60_000_000;

/// A crash that was seen and is not told yet.
#[derive(Clone, Debug)]
pub(super) struct Crash {
    vm: NamespacedName,
    system: Option<NamespacedName>,
    copy: Assignment,
    at: WallTime,
}

/// Crashes that are not told yet, by their steps.
pub(super) type Crashes = BTreeMap<String, Crash>;

/// One turn over guests, agents and hosts in maintenance.
pub(super) fn look(
    context: &Context,
    crashes: &mut Crashes,
    ledger: &mut Ledger,
    stored: &[Arc<Incident>],
) {
    let at = now();
    let vms = context.stores.vms.state();
    for vm in &vms {
        look_at_guest(crashes, ledger, stored, vm, at);
        locked::look(ledger, stored, vm, at);
    }
    tell_crashes(crashes, ledger, stored, at, &|host| {
        is_silent(context, host)
    });
    let bound = agent_bound(context);
    for host in context.stores.hosts.state() {
        let name = HostName(host.name_any());
        let down = agent_down(context, &name, bound);
        if let Some((boot_id, age)) = down.and_then(|down| Some((down.boot_id, down.known?))) {
            ledger.agent_down(&name, &boot_id, age, at);
        }
        if host.spec.maintenance.is_some() {
            look_at_work(context, ledger, &host, &vms);
        }
    }
}

/// The copy whose QEMU crashed, of a guest that is not well yet.
fn crashed(vm: &VirtualMachine) -> Option<&Assignment> {
    let status = vm.status.as_ref()?;
    let standing = status.assignment.as_ref()?;
    let reported = status.runtime.as_ref().filter(|runtime| {
        runtime.assignment == *standing
            && runtime.phase == RuntimePhase::Closed
            && runtime.close_reason == Some(CloseReason::Crashed)
    });
    // Or the next epoch was given before this turn, and its copy has not run yet.
    let has_run = status.runtime.as_ref().is_some_and(|runtime| {
        runtime.assignment == *standing
            && !matches!(
                runtime.phase,
                RuntimePhase::Preparing | RuntimePhase::Starting
            )
    });
    reported
        .map(|runtime| &runtime.assignment)
        .or_else(|| crash_on_record(vm).filter(|_| !has_run))
}

/// The copy that the present assignment replaces, if its record says that it crashed.
fn crash_on_record(vm: &VirtualMachine) -> Option<&Assignment> {
    let proof = vm.status.as_ref()?.proofs.last()?;
    let crashed = proof.kind == StopProofKind::Closed && proof.evidence.ends_with(CRASHED);
    crashed.then_some(&proof.assignment)
}

pub(super) fn vm_name(vm: &VirtualMachine) -> NamespacedName {
    NamespacedName::new(vm.namespace().unwrap_or_default(), vm.name_any())
}

pub(super) fn is_silent(context: &Context, host: &HostName) -> bool {
    let watch = context.hosts.lock().unwrap_or_else(PoisonError::into_inner);
    watch.is_silent(host)
}

/// Whether a crash is told already: in an incident that stands, or in one that is over. A guest that was halted after its
/// crash may be started long after that.
fn is_known(ledger: &Ledger, stored: &[Arc<Incident>], step: &str) -> bool {
    let mut open = ledger.open().values();
    let closed = stored
        .iter()
        .map(|incident| &**incident)
        .filter(|incident| incident.is_closed());
    open.any(|incident| incident.timeline.iter().any(|entry| entry.step == step))
        || recall::is_told(closed, step)
}

/// Tells crashes that have been held long enough. The guest may run again by then.
fn tell_crashes(
    crashes: &mut Crashes,
    ledger: &mut Ledger,
    stored: &[Arc<Incident>],
    at: WallTime,
    silent: &dyn Fn(&HostName) -> bool,
) {
    crashes.retain(|step, crash| {
        if is_known(ledger, stored, step) {
            return false;
        }
        let guest = Guest {
            vm: &crash.vm,
            system: crash.system.as_ref(),
            copy: &crash.copy,
        };
        let held = at.0 - crash.at.0;
        let alone = held >= HELD && !silent(&crash.copy.host);
        let told = ledger.is_explained(&guest) || alone || held >= HELD_MAX;
        if told {
            ledger.guest_crashed(&guest, crash.at);
        }
        !told
    });
}

fn look_at_guest(
    crashes: &mut Crashes,
    ledger: &mut Ledger,
    stored: &[Arc<Incident>],
    vm: &VirtualMachine,
    at: WallTime,
) {
    let Some(status) = vm.status.as_ref().filter(|_| !is_well(vm)) else {
        return;
    };
    let (name, system) = (vm_name(vm), system_of(vm));
    let guest = |copy| Guest {
        vm: &name,
        system: system.as_ref(),
        copy,
    };
    if let Some(copy) = crashed(vm) {
        let step = causes::crash_step(&name, copy);
        if !crashes.contains_key(&step) && !is_known(ledger, stored, &step) {
            let crash = Crash {
                vm: name.clone(),
                system: system.clone(),
                copy: copy.clone(),
                at,
            };
            crashes.insert(step, crash);
        }
    }
    // What it is about: the assignment that stands, or that of the copy that was proven stopped last.
    let copy = status.assignment.as_ref();
    let proven = status.proofs.last().map(|proof| &proof.assignment);
    let Some(copy) = copy.or(proven) else { return };
    match status.phase {
        Some(VirtualMachinePhase::Failed) => {
            let message = status.message.as_deref().unwrap_or("no reason was told");
            ledger.guest_in_error(&guest(copy), message, at);
        }
        Some(VirtualMachinePhase::Pinned) => ledger.guest_pinned(&guest(copy), at),
        _ => {}
    }
}

/// What is known of an agent's loop that stands still for longer than the policy allows, while its guard lives.
fn agent_down(context: &Context, host: &HostName, bound: u64) -> Option<AgentDown> {
    let renewals = context.stores.renewals(host.as_str())?;
    let down = stands_still(&renewals, bound, clock::now())?;
    let watch = context.hosts.lock().unwrap_or_else(PoisonError::into_inner);
    is_heard(&watch, host).then_some(down)
}

/// Whether what a host's Lease tells is so now: neither of one that is silent nor of one that was forced off while it came
/// up, whose Lease stands as it was.
fn is_heard(watch: &HostWatch, host: &HostName) -> bool {
    !watch.is_silent(host) && !watch.is_lost(host)
}

/// An agent's loop that stands still.
#[derive(Debug, PartialEq, Eq)]
struct AgentDown {
    /// The incarnation of its host.
    boot_id: String,
    /// For how long it is known to, milliseconds; none: its boot is younger to this observer than the bound, and the
    /// agent may be on its way up.
    known: Option<u64>,
}

fn stands_still(renewals: &Renewals, bound: u64, now: Moment) -> Option<AgentDown> {
    let age = renewals.loop_age.filter(|age| *age > bound)?;
    let boot_id = renewals.boot_id.as_ref()?.to_string();
    let seen = now.since(renewals.boot_seen);
    // A loop that has not gone round in this boot stands still for as long as the boot is known.
    let age = if age == LEASE_LOOP_NEVER { seen } else { age };
    let known = (seen > bound).then_some(age);
    Some(AgentDown { boot_id, known })
}

/// How old an agent's loop may be, milliseconds: a restart of an agent takes seconds and is none.
fn agent_bound(context: &Context) -> u64 {
    door::policy(&context.stores.policy()).agent_down_after_milliseconds
}

/// Business systems of a host in maintenance that do not answer.
fn look_at_work(context: &Context, ledger: &mut Ledger, host: &Host, vms: &[Arc<VirtualMachine>]) {
    let name = HostName(host.name_any());
    let systems = context.stores.systems.state();
    let migrations = context.stores.migrations.state();
    let moving: Vec<_> = migrations
        .iter()
        .filter(|migration| {
            evacuation::empties(migration) == Some(name.as_str()) && is_of_now(migration)
        })
        .collect();
    for vm in vms {
        let here = assignment(vm).is_some_and(|right| right.host == name);
        let moves = || {
            moving.iter().any(|migration| {
                migration.spec.virtual_machine == vm.name_any()
                    && migration.namespace() == vm.namespace()
            })
        };
        if !(here || moves()) {
            continue;
        }
        let Some(key) = system_of(vm) else { continue };
        let system = find(&systems, &key);
        let Some((system, since)) = system.and_then(|system| Some((system, down_since(system)?)))
        else {
            continue;
        };
        if super::wall().duration_since(since) >= INTERRUPTED {
            let interrupted = Interrupted {
                name: &key,
                display_name: &system.spec.display_name,
                vm: &vm.name_any(),
                since: WallTime(since.as_microsecond()),
            };
            ledger.planned_downtime(&name, &interrupted);
        }
    }
}

/// Whether a move is under way or ended a moment ago: what follows it is still its doing.
fn is_of_now(migration: &VirtualMachineMigration) -> bool {
    let status = migration.status.as_ref();
    let finished = status.and_then(|status| status.finished_at.as_ref());
    finished.is_none_or(|at| super::wall().duration_since(at.0) < AFTER_MOVE)
}

/// Endpoints of a system that was up that do not answer, and since when.
pub(super) fn down_endpoints(
    system: &BusinessSystem,
) -> impl Iterator<Item = (&EndpointStatus, Timestamp)> {
    let status = system.status.iter().filter(|status| status.state == "Down");
    status
        .flat_map(|status| &status.endpoints)
        .filter(|endpoint| endpoint.state == "Down")
        .filter_map(|endpoint| Some((endpoint, endpoint.since.as_ref()?.0)))
}

/// Since when the first of them does not.
fn down_since(system: &BusinessSystem) -> Option<Timestamp> {
    down_endpoints(system).map(|(_, since)| since).min()
}

/// Whether the cause of an incident that this file opens is gone; none: another file's.
pub(super) fn is_gone(
    context: &Context,
    incident: &failover::incident::Incident,
    vms: &[Arc<VirtualMachine>],
) -> Option<bool> {
    let cause = incident.cause.as_str();
    if cause.starts_with(causes::PLANNED_CAUSES) {
        // It is over when the systems answer again; the work may go on.
        return Some(true);
    }
    if cause.starts_with(causes::AGENT_CAUSES) {
        let host = incident.host.as_ref()?;
        let down = agent_down(context, host, agent_bound(context));
        return Some(down.is_none_or(|down| causes::agent_cause(host, &down.boot_id) != cause));
    }
    cause.starts_with(causes::GUEST_CAUSES).then(|| {
        let own = vms
            .iter()
            .find(|vm| cause.starts_with(&causes::guest_causes(&vm_name(vm))));
        own.is_none_or(|vm| is_well(vm))
    })
}

/// It runs under its present assignment, or nobody wants it to.
pub(super) fn is_well(vm: &VirtualMachine) -> bool {
    let Some(status) = vm.status.as_ref() else {
        return false;
    };
    let stopped = status.phase == Some(VirtualMachinePhase::Stopped);
    let unwanted = vm.spec.run_strategy == api::RunStrategy::Halted
        || vm.metadata.deletion_timestamp.is_some();
    running(vm).is_some() || stopped || unwanted
}

/// What is reported of a VM that runs under its present assignment.
pub(super) fn running(vm: &VirtualMachine) -> Option<&Runtime> {
    let runtime = vm.status.as_ref()?.runtime.as_ref()?;
    let is_present = assignment(vm) == Some(&runtime.assignment);
    (is_present && runtime.phase == RuntimePhase::Running).then_some(runtime)
}

/// Guests that crashed and were started again before this operator led, and about which nothing was
/// stored: the former leader died between its act and its word.
pub(super) fn recall_crashes(
    ledger: &mut Ledger,
    stored: &[Incident],
    vms: &[Arc<VirtualMachine>],
    wall: Timestamp,
) {
    for vm in vms.iter().filter(|vm| recall::is_recent(vm, wall)) {
        let Some(copy) = crash_on_record(vm) else {
            continue;
        };
        let (name, system) = (vm_name(vm), system_of(vm));
        if recall::is_told(stored.iter(), &causes::crash_step(&name, copy)) {
            continue;
        }
        let guest = Guest {
            vm: &name,
            system: system.as_ref(),
            copy,
        };
        ledger.guest_crashed(&guest, now());
    }
}

#[cfg(test)]
#[path = "openings_tests.rs"]
mod tests;
