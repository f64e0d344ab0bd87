//! The planning commands on a small fleet that was saved.

use std::sync::Arc;

use api::VirtualMachine;
use fleet::closed_by_condition;
use fleet::snapshot::Snapshot;
use model::HostName;
use serde_json::{Value, json};

use super::drain_plan::Rehearsal;
use super::planning::Planning;
use super::{drain_plan, rebalance, what_if};
use crate::language::Language;
use crate::options::Output;

fn typed<T: serde::de::DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).expect("an object"))
}

fn host(name: &str) -> Value {
    json!({
        "metadata": {"name": name}, "spec": {"pool": "main", "managementAddress": "10.0.0.1"},
        "status": {
            "conditions": [{"type": "Schedulable", "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": "2026-11-25T08:00:00Z"}],
            "reported": {"incarnation": {"bootId": "b", "systemUuid": "u"}, "domainType": "kvm", "capacity": {"cpu": 8, "memory": "16Gi"},
                "cpuModel": "m", "architecture": "x86_64", "vtepAddress": "10.1.0.1",
                "storagePools": [{"name": "shared", "state": "Ready", "capacityBytes": 1, "availableBytes": 1}]}}})
}

fn vm(name: &str, uid: &str, host: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "oa", "uid": uid},
        "spec": {"cpu": 2, "memory": "4Gi", "image": "linux", "networks": ["common"], "disks": []},
        "status": {"phase": "Running", "assignment": {"host": host, "bootId": "b", "epoch": 1}}})
}

/// Two hosts; everything runs on the first.
pub(super) fn planning(output: Output) -> Planning {
    let mut snapshot = Snapshot {
        saved_at: "2026-11-25T08:00:00Z".to_owned(),
        ..Snapshot::default()
    };
    snapshot.objects.host_pools.push(typed(json!({
        "metadata": {"name": "main"}, "spec": {"zones": ["Common"], "architecture": "x86_64"}})));
    snapshot.objects.networks.push(typed(json!({
        "metadata": {"name": "common"}, "spec": {"zone": "Common", "overlay": {"id": 7}, "subnets": []}})));
    snapshot.objects.images.push(typed(json!({
        "metadata": {"name": "linux"}, "spec": {"architecture": "x86_64", "disk": {"url": "http://x/y", "sha256": "0"}, "minimumSize": "1Gi"}})));
    snapshot.flavors.push(typed(
        json!({"metadata": {"name": "2c4g"}, "spec": {"cpu": 2, "memory": "4Gi"}}),
    ));
    for name in ["a", "b"] {
        snapshot.objects.hosts.push(typed(host(name)));
    }
    for index in 0..3 {
        let vm = vm(&format!("v{index}"), &format!("u{index}"), "a");
        snapshot.objects.vms.push(typed(vm));
    }
    Planning {
        fleet: snapshot.objects.fleet(closed_by_condition),
        snapshot,
        language: Language::English,
        output,
    }
}

/// The same with these hosts beside them, and these VMs, each with its host.
fn with(hosts: &[&str], vms: &[(&str, &str)]) -> Planning {
    let mut planning = planning(Output::Json);
    let objects = &mut planning.snapshot.objects;
    objects
        .hosts
        .extend(hosts.iter().map(|name| typed::<api::Host>(host(name))));
    let more = vms
        .iter()
        .map(|(name, host)| typed::<VirtualMachine>(vm(name, name, host)));
    objects.vms.extend(more);
    planning.fleet = objects.fleet(closed_by_condition);
    planning
}

/// Changes a VM, and reads the fleet anew.
fn change(planning: &mut Planning, index: usize, change: impl FnOnce(&mut VirtualMachine)) {
    let objects = &mut planning.snapshot.objects;
    change(Arc::make_mut(&mut objects.vms[index]));
    planning.fleet = objects.fleet(closed_by_condition);
}

fn rehearsed(planning: &Planning, host: &str) -> Rehearsal {
    Rehearsal::of(planning, host).expect("a plan")
}

/// What people read in both languages.
fn both(planning: &mut Planning, text: impl Fn(&Planning) -> String) -> [String; 2] {
    [Language::English, Language::Chinese].map(|language| {
        planning.language = language;
        text(planning)
    })
}

#[test]
fn every_question_is_answered_from_a_saved_fleet() {
    let planning = planning(Output::Table);
    let text = planning.snapshot.to_text().expect("text");
    let read = Snapshot::from_text(&text).expect("a snapshot");
    assert_eq!(read.objects.fleet(closed_by_condition), planning.fleet);
    assert_eq!(planning.fleet.hosts.len(), 2);
    assert!(
        planning
            .fleet
            .hosts
            .values()
            .all(|host| host.closed.is_none())
    );
    drain_plan::run(&planning, "a").expect("a plan");
    what_if::down(&planning, "a").expect("an answer");
    let question = rebalance::Question {
        pool: None,
        consolidate: None,
        moves: 5,
    };
    rebalance::run(&planning, &question).expect("moves");
}

