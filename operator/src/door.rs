//! The door from CRD objects to the types of `failover` and `placement`.

use api::{
    CloseReason, CloudPolicySpec, Host, MigrationSourcePhase, MigrationTargetPhase, Runtime,
    RuntimePhase, VirtualMachine, VirtualMachineMigrationStatus,
};
use failover::copy::{CloseCause, CopyPhase, CopyReport};
use failover::migration::{SourcePhase, TargetPhase};
use failover::severity::ReportedFault;
use failover::{Policy, PolicyError, Rights};
use fleet::Objects;
use kube::ResourceExt;
use model::{Assignment, Epoch, Fault, HostName};
use placement::Fleet;

use crate::runtime::Context;

pub use fleet::uid;

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
        heartbeat_interval_milliseconds: milliseconds(spec.failover.heartbeat_interval_seconds),
        contract_milliseconds: milliseconds(spec.failover.contract_seconds),
        watchdog_milliseconds: milliseconds(spec.failover.watchdog_seconds),
        self_fence_margin_milliseconds: milliseconds(spec.failover.self_fence_margin_seconds),
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

/// The faults that a host reports, as `failover` reads them.
pub fn faults(host: &Host) -> Vec<ReportedFault> {
    let reported = host
        .status
        .as_ref()
        .and_then(|status| status.reported.as_ref());
    let fault = |fault: &Fault| ReportedFault {
        component: fault.component.clone(),
        kind: fault.kind,
        severity: fault.severity,
        evidence: fault.evidence.clone(),
        // A time that can not be read is now: no clearance of the past covers it.
        last_seen_seconds: fault
            .last_seen
            .parse::<jiff::Timestamp>()
            .unwrap_or_else(|_| jiff::Timestamp::now())
            .as_second(),
    };
    reported
        .into_iter()
        .flat_map(|reported| &reported.faults)
        .map(fault)
        .collect()
}

/// Who may run a VM, as stored.
pub fn rights(vm: &VirtualMachine) -> Rights {
    // Asked for every VM each turn: only what is told is copied.
    let status = vm.status.as_ref();
    Rights {
        vm: uid(vm),
        assignment: status.and_then(|status| status.assignment.clone()),
        incoming: status.and_then(|status| status.incoming.clone()),
        last_epoch: Epoch(status.map_or_else(Default::default, |status| status.last_epoch)),
        proofs: status.map_or_else(Default::default, |status| status.proofs.clone()),
    }
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
            CloseReason::ImageLocked => CloseCause::ImageLocked,
            CloseReason::Superseded => CloseCause::Superseded,
            CloseReason::Declined => CloseCause::Declined,
            CloseReason::MigrationFailed => CloseCause::MigrationFailed,
        }),
    }
}

/// What a move's object tells of its two sides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MoveSides {
    /// Source and target, once begun.
    pub sides: Option<(Assignment, Assignment)>,
    /// The source's word, if it is about the recorded source.
    pub source: Option<SourcePhase>,
    /// The target's word, if it is about the recorded target.
    pub target: Option<TargetPhase>,
}

/// A move as `failover` reads it: a side's word about another copy than the recorded one is none.
pub fn sides(status: &VirtualMachineMigrationStatus) -> MoveSides {
    let source = status
        .source
        .as_ref()
        .filter(|source| Some(&source.assignment) == status.source_assignment.as_ref())
        .map(|source| match source.phase {
            MigrationSourcePhase::Migrating => SourcePhase::Migrating,
            MigrationSourcePhase::HandedOver => SourcePhase::HandedOver,
            MigrationSourcePhase::StillRunning => SourcePhase::StillRunning,
            MigrationSourcePhase::Closed => SourcePhase::Closed,
        });
    let target = status
        .target
        .as_ref()
        .filter(|target| Some(&target.assignment) == status.target_assignment.as_ref())
        .map(|target| match target.phase {
            MigrationTargetPhase::Prepared => TargetPhase::Prepared,
            MigrationTargetPhase::Arrived => TargetPhase::Arrived,
            MigrationTargetPhase::Resumed => TargetPhase::Resumed,
            MigrationTargetPhase::Refused => TargetPhase::Refused,
        });
    let sides = status
        .source_assignment
        .clone()
        .zip(status.target_assignment.clone());
    MoveSides {
        sides,
        source,
        target,
    }
}

