//! Hosts to be emptied, because their hardware fails or for work on them: asks `placement` for a
//! plan each time that something changed, starts the moves whose turn it is, and tells what can
//! not move and why.
//!
//! `permit` says which hosts are emptied now, `tries` what becomes of moves that failed, `told` what is shown.

mod moves;
mod permit;
mod told;
mod tries;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::names::{ANNOTATION_WHY, LABEL_EVACUATES};
use api::{
    Host, MigrationReason, VirtualMachine, VirtualMachineMigration, VirtualMachineMigrationSpec,
    VirtualMachinePhase,
};
use failover::severity::EvacuationLedger;
use failover::{Moment, Policy};
use fleet::Objects;
use fleet::readiness::{Others, Readiness, ended};
use kube::ResourceExt;
use kube::api::ObjectMeta;
use model::{HostName, Priority, Severity, VmUid};
use placement::{
    Engine, EvacuationRequest, Fleet, Headroom, Move, Plan, Stuck, plan_evacuation_on,
};
use serde_json::json;

pub use self::moves::Moves;
use self::permit::{Why, is_cleared, permit, recall, standing, under_way, why};
use self::told::{Outcome, progress};
use self::tries::Refusals;
use crate::runtime::Context;
use crate::writer::{WriteError, logged};
use crate::{clock, door};

/// Between two plans: facts change with every step of a move, and a plan of a large host is work.
const PLAN_EVERY: u64 = 1_000;
/// So long a VM is waited for that starts, stops or is moved by somebody else, milliseconds: twice what a guest has
/// to shut down, and longer than a start takes. Then it is told as blocked for as long as it is so.
const WAITS_MAX: u64 = 120_000;

/// What the loop remembers of evacuations.
#[derive(Default)]
pub struct Evacuations {
    ledger: EvacuationLedger,
    /// Hosts that this operator began to empty, also where their status does not tell it yet.
    begun: BTreeSet<HostName>,
    planned: Option<Moment>,
    /// How urgent each planned move is, and its place in the plan.
    order: BTreeMap<VmUid, (Priority, usize)>,
    /// VMs that are waited for, and since when.
    waits: BTreeMap<VmUid, Moment>,
    /// Moves that the API server did not take.
    refusals: Refusals,
}

impl Evacuations {
    /// Another operator leads: what it begins and ends stands in the API, and is taken from there.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// How urgent the planned move of a VM is, and its place in the plan; none where it has none.
    pub fn turn_of(&self, vm: &VmUid) -> Option<(Priority, usize)> {
        self.order.get(vm).copied()
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
    memory.order.clear();
    let (permitted, waiting) = permit(memory, &wanted, policy, now);
    if wanted.is_empty() {
        return;
    }
    let objects = door::objects(context);
    let mut request = objects.evacuation(&context.stores.policy(), permitted, migrations);
    let tries = Tries::of(&wanted, &hosts, policy);
    memory.refusals.retain(&objects.vms);
    let made = (migrations, &memory.refusals);
    for (vm, why) in tries::exhausted(&objects.vms, made, &tries.from, policy) {
        request.fixed.entry(vm).or_insert(why);
    }
    let engine = context.planner.own().await;
    let (plan, held) = plan(&engine, &request, &wanted);
    let sent = sent(context, &objects, engine.fleet());
    drop(engine);
    let places = plan.moves.iter().enumerate();
    let places = places.map(|(place, (urgency, step))| (step.vm.clone(), (*urgency, place)));
    memory.order = places.collect();
    let mut remaining = remaining(&objects, migrations);
    for (host, vm) in sent {
        let here = remaining.entry(host).or_default();
        here.push(Remaining { vm, passes: true });
    }
    note_waits(&mut memory.waits, &remaining, now);
    // A drain may be of hundreds of VMs, and this runs in the loop that recovers: nothing is looked for move by move.
    let moves = Moves::of(migrations);
    let vms = objects.vms.iter().map(|vm| (door::uid(vm), vm.as_ref()));
    let vms: BTreeMap<VmUid, &VirtualMachine> = vms.collect();
    for (name, (host, why)) in &wanted {
        let here = remaining.get(name).map(Vec::as_slice).unwrap_or_default();
        let outcome = match (waiting.get(name), held.get(name)) {
            (Some(reason), _) => Outcome::whole("Waiting", here.len(), reason.clone()),
            (None, Some(reason)) => Outcome::whole("Blocked", here.len(), reason.clone()),
            (None, None) => {
                let mut outcome = judged(&plan, name, here, &memory.waits, now);
                let leaves = Leaves {
                    host: name,
                    why: *why,
                    moves: &moves,
                    tries: &tries,
                };
                let tried = leaves.begin(context, &plan, &vms, &mut memory.refusals);
                let tried = tried.await;
                outcome.waits.extend(tried);
                outcome
            }
        };
        progress(context, host, *why, outcome).await;
    }
}

/// What bounds tries.
struct Tries<'a> {
    policy: &'a Policy,
    /// From when on they count, by the host that is emptied.
    from: BTreeMap<HostName, jiff::Timestamp>,
}

