//! VMs: asks `failover` what is to be done about each, `placement` where, and writes claims and
//! assignments by compare-and-swap. The only writer of assignments.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::names::{FINALIZER, LABEL_SYSTEM};
use api::{Nic, RunStrategy, VirtualMachine, VirtualMachinePhase, Volume};
use failover::recovery::{Candidate, RecoveryClock, TierFact, Tiers, slot};
use failover::vm::{
    Failures, HostSight, VmDecision, VmFacts, VmPhase, VmVerdict, Volumes, Wanted, decide,
};
use failover::{Moment, Policy, RightsChange, assignment};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt};
use model::{Assignment, Claim, ClaimHolder, HostName, NamespacedName, VmUid};
use placement::{Fleet, Headroom, place, prove_headroom};
use serde_json::{Value, json};

use crate::probes::{Seen, endpoint_key};
use crate::runtime::Context;
use crate::writer::{WriteError, logged};
use crate::{clock, door, migrations, reconcile, seed};

/// What the loop remembers between turns.
#[derive(Default)]
pub struct Memory {
    recovery: RecoveryClock,
    failures: BTreeMap<VmUid, (Failures, i64)>,
    /// Moves under way, by migration uid: when this operator saw them begin.
    pub moves: BTreeMap<String, Moment>,
}

/// One turn over all VMs and moves.
pub async fn turn(context: &Arc<Context>, memory: &mut Memory) {
    let policy = door::policy(&context.stores.policy());
    let mut fleet = door::fleet(context, &policy);
    let vms = context.stores.vms.state();
    let now = clock::now();
    let mut verdicts = Vec::new();
    for vm in vms.iter().filter(|vm| context.writer.settled(vm.as_ref())) {
        let failures = count_failures(memory, vm, now);
        verdicts.push((vm.clone(), judge(context, vm, failures, &policy, now)));
    }
    let turns = memory
        .recovery
        .turns(&candidates(&verdicts), &tiers(context, &vms), now);
    let mut starting = starting(&vms);
    let mut work = Vec::new();
    for (vm, verdict) in verdicts {
        if let Some(reason) = turns.wait.get(&door::uid(&vm)) {
            work.push(Work::Show(vm, verdict.phase, reason.english(), None));
            continue;
        }
        plan(
            context,
            &mut fleet,
            &mut starting,
            vm,
            verdict,
            &policy,
            &mut work,
        );
    }
    futures::future::join_all(work.into_iter().map(|work| carry_out(context, work))).await;
    migrations::turn(context, memory, &mut fleet, &policy).await;
}

/// Something to write about one VM.
enum Work {
    /// A phase, message and, where one was decided, the placement's report.
    Show(Arc<VirtualMachine>, VmPhase, String, Option<Value>),
    /// New rights, with volumes to claim first.
    Assign(
        Arc<VirtualMachine>,
        Box<RightsChange>,
        VmPhase,
        String,
        Value,
    ),
    /// Rights taken away.
    Clear(Arc<VirtualMachine>, Box<RightsChange>),
    /// Claims released, finalizer removed.
    Finalize(Arc<VirtualMachine>),
}

fn wanted(vm: &VirtualMachine) -> Wanted {
    match (
        vm.metadata.deletion_timestamp.is_some(),
        vm.spec.run_strategy,
    ) {
        (true, _) => Wanted::Deleted,
        (false, RunStrategy::Always) => Wanted::Running,
        (false, RunStrategy::RestartOnFailure) => Wanted::RunningUntilShutDown,
        (false, RunStrategy::Halted) => Wanted::Halted,
    }
}

/// Counts copies that closed by failure, from epoch to epoch.
fn count_failures(memory: &mut Memory, vm: &VirtualMachine, now: Moment) -> Failures {
    let status = vm.status.clone().unwrap_or_default();
    let entry = memory.failures.entry(door::uid(vm)).or_default();
    let Some(runtime) = status.runtime else {
        return entry.0;
    };
    let failed = runtime.phase == api::RuntimePhase::Closed
        && matches!(
            runtime.close_reason,
            Some(
                api::CloseReason::Crashed
                    | api::CloseReason::StartFailed
                    | api::CloseReason::Declined
            )
        );
    if failed && entry.1 != runtime.assignment.epoch.0 {
        *entry = (
            Failures {
                in_a_row: entry.0.in_a_row + 1,
                last_seen_at: Some(now),
            },
            runtime.assignment.epoch.0,
        );
    }
    let long_ago = entry
        .0
        .last_seen_at
        .is_some_and(|at| now.since(at) > Policy::default().back_off_reset_milliseconds);
    if long_ago && runtime.phase == api::RuntimePhase::Running {
        entry.0 = Failures::default();
    }
    entry.0
}

