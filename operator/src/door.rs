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
        storm_minimum_hosts: count(spec.failover.storm_minimum_hosts),
        storm_release_milliseconds: milliseconds(spec.failover.storm_release_seconds),
        agent_down_after_milliseconds: milliseconds(spec.failover.agent_down_after_seconds),
        fence_attempts: count(spec.failover.fence_attempts),
        heartbeat_interval_milliseconds: milliseconds(spec.failover.heartbeat_interval_seconds),
        contract_milliseconds: milliseconds(spec.failover.contract_seconds),
        watchdog_milliseconds: milliseconds(spec.failover.watchdog_seconds),
        self_fence_margin_milliseconds: milliseconds(spec.failover.self_fence_margin_seconds),
        back_off_milliseconds: milliseconds(spec.recovery.restart_back_off_seconds),
        back_off_maximum_milliseconds: milliseconds(spec.recovery.restart_back_off_maximum_seconds),
        back_off_reset_milliseconds: milliseconds(spec.recovery.restart_back_off_reset_seconds),
        start_attempts: count(spec.recovery.start_attempts),
        starts_per_host: count(spec.recovery.starts_per_host),
        hosts_evacuated_at_once: count(spec.migration.hosts_evacuated_at_once),
        evacuation_interval_milliseconds: milliseconds(spec.migration.evacuation_interval_seconds),
        migration_prepare_milliseconds: milliseconds(spec.migration.prepare_timeout_seconds),
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
    let reported = host.reported();
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
            RuntimePhase::Stalled => CopyPhase::Stalled,
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
    objects(context).fleet(|host| watch.closed(&HostName(host.name_any()), policy))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use api::CloudPolicy;
    use kube::CustomResourceExt;
    use serde_json::Value;

    use super::*;

    /// Where a tunable stands in the API, and what `failover` calls it.
    const TUNABLES: [(&str, &str, &str); 22] = [
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
        ("failover", "stormMinimumHosts", "stormMinimumHosts"),
        (
            "failover",
            "stormReleaseSeconds",
            "stormReleaseMilliseconds",
        ),
        (
            "failover",
            "agentDownAfterSeconds",
            "agentDownAfterMilliseconds",
        ),
        ("failover", "fenceAttempts", "fenceAttempts"),
        (
            "failover",
            "heartbeatIntervalSeconds",
            "heartbeatIntervalMilliseconds",
        ),
        ("failover", "contractSeconds", "contractMilliseconds"),
        ("failover", "watchdogSeconds", "watchdogMilliseconds"),
        (
            "failover",
            "selfFenceMarginSeconds",
            "selfFenceMarginMilliseconds",
        ),
        ("recovery", "startsPerHost", "startsPerHost"),
        ("recovery", "restartBackOffSeconds", "backOffMilliseconds"),
        (
            "recovery",
            "restartBackOffMaximumSeconds",
            "backOffMaximumMilliseconds",
        ),
        (
            "recovery",
            "restartBackOffResetSeconds",
            "backOffResetMilliseconds",
        ),
        ("recovery", "startAttempts", "startAttempts"),
        (
            "migration",
            "prepareTimeoutSeconds",
            "migrationPrepareMilliseconds",
        ),
        (
            "migration",
            "evacuationIntervalSeconds",
            "evacuationIntervalMilliseconds",
        ),
        ("migration", "hostsEvacuatedAtOnce", "hostsEvacuatedAtOnce"),
        ("migration", "timeoutSeconds", "migrationMilliseconds"),
    ];

    /// Numbers of the same sections that `failover` does not read, and who does.
    const ELSEWHERE: [(&str, &str, &str); 4] = [
        ("migration", "perSite", "the operator, which begins moves"),
        ("migration", "perHost", "the operator, which begins moves"),
        (
            "migration",
            "bandwidthMebibytesPerSecond",
            "the agent that sends",
        ),
        (
            "migration",
            "maximumPauseMilliseconds",
            "the agent that sends",
        ),
    ];

    /// A tunable, a bound of it, and what else must be set beside it.
    type Beside = (&'static str, i64, &'static [(&'static str, i64)]);

    /// What else must be set for a policy to hold together with a bound of one tunable: the relations
    /// between them, of which `docs/decisions/0017` tells.
    const BESIDE: [Beside; 9] = [
        (
            "leaseIntervalSeconds",
            14,
            &[
                ("contractSeconds", 42),
                ("watchdogSeconds", 2),
                ("selfFenceMarginSeconds", 5),
                ("unreachableAfterSeconds", 16),
            ],
        ),
        (
            "heartbeatIntervalSeconds",
            14,
            &[
                ("contractSeconds", 42),
                ("watchdogSeconds", 2),
                ("selfFenceMarginSeconds", 5),
            ],
        ),
        (
            "contractSeconds",
            43,
            &[("watchdogSeconds", 2), ("selfFenceMarginSeconds", 5)],
        ),
        (
            "watchdogSeconds",
            39,
            &[("contractSeconds", 6), ("selfFenceMarginSeconds", 5)],
        ),
        (
            "selfFenceMarginSeconds",
            30,
            &[("contractSeconds", 10), ("watchdogSeconds", 10)],
        ),
        ("unreachableAfterSeconds", 3, &[("leaseIntervalSeconds", 1)]),
        (
            "unreachableAfterSeconds",
            600,
            &[("fenceIsolatedAfterSeconds", 600)],
        ),
        (
            "restartBackOffSeconds",
            600,
            &[("restartBackOffMaximumSeconds", 600)],
        ),
        (
            "restartBackOffMaximumSeconds",
            1,
            &[("restartBackOffSeconds", 1)],
        ),
    ];

    /// The schema of a section of the policy.
    fn schema(section: &str) -> Value {
        let crd = serde_json::to_value(CloudPolicy::crd()).expect("a CRD");
        crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
            [section]["properties"]
            .clone()
    }

    /// The safe range that the API server enforces: `self >= LEAST && self <= MOST`.
    fn range(section: &str, field: &str) -> (i64, i64) {
        let rules = &schema(section)[field]["x-kubernetes-validations"];
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

    #[test]
    fn every_number_of_the_policy_that_concerns_failover_is_handed_over() {
        for section in ["failover", "recovery", "migration"] {
            let schema = schema(section);
            let fields = schema.as_object().expect("fields");
            let numbers: BTreeSet<&str> = fields
                .iter()
                .filter(|(_, field)| field["type"] == "integer")
                .map(|(name, _)| name.as_str())
                .collect();
            let known: BTreeSet<&str> = TUNABLES
                .iter()
                .chain(&ELSEWHERE)
                .filter(|(of, ..)| *of == section)
                .map(|(_, field, _)| *field)
                .collect();
            assert_eq!(numbers, known, "{section}");
        }
        // And each of them arrives where it belongs.
        for (section, field, name) in TUNABLES {
            let mut spec = serde_json::to_value(CloudPolicySpec::default()).expect("a policy");
            let value = spec[section][field].as_i64().expect("a number") + 1;
            spec[section][field] = Value::from(value);
            let spec = serde_json::from_value(spec).expect("a policy");
            let policy = serde_json::to_value(translate(&spec)).expect("JSON");
            let scale = if field.ends_with("Seconds") { 1000 } else { 1 };
            let mut wanted = serde_json::to_value(Policy::default()).expect("JSON");
            wanted[name] = Value::from(value * scale);
            assert_eq!(policy, wanted, "{section}.{field}");
        }
    }

    /// The table of what is no tunable, with the reasons.
    const CONSTANTS: &str =
        include_str!("../../docs/decisions/0017-what-the-policy-does-not-tune.md");

    #[test]
    fn every_other_number_of_failover_is_a_constant_with_a_reason() {
        let policy = serde_json::to_value(Policy::default()).expect("JSON");
        let constants: BTreeSet<&str> = CONSTANTS
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
            .collect();
        let tuned: BTreeSet<&str> = TUNABLES.iter().map(|(.., name)| *name).collect();
        let numbers: BTreeSet<&str> = policy
            .as_object()
            .expect("fields")
            .iter()
            .filter(|(_, value)| value.is_number())
            .map(|(name, _)| name.as_str())
            .collect();
        let untuned: BTreeSet<&str> = numbers.difference(&tuned).copied().collect();
        assert_eq!(constants, untuned);
    }

    #[test]
    fn a_policy_that_says_nothing_is_the_default_of_failover() {
        assert_eq!(translate(&CloudPolicySpec::default()), Policy::default());
        let nothing = serde_json::from_value(serde_json::json!({})).expect("a policy");
        assert_eq!(translate(&nothing), Policy::default());
    }

    #[test]
    fn each_bound_that_the_api_server_calls_safe_can_be_reached() {
        for (section, field, _) in TUNABLES {
            let (least, most) = range(section, field);
            for bound in [least, most] {
                let mut spec = serde_json::to_value(CloudPolicySpec::default()).expect("a policy");
                spec[section][field] = Value::from(bound);
                let beside = BESIDE
                    .iter()
                    .find(|(of, at, _)| *of == field && *at == bound);
                for (other, value) in beside.into_iter().flat_map(|(.., set)| *set) {
                    let (least, most) = range(section, other);
                    assert!((least..=most).contains(value), "{other}: {value}");
                    spec[section][*other] = Value::from(*value);
                }
                let spec = serde_json::from_value(spec).expect("a policy");
                let errors = checked_policy(&spec).err();
                assert_eq!(errors, None, "{section}.{field}: {bound}");
            }
        }
    }
}

#[cfg(test)]
#[path = "door_tests.rs"]
mod hostile_statuses;
