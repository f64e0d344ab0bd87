//! Moves: asks `failover` what is to be done about each, chooses targets, and writes `incoming`,
//! claims and requests. Hosts that are to be emptied get a move for each of their VMs. Moves begin in the order of
//! `order`, as far as limits let them, and leave behind why the VM is where it is (`why_there`).

mod order;
mod why_there;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use api::{
    MigrationPhase, MigrationSourcePhase, PlacementReport, VirtualMachine, VirtualMachineMigration,
};
use failover::migration::{MigrationFacts, MigrationOutcome, MigrationStep, decide};
use failover::vm::HostSight;
use failover::{Policy, assignment};
use fleet::readiness::evens_out;
use kube::runtime::events::EventType;
use kube::{Api, ResourceExt};
use model::{Assignment, HostName};
use placement::place;
use serde_json::{Value, json};

use self::order::{Load, in_order, sides, vm_of};
use crate::runtime::Context;
use crate::vms::{
    Claimed, Memory, Seeded, claim, claims_patch, rights_patch, volumes_of, write_seed,
};
use crate::writer::{WriteError, logged};
use crate::{clock, door, evacuation, merge, reconcile};

pub use fleet::readiness::ended;

/// One turn over all moves and hosts to be emptied.
pub async fn turn(context: &Arc<Context>, memory: &mut Memory, policy: &Policy) {
    let migrations = context.stores.migrations.state();
    evacuation::turn(context, &mut memory.evacuations, policy, &migrations).await;
    // Nothing moves, nearly always.
    if migrations.iter().all(|migration| ended(migration)) {
        return;
    }
    let vms = context.stores.vms.state();
    let vms: BTreeMap<_, _> = vms
        .iter()
        .map(|vm| ((vm.namespace(), vm.name_any()), vm))
        .collect();
    let mut load = Load::of(&migrations);
    load.send(&vms, context.planner.own().await.fleet());
    let unseen: BTreeSet<_> = migrations
        .iter()
        .filter(|migration| !ended(migration) && !context.writer.settled(migration.as_ref()))
        .map(|migration| vm_of(migration))
        .collect();
    for (migration, vm) in in_order(&migrations, &vms, &memory.evacuations) {
        // What was written a moment ago may be that another move of the same VM has begun.
        let waits = match sides(migration) {
            None => unseen.contains(&vm_of(migration)),
            Some(_) => !context.writer.settled(migration.as_ref()),
        };
        if waits {
            continue;
        }
        let Some(vm) = vm else {
            if is_gone(context, migration).await {
                let why = "spec.virtualMachine: the VM does not exist";
                finish(context, migration, MigrationPhase::Failed, why).await;
            }
            continue;
        };
        if context.writer.settled(vm.as_ref()) {
            one(context, memory, policy, migration, vm, &mut load).await;
        }
    }
}