/// A VM's volumes, in the order of its disks; none where one does not exist.
pub fn volumes_of(context: &Context, vm: &VirtualMachine) -> Option<Vec<Arc<Volume>>> {
    let all = context.stores.volumes.state();
    let find = |name: &str| {
        all.iter()
            .find(|volume| volume.name_any() == name && volume.namespace() == vm.namespace())
            .cloned()
    };
    vm.spec
        .disks
        .iter()
        .map(|disk| find(&disk.volume))
        .collect()
}

fn judge(
    context: &Context,
    vm: &VirtualMachine,
    failures: Failures,
    policy: &Policy,
    now: Moment,
) -> VmVerdict {
    let rights = door::rights(vm);
    let status = vm.status.clone().unwrap_or_default();
    let (report, incoming_report) = (
        status.runtime.as_ref().map(door::report),
        status.incoming_runtime.as_ref().map(door::report),
    );
    let watch = context
        .hosts
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let sight = |assignment: &Option<Assignment>| {
        assignment
            .as_ref()
            .map_or_else(HostSight::default, |assignment| watch.sight(assignment))
    };
    let volumes = volumes_of(context, vm);
    let waiting = match &volumes {
        None => Some("a volume of spec.disks does not exist yet".to_owned()),
        Some(volumes) => volumes
            .iter()
            .find(|volume| {
                volume
                    .status
                    .as_ref()
                    .and_then(|status| status.phase.as_deref())
                    != Some("Ready")
            })
            .map(|volume| format!("volume {}", volume.name_any())),
    };
    let pinned = volumes
        .iter()
        .flatten()
        .find_map(|volume| volume.status.as_ref()?.pinned_host.clone());
    decide(
        &VmFacts {
            wanted: wanted(vm),
            report: report.as_ref(),
            incoming_report: incoming_report.as_ref(),
            host: sight(&rights.assignment),
            incoming_host: sight(&rights.incoming),
            volumes: waiting.map_or(Volumes::Ready, Volumes::NotReady),
            pinned_to: pinned.map(HostName),
            restart_elsewhere: vm.spec.high_availability == api::HighAvailability::Restart,
            failures,
            rights: &rights,
        },
        policy,
        now,
    )
}

fn system_of(vm: &VirtualMachine) -> Option<NamespacedName> {
    Some(NamespacedName::new(
        vm.namespace()?,
        vm.labels().get(LABEL_SYSTEM)?.clone(),
    ))
}

fn candidates(verdicts: &[(Arc<VirtualMachine>, VmVerdict)]) -> Vec<Candidate> {
    let starts = |verdict: &VmVerdict| {
        matches!(
            verdict.decision,
            VmDecision::Place { .. } | VmDecision::Restart { .. }
        )
    };
    verdicts
        .iter()
        .filter(|(_, verdict)| starts(verdict))
        .map(|(vm, _)| Candidate {
            vm: door::uid(vm),
            system: system_of(vm),
            priority: vm.spec.priority,
            order: vm.spec.restart_order,
        })
        .collect()
}

/// What is known about each tier that others wait for.
fn tiers(context: &Context, vms: &[Arc<VirtualMachine>]) -> Tiers {
    let mut tiers = Tiers::new();
    for system in context.stores.systems.state() {
        let name = NamespacedName::new(system.namespace().unwrap_or_default(), system.name_any());
        for tier in &system.spec.tiers {
            let members = crate::probes::replicas(&system, &tier.name, vms);
            let runs = members.iter().all(|vm| {
                vm.status.as_ref().and_then(|status| status.phase)
                    == Some(VirtualMachinePhase::Running)
            });
            let endpoint = system
                .spec
                .endpoints
                .iter()
                .find(|endpoint| endpoint.tier == tier.name);
            let answers = endpoint.map(|endpoint| {
                context.probes.endpoint(&endpoint_key(&system, endpoint)).0 == Seen::Up
            });
            let fact = TierFact {
                answers,
                runs,
                timeout_milliseconds: u64::try_from(tier.start_timeout_seconds).unwrap_or(120)
                    * 1000,
            };
            tiers
                .entry((name.clone(), tier.restart_order))
                .and_modify(|known| {
                    known.runs &= fact.runs;
                    known.answers = match (known.answers, fact.answers) {
                        (Some(one), Some(two)) => Some(one && two),
                        (one, two) => one.or(two),
                    };
                })
                .or_insert(fact);
        }
    }
    tiers
}

