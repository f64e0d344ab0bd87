//! What each VM's facts are, and what `failover` says is to be done about it.

use std::sync::Arc;

use api::{RunStrategy, VirtualMachine, Volume};
use failover::failures::Failures;
use failover::vm::{HostSight, VmFacts, VmVerdict, Volumes, Wanted, decide};
use failover::{Moment, Policy};
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use model::{Assignment, HostName};

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

/// Counts copies that closed by failure, from epoch to epoch.
pub(super) fn count_failures(
    memory: &mut Memory,
    vm: &VirtualMachine,
    policy: &Policy,
    now: Moment,
) -> Failures {
    let status = vm.status.as_ref();
    let failures = memory.failures.entry(door::uid(vm)).or_default();
    if let Some(runtime) = status.and_then(|status| status.runtime.as_ref()) {
        failures.note(&door::report(runtime), policy, now);
    }
    failures.clone()
}

/// A VM's volumes, in the order of its disks; none where one does not exist.
pub fn volumes_of(context: &Context, vm: &VirtualMachine) -> Option<Vec<Arc<Volume>>> {
    let namespace = vm.namespace().unwrap_or_default();
    let find = |name: &str| {
        let reference = ObjectRef::<Volume>::new(name).within(&namespace);
        context.stores.volumes.get(&reference)
    };
    vm.spec
        .disks
        .iter()
        .map(|disk| find(&disk.volume))
        .collect()
}

pub(super) fn judge(
    context: &Context,
    vm: &VirtualMachine,
    failures: Failures,
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
            failures,
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
