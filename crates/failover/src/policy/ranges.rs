//! The range of every tunable outside of which it is absurd, whatever the others are.

use super::{Bounds, Policy, PolicyError};

/// Name, how it is read, least, most, and what goes wrong outside of that.
type Row = (&'static str, fn(&Policy) -> u64, u64, u64, &'static str);

/// One row a number of [`Policy`]. Where contract, watchdog and margin bound each other (together 50 s,
/// the contract three renewals), a range is what the others' least values leave.
const ROWS: [Row; 34] = [
    (
        "leaseIntervalMilliseconds",
        |policy| policy.lease_interval_milliseconds,
        500,
        14_000,
        "the API server drowns in renewals, or three of them do not fit into a contract",
    ),
    (
        "graceMilliseconds",
        |policy| policy.grace_milliseconds,
        200,
        30_000,
        "ordinary jitter would look like silence, or a death is noticed late",
    ),
    (
        "heartbeatIntervalMilliseconds",
        |policy| policy.heartbeat_interval_milliseconds,
        500,
        14_000,
        "the pool drowns in writes, or three of them do not fit into a contract",
    ),
    (
        "powerIntervalMilliseconds",
        |policy| policy.power_interval_milliseconds,
        200,
        10_000,
        "the BMC drowns in requests, or Off is read late",
    ),
    (
        "powerValidMilliseconds",
        |policy| policy.power_valid_milliseconds,
        400,
        60_000,
        "every reading would be void at once, or an old one would prove something about now",
    ),
    (
        "probeValidMilliseconds",
        |policy| policy.probe_valid_milliseconds,
        500,
        60_000,
        "every answer would be void before the next probe, or an old one would pass for life",
    ),
    (
        "unreachableAfterMilliseconds",
        |policy| policy.unreachable_after_milliseconds,
        3_000,
        600_000,
        "a short stall would be fenced, or recovery comes late",
    ),
    (
        "fenceIsolatedAfterMilliseconds",
        |policy| policy.fence_isolated_after_milliseconds,
        10_000,
        3_600_000,
        "a short cut would be fenced, or recovery comes late",
    ),
    (
        "stormPercent",
        |policy| u64::from(policy.storm_percent),
        10,
        100,
        "the guard would always or never stand",
    ),
    (
        "stormMinimumHosts",
        |policy| u64::from(policy.storm_minimum_hosts),
        2,
        1_000,
        "one dead host would be a storm",
    ),
    (
        "stormWindowMilliseconds",
        |policy| policy.storm_window_milliseconds,
        10_000,
        600_000,
        "a storm would not be seen as one, or stand for ever",
    ),
    (
        "stormReleaseMilliseconds",
        |policy| policy.storm_release_milliseconds,
        10_000,
        3_600_000,
        "fences would follow each other too quickly, or never",
    ),
    (
        "fenceAttempts",
        |policy| u64::from(policy.fence_attempts),
        1,
        6,
        "fencing would never begin, or outlast its intent of 60 s",
    ),
    (
        "fenceExpiryMilliseconds",
        |policy| policy.fence_expiry_milliseconds,
        1_000,
        600_000,
        "no BMC could be tried, or a dead operator's intent keeps a host closed for long",
    ),
    (
        "fenceSendMilliseconds",
        |policy| policy.fence_send_milliseconds,
        500,
        60_000,
        "no BMC answers that fast, or a slow one blocks recovery",
    ),
    (
        "fenceReadBackMilliseconds",
        |policy| policy.fence_read_back_milliseconds,
        500,
        60_000,
        "no power supply drains that fast, or a BMC that does nothing is waited for",
    ),
    (
        "observerGapMilliseconds",
        |policy| policy.observer_gap_milliseconds,
        500,
        10_000,
        "every busy moment would restart the windows, or a pause would look like silence",
    ),
    (
        "agentDownAfterMilliseconds",
        |policy| policy.agent_down_after_milliseconds,
        5_000,
        600_000,
        "a busy agent would look down, or one that is stuck keeps taking VMs",
    ),
    (
        "identityProblemMilliseconds",
        |policy| policy.identity_problem_milliseconds,
        10_000,
        600_000,
        "a host would be Ready between two reports of a clone, or stay closed long after it has gone",
    ),
    (
        "contractMilliseconds",
        |policy| policy.contract_milliseconds,
        1_500,
        43_000,
        "a short cut would kill VMs, or VMs of a dead host stay down for too long",
    ),
    (
        "watchdogMilliseconds",
        |policy| policy.watchdog_milliseconds,
        2_000,
        39_000,
        "a busy moment would reset the host, or VMs of a dead host stay down for too long",
    ),
    (
        "selfFenceMarginMilliseconds",
        |policy| policy.self_fence_margin_milliseconds,
        5_000,
        30_000,
        "a late kill might meet a restarted VM, or VMs of a dead host stay down for too long",
    ),
    (
        "closeStuckMilliseconds",
        |policy| policy.close_stuck_milliseconds,
        5_000,
        3_600_000,
        "a slow shutdown would fence its host, or a VM that can not be stopped is never told",
    ),
    (
        "backOffMilliseconds",
        |policy| policy.back_off_milliseconds,
        1_000,
        600_000,
        "a crashing VM would burn the host, or stay down long",
    ),
    (
        "backOffMaximumMilliseconds",
        |policy| policy.back_off_maximum_milliseconds,
        1_000,
        3_600_000,
        "a crashing VM would burn the host, or stay down long",
    ),
    (
        "backOffResetMilliseconds",
        |policy| policy.back_off_reset_milliseconds,
        1_000,
        86_400_000,
        "crashes in a row would never add up, or a crash of last week counts",
    ),
    (
        "startAttempts",
        |policy| u64::from(policy.start_attempts),
        1,
        100,
        "nothing would start, or a broken VM is started for ever",
    ),
    (
        "startsPerHost",
        |policy| u64::from(policy.starts_per_host),
        1,
        64,
        "nothing would start, or a host is overrun",
    ),
    (
        "faultClearMilliseconds",
        |policy| policy.fault_clear_milliseconds,
        60_000,
        86_400_000,
        "a fault that flaps would clear itself, or one that is gone keeps its host empty",
    ),
    (
        "evacuationIntervalMilliseconds",
        |policy| policy.evacuation_interval_milliseconds,
        60_000,
        86_400_000,
        "an alarm that flaps would move VMs all day, or a host that fails again is not emptied",
    ),
    (
        "hostsEvacuatedAtOnce",
        |policy| u64::from(policy.hosts_evacuated_at_once),
        1,
        50,
        "no host would be emptied, or the whole site would move at once",
    ),
    (
        "migrationPrepareMilliseconds",
        |policy| policy.migration_prepare_milliseconds,
        5_000,
        3_600_000,
        "no target could prepare in time, or a dead one holds a move up",
    ),
    (
        "migrationMilliseconds",
        |policy| policy.migration_milliseconds,
        10_000,
        86_400_000,
        "no VM could move, or a stuck move blocks a drain",
    ),
    (
        "resumeLateMilliseconds",
        |policy| policy.resume_late_milliseconds,
        1_000,
        60_000,
        "every hand-over would pass for an outage, or an outage for a hand-over",
    ),
];