/// How many VMs each host is starting.
fn starting(vms: &[Arc<VirtualMachine>]) -> BTreeMap<HostName, u32> {
    let mut count = BTreeMap::new();
    for vm in vms {
        let status = vm.status.clone().unwrap_or_default();
        let Some(assignment) = status.assignment else {
            continue;
        };
        let runs = status.runtime.is_some_and(|runtime| {
            runtime.assignment == assignment
                && runtime.phase != api::RuntimePhase::Starting
                && runtime.phase != api::RuntimePhase::Preparing
        });
        if !runs {
            *count.entry(assignment.host).or_insert(0) += 1;
        }
    }
    count
}

/// Turns a verdict into work, and keeps the fleet true for the VMs that follow.
fn plan(
    context: &Context,
    fleet: &mut Fleet,
    starting: &mut BTreeMap<HostName, u32>,
    vm: Arc<VirtualMachine>,
    verdict: VmVerdict,
    policy: &Policy,
    work: &mut Vec<Work>,
) {
    let message = verdict
        .reasons
        .iter()
        .map(failover::Reason::english)
        .collect::<Vec<_>>()
        .join("; ");
    let (rights, uid) = (door::rights(&vm), door::uid(&vm));
    let (only, avoid, recovery, stopped) = match verdict.decision {
        VmDecision::Wait => return work.push(Work::Show(vm, verdict.phase, message, None)),
        VmDecision::Finalize => return work.push(Work::Finalize(vm)),
        VmDecision::Clear { stopped } => {
            match assignment::clear(&rights, stopped) {
                Ok(change) => work.push(Work::Clear(vm, Box::new(change))),
                Err(error) => work.push(Work::Show(vm, verdict.phase, error.to_string(), None)),
            }
            return;
        }
        VmDecision::Place { only } => (only, BTreeSet::new(), false, None),
        VmDecision::Restart {
            stopped,
            only,
            avoid,
            recovery,
        } => (only, avoid, recovery, Some(stopped)),
    };
    if let Some(fleet_vm) = fleet.vms.get_mut(&uid) {
        // Its proven-dead copy takes no room any more.
        (fleet_vm.host, fleet_vm.incoming) = (None, None);
        if let Some(only) = only {
            fleet_vm.pinned_to = Some(only);
        }
    }
    let choice = match place(fleet, &uid, &avoid) {
        Ok(choice) => choice,
        Err(refusal) => {
            let report = json!({"message": refusal.sentence(), "removed": refusal.lines(), "reasons": [], "host": null});
            let phase = if recovery {
                VmPhase::Recovering
            } else {
                VmPhase::Pending
            };
            return work.push(Work::Show(vm, phase, refusal.sentence(), Some(report)));
        }
    };
    if let Err(reason) = slot(
        &choice.host,
        starting.get(&choice.host).copied().unwrap_or(0),
        policy,
    ) {
        return work.push(Work::Show(vm, verdict.phase, reason.english(), None));
    }
    if let Some(fleet_vm) = fleet.vms.get_mut(&uid) {
        fleet_vm.host = Some(choice.host.clone());
    }
    if !recovery
        && stopped.is_none()
        && let Some(why) = breaks_headroom(fleet, &choice.host, &uid)
    {
        if let Some(fleet_vm) = fleet.vms.get_mut(&uid) {
            fleet_vm.host = None;
        }
        let report = json!({"message": why, "removed": [], "reasons": [], "host": null});
        return work.push(Work::Show(vm, VmPhase::Pending, why, Some(report)));
    }
    let boot_id = context
        .hosts
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .placeable(&choice.host, policy);
    let boot_id = match boot_id {
        Ok(boot_id) => boot_id,
        Err(why) => return work.push(Work::Show(vm, verdict.phase, why, None)),
    };
    let phase = if stopped.is_some() {
        VmPhase::Recovering
    } else {
        VmPhase::Starting
    };
    let change = match stopped {
        Some(stopped) => assignment::restart(&rights, stopped, choice.host.clone(), boot_id),
        None => assignment::first(&rights, choice.host.clone(), boot_id),
    };
    match change {
        Ok(change) => {
            *starting.entry(choice.host.clone()).or_insert(0) += 1;
            let report = json!({"host": choice.host, "message": format!("placed on {}", choice.host), "reasons": choice.reasons, "removed": []});
            work.push(Work::Assign(vm, Box::new(change), phase, message, report));
        }
        Err(error) => work.push(Work::Show(vm, verdict.phase, error.to_string(), None)),
    }
}

