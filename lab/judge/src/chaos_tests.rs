//! Each rule is shown to go red by one planted lie in a history that is otherwise clean.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::history::Power;
use crate::results::{Config, DiskWord, GuestWord, Line, Sample, Target};

const BEGIN: u64 = 1_700_000_000 * SECOND;
const STEP: u64 = SECOND / 5;

fn at(seconds: u64) -> u64 {
    BEGIN + seconds * SECOND
}

fn time(seconds: u64) -> String {
    jiff::Timestamp::from_second((at(seconds) / SECOND) as i64)
        .unwrap()
        .to_string()
}

fn incident(cause: &str, host: &str, down: f64) -> Value {
    json!({
        "metadata": {"name": "incident-1"},
        "spec": {"cause": cause, "host": host, "openedAt": time(24)},
        "status": {"recoveredAt": time(36), "closedAt": time(60), "systems": [
            {"name": "oa", "downtimeSeconds": down, "unobservedSeconds": 0.0}
        ]},
    })
}

fn off(host: &str, seconds: u64, by: &str) -> Entry {
    Entry::Power(Power {
        at: at(seconds),
        host: host.to_owned(),
        on: false,
        boot_id: format!("boot-of-{host}"),
        by: by.to_owned(),
    })
}

fn fault(name: &str, host: Option<&str>, seconds: u64) -> Entry {
    Entry::Fault {
        at: at(seconds),
        fault: name.to_owned(),
        host: host.map(str::to_owned),
    }
}

fn heal(name: &str, host: Option<&str>, seconds: u64) -> Entry {
    Entry::Heal {
        at: at(seconds),
        fault: name.to_owned(),
        host: host.map(str::to_owned),
    }
}

fn right(epoch: i64, host: &str, seconds: u64) -> Entry {
    Entry::Right {
        at: at(seconds),
        guest: "db".to_owned(),
        epoch,
        host: host.to_owned(),
        boot_id: format!("boot-of-{host}"),
    }
}

/// The power of h1 is cut 20 s after the beginning; its guest answers elsewhere 15 s later.
fn clean() -> Vec<Entry> {
    let copies = |seconds, host: &str| Entry::Copies {
        at: at(seconds),
        guests: BTreeMap::from([("db".to_owned(), vec![host.to_owned()])]),
    };
    vec![
        Entry::Begin {
            at: at(0),
            seed: 1,
            hosts: BTreeMap::new(),
            contract_seconds: None,
        },
        copies(1, "h1"),
        right(1, "h1", 1),
        fault("power-loss", Some("h1"), 20),
        off("h1", 20, "lab"),
        right(2, "h2", 27),
        copies(28, "h2"),
        heal("power-loss", Some("h1"), 50),
        Entry::Rest {
            at: at(70),
            after_seconds: 20.0,
        },
        Entry::Incident {
            object: incident("host-silent/h1/boot-of-h1", "h1", 15.0),
        },
        Entry::Disk {
            volume: "egov-center/db-data".to_owned(),
            guest: "db".to_owned(),
            writes: 500,
            problems: Vec::new(),
        },
    ]
}

/// Probes of one guest for 100 s: silent from 20 to 35 s, booted once more after that.
fn probes(down: std::ops::Range<u64>, boots: impl Fn(u64) -> u64) -> Results {
    probes_for(100, down, boots)
}

fn probes_for(seconds: u64, down: std::ops::Range<u64>, boots: impl Fn(u64) -> u64) -> Results {
    let target = Target {
        id: "oa/portal@db".into(),
        system: "oa".into(),
        address: "10.0.0.1:80".parse().unwrap(),
        path: "/".into(),
        host_header: None,
        replica_of: Some("oa/portal".into()),
        interval_milliseconds: None,
        hold_path: None,
    };
    let mut results = Results::default();
    results.push(Line::Run {
        at: BEGIN,
        config: Config {
            interval_milliseconds: 200,
            timeout_milliseconds: 1000,
            targets: vec![target.clone()],
        },
    });
    for step in 0..seconds * 5 {
        let moment = BEGIN + step * STEP;
        let second = step / 5;
        let ok = !down.contains(&second);
        let boot_count = boots(second);
        let guest = ok.then(|| GuestWord {
            name: "db".into(),
            boot_count,
            uptime_seconds: 1.0,
            disk: Some(DiskWord {
                counter: step + 1,
                writer: format!("writer-{boot_count}"),
                conflicts: 0,
            }),
        });
        results.push(Line::Probe(Sample {
            at: moment,
            target: target.id.clone(),
            ok,
            took: 1_000_000,
            error: (!ok).then(|| "no answer".to_owned()),
            guest,
        }));
    }
    results
}

