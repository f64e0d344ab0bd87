//! Hosts to be emptied, because their hardware fails or for work on them: asks `placement` for a
//! plan each time that something changed, starts the moves whose turn it is, and tells what can
//! not move and why.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use api::names::LABEL_EVACUATES;
use api::{
    Evacuation, Host, MigrationReason, VirtualMachine, VirtualMachineMigration,
    VirtualMachineMigrationSpec, VirtualMachinePhase,
};
use failover::severity::EvacuationLedger;
use failover::{Moment, Policy};
use kube::ResourceExt;
use kube::api::ObjectMeta;
use model::{HostName, Severity, VmUid};
use placement::{Engine, EvacuationRequest, Fleet, Headroom, Move, Plan, plan_evacuation_on};
use serde_json::{Value, json};

use crate::migrations::ended;
use crate::runtime::Context;
use crate::writer::logged;
use crate::{clock, door};

/// Between two plans: facts change with every step of a move, and a plan of a large host is work.
const PLAN_EVERY: u64 = 1_000;
/// A move that failed is tried again after so many seconds, and after as many more each time.
const RETRY_SECONDS: i64 = 10;
/// Longest such wait, seconds.
const RETRY_SECONDS_MAX: i64 = 120;

/// What the loop remembers of evacuations.
#[derive(Default)]
pub struct Evacuations {
    ledger: EvacuationLedger,
    /// Hosts that this operator began to empty, also where their status does not tell it yet.
    begun: BTreeSet<HostName>,
    planned: Option<Moment>,
}

impl Evacuations {
    /// Another operator leads: what it begins and ends stands in the API, and is taken from there.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

/// The host that is emptied by this move, if the operator made it for that.
pub fn empties(migration: &VirtualMachineMigration) -> Option<&str> {
    let label = migration.labels().get(LABEL_EVACUATES);
    label.map(String::as_str)
}

/// One turn.
pub async fn turn(
    context: &Arc<Context>,
    memory: &mut Evacuations,
    policy: &Policy,
    migrations: &[Arc<VirtualMachineMigration>],
) {
    let now = clock::now();
    if memory
        .planned
        .is_some_and(|planned| now.since(planned) < PLAN_EVERY)
    {
        return;
    }
    memory.planned = Some(now);
    let hosts = context.stores.hosts.state();
    let (mut wanted, mut unwanted) = (BTreeMap::new(), Vec::new());
    for host in &hosts {
        match why(context, host) {
            Some(why) => drop(wanted.insert(HostName(host.name_any()), (host.clone(), why))),
            None => unwanted.push(host.clone()),
        }
    }
    for host in unwanted {
        memory.begun.remove(&HostName(host.name_any()));
        if is_cleared(&host) {
            memory.ledger.forget(&HostName(host.name_any()));
        }
        cancel(context, &host, migrations).await;
    }
    recall(memory, &wanted, now, jiff::Timestamp::now());
    let (permitted, waiting) = permit(memory, &wanted, policy, now);
    if wanted.is_empty() {
        return;
    }
    let request = door::objects(context).evacuation(&context.stores.policy(), permitted);
    let (plan, held) = plan(&*context.planner.own().await, &request, &wanted);
    for (name, (host, why)) in &wanted {
        let left = || here(context, name).len();
        let outcome = match (waiting.get(name), held.get(name)) {
            (Some(reason), _) => Outcome::whole("Waiting", left(), reason.clone()),
            (None, Some(reason)) => Outcome::whole("Blocked", left(), reason.clone()),
            (None, None) => empty(context, &plan, name, *why, migrations).await,
        };
        progress(context, host, *why, outcome).await;
    }
}

/// The plan, with the names of VMs that can not move, and hosts that are not emptied for now and why.
fn plan(
    engine: &Engine,
    request: &EvacuationRequest,
    wanted: &BTreeMap<HostName, (Arc<Host>, Why)>,
) -> (Planned, BTreeMap<HostName, String>) {
    let plan = plan_evacuation_on(engine, request);
    let held = wanted
        .iter()
        .filter(|(name, _)| request.hosts.contains(*name))
        .filter_map(|(name, (_, why))| {
            Some((name.clone(), too_costly(engine, &plan, name, *why)?))
        });
    let held = held.collect();
    let stuck = plan.stuck.iter().map(|stuck| {
        let sentence = format!("{}: {}", label(engine.fleet(), &stuck.vm), stuck.why);
        (stuck.host.clone(), sentence)
    });
    let stuck = stuck.collect();
    let moves = plan.moves;
    (Planned { moves, stuck }, held)
}

/// What came of a plan.
struct Planned {
    moves: Vec<Move>,
    /// Hosts with VMs that can not move, and why, one sentence each.
    stuck: Vec<(HostName, String)>,
}

/// Why a host is to be emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Maintenance,
    Fault(Severity),
}

