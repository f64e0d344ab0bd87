//! A leader dies between its act and its word of it; the next one tells it from what the API keeps.

use serde_json::{Value, json};

use super::*;
use crate::incidents::stored;

/// When the new leader begins.
const NOW: &str = "2026-01-01T00:10:00Z";

fn wall() -> Timestamp {
    NOW.parse().expect("a time")
}

/// A VM that was on h1 and was assigned to h2 on this proof, started there at that time.
fn restarted(kind: &str, started: &str) -> Arc<VirtualMachine> {
    let now = json!({"host": "h2", "bootId": "b2", "epoch": 4});
    let vm = serde_json::from_value(json!({
        "metadata": {"name": "oa-db-0", "namespace": "egov"},
        "spec": {"cpu": 1, "memory": "1Gi", "image": "i", "disks": [], "networks": []},
        "status": {
            "assignment": now,
            "runtime": {"assignment": now, "phase": "Running", "since": started, "startedAt": started},
            "proofs": [{"kind": kind, "host": "h1", "bootId": "b1", "epoch": 3, "evidence": "read Off twice"}]
        }
    }));
    Arc::new(vm.expect("a VM"))
}

fn fenced_host(intent: Option<&str>) -> Arc<Host> {
    let fencing = intent.map(|at| {
        json!({"bootId": "b1", "startedAt": at, "expiresAfterSeconds": 20, "attempts": 0,
               "reason": "hung", "by": "operator-0"})
    });
    let mut host: Host = serde_json::from_value(json!({
        "metadata": {"name": "h1"}, "spec": {"pool": "general", "managementAddress": "10.0.0.1"}
    }))
    .expect("a Host");
    host.status = Some(serde_json::from_value(json!({"fencing": fencing})).expect("a status"));
    Arc::new(host)
}

fn incident(cause: &str, status: Value) -> Incident {
    serde_json::from_value(json!({
        "metadata": {"name": "i"},
        "spec": {"cause": cause, "causeClass": "Unknown", "title": "t",
                 "openedAt": "2026-01-01T00:09:30.000000Z"},
        "status": status
    }))
    .expect("an Incident")
}

fn steps(ledger: &Ledger, cause: &str) -> Vec<String> {
    let timeline = ledger.get(cause).map(|incident| incident.timeline.clone());
    let steps = timeline.into_iter().flatten().map(|entry| entry.step);
    steps.collect()
}

/// A new leader: what is stored, then what it reads back, twice.
fn takes_over(stored: &[Incident], hosts: &[Arc<Host>], vms: &[Arc<VirtualMachine>]) -> Ledger {
    let mut ledger = Ledger::restore(stored.iter().map(stored::read));
    deaths(&mut ledger, stored, vms, wall());
    for _ in 0..2 {
        follow(&mut ledger, hosts, vms);
    }
    ledger
}

#[test]
fn a_fence_and_a_proof_of_a_leader_that_died_are_told_once_by_the_next() {
    let stored = [incident("host-silent/h1/b1", json!({"state": "Open"}))];
    let (host, vm) = (
        fenced_host(Some("2026-01-01T00:09:38Z")),
        restarted("PoweredOff", "2026-01-01T00:09:50Z"),
    );
    let mut ledger = takes_over(
        &stored,
        std::slice::from_ref(&host),
        std::slice::from_ref(&vm),
    );
    let expected = ["h1/Decided/FenceIntended", "h1/Decided/Proven"];
    assert_eq!(steps(&ledger, "host-silent/h1/b1"), expected);
    let timeline = &ledger.get("host-silent/h1/b1").expect("open").timeline;
    assert_eq!(
        timeline[0].at.0, 1_767_226_178_000_000,
        "when it was written"
    );
    // The new leader comes to the same conclusions itself.
    for reason in [
        Reason::FenceIntended,
        Reason::Proven {
            kind: StopProofKind::PoweredOff,
            evidence: "read Off thrice".to_owned(),
        },
    ] {
        let event = HostEvent {
            host: "h1".into(),
            boot_id: "b1".into(),
            kind: EventKind::Decided,
            reason,
        };
        ledger.host_event(&event, now());
    }
    assert_eq!(steps(&ledger, "host-silent/h1/b1"), expected);
}

#[test]
fn a_death_that_was_acted_on_and_never_told_is_told_by_the_next_leader() {
    for kind in [
        "PoweredOff",
        "SelfFenced",
        "Rebooted",
        "Confirmed",
        "StorageFenced",
    ] {
        let vm = restarted(kind, "2026-01-01T00:09:50Z");
        let ledger = takes_over(&[], &[], &[vm.clone(), vm]);
        assert_eq!(
            steps(&ledger, "host-silent/h1/b1"),
            ["h1/Decided/Proven"],
            "{kind}"
        );
    }
}

#[test]
fn a_death_that_was_told_or_is_long_past_or_was_none_is_not_told() {
    let closed = json!({"state": "Closed", "closedAt": "2026-01-01T00:09:55.000000Z"});
    let recent = "2026-01-01T00:09:50Z";
    for (kind, started, stored) in [
        (
            "PoweredOff",
            recent,
            vec![incident("host-silent/h1/b1", closed.clone())],
        ),
        ("PoweredOff", recent, vec![incident(STORM_CAUSE, closed)]),
        ("PoweredOff", "2025-12-31T23:59:00Z", vec![]),
        ("Closed", recent, vec![]),
        ("HandedOver", recent, vec![]),
    ] {
        let ledger = takes_over(&stored, &[], &[restarted(kind, started)]);
        assert_eq!(ledger.get("host-silent/h1/b1"), None, "{kind} {started}");
    }
}

