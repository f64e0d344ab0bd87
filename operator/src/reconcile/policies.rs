//! The site's policy: says whether it holds together and whether fencing is armed. A policy that
//! contradicts itself is not used; the built-in defaults are in force until it is corrected.

use std::sync::Arc;

use api::{Condition, FailoverPolicy};
use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::events::EventType;
use serde_json::json;

use crate::arming::Arming;
use crate::conditions::{Judged, conditions};
use crate::runtime::Context;
use crate::writer::logged;
use crate::{door, freeze};

/// Whether the site is frozen, and what a rebase waits for.
fn frozen(context: &Context) -> Judged {
    match freeze::message(context) {
        None => Judged::new("Acting", true, "Acting", ""),
        Some(message) => Judged::new("Acting", false, "Frozen", message),
    }
}

/// Whether fencing is armed, on whose word.
fn armed(failover: &FailoverPolicy, now: Timestamp) -> Judged {
    match Arming::of(failover, now) {
        Arming::Armed => {
            let by = failover.armed.as_ref().map(|armed| {
                let reason = armed.reason.as_deref().unwrap_or("no reason was given");
                format!("; armed at {} by {}: {reason}", armed.at.0, armed.by)
            });
            let message = format!(
                "dead hosts are fenced and their VMs restarted{}",
                by.unwrap_or_default()
            );
            Judged::new("Armed", true, "Armed", message)
        }
        Arming::Disarmed(word) => Judged::new(
            "Armed",
            false,
            "Disarmed",
            format!(
                "disarmed until {} by {}: {}",
                word.until.0, word.by, word.reason
            ),
        ),
        Arming::Ignored(word) => Judged::new(
            "Armed",
            true,
            "DisarmIgnored",
            format!(
                "spec.failover.disarmed.until: {} by {} is more than a day ahead and is not followed: dead hosts are fenced; for work on the network: zyctl failover disarm --for 2h --reason ...",
                word.until.0, word.by
            ),
        ),
    }
}

/// What is to be told of `Armed`: that somebody disarmed, armed, or said what is not followed, or that the
/// time is over. That a new policy is armed is no news.
fn news<'a>(known: &[Condition], wanted: &'a [Condition]) -> Option<&'a Condition> {
    let armed = |condition: &&Condition| condition.type_ == "Armed";
    let (before, now) = (known.iter().find(armed), wanted.iter().find(armed)?);
    let is_news = match before {
        Some(before) => before.message != now.message,
        None => now.reason != "Armed",
    };
    is_news.then_some(now)
}

/// One turn.
pub async fn turn(context: &Arc<Context>) {
    for policy in context.stores.policies.state() {
        let valid = match door::checked_policy(&policy.spec) {
            Ok(_) => Judged::new("Valid", true, "Consistent", "in force"),
            Err(sentences) => {
                let message = format!(
                    "{}; until it is corrected the defaults are in force",
                    sentences.join("; ")
                );
                Judged::new("Valid", false, "Contradiction", message)
            }
        };
        let armed = armed(&policy.spec.failover, Timestamp::now());
        let known = policy.status.clone().unwrap_or_default().conditions;
        let wanted = conditions(
            &known,
            &[valid, armed, frozen(context)],
            policy.metadata.generation,
        );
        if known != wanted && context.writer.settled(policy.as_ref()) {
            let result = context
                .writer
                .swap_status(policy.as_ref(), json!({"conditions": wanted}))
                .await;
            if result.is_ok()
                && let Some(word) = news(&known, &wanted)
            {
                let kind = EventType::Warning;
                context
                    .writer
                    .tell(policy.as_ref(), kind, &word.reason, &word.message)
                    .await;
            }
            logged("policy", &policy.name_any(), result);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(failover: serde_json::Value) -> Judged {
        let failover = serde_json::from_value(failover).expect("a policy");
        armed(&failover, "2026-11-26T00:00:00Z".parse().expect("a moment"))
    }

    #[test]
    fn the_condition_names_who_disarmed_who_armed_and_a_word_that_is_not_followed() {
        let untouched = judged(json!({}));
        assert!(untouched.good && !untouched.message.contains(" by "));
        let word = |until: &str| json!({"disarmed": {"until": until, "reason": "switch work", "by": "li"}});
        let off = judged(word("2026-11-26T01:00:00Z"));
        assert!(!off.good, "{}", off.message);
        assert!(
            off.message.contains("by li: switch work"),
            "{}",
            off.message
        );
        let far = judged(word("2026-12-26T00:00:00Z"));
        assert!(far.good && far.reason == "DisarmIgnored");
        assert!(
            far.message.contains("2026-12-26") && far.message.contains("by li"),
            "{}",
            far.message
        );
        let again = judged(
            json!({"armed": {"at": "2026-11-26T00:00:00Z", "by": "ops", "reason": "work done"}}),
        );
        assert!(again.good, "{}", again.message);
        assert!(
            again.message.contains("by ops: work done"),
            "{}",
            again.message
        );
    }

    #[test]
    fn each_word_is_told_once_and_so_is_the_end_of_its_time() {
        let at = |failover: serde_json::Value, known: &[Condition]| {
            conditions(known, &[judged(failover)], Some(1))
        };
        let fresh = at(json!({}), &[]);
        assert!(news(&[], &fresh).is_none(), "armed from the beginning");
        let word = json!({"disarmed": {"until": "2026-11-26T01:00:00Z", "reason": "switch work", "by": "li"}});
        let off = at(word.clone(), &fresh);
        assert_eq!(
            news(&fresh, &off).map(|told| told.reason.as_str()),
            Some("Disarmed")
        );
        assert!(news(&off, &at(word, &off)).is_none(), "it stands");
        let longer = json!({"disarmed": {"until": "2026-11-26T02:00:00Z", "reason": "switch work", "by": "wang"}});
        assert!(news(&off, &at(longer, &off)).is_some(), "said anew");
        let over = at(
            json!({"disarmed": {"until": "2026-11-25T01:00:00Z", "reason": "switch work", "by": "li"}}),
            &off,
        );
        assert_eq!(
            news(&off, &over).map(|told| told.reason.as_str()),
            Some("Armed")
        );
        let again = at(
            json!({"armed": {"at": "2026-11-26T00:00:00Z", "by": "ops", "reason": "done"}}),
            &off,
        );
        let told = news(&off, &again).map(|told| told.message.clone());
        assert!(told.is_some_and(|told| told.contains("by ops: done")));
    }
}