/// Why a new VM may not go there: the pool would no longer survive the loss of a host.
fn breaks_headroom(fleet: &Fleet, host: &HostName, uid: &VmUid) -> Option<String> {
    let pool = &fleet.hosts.get(host)?.pool;
    let name = &fleet.vms.get(uid)?.name;
    match prove_headroom(fleet, pool) {
        Headroom::Proven | Headroom::NotPromised => None,
        Headroom::Broken { failure, vm } => {
            let lost = fleet
                .vms
                .get(&vm)
                .map_or_else(|| vm.to_string(), |vm| vm.name.to_string());
            Some(format!(
                "N+1 of pool {pool} would break: if host {failure} failed, {lost} would find no place; add a host or remove a VM before starting {name}"
            ))
        }
        Headroom::Unknown { failure } => Some(format!(
            "N+1 of pool {pool} could not be proven for the failure of host {failure}; add a host or remove a VM before starting {name}"
        )),
    }
}

async fn carry_out(context: &Arc<Context>, work: Work) {
    match work {
        Work::Show(vm, phase, message, placement) => {
            show(context, &vm, phase, &message, placement).await
        }
        Work::Assign(vm, change, phase, message, placement) => {
            let result = assign(context, &vm, &change, phase, &message, placement).await;
            logged("assignment", &vm.name_any(), result);
        }
        Work::Clear(vm, change) => {
            let mut status = rights_patch(&change);
            status["phase"] = json!("Stopped");
            status["message"] = json!("shut down");
            logged(
                "assignment",
                &vm.name_any(),
                context.writer.swap_status(vm.as_ref(), status).await,
            );
        }
        Work::Finalize(vm) => finalize(context, &vm).await,
    }
}

/// The rights as a merge patch: what is gone is cleared.
pub fn rights_patch(change: &RightsChange) -> Value {
    let after = change.after();
    json!({"assignment": after.assignment, "incoming": after.incoming, "lastEpoch": after.last_epoch, "proofs": after.proofs})
}

/// Phase and message, when they changed; claims of a VM that has no right are released.
async fn show(
    context: &Context,
    vm: &VirtualMachine,
    phase: VmPhase,
    message: &str,
    placement: Option<Value>,
) {
    let status = vm.status.clone().unwrap_or_default();
    let mut changes = serde_json::Map::new();
    let phase = format!("{phase:?}");
    if json!(status.phase) != json!(phase) {
        changes.insert("phase".to_owned(), json!(phase));
    }
    if status.message.as_deref() != Some(message) {
        changes.insert("message".to_owned(), json!(message));
    }
    if let Some(placement) = placement.filter(|placement| {
        status
            .placement
            .as_ref()
            .is_none_or(|known| json!(known.message) != placement["message"])
    }) {
        changes.insert("placement".to_owned(), placement);
    }
    if !changes.is_empty() {
        logged(
            "VM",
            &vm.name_any(),
            context.writer.swap_status(vm, Value::Object(changes)).await,
        );
    }
    if status.assignment.is_none() && status.incoming.is_none() {
        release(context, vm).await;
    }
}

/// Releases every claim that this VM holds.
async fn release(context: &Context, vm: &VirtualMachine) {
    let uid = vm.metadata.uid.clone().unwrap_or_default();
    for volume in volumes_of(context, vm).unwrap_or_default() {
        let status = volume.status.clone().unwrap_or_default();
        let held = |claim: &Option<Claim>| claim.as_ref().is_some_and(|claim| claim.uid == uid);
        if held(&status.claim) || held(&status.incoming_claim) {
            logged(
                "claim",
                &volume.name_any(),
                context
                    .writer
                    .swap_status(
                        volume.as_ref(),
                        json!({"claim": null, "incomingClaim": null}),
                    )
                    .await,
            );
        }
    }
}

