//! Which guests have crashed, are well, or wait; since when planned work interrupts a system.

use serde_json::{Value, json};

use super::*;
use crate::incidents::world_in_memory::World;

/// A VM whose spec no test here looks at, but for how it is to run.
fn vm(run_strategy: &str, status: Value) -> Arc<VirtualMachine> {
    let mut vm: VirtualMachine = serde_json::from_value(json!({
        "metadata": {"name": "oa-db-0", "namespace": "egov"},
        "spec": {"cpu": 1, "memory": "1Gi", "image": "i", "disks": [], "networks": [],
                 "runStrategy": run_strategy}
    }))
    .expect("a VM");
    vm.status = Some(serde_json::from_value(status).expect("a status"));
    Arc::new(vm)
}

fn right(epoch: i64) -> Value {
    json!({"host": "h1", "bootId": "b1", "epoch": epoch})
}

fn runtime(epoch: i64, phase: &str, reason: Option<&str>) -> Value {
    json!({"assignment": right(epoch), "phase": phase, "since": "2026-01-01T00:00:00Z",
           "closeReason": reason, "startedAt": "2026-01-01T00:00:00Z"})
}

fn crash_record(epoch: i64) -> Value {
    json!({"kind": "Closed", "host": "h1", "bootId": "b1", "epoch": epoch,
           "evidence": format!("agent of h1 reports epoch {epoch} closed{CRASHED}")})
}

fn looked_at(vm: &VirtualMachine, stored: &[Arc<Incident>]) -> Vec<String> {
    let (mut crashes, mut ledger) = (Crashes::default(), Ledger::default());
    for at in [WallTime(5_000_000), WallTime(5_000_000 + HELD)] {
        look_at_guest(&mut crashes, &mut ledger, stored, vm, at);
        tell_crashes(&mut crashes, &mut ledger, stored, at, &|_| false);
    }
    assert!(crashes.is_empty());
    ledger.open().keys().cloned().collect()
}

#[test]
fn a_crash_is_held_until_its_host_was_seen_to_live_or_to_die() {
    let status = json!({"assignment": right(3), "runtime": runtime(3, "Closed", Some("Crashed"))});
    let vm = vm("Always", status);
    let after = |microseconds: i64| WallTime(5_000_000 + microseconds);
    let held = |silent: bool, until: i64, ledger: &mut Ledger| {
        let mut crashes = Crashes::default();
        look_at_guest(&mut crashes, ledger, &[], &vm, after(0));
        tell_crashes(&mut crashes, ledger, &[], after(until), &|_| silent);
        !crashes.is_empty()
    };
    for (silent, until, waits) in [
        (false, HELD - 1, true),
        (false, HELD, false),
        (true, HELD, true),
        (true, HELD_MAX, false),
    ] {
        let mut ledger = Ledger::default();
        assert_eq!(held(silent, until, &mut ledger), waits, "{silent} {until}");
        assert_eq!(ledger.open().is_empty(), waits);
    }
    // Its host fell silent a moment later: one incident, which tells of both.
    let mut ledger = Ledger::default();
    let silence = failover::host::machine::HostEvent {
        host: "h1".into(),
        boot_id: "b1".into(),
        kind: failover::host::machine::EventKind::Seen,
        reason: failover::Reason::Unreachable {
            silent_milliseconds: 8_000,
        },
    };
    ledger.host_event(&silence, after(9_000_000));
    assert!(!held(true, HELD - 1, &mut ledger));
    let causes: Vec<_> = ledger.open().keys().cloned().collect();
    assert_eq!(causes, ["host-silent/h1/b1"]);
}

/// The guest is back so late that its incident is over before a crash that was held twice comes to be told.
#[test]
fn one_crash_is_told_once_however_long_the_guest_takes_to_come_back() {
    let status = json!({"assignment": right(3), "runtime": runtime(3, "Closed", Some("Crashed"))});
    let vm = vm("Always", status);
    let (mut crashes, mut ledger) = (Crashes::default(), Ledger::default());
    for at in [0, HELD, HELD + 1] {
        let at = WallTime(5_000_000 + at);
        look_at_guest(&mut crashes, &mut ledger, &[], &vm, at);
        tell_crashes(&mut crashes, &mut ledger, &[], at, &|_| false);
    }
    assert_eq!(ledger.open().len(), 1);
    assert!(crashes.is_empty(), "{crashes:?}");
}

#[test]
fn a_crash_is_seen_while_it_is_reported_and_while_the_next_copy_starts() {
    let reported =
        json!({"assignment": right(3), "runtime": runtime(3, "Closed", Some("Crashed"))});
    let assigned = json!({"assignment": right(4), "proofs": [crash_record(3)],
                          "runtime": runtime(3, "Closed", Some("Crashed"))});
    let starts = json!({"assignment": right(4), "proofs": [crash_record(3)],
                        "runtime": runtime(4, "Starting", None)});
    for status in [reported, assigned, starts] {
        let vm = vm("Always", status);
        assert!(!is_well(&vm));
        assert_eq!(looked_at(&vm, &[]), ["guest/egov/oa-db-0/3"]);
    }
}

#[test]
fn what_is_no_crash_opens_nothing() {
    let shut_down =
        json!({"assignment": right(3), "runtime": runtime(3, "Closed", Some("GuestShutdown"))});
    let failed_start =
        json!({"assignment": right(3), "runtime": runtime(3, "Closed", Some("StartFailed"))});
    let runs_again = json!({"assignment": right(4), "proofs": [crash_record(3)],
                            "runtime": runtime(4, "Running", None)});
    let moves_later = json!({"assignment": right(4), "proofs": [crash_record(3)],
                             "runtime": runtime(4, "HandedOver", None)});
    let moved = json!({"assignment": right(5), "proofs": [crash_record(3),
        {"kind": "HandedOver", "host": "h1", "bootId": "b1", "epoch": 4, "evidence": "e"}],
        "runtime": runtime(4, "HandedOver", None)});
    for status in [shut_down, failed_start, runs_again, moves_later, moved] {
        assert!(
            looked_at(&vm("Always", status.clone()), &[]).is_empty(),
            "{status}"
        );
    }
}

