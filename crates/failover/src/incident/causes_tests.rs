//! Each cause opens one incident of its class, and none where a host's death explains it.

use std::collections::BTreeMap;

use model::{BootId, Epoch, Severity};

use super::super::AffectedSystem;
use super::super::rules::host_cause;
use super::*;
use crate::host::machine::HostEvent;

fn vm() -> NamespacedName {
    NamespacedName::new("egov", "oa-db-0")
}

fn oa() -> NamespacedName {
    NamespacedName::new("egov", "oa")
}

fn copy(epoch: i64) -> Assignment {
    Assignment {
        host: "h1".into(),
        boot_id: BootId::from("b1"),
        epoch: Epoch(epoch),
    }
}

fn silence(host: &str) -> HostEvent {
    HostEvent {
        host: host.into(),
        boot_id: BootId::from("b1"),
        kind: EventKind::Seen,
        reason: Reason::Unreachable {
            silent_milliseconds: 8_000,
        },
    }
}

fn causes(ledger: &Ledger) -> Vec<&str> {
    ledger.open().keys().map(String::as_str).collect()
}

#[test]
fn a_guest_that_crashes_again_and_stays_in_error_is_one_incident_of_software() {
    let (vm, mut ledger) = (vm(), Ledger::default());
    for (epoch, at) in [(3, 1), (3, 2), (4, 9)] {
        let copy = copy(epoch);
        let guest = Guest {
            vm: &vm,
            system: None,
            copy: &copy,
        };
        ledger.guest_crashed(&guest, WallTime(at));
    }
    let last = copy(4);
    let guest = Guest {
        vm: &vm,
        system: None,
        copy: &last,
    };
    ledger.guest_in_error(&guest, "it failed 5 times in a row", WallTime(20));
    assert_eq!(causes(&ledger), ["guest/egov/oa-db-0/3"]);
    let incident = ledger.get("guest/egov/oa-db-0/3").expect("open");
    assert_eq!(
        (incident.class, incident.title.as_str()),
        (CauseClass::Software, "VM egov/oa-db-0 can not be started")
    );
    assert_eq!(incident.host, Some("h1".into()));
    let steps: Vec<&str> = incident
        .timeline
        .iter()
        .map(|entry| entry.step.as_str())
        .collect();
    assert_eq!(
        steps,
        [
            "guest-crashed/egov/oa-db-0/3",
            "guest-crashed/egov/oa-db-0/4",
            "in-error/egov/oa-db-0"
        ]
    );
}

#[test]
fn another_vm_whose_name_begins_alike_has_its_own_incident() {
    let mut ledger = Ledger::default();
    let copy = copy(1);
    for name in ["oa-db-0", "oa-db-01"] {
        let vm = NamespacedName::new("egov", name);
        let guest = Guest {
            vm: &vm,
            system: None,
            copy: &copy,
        };
        ledger.guest_crashed(&guest, WallTime(1));
    }
    assert_eq!(
        causes(&ledger),
        ["guest/egov/oa-db-0/1", "guest/egov/oa-db-01/1"]
    );
}

#[test]
fn what_a_dead_host_did_to_its_guests_is_told_in_its_incident() {
    let (vm, oa) = (vm(), oa());
    let died = copy(3);
    let elsewhere = Assignment {
        host: "h2".into(),
        ..copy(4)
    };
    let mut ledger = Ledger::default();
    ledger.host_event(&silence("h1"), WallTime(1));
    let own = host_cause(&silence("h1"));
    ledger.affect(&own, oa.clone(), "OA", &vm.name);
    for copy in [&died, &elsewhere] {
        let guest = Guest {
            vm: &vm,
            system: Some(&oa),
            copy,
        };
        ledger.guest_crashed(&guest, WallTime(2));
        ledger.guest_in_error(&guest, "no host", WallTime(3));
        ledger.guest_pinned(&guest, WallTime(4));
    }
    assert_eq!(causes(&ledger), [own.as_str()]);
    let incident = ledger.get(&own).expect("open");
    let not_done = |entry: &&Entry| entry.kind == EventKind::NotDone;
    let told: Vec<&str> = incident
        .timeline
        .iter()
        .filter(not_done)
        .map(|entry| entry.step.as_str())
        .collect();
    assert_eq!(told, ["in-error/egov/oa-db-0", "pinned/egov/oa-db-0"]);
    let pinned = incident.timeline.last().expect("told");
    assert!(pinned.english.contains("egov/oa-db-0") && pinned.english.contains("h1"));
    assert_ne!(incident.title, "VM egov/oa-db-0 can not be started");
}

#[test]
fn a_crash_after_the_systems_of_a_dead_host_had_recovered_is_an_incident_of_its_own() {
    let (vm, oa, mut ledger) = (vm(), oa(), Ledger::default());
    ledger.host_event(&silence("h1"), WallTime(1));
    let own = host_cause(&silence("h1"));
    ledger.affect(&own, oa.clone(), "OA", &vm.name);
    let answers = super::super::AffectedSystem {
        answers: true,
        ..Default::default()
    };
    ledger.measure(&own, &oa, &answers);
    assert_eq!(ledger.settle(&own, false, WallTime(5)), None);
    let elsewhere = Assignment {
        host: "h2".into(),
        ..copy(4)
    };
    let guest = Guest {
        vm: &vm,
        system: Some(&oa),
        copy: &elsewhere,
    };
    ledger.guest_crashed(&guest, WallTime(9));
    assert_eq!(
        causes(&ledger),
        ["guest/egov/oa-db-0/4", "host-silent/h1/b1"]
    );
}