impl<'a> Tries<'a> {
    fn of(
        wanted: &BTreeMap<HostName, (Arc<Host>, Why)>,
        hosts: &[Arc<Host>],
        policy: &'a Policy,
    ) -> Self {
        let from = wanted
            .iter()
            .filter_map(|(name, (host, _))| Some((name.clone(), tries::counts_from(host, hosts)?)));
        Self {
            policy,
            from: from.collect(),
        }
    }
}

/// A VM that has to leave a host.
struct Remaining {
    vm: VmUid,
    /// What is waited for ends by itself as a rule.
    passes: bool,
}

/// VMs that run on each host or arrive there. One that was shut down and keeps its seat has nothing to move.
fn remaining(
    objects: &Objects,
    migrations: &[Arc<VirtualMachineMigration>],
) -> BTreeMap<HostName, Vec<Remaining>> {
    let others = Others::of(objects, migrations);
    let mut remaining: BTreeMap<HostName, Vec<Remaining>> = BTreeMap::new();
    for vm in &objects.vms {
        let Some(status) = &vm.status else { continue };
        let readiness = others.readiness(vm);
        if readiness == Readiness::Idle && status.incoming.is_none() {
            continue;
        }
        let passes =
            status.incoming.is_some() || matches!(readiness, Readiness::Fixed { passes: true, .. });
        let hosts: BTreeSet<&HostName> = status.rights().map(|side| &side.host).collect();
        for host in hosts {
            let vm = door::uid(vm);
            let here = remaining.entry(host.clone()).or_default();
            here.push(Remaining { vm, passes });
        }
    }
    remaining
}

/// VMs that were given a host a moment ago, by the fleet in memory, where the cache does not show it yet: a host that is
/// told as empty is switched off.
fn sent(context: &Context, objects: &Objects, fleet: &Fleet) -> Vec<(HostName, VmUid)> {
    let older = objects
        .vms
        .iter()
        .filter(|vm| context.writer.may_be_older(vm.as_ref()));
    let mut sent = Vec::new();
    for vm in older {
        let rights = door::rights(vm);
        let shown = [rights.assignment, rights.incoming];
        let seats = fleet.vms.get(&rights.vm);
        let seats = seats.map(|vm| [vm.host.clone(), vm.incoming.clone()]);
        for host in seats.into_iter().flatten().flatten() {
            if !shown.iter().flatten().any(|side| side.host == host) {
                sent.push((host, rights.vm.clone()));
            }
        }
    }
    sent
}

/// Notes since when VMs are waited for; forgets those that are not any more.
fn note_waits(
    waits: &mut BTreeMap<VmUid, Moment>,
    remaining: &BTreeMap<HostName, Vec<Remaining>>,
    now: Moment,
) {
    let all = remaining.values().flatten().filter(|left| left.passes);
    let passing: BTreeSet<&VmUid> = all.map(|left| &left.vm).collect();
    waits.retain(|vm, _| passing.contains(vm));
    for vm in passing {
        waits.entry(vm.clone()).or_insert(now);
    }
}