#[test]
fn what_does_not_exist_is_named() {
    let planning = planning(Output::Json);
    let error = what_if::down(&planning, "zz").expect_err("no such host");
    assert!(
        error.to_string().contains("host zz does not exist"),
        "{error}"
    );
    let error = planning.pools(Some("zz")).expect_err("no such pool");
    assert!(error.to_string().contains("host pool zz"), "{error}");
    let new = what_if::NewHosts {
        like: None,
        cpu: Some(8),
        memory: None,
        pool: None,
        count: 1,
    };
    let error = what_if::add_hosts(&planning, &new).expect_err("half a size");
    assert!(error.to_string().contains("--cpu and --memory"), "{error}");
    let wrong = what_if::NewHosts {
        memory: Some("many"),
        ..new
    };
    let error = what_if::add_hosts(&planning, &wrong).expect_err("no size");
    assert!(error.to_string().contains("--memory many"), "{error}");
}

#[test]
fn a_rehearsed_drain_tells_what_becomes_of_the_reserve() {
    let mut planning = planning(Output::Json);
    let state = |planning: &Planning| {
        let Rehearsal { plan, after, .. } = rehearsed(planning, "a");
        assert!(plan.stuck.is_empty(), "{:?}", plan.stuck);
        after.expect("its pool").json()["state"].clone()
    };
    assert_eq!(state(&planning), "Broken", "b alone has nobody to spare");
    let spare = planning.fleet.hosts[&HostName::from("b")].clone();
    planning.fleet.hosts.insert("c".into(), spare);
    assert_eq!(state(&planning), "Proven");
}

#[test]
fn a_crowded_host_gives_and_a_named_host_is_emptied() {
    let mut planning = planning(Output::Json);
    let moves = |planning: &Planning, consolidate: Option<&[String]>| {
        let question = rebalance::Question {
            pool: Some("main"),
            consolidate,
            moves: 5,
        };
        let mut answers = rebalance::answers(planning, &question).expect("answers");
        answers.remove(0).1
    };
    let balance = moves(&planning, None);
    assert_eq!(balance.gains.len(), 1, "{}", balance.why);
    assert!(balance.gains[0].after_permille < balance.gains[0].before_permille);
    let wanted = ["a".to_owned()];
    let kept = moves(&planning, Some(&wanted));
    assert!(kept.why.contains("a stays: N+1"), "{}", kept.why);
    let pool = planning.fleet.pools.get_mut("main").expect("a pool");
    pool.failures_to_tolerate = 0;
    let emptied = moves(&planning, Some(&wanted));
    assert_eq!(emptied.plan.moves.len(), 3, "{}", emptied.why);
    assert!(
        emptied
            .plan
            .moves
            .iter()
            .all(|step| step.to.as_str() == "b")
    );
}

#[test]
fn a_drain_tells_what_becomes_of_the_redundancy_of_the_pool() {
    let planning = planning(Output::Table);
    let told = drain_plan::redundancy(&planning, "a");
    let text = told.text(&planning);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("now: pool main: N+1 "), "{text}");
    assert!(lines[1].starts_with("then: pool main: N+1 "), "{text}");
    let json = told.json(json!({"host": "a"}));
    assert_eq!(json["host"], "a");
    assert_eq!(
        (&json["now"]["state"], &json["then"]["state"]),
        (&json!("Proven"), &json!("Broken"))
    );
    let unknown = drain_plan::redundancy(&planning, "gone").text(&planning);
    assert!(
        unknown.contains("is not known") && unknown.contains("gone"),
        "{unknown}"
    );
}

#[test]
fn a_rehearsal_names_who_can_not_move_and_who_does_not_run() {
    let mut planning = planning(Output::Table);
    for (index, phase) in [(0, "Stalled"), (1, "Stopped")] {
        let vm = &mut planning.snapshot.objects.vms[index];
        let status = Arc::make_mut(vm).status.as_mut().expect("a status");
        status.phase = serde_json::from_value(json!(phase)).expect("a phase");
    }
    let plan = rehearsed(&planning, "a").plan;
    let moved: Vec<&str> = plan.moves.iter().map(|step| step.vm.0.as_str()).collect();
    assert_eq!(moved, ["u2"]);
    assert_eq!(plan.stuck.len(), 1);
    assert!(plan.stuck[0].why.contains("stands still"), "{plan:?}");
    assert_eq!(plan.idle, ["u1".into()]);
}

