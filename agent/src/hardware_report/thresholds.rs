//! The site's thresholds as the probes read them. Pure.

use api::{CloudPolicy, Condition, ThresholdPolicy};
use hardware::Thresholds;

/// The thresholds that count, as the operator judged the policy: a policy that contradicts itself is used nowhere, and the
/// defaults are in force until it is corrected. Nothing of one that is not judged yet: those of before go on.
pub fn in_force(policy: Option<&CloudPolicy>) -> Option<Thresholds> {
    let Some(policy) = policy else {
        return Some(Thresholds::default());
    };
    let conditions = policy.status.iter().flat_map(|status| &status.conditions);
    let judged = |one: &&Condition| {
        one.type_ == "Valid" && one.observed_generation == policy.metadata.generation
    };
    let valid = conditions.into_iter().find(judged)?;
    Some(match valid.status.as_str() {
        "True" => of(&policy.spec.thresholds),
        _ => Thresholds::default(),
    })
}

/// The thresholds that the policy says; those that it does not have are constants (`docs/decisions/0017`).
fn of(policy: &ThresholdPolicy) -> Thresholds {
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

    /// Of a policy in its second generation, judged so in one of them.
    fn judged(status: &str, generation: i64) -> Option<Thresholds> {
        let policy: CloudPolicy = serde_json::from_value(json!({
            "metadata": {"name": "default", "generation": 2},
            "spec": {"thresholds": {"linkFlaps": 7}},
            "status": {"conditions": [{"type": "Valid", "status": status, "reason": "R", "message": "",
                "observedGeneration": generation, "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
        }))
        .expect("a policy");
        in_force(Some(&policy))
    }

    #[test]
    fn a_policy_that_the_operator_refuses_tunes_no_probe() {
        let taken = judged("True", 2).expect("thresholds");
        assert_eq!(taken.link_flaps, 7);
        assert_eq!(judged("False", 2), Some(Thresholds::default()));
        assert_eq!(judged("True", 1), None, "not judged yet");
        assert_eq!(in_force(None), Some(Thresholds::default()), "there is none");
        let new: CloudPolicy = serde_json::from_value(json!({
            "metadata": {"name": "default", "generation": 1},
            "spec": {"thresholds": {"linkFlaps": 7}},
        }))
        .expect("a policy");
        assert_eq!(in_force(Some(&new)), None, "nobody has judged it");
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
