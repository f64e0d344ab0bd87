//! The door from CRD objects to the types of `failover` and `placement`.

use std::collections::BTreeSet;

use api::names::{LABEL_SYSTEM, LABEL_TIER};
use api::{
    CloseReason, CloudPolicySpec, HighAvailability, Host, Runtime, RuntimePhase, VirtualMachine,
};
use failover::copy::{CloseCause, CopyPhase, CopyReport};
use failover::{Policy, PolicyError, Rights};
use kube::ResourceExt;
use model::{Bytes, Epoch, Fault, HostName, NamespacedName, Severity, VmUid};
use placement::Fleet;

use crate::runtime::Context;

/// The site's policy as `failover` reads it; the defaults where it contradicts itself, which the
/// policy's `Valid` condition tells.
pub fn policy(spec: &CloudPolicySpec) -> Policy {
    checked_policy(spec).unwrap_or_default()
}

/// The site's policy, if it holds together.
///
/// # Errors
/// Every field that contradicts another or leaves the safe range.
pub fn checked_policy(spec: &CloudPolicySpec) -> Result<Policy, Vec<PolicyError>> {
    let policy = translate(spec);
    policy.check().map(|()| policy)
}

fn translate(spec: &CloudPolicySpec) -> Policy {
    let milliseconds = |seconds: i32| u64::try_from(seconds).unwrap_or(0) * 1000;
    let count = |number: i32| u32::try_from(number).unwrap_or(1);
    Policy {
        lease_interval_milliseconds: milliseconds(spec.failover.lease_interval_seconds),
        unreachable_after_milliseconds: milliseconds(spec.failover.unreachable_after_seconds),
        fence_isolated: spec.failover.fence_isolated,
        fence_isolated_after_milliseconds: milliseconds(spec.failover.fence_isolated_after_seconds),
        storm_percent: count(spec.failover.storm_percent),
        storm_window_milliseconds: milliseconds(spec.failover.storm_window_seconds),
        fence_attempts: count(spec.failover.fence_attempts),
        back_off_milliseconds: milliseconds(spec.recovery.restart_back_off_seconds),
        back_off_maximum_milliseconds: milliseconds(spec.recovery.restart_back_off_maximum_seconds),
        starts_per_host: count(spec.recovery.starts_per_host),
        hosts_evacuated_at_once: count(spec.migration.hosts_evacuated_at_once),
        migration_milliseconds: milliseconds(spec.migration.timeout_seconds),
        severities: spec
            .severities
            .iter()
            .map(|rule| (rule.kind, rule.severity))
            .collect(),
        ..Policy::default()
    }
}

/// A fault's severity by the site's rating.
pub fn rated(fault: &Fault, policy: &CloudPolicySpec) -> Severity {
    policy
        .severities
        .iter()
        .find(|rule| rule.kind == fault.kind)
        .map_or(fault.severity, |rule| rule.severity)
}

/// Faults that quarantine a host: Degraded or worse by the site's rating, and last seen after the
/// last clearance.
pub fn standing_faults<'a>(host: &'a Host, policy: &CloudPolicySpec) -> Vec<&'a Fault> {
    let cleared = host
        .spec
        .fault_clearance
        .as_ref()
        .map(|clearance| clearance.at.0);
    let reported = host
        .status
        .as_ref()
        .and_then(|status| status.reported.as_ref());
    reported
        .into_iter()
        .flat_map(|reported| &reported.faults)
        .filter(|fault| {
            let last_seen = fault.last_seen.parse::<jiff::Timestamp>().ok();
            rated(fault, policy) >= Severity::Degraded
                && last_seen
                    .zip(cleared)
                    .is_none_or(|(seen, cleared)| seen > cleared)
        })
        .collect()
}

/// Who may run a VM, as stored.
pub fn rights(vm: &VirtualMachine) -> Rights {
    let status = vm.status.clone().unwrap_or_default();
    Rights {
        vm: uid(vm),
        assignment: status.assignment,
        incoming: status.incoming,
        last_epoch: Epoch(status.last_epoch),
        proofs: status.proofs,
    }
}

/// A VM's uid.
pub fn uid(vm: &VirtualMachine) -> VmUid {
    VmUid(vm.metadata.uid.clone().unwrap_or_default())
}