async fn one(
    context: &Arc<Context>,
    memory: &mut Memory,
    policy: &Policy,
    migration: &VirtualMachineMigration,
    vm: &VirtualMachine,
    load: &mut Load,
) {
    let status = migration.status.clone().unwrap_or_default();
    let (rights, vm_status) = (door::rights(vm), vm.status.clone().unwrap_or_default());
    let (report, incoming_report) = (
        vm_status.runtime.as_ref().map(door::report),
        vm_status.incoming_runtime.as_ref().map(door::report),
    );
    let told = door::sides(&status);
    let key = migration.uid().unwrap_or_default();
    let begun_at = told
        .sides
        .is_some()
        .then(|| *memory.moves.entry(key.clone()).or_insert_with(clock::now));
    let said = told.sides.as_ref().map(|(source, _)| source);
    let handed_over_at = memory.hand_overs.hear(
        &rights,
        report.as_ref(),
        said.zip(told.source),
        clock::now(),
    );
    let wanted_target = migration.spec.target_host.as_deref().map(HostName::from);
    let sight = |side: Option<&Assignment>| {
        let watch = context.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        side.map_or_else(HostSight::default, |side| watch.sight(side))
    };
    let verdict = decide(
        &MigrationFacts {
            wanted_running: vm.metadata.deletion_timestamp.is_none()
                && vm.spec.run_strategy != api::RunStrategy::Halted,
            cancel: migration.spec.cancel,
            wanted_target: wanted_target.as_ref(),
            other_move: told.sides.is_none() && load.moves(migration),
            begun_at,
            handed_over_at,
            source: told.source,
            target: told.target,
            report: report.as_ref(),
            incoming_report: incoming_report.as_ref(),
            source_host: sight(rights.assignment.as_ref()),
            target_host: sight(rights.incoming.as_ref()),
            pools: volumes_of(context, vm)
                .iter()
                .flatten()
                .map(|volume| volume.spec.pool.clone())
                .collect(),
            abort_requested: status.abort_requested,
            refuse_requested: status.refuse_requested,
            sides: told.sides,
            rights: &rights,
        },
        policy,
        clock::now(),
    );
    let message = verdict.reason.english();
    let name = migration.name_any();
    let result = match verdict.step {
        MigrationStep::Wait => show(context, migration, &message).await,
        MigrationStep::Begin => begin(context, policy, migration, vm, load).await,
        MigrationStep::Record { source, target } => {
            load.begin(migration, [&source.host, &target.host]);
            record(context, migration, vm, &source, &target, None).await
        }
        MigrationStep::RequestAbort => {
            context
                .writer
                .swap_status(
                    migration,
                    json!({"abortRequested": true, "message": message}),
                )
                .await
        }
        MigrationStep::RequestRefuse => {
            context
                .writer
                .swap_status(
                    migration,
                    json!({"refuseRequested": true, "message": message}),
                )
                .await
        }
        MigrationStep::Promote(proof) => {
            let change = assignment::promote(&rights, proof);
            swap(context, vm, change, moved(migration)).await
        }
        MigrationStep::PromoteResumed(proof, report) => {
            let change = assignment::promote_resumed(&rights, proof, &report);
            swap(context, vm, change, moved(migration)).await
        }
        MigrationStep::DropIncoming(proof) => {
            let change = assignment::drop_incoming(&rights, proof);
            swap(context, vm, change, json!({})).await
        }
        MigrationStep::Finish(outcome) => {
            // The watch of VMs may be older than that of moves: a healthy move would be told as over.
            let fails = begun_at.is_some() && outcome != MigrationOutcome::Succeeded;
            if fails && !is_as_cached(context, migration, vm).await {
                return;
            }
            memory.moves.remove(&key);
            let phase = match outcome {
                MigrationOutcome::Succeeded => MigrationPhase::Succeeded,
                MigrationOutcome::Failed => MigrationPhase::Failed,
                MigrationOutcome::Cancelled => MigrationPhase::Cancelled,
            };
            finish(context, migration, phase, &message).await;
            Ok(())
        }
    };
    logged("migration", &name, result);
}

/// A move's VM as the API server holds it now. None: it could not be read, which is asked again at the next turn.
async fn fresh(
    context: &Context,
    migration: &VirtualMachineMigration,
    vm: &str,
) -> Option<Option<VirtualMachine>> {
    let namespace = migration.namespace().unwrap_or_default();
    let vms: Api<VirtualMachine> = Api::namespaced(context.writer.client(), &namespace);
    match vms.get_opt(vm).await {
        Ok(fresh) => Some(fresh),
        Err(error) => {
            tracing::warn!(migration = migration.name_any(), %error, "its VM can not be read");
            None
        }
    }
}

/// Whether a move's VM, which the cache does not show, is gone.
async fn is_gone(context: &Context, migration: &VirtualMachineMigration) -> bool {
    let fresh = fresh(context, migration, &migration.spec.virtual_machine).await;
    fresh.is_some_and(|fresh| fresh.is_none())
}

