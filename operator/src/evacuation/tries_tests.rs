//! What counts as a try, and until when.

use serde_json::{Value, json};

use super::*;
use crate::context_in_memory::{host, migration, vm};
use crate::evacuation::Moves;

const BEGAN: &str = "2026-01-01T01:00:00Z";

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn failed(index: usize, phase: &str, cancel: bool, at: &str) -> Arc<VirtualMachineMigration> {
    let status = json!({"phase": phase, "finishedAt": at, "message": format!("said {index}")});
    let labels = json!({"labels": {api::names::LABEL_EVACUATES: "h1"}});
    let name = format!("web-e1-{index}");
    migration(&name, "web", labels, json!({"cancel": cancel}), status)
}

#[test]
fn pauses_grow_and_begin_anew_when_a_person_asks() {
    let policy = Policy::default();
    let moves: Vec<_> = (0..3)
        .map(|index| {
            failed(
                index,
                "Failed",
                false,
                &format!("2026-01-01T02:00:0{index}Z"),
            )
        })
        .collect();
    let former = |count: usize| moves.iter().take(count).collect::<Vec<_>>();
    for (count, second) in [(1, 5), (2, 11), (3, 22)] {
        let at =
            |second: i64| time("2026-01-01T02:00:00Z") + jiff::SignedDuration::from_secs(second);
        let waits = pause(&former(count), None, None, &policy, at(second - 1)).expect("a pause");
        assert!(waits.contains(&format!("said {}", count - 1)), "{waits}");
        assert_eq!(pause(&former(count), None, None, &policy, at(second)), None);
    }
    let asked = Some(time("2026-01-01T02:01:00Z"));
    let now = time("2026-01-01T02:01:00Z");
    assert_eq!(pause(&former(3), None, asked, &policy, now), None);
}

#[test]
fn what_was_cancelled_is_no_failure_and_what_found_no_place_is() {
    let at = "2026-01-01T02:00:00Z";
    assert!(came_to_nothing(&failed(0, "Failed", false, at)));
    assert!(came_to_nothing(&failed(0, "Cancelled", false, at)));
    assert!(!came_to_nothing(&failed(0, "Cancelled", true, at)));
    assert!(!came_to_nothing(&failed(0, "Succeeded", false, at)));
    assert!(!came_to_nothing(&failed(0, "Pending", false, at)));
}

#[test]
fn tries_count_from_the_latest_of_what_changed() {
    let running = |asked: Value| {
        let maintenance = json!({"reason": "fans", "evacuate": true, "askedAt": asked});
        let evacuation = json!({"phase": "Running", "startedAt": BEGAN});
        host("h1", maintenance, evacuation)
    };
    let opens = |at: &str, status: &str| {
        let mut other = host("h2", Value::Null, Value::Null).as_ref().clone();
        let condition = json!({"type": "Schedulable", "status": status, "reason": "r", "message": "",
            "lastTransitionTime": at});
        let condition = serde_json::from_value(condition).expect("a condition");
        other.status.as_mut().expect("a status").conditions = vec![condition];
        Arc::new(other)
    };
    let from = |host: &Host, others: &[Arc<Host>]| counts_from(host, others);
    let quiet = running(Value::Null);
    assert_eq!(from(&quiet, &[]), Some(time(BEGAN)));
    let later = "2026-01-01T02:00:00Z";
    assert_eq!(from(&running(json!(later)), &[]), Some(time(later)));
    assert_eq!(from(&quiet, &[opens(later, "True")]), Some(time(later)));
    assert_eq!(from(&quiet, &[opens(later, "False")]), Some(time(BEGAN)));
    let ended = host(
        "h1",
        Value::Null,
        json!({"phase": "Done", "startedAt": BEGAN}),
    );
    assert_eq!(from(&ended, &[]), None, "the next one counts anew");
}

