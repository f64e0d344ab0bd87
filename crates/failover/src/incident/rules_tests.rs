use super::*;
use model::StopProofKind;

fn event(host: &str, boot: &str, kind: EventKind, reason: Reason) -> HostEvent {
    HostEvent {
        host: host.into(),
        boot_id: boot.into(),
        kind,
        reason,
    }
}

fn missed(host: &str) -> HostEvent {
    event(
        host,
        "b1",
        EventKind::Seen,
        Reason::MissedRenewal {
            silent_milliseconds: 3_100,
        },
    )
}

#[test]
fn a_short_silence_is_no_incident() {
    let mut ledger = Ledger::default();
    ledger.host_event(&missed("h1"), WallTime(1));
    ledger.host_event(
        &event("h1", "b1", EventKind::Seen, Reason::Alive),
        WallTime(2),
    );
    assert!(ledger.open().is_empty());
}

#[test]
fn a_copy_that_does_not_end_is_an_incident_of_software_and_stays_one() {
    let mut ledger = Ledger::default();
    let stuck = Reason::CloseStuck { host: "h1".into() };
    ledger.host_event(&event("h1", "b1", EventKind::Seen, stuck), WallTime(1));
    for (at, kind, reason) in [
        (2, EventKind::Decided, Reason::FenceIntended),
        (3, EventKind::Done, Reason::ForcedOff { bmc: 0, attempt: 1 }),
        (
            4,
            EventKind::Seen,
            Reason::Concluded {
                conclusion: Conclusion::Dead,
            },
        ),
    ] {
        ledger.host_event(&event("h1", "b1", kind, reason), WallTime(at));
    }
    let incident = ledger.get("host-silent/h1/b1").unwrap();
    assert_eq!(incident.class, CauseClass::Software);
    assert!(incident.title.contains("can not end"), "{}", incident.title);
    assert_eq!(incident.timeline.len(), 4);
}

#[test]
fn a_power_loss_is_one_incident_from_first_sight_to_return() {
    let mut ledger = Ledger::default();
    ledger.host_event(&missed("h1"), WallTime(1));
    ledger.host_event(
        &event(
            "h1",
            "b1",
            EventKind::Seen,
            Reason::Concluded {
                conclusion: Conclusion::Dead,
            },
        ),
        WallTime(2),
    );
    let proven = Reason::Proven {
        kind: StopProofKind::PoweredOff,
        evidence: "read Off twice".to_owned(),
    };
    ledger.host_event(&event("h1", "b1", EventKind::Decided, proven), WallTime(3));
    ledger.host_event(
        &event("h1", "b2", EventKind::Seen, Reason::Returned),
        WallTime(4),
    );
    assert_eq!(ledger.open().len(), 1);
    let incident = ledger.get("host-silent/h1/b1").unwrap();
    assert_eq!(
        (incident.opened_at, incident.class, incident.title.as_str()),
        (WallTime(1), CauseClass::Hardware, "h1 lost power")
    );
    assert_eq!(incident.timeline.len(), 4);
}

/// It is concluded within seconds and told once; the incident opens when the silence has lasted.
#[test]
fn what_was_concluded_before_a_silence_was_long_enough_is_its_cause() {
    let seen = |reason| event("h1", "b1", EventKind::Seen, reason);
    let cut = concluded(Conclusion::ManagementCut);
    for (between, class) in [
        (None, CauseClass::Network),
        // That was another silence.
        (Some(Reason::Alive), CauseClass::Unknown),
    ] {
        let mut ledger = Ledger::default();
        let events = [Some(cut.clone()), between, Some(unreachable())];
        for (event, at) in events.into_iter().flatten().map(seen).zip(1..) {
            ledger.host_event(&event, WallTime(at));
        }
        let incident = ledger.get("host-silent/h1/b1").unwrap();
        assert_eq!(incident.class, class, "{}", incident.title);
    }
}

fn work(host: &str) -> BTreeMap<HostName, String> {
    BTreeMap::from([(host.into(), "new memory".to_owned())])
}

fn unreachable() -> Reason {
    Reason::Unreachable {
        silent_milliseconds: 8_000,
    }
}