/// The values that are outside of their ranges, in the order of the fields.
pub(super) fn refused(policy: &Policy) -> Vec<PolicyError> {
    ROWS.into_iter()
        .map(|(field, read, least, most, because)| (field, read(policy), least, most, because))
        .filter(|(_, value, least, most, _)| value < least || value > most)
        .map(|(field, value, least, most, because)| PolicyError {
            field,
            value,
            because,
            safe: Bounds::Range { least, most },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;

    /// The policy as JSON, as a scenario or another program may hand it in.
    fn document() -> Value {
        serde_json::to_value(Policy::default()).expect("JSON")
    }

    #[test]
    fn every_number_has_a_row() {
        let document = document();
        let numbers: BTreeSet<&str> = document
            .as_object()
            .expect("an object")
            .iter()
            .filter(|(_, value)| value.is_number())
            .map(|(name, _)| name.as_str())
            .collect();
        let rows: BTreeSet<&str> = ROWS.iter().map(|row| row.0).collect();
        assert_eq!(rows, numbers);
        assert_eq!(rows.len(), ROWS.len(), "one row each");
    }

    #[test]
    fn each_row_reads_its_own_field_and_refuses_one_step_outside_of_its_range() {
        for (field, _, least, most, because) in ROWS {
            assert!(least < most, "{field}");
            for (value, bad) in [
                (least - 1, true),
                (least, false),
                (most, false),
                (most + 1, true),
            ] {
                let mut document = document();
                document[field] = json!(value);
                let policy: Policy = serde_json::from_value(document).expect("a policy");
                let wanted = bad.then_some(PolicyError {
                    field,
                    value,
                    because,
                    safe: Bounds::Range { least, most },
                });
                let wanted: Vec<PolicyError> = wanted.into_iter().collect();
                assert_eq!(refused(&policy), wanted, "{field}: {value}");
            }
        }
    }
}