#[test]
fn an_intent_alone_or_one_of_an_earlier_silence_tells_nothing() {
    let host = |at| [fenced_host(Some(at))];
    let ledger = takes_over(&[], &host("2026-01-01T00:09:38Z"), &[]);
    assert!(ledger.open().is_empty());
    let stored = [incident("host-silent/h1/b1", json!({"state": "Open"}))];
    let ledger = takes_over(&stored, &host("2026-01-01T00:01:00Z"), &[]);
    assert!(steps(&ledger, "host-silent/h1/b1").is_empty());
}

#[test]
fn a_vm_without_an_assignment_is_not_recent() {
    let mut vm = restarted("PoweredOff", "2026-01-01T00:09:50Z")
        .as_ref()
        .clone();
    assert!(is_recent(&vm, wall()));
    vm.status.as_mut().expect("a status").assignment = None;
    assert!(!is_recent(&vm, wall()));
}

#[test]
fn a_copy_past_its_start_is_as_old_as_the_last_word_of_it_at_least() {
    let said = |phase: &str, since: &str, started: Option<&str>| {
        let mut vm = VirtualMachine::clone(&restarted("PoweredOff", since));
        let runtime = vm
            .status
            .as_mut()
            .and_then(|status| status.runtime.as_mut());
        let runtime = runtime.expect("a report");
        runtime.phase = serde_json::from_value(json!(phase)).expect("a phase");
        let time = |text: &str| serde_json::from_value(json!(text)).expect("a time");
        runtime.started_at = started.map(time);
        is_recent(&vm, wall())
    };
    let (days_ago, a_moment_ago) = ("2025-12-29T00:00:00Z", "2026-01-01T00:09:30Z");
    for phase in ["Closed", "Stalled", "CloseStuck", "Running"] {
        assert!(!said(phase, days_ago, None), "{phase}: it is no start");
        assert!(!said(phase, a_moment_ago, Some(days_ago)), "{phase}");
        assert!(said(phase, a_moment_ago, None), "{phase}");
        assert!(said(phase, a_moment_ago, Some(a_moment_ago)), "{phase}");
    }
    assert!(said("Preparing", days_ago, None), "it waits since then");
}

/// This operator saw a silence from its beginning to its end and did not lead; the leader told it, and was followed then.
#[test]
fn a_silence_that_the_leader_has_told_to_its_end_is_not_told_again() {
    let at = |second: i64| WallTime(wall().as_microsecond() + second * 1_000_000);
    let event = |boot: &str, reason: Reason, second: i64| {
        let event = HostEvent {
            host: "h1".into(),
            boot_id: boot.into(),
            kind: EventKind::Seen,
            reason,
        };
        Noted {
            event,
            at: at(second),
            followed: Default::default(),
            unheard: false,
        }
    };
    let silent = |second| {
        let silent_milliseconds = 8_000;
        event(
            "b1",
            Reason::Unreachable {
                silent_milliseconds,
            },
            second,
        )
    };
    let told = |state: &str, steps: &[&str]| {
        let timeline: Vec<Value> = steps
            .iter()
            .map(|step| json!({"at": NOW, "kind": "Seen", "step": step, "text": "t", "chinese": "t"}))
            .collect();
        let closed = (state == "Closed").then_some(NOW);
        incident(
            "host-silent/h1/b1",
            json!({"state": state, "timeline": timeline, "closedAt": closed}),
        )
    };
    let (dead, died) = (event("b2", Reason::Returned, -10), "h1/Seen/Returned");
    let (alive, lived) = (event("b1", Reason::Alive, -10), "h1/Seen/Alive");
    for (events, stored, left, why) in [
        (
            vec![silent(-20), dead.clone()],
            told("Closed", &[died]),
            1,
            "its boot is over",
        ),
        // Clocks of two machines differ.
        (
            vec![silent(90), event("b2", Reason::Returned, 99)],
            told("Closed", &[died]),
            1,
            "so by any clock",
        ),
        (
            vec![silent(-20), alive.clone()],
            told("Closed", &[lived]),
            1,
            "it was closed later",
        ),
        (
            vec![silent(20), event("b1", Reason::Alive, 30)],
            told("Closed", &[lived]),
            2,
            "silent again",
        ),
        (vec![silent(-20)], told("Closed", &[lived]), 1, "it lasts"),
        (
            vec![silent(-20), dead],
            told("Open", &[died]),
            2,
            "the ledger goes on with it",
        ),
        (
            vec![silent(-20), alive],
            incident(
                "host-silent/h1/b0",
                json!({"state": "Closed", "closedAt": NOW}),
            ),
            2,
            "another boot",
        ),
    ] {
        let mut waiting = VecDeque::from(events);
        forget_told(&mut waiting, &[stored]);
        assert_eq!(waiting.len(), left, "{why}");
    }
}