/// Who can not move, and who is only waited for, of those that have to leave a host.
fn judged(
    plan: &Planned,
    host: &HostName,
    here: &[Remaining],
    waits: &BTreeMap<VmUid, Moment>,
    now: Moment,
) -> Outcome {
    let mut outcome = Outcome {
        remaining: here.len(),
        blocked: Vec::new(),
        waits: Vec::new(),
        whole: None,
    };
    for (stuck, sentence) in plan.stuck.iter().filter(|(stuck, _)| stuck.host == *host) {
        // The plan may be older than what is read here: who has left by now is not told of.
        let Some(left) = here.iter().find(|left| left.vm == stuck.vm) else {
            continue;
        };
        let since = waits.get(&left.vm).copied().unwrap_or(now);
        if left.passes && now.since(since) < WAITS_MAX {
            outcome.waits.push(sentence.clone());
        } else {
            outcome.blocked.push(sentence.clone());
        }
    }
    outcome
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
            Some((
                name.clone(),
                too_costly(engine, &plan, (name, *why), wanted)?,
            ))
        });
    let held = held.collect();
    let order = plan.in_order(&request.priorities);
    let moves = order
        .into_iter()
        .map(|(urgency, step)| (urgency, step.clone()));
    let moves: Vec<_> = moves.collect();
    let by_host = by_host(&moves);
    let stuck = plan.stuck.iter().map(|stuck| {
        let sentence = format!("{}: {}", engine.fleet().name_of(&stuck.vm), stuck.why);
        (stuck.clone(), sentence)
    });
    let stuck = stuck.collect();
    let planned = Planned {
        moves,
        by_host,
        stuck,
    };
    (planned, held)
}

fn by_host(moves: &[(Priority, Move)]) -> BTreeMap<HostName, BTreeSet<usize>> {
    let places = moves.iter().enumerate();
    let places: BTreeMap<&VmUid, usize> =
        places.map(|(place, (_, step))| (&step.vm, place)).collect();
    let mut by_host: BTreeMap<HostName, BTreeSet<usize>> = BTreeMap::new();
    for (place, (_, step)) in moves.iter().enumerate() {
        let own = by_host.entry(step.from.clone()).or_default();
        own.insert(place);
        own.extend(step.after.iter().filter_map(|vm| places.get(vm)));
    }
    by_host
}

/// What came of a plan.
struct Planned {
    /// The moves in the order in which they are to begin, each with its urgency.
    moves: Vec<(Priority, Move)>,
    /// Places of the moves that belong to the evacuation of each host: its own, and those that make room for them.
    by_host: BTreeMap<HostName, BTreeSet<usize>>,
    /// VMs that can not move, and why, one sentence each.
    stuck: Vec<(Stuck, String)>,
}

/// A host that VMs leave.
struct Leaves<'a> {
    host: &'a HostName,
    why: Why,
    moves: &'a Moves<'a>,
    tries: &'a Tries<'a>,
}

impl Leaves<'_> {
    /// Starts the moves whose turn it is; which are tried again later, and why.
    async fn begin(
        &self,
        context: &Context,
        plan: &Planned,
        vms: &BTreeMap<VmUid, &VirtualMachine>,
        refusals: &mut Refusals,
    ) -> Vec<String> {
        let mut waits = Vec::new();
        let own = plan.by_host.get(self.host).into_iter().flatten();
        let ready = own
            .map(|place| &plan.moves[*place].1)
            .filter(|step| step.after.is_empty());
        for step in ready {
            let Some(vm) = vms.get(&step.vm) else {
                continue;
            };
            waits.extend(self.begin_one(context, step, vm, refusals).await);
        }
        waits
    }

    /// Starts one move; why it is tried again later.
    async fn begin_one(
        &self,
        context: &Context,
        step: &Move,
        vm: &VirtualMachine,
        refusals: &mut Refusals,
    ) -> Option<String> {
        let from = self.tries.from.get(self.host).copied();
        let prefix = tries::prefix(vm)?;
        let start = Start {
            to: &step.to,
            reason: self.why.reason(),
            why: &step.reason,
            empties: Some(self.host),
            from,
            refused: refusals.of(vm, &prefix, self.host, from),
        };
        let made = start.make(context, vm, self.moves, self.tries.policy);
        let waits = match made.await {
            Made::Done => None,
            Made::Waits(why) => Some(why),
            Made::Refused(said) => {
                let now = jiff::Timestamp::now();
                refusals.note(vm, (self.host, from), &said, now)
            }
        };
        let (namespace, name) = (vm.namespace().unwrap_or_default(), vm.name_any());
        waits.map(|why| format!("{namespace}/{name}: {why}"))
    }
}

