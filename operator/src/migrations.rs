//! Moves: asks `failover` what is to be done about each, chooses targets, and writes `incoming`,
//! claims and requests. Hosts that are to be emptied get a move for each of their VMs.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use api::{MigrationPhase, MigrationSourcePhase, VirtualMachine, VirtualMachineMigration};
use failover::migration::{MigrationFacts, MigrationOutcome, MigrationStep, decide};
use failover::vm::HostSight;
use failover::{Policy, assignment};
use kube::ResourceExt;
use model::{Assignment, HostName};
use placement::place;
use serde_json::json;

use crate::reconcile::rebalance;
use crate::runtime::Context;
use crate::vms::{Memory, claim, claims_patch, rights_patch, volumes_of, write_seed};
use crate::writer::{WriteError, logged};
use crate::{clock, door, evacuation};

/// One turn over all moves and hosts to be emptied.
pub async fn turn(context: &Arc<Context>, memory: &mut Memory, policy: &Policy) {
    let migrations = context.stores.migrations.state();
    evacuation::turn(context, &mut memory.evacuations, policy, &migrations).await;
    let vms = context.stores.vms.state();
    let mut load = load(&migrations);
    for migration in migrations {
        if ended(&migration) || !context.writer.settled(migration.as_ref()) {
            continue;
        }
        let vm = vms.iter().find(|vm| {
            vm.name_any() == migration.spec.virtual_machine
                && vm.namespace() == migration.namespace()
        });
        let Some(vm) = vm else {
            finish(
                context,
                &migration,
                MigrationPhase::Failed,
                "spec.virtualMachine: the VM does not exist",
            )
            .await;
            continue;
        };
        if context.writer.settled(vm.as_ref()) {
            one(context, memory, policy, &migration, vm, &mut load).await;
        }
    }
}

/// Whether a move is over, however it ended.
pub fn ended(migration: &VirtualMachineMigration) -> bool {
    let phase = migration
        .status
        .as_ref()
        .map(|status| status.phase)
        .unwrap_or_default();
    matches!(
        phase,
        MigrationPhase::Succeeded | MigrationPhase::Failed | MigrationPhase::Cancelled
    )
}

/// Moves under way that each host sends or receives.
fn load(migrations: &[Arc<VirtualMachineMigration>]) -> BTreeMap<HostName, i32> {
    let mut load = BTreeMap::new();
    for migration in migrations.iter().filter(|migration| !ended(migration)) {
        let status = migration.status.clone().unwrap_or_default();
        for side in status
            .source_assignment
            .iter()
            .chain(&status.target_assignment)
        {
            *load.entry(side.host.clone()).or_insert(0) += 1;
        }
    }
    load
}

async fn one(
    context: &Arc<Context>,
    memory: &mut Memory,
    policy: &Policy,
    migration: &VirtualMachineMigration,
    vm: &VirtualMachine,
    load: &mut BTreeMap<HostName, i32>,
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
    let sight = |side: Option<&Assignment>| {
        let watch = context.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        side.map_or_else(HostSight::default, |side| watch.sight(side))
    };
    let verdict = decide(
        &MigrationFacts {
            wanted_running: vm.metadata.deletion_timestamp.is_none()
                && vm.spec.run_strategy != api::RunStrategy::Halted,
            cancel: migration.spec.cancel,
            begun_at,
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
            record(context, migration, vm, &source, &target).await
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
            swap(context, vm, assignment::promote(&rights, proof)).await
        }
        MigrationStep::PromoteResumed(proof, report) => {
            swap(
                context,
                vm,
                assignment::promote_resumed(&rights, proof, &report),
            )
            .await
        }
        MigrationStep::DropIncoming(proof) => {
            swap(context, vm, assignment::drop_incoming(&rights, proof)).await
        }
        MigrationStep::Finish(outcome) => {
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

/// An ended move: its rights, then the claims, which follow them. Where the leader dies in between, or a
/// volume has changed meanwhile, `vms::mend` writes what is left.
async fn swap(
    context: &Context,
    vm: &VirtualMachine,
    change: Result<failover::RightsChange, failover::AssignmentError>,
) -> Result<(), WriteError> {
    let change = match change {
        Ok(change) => change,
        Err(error) => {
            tracing::error!(vm = vm.name_any(), %error, "the move's step is refused");
            return Ok(());
        }
    };
    context
        .writer
        .swap_status(vm, rights_patch(&change))
        .await?;
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
    load: &mut BTreeMap<HostName, i32>,
) -> Result<(), WriteError> {
    let (rights, uid) = (door::rights(vm), door::uid(vm));
    let Some(source) = rights.assignment.clone() else {
        return Ok(());
    };
    let limit = context.stores.policy().migration.per_host;
    let full = |host: &HostName, load: &BTreeMap<HostName, i32>| {
        load.get(host).copied().unwrap_or(0) >= limit
    };
    if full(&source.host, load) {
        return show(
            context,
            migration,
            &format!(
                "waits for its turn: host {} sends {limit} VMs already",
                source.host
            ),
        )
        .await;
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
        } else if full(name, load) {
            host.closed = Some(format!("receives {limit} VMs already"));
        }
    }
    if let Some(fleet_vm) = open.vms.get_mut(&uid) {
        // Its own group's rule looks at the others; its copy on the source is not in the way.
        fleet_vm.incoming = None;
    }
    let choice = match place(&open, &uid, &Default::default()) {
        Ok(choice) => choice,
        Err(refusal) if evacuation::empties(migration).is_some() || rebalance::made(migration) => {
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
    let Ok(boot_id) = boot_id else { return Ok(()) };
    let change = match assignment::begin_migration(&rights, choice.host.clone(), boot_id) {
        Ok(change) => change,
        Err(error) => return show(context, migration, &error.to_string()).await,
    };
    let Some(target) = change.after().incoming.clone() else {
        return Ok(());
    };
    let nics = vm.status.clone().unwrap_or_default().nics;
    write_seed(context, vm, &nics, &target).await?;
    if !claim(context, vm, &target, "incomingClaim").await? {
        return Ok(());
    }
    context
        .writer
        .swap_status(vm, rights_patch(&change))
        .await?;
    context.planner.own().await.begin_move(&uid, &choice.host);
    for host in [&source.host, &choice.host] {
        *load.entry(host.clone()).or_insert(0) += 1;
    }
    record(context, migration, vm, &source, &target).await
}

async fn record(
    context: &Context,
    migration: &VirtualMachineMigration,
    vm: &VirtualMachine,
    source: &Assignment,
    target: &Assignment,
) -> Result<(), WriteError> {
    tracing::info!(vm = vm.name_any(), from = %source.host, to = %target.host, "moves");
    let status = json!({"phase": "Preparing", "message": format!("moves from {} to {}", source.host, target.host), "vmUid": vm.uid(),
        "sourceAssignment": source, "targetAssignment": target, "startedAt": clock::wall()});
    context.writer.swap_status(migration, status).await
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