fn concluded(conclusion: Conclusion) -> Reason {
    Reason::Concluded { conclusion }
}

#[test]
fn a_host_that_falls_silent_in_maintenance_is_planned_work() {
    for (reason, title, chinese) in [
        (unreachable(), "h1 is silent", "h1 静默"),
        (concluded(Conclusion::Dead), "h1 lost power", "h1 断电"),
    ] {
        let mut ledger = Ledger::default();
        ledger.work_declared(work("h1"));
        ledger.host_event(&missed("h1"), WallTime(1));
        ledger.host_event(&event("h1", "b1", EventKind::Seen, reason), WallTime(2));
        let incident = ledger.get("host-silent/h1/b1").unwrap();
        assert_eq!(
            (incident.opened_at, incident.class),
            (WallTime(1), CauseClass::Planned)
        );
        assert_eq!(incident.title, format!("{title} (in maintenance)"));
        assert_eq!(incident.title_chinese, format!("{chinese}(维护期间)"));
        let why = &incident.timeline[1];
        assert_eq!(why.step, "h1/in-maintenance");
        assert!(why.english.ends_with("planned work: new memory"), "{why:?}");
        assert!(why.chinese.ends_with("计划内:new memory"), "{why:?}");
        assert_eq!(incident.timeline.len(), 3);
    }
}

#[test]
fn what_was_planned_stays_so_whoever_leads_and_though_the_work_is_over() {
    let mut ledger = Ledger::default();
    ledger.work_declared(work("h1"));
    let silent = event("h1", "b1", EventKind::Seen, unreachable());
    ledger.host_event(&silent, WallTime(2));
    // The next leader finds it as its object was written first: without a timeline.
    let mut stored = ledger.get("host-silent/h1/b1").unwrap().clone();
    stored.timeline.clear();
    let mut ledger = Ledger::restore([stored]);
    ledger.work_declared(work("h1"));
    for at in [3, 4] {
        ledger.host_event(&silent, WallTime(at));
    }
    let incident = ledger.get("host-silent/h1/b1").unwrap();
    assert_eq!(incident.timeline.len(), 2, "the work is told, once");
    let mut ledger = Ledger::restore([incident.clone()]);
    for (at, boot, reason) in [
        (5, "b1", concluded(Conclusion::Dead)),
        (6, "b1", concluded(Conclusion::BmcContradicts)),
        (7, "b1", concluded(Conclusion::OffUndecided)),
        (8, "b2", Reason::Returned),
    ] {
        ledger.host_event(&event("h1", boot, EventKind::Seen, reason), WallTime(at));
        let incident = ledger.get("host-silent/h1/b1").unwrap();
        assert_eq!(incident.class, CauseClass::Planned, "{at}");
    }
    let incident = ledger.get("host-silent/h1/b1").unwrap();
    assert_eq!(incident.title, "h1 lost power (in maintenance)");
}

#[test]
fn work_elsewhere_or_declared_after_a_host_died_makes_no_death_planned() {
    let mut ledger = Ledger::default();
    ledger.work_declared(work("h2"));
    let silent = event("h1", "b1", EventKind::Seen, unreachable());
    ledger.host_event(&silent, WallTime(1));
    let class = |ledger: &Ledger| ledger.get("host-silent/h1/b1").unwrap().class;
    assert_eq!(class(&ledger), CauseClass::Unknown);
    ledger.work_declared(work("h1"));
    let dead = concluded(Conclusion::Dead);
    ledger.host_event(&event("h1", "b1", EventKind::Seen, dead), WallTime(2));
    assert_eq!(class(&ledger), CauseClass::Hardware);
    let incident = ledger.get("host-silent/h1/b1").unwrap();
    assert_eq!(incident.timeline.len(), 2, "{:?}", incident.timeline);
}

