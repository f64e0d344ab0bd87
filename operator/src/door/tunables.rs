//! The site's policy as `failover` reads it, and what is wrong with it in the words of who wrote it.

use api::CloudPolicySpec;
use failover::Policy;

/// A number of the site's policy that `failover` reads.
struct Tunable {
    /// Section of the `CloudPolicy`'s `spec`.
    section: &'static str,
    /// Field of that section.
    field: &'static str,
    /// What `failover` calls it.
    name: &'static str,
    /// How many of `failover`'s units make one of the field's.
    unit: u64,
}

const fn seconds(section: &'static str, field: &'static str, name: &'static str) -> Tunable {
    Tunable {
        section,
        field,
        name,
        unit: 1000,
    }
}

const fn count(section: &'static str, field: &'static str, name: &'static str) -> Tunable {
    Tunable {
        section,
        field,
        name,
        unit: 1,
    }
}

/// All of them: the words in which a refusal is told, and what the tests walk.
const TUNABLES: [Tunable; 23] = [
    seconds(
        "failover",
        "leaseIntervalSeconds",
        "leaseIntervalMilliseconds",
    ),
    seconds(
        "failover",
        "unreachableAfterSeconds",
        "unreachableAfterMilliseconds",
    ),
    seconds(
        "failover",
        "fenceIsolatedAfterSeconds",
        "fenceIsolatedAfterMilliseconds",
    ),
    count("failover", "stormPercent", "stormPercent"),
    seconds("failover", "stormWindowSeconds", "stormWindowMilliseconds"),
    count("failover", "stormMinimumHosts", "stormMinimumHosts"),
    seconds(
        "failover",
        "stormReleaseSeconds",
        "stormReleaseMilliseconds",
    ),
    seconds(
        "failover",
        "agentDownAfterSeconds",
        "agentDownAfterMilliseconds",
    ),
    count("failover", "fenceAttempts", "fenceAttempts"),
    seconds(
        "failover",
        "heartbeatIntervalSeconds",
        "heartbeatIntervalMilliseconds",
    ),
    seconds("failover", "contractSeconds", "contractMilliseconds"),
    seconds("failover", "watchdogSeconds", "watchdogMilliseconds"),
    seconds(
        "failover",
        "selfFenceMarginSeconds",
        "selfFenceMarginMilliseconds",
    ),
    count("recovery", "startsPerHost", "startsPerHost"),
    seconds("recovery", "restartBackOffSeconds", "backOffMilliseconds"),
    seconds(
        "recovery",
        "restartBackOffMaximumSeconds",
        "backOffMaximumMilliseconds",
    ),
    seconds(
        "recovery",
        "restartBackOffResetSeconds",
        "backOffResetMilliseconds",
    ),
    count("recovery", "startAttempts", "startAttempts"),
    seconds(
        "migration",
        "prepareTimeoutSeconds",
        "migrationPrepareMilliseconds",
    ),
    seconds(
        "migration",
        "evacuationIntervalSeconds",
        "evacuationIntervalMilliseconds",
    ),
    count("migration", "hostsEvacuatedAtOnce", "hostsEvacuatedAtOnce"),
    seconds("migration", "timeoutSeconds", "migrationMilliseconds"),
    seconds("thresholds", "clearSeconds", "faultClearMilliseconds"),
];

/// The site's policy as `failover` reads it; the defaults where it contradicts itself, which the
/// policy's `Valid` condition tells.
pub fn policy(spec: &CloudPolicySpec) -> Policy {
    checked_policy(spec).unwrap_or_default()
}

/// The site's policy, if it holds together.
///
/// # Errors
/// A sentence of every field that contradicts another or leaves the safe range, in the words and units of the
/// `CloudPolicy`.
pub fn checked_policy(spec: &CloudPolicySpec) -> Result<Policy, Vec<String>> {
    let policy = translate(spec);
    match policy.check() {
        Ok(()) => Ok(policy),
        Err(errors) => Err(errors.iter().map(|error| error.told(named)).collect()),
    }
}

