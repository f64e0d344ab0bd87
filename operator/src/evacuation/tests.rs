//! Every drain ends, or says what it waits for: turns of an evacuation against an API server in memory.

use axum::http::Method;
use placement::Fleet;
use serde_json::Value;

use super::told::told;
use super::*;
use crate::context_in_memory::{Site, host, migration, vm};
use crate::fleet_in_memory;

/// When the evacuation of these tests began, and when a person asked for it.
const BEGAN: &str = "2026-01-01T01:00:00Z";

fn known(evacuation: Value) -> Arc<Host> {
    host("h", Value::Null, evacuation)
}

/// A host whose maintenance was asked for at that time, emptied since [`BEGAN`].
fn drained(asked: &str) -> Arc<Host> {
    let maintenance = json!({"reason": "fans", "evacuate": true, "askedAt": asked});
    let evacuation =
        json!({"phase": "Running", "reason": "Maintenance", "startedAt": BEGAN, "remaining": 9});
    host("h1", maintenance, evacuation)
}

fn other(name: &str) -> Arc<Host> {
    host(name, Value::Null, Value::Null)
}

async fn site(
    host: Arc<Host>,
    vms: Vec<Arc<VirtualMachine>>,
    migrations: Vec<Arc<VirtualMachineMigration>>,
) -> Site {
    let hosts = vec![host, other("h2")];
    Site::new(Default::default(), hosts, vms, migrations).await
}

/// One turn; what it tells of h1.
async fn turned(site: &Site, memory: &mut Evacuations) -> Value {
    let policy = door::policy(&site.context.stores.policy());
    let migrations = site.context.stores.migrations.state();
    memory.planned = None;
    turn(&site.context, memory, &policy, &migrations).await;
    let told = site.written(&Method::PATCH, "/hosts/h1/status");
    let last = told.last().expect("it tells");
    last["status"]["evacuation"].clone()
}

fn blocked(told: &Value) -> String {
    let sentences = told["blocked"].as_array().expect("a list");
    let sentences = sentences.iter().filter_map(Value::as_str);
    sentences.collect::<Vec<_>>().join("\n")
}

/// Names of the VMs for which moves were made, in order.
fn made(site: &Site) -> Vec<String> {
    let made = site.written(&Method::POST, "/virtualmachinemigrations");
    let name = |body: &Value| body["spec"]["virtualMachine"].as_str().map(str::to_owned);
    made.iter().filter_map(name).collect()
}

/// It was placed before work on the host was asked for, and the cache does not show it there yet.
#[tokio::test]
async fn a_host_that_was_given_a_vm_a_moment_ago_is_not_told_as_empty() {
    let web = vm(
        "web",
        "Normal",
        "h1",
        json!({"assignment": null, "runtime": null}),
    );
    let site = site(drained(BEGAN), vec![web.clone()], Vec::new()).await;
    let mut engine = site.context.planner.own().await;
    engine.assign(&"web".into(), &"h1".into());
    drop(engine);
    let write = site.context.writer.swap_status(web.as_ref(), json!({}));
    write.await.expect("taken");
    let told = turned(&site, &mut Evacuations::default()).await;
    assert_eq!(
        (&told["phase"], &told["remaining"]),
        (&json!("Running"), &json!(1))
    );
}

#[tokio::test]
async fn who_stands_still_blocks_and_who_is_shut_down_does_not() {
    let vms = vec![
        vm("stalled", "Normal", "h1", json!({"phase": "Stalled"})),
        vm("off", "Normal", "h1", json!({"phase": "Stopped"})),
    ];
    let stalls = site(drained(BEGAN), vms, Vec::new()).await;
    let told = turned(&stalls, &mut Evacuations::default()).await;
    assert_eq!(
        (&told["phase"], &told["remaining"]),
        (&json!("Blocked"), &json!(1))
    );
    assert!(
        blocked(&told).contains("oa/stalled: it stands still"),
        "{told}"
    );
    assert_eq!(told["observedGeneration"], 3);

    let off = vec![vm("off", "Normal", "h1", json!({"phase": "Stopped"}))];
    let rests = site(drained(BEGAN), off, Vec::new()).await;
    let told = turned(&rests, &mut Evacuations::default()).await;
    assert_eq!(
        (&told["phase"], &told["remaining"]),
        (&json!("Done"), &json!(0))
    );
    assert!(made(&rests).is_empty());
}

#[tokio::test]
async fn who_starts_or_has_another_move_is_waited_for_with_its_reason_and_not_for_ever() {
    let vms = vec![
        vm("starts", "Normal", "h1", json!({"phase": "Starting"})),
        vm("asked", "Normal", "h1", json!({})),
    ];
    let status = json!({"phase": "Pending", "message": "no host fits"});
    let pending = migration("m", "asked", json!({}), json!({"reason": "User"}), status);
    let site = site(drained(BEGAN), vms, vec![pending]).await;
    let mut memory = Evacuations::default();
    let told = turned(&site, &mut memory).await;
    assert_eq!(
        (&told["phase"], &told["remaining"]),
        (&json!("Running"), &json!(2))
    );
    let why = blocked(&told);
    assert!(why.contains("oa/starts: it is being started"), "{why}");
    assert!(
        why.contains("oa/asked: its move m") && why.contains("no host fits"),
        "{why}"
    );
    for since in memory.waits.values_mut() {
        *since = Moment(since.0 - WAITS_MAX);
    }
    let told = turned(&site, &mut memory).await;
    assert_eq!(told["phase"], "Blocked", "{told}");
    assert!(made(&site).is_empty());
}

