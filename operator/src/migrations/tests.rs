//! Moves against an API server in memory: which begins, and what is told of why a VM is where it is.

use api::CloudPolicySpec;
use api::names::{ANNOTATION_WHY, LABEL_EVACUATES};
use axum::http::Method;
use serde_json::Value;

use super::*;
use crate::context_in_memory::{BOOT, Site, host, migration, vm};

const WHY: &str = "most free memory of the hosts that fit";

/// A move that the operator made to empty h1 and that has not begun.
fn planned(vm: &str) -> Arc<VirtualMachineMigration> {
    let metadata = json!({
        "labels": {LABEL_EVACUATES: "h1"}, "annotations": {ANNOTATION_WHY: WHY},
        "creationTimestamp": "2026-01-01T00:00:00Z"
    });
    let name = format!("{vm}-e1-0");
    migration(&name, vm, metadata, json!({}), json!({"phase": "Pending"}))
}

fn limits(per_host: i32, per_site: i32) -> CloudPolicySpec {
    let mut policy = CloudPolicySpec::default();
    (policy.migration.per_host, policy.migration.per_site) = (per_host, per_site);
    policy
}

async fn turned(
    policy: CloudPolicySpec,
    vms: Vec<Arc<VirtualMachine>>,
    migrations: Vec<Arc<VirtualMachineMigration>>,
) -> Site {
    let maintenance = json!({"reason": "fans", "evacuate": true});
    let hosts = vec![
        host("h1", maintenance, Value::Null),
        host("h2", Value::Null, Value::Null),
    ];
    let failover = door::policy(&policy);
    let site = Site::new(policy, hosts, vms, migrations).await;
    turn(&site.context, &mut Memory::default(), &failover).await;
    site
}

/// Which of these VMs were given `incoming`.
fn begun<'a>(site: &Site, vms: &[&'a str]) -> Vec<&'a str> {
    let begins = |vm: &&&str| {
        let written = site.written(&Method::PATCH, &format!("/virtualmachines/{vm}/status"));
        written
            .iter()
            .any(|body| body["status"]["incoming"]["host"] == "h2")
    };
    vms.iter().filter(begins).copied().collect()
}

/// What was last told of a move.
fn told(site: &Site, vm: &str) -> Value {
    let path = format!("/virtualmachinemigrations/{vm}-e1-0/status");
    let written = site.written(&Method::PATCH, &path);
    written
        .last()
        .map_or(Value::Null, |body| body["status"].clone())
}

#[tokio::test]
async fn as_many_begin_as_the_site_and_the_hosts_bear_the_most_urgent_first() {
    let names = ["a-test", "b-office", "c-oa"];
    for (policy, first, says) in [
        (
            limits(16, 1),
            vec!["c-oa"],
            "1 VMs of the site move already",
        ),
        (
            limits(1, 16),
            vec!["c-oa"],
            "host h1 sends and receives 1 VMs already",
        ),
        (
            limits(2, 16),
            vec!["b-office", "c-oa"],
            "host h1 sends and receives 2 VMs already",
        ),
        (limits(16, 16), names.to_vec(), ""),
    ] {
        let vms = vec![
            vm("a-test", "Low", "h1", json!({})),
            vm("b-office", "Normal", "h1", json!({})),
            vm("c-oa", "Critical", "h1", json!({})),
        ];
        let moves = names.iter().map(|name| planned(name)).collect();
        let site = turned(policy, vms, moves).await;
        assert_eq!(begun(&site, &names), first, "{says}");
        if !says.is_empty() {
            let waits = told(&site, "a-test");
            assert_eq!(waits["message"], format!("waits for its turn: {says}"));
            assert_ne!(waits["phase"], "Cancelled", "its turn comes");
        }
    }
}