fn one_restart() -> Results {
    probes(20..35, |second| if second < 35 { 1 } else { 2 })
}

fn rules(history: &[Entry], results: &Results) -> Vec<&'static str> {
    let verdict = judge(history, results);
    verdict
        .findings
        .iter()
        .map(|finding| finding.rule)
        .collect()
}

fn with(entry: Entry) -> Vec<&'static str> {
    let mut history = clean();
    history.push(entry);
    rules(&history, &one_restart())
}

#[test]
fn an_honest_history_is_clean() {
    let verdict = judge(&clean(), &one_restart());
    assert_eq!(verdict.findings, []);
    assert_eq!(
        (verdict.faults, verdict.deaths, verdict.incidents),
        (1, 1, 1)
    );
    assert_eq!((verdict.writes, verdict.longest_rest_seconds), (500, 20.0));
}

#[test]
fn a_history_of_nothing_is_red() {
    let verdict = judge(&[], &Results::default());
    assert!(
        verdict
            .findings
            .iter()
            .filter(|f| f.rule == "empty")
            .count()
            == 4
    );
    assert!(verdict.findings.iter().any(|f| f.rule == "rest"));
}

#[test]
fn a_dirty_disk_is_red() {
    let disk = Entry::Disk {
        volume: "v".to_owned(),
        guest: "db".to_owned(),
        writes: 1,
        problems: vec!["Interleaved".to_owned()],
    };
    assert_eq!(with(disk), ["disk"]);
}

#[test]
fn a_death_without_an_incident_is_red() {
    let mut history = clean();
    history.retain(|entry| !matches!(entry, Entry::Incident { .. }));
    assert_eq!(
        rules(&history, &one_restart()),
        ["incident-missing", "outage-untold"]
    );
}

/// Its guard had killed in that boot before.
#[test]
fn the_incident_of_a_boot_in_which_the_guard_killed_is_that_boots() {
    let mut history = clean();
    history.retain(|entry| !matches!(entry, Entry::Incident { .. }));
    history.push(Entry::Incident {
        object: incident("host-silent/h1/boot-of-h1+1", "h1", 15.0),
    });
    assert_eq!(rules(&history, &one_restart()), Vec::<&str>::new());
}

#[test]
fn a_doubled_incident_is_red() {
    let object = incident("host-silent/h1/boot-of-h1", "h1", 15.0);
    assert_eq!(with(Entry::Incident { object }), ["incident-doubled"]);
}

#[test]
fn a_silence_that_was_over_before_the_death_has_its_own_incident() {
    let mut object = incident("host-silent/h1/boot-of-h1", "h1", 0.0);
    object["spec"]["openedAt"] = time(7).into();
    object["status"] = json!({"recoveredAt": time(10), "closedAt": time(12), "systems": []});
    let mut history = clean();
    history.extend([
        fault("management-cut", Some("h1"), 5),
        heal("management-cut", Some("h1"), 9),
        Entry::Incident { object },
    ]);
    assert_eq!(rules(&history, &one_restart()), Vec::<&str>::new());
}

#[test]
fn an_incident_without_a_cause_is_red() {
    for (cause, host) in [
        ("host-silent/h3/boot-of-h3", "h3"),
        ("hardware/h1/memory/mc0/MemoryCorrected", "h1"),
        ("hosts-silent", "h1"),
        ("something-new", "h4"),
    ] {
        let object = incident(cause, host, 15.0);
        assert_eq!(
            with(Entry::Incident { object }),
            ["incident-without-cause"],
            "{cause}"
        );
    }
}

