//! In which order VMs start again: facts about tiers, and how many starts each host carries.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{VirtualMachine, VirtualMachinePhase};
use failover::recovery::{Candidate, TierFact, Tiers, add_tier};
use failover::vm::{VmDecision, VmVerdict};
use kube::ResourceExt;
use model::{HostName, NamespacedName, VmUid};

use crate::door;
use crate::probes::{Seen, endpoint_key};
use crate::runtime::Context;

pub(super) fn candidates(verdicts: &[(Arc<VirtualMachine>, VmVerdict)]) -> Vec<Candidate> {
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
            system: fleet::system::system_of(vm),
            priority: vm.spec.priority,
            order: vm.spec.restart_order,
        })
        .collect()
}

/// What is known about each tier that others wait for.
pub(super) fn tiers(
    context: &Context,
    vms: &[Arc<VirtualMachine>],
    candidates: &[Candidate],
) -> Tiers {
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
            // The last probe of a copy that is proven dead may have been answered, and the next one still
            // waits for its time-out: only copies that run can answer.
            let lives = || members.iter().any(|vm| may_answer(vm, candidates));
            let answers = endpoint.map(|endpoint| {
                lives() && context.probes.endpoint(&endpoint_key(&system, endpoint)).0 == Seen::Up
            });
            let fact = TierFact {
                answers,
                runs,
                timeout_milliseconds: u64::try_from(tier.start_timeout_seconds).unwrap_or(120)
                    * 1000,
            };
            add_tier(&mut tiers, (name.clone(), tier.restart_order), fact);
        }
    }
    tiers
}

/// Whether a VM runs where it is assigned and is not about to be started elsewhere.
fn may_answer(vm: &VirtualMachine, candidates: &[Candidate]) -> bool {
    let uid = door::uid(vm);
    let status = vm.status.as_ref();
    let runs = status
        .and_then(|status| status.runtime.as_ref().zip(status.assignment.as_ref()))
        .is_some_and(|(runtime, right)| {
            runtime.assignment == *right && runtime.phase == api::RuntimePhase::Running
        });
    runs && !candidates.iter().any(|candidate| candidate.vm == uid)
}

/// How many VMs each host is starting; `assigned`: where VMs were assigned to that the cache may not show there yet.
pub(super) fn starting(
    vms: &[Arc<VirtualMachine>],
    assigned: &BTreeMap<VmUid, HostName>,
) -> BTreeMap<HostName, u32> {
    let mut count = BTreeMap::new();
    for vm in vms {
        let host = assigned.get(&door::uid(vm));
        if let Some(host) = host.or_else(|| starts_on(vm)) {
            *count.entry(host.clone()).or_insert(0) += 1;
        }
    }
    count
}

/// The host that a VM is assigned to and does not run on yet.
fn starts_on(vm: &VirtualMachine) -> Option<&HostName> {
    let status = vm.status.as_ref()?;
    let assignment = status.assignment.as_ref()?;
    let runs = status.runtime.as_ref().is_some_and(|runtime| {
        runtime.assignment == *assignment
            && runtime.phase != api::RuntimePhase::Starting
            && runtime.phase != api::RuntimePhase::Preparing
    });
    (!runs).then_some(&assignment.host)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_copy_that_is_to_be_started_anew_answers_no_more() {
        let right = json!({"host": "h1", "bootId": "boot", "epoch": 1});
        let vm = |named: &serde_json::Value| -> VirtualMachine {
            serde_json::from_value(json!({
                "metadata": {"name": "database", "namespace": "oa", "uid": "database"},
                "spec": {"cpu": 1, "memory": "128Mi", "image": "linux", "disks": [], "networks": []},
                "status": {"assignment": right, "runtime": {"assignment": named, "phase": "Running",
                    "since": "2026-01-01T00:00:00Z"}},
            }))
            .expect("a VM")
        };
        let running = vm(&right);
        assert!(may_answer(&running, &[]));
        let lost = Candidate {
            vm: door::uid(&running),
            system: None,
            priority: running.spec.priority,
            order: 0,
        };
        assert!(!may_answer(&running, &[lost]));
        let former = json!({"host": "h2", "bootId": "boot", "epoch": 0});
        assert!(
            !may_answer(&vm(&former), &[]),
            "the report is of a former copy"
        );
    }

    /// The last turn gave hosts away that the cache does not show yet, or shows where they are dead.
    #[test]
    fn who_was_assigned_a_moment_ago_starts_on_its_host() {
        let on = |name: &str, host: Option<&str>, runs: bool| {
            let right = host.map(|host| json!({"host": host, "bootId": "b", "epoch": 1}));
            let runtime = runs.then(|| {
                json!({"assignment": right, "phase": "Running",
                "since": "2026-01-01T00:00:00Z"})
            });
            let vm: VirtualMachine = serde_json::from_value(json!({
                "metadata": {"name": name, "namespace": "oa", "uid": name},
                "spec": {"cpu": 1, "memory": "128Mi", "image": "linux", "disks": [], "networks": []},
                "status": {"assignment": right, "runtime": runtime},
            }))
            .expect("a VM");
            Arc::new(vm)
        };
        let vms = [
            on("new", None, false),
            on("lost", Some("dead"), true),
            on("known", Some("h1"), false),
            on("well", Some("h1"), true),
        ];
        let assigned = ["new", "lost", "known"].map(|vm| (VmUid::from(vm), HostName::from("h1")));
        let count =
            |assigned: &[(VmUid, HostName)]| starting(&vms, &assigned.iter().cloned().collect());
        assert_eq!(count(&assigned), BTreeMap::from([("h1".into(), 3)]));
        assert_eq!(count(&[]), BTreeMap::from([("h1".into(), 1)]));
    }
}
