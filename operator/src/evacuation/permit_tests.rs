//! The bounds of evacuations, over turns and over leaders.

use serde_json::{Value, json};

use super::super::told::{Outcome, told};
use super::*;

fn host(evacuation: Value, cleared: Option<&str>) -> Arc<Host> {
    let mut host: Host = serde_json::from_value(json!({
        "metadata": {"name": "h"}, "spec": {"pool": "general", "managementAddress": "10.0.0.1"}
    }))
    .expect("a Host");
    host.spec.fault_clearance = cleared.map(|at| {
        serde_json::from_value(json!({"at": at, "by": "ops", "reason": "new fan"}))
            .expect("a clearance")
    });
    host.status =
        Some(serde_json::from_value(json!({"evacuation": evacuation})).expect("a status"));
    Arc::new(host)
}

fn wanted(hosts: &[(&str, &Arc<Host>)]) -> BTreeMap<HostName, (Arc<Host>, Why)> {
    let fault = Why::Fault(Severity::Critical);
    hosts
        .iter()
        .map(|(name, host)| (HostName::from(*name), (Arc::clone(host), fault)))
        .collect()
}

/// Now, on the monotonic clock and on the wall.
const NOW: Moment = Moment(86_400_000);

fn wall() -> jiff::Timestamp {
    "2026-01-01T01:00:00Z".parse().expect("a time")
}

fn one_at_once() -> Policy {
    Policy {
        hosts_evacuated_at_once: 1,
        ..Policy::default()
    }
}

#[test]
fn a_host_that_waits_for_its_turn_does_not_give_itself_its_permit() {
    let (runs, mut waits) = (
        host(json!({"phase": "Running"}), None),
        host(Value::Null, None),
    );
    let mut memory = Evacuations::default();
    for _ in 0..3 {
        let wanted = wanted(&[("h1", &runs), ("h2", &waits)]);
        let (permitted, waiting) = permit(&mut memory, &wanted, &one_at_once(), NOW);
        assert_eq!(permitted, BTreeSet::from(["h1".into()]));
        let reason = waiting[&HostName::from("h2")].clone();
        let outcome = Outcome::whole("Waiting", 2, reason);
        let why = Why::Fault(Severity::Critical);
        if let Some(patch) = told(standing(&waits), None, why, outcome) {
            assert_eq!(patch["phase"], "Waiting");
            assert_eq!(patch.get("startedAt"), None);
            waits = host(patch, None);
        }
    }
}

#[test]
fn an_evacuation_goes_on_while_its_status_is_not_seen_yet() {
    let (first, second) = (host(Value::Null, None), host(Value::Null, None));
    let wanted = wanted(&[("h1", &first), ("h2", &second)]);
    let mut memory = Evacuations::default();
    for _ in 0..3 {
        let (permitted, waiting) = permit(&mut memory, &wanted, &one_at_once(), NOW);
        assert_eq!(permitted, BTreeSet::from(["h1".into()]));
        assert_eq!(waiting.len(), 1);
    }
}

#[test]
fn a_host_that_is_held_or_blocked_holds_up_no_other() {
    let held =
        json!({"phase": "Blocked", "startedAt": "2026-01-01T00:00:00Z", "reason": "HardwareFault"});
    let (held, fresh) = (host(held, None), host(Value::Null, None));
    let wanted = wanted(&[("h1", &held), ("h2", &fresh)]);
    let mut memory = Evacuations::default();
    let (permitted, waiting) = permit(&mut memory, &wanted, &one_at_once(), NOW);
    assert_eq!((permitted.len(), waiting.len()), (2, 0), "{waiting:?}");
}

#[test]
fn a_new_leader_keeps_to_the_bound_that_the_former_began() {
    let ended =
        |at: &str, reason: &str| json!({"phase": "Cancelled", "startedAt": at, "reason": reason});
    for (at, reason, cleared, waits) in [
        ("2026-01-01T00:31:00Z", "HardwareFault", None, true),
        ("2026-01-01T00:30:00Z", "HardwareFault", None, false),
        // A leader's clock that runs ahead.
        ("2026-01-01T02:00:00Z", "HardwareFault", None, true),
        // A person's word, after and before.
        (
            "2026-01-01T00:31:00Z",
            "HardwareFault",
            Some("2026-01-01T00:40:00Z"),
            false,
        ),
        (
            "2026-01-01T00:31:00Z",
            "HardwareFault",
            Some("2026-01-01T00:20:00Z"),
            true,
        ),
        // Work on a host is no fault.
        ("2026-01-01T00:59:00Z", "Maintenance", None, false),
    ] {
        let host = host(ended(at, reason), cleared);
        let wanted = wanted(&[("h1", &host)]);
        let mut memory = Evacuations::default();
        recall(&mut memory, &wanted, NOW, wall());
        let (permitted, _) = permit(&mut memory, &wanted, &Policy::default(), NOW);
        assert_eq!(permitted.is_empty(), waits, "{at} {reason} {cleared:?}");
    }
}

#[test]
fn an_evacuation_under_way_is_no_new_one_for_the_next_leader() {
    let runs =
        json!({"phase": "Blocked", "startedAt": "2026-01-01T00:59:00Z", "reason": "HardwareFault"});
    let host = host(runs, None);
    let wanted = wanted(&[("h1", &host)]);
    let mut memory = Evacuations::default();
    recall(&mut memory, &wanted, NOW, wall());
    let (permitted, _) = permit(&mut memory, &wanted, &one_at_once(), NOW);
    assert_eq!(permitted.len(), 1);
}

#[test]
fn what_was_begun_before_another_led_is_no_permit() {
    let (fresh, policy) = (host(Value::Null, None), Policy::default());
    let mut memory = Evacuations::default();
    let (permitted, _) = permit(&mut memory, &wanted(&[("h1", &fresh)]), &policy, NOW);
    assert_eq!(permitted.len(), 1);
    memory.forget();
    // Another leader began it anew and ended it, a minute ago.
    let ended = json!({
        "phase": "Cancelled", "startedAt": "2026-01-01T00:59:00Z", "reason": "HardwareFault"
    });
    let ended = host(ended, None);
    let wanted = wanted(&[("h1", &ended)]);
    recall(&mut memory, &wanted, NOW, wall());
    let (permitted, waiting) = permit(&mut memory, &wanted, &policy, NOW);
    assert_eq!((permitted.len(), waiting.len()), (0, 1));
}
