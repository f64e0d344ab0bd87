//! What people said of a host, as conditions while it stands and as an Event when it is new: who acted,
//! when and why can be seen after the field itself was taken back or said anew.

use api::{Condition, Host};
use failover::proof::confirmation::ConfirmationError;
use kube::runtime::events::EventType;

use crate::conditions::Judged;

/// Condition of a host that a person called powered off.
const CONFIRMED: &str = "ConfirmedOff";
/// Condition of a host whose faults a person called dealt with.
const CLEARED: &str = "FaultsCleared";

/// The words that stand, and why one counts for nothing or not yet; none is there without one.
pub(super) fn judged(host: &Host, refused: Option<&ConfirmationError>) -> Vec<Judged> {
    let confirmed = host.spec.confirmed_off.as_ref().map(|word| {
        let mut message = format!(
            "boot {} is powered off, says {} at {}: {}",
            word.boot_id, word.by, word.at.0, word.reason
        );
        let why = match refused {
            None => "ByPerson",
            Some(refused) => {
                message = format!("{refused} ({message})");
                "Refused"
            }
        };
        Judged::new(CONFIRMED, refused.is_none(), why, message)
    });
    let cleared = host.spec.fault_clearance.as_ref().map(|word| {
        let message = format!(
            "faults seen until {} are dealt with, says {}: {}",
            word.at.0, word.by, word.reason
        );
        Judged::new(CLEARED, true, "ByPerson", message)
    });
    confirmed.into_iter().chain(cleared).collect()
}

/// Words among the conditions that were not there before, with how loud each is told.
pub(super) fn news<'a>(
    known: &[Condition],
    wanted: &'a [Condition],
) -> Vec<(EventType, &'a Condition)> {
    let is_new = |condition: &&Condition| {
        let before = known.iter().find(|known| known.type_ == condition.type_);
        before.is_none_or(|before| before.message != condition.message)
    };
    wanted
        .iter()
        .filter(is_new)
        .filter_map(|condition| match condition.type_.as_str() {
            CONFIRMED => Some((EventType::Warning, condition)),
            CLEARED => Some((EventType::Normal, condition)),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::conditions::conditions;

    fn host(words: Value) -> Host {
        let mut spec = json!({"pool": "p", "managementAddress": "10.0.0.1"});
        for (field, word) in words.as_object().expect("words") {
            spec[field] = word.clone();
        }
        serde_json::from_value(json!({
            "apiVersion": "zhengyun.io/v1alpha1", "kind": "Host", "metadata": {"name": "h1"}, "spec": spec,
        }))
        .expect("a host")
    }

    #[test]
    fn a_word_is_told_once_and_again_when_it_is_said_anew() {
        let at = "2026-11-26T00:00:00Z";
        let cleared = |reason: &str, at: &str| {
            host(json!({"faultClearance": {"at": at, "by": "li", "reason": reason}}))
        };
        let judged = |host: &Host| judged(host, None);
        assert!(judged(&host(json!({}))).is_empty());
        let first = conditions(&[], &judged(&cleared("new fan", at)), Some(1));
        let told = news(&[], &first);
        assert_eq!(told.len(), 1);
        let message = &told[0].1.message;
        assert!(message.contains("li: new fan"), "{message}");
        assert!(news(&first, &first).is_empty(), "it stands");
        let later = judged(&cleared("new fan", "2026-11-26T08:00:00Z"));
        let again = conditions(&first, &later, Some(2));
        assert_eq!(
            news(&first, &again).len(),
            1,
            "the same words of another day"
        );
        let both = host(json!({
            "faultClearance": {"at": at, "by": "li", "reason": "new fan"},
            "confirmedOff": {"bootId": "b1", "at": at, "by": "ops", "reason": "cord pulled"},
        }));
        let both = conditions(&first, &judged(&both), Some(2));
        let told = news(&first, &both);
        assert_eq!(told.len(), 1, "the other one stands");
        let message = &told[0].1.message;
        assert!(
            message.contains("boot b1") && message.contains("ops"),
            "{message}"
        );
    }

    #[test]
    fn a_word_that_is_refused_is_not_told_as_true() {
        let word = json!({"bootId": "b1", "at": "2026-11-26T00:00:00Z", "by": "ops", "reason": "cord pulled"});
        let host = host(json!({ "confirmedOff": word }));
        let void = ConfirmationError::Void("h1".into());
        let told = conditions(&[], &judged(&host, Some(&void)), Some(1));
        assert_eq!(
            (told[0].status.as_str(), told[0].reason.as_str()),
            ("False", "Refused")
        );
        assert!(
            told[0].message.contains("say so anew"),
            "{}",
            told[0].message
        );
        let early = conditions(&[], &judged(&host, None), Some(1));
        assert_eq!(early[0].status, "True");
        assert_eq!(
            news(&told, &early).len(),
            1,
            "that it counts now is told too"
        );
    }

    #[test]
    fn what_is_judged_of_a_host_is_no_word() {
        let judged = [Judged::new("Ready", false, "Unreachable", "silent")];
        assert!(news(&[], &conditions(&[], &judged, None)).is_empty());
    }
}
