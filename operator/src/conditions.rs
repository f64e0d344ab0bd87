//! Conditions by the Kubernetes conventions: what is true of an object, since when, and why.

use api::Condition;

/// One thing that is judged of an object.
#[derive(Clone, Debug)]
pub struct Judged {
    /// Type of the condition.
    pub kind: &'static str,
    /// It is as it should be.
    pub good: bool,
    /// One word of why.
    pub reason: String,
    /// A sentence for people. Must not change by itself with time: every change is a write.
    pub message: String,
}

impl Judged {
    /// A judgement.
    pub fn new(
        kind: &'static str,
        good: bool,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            good,
            reason: reason.into(),
            message: message.into(),
        }
    }
}

/// The judgements as conditions, each keeping the time of its last transition.
pub fn conditions(
    known: &[Condition],
    judged: &[Judged],
    generation: Option<i64>,
) -> Vec<Condition> {
    let one = |judged: &Judged| {
        let status = if judged.good { "True" } else { "False" };
        let last = known
            .iter()
            .find(|condition| condition.type_ == judged.kind && condition.status == status);
        Condition {
            type_: judged.kind.to_owned(),
            status: status.to_owned(),
            reason: judged.reason.clone(),
            message: judged.message.clone(),
            observed_generation: generation,
            last_transition_time: last.map_or_else(crate::clock::wall, |condition| {
                condition.last_transition_time.clone()
            }),
        }
    };
    judged.iter().map(one).collect()
}

/// A single judgement as the list of conditions.
pub fn condition(
    known: &[Condition],
    kind: &'static str,
    good: bool,
    reason: &str,
    message: &str,
    generation: Option<i64>,
) -> Vec<Condition> {
    conditions(
        known,
        &[Judged::new(kind, good, reason, message)],
        generation,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_the_last_transition_is_kept_until_the_status_turns() {
        let first = conditions(&[], &[Judged::new("Ready", true, "Fine", "")], Some(1));
        let mut aged = first.clone();
        aged[0].last_transition_time = api::Time("2026-01-01T00:00:00Z".parse().expect("a time"));
        let same = condition(&aged, "Ready", true, "StillFine", "new words", Some(2));
        assert_eq!(
            same[0].last_transition_time, aged[0].last_transition_time,
            "another reason is no transition"
        );
        let turned = condition(&aged, "Ready", false, "Broken", "", Some(3));
        assert_ne!(turned[0].last_transition_time, aged[0].last_transition_time);
    }
}