/// A host that is only degraded still carries its VMs: it is not emptied when that would use up the
/// reserve that a dying host needs. Where nothing of it would move, nothing is held back.
fn too_costly(
    engine: &Engine,
    plan: &Plan,
    (name, why): (&HostName, Why),
    wanted: &BTreeMap<HostName, (Arc<Host>, Why)>,
) -> Option<String> {
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
    // That one of them could not fail safely is no reason to leave VMs on it: with each that leaves it costs less.
    for leaving in wanted.keys() {
        if let Some(mut host) = fleet.hosts.get(leaving).cloned() {
            host.may_fail = false;
            after.upsert_host(leaving.clone(), host);
        }
    }
    match after.prove_headroom(&pool) {
        Headroom::Proven | Headroom::NotPromised => None,
        Headroom::Broken { failure, vm } => Some(format!(
            "its VMs stay for now: with them elsewhere N+1 of pool {pool} would break (if host {failure} failed, {} would find no place); add a host, or empty it with zyctl drain {name}",
            fleet.name_of(&vm)
        )),
        Headroom::Unknown { failure } => Some(format!(
            "its VMs stay for now: with them elsewhere N+1 of pool {pool} could not be proven for the failure of host {failure}; add a host, or empty it with zyctl drain {name}"
        )),
    }
}

/// A move that is to be made.
pub struct Start<'a> {
    /// Where it goes.
    pub to: &'a HostName,
    /// What for.
    pub reason: MigrationReason,
    /// Why to that host, one sentence.
    pub why: &'a str,
    /// The host that is emptied by it, if one is.
    pub empties: Option<&'a HostName>,
    /// From when on moves that came to nothing count.
    pub from: Option<jiff::Timestamp>,
    /// Those that the API server did not take.
    pub(crate) refused: Option<&'a tries::Tries>,
}

/// What became of a move that was to be made.
pub enum Made {
    /// It is made, or the VM needs none now.
    Done,
    /// Not yet: one failed a moment ago, as this tells.
    Waits(String),
    /// The API server does not take it, and says this.
    Refused(String),
}

impl Start<'_> {
    /// Makes the move of one VM unless it has one, or one failed a moment ago.
    pub async fn make(
        &self,
        context: &Context,
        vm: &VirtualMachine,
        moves: &Moves<'_>,
        policy: &Policy,
    ) -> Made {
        let runs = vm.status.as_ref().and_then(|status| status.phase);
        let prefix = tries::prefix(vm).filter(|_| runs == Some(VirtualMachinePhase::Running));
        let Some(prefix) = prefix else {
            return Made::Done;
        };
        if moves.moves(vm) {
            return Made::Done;
        }
        let former: Vec<_> = moves
            .of_vm(vm)
            .iter()
            .copied()
            .filter(|migration| migration.name_any().starts_with(&prefix))
            .collect();
        let now = jiff::Timestamp::now();
        if let Some(wait) = tries::pause(&former, self.refused, self.from, policy, now) {
            return Made::Waits(wait);
        }
        let number = moves.next(vm, &prefix);
        let migration = self.migration(vm, format!("{prefix}{number}"));
        let result = context.writer.create(&migration).await;
        let refused = match &result {
            Err(error) => refusal(error),
            Ok(()) => None,
        };
        logged("migration", &migration.name_any(), result);
        refused.map_or(Made::Done, Made::Refused)
    }

    fn migration(&self, vm: &VirtualMachine, name: String) -> VirtualMachineMigration {
        let label =
            |host: &HostName| BTreeMap::from([(LABEL_EVACUATES.to_owned(), host.to_string())]);
        VirtualMachineMigration {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: vm.namespace(),
                labels: self.empties.map(label),
                annotations: Some(BTreeMap::from([(
                    ANNOTATION_WHY.to_owned(),
                    self.why.to_owned(),
                )])),
                ..ObjectMeta::default()
            },
            spec: VirtualMachineMigrationSpec {
                virtual_machine: vm.name_any(),
                target_host: Some(self.to.to_string()),
                reason: self.reason,
                cancel: false,
            },
            status: None,
        }
    }
}

/// What the API server says of an object that it does not take: asked again at once it would say the same. That it fails, is
/// busy or is not reached passes.
fn refusal(error: &WriteError) -> Option<String> {
    match error {
        WriteError::Api(kube::Error::Api(status)) => {
            (matches!(status.code, 400..500) && status.code != 429).then(|| status.message.clone())
        }
        WriteError::Gone => Some(error.to_string()),
        WriteError::NotLeader | WriteError::Conflict | WriteError::Api(_) => None,
    }
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

#[cfg(test)]
mod tests;
