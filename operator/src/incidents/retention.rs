//! How long closed Incidents are kept.

use std::sync::Arc;

use api::Incident;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use crate::runtime::Context;
use crate::writer::logged;

/// Days that a closed Incident is kept when the policy says nothing: a year.
const DAYS: i32 = 365;
/// Fewer days are never taken from a policy, whatever it says: the law asks for six months (GB/T 22239
/// and the Cybersecurity Law, article 21). The API refuses such a policy too; the record must not hang on
/// that alone.
const DAYS_LEAST: i32 = 180;

/// Deletes closed Incidents that the policy does not keep any longer.
pub(super) async fn forget(context: &Context, stored: &[Arc<Incident>]) {
    let days = context.stores.policy().incident_retention_days;
    let now = super::wall();
    for incident in stored.iter().filter(|known| is_over(known, days, now)) {
        logged(
            "incident",
            &incident.name_any(),
            context.writer.delete(incident.as_ref()).await,
        );
    }
}

/// Whether an Incident has been closed for longer than it is kept.
fn is_over(incident: &Incident, days: Option<i32>, now: Timestamp) -> bool {
    let days = days.unwrap_or(DAYS).max(DAYS_LEAST);
    let kept = SignedDuration::from_hours(24 * i64::from(days));
    let closed = incident
        .status
        .as_ref()
        .and_then(|status| status.closed_at.as_ref());
    incident.is_closed() && closed.is_some_and(|closed| now.duration_since(closed.0) > kept)
}

#[cfg(test)]
mod tests {
    use api::{CauseClass, IncidentSpec, IncidentStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    use super::*;

    fn closed_at(second: i64, state: &str) -> Incident {
        let at = MicroTime(Timestamp::from_second(second).expect("a time"));
        let spec = IncidentSpec {
            cause: "hardware/h1/fan/1/Fan".to_owned(),
            cause_class: CauseClass::Hardware,
            title: "a fan".to_owned(),
            title_chinese: String::new(),
            host: None,
            opened_at: at.clone(),
            closure: None,
        };
        let mut incident = Incident::new("a-fan", spec);
        incident.status = Some(IncidentStatus {
            state: state.to_owned(),
            closed_at: (state == "Closed").then_some(at),
            ..IncidentStatus::default()
        });
        incident
    }

    const DAY: i64 = 24 * 3600;

    /// Whether one is deleted that was closed so many days and seconds ago.
    fn goes(days: i64, seconds: i64, policy: Option<i32>) -> bool {
        let now = 1_800_000_000;
        let incident = closed_at(now - days * DAY - seconds, "Closed");
        is_over(
            &incident,
            policy,
            Timestamp::from_second(now).expect("a time"),
        )
    }

    #[test]
    fn a_closed_incident_is_kept_for_the_days_of_the_policy_and_not_longer() {
        for (policy, days) in [
            (None, 365),
            (Some(180), 180),
            (Some(181), 181),
            (Some(3650), 3650),
        ] {
            assert!(!goes(days, 0, policy), "{policy:?}: on the last day");
            assert!(goes(days, 1, policy), "{policy:?}: a second later");
        }
        assert!(!goes(179, 0, Some(180)));
    }

    #[test]
    fn no_policy_makes_the_record_shorter_than_the_law() {
        for policy in [i32::MIN, -1, 0, 1, 179] {
            assert!(!goes(179, 0, Some(policy)), "{policy}");
            assert!(!goes(180, 0, Some(policy)), "{policy}");
            assert!(goes(180, 1, Some(policy)), "{policy}");
        }
    }

    #[test]
    fn what_is_not_closed_is_never_deleted() {
        let now = Timestamp::from_second(1_800_000_000).expect("a time");
        for state in ["Open", "Recovered", ""] {
            assert!(!is_over(&closed_at(0, state), Some(180), now), "{state}");
        }
    }
}