/// What the `CloudPolicy` calls a number of `failover`, and how many of its units make one there.
fn named(name: &'static str) -> (String, u64) {
    match TUNABLES.iter().find(|tunable| tunable.name == name) {
        Some(tunable) => (
            format!("spec.{}.{}", tunable.section, tunable.field),
            tunable.unit,
        ),
        None => (format!("the constant {name}"), 1),
    }
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
        fault_clear_milliseconds: milliseconds(spec.thresholds.clear_seconds),
        severities: spec
            .severities
            .iter()
            .map(|rule| (rule.kind, rule.severity))
            .collect(),
        ..Policy::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use api::CloudPolicy;
    use failover::Bounds;
    use kube::CustomResourceExt;
    use serde_json::Value;

    use super::*;

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
    fn refusal(section: &str, field: &str, name: &str, value: i64) -> Option<(u64, u64)> {
        let mut spec = serde_json::to_value(CloudPolicySpec::default()).expect("a policy");
        spec[section][field] = Value::from(value);
        let spec = serde_json::from_value(spec).expect("a policy");
        let errors = translate(&spec).check().err().unwrap_or_default();
        errors
            .into_iter()
            .filter(|error| error.field == name)
            .find_map(|error| match error.safe {
                Bounds::Range { least, most } => Some((least, most)),
                _ => None,
            })
    }

    #[test]
    fn failover_takes_whatever_range_the_api_server_calls_safe() {
        for Tunable {
            section,
            field,
            name,
            ..
        } in TUNABLES
        {
            let (least, most) = range(section, field);
            for value in [least, most] {
                let told = refusal(section, field, name, value);
                assert_eq!(told, None, "{section}.{field}: {value}");
            }
        }
        let (_, most) = range("failover", "fenceAttempts");
        let told = refusal("failover", "fenceAttempts", "fenceAttempts", most + 1);
        assert_eq!(told, Some((1, 6)), "a refusal is seen as one");
    }

    /// What is said of a policy with one value changed.
    fn told(section: &str, field: &str, value: i64) -> Vec<String> {
        let mut spec = serde_json::to_value(CloudPolicySpec::default()).expect("a policy");
        spec[section][field] = Value::from(value);
        let spec = serde_json::from_value(spec).expect("a policy");
        checked_policy(&spec).err().unwrap_or_default()
    }

    #[test]
    fn a_refusal_has_the_field_and_the_unit_of_who_wrote_the_policy() {
        assert_eq!(
            told("recovery", "restartBackOffMaximumSeconds", 1),
            [
                "spec.recovery.restartBackOffMaximumSeconds: 1 is refused, because the longest wait would be shorter than the first; safe: at least 5 (spec.recovery.restartBackOffSeconds)"
            ]
        );
        assert_eq!(
            told("failover", "contractSeconds", 30),
            [
                "spec.failover.contractSeconds: 30 is refused, because contract, watchdog and margin together would keep VMs down for too long; safe: spec.failover.contractSeconds, spec.failover.watchdogSeconds and spec.failover.selfFenceMarginSeconds together at most 50, now 60"
            ]
        );
        const ABSURD: i64 = 100_000_000;
        for Tunable { section, field, .. } in TUNABLES {
            let told = told(section, field, ABSURD);
            let begins = format!("spec.{section}.{field}: {ABSURD} is refused, because ");
            let its = |sentence: &&String| sentence.starts_with(&begins);
            let range = told.iter().find(its).expect("a refusal");
            let most = range.rsplit_once(" to ").map(|(_, most)| most.parse());
            let Some(Ok(most)) = most else {
                panic!("{range}")
            };
            let (_, safe) = self::range(section, field);
            assert!((safe..ABSURD).contains(&most), "{range}");
        }
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
                .map(|tunable| (tunable.section, tunable.field))
                .chain(ELSEWHERE.map(|(of, field, _)| (of, field)))
                .filter(|(of, _)| *of == section)
                .map(|(_, field)| field)
                .collect();
            assert_eq!(numbers, known, "{section}");
        }
        // And each of them arrives where it belongs.
        for Tunable {
            section,
            field,
            name,
            unit,
        } in TUNABLES
        {
            let mut spec = serde_json::to_value(CloudPolicySpec::default()).expect("a policy");
            let value = spec[section][field].as_i64().expect("a number") + 1;
            spec[section][field] = Value::from(value);
            let spec = serde_json::from_value(spec).expect("a policy");
            let policy = serde_json::to_value(translate(&spec)).expect("JSON");
            let scale = i64::try_from(unit).expect("a unit");
            assert_eq!(scale == 1000, field.ends_with("Seconds"), "{field}");
            let mut wanted = serde_json::to_value(Policy::default()).expect("JSON");
            wanted[name] = Value::from(value * scale);
            assert_eq!(policy, wanted, "{section}.{field}");
        }
    }

    /// The table of what is no tunable, with the reasons.
    const CONSTANTS: &str =
        include_str!("../../../docs/decisions/0017-what-the-policy-does-not-tune.md");

    #[test]
    fn every_other_number_of_failover_is_a_constant_with_a_reason() {
        let policy = serde_json::to_value(Policy::default()).expect("JSON");
        let constants: BTreeSet<&str> = CONSTANTS
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
            .collect();
        let tuned: BTreeSet<&str> = TUNABLES.iter().map(|tunable| tunable.name).collect();
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
        for Tunable { section, field, .. } in TUNABLES {
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