/// Room that a host needs which is being emptied already is not promised a second time, though its VMs do not move yet.
#[test]
fn a_rehearsal_reckons_with_the_hosts_that_are_being_emptied() {
    let mut planning = with(&["c"], &[("w0", "c"), ("w1", "c")]);
    let alone = rehearsed(&planning, "c");
    assert_eq!((alone.plan.moves.len(), alone.plan.stuck.len()), (2, 0));
    assert_eq!(alone.json(&planning)["alsoEmptied"], json!([]));
    for (maintenance, evacuation, beside) in [
        (
            json!({"reason": "new fans", "evacuate": true}),
            Value::Null,
            true,
        ),
        (Value::Null, json!({"phase": "Running"}), true),
        (Value::Null, json!({"phase": "Blocked"}), true),
        (Value::Null, json!({"phase": "Done"}), false),
        (
            json!({"reason": "new fans", "evacuate": false}),
            Value::Null,
            false,
        ),
    ] {
        let emptied = Arc::make_mut(&mut planning.snapshot.objects.hosts[0]);
        emptied.spec.maintenance = serde_json::from_value(maintenance).expect("maintenance");
        let status = emptied.status.as_mut().expect("a status");
        status.evacuation = serde_json::from_value(evacuation).expect("an evacuation");
        status.conditions[0].status = "False".to_owned();
        planning.fleet = planning.snapshot.objects.fleet(closed_by_condition);
        let rehearsal = rehearsed(&planning, "c");
        let stuck = usize::from(beside);
        // b has room for four: three of a, and one of c.
        assert_eq!(rehearsal.plan.moves.len(), 2 - stuck);
        assert_eq!(rehearsal.plan.stuck.len(), stuck);
        let mut moves = rehearsal.plan.moves.iter();
        assert!(moves.all(|step| step.from.as_str() == "c"));
        let json = rehearsal.json(&planning);
        let named: &[&str] = if beside { &["a"] } else { &[] };
        assert_eq!(json["alsoEmptied"], json!(named));
        assert_eq!(json["lowerBoundMilliseconds"].is_null(), beside, "{json}");
        let texts = both(&mut planning, |planning| rehearsal.text(planning));
        for (text, label) in texts
            .iter()
            .zip(["planned together with it: a;", "一并计划的宿主机:a;"])
        {
            assert_eq!(text.contains(label), beside, "{text}");
        }
    }
}

/// One that is on its way out is neither nobody, nor stuck.
#[test]
fn who_leaves_already_is_told_with_where_it_goes() {
    let mut planning = with(&[], &[]);
    planning.snapshot.objects.vms.truncate(1);
    change(&mut planning, 0, |vm| {
        let status = vm.status.as_mut().expect("a status");
        status.phase = serde_json::from_value(json!("Migrating")).expect("a phase");
        let incoming = json!({"host": "b", "bootId": "b", "epoch": 2});
        status.incoming = serde_json::from_value(incoming).expect("a right");
    });
    let rehearsal = rehearsed(&planning, "a");
    assert_eq!(rehearsal.plan.leaving, ["u0".into()]);
    assert!(rehearsal.plan.stuck.is_empty(), "{:?}", rehearsal.plan);
    let json = rehearsal.json(&planning);
    let leaving = json!([{"virtualMachine": "oa/v0", "to": "b"}]);
    assert_eq!(json["leaving"], leaving, "{json}");
    let [english, chinese] = both(&mut planning, |planning| rehearsal.text(planning));
    let wanted =
        "leaves already: oa/v0 to b\nEmpty as soon as those that leave already are gone.\n";
    assert!(english.contains(wanted), "{english}");
    let wanted = "已在迁出: oa/v0 → b\n已在迁出的虚拟机离开后即清空。\n";
    assert!(chinese.contains(wanted), "{chinese}");
}

/// The operator goes on counting a closed host that carries VMs: its failure is the one that no other host bears.
#[test]
fn a_host_that_can_not_be_emptied_may_still_fail_afterwards() {
    let mut planning = with(&["c"], &[("w0", "b"), ("w1", "c")]);
    let state = |planning: &Planning| {
        let after = rehearsed(planning, "a").after.expect("its pool");
        after.json()["state"].clone()
    };
    drop(planning.snapshot.objects.vms.drain(1..3));
    for (phase, memory, wanted) in [
        ("Running", "4Gi", "Proven"),
        ("Stalled", "4Gi", "Proven"),
        ("Stalled", "16Gi", "Broken"),
        // It does not move, and keeps a seat that the operator counts.
        ("Stopped", "16Gi", "Broken"),
    ] {
        change(&mut planning, 0, |vm| {
            vm.spec.memory = memory.to_owned();
            let status = vm.status.as_mut().expect("a status");
            status.phase = serde_json::from_value(json!(phase)).expect("a phase");
        });
        assert_eq!(state(&planning), wanted, "{phase} {memory}");
    }
}

/// The failure of its host starts no VM that was shut down inside.
#[test]
fn who_is_shut_down_stays_so_when_its_host_fails() {
    let mut planning = with(&[], &[]);
    change(&mut planning, 1, |vm| {
        let status = vm.status.as_mut().expect("a status");
        status.phase = serde_json::from_value(json!("Stopped")).expect("a phase");
    });
    let json = what_if::Down::of(&planning, "a").expect("an answer").json();
    assert_eq!(json["restarts"].as_array().map(Vec::len), Some(2), "{json}");
    assert_eq!(json["stayShutDown"], json!(["oa/v1"]), "{json}");
    let [english, chinese] = both(&mut planning, |planning| {
        what_if::Down::of(planning, "a").expect("an answer").text()
    });
    assert!(
        english.starts_with("if host a failed: 2 of 2 VMs restart elsewhere"),
        "{english}"
    );
    assert!(
        english.contains("\nis shut down, and stays so: oa/v1\n"),
        "{english}"
    );
    assert!(chinese.contains("\n已关机,保持原状: oa/v1\n"), "{chinese}");
}