/// An agent's report as `failover` reads it.
pub fn report(runtime: &Runtime) -> CopyReport {
    CopyReport {
        assignment: runtime.assignment.clone(),
        phase: match runtime.phase {
            RuntimePhase::Preparing => CopyPhase::Preparing,
            RuntimePhase::Starting => CopyPhase::Starting,
            RuntimePhase::Running => CopyPhase::Running,
            RuntimePhase::Arrived => CopyPhase::Arrived,
            RuntimePhase::Stopping => CopyPhase::Stopping,
            RuntimePhase::Closed => CopyPhase::Closed,
            RuntimePhase::HandedOver => CopyPhase::HandedOver,
            RuntimePhase::CloseStuck => CopyPhase::CloseStuck,
        },
        cause: runtime.close_reason.map(|reason| match reason {
            CloseReason::Requested => CloseCause::Requested,
            CloseReason::GuestShutdown => CloseCause::GuestShutdown,
            CloseReason::Crashed => CloseCause::Crashed,
            CloseReason::StartFailed => CloseCause::StartFailed,
            CloseReason::Superseded => CloseCause::Superseded,
            CloseReason::Declined => CloseCause::Declined,
            CloseReason::MigrationFailed => CloseCause::MigrationFailed,
        }),
    }
}

/// The fleet as `placement` reads it.
pub fn fleet(context: &Context, policy: &Policy) -> Fleet {
    let mut fleet = Fleet::default();
    for pool in context.stores.host_pools.state() {
        let number = |value: i32| u64::try_from(value).unwrap_or(0);
        fleet.pools.insert(
            pool.name_any(),
            placement::Pool {
                zones: pool.spec.zones.iter().copied().collect(),
                architecture: pool.spec.architecture,
                cpu_overcommit_percent: number(pool.spec.cpu_overcommit_percent),
                memory_overcommit_percent: number(pool.spec.memory_overcommit_percent),
                failures_to_tolerate: u32::try_from(pool.spec.failures_to_tolerate).unwrap_or(0),
                mlps_grade: pool.spec.mlps_grade,
            },
        );
    }
    let watch = context
        .hosts
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    for host in context.stores.hosts.state() {
        let name = HostName(host.name_any());
        let reported = host
            .status
            .as_ref()
            .and_then(|status| status.reported.clone());
        let Some(reported) = reported else { continue };
        let placeable = watch.placeable(&name, policy);
        fleet.hosts.insert(
            name,
            placement::Host {
                pool: host.spec.pool.clone(),
                stands: placeable.is_ok(),
                closed: placeable.err().or(reported.starts_forbidden),
                cpu: u64::try_from(reported.capacity.cpu).unwrap_or(0),
                memory_bytes: Bytes::parse(&reported.capacity.memory).map_or(0, |bytes| bytes.0),
                storage_pools: reported
                    .storage_pools
                    .iter()
                    .filter(|pool| pool.state != "Lost")
                    .map(|pool| pool.name.clone())
                    .collect(),
                has_network: reported.vtep_address.is_some(),
            },
        );
    }
    drop(watch);
    for vm in context.stores.vms.state() {
        fleet.vms.insert(uid(&vm), machine(context, &vm));
    }
    fleet
}

/// A VM as `placement` reads it.
fn machine(context: &Context, vm: &VirtualMachine) -> placement::Vm {
    let namespace = vm.namespace().unwrap_or_default();
    let status = vm.status.clone().unwrap_or_default();
    let networks = context.stores.networks.state();
    let zones = vm
        .spec
        .networks
        .iter()
        .filter_map(|name| networks.iter().find(|network| network.name_any() == *name))
        .map(|network| network.spec.zone);
    let image = context
        .stores
        .images
        .state()
        .into_iter()
        .find(|image| image.name_any() == vm.spec.image);
    let volumes = context.stores.volumes.state();
    let own: Vec<_> = vm
        .spec
        .disks
        .iter()
        .filter_map(|disk| {
            volumes.iter().find(|volume| {
                volume.name_any() == disk.volume
                    && volume.namespace().as_deref() == Some(namespace.as_str())
            })
        })
        .collect();
    let group = || {
        Some(format!(
            "{namespace}/{}/{}",
            vm.labels().get(LABEL_SYSTEM)?,
            vm.labels().get(LABEL_TIER)?
        ))
    };
    let required = vm
        .spec
        .spread
        .as_ref()
        .is_some_and(|spread| spread.required);
    placement::Vm {
        name: NamespacedName::new(namespace.clone(), vm.name_any()),
        cpu: u64::try_from(vm.spec.cpu).unwrap_or(0),
        memory_bytes: Bytes::parse(&vm.spec.memory).map_or(u64::MAX / 4, |bytes| bytes.0),
        zones: zones.collect(),
        architecture: image.map_or(model::Architecture::x86_64, |image| image.spec.architecture),
        storage_pools: own
            .iter()
            .map(|volume| volume.spec.pool.clone())
            .collect::<BTreeSet<_>>(),
        pinned_to: own
            .iter()
            .find_map(|volume| volume.status.as_ref()?.pinned_host.clone())
            .map(HostName),
        mlps_grade: vm.spec.mlps_grade,
        apart: if required { group() } else { None },
        restarts_elsewhere: vm.spec.high_availability == HighAvailability::Restart,
        host: status.assignment.map(|assignment| assignment.host),
        incoming: status.incoming.map(|incoming| incoming.host),
    }
}