#[test]
fn an_incident_of_a_boot_after_the_fault_is_red() {
    let mut history = clean();
    history.push(Entry::Power(Power {
        at: at(52),
        host: "h1".to_owned(),
        on: true,
        boot_id: "next-boot".to_owned(),
        by: "lab".to_owned(),
    }));
    let mut object = incident("host-silent/h1/next-boot", "h1", 0.0);
    object["spec"]["openedAt"] = json!(time(55));
    object["status"]["systems"] = json!([]);
    history.push(Entry::Incident { object });
    assert_eq!(rules(&history, &one_restart()), ["incident-without-cause"]);
}

#[test]
fn an_incident_that_stays_open_is_red() {
    let mut history = clean();
    for entry in &mut history {
        if let Entry::Incident { object } = entry {
            object["status"]["closedAt"] = Value::Null;
        }
    }
    assert_eq!(rules(&history, &one_restart()), ["incident-open"]);
}

#[test]
fn a_wrong_downtime_is_red_both_ways() {
    for (told, red) in [(15.9, false), (14.2, false), (17.0, true), (13.5, true)] {
        let mut history = clean();
        history.retain(|entry| !matches!(entry, Entry::Incident { .. }));
        history.push(Entry::Incident {
            object: incident("host-silent/h1/boot-of-h1", "h1", told),
        });
        let expected: &[&str] = if red { &["downtime"] } else { &[] };
        assert_eq!(rules(&history, &one_restart()), expected, "{told} s");
    }
}

#[test]
fn a_fence_without_a_cause_is_red() {
    let found = with(off("h3", 40, "bmc"));
    assert!(found.contains(&"fence"), "{found:?}");
    let mut history = clean();
    history.push(fault("operator-kill", None, 39));
    history.push(off("h3", 40, "bmc"));
    assert!(rules(&history, &one_restart()).contains(&"fence"));
    history.push(fault("kernel-hang", Some("h3"), 30));
    assert!(!rules(&history, &one_restart()).contains(&"fence"));
}

#[test]
fn a_fault_that_was_spared_explains_nothing() {
    let mut history = clean();
    history.push(fault("kernel-hang", Some("h3"), 30));
    history.push(Entry::Spared {
        at: at(30),
        fault: "kernel-hang".to_owned(),
        host: Some("h3".to_owned()),
        why: "off".to_owned(),
    });
    history.push(off("h3", 40, "bmc"));
    assert!(rules(&history, &one_restart()).contains(&"fence"));
}

#[test]
fn a_reboot_without_a_death_is_red() {
    let twice = probes(20..35, |second| match second {
        0..35 => 1,
        35..60 => 2,
        _ => 3,
    });
    assert_eq!(rules(&clean(), &twice), ["reboot"]);
}

#[test]
fn a_reboot_before_the_death_that_would_explain_it_is_red() {
    // As many boots as deaths: only their order tells.
    let early = probes(20..35, |second| if second < 10 { 1 } else { 2 });
    assert_eq!(rules(&clean(), &early), ["reboot"]);
}

/// The same power loss, after which the system answers again at that second.
fn back_after(until: u64) -> (Vec<Entry>, Results) {
    let mut history = clean();
    history.retain(|entry| !matches!(entry, Entry::Incident { .. }));
    let mut object = incident("host-silent/h1/boot-of-h1", "h1", (until - 20) as f64);
    object["status"]["recoveredAt"] = json!(time(until + 1));
    object["status"]["closedAt"] = json!(time(until + 2));
    history.push(Entry::Incident { object });
    let boots = move |second: u64| if second < until { 1 } else { 2 };
    (history, probes_for(until + 10, 20..until, boots))
}

