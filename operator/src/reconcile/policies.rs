//! The site's policy: says whether it holds together and whether fencing is armed. A policy that
//! contradicts itself is not used; the built-in defaults are in force until it is corrected.

use std::sync::Arc;

use kube::ResourceExt;
use serde_json::json;

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
        let disarmed = policy
            .spec
            .failover
            .disarmed
            .as_ref()
            .filter(|disarmed| disarmed.until.0 > jiff::Timestamp::now());
        let armed = match disarmed {
            None => Judged::new(
                "Armed",
                true,
                "Armed",
                "dead hosts are fenced and their VMs restarted",
            ),
            Some(disarmed) => Judged::new(
                "Armed",
                false,
                "Disarmed",
                format!(
                    "disarmed until {} by {}: {}",
                    disarmed.until.0, disarmed.by, disarmed.reason
                ),
            ),
        };
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
