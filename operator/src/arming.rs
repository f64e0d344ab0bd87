//! Whether fencing is armed at a moment: what a person's word in `spec.failover.disarmed` comes to.

use api::{Disarmed, FailoverPolicy};
use jiff::{SignedDuration, Timestamp};

/// A word that reaches further ahead than this is not followed: the 24 hours that the API server lets
/// pass, and one for clocks that disagree.
const AHEAD_MAX: SignedDuration = SignedDuration::from_hours(25);

/// Whether hosts may be forced off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arming<'a> {
    /// They may.
    Armed,
    /// They may not, on this word.
    Disarmed(&'a Disarmed),
    /// They may: this word would keep fencing off for too long, and counts for nothing.
    Ignored(&'a Disarmed),
}

impl<'a> Arming<'a> {
    /// What the policy says at a moment.
    pub fn of(policy: &'a FailoverPolicy, now: Timestamp) -> Self {
        match &policy.disarmed {
            Some(word) if word.until.0 > now + AHEAD_MAX => Self::Ignored(word),
            Some(word) if word.until.0 > now => Self::Disarmed(word),
            _ => Self::Armed,
        }
    }

    /// Whether nothing may be forced off.
    pub fn is_off(self) -> bool {
        matches!(self, Self::Disarmed(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(until: &str) -> FailoverPolicy {
        let disarmed = serde_json::json!({"until": until, "reason": "switch work", "by": "li"});
        FailoverPolicy {
            disarmed: Some(serde_json::from_value(disarmed).expect("a word")),
            ..FailoverPolicy::default()
        }
    }

    #[test]
    fn fencing_is_off_until_the_moment_and_never_for_much_more_than_a_day() {
        let now: Timestamp = "2026-11-26T00:00:00Z".parse().expect("a moment");
        for (until, off) in [
            ("2026-11-25T23:59:59Z", false),
            ("2026-11-26T00:00:00Z", false),
            ("2026-11-26T00:00:01Z", true),
            ("2026-11-27T00:00:00Z", true),
            ("2026-11-27T01:00:00Z", true),
            ("2026-11-27T01:00:01Z", false),
            ("9999-12-30T22:00:00Z", false),
        ] {
            let policy = policy(until);
            assert_eq!(Arming::of(&policy, now).is_off(), off, "{until}");
        }
        let far = policy("2026-12-26T00:00:00Z");
        assert!(matches!(Arming::of(&far, now), Arming::Ignored(_)));
        let past = policy("2026-11-25T00:00:00Z");
        assert_eq!(Arming::of(&past, now), Arming::Armed);
        assert_eq!(
            Arming::of(&FailoverPolicy::default(), now),
            Arming::Armed,
            "nothing was said"
        );
    }
}