/// So many moves of a VM away from h1 that failed one after the other, the first at that minute.
fn failures(vm: &str, count: usize) -> Vec<Arc<VirtualMachineMigration>> {
    let one = |index: usize| {
        let finished = format!("2026-01-01T02:{index:02}:00Z");
        let status = json!({"phase": "Failed", "finishedAt": finished, "message": format!("no route {index}")});
        let labels = json!({"labels": {LABEL_EVACUATES: "h1"}});
        migration(&format!("{vm}-e1-{index}"), vm, labels, json!({}), status)
    };
    (0..count).map(one).collect()
}

#[tokio::test]
async fn a_move_that_keeps_failing_blocks_until_a_person_asks_again() {
    let fails = || vec![vm("fails", "Normal", "h1", json!({}))];
    for (asked, failed, phase) in [
        (BEGAN, 4, "Running"),
        (BEGAN, 5, "Blocked"),
        ("2026-01-01T03:00:00Z", 5, "Running"),
    ] {
        let site = site(drained(asked), fails(), failures("fails", failed)).await;
        let told = turned(&site, &mut Evacuations::default()).await;
        assert_eq!(told["phase"], phase, "{asked} {failed}: {told}");
        let stays = phase == "Blocked";
        assert_eq!(made(&site).is_empty(), stays, "{asked} {failed}");
        let why = blocked(&told);
        assert_eq!(
            why.contains("failed 5 times") && why.contains("no route 4"),
            stays,
            "{why}"
        );
    }
}

/// Somebody deleted the first of two failed moves: the name of the second is taken, and the next is another one.
#[tokio::test]
async fn a_move_is_made_under_a_name_that_is_free() {
    let mut failed = failures("fails", 2);
    failed.remove(0);
    let vms = vec![vm("fails", "Normal", "h1", json!({}))];
    let site = site(drained(BEGAN), vms, failed).await;
    turned(&site, &mut Evacuations::default()).await;
    let made = site.written(&Method::POST, "/virtualmachinemigrations");
    let names: Vec<_> = made.iter().map(|body| &body["metadata"]["name"]).collect();
    assert_eq!(names, ["fails-e1-2"]);
}

/// A policy of the cluster denies the moves: it is told, tried again with pauses, and blocks in the end.
#[tokio::test]
async fn a_move_that_the_api_server_does_not_take_is_told_and_blocks_in_the_end() {
    let vms = vec![vm("denied", "Normal", "h1", json!({}))];
    let mut site = site(drained(BEGAN), vms, Vec::new()).await;
    site.refuse(
        &Method::POST,
        "/virtualmachinemigrations",
        (403, "no moves on Sundays"),
    );
    let mut memory = Evacuations::default();
    for _ in 0..2 {
        let told = turned(&site, &mut memory).await;
        assert_eq!(told["phase"], "Running", "{told}");
        let why = blocked(&told);
        assert!(
            why.contains("oa/denied: its move failed 1 times")
                && why.contains("no moves on Sundays"),
            "{why}"
        );
    }
    assert_eq!(made(&site), ["denied"], "the second time it pauses");
    let denied = &site.context.stores.vms.state()[0];
    let (h1, now) = (HostName::from("h1"), jiff::Timestamp::now());
    for _ in 1..Policy::default().start_attempts {
        memory
            .refusals
            .note(denied, (&h1, None), "no moves on Sundays", now);
    }
    let told = turned(&site, &mut memory).await;
    assert_eq!(told["phase"], "Blocked", "{told}");
    assert!(blocked(&told).contains("no moves on Sundays"), "{told}");
}

#[tokio::test]
async fn moves_are_made_the_most_urgent_first_and_say_why() {
    // By name and by size alone the first would be first.
    let vms = vec![
        vm("a-test", "Low", "h1", json!({})),
        vm("b-office", "Normal", "h1", json!({})),
        vm("c-oa", "Critical", "h1", json!({})),
    ];
    let site = site(drained(BEGAN), vms, Vec::new()).await;
    let mut memory = Evacuations::default();
    let told = turned(&site, &mut memory).await;
    assert_eq!(told["phase"], "Running");
    assert_eq!(made(&site), ["c-oa", "b-office", "a-test"]);
    let first = &site.written(&Method::POST, "/virtualmachinemigrations")[0];
    let why = first["metadata"]["annotations"][ANNOTATION_WHY].as_str();
    assert!(
        why.is_some_and(|why| why.contains("free memory")),
        "{first}"
    );
    let place = |vm: &str| memory.turn_of(&vm.into());
    assert_eq!(place("c-oa"), Some((Priority::Critical, 0)));
    assert!(place("c-oa") < place("b-office") && place("b-office") < place("a-test"));
}