/// The objects that `placement` reads.
pub fn objects(context: &Context) -> Objects {
    Objects {
        host_pools: context.stores.host_pools.state(),
        hosts: context.stores.hosts.state(),
        vms: context.stores.vms.state(),
        volumes: context.stores.volumes.state(),
        networks: context.stores.networks.state(),
        images: context.stores.images.state(),
        storage_pools: context.stores.storage_pools.state(),
    }
}

/// The fleet as `placement` reads it, with hosts closed as `failover` says now.
pub fn fleet(context: &Context, policy: &Policy) -> Fleet {
    let watch = context
        .hosts
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    objects(context).fleet(|host| watch.placeable(&HostName(host.name_any()), policy).err())
}

#[cfg(test)]
mod tests {
    use api::CloudPolicy;
    use kube::CustomResourceExt;
    use serde_json::Value;

    use super::*;

    /// Where a tunable stands in the API, and what `failover` calls it.
    const TUNABLES: [(&str, &str, &str); 11] = [
        (
            "failover",
            "leaseIntervalSeconds",
            "leaseIntervalMilliseconds",
        ),
        (
            "failover",
            "unreachableAfterSeconds",
            "unreachableAfterMilliseconds",
        ),
        (
            "failover",
            "fenceIsolatedAfterSeconds",
            "fenceIsolatedAfterMilliseconds",
        ),
        ("failover", "stormPercent", "stormPercent"),
        ("failover", "stormWindowSeconds", "stormWindowMilliseconds"),
        ("failover", "fenceAttempts", "fenceAttempts"),
        (
            "failover",
            "heartbeatIntervalSeconds",
            "heartbeatIntervalMilliseconds",
        ),
        ("recovery", "startsPerHost", "startsPerHost"),
        ("recovery", "restartBackOffSeconds", "backOffMilliseconds"),
        ("migration", "hostsEvacuatedAtOnce", "hostsEvacuatedAtOnce"),
        ("migration", "timeoutSeconds", "migrationMilliseconds"),
    ];

    /// The safe range that the API server enforces: `self >= LEAST && self <= MOST`.
    fn range(section: &str, field: &str) -> (i64, i64) {
        let crd = serde_json::to_value(CloudPolicy::crd()).expect("a CRD");
        let rules = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
            ["properties"][section]["properties"][field]["x-kubernetes-validations"];
        let rule = rules[0]["rule"].as_str().expect("a rule");
        let numbers: Vec<i64> = rule
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        (numbers[0], numbers[1])
    }

    /// The range in which `failover` says that the value is not, if it says so.
    fn refusal(section: &str, field: &str, name: &str, value: i64) -> Option<String> {
        let mut spec = serde_json::to_value(CloudPolicySpec::default()).expect("a policy");
        spec[section][field] = Value::from(value);
        let spec = serde_json::from_value(spec).expect("a policy");
        let errors = translate(&spec).check().err().unwrap_or_default();
        let told = errors
            .into_iter()
            .find(|error| error.field == name && error.safe.contains(" to "));
        told.map(|error| error.safe)
    }

    #[test]
    fn failover_takes_whatever_range_the_api_server_calls_safe() {
        for (section, field, name) in TUNABLES {
            let (least, most) = range(section, field);
            for value in [least, most] {
                let told = refusal(section, field, name, value);
                assert_eq!(told, None, "{section}.{field}: {value}");
            }
        }
        let (_, most) = range("failover", "fenceAttempts");
        let told = refusal("failover", "fenceAttempts", "fenceAttempts", most + 1);
        assert_eq!(told.as_deref(), Some("1 to 6"), "a refusal is seen as one");
    }
}

#[cfg(test)]
#[path = "door_tests.rs"]
mod hostile_statuses;