#[test]
fn without_a_plan_the_priority_decides_and_then_the_age() {
    let moved = |name: &str, at: &str| {
        let metadata = json!({"creationTimestamp": at});
        migration(name, name, metadata, json!({}), Value::Null)
    };
    let moves = [
        moved("young", "2026-01-01T00:00:02Z"),
        moved("old", "2026-01-01T00:00:01Z"),
        moved("urgent", "2026-01-01T00:00:03Z"),
        moved("gone", "2026-01-01T00:00:00Z"),
    ];
    let vms = [
        vm("young", "Normal", "h1", json!({})),
        vm("old", "Normal", "h1", json!({})),
        vm("urgent", "High", "h1", json!({})),
    ];
    let vms: BTreeMap<_, _> = vms
        .iter()
        .map(|vm| ((vm.namespace(), vm.name_any()), vm))
        .collect();
    let order = in_order(&moves, &vms, &Default::default());
    let order: Vec<_> = order
        .iter()
        .map(|(migration, _)| migration.name_any())
        .collect();
    assert_eq!(order, ["urgent", "old", "young", "gone"]);
}

#[tokio::test]
async fn a_move_that_begins_keeps_why_for_its_end_and_tells_it_once() {
    let vms = vec![vm("web", "Normal", "h1", json!({}))];
    let site = turned(limits(2, 16), vms, vec![planned("web")]).await;
    let begun = told(&site, "web");
    assert_eq!(
        begun["placement"],
        json!({"host": "h2", "removed": [], "reasons": [WHY],
            "message": "moved from h1 to h2: the host is emptied for maintenance"})
    );
    let written = site.written(&Method::PATCH, "/virtualmachines/web/status");
    let early = written
        .iter()
        .any(|body| body["status"].get("placement").is_some());
    assert!(!early, "it is on h1 still: {written:?}");
    let events = site.written(&Method::POST, "/events");
    let notes: Vec<_> = events
        .iter()
        .filter_map(|event| event["note"].as_str())
        .collect();
    let note = format!("moves h1 -> h2: the host is emptied for maintenance; {WHY}");
    assert_eq!(notes, [note.as_str()]);
}

/// A move that is under way, at its end by the word of both sides.
fn ending(cancel: bool, source: &str, target: &str) -> Arc<VirtualMachineMigration> {
    let side = |host: &str, epoch: u64| json!({"host": host, "bootId": BOOT, "epoch": epoch});
    let status = json!({
        "phase": "Running", "vmUid": "web",
        "sourceAssignment": side("h1", 1), "targetAssignment": side("h2", 2),
        "abortRequested": cancel, "refuseRequested": cancel,
        "source": {"assignment": side("h1", 1), "phase": source},
        "target": {"assignment": side("h2", 2), "phase": target},
        "placement": {"host": "h2", "message": "moved from h1 to h2: because", "reasons": [WHY]}
    });
    migration(
        "web-e1-0",
        "web",
        json!({}),
        json!({"cancel": cancel}),
        status,
    )
}

#[tokio::test]
async fn why_a_vm_is_there_is_told_with_its_arrival_and_not_of_a_move_that_was_taken_back() {
    for (cancel, source, target) in [
        (false, "HandedOver", "Resumed"),
        (true, "StillRunning", "Refused"),
    ] {
        let incoming = json!({"incoming": {"host": "h2", "bootId": BOOT, "epoch": 2}, "lastEpoch": 2,
            "phase": "Migrating"});
        let vms = vec![vm("web", "Normal", "h1", incoming)];
        let site = turned(limits(2, 16), vms, vec![ending(cancel, source, target)]).await;
        let written = site.written(&Method::PATCH, "/virtualmachines/web/status");
        assert_eq!(written.len(), 1, "{written:?}");
        let status = &written[0]["status"];
        assert_eq!(status["incoming"], Value::Null);
        if cancel {
            assert_eq!(status["assignment"]["host"], "h1");
            assert_eq!(status.get("placement"), None, "it never left h1");
        } else {
            assert_eq!(status["assignment"]["host"], "h2");
            assert_eq!(
                status["placement"],
                json!({"host": "h2", "message": "moved from h1 to h2: because", "reasons": [WHY], "removed": []})
            );
        }
    }
}

/// A move of `web` that somebody asked for and that has not begun.
fn asked(name: &str, target: Option<&str>) -> Arc<VirtualMachineMigration> {
    let spec = json!({"targetHost": target});
    migration(name, "web", json!({}), spec, json!({"phase": "Pending"}))
}