#[test]
fn a_copy_that_does_not_end_is_nobodys_plan() {
    let stuck = Reason::CloseStuck { host: "h1".into() };
    let stuck = event("h1", "b1", EventKind::Seen, stuck);
    let silent = event("h1", "b1", EventKind::Seen, unreachable());
    for events in [[&stuck, &silent], [&silent, &stuck]] {
        let mut ledger = Ledger::default();
        ledger.work_declared(work("h1"));
        for (event, at) in events.into_iter().zip(1..) {
            ledger.host_event(event, WallTime(at));
        }
        let incident = ledger.get("host-silent/h1/b1").unwrap();
        assert_eq!(incident.class, CauseClass::Software);
        assert_eq!(incident.title, "h1 can not end the process of a VM");
    }
}

#[test]
fn a_return_that_is_told_late_is_no_part_of_the_next_silence() {
    let mut ledger = Ledger::default();
    let back = event("h1", "b2", EventKind::Seen, Reason::Returned);
    ledger.host_event(&back, WallTime(1));
    let silent = event("h1", "b2", EventKind::Seen, missed("h1").reason);
    ledger.host_event(&silent, WallTime(9));
    let unreachable = event("h1", "b2", EventKind::Seen, unreachable());
    ledger.host_event(&unreachable, WallTime(14));
    let incident = ledger.get("host-silent/h1/b2").expect("open");
    assert_eq!(
        (incident.timeline[0].at, incident.timeline.len()),
        (WallTime(9), 2)
    );
}

#[test]
fn a_host_that_was_forced_off_did_not_lose_its_power() {
    let mut ledger = Ledger::default();
    for (at, kind, reason) in [
        (1, EventKind::Seen, concluded(Conclusion::Hung)),
        (2, EventKind::Seen, unreachable()),
        (3, EventKind::Done, Reason::ForcedOff { bmc: 0, attempt: 1 }),
        (4, EventKind::Seen, concluded(Conclusion::Dead)),
    ] {
        ledger.host_event(&event("h1", "b1", kind, reason), WallTime(at));
    }
    let incident = ledger.get("host-silent/h1/b1").expect("open");
    assert_eq!(incident.class, CauseClass::Unknown);
    assert_eq!(
        incident.title,
        "h1 showed no life while powered on, and was forced off"
    );
}

#[test]
fn a_storm_is_one_incident_for_all() {
    let mut ledger = Ledger::default();
    ledger.host_event(&missed("h1"), WallTime(1));
    ledger.host_event(&missed("h2"), WallTime(1));
    ledger.storm(2, 4, WallTime(2));
    for host in ["h1", "h2"] {
        ledger.host_event(
            &event(
                host,
                "b1",
                EventKind::Seen,
                Reason::Unreachable {
                    silent_milliseconds: 8_000,
                },
            ),
            WallTime(3),
        );
    }
    assert_eq!(ledger.open().keys().collect::<Vec<_>>(), [STORM_CAUSE]);
    assert_eq!(ledger.get(STORM_CAUSE).unwrap().timeline.len(), 5);
}

#[test]
fn each_faulty_component_is_one_incident() {
    let mut ledger = Ledger::default();
    let host = HostName::from("h1");
    for at in 1..4 {
        ledger.fault(
            &host,
            "memory/mc0",
            FaultKind::MemoryCorrectedErrors,
            Severity::Degraded,
            "61 in 24 h",
            WallTime(at),
        );
    }
    ledger.fault(
        &host,
        "fan/1",
        FaultKind::Fan,
        Severity::Degraded,
        "0 rpm",
        WallTime(5),
    );
    assert_eq!(ledger.open().len(), 2);
    assert_eq!(
        ledger
            .get("hardware/h1/memory/mc0/MemoryCorrectedErrors")
            .unwrap()
            .timeline
            .len(),
        1
    );
}

