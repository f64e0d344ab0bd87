//! The site's policy: says whether it holds together and whether fencing is armed. A policy that
//! contradicts itself is not used; the built-in defaults are in force until it is corrected.

use std::sync::Arc;

use api::FailoverPolicy;
use jiff::Timestamp;
use kube::ResourceExt;
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

/// One turn.
pub async fn turn(context: &Arc<Context>) {
    for policy in context.stores.policies.state() {
        let valid = match door::checked_policy(&policy.spec) {
            Ok(_) => Judged::new("Valid", true, "Consistent", "in force"),
            Err(errors) => {
                let sentences: Vec<String> = errors.iter().map(ToString::to_string).collect();
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
}