fn why(context: &Context, host: &Host) -> Option<Why> {
    let maintained = host
        .spec
        .maintenance
        .as_ref()
        .is_some_and(|maintenance| maintenance.evacuate);
    if maintained {
        return Some(Why::Maintenance);
    }
    let watch = context.hosts.lock().unwrap_or_else(PoisonError::into_inner);
    watch.worst(&HostName(host.name_any())).map(Why::Fault)
}

impl Why {
    fn reason(self) -> MigrationReason {
        match self {
            Why::Maintenance => MigrationReason::Maintenance,
            Why::Fault(_) => MigrationReason::HardwareFault,
        }
    }
}

fn standing(host: &Host) -> Option<&Evacuation> {
    host.status.as_ref()?.evacuation.as_ref()
}

/// It was permitted and has not ended. One that waits for its turn is not under way: it would give itself
/// its permit.
fn under_way(host: &Host) -> bool {
    standing(host)
        .is_some_and(|evacuation| evacuation.phase == "Running" || evacuation.phase == "Blocked")
}

/// When a host was last begun to be emptied because of a fault.
fn begun(host: &Host) -> Option<jiff::Timestamp> {
    let evacuation = standing(host)?;
    let of_fault = evacuation.reason == Some(MigrationReason::HardwareFault);
    Some(evacuation.started_at.as_ref().filter(|_| of_fault)?.0)
}

/// Whether a person declared the faults of a host as dealt with since it was last begun to be emptied:
/// the next fault is a new story. A fault that only went away by itself is none.
fn is_cleared(host: &Host) -> bool {
    let clearance = host.spec.fault_clearance.as_ref();
    begun(host).is_none_or(|begun| clearance.is_some_and(|clearance| clearance.at.0 > begun))
}

/// Takes from the API what this operator has not seen begin, so that a new leader keeps to the bound
/// too. `startedAt` is a leader's wall clock; one that runs ahead of this one's bounds as if just begun.
fn recall(
    memory: &mut Evacuations,
    wanted: &BTreeMap<HostName, (Arc<Host>, Why)>,
    now: Moment,
    wall: jiff::Timestamp,
) {
    for (name, (host, _)) in wanted {
        let Some(begun) = begun(host).filter(|_| !is_cleared(host)) else {
            continue;
        };
        let since = wall.duration_since(begun).as_millis();
        let since = u64::try_from(since.max(0)).unwrap_or(u64::MAX);
        let begun = Moment(now.0.saturating_sub(since));
        memory.ledger.recall(name.clone(), begun);
    }
}

/// Which hosts are emptied now, and why others wait. A person's drain always goes; of faulty hosts
/// only so many at once.
fn permit(
    memory: &mut Evacuations,
    wanted: &BTreeMap<HostName, (Arc<Host>, Why)>,
    policy: &Policy,
    now: Moment,
) -> (BTreeSet<HostName>, BTreeMap<HostName, String>) {
    // One that is blocked or held moves nobody, and holds up no other.
    let moves = |name: &HostName, host: &Host| match standing(host).map(|known| &*known.phase) {
        Some("Running") => true,
        Some("Blocked" | "Done") => false,
        _ => memory.begun.contains(name),
    };
    let mut running: BTreeSet<HostName> = wanted
        .iter()
        .filter(|(name, (host, _))| moves(name, host))
        .map(|(name, _)| name.clone())
        .collect();
    let (mut permitted, mut waiting) = (BTreeSet::new(), BTreeMap::new());
    // The worst first.
    let mut order: Vec<_> = wanted.iter().collect();
    order.sort_by_key(|(name, (_, why))| {
        let rank = match why {
            Why::Fault(Severity::Critical) => 0,
            Why::Maintenance => 1,
            Why::Fault(_) => 2,
        };
        (rank, (*name).clone())
    });
    for (name, (host, why)) in order {
        let done = standing(host).is_some_and(|evacuation| evacuation.phase == "Done");
        let goes_on = under_way(host) || memory.begun.contains(name);
        let answer = match why {
            Why::Maintenance => Ok(()),
            // What is empty stays so: a VM that came back would be no new evacuation.
            Why::Fault(_) if done || goes_on => Ok(()),
            Why::Fault(_) => memory.ledger.permit(name, &running, policy, now),
        };
        match answer {
            Ok(()) => {
                if !goes_on && !done {
                    memory.begun.insert(name.clone());
                    if *why != Why::Maintenance {
                        memory.ledger.begin(name.clone(), now);
                    }
                    running.insert(name.clone());
                }
                permitted.insert(name.clone());
            }
            Err(reason) => drop(waiting.insert(name.clone(), reason.english())),
        }
    }
    (permitted, waiting)
}