/// Whether a move's VM still has the rights that the cache shows.
async fn is_as_cached(
    context: &Context,
    migration: &VirtualMachineMigration,
    vm: &VirtualMachine,
) -> bool {
    let fresh = fresh(context, migration, &vm.name_any()).await.flatten();
    fresh.is_some_and(|fresh| {
        fresh.metadata.uid == vm.metadata.uid && door::rights(&fresh) == door::rights(vm)
    })
}

async fn show(
    context: &Context,
    migration: &VirtualMachineMigration,
    message: &str,
) -> Result<(), WriteError> {
    let status = migration.status.clone().unwrap_or_default();
    let copies = status
        .source
        .as_ref()
        .is_some_and(|source| source.phase == MigrationSourcePhase::Migrating);
    let handed_over = status
        .source
        .as_ref()
        .is_some_and(|source| source.phase == MigrationSourcePhase::HandedOver);
    let phase = match (status.source_assignment.is_some(), status.abort_requested) {
        (false, _) => MigrationPhase::Pending,
        (true, true) => MigrationPhase::Cancelling,
        (true, false) if handed_over => MigrationPhase::Completing,
        (true, false) if copies => MigrationPhase::Running,
        (true, false) => MigrationPhase::Preparing,
    };
    if status.phase == phase && status.message.as_deref() == Some(message) {
        return Ok(());
    }
    context
        .writer
        .swap_status(migration, json!({"phase": phase, "message": message}))
        .await
}

/// What is written beside the rights of a VM that has moved: why it is there. Not before, so that it never tells of
/// a host where the VM is not.
fn moved(migration: &VirtualMachineMigration) -> Value {
    why_there::moved(migration).map_or_else(
        || json!({}),
        |report| json!({"placement": why_there::patch(&report)}),
    )
}

/// An ended move: its rights with the fields `beside` them, then the claims, which follow them. Where the leader
/// dies in between, or a volume has changed meanwhile, `vms::mend` writes what is left.
async fn swap(
    context: &Context,
    vm: &VirtualMachine,
    change: Result<failover::RightsChange, failover::AssignmentError>,
    beside: Value,
) -> Result<(), WriteError> {
    let change = match change {
        Ok(change) => change,
        Err(error) => {
            tracing::error!(vm = vm.name_any(), %error, "the move's step is refused");
            return Ok(());
        }
    };
    let mut status = rights_patch(&change);
    merge::add(&mut status, beside);
    context.writer.swap_status(vm, status).await?;
    for volume in volumes_of(context, vm).unwrap_or_default() {
        if let Some(patch) = claims_patch(&context.fleet, change.after(), true, &volume) {
            context.writer.swap_status(volume.as_ref(), patch).await?;
        }
    }
    Ok(())
}

