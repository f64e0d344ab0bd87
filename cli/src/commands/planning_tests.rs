//! The planning commands on a small fleet that was saved.

use std::sync::Arc;

use fleet::closed_by_condition;
use fleet::snapshot::Snapshot;
use model::HostName;
use serde_json::{Value, json};

use super::planning::Planning;
use super::{drain_plan, rebalance, what_if};
use crate::language::Language;
use crate::options::Output;

fn typed<T: serde::de::DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).expect("an object"))
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
        snapshot.objects.hosts.push(typed(json!({
            "metadata": {"name": name}, "spec": {"pool": "main", "managementAddress": "10.0.0.1"},
            "status": {
                "conditions": [{"type": "Schedulable", "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": "2026-11-25T08:00:00Z"}],
                "reported": {"incarnation": {"bootId": "b", "systemUuid": "u"}, "domainType": "kvm", "capacity": {"cpu": 8, "memory": "16Gi"},
                    "cpuModel": "m", "architecture": "x86_64", "vtepAddress": "10.1.0.1",
                    "storagePools": [{"name": "shared", "state": "Ready", "capacityBytes": 1, "availableBytes": 1}]}}})));
    }
    for index in 0..3 {
        snapshot.objects.vms.push(typed(json!({
            "metadata": {"name": format!("v{index}"), "namespace": "oa", "uid": format!("u{index}")},
            "spec": {"cpu": 2, "memory": "4Gi", "image": "linux", "networks": ["common"], "disks": []},
            "status": {"phase": "Running", "assignment": {"host": "a", "bootId": "b", "epoch": 1}}})));
    }
    Planning {
        fleet: snapshot.objects.fleet(closed_by_condition),
        snapshot,
        language: Language::English,
        output,
    }
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
        let (plan, after) = drain_plan::rehearse(planning, "a").expect("a plan");
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
    let (plan, _) = drain_plan::rehearse(&planning, "a").expect("a plan");
    let moved: Vec<&str> = plan.moves.iter().map(|step| step.vm.0.as_str()).collect();
    assert_eq!(moved, ["u2"]);
    assert_eq!(plan.stuck.len(), 1);
    assert!(plan.stuck[0].why.contains("stands still"), "{plan:?}");
    assert_eq!(plan.idle, ["u1".into()]);
}