#[test]
fn a_system_that_stays_down_after_a_provable_death_is_red() {
    for (until, expected) in [(109, vec![]), (112, vec!["recovery"])] {
        let (history, results) = back_after(until);
        assert_eq!(rules(&history, &results), expected, "{until}");
    }
}

#[test]
fn a_death_is_bounded_only_where_that_host_alone_was_struck() {
    for (name, host, at) in [
        ("kernel-hang", Some("h3"), 15),
        ("operator-kill", None, 60),
        ("bmc-dead", Some("h1"), 19),
    ] {
        let (mut history, results) = back_after(112);
        history.push(fault(name, host, at));
        assert_eq!(rules(&history, &results), [""; 0], "{name}");
    }
    // What was mended long before has no part in it.
    let (mut history, _) = back_after(200);
    for entry in &mut history {
        match entry {
            Entry::Fault {
                fault, at: from, ..
            } if fault.as_str() == "power-loss" => *from = at(90),
            Entry::Power(power) => power.at = at(90),
            _ => {}
        }
    }
    history.push(fault("agent-kill", Some("h3"), 5));
    history.push(heal("agent-kill", Some("h3"), 6));
    let boots = |second: u64| if second < 200 { 1 } else { 2 };
    let found = rules(&history, &probes_for(210, 90..200, boots));
    assert!(found.contains(&"recovery"), "{found:?}");
}

#[test]
fn an_epoch_that_falls_or_changes_hosts_is_red() {
    assert_eq!(with(right(1, "h1", 30)), ["epoch"]);
    assert_eq!(with(right(2, "h3", 30)), ["epoch"]);
    assert!(with(right(3, "h3", 30)).is_empty());
}

#[test]
fn a_site_that_does_not_rest_is_red() {
    let what = vec!["host h1: Unreachable".to_owned()];
    assert_eq!(with(Entry::Restless { at: at(90), what }), ["rest"]);
}

#[test]
fn an_outage_that_nobody_tells_is_red() {
    let mut history = clean();
    history.retain(|entry| !matches!(entry, Entry::Incident { .. }));
    history.push(Entry::Incident {
        object: {
            let mut object = incident("host-silent/h1/boot-of-h1", "h1", 15.0);
            object["status"]["systems"] = json!([]);
            object
        },
    });
    assert_eq!(rules(&history, &one_restart()), ["outage-untold"]);
}

/// The storage of h1 fails for 15 s; its guest stands still meanwhile and goes on.
fn cut(told_of: &str) -> Vec<Entry> {
    let mut history = clean();
    history.retain(|entry| {
        matches!(
            entry,
            Entry::Begin { .. } | Entry::Rest { .. } | Entry::Disk { .. }
        )
    });
    history.push(right(1, "h1", 1));
    history.push(fault("storage-cut", Some("h1"), 20));
    history.push(heal("storage-cut", Some("h1"), 35));
    let cause = format!("hardware/{told_of}/storage-pool/shared/StorageLost");
    let object = incident(&cause, told_of, 15.0);
    history.push(Entry::Incident { object });
    history
}

#[test]
fn a_guest_may_stand_still_while_its_storage_is_cut_and_does_not_boot() {
    let told = cut("h1");
    assert_eq!(rules(&told, &probes(20..35, |_| 1)), [""; 0]);
    assert_eq!(rules(&told, &one_restart()), ["reboot"]);
    assert_eq!(
        rules(&cut("h2"), &probes(20..35, |_| 1)),
        ["incident-without-cause"]
    );
}

#[test]
fn a_storm_covers_the_deaths_in_it() {
    let mut history = clean();
    history.retain(|entry| !matches!(entry, Entry::Incident { .. }));
    history.push(fault("power-loss", Some("h2"), 21));
    history.push(off("h2", 21, "lab"));
    let mut object = incident("hosts-silent", "", 15.0);
    object["spec"]["host"] = Value::Null;
    history.push(Entry::Incident { object });
    assert_eq!(rules(&history, &one_restart()), [""; 0]);
}