#[test]
fn after_so_many_tries_under_one_epoch_a_vm_stays_with_the_last_reason() {
    let policy = Policy::default();
    let most = usize::try_from(policy.start_attempts).expect("a few");
    let from = BTreeMap::from([(HostName::from("h1"), time(BEGAN))]);
    let one = |index| {
        failed(
            index,
            "Failed",
            false,
            &format!("2026-01-01T02:{index:02}:00Z"),
        )
    };
    let told = |count: usize, vm: Arc<VirtualMachine>| {
        let moves: Vec<_> = (0..count).map(one).collect();
        exhausted(&[vm], (&moves, &Refusals::default()), &from, &policy)
    };
    let web = || vm("web", "Normal", "h1", json!({}));
    assert_eq!(told(most - 1, web()), BTreeMap::new());
    let stays = told(most, web());
    let why = &stays[&VmUid::from("web")];
    assert!(why.contains(&format!("said {}", most - 1)), "{why}");
    let anew = json!({"assignment": {"host": "h1", "bootId": "b", "epoch": 2}});
    assert_eq!(told(most, vm("web", "Normal", "h1", anew)), BTreeMap::new());
}

#[test]
fn what_the_api_server_does_not_take_is_a_try() {
    let policy = Policy::default();
    let (host, web) = (HostName::from("h1"), vm("web", "Normal", "h1", json!({})));
    let began = Some(time(BEGAN));
    let mut refusals = Refusals::default();
    let at = |second: i64| time("2026-01-01T02:00:00Z") + jiff::SignedDuration::from_secs(second);
    for second in 1..i64::from(policy.start_attempts) {
        let told = refusals.note(&web, (&host, began), "denied", at(second));
        let told = told.expect("a sentence");
        assert!(told.contains(&format!("failed {second} times")), "{told}");
        assert!(told.contains("denied"), "{told}");
    }
    let refused = refusals.of(&web, "web-e1-", &host, began);
    assert!(pause(&[], refused, began, &policy, at(5)).is_some());
    assert_eq!(pause(&[], refused, began, &policy, at(9_999)), None);
    let from = |at| BTreeMap::from([(host.clone(), at)]);
    let stays = |refusals: &Refusals, moves: &[_], at| {
        !exhausted(
            std::slice::from_ref(&web),
            (moves, refusals),
            &from(at),
            &policy,
        )
        .is_empty()
    };
    // One more, of either kind, is one too many.
    let moves = [failed(0, "Failed", false, "2026-01-01T02:00:00Z")];
    assert!(!stays(&refusals, &[], time(BEGAN)));
    assert!(stays(&refusals, &moves, time(BEGAN)));
    refusals.note(&web, (&host, began), "denied", at(60));
    assert!(stays(&refusals, &[], time(BEGAN)));
    // A person asked anew; then another epoch.
    let asked = at(120);
    assert!(!stays(&refusals, &[], asked));
    let told = refusals.note(&web, (&host, Some(asked)), "denied", at(121));
    assert!(told.is_some_and(|told| told.contains("failed 1 times")));
    assert!(refusals.of(&web, "web-e2-", &host, None).is_none());
    refusals.retain(&[]);
    assert!(refusals.of(&web, "web-e1-", &host, None).is_none());
}

#[test]
fn a_move_has_the_number_after_the_highest_there_is() {
    let web = vm("web", "Normal", "h1", json!({}));
    let of = |name: &str, vm: &str| migration(name, vm, json!({}), json!({}), json!({}));
    let moves = [
        of("web-e1-1", "web"),
        of("web-e1-4", "another"),
        of("web-e1-mine", "web"),
        of("web-e2-9", "web"),
    ];
    assert_eq!(Moves::of(&[]).next(&web, "web-e1-"), 0);
    assert_eq!(Moves::of(&moves[..1]).next(&web, "web-e1-"), 2);
    assert_eq!(Moves::of(&moves).next(&web, "web-e1-"), 5);
    assert_eq!(Moves::of(&moves).of_vm(&web).len(), 3);
}