async fn finalize(context: &Context, vm: &VirtualMachine) {
    release(context, vm).await;
    let held = volumes_of(context, vm)
        .unwrap_or_default()
        .iter()
        .any(|volume| {
            volume
                .status
                .as_ref()
                .and_then(|status| status.claim.as_ref())
                .is_some_and(|claim| Some(&claim.uid) == vm.metadata.uid.as_ref())
        });
    let finalizers: Vec<&String> = vm
        .finalizers()
        .iter()
        .filter(|name| *name != FINALIZER)
        .collect();
    if !held && finalizers.len() != vm.finalizers().len() {
        logged(
            "finalizer",
            &vm.name_any(),
            context
                .writer
                .metadata(vm, json!({"finalizers": finalizers}))
                .await,
        );
    }
}

/// Addresses, seed, claims in order of uid, then the assignment.
async fn assign(
    context: &Arc<Context>,
    vm: &VirtualMachine,
    change: &RightsChange,
    phase: VmPhase,
    message: &str,
    placement: Value,
) -> Result<(), WriteError> {
    let Some(right) = change.after().assignment.clone() else {
        return Ok(());
    };
    if !vm.finalizers().iter().any(|name| name == FINALIZER) {
        let mut finalizers = vm.finalizers().to_vec();
        finalizers.push(FINALIZER.to_owned());
        return context
            .writer
            .metadata(vm, json!({"finalizers": finalizers}))
            .await;
    }
    let nics = match reconcile::addresses::of(context, vm) {
        Ok(nics) => nics,
        Err(why) => {
            show(context, vm, VmPhase::Pending, &why, None).await;
            return Ok(());
        }
    };
    write_seed(context, vm, &nics, &right).await?;
    if !claim(context, vm, &right, "claim").await? {
        return Ok(());
    }
    let mut status = rights_patch(change);
    status["nics"] = json!(nics);
    status["phase"] = json!(format!("{phase:?}"));
    status["message"] = json!(message);
    status["placement"] = placement;
    context.writer.swap_status(vm, status).await?;
    tracing::info!(vm = vm.name_any(), host = %right.host, epoch = right.epoch.0, "assigned");
    Ok(())
}

/// Copies the VM's seed to the namespace that only the host's agent reads.
pub async fn write_seed(
    context: &Context,
    vm: &VirtualMachine,
    nics: &[Nic],
    right: &Assignment,
) -> Result<(), WriteError> {
    let user_data = match (&vm.spec.cloud_init, vm.namespace()) {
        (Some(reference), Some(namespace)) => {
            let secrets: Api<Secret> = Api::namespaced(context.writer.client(), &namespace);
            let secret = secrets.get(&reference.name).await?;
            secret
                .data
                .and_then(|mut data| data.remove("user-data"))
                .map(|data| data.0)
                .unwrap_or_default()
        }
        _ => b"#cloud-config\n".to_vec(),
    };
    let networks: Vec<_> = context
        .stores
        .networks
        .state()
        .iter()
        .map(|network| network.as_ref().clone())
        .collect();
    context
        .writer
        .apply(&seed::secret(
            vm,
            nics,
            &networks,
            user_data,
            right.host.as_str(),
        ))
        .await
}

/// Claims all volumes for a right, in order of uid; false when one is another's.
pub async fn claim(
    context: &Context,
    vm: &VirtualMachine,
    right: &Assignment,
    field: &str,
) -> Result<bool, WriteError> {
    let uid = vm.metadata.uid.clone().unwrap_or_default();
    let Some(mut volumes) = volumes_of(context, vm) else {
        return Ok(false);
    };
    volumes.sort_by_key(|volume| volume.metadata.uid.clone());
    let wanted = Claim {
        fleet: context.fleet.clone(),
        holder: ClaimHolder::VirtualMachine,
        uid: uid.clone(),
        assignment: right.clone(),
    };
    for volume in volumes {
        let status = volume.status.clone().unwrap_or_default();
        let standing = if field == "claim" {
            status.claim
        } else {
            status.incoming_claim
        };
        if standing.as_ref() == Some(&wanted) {
            continue;
        }
        if let Some(other) = standing.filter(|claim| claim.uid != uid) {
            let message = format!(
                "volume {} is claimed by {:?} {}; detach it there first",
                volume.name_any(),
                other.holder,
                other.uid
            );
            show(context, vm, VmPhase::Pending, &message, None).await;
            return Ok(false);
        }
        if !context.writer.settled(volume.as_ref()) {
            return Ok(false);
        }
        context
            .writer
            .swap_status(volume.as_ref(), json!({field: wanted}))
            .await?;
    }
    Ok(true)
}