/// What was seen and what was not done about it are two entries.
#[test]
fn a_host_that_is_left_alone_is_told_as_deliberately_not_done() {
    for conclusion in [
        Conclusion::ManagementCut,
        Conclusion::SwitchDead,
        Conclusion::BmcContradicts,
        Conclusion::Unlisted,
    ] {
        let mut ledger = Ledger::default();
        let concluded = Reason::Concluded { conclusion };
        let silent = Reason::Unreachable {
            silent_milliseconds: 8_000,
        };
        for (at, kind, reason) in [
            (1, EventKind::Seen, concluded.clone()),
            (2, EventKind::Seen, silent),
            (3, EventKind::NotDone, concluded.clone()),
            (4, EventKind::NotDone, concluded),
        ] {
            ledger.host_event(&event("h1", "b1", kind, reason), WallTime(at));
        }
        let incident = ledger.get("host-silent/h1/b1").unwrap();
        let kinds: Vec<_> = incident.timeline.iter().map(|entry| entry.kind).collect();
        assert_eq!(
            kinds,
            [EventKind::Seen, EventKind::Seen, EventKind::NotDone],
            "{conclusion:?}"
        );
        let told = &incident.timeline[2].english;
        assert_eq!(told, "h1: is not forced off, as it shows life");
    }
}

/// Its guard fires, which begins a new incarnation in the same boot, and a force-off meets the host as its network
/// comes back.
#[test]
fn what_a_guard_does_in_a_boot_begins_no_other_incident() {
    let mut ledger = Ledger::default();
    for (at, boot) in [(1, "b1"), (2, "b1+1"), (3, "b1+2")] {
        let silent = event("h1", boot, EventKind::Seen, unreachable());
        ledger.host_event(&silent, WallTime(at));
    }
    assert_eq!(ledger.open().len(), 1);
    assert!(ledger.get("host-silent/h1/b1").is_some());
}

/// It was away too shortly for an incident, and booted anew: that VMs died with it is known once they are started.
#[test]
fn a_host_that_booted_anew_within_seconds_is_an_incident_if_vms_died() {
    let rebooted = || Reason::Proven {
        kind: StopProofKind::Rebooted,
        evidence: "boot b2".to_owned(),
    };
    let minute = 60_000_000;
    for (died, opened) in [(5, 1), (20 * minute, 20 * minute)] {
        let mut ledger = Ledger::default();
        ledger.host_event(&missed("h1"), WallTime(1));
        let returned = event("h1", "b2", EventKind::Seen, Reason::Returned);
        ledger.host_event(&returned, WallTime(4));
        assert!(ledger.open().is_empty(), "nothing was lost yet");
        let died_of = event("h1", "b1", EventKind::Decided, rebooted());
        ledger.host_event(&died_of, WallTime(died));
        let incident = ledger.get("host-silent/h1/b1").unwrap();
        assert_eq!(incident.opened_at, WallTime(opened));
        assert!(incident.title.contains("booted anew"), "{}", incident.title);
    }
}

/// After a time in which nobody was heard all hosts are back, whatever had happened to which of them before.
#[test]
fn that_a_host_is_back_is_told_where_its_silence_is() {
    let alive = |host, boot| event(host, boot, EventKind::Seen, Reason::Alive);
    let steps = |ledger: &Ledger, cause: &str| -> Vec<String> {
        let incident = ledger.get(cause).expect("open");
        let steps = incident.timeline.iter().map(|entry| entry.step.clone());
        steps.collect()
    };
    let mut storm = Ledger::default();
    storm.host_event(&missed("h1"), WallTime(1));
    storm.storm(2, 4, WallTime(2));
    for host in ["h1", "h3"] {
        storm.host_event(&alive(host, "b1"), WallTime(3));
    }
    let told = ["h1/Seen/MissedRenewal", "storm", "h1/Seen/Alive"];
    assert_eq!(steps(&storm, STORM_CAUSE), told);
    // The host has another boot, which nobody saw silent.
    let mut ledger = Ledger::default();
    let silent = Reason::Unreachable {
        silent_milliseconds: 8_000,
    };
    ledger.host_event(&event("h1", "b1", EventKind::Seen, silent), WallTime(1));
    ledger.host_event(&alive("h1", "b2"), WallTime(2));
    let cause = "host-silent/h1/b1";
    assert_eq!(steps(&ledger, cause), ["h1/Seen/Unreachable"]);
    let back = event("h1", "b2", EventKind::Seen, Reason::Returned);
    ledger.host_event(&back, WallTime(3));
    assert_eq!(steps(&ledger, cause)[1..], ["h1/Seen/Returned"]);
}