fn here(context: &Context, host: &HostName) -> Vec<Arc<VirtualMachine>> {
    let assigned = |vm: &Arc<VirtualMachine>| {
        vm.status
            .as_ref()
            .and_then(|status| status.assignment.as_ref())
            .is_some_and(|right| right.host == *host)
    };
    let all = context.stores.vms.state();
    all.into_iter().filter(assigned).collect()
}

/// How far an evacuation is.
struct Outcome {
    remaining: usize,
    /// VMs that can not move and why; or why none does.
    blocked: Vec<String>,
    /// VMs whose move failed and is tried again.
    retried: Vec<String>,
    /// None moves: the phase that says so.
    whole: Option<&'static str>,
}

impl Outcome {
    fn whole(phase: &'static str, remaining: usize, reason: String) -> Self {
        Self {
            remaining,
            blocked: vec![reason],
            retried: Vec::new(),
            whole: Some(phase),
        }
    }
}

/// Starts the moves of one host whose turn it is.
async fn empty(
    context: &Context,
    plan: &Planned,
    name: &HostName,
    why: Why,
    migrations: &[Arc<VirtualMachineMigration>],
) -> Outcome {
    let vms = here(context, name);
    let remaining = vms.len();
    let stuck = plan.stuck.iter().filter(|(host, _)| host == name);
    let blocked: Vec<String> = stuck.map(|(_, sentence)| sentence.clone()).collect();
    let reason = why.reason();
    let (all, mut retried) = (context.stores.vms.state(), Vec::new());
    for step in &plan.moves {
        // A move that makes room for one of this host's belongs to its evacuation.
        let own = step.from == *name
            || plan
                .moves
                .iter()
                .any(|other| other.from == *name && other.after.contains(&step.vm));
        let waits = !step.after.is_empty();
        let vm = all.iter().find(|vm| door::uid(vm) == step.vm);
        let Some(vm) = vm.filter(|_| own && !waits) else {
            continue;
        };
        retried.extend(start(context, vm, &step.to, reason, Some(name), migrations).await);
    }
    Outcome {
        remaining,
        blocked,
        retried,
        whole: None,
    }
}

fn label(fleet: &Fleet, uid: &VmUid) -> String {
    fleet
        .vms
        .get(uid)
        .map_or_else(|| uid.to_string(), |vm| vm.name.to_string())
}

/// A host that is only degraded still carries its VMs: it is not emptied when that would use up the
/// reserve that a dying host needs. Where nothing of it would move, nothing is held back.
fn too_costly(engine: &Engine, plan: &Plan, name: &HostName, why: Why) -> Option<String> {
    let moves = plan.moves.iter().any(|step| step.from == *name);
    if !moves || why != Why::Fault(Severity::Degraded) {
        return None;
    }
    let fleet = engine.fleet();
    let pool = fleet.hosts.get(name)?.pool.clone();
    let mut after = engine.clone();
    for step in &plan.moves {
        after.assign(&step.vm, &step.to);
    }
    match after.prove_headroom(&pool) {
        Headroom::Proven | Headroom::NotPromised => None,
        Headroom::Broken { failure, vm } => Some(format!(
            "its VMs stay for now: with them elsewhere N+1 of pool {pool} would break (if host {failure} failed, {} would find no place); add a host, or empty it with zyctl drain {name}",
            label(fleet, &vm)
        )),
        Headroom::Unknown { failure } => Some(format!(
            "its VMs stay for now: with them elsewhere N+1 of pool {pool} could not be proven for the failure of host {failure}; add a host, or empty it with zyctl drain {name}"
        )),
    }
}