#[test]
fn what_can_not_be_read_is_red() {
    let object = json!({"metadata": {"name": "x"}, "spec": {}});
    assert_eq!(with(Entry::Incident { object }), ["history"]);
    assert_eq!(with(fault("meteorite", None, 30)), ["history"]);
}

#[test]
fn a_boot_of_moments_that_its_own_fence_ended_needs_no_incident() {
    let with_second_boot = |off: u64, by: &str| {
        let power = |seconds, on| {
            Entry::Power(Power {
                at: at(seconds),
                host: "h1".to_owned(),
                on,
                boot_id: "second-boot-of-h1".to_owned(),
                by: if on { "lab" } else { by }.to_owned(),
            })
        };
        let mut history = clean();
        history.extend([power(50, true), power(off, false)]);
        rules(&history, &one_restart())
    };
    assert_eq!(with_second_boot(51, "bmc"), Vec::<&str>::new());
    assert_eq!(with_second_boot(58, "bmc"), ["incident-missing"]);
    assert_eq!(with_second_boot(51, "lab"), ["incident-missing"]);
}

#[test]
fn an_outage_that_no_operator_could_hear_of_is_untold() {
    let with_operators_stopped_until = |healed: u64| {
        let mut history = clean();
        history.retain(|entry| {
            !matches!(entry, Entry::Incident { .. } | Entry::Power(_))
                && !matches!(entry, Entry::Fault { .. } | Entry::Heal { .. })
        });
        history.extend([
            fault("operator-stop", None, 15),
            fault("kernel-hang", Some("h1"), 20),
            heal("operator-stop", None, healed),
            heal("kernel-hang", Some("h1"), 35),
        ]);
        history.retain(|entry| !matches!(entry, Entry::Right { epoch: 2, .. }));
        rules(&history, &probes(20..35, |_| 1))
    };
    assert_eq!(with_operators_stopped_until(30), Vec::<&str>::new());
    assert_eq!(with_operators_stopped_until(24), ["outage-untold"]);
}

/// h1 is cut off from everything from 20 to 60 s, with a guard that is armed and kills at 30 s, or whenever the test
/// says; its guest runs elsewhere from 33 s on.
fn cut_off(killed_at: Option<u64>, storage: &str) -> Vec<&'static str> {
    let mut history = clean();
    history.retain(|entry| {
        !matches!(
            entry,
            Entry::Power(_) | Entry::Fault { .. } | Entry::Heal { .. } | Entry::Incident { .. }
        )
    });
    for entry in &mut history {
        match entry {
            Entry::Begin {
                contract_seconds, ..
            } => *contract_seconds = Some(10),
            Entry::Copies { at: seen, .. } if *seen > at(1) => *seen = at(33),
            _ => {}
        }
    }
    history.extend([
        fault("management-cut", Some("h1"), 20),
        fault(storage, Some("h1"), 20),
        heal("management-cut", Some("h1"), 60),
        heal(storage, Some("h1"), 60),
        Entry::Incident {
            object: incident("host-silent/h1/boot-of-h1", "h1", 15.0),
        },
    ]);
    history.extend(killed_at.map(|seconds| Entry::Guard {
        at: at(seconds),
        host: "h1".to_owned(),
    }));
    rules(&history, &one_restart())
}

#[test]
fn a_guard_that_kills_in_time_explains_a_reboot() {
    assert_eq!(cut_off(Some(30), "storage-cut"), Vec::<&str>::new());
}

#[test]
fn a_guard_that_kills_too_early_is_red() {
    assert!(cut_off(Some(22), "storage-cut").contains(&"guard"));
}

#[test]
fn a_guard_that_does_not_kill_is_red() {
    assert!(cut_off(None, "storage-hang").contains(&"guard"));
}

#[test]
fn a_guard_that_kills_while_storage_answers_is_red() {
    assert!(cut_off(Some(30), "bmc-dead").contains(&"guard"));
}

#[test]
fn a_guard_that_kills_unarmed_is_red() {
    let fired = Entry::Guard {
        at: at(30),
        host: "h1".to_owned(),
    };
    assert_eq!(with(fired), ["guard"]);
}