#[test]
fn a_guest_that_nobody_wants_to_run_opens_no_incident_again_and_again() {
    let status = json!({"phase": "Stopped", "proofs": [crash_record(3)],
                        "runtime": runtime(3, "Closed", Some("Crashed"))});
    let vm = vm("Halted", status);
    assert!(is_well(&vm) && looked_at(&vm, &[]).is_empty());
}

#[test]
fn a_crash_that_a_closed_incident_tells_is_not_told_again() {
    let status = json!({"assignment": right(4), "proofs": [crash_record(3)]});
    let vm = vm("Always", status);
    for (state, again) in [("Closed", false), ("Open", true)] {
        let incident: Incident = serde_json::from_value(json!({
            "metadata": {"name": "i"},
            "spec": {"cause": "guest/egov/oa-db-0/3", "causeClass": "Software", "title": "t",
                     "openedAt": "2026-01-01T00:00:00.000000Z"},
            "status": {"state": state, "timeline": [{"at": "2026-01-01T00:00:00.000000Z",
                "kind": "Seen", "step": "guest-crashed/egov/oa-db-0/3", "text": "t"}]}
        }))
        .expect("an Incident");
        let opened = looked_at(&vm, &[Arc::new(incident)]);
        assert_eq!(!opened.is_empty(), again, "{state}");
    }
}

#[test]
fn a_guest_left_in_error_is_an_incident_with_its_reason() {
    let status = json!({"phase": "Failed", "message": "image i can not be read",
        "assignment": right(6), "runtime": runtime(6, "Closed", Some("StartFailed"))});
    let mut ledger = Ledger::default();
    let mut crashes = Crashes::default();
    look_at_guest(
        &mut crashes,
        &mut ledger,
        &[],
        &vm("Always", status),
        WallTime(1),
    );
    let incident = ledger.get("guest/egov/oa-db-0/6").expect("open");
    assert!(
        incident.timeline[0]
            .english
            .ends_with("image i can not be read")
    );
}

#[test]
fn only_a_system_that_was_up_and_does_not_answer_counts_as_interrupted() {
    let system = |state: &str, endpoint: &str| -> BusinessSystem {
        serde_json::from_value(json!({
            "metadata": {"name": "oa", "namespace": "egov"},
            "spec": {"displayName": "OA", "tiers": []},
            "status": {"state": state, "endpoints": [{"name": "portal", "state": endpoint,
                "since": "2026-01-01T00:00:07Z", "replicasUp": 0, "replicas": 1}]}
        }))
        .expect("a system")
    };
    let since = Timestamp::from_second(1_767_225_607).expect("a time");
    assert_eq!(down_since(&system("Down", "Down")), Some(since));
    for (state, endpoint) in [
        ("Down", "Unobserved"),
        ("Progressing", "Down"),
        ("Ready", "Up"),
    ] {
        assert_eq!(
            down_since(&system(state, endpoint)),
            None,
            "{state} {endpoint}"
        );
    }
}

#[test]
fn an_agent_that_comes_up_after_its_hosts_boot_does_not_stand_still_and_one_that_never_does() {
    const BOUND: u64 = 15_000;
    let booted = Moment(86_400_000);
    let after = |milliseconds, loop_age| {
        let renewals = Renewals {
            sign: failover::signs::Sign {
                changes: 1,
                changed_at: booted,
            },
            boot_id: Some("b1".into()),
            boot_seen: booted,
            loop_age,
            renewed: None,
            guard: failover::proof::self_fence::GuardRegistration::default(),
            not_armed: None,
            api_seen: None,
        };
        stands_still(&renewals, BOUND, booted.plus(milliseconds))
    };
    let down = |known| {
        let boot_id = "b1".to_owned();
        Some(AgentDown { boot_id, known })
    };
    for (milliseconds, loop_age, expected) in [
        (2_000, Some(LEASE_LOOP_NEVER), down(None)),
        (BOUND, Some(LEASE_LOOP_NEVER), down(None)),
        (BOUND + 1, Some(LEASE_LOOP_NEVER), down(Some(BOUND + 1))),
        (9_000, Some(400), None),
        (600_000, Some(BOUND), None),
        (600_000, Some(BOUND + 1), down(Some(BOUND + 1))),
        // This observer has just begun: it waits, and closes nothing that another one has opened.
        (2_000, Some(3_600_000), down(None)),
        (600_000, None, None),
    ] {
        let found = after(milliseconds, loop_age);
        assert_eq!(found, expected, "{milliseconds} {loop_age:?}");
    }
}

/// A host that was forced off as it came up, before its agent began.
#[test]
fn of_a_host_that_is_silent_or_off_no_agent_stands_still() {
    let (mut world, mut watch) = (World::new(), HostWatch::default());
    let mut pass = |world: &mut World| {
        for _ in 0..20 {
            world.step();
            let _ = watch.look(&world.facts, (true, true), world.now);
        }
        is_heard(&watch, &"h1".into())
    };
    assert!(pass(&mut world));
    world.falls_silent("h1");
    assert!(!pass(&mut world), "silent");
    world.reads_off("h1");
    assert!(!pass(&mut world), "off");
    world.boots("h1", "b2");
    assert!(pass(&mut world), "back");
}
