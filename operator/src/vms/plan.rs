//! Turns verdicts into work: asks `placement` where, and refuses what N+1 or a quota forbids.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::VirtualMachine;
use failover::recovery::slot;
use failover::vm::{VmDecision, VmPhase, VmVerdict};
use failover::{Policy, assignment};
use fleet::quota::Ledger;
use model::{HostName, VmUid};
use placement::{Admission, Engine, Fleet, Headroom, Tried};
use serde_json::json;

use super::Work;
use crate::door;
use crate::runtime::Context;

/// Turns a verdict into work, and keeps the fleet true for the VMs that follow.
pub(super) fn plan(
    (context, ledger): (&Context, Ledger<'_>),
    engine: &mut Engine,
    (starting, assigned): (&mut BTreeMap<HostName, u32>, &BTreeMap<VmUid, HostName>),
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
    if !recovery
        && stopped.is_none()
        && let Some(exceeded) = ledger.exceeded(engine.fleet(), &vm)
    {
        let why = exceeded.english();
        let report = json!({"message": why, "removed": [], "reasons": [], "host": null});
        return work.push(Work::Show(vm, VmPhase::Pending, why, Some(report)));
    }
    // What starts anew must leave N+1 proven; recovery goes on without.
    let free = recovery || stopped.is_some();
    let answer = ask(engine, &uid, only, &avoid, free);
    let choice = match answer {
        Admission::Placed(choice) => choice,
        Admission::Refused(refusal) => {
            let report = json!({"message": refusal.sentence(), "removed": refusal.lines(), "reasons": [], "host": null});
            let phase = if recovery {
                VmPhase::Recovering
            } else {
                VmPhase::Pending
            };
            return work.push(Work::Show(vm, phase, refusal.sentence(), Some(report)));
        }
        Admission::Breaks {
            pool,
            headroom,
            tried,
            refusal,
        } => {
            let why = breaks_headroom(engine.fleet(), (&pool, &headroom), &tried, &uid);
            let report =
                json!({"message": why, "removed": refusal.lines(), "reasons": [], "host": null});
            return work.push(Work::Show(vm, VmPhase::Pending, why, Some(report)));
        }
    };
    // One whose last assignment may not have been made is planned anew, and is among them already.
    let own = u32::from(assigned.get(&uid) == Some(&choice.host));
    let others = starting.get(&choice.host).copied().unwrap_or(0);
    if let Err(reason) = slot(&choice.host, others.saturating_sub(own), policy) {
        // It starts next time; until then its room is kept.
        return work.push(Work::Show(vm, verdict.phase, reason.english(), None));
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
            *starting.entry(choice.host.clone()).or_insert(0) += 1 - own;
            let report = json!({"host": choice.host, "message": format!("placed on {}", choice.host), "reasons": choice.reasons, "removed": []});
            let beside =
                json!({"placement": report, "cpuModel": model_on(engine.fleet(), &choice.host)});
            work.push(Work::Assign(vm, Box::new(change), phase, message, beside));
        }
        Err(error) => work.push(Work::Show(vm, verdict.phase, error.to_string(), None)),
    }
}

/// Keeps the room of a VM of a dead host that waits for another tier: it stands before those that are planned
/// after it. What it is told when there is none it hears when its turn comes.
pub(super) fn reserve(engine: &mut Engine, vm: &VirtualMachine, verdict: &VmVerdict) {
    if let VmDecision::Restart {
        only,
        avoid,
        recovery: true,
        ..
    } = &verdict.decision
    {
        let _ = ask(engine, &door::uid(vm), only.clone(), avoid, true);
    }
}

/// The processor model that a VM is given on a host; none: the host's own.
fn model_on(fleet: &Fleet, host: &HostName) -> Option<String> {
    let pool = &fleet.hosts.get(host)?.pool;
    fleet.pools.get(pool)?.cpu_model.clone()
}

/// A host for a VM, of which no copy runs; the engine counts it there from now on. `only` one host
/// will do, if one is named; without `free` N+1 must still hold.
fn ask(
    engine: &mut Engine,
    uid: &VmUid,
    only: Option<HostName>,
    avoid: &BTreeSet<HostName>,
    free: bool,
) -> Admission {
    let pinned = engine.fleet().vms.get(uid).map(|vm| vm.pinned_to.clone());
    let change = |engine: &mut Engine, change: &dyn Fn(&mut placement::Vm)| {
        if let Some(mut vm) = engine.fleet().vms.get(uid).cloned() {
            change(&mut vm);
            engine.upsert_vm(uid.clone(), vm);
        }
    };
    change(engine, &|vm| {
        // Its proven-dead copy takes no room any more, and it starts anew.
        (vm.host, vm.incoming) = (None, None);
        vm.runs_with.clear();
        vm.pinned_to = only.clone().or(vm.pinned_to.take());
    });
    let answer = if free {
        match engine.place(uid, avoid) {
            Ok(choice) => {
                engine.assign(uid, &choice.host);
                Admission::Placed(choice)
            }
            Err(refusal) => Admission::Refused(refusal),
        }
    } else {
        engine.admit(uid, avoid)
    };
    // The question was narrowed, not the VM: whoever reads the engine next sees it as it is.
    change(engine, &|vm| vm.pinned_to = pinned.clone().flatten());
    answer
}

/// Why a new VM may not start: the pool would no longer survive the loss of a host, wherever the VM was.
fn breaks_headroom(
    fleet: &Fleet,
    (pool, headroom): (&str, &Headroom),
    tried: &Tried,
    uid: &VmUid,
) -> String {
    let (name, tried) = (fleet.name_of(uid), tried.sentence());
    match headroom {
        Headroom::Broken { failure, vm } => format!(
            "N+1 of pool {pool} would break: if host {failure} failed, {} would find no place; {tried}; add a host or remove a VM before starting {name}",
            fleet.name_of(vm)
        ),
        Headroom::Unknown { failure } => format!(
            "N+1 of pool {pool} could not be proven for the failure of host {failure}; {tried}; add a host or remove a VM before starting {name}"
        ),
        Headroom::Proven | Headroom::NotPromised => String::new(),
    }
}