/// What was last told of a move with that name.
fn told_of(site: &Site, name: &str) -> Value {
    let path = format!("/virtualmachinemigrations/{name}/status");
    let written = site.written(&Method::PATCH, &path);
    written
        .last()
        .map_or(Value::Null, |body| body["status"].clone())
}

/// A VM that is on its way from h1 to h2.
fn arriving() -> Vec<Arc<VirtualMachine>> {
    let incoming = json!({"incoming": {"host": "h2", "bootId": BOOT, "epoch": 2}, "lastEpoch": 2,
        "phase": "Migrating"});
    vec![vm("web", "Normal", "h1", incoming)]
}

#[tokio::test]
async fn a_second_move_of_a_vm_waits_whatever_it_wants() {
    for target in [Some("h3"), Some("h2"), None] {
        let moves = vec![
            ending(false, "Migrating", "Prepared"),
            asked("web-2", target),
        ];
        let site = turned(limits(16, 16), arriving(), moves).await;
        let second = told_of(&site, "web-2");
        let waits = failover::Reason::WaitsForOtherMove.english();
        assert_eq!(second["message"], waits, "{target:?}");
        assert_eq!(second["phase"], "Pending");
        assert_eq!(second.get("targetAssignment"), None);
    }
}

/// The leader died between `incoming` and the move's own record; the moves are looked at by name.
#[tokio::test]
async fn one_move_takes_up_what_a_dead_leader_began_and_it_is_one_that_may_go_there() {
    for (first, second, taken) in [
        (Some("h3"), Some("h2"), "web-2"),
        (Some("h3"), None, "web-2"),
        (None, Some("h2"), "web-1"),
    ] {
        let moves = vec![asked("web-1", first), asked("web-2", second)];
        let site = turned(limits(16, 16), arriving(), moves).await;
        for name in ["web-1", "web-2"] {
            let told = told_of(&site, name);
            let host = &told["targetAssignment"]["host"];
            let expected = if name == taken {
                json!("h2")
            } else {
                Value::Null
            };
            assert_eq!(*host, expected, "{first:?} {second:?}: {name} {told}");
        }
    }
}

/// The watch of VMs wakes the next turn before that of moves shows what has begun.
#[tokio::test]
async fn moves_that_the_cache_does_not_show_begun_count() {
    let vms = || {
        ["web", "office"]
            .map(|name| vm(name, "Normal", "h1", json!({})))
            .to_vec()
    };
    let moves = vec![planned("web"), planned("office")];
    let policy = limits(1, 16);
    let failover = door::policy(&policy);
    let site = turned(policy, vms(), moves).await;
    let first = begun(&site, &["web", "office"]);
    assert_eq!(first, ["office"], "the first by name");
    // The VM's own cache is as old: what was written a moment ago is known by the fleet in memory alone.
    turn(&site.context, &mut Memory::default(), &failover).await;
    assert_eq!(begun(&site, &["web", "office"]), ["office"]);
    let waits = told(&site, "web");
    let says = "waits for its turn: host h1 sends and receives 1 VMs already";
    assert_eq!(waits["message"], says);
}

/// The watch of moves is fresh, that of VMs is not: it shows no `incoming` yet.
#[tokio::test]
async fn a_healthy_move_is_not_ended_by_a_cache_that_is_older_than_it() {
    let ends = |standing: Vec<Arc<VirtualMachine>>| async move {
        let hosts = ["h1", "h2"].map(|name| host(name, Value::Null, Value::Null));
        let cached = vec![vm("web", "Normal", "h1", json!({}))];
        let moves = vec![ending(false, "Migrating", "Prepared")];
        let policy = limits(2, 16);
        let failover = door::policy(&policy);
        let site = Site::new(policy, hosts.into(), cached, moves).await;
        for vm in standing {
            site.holds("namespaces/oa/virtualmachines", "web", json!(*vm));
        }
        turn(&site.context, &mut Memory::default(), &failover).await;
        told_of(&site, "web-e1-0")["phase"].clone()
    };
    assert_eq!(ends(arriving()).await, Value::Null);
    assert_eq!(ends(vec![]).await, Value::Null, "nobody knows: asked again");
    let back = vec![vm("web", "Normal", "h1", json!({}))];
    assert_eq!(ends(back).await, "Failed", "it was taken back");
}