#[test]
fn what_is_written_begins_once_and_says_why() {
    let outcome = |remaining, whole| Outcome {
        remaining,
        blocked: Vec::new(),
        waits: Vec::new(),
        whole,
    };
    let why = Why::Fault(Severity::Degraded);
    let first = told(None, Some(1), why, outcome(2, None)).expect("new");
    assert_eq!(
        (&first["phase"], &first["reason"]),
        (&json!("Running"), &json!("HardwareFault"))
    );
    assert!(first["startedAt"].is_string());
    let runs = known(first);
    assert_eq!(told(standing(&runs), Some(1), why, outcome(2, None)), None);
    let fewer = told(standing(&runs), Some(1), why, outcome(1, None)).expect("changed");
    assert_eq!(fewer.get("startedAt"), None);
    let seen = told(standing(&runs), Some(2), why, outcome(2, None)).expect("changed");
    assert_eq!(seen, json!({"observedGeneration": 2}), "nothing else has");
    let waited = known(json!({"phase": "Waiting", "remaining": 2}));
    let begun = told(standing(&waited), Some(1), why, outcome(2, None)).expect("changed");
    assert!(begun["startedAt"].is_string());
    assert_eq!(
        told(standing(&runs), Some(1), why, outcome(0, Some("Blocked"))).expect("done")["phase"],
        "Done"
    );
}

/// Hosts that the plan would not empty, of h1, which is degraded and closed, and open ones; VMs with their host and GiB.
fn held(open: &[&str], vms: &[(&str, &str, u64)]) -> BTreeMap<HostName, String> {
    let host = |stands: bool| placement::Host {
        closed: (!stands).then(|| "quarantined".to_owned()),
        stands,
        ..fleet_in_memory::host("general", 4, 4 << 30)
    };
    let vm = |name: &str, on: &str, gib: u64| fleet_in_memory::vm(name, on, 1, gib << 30);
    let open = open.iter().map(|name| (HostName::from(*name), host(true)));
    let fleet = Fleet {
        pools: BTreeMap::from([("general".to_owned(), fleet_in_memory::pool())]),
        hosts: open.chain([("h1".into(), host(false))]).collect(),
        vms: vms
            .iter()
            .map(|(name, on, gib)| ((*name).into(), Box::new(vm(name, on, *gib))))
            .collect(),
        ..Fleet::default()
    };
    let request = EvacuationRequest {
        hosts: BTreeSet::from(["h1".into()]),
        ..EvacuationRequest::default()
    };
    let degraded = Why::Fault(Severity::Degraded);
    let wanted = BTreeMap::from([("h1".into(), (known(Value::Null), degraded))]);
    plan(&Engine::new(fleet), &request, &wanted).1
}

/// Seen in the demo: a degraded host had been emptied, another died, and the Incident said of the empty one
/// that its VMs stay for now.
#[test]
fn an_empty_host_holds_nothing_back_while_another_failure_breaks_n_1() {
    assert_eq!(held(&["h2"], &[("web-0", "h2", 1)]), BTreeMap::new());
    let held = held(&["h2"], &[("web-0", "h2", 1), ("web-1", "h1", 1)]);
    assert!(
        held[&HostName::from("h1")].contains("N+1 of pool general would break"),
        "{held:?}"
    );
}

/// A VM that fits nowhere stays behind; that the host can not fail safely with it keeps no other VM there.
#[test]
fn a_host_that_can_not_fail_safely_is_emptied_of_whoever_can_leave() {
    let vms = [
        ("large", "h1", 5),
        ("web-0", "h1", 1),
        ("web-1", "h2", 1),
        ("web-2", "h3", 1),
    ];
    assert_eq!(held(&["h2", "h3"], &vms), BTreeMap::new());
}

#[test]
fn a_move_belongs_to_each_host_that_it_makes_room_for() {
    let step = |vm: &str, from: &str, after: &[&str]| {
        let step = Move {
            vm: vm.into(),
            from: from.into(),
            to: "h9".into(),
            start_ms: 0,
            end_ms: 1,
            bytes: 1,
            after: after.iter().map(|vm| VmUid::from(*vm)).collect(),
            reason: "r".to_owned(),
        };
        (Priority::Normal, step)
    };
    let moves = [
        step("a", "h1", &["c"]),
        step("b", "h2", &["c", "gone"]),
        step("c", "h3", &[]),
        step("d", "h2", &[]),
    ];
    let of = |places: &[usize]| places.iter().copied().collect::<BTreeSet<_>>();
    let wanted = [
        ("h1", of(&[0, 2])),
        ("h2", of(&[1, 2, 3])),
        ("h3", of(&[2])),
    ];
    let wanted = wanted.map(|(host, places)| (HostName::from(host), places));
    assert_eq!(by_host(&moves), BTreeMap::from(wanted));
}