async fn begin(
    context: &Arc<Context>,
    policy: &Policy,
    migration: &VirtualMachineMigration,
    vm: &VirtualMachine,
    load: &mut Load,
) -> Result<(), WriteError> {
    let (rights, uid) = (door::rights(vm), door::uid(vm));
    let Some(source) = rights.assignment.clone() else {
        return Ok(());
    };
    let limits = context.stores.policy().migration;
    let target = migration.spec.target_host.as_deref();
    if let Some(why) = load.full(&limits, &source.host, target) {
        return show(context, migration, &format!("waits for its turn: {why}")).await;
    }
    // The source is no target; a named target is the only one.
    let mut open = context.planner.own().await.fleet().clone();
    if let Some(host) = open.hosts.get_mut(&source.host) {
        host.closed = Some("it runs there".to_owned());
    }
    for (name, host) in &mut open.hosts {
        if migration
            .spec
            .target_host
            .as_ref()
            .is_some_and(|wanted| wanted != name.as_str())
        {
            host.closed = Some("not the host that spec.targetHost names".to_owned());
        } else if let Some(why) = load.host_full(&limits, name) {
            host.closed = Some(why);
        }
    }
    if let Some(fleet_vm) = open.vms.get_mut(&uid) {
        // Its own group's rule looks at the others; its copy on the source is not in the way.
        fleet_vm.incoming = None;
    }
    let choice = match place(&open, &uid, &Default::default()) {
        Ok(choice) => choice,
        Err(refusal) if evacuation::empties(migration).is_some() || evens_out(migration) => {
            // The plan of a moment ago does not hold any more: the next one chooses anew.
            let message = format!("planned anew: {}", refusal.sentence());
            finish(context, migration, MigrationPhase::Cancelled, &message).await;
            return Ok(());
        }
        Err(refusal) => return show(context, migration, &refusal.sentence()).await,
    };
    let boot_id = context
        .hosts
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .placeable(&choice.host, policy);
    let boot_id = match boot_id {
        Ok(boot_id) => boot_id,
        Err(why) => {
            let message = format!("waits for {}: {why}", choice.host);
            return show(context, migration, &message).await;
        }
    };
    let change = match assignment::begin_migration(&rights, choice.host.clone(), boot_id) {
        Ok(change) => change,
        Err(error) => return show(context, migration, &error.to_string()).await,
    };
    let Some(target) = change.after().incoming.clone() else {
        return Ok(());
    };
    let nics = vm.status.clone().unwrap_or_default().nics;
    if let Seeded::Lacks(why) = write_seed(context, vm, &nics, &target).await? {
        return show(context, migration, &why).await;
    }
    match claim(context, vm, &target, "incomingClaim").await? {
        Claimed::All => {}
        Claimed::NotYet => return Ok(()),
        // The VM runs on as it did: it is the move that waits.
        Claimed::Taken(why) => return show(context, migration, &why).await,
    }
    let Some(host) = reconcile::hosts::hold_for_vm(context, &target.host).await? else {
        return Ok(());
    };
    host.write(context.writer.swap_status(vm, rights_patch(&change)))
        .await?;
    context.planner.own().await.begin_move(&uid, &choice.host);
    load.begin(migration, [&source.host, &choice.host]);
    let report = why_there::report(migration, &source.host, &choice);
    record(context, migration, vm, &source, &target, Some(report)).await
}

async fn record(
    context: &Context,
    migration: &VirtualMachineMigration,
    vm: &VirtualMachine,
    source: &Assignment,
    target: &Assignment,
    report: Option<PlacementReport>,
) -> Result<(), WriteError> {
    tracing::info!(vm = vm.name_any(), from = %source.host, to = %target.host, "moves");
    let mut status = json!({"phase": "Preparing", "message": format!("moves from {} to {}", source.host, target.host), "vmUid": vm.uid(),
        "sourceAssignment": source, "targetAssignment": target, "startedAt": clock::wall()});
    if let Some(report) = &report {
        status["placement"] = why_there::patch(report);
    }
    context.writer.swap_status(migration, status).await?;
    let note = why_there::note(migration, &source.host, &target.host, report.as_ref());
    context
        .writer
        .tell(vm, EventType::Normal, "Moves", &note)
        .await;
    Ok(())
}

async fn finish(
    context: &Context,
    migration: &VirtualMachineMigration,
    phase: MigrationPhase,
    message: &str,
) {
    let status = migration.status.clone().unwrap_or_default();
    let now = clock::wall();
    let total = status
        .started_at
        .as_ref()
        .map(|started| now.0.duration_since(started.0).as_millis());
    let pause = status
        .source
        .as_ref()
        .and_then(|source| source.pause_milliseconds);
    let patch = json!({"phase": phase, "message": message, "finishedAt": now, "totalMilliseconds": total.and_then(|total| i64::try_from(total).ok()), "pauseMilliseconds": pause});
    logged(
        "migration",
        &migration.name_any(),
        context.writer.swap_status(migration, patch).await,
    );
}

#[cfg(test)]
mod tests;
