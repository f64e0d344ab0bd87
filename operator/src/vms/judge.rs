//! What each VM's facts are, and what `failover` says is to be done about it.

use std::sync::Arc;

use api::{RunStrategy, VirtualMachine, VmFailures, Volume};
use failover::failures::Failures;
use failover::vm::{HostSight, VmFacts, VmVerdict, Volumes, Wanted, decide};
use failover::{Moment, Policy};
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use model::{Assignment, Epoch, HostName};
use serde_json::{Value, json};

use super::Memory;
use crate::door;
use crate::runtime::Context;

pub(super) fn wanted(vm: &VirtualMachine) -> Wanted {
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

fn restored(known: &VmFailures, now: Moment) -> Failures {
    let hosts = known.hosts.iter().map(|name| HostName::from(name.as_str()));
    let in_a_row = u32::try_from(known.in_a_row).unwrap_or(0);
    Failures::restored(in_a_row, hosts.collect(), Epoch(known.epoch), now)
}

/// What is to be written of a VM's failures: whoever leads next goes on from there. None: it stands already.
pub(super) fn news_of_failures(vm: &VirtualMachine, failures: &Failures) -> Option<Value> {
    let status = vm.status.as_ref();
    let stored = status.and_then(|status| status.failures.clone());
    let wanted = (failures.in_a_row > 0).then(|| VmFailures {
        in_a_row: i32::try_from(failures.in_a_row).unwrap_or(i32::MAX),
        epoch: failures.counted.map_or(0, |epoch| epoch.0),
        hosts: failures.hosts.iter().map(ToString::to_string).collect(),
    });
    (stored != wanted).then(|| json!({ "failures": wanted }))
}

/// Counts copies that closed by failure, from epoch to epoch.
pub(super) fn count_failures(
    memory: &mut Memory,
    vm: &VirtualMachine,
    policy: &Policy,
    now: Moment,
) -> Failures {
    let status = vm.status.as_ref();
    let stored = status.and_then(|status| status.failures.as_ref());
    let failures = memory
        .failures
        .entry(door::uid(vm))
        .or_insert_with(|| stored.map_or_else(Failures::default, |known| restored(known, now)));
    if let Some(runtime) = status.and_then(|status| status.runtime.as_ref()) {
        failures.note(&door::report(runtime), policy, now);
    }
    failures.clone()
}

/// What this operator remembers of a VM.
pub(super) struct Past {
    /// Its failures in a row.
    pub(super) failures: Failures,
    /// When its assigned copy was first heard to be handed over.
    pub(super) handed_over_at: Option<Moment>,
}

/// When a VM's assigned copy was first heard to be handed over.
pub(super) fn handed_over_at(
    memory: &mut Memory,
    vm: &VirtualMachine,
    now: Moment,
) -> Option<Moment> {
    let status = vm.status.as_ref()?;
    // Of few VMs there is anything to hear.
    status.incoming.as_ref()?;
    let report = status.runtime.as_ref().map(door::report);
    let rights = door::rights(vm);
    memory.hand_overs.hear(&rights, report.as_ref(), None, now)
}

/// A VM's volumes, in the order of its disks; none where one does not exist.
pub fn volumes_of(context: &Context, vm: &VirtualMachine) -> Option<Vec<Arc<Volume>>> {
    let disks = vm.spec.disks.iter();
    disks
        .map(|disk| volume(context, vm, &disk.volume))
        .collect()
}

/// A volume in the namespace of a VM.
pub(super) fn volume(context: &Context, vm: &VirtualMachine, name: &str) -> Option<Arc<Volume>> {
    let namespace = vm.namespace().unwrap_or_default();
    let reference = ObjectRef::<Volume>::new(name).within(&namespace);
    context.stores.volumes.get(&reference)
}

pub(super) fn judge(
    context: &Context,
    vm: &VirtualMachine,
    past: Past,
    policy: &Policy,
    now: Moment,
) -> VmVerdict {
    let rights = door::rights(vm);
    let status = vm.status.as_ref();
    let (report, incoming_report) = (
        status
            .and_then(|status| status.runtime.as_ref())
            .map(door::report),
        status
            .and_then(|status| status.incoming_runtime.as_ref())
            .map(door::report),
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
        None => Some(missing_volume(context, vm)),
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
            pools: volumes
                .iter()
                .flatten()
                .map(|volume| volume.spec.pool.clone())
                .collect(),
            volumes: waiting.map_or(Volumes::Ready, Volumes::NotReady),
            pinned_to: pinned.map(HostName),
            restart_elsewhere: vm.spec.high_availability == api::HighAvailability::Restart,
            handed_over_at: past.handed_over_at,
            failures: past.failures,
            rights: &rights,
        },
        policy,
        now,
    )
}

/// Which volume of `spec.disks` is not there.
fn missing_volume(context: &Context, vm: &VirtualMachine) -> String {
    let all = context.stores.volumes.state();
    let missing = vm.spec.disks.iter().find(|disk| {
        !all.iter()
            .any(|volume| volume.name_any() == disk.volume && volume.namespace() == vm.namespace())
    });
    missing.map_or_else(
        || "a volume of spec.disks".to_owned(),
        |disk| {
            format!(
                "volume {} of spec.disks[{}], which does not exist; create it or correct the name",
                disk.volume, disk.name
            )
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(failures: &Value) -> VirtualMachine {
        serde_json::from_value(json!({
            "apiVersion": "zhengyun.io/v1alpha1", "kind": "VirtualMachine",
            "metadata": {"name": "v", "namespace": "n", "uid": "u"},
            "spec": {"cpu": 1, "memory": "1Gi", "image": "i", "networks": [], "disks": []},
            "status": {"failures": failures, "lastEpoch": 3, "runtime": {
                "assignment": {"host": "h2", "bootId": "b", "epoch": 3}, "phase": "Closed",
                "closeReason": "StartFailed", "since": "2026-01-01T00:00:00Z"}},
        }))
        .expect("a VM")
    }

    /// Another operator leads: it goes on counting where the former one was, and writes only what is news.
    #[test]
    fn failures_are_counted_on_by_whoever_leads_next() {
        let (policy, now) = (Policy::default(), Moment(1_000));
        let stored = json!({"inARow": 4, "epoch": 2, "hosts": ["h1"]});
        let failures = count_failures(&mut Memory::default(), &vm(&stored), &policy, now);
        assert_eq!(failures.in_a_row, 5, "the fifth is not counted yet");
        let news = news_of_failures(&vm(&stored), &failures).expect("news");
        let wanted = json!({"inARow": 5, "epoch": 3, "hosts": ["h1", "h2"]});
        assert_eq!(news, json!({ "failures": wanted }));
        let again = count_failures(&mut Memory::default(), &vm(&wanted), &policy, now);
        assert_eq!(
            again,
            Failures {
                last_seen_at: Some(now),
                ..failures
            }
        );
        assert_eq!(news_of_failures(&vm(&wanted), &again), None);
        let gone = news_of_failures(&vm(&wanted), &Failures::default());
        assert_eq!(gone, Some(json!({ "failures": null })));
    }
}
