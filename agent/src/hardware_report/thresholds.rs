//! The site's thresholds as the probes read them. Pure.

use api::ThresholdPolicy;
use hardware::Thresholds;

/// The thresholds that the policy says; those that it does not have are constants (`docs/decisions/0017`).
pub fn of(policy: &ThresholdPolicy) -> Thresholds {
    let count = |number: i32| u64::try_from(number).unwrap_or(1);
    Thresholds {
        corrected_memory_errors: count(policy.corrected_memory_errors),
        memory_window_seconds: policy.memory_window_seconds.into(),
        link_flaps: count(policy.link_flaps),
        link_error_ratio: f64::from(policy.link_error_permille) / 1000.0,
        link_window_seconds: policy.link_window_seconds.into(),
        temperature_hold_seconds: policy.temperature_hold_seconds.into(),
        disk_wear_percent: policy.disk_wear_percent.into(),
        raise_polls: u32::try_from(policy.raise_polls).unwrap_or(1),
        clear_seconds: policy.clear_seconds.into(),
        ..Thresholds::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;

    /// Fields of the policy, and what the probes call them.
    const TUNED: [(&str, &str); 9] = [
        ("correctedMemoryErrors", "correctedMemoryErrors"),
        ("memoryWindowSeconds", "memoryWindowSeconds"),
        ("linkFlaps", "linkFlaps"),
        ("linkErrorPermille", "linkErrorRatio"),
        ("linkWindowSeconds", "linkWindowSeconds"),
        ("temperatureHoldSeconds", "temperatureHoldSeconds"),
        ("diskWearPercent", "diskWearPercent"),
        ("raisePolls", "raisePolls"),
        ("clearSeconds", "clearSeconds"),
    ];

    /// The table of what is no tunable, with the reasons.
    const CONSTANTS: &str =
        include_str!("../../../docs/decisions/0017-what-the-policy-does-not-tune.md");

    fn names(object: &Value) -> BTreeSet<&str> {
        let fields = object.as_object().expect("fields");
        fields.keys().map(String::as_str).collect()
    }

    #[test]
    fn a_policy_that_says_nothing_is_the_default_of_the_probes() {
        assert_eq!(of(&ThresholdPolicy::default()), Thresholds::default());
        let nothing: api::CloudPolicySpec = serde_json::from_value(json!({})).expect("a policy");
        assert_eq!(of(&nothing.thresholds), Thresholds::default());
        let empty = json!({"thresholds": {}});
        let empty: api::CloudPolicySpec = serde_json::from_value(empty).expect("a policy");
        assert_eq!(of(&empty.thresholds), Thresholds::default());
    }

    #[test]
    fn each_field_arrives_where_it_belongs_in_the_probes_unit() {
        for (field, name) in TUNED {
            let mut policy = json!(ThresholdPolicy::default());
            let value = policy[field].as_i64().expect("a number") + 1;
            policy[field] = json!(value);
            let told = policy[field].as_f64().expect("a number");
            let policy: ThresholdPolicy = serde_json::from_value(policy).expect("a policy");
            let mut wanted = json!(Thresholds::default());
            wanted[name] = match field {
                "linkErrorPermille" => json!(told / 1000.0),
                "diskWearPercent" => json!(told),
                _ => json!(value),
            };
            assert_eq!(json!(of(&policy)), wanted, "{field}");
        }
    }

    #[test]
    fn every_threshold_is_the_sites_to_set_or_a_constant_with_a_reason() {
        let policy = json!(ThresholdPolicy::default());
        let fields = BTreeSet::from(TUNED.map(|(field, _)| field));
        assert_eq!(names(&policy), fields);
        let constants: BTreeSet<&str> = CONSTANTS
            .lines()
            .filter_map(|line| line.strip_prefix("| probes: `")?.split('`').next())
            .collect();
        let tuned = BTreeSet::from(TUNED.map(|(_, name)| name));
        assert!(constants.is_disjoint(&tuned));
        let thresholds = json!(Thresholds::default());
        assert_eq!(names(&thresholds), &constants | &tuned);
    }
}