#[test]
fn a_pinned_guest_without_an_incident_opens_none() {
    let (vm, copy, mut ledger) = (vm(), copy(1), Ledger::default());
    let guest = Guest {
        vm: &vm,
        system: None,
        copy: &copy,
    };
    ledger.guest_pinned(&guest, WallTime(1));
    assert!(ledger.open().is_empty());
}

#[test]
fn an_agent_that_stands_still_is_one_incident_and_says_why_nothing_is_fenced() {
    let mut ledger = Ledger::default();
    for age in [31_000, 32_000] {
        ledger.agent_down(&"h1".into(), "b1", age, WallTime(age as i64));
    }
    assert_eq!(causes(&ledger), ["agent-down/h1/b1"]);
    let incident = ledger.get("agent-down/h1/b1").expect("open");
    assert_eq!(incident.class, CauseClass::Software);
    let kinds: Vec<EventKind> = incident.timeline.iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds, [EventKind::Seen, EventKind::NotDone]);
}

#[test]
fn a_host_that_is_switched_off_with_vms_on_it_is_one_incident_of_planned_work() {
    let (vm, oa, host, copy) = (vm(), oa(), HostName::from("h1"), copy(3));
    let mut ledger = Ledger::default();
    ledger.work_declared(BTreeMap::from([(host.clone(), "new memory".to_owned())]));
    ledger.host_event(&silence("h1"), WallTime(1));
    let own = host_cause(&silence("h1"));
    ledger.affect(&own, oa.clone(), "OA", &vm.name);
    ledger.planned_downtime(&host, &interrupted(&oa, &vm.name, 2));
    let guest = Guest {
        vm: &vm,
        system: Some(&oa),
        copy: &copy,
    };
    ledger.guest_crashed(&guest, WallTime(3));
    assert_eq!(causes(&ledger), [own.as_str()]);
    let incident = ledger.get(&own).expect("open");
    assert_eq!(incident.class, CauseClass::Planned);
    assert!(incident.systems.contains_key(&oa));
}

fn interrupted<'a>(name: &'a NamespacedName, vm: &'a str, since: i64) -> Interrupted<'a> {
    Interrupted {
        name,
        display_name: &name.name,
        vm,
        since: WallTime(since),
    }
}

/// The storage stalls, recovers, and is lost for longer before its first stall is forgotten.
#[test]
fn storage_that_stalls_is_the_incident_of_storage_that_is_lost() {
    const POOL: &str = "storage-pool/shared";
    let (oa, host) = (oa(), HostName::from("h3"));
    let cause = fault_cause(&host, POOL, FaultKind::StorageLost);
    let mut ledger = Ledger::default();
    ledger.host_event(&silence("h1"), WallTime(1));
    ledger.affect("host-silent/h1/b1", oa.clone(), "OA", "oa-web-0");
    ledger.storage_stalled(&host, POOL, &interrupted(&oa, "oa-db-0", 2));
    assert!(ledger.get(&cause).is_none(), "the silence explains it");

    let tourism = NamespacedName::new("egov", "tourism");
    let stall = |ledger: &mut Ledger, at| {
        ledger.storage_stalled(&host, POOL, &interrupted(&tourism, "tourism-db-0", at));
    };
    stall(&mut ledger, 3);
    let opened = ledger.get(&cause).expect("open");
    assert_eq!(opened.class, CauseClass::Hardware);
    assert_eq!(
        (opened.opened_at, opened.host.as_ref()),
        (WallTime(3), Some(&host))
    );
    assert!(
        opened.systems[&tourism]
            .virtual_machines
            .contains("tourism-db-0")
    );
    let answers = AffectedSystem {
        answers: true,
        ..AffectedSystem::default()
    };
    ledger.measure(&cause, &tourism, &answers);
    assert_eq!(ledger.settle(&cause, false, WallTime(4)), None);
    assert_eq!(
        ledger.get(&cause).expect("stands").state,
        IncidentState::Recovered
    );
    stall(&mut ledger, 5);
    let again = ledger.get(&cause).expect("stands");
    assert_eq!(
        (again.state, again.recovered_at),
        (IncidentState::Open, None)
    );
    let (kind, severity) = (FaultKind::StorageLost, Severity::Critical);
    ledger.fault(
        &host,
        POOL,
        kind,
        severity,
        "no answer for 11 s",
        WallTime(6),
    );
    let steps = |ledger: &Ledger| -> Vec<String> {
        let timeline = &ledger.get(&cause).expect("stands").timeline;
        timeline.iter().map(|entry| entry.step.clone()).collect()
    };
    assert_eq!(steps(&ledger), ["stalled/egov/tourism", "fault/Critical"]);
    assert_eq!(ledger.open().len(), 2, "one root cause, one incident");
}

#[test]
fn downtime_by_planned_work_is_an_incident_only_when_nothing_else_explains_it() {
    let (oa, host) = (oa(), HostName::from("h2"));
    let mut ledger = Ledger::default();
    ledger.host_event(&silence("h1"), WallTime(1));
    ledger.affect("host-silent/h1/b1", oa.clone(), "OA", "oa-web-0");
    ledger.planned_downtime(&host, &interrupted(&oa, "oa-db-0", 2));
    assert_eq!(causes(&ledger), ["host-silent/h1/b1"]);
    let tourism = NamespacedName::new("egov", "tourism");
    ledger.planned_downtime(&host, &interrupted(&tourism, "tourism-0", 3));
    assert_eq!(causes(&ledger), ["host-silent/h1/b1", "maintenance/h2"]);
    let incident = ledger.get("maintenance/h2").expect("open");
    assert_eq!(incident.class, CauseClass::Planned);
    assert!(
        incident.systems[&tourism]
            .virtual_machines
            .contains("tourism-0")
    );
}
