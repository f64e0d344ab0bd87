//! Turns verdicts into work: asks `placement` where, and refuses what N+1 or a quota forbids.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::VirtualMachine;
use failover::recovery::slot;
use failover::vm::{VmDecision, VmPhase, VmVerdict};
use failover::{Policy, assignment};
use model::{HostName, VmUid};
use placement::{Fleet, Headroom, place, prove_headroom};
use serde_json::json;

use super::Work;
use crate::door;
use crate::reconcile::quota;
use crate::runtime::Context;

/// Turns a verdict into work, and keeps the fleet true for the VMs that follow.
pub(super) fn plan(
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
    if !recovery
        && stopped.is_none()
        && let Some(why) = quota::exceeded(context, fleet, &vm)
    {
        let report = json!({"message": why, "removed": [], "reasons": [], "host": null});
        return work.push(Work::Show(vm, VmPhase::Pending, why, Some(report)));
    }
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
pub(super) fn breaks_headroom(fleet: &Fleet, host: &HostName, uid: &VmUid) -> Option<String> {
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