/// Makes the move of one VM unless it has one, or one failed a moment ago; returns why it waits.
/// `empties` is the host that is emptied by it, if one is.
pub async fn start(
    context: &Context,
    vm: &VirtualMachine,
    to: &HostName,
    reason: MigrationReason,
    empties: Option<&HostName>,
    migrations: &[Arc<VirtualMachineMigration>],
) -> Option<String> {
    let status = vm.status.clone().unwrap_or_default();
    if status.phase != Some(VirtualMachinePhase::Running) {
        return None;
    }
    let epoch = status.assignment.as_ref()?.epoch.0;
    let own: Vec<_> = migrations
        .iter()
        .filter(|migration| {
            migration.namespace() == vm.namespace()
                && migration.spec.virtual_machine == vm.name_any()
        })
        .collect();
    if own.iter().any(|migration| !ended(migration)) {
        return None;
    }
    // Named by the epoch that it leaves: another operator makes the same one.
    let prefix = format!("{}-e{epoch}-", vm.name_any());
    let former: Vec<_> = own
        .into_iter()
        .filter(|migration| migration.name_any().starts_with(&prefix))
        .collect();
    if let Some(wait) = retry_after(&former) {
        return Some(format!(
            "{}/{}: {wait}",
            vm.namespace().unwrap_or_default(),
            vm.name_any()
        ));
    }
    let migration = VirtualMachineMigration {
        metadata: ObjectMeta {
            name: Some(format!("{prefix}{}", former.len())),
            namespace: vm.namespace(),
            labels: empties
                .map(|host| BTreeMap::from([(LABEL_EVACUATES.to_owned(), host.to_string())])),
            ..ObjectMeta::default()
        },
        spec: VirtualMachineMigrationSpec {
            virtual_machine: vm.name_any(),
            target_host: Some(to.to_string()),
            reason,
            cancel: false,
        },
        status: None,
    };
    let result = context.writer.create(&migration).await;
    logged("migration", &migration.name_any(), result);
    None
}

/// Why a VM whose move failed is not tried again at once.
fn retry_after(former: &[&Arc<VirtualMachineMigration>]) -> Option<String> {
    let failed: Vec<_> = former
        .iter()
        .filter_map(|migration| migration.status.as_ref())
        .filter(|status| status.phase == api::MigrationPhase::Failed)
        .collect();
    let last = failed
        .iter()
        .max_by_key(|status| status.finished_at.as_ref().map(|at| at.0))?;
    let count = i64::try_from(failed.len()).unwrap_or(RETRY_SECONDS_MAX);
    let wait = (RETRY_SECONDS * count).min(RETRY_SECONDS_MAX);
    let since = jiff::Timestamp::now().as_second() - last.finished_at.as_ref()?.0.as_second();
    (since < wait).then(|| {
        format!(
            "its move failed {count} times and is tried again: {}",
            last.message.clone().unwrap_or_default()
        )
    })
}

/// A host that is not to be emptied any more: every move that the operator made to empty it is taken back,
/// those that make room on other hosts too, unless the guest has been handed over already.
async fn cancel(context: &Context, host: &Host, migrations: &[Arc<VirtualMachineMigration>]) {
    let name = host.name_any();
    let open = migrations.iter().filter(|migration| {
        !ended(migration) && !migration.spec.cancel && empties(migration) == Some(name.as_str())
    });
    for migration in open {
        let result = context
            .writer
            .spec(migration.as_ref(), json!({"cancel": true}))
            .await;
        logged("migration", &migration.name_any(), result);
    }
    let waits = standing(host).is_some_and(|evacuation| evacuation.phase == "Waiting");
    if under_way(host) || waits {
        let patch = json!({"evacuation": {"phase": "Cancelled", "remaining": 0, "blocked": [], "finishedAt": clock::wall()}});
        let result = context.writer.status(host, patch).await;
        logged("evacuation", &name, result);
    }
}

async fn progress(context: &Context, host: &Host, why: Why, outcome: Outcome) {
    let Some(patch) = told(standing(host), why, outcome) else {
        return;
    };
    let result = context
        .writer
        .status(host, json!({"evacuation": patch}))
        .await;
    logged("evacuation", &host.name_any(), result);
}

/// What is to be written about an evacuation, if it changed. One that waits for its turn has not begun:
/// it leaves `startedAt` to the one before it.
fn told(standing: Option<&Evacuation>, why: Why, outcome: Outcome) -> Option<Value> {
    let Outcome {
        remaining,
        mut blocked,
        retried,
        whole,
    } = outcome;
    let phase = match (remaining, whole) {
        (0, _) => "Done",
        (_, Some(phase)) => phase,
        (remaining, None) if !blocked.is_empty() && remaining <= blocked.len() => "Blocked",
        _ => "Running",
    };
    blocked.extend(retried);
    blocked.sort();
    let remaining = i32::try_from(remaining).unwrap_or(i32::MAX);
    let same = standing.is_some_and(|known| {
        known.phase == phase && known.remaining == remaining && known.blocked == blocked
    });
    if same {
        return None;
    }
    let mut patch: Value = json!({"phase": phase, "remaining": remaining, "blocked": blocked});
    let is_new = standing
        .is_none_or(|known| matches!(known.phase.as_str(), "Done" | "Cancelled" | "Waiting"));
    if is_new && phase != "Waiting" {
        patch["startedAt"] = json!(clock::wall());
        patch["reason"] = json!(why.reason());
    }
    patch["finishedAt"] = if phase == "Done" {
        json!(clock::wall())
    } else {
        Value::Null
    };
    Some(patch)
}

#[cfg(test)]
#[path = "evacuation_tests.rs"]
mod tests;
