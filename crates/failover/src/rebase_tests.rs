use std::collections::BTreeSet;

use super::*;
use crate::agent::freeze::{ApiMemory, SiteWord, Step, went_back};

fn right(host: &str, epoch: i64) -> Assignment {
    Assignment {
        host: host.into(),
        boot_id: format!("{host}-b1").as_str().into(),
        epoch: Epoch(epoch),
    }
}

fn rights(vm: &str, current: Option<Assignment>, last: i64) -> Rights {
    Rights {
        assignment: current,
        last_epoch: Epoch(last),
        ..Rights::none(vm.into())
    }
}

fn copy(vm: &str, epoch: i64, runs: bool) -> SeenCopy {
    SeenCopy {
        vm: vm.into(),
        name: format!("dept/{vm}"),
        epoch: Epoch(epoch),
        runs,
    }
}

fn word(host: &str, copies: Vec<SeenCopy>, highest: i64) -> (HostName, HostSaid) {
    let word = HostWord {
        boot_id: format!("{host}-b1").as_str().into(),
        copies,
        highest: Epoch(highest),
    };
    (host.into(), HostSaid::Heard(word))
}

fn plan(vms: &[Rights], hosts: Vec<(HostName, HostSaid)>) -> Result<RebasePlan, Vec<Obstacle>> {
    rebase(vms, &hosts.into_iter().collect(), None, 0)
}

#[test]
fn the_copy_that_runs_becomes_the_assignment_and_epochs_leap_over_all_that_was_seen() {
    let vms = [rights("v", Some(right("h1", 5)), 5)];
    let hosts = vec![
        word("h1", vec![], 5),
        word("h2", vec![copy("v", 9, true)], 12),
    ];
    let plan = plan(&vms, hosts).expect("everybody was heard");
    let after = plan.changes[0].after();
    assert_eq!(after.assignment, Some(right("h2", 9)));
    assert_eq!(after.last_epoch, Epoch(1_000_000));
    let next = crate::assignment::begin_migration(after, "h1".into(), "h1-b1".into());
    assert_eq!(
        next.expect("may move").after().last_epoch,
        Epoch(1_000_001),
        "the next epoch is above all that was seen"
    );
}

#[test]
fn a_vm_that_runs_nowhere_keeps_its_right_for_the_ordinary_proofs() {
    let vms = [rights("v", Some(right("h1", 5)), 5), rights("w", None, 0)];
    let plan = plan(&vms, vec![word("h1", vec![], 7)]).expect("heard");
    assert_eq!(plan.changes[0].after().assignment, Some(right("h1", 5)));
    assert!(
        plan.changes
            .iter()
            .all(|change| change.after().last_epoch == plan.floor)
    );
}

#[test]
fn both_sides_of_a_move_stand_again() {
    let vms = [rights("v", Some(right("h3", 2)), 2)];
    let hosts = vec![
        word("h1", vec![copy("v", 7, true)], 7),
        word("h2", vec![copy("v", 8, false)], 8),
        word("h3", vec![], 2),
    ];
    let plan = plan(&vms, hosts).expect("heard");
    let after = plan.changes[0].after();
    assert_eq!(
        (after.assignment.clone(), after.incoming.clone()),
        (Some(right("h1", 7)), Some(right("h2", 8)))
    );
}

#[test]
fn a_copy_that_arrived_without_its_source_is_not_adopted() {
    let vms = [rights("v", Some(right("h1", 5)), 5)];
    let plan = plan(
        &vms,
        vec![
            word("h1", vec![], 7),
            word("h2", vec![copy("v", 8, false)], 8),
        ],
    );
    let after = plan.expect("heard").changes[0].after().clone();
    assert_eq!(
        (after.assignment, after.incoming),
        (Some(right("h1", 5)), None)
    );
}

#[test]
fn every_host_must_be_heard_or_be_off_now() {
    let vms = [rights("v", Some(right("h1", 5)), 5)];
    let silent = plan(
        &vms,
        vec![word("h1", vec![], 5), ("h2".into(), HostSaid::Silent)],
    );
    assert_eq!(silent, Err(vec![Obstacle::Unheard("h2".into())]));
    let retired = BTreeSet::from(["h2-b0".into()]);
    let rebooted =
        HostStopProof::rebooted(&"h2".into(), &"h2-b0".into(), &"h2-b1".into(), &retired)
            .expect("a proof");
    let old = plan(
        &vms,
        vec![
            word("h1", vec![], 5),
            ("h2".into(), HostSaid::Off(rebooted)),
        ],
    );
    assert_eq!(
        old,
        Err(vec![Obstacle::Unheard("h2".into())]),
        "that an old boot is dead says nothing about the host now"
    );
}

#[test]
fn two_copies_that_run_are_left_to_a_person() {
    let vms = [rights("v", Some(right("h1", 5)), 5)];
    let hosts = vec![
        word("h1", vec![copy("v", 5, true)], 5),
        word("h2", vec![copy("v", 9, true)], 9),
    ];
    assert!(matches!(
        plan(&vms, hosts).expect_err("two").as_slice(),
        [Obstacle::TwoCopies { .. }]
    ));
}

#[test]
fn a_copy_whose_vm_is_unknown_is_left_to_a_person() {
    let answer = plan(&[], vec![word("h1", vec![copy("v", 5, true)], 5)]);
    assert!(matches!(
        answer.expect_err("unknown").as_slice(),
        [Obstacle::Unknown { .. }]
    ));
}

/// A damaged ledger, or a hostile agent: its number would leave none for the next start.
#[test]
fn epochs_from_the_future_are_no_floor() {
    let vms = [rights("v", Some(right("h1", 5)), 5)];
    for epoch in [i64::MAX, 1_000_000_000_000_001] {
        for word in [
            word("h1", vec![], epoch),
            word("h1", vec![copy("v", epoch, true)], 5),
        ] {
            let hosts: BTreeMap<_, _> = [word].into();
            let obstacles = rebase(&vms, &hosts, None, 0).expect_err("absurd");
            let [Obstacle::Absurd { host, .. }] = obstacles.as_slice() else {
                panic!("{obstacles:?}");
            };
            assert_eq!(host, &HostName::from("h1"));
        }
    }
    let hosts: BTreeMap<_, _> = [word("h1", vec![], i64::MIN)].into();
    let plan = rebase(&vms, &hosts, None, 0).expect("a number below zero says nothing");
    assert_eq!(plan.floor, Epoch(1_000_000));
}

/// Restored twice, the second time to before the first rebase, and every host has booted since: nobody remembers the epochs
/// that the first one gave out.
#[test]
fn a_rebase_that_nobody_remembers_is_stepped_over_by_time() {
    let vms = [rights("v", None, 5)];
    let hosts: BTreeMap<_, _> = [word("h1", vec![], 5)].into();
    let at = |wall| rebase(&vms, &hosts, None, wall).expect("heard").floor;
    assert!(at(1_790_000_060_000) > Epoch(at(1_790_000_000_000).0 + 1));
    // A clock that is wrong takes nothing away, and leaves numbers for every later rebase.
    assert_eq!(at(-1), Epoch(1_000_000));
    assert_eq!(at(i64::MAX), Epoch(500_000_000_000_000));
}

#[test]
fn a_rebase_that_was_interrupted_ends_as_it_began() {
    let vms = [rights("v", Some(right("h1", 5)), 5), rights("w", None, 3)];
    let hosts: BTreeMap<_, _> = [word("h1", vec![copy("v", 6, true)], 6)].into();
    let first = rebase(&vms, &hosts, None, 0).expect("heard");
    let half = [first.changes[0].after().clone(), vms[1].clone()];
    let second = rebase(&half, &hosts, Some(first.floor), 7).expect("heard");
    assert_eq!(second.changes.len(), 1, "only what is left");
    assert_eq!(second.changes[0].after(), first.changes[1].after());
}

fn site(frozen: bool, rebase: &str) -> SiteWord {
    SiteWord {
        frozen,
        rebase: rebase.to_owned(),
    }
}

fn see(memory: &mut ApiMemory, version: u64) -> bool {
    let begun = memory.begin();
    memory.see(version, &begun)
}

#[test]
fn answers_that_overtake_each_other_show_no_restore() {
    let mut memory = ApiMemory::default();
    assert!(see(&mut memory, 90));
    let (first, second) = (memory.begin(), memory.begin());
    assert!(memory.see(101, &second));
    assert!(memory.see(100, &first), "it was begun at 90");
    let third = memory.begin();
    assert!(!memory.see(100, &third), "it was begun at 101");
}

#[test]
fn a_read_that_was_begun_before_a_rebase_shows_no_restore() {
    let mut memory = ApiMemory::default();
    assert!(see(&mut memory, 90));
    let before = memory.begin();
    memory.thaw(40, "r1", Epoch(0));
    assert!(memory.see(41, &before));
}

#[test]
fn an_agent_freezes_once_versions_fall_and_thaws_only_on_another_rebase() {
    let mut memory = ApiMemory::default();
    assert!(see(&mut memory, 10) && see(&mut memory, 10) && see(&mut memory, 12));
    assert!(!see(&mut memory, 11), "it went back");
    assert!(
        !see(&mut memory, 50),
        "it stays frozen however far the API comes"
    );
    assert_eq!(memory.step(&site(false, "r0")), Step::Report);
    assert_eq!(
        memory.step(&site(false, "r0")),
        Step::Report,
        "the site has not heard of it yet"
    );
    assert_eq!(memory.step(&site(true, "r0")), Step::Report);
    assert_eq!(memory.step(&site(false, "r1")), Step::Settle);
    memory.thaw(51, "r1", Epoch(1_000_007));
    assert_eq!(memory.epochs, Epoch(1_000_007));
    assert_eq!(memory.step(&site(false, "r1")), Step::Act);
    assert!(see(&mut memory, 51));
}

/// Simulation seed 12428: a host hung through a rebase, and etcd was restored again.
#[test]
fn a_host_that_missed_a_rebase_answers_for_the_freeze_that_stands() {
    let mut memory = ApiMemory::default();
    assert!(see(&mut memory, 10) && !see(&mut memory, 9));
    assert_eq!(memory.step(&site(true, "")), Step::Report);
    assert_eq!(memory.step(&site(true, "r1")), Step::Report);
    let named = |memory: &ApiMemory| memory.freeze.clone().expect("frozen").rebase;
    assert_eq!(named(&memory), Some("r1".to_owned()));
    assert_eq!(memory.step(&site(false, "r2")), Step::Settle);
}

#[test]
fn a_freeze_does_not_end_because_etcd_forgot_a_rebase() {
    let mut memory = ApiMemory::default();
    assert_eq!(memory.step(&site(false, "r1")), Step::Act);
    assert_eq!(memory.step(&site(true, "r1")), Step::Report);
    assert_eq!(
        memory.step(&site(false, "")),
        Step::Report,
        "etcd was restored, not rebased"
    );
    assert_eq!(memory.step(&site(false, "r0")), Step::Settle);
}

/// The wrong backup was restored first, then a younger one that holds a rebase of before.
#[test]
fn a_rebase_that_a_host_acted_by_before_does_not_end_its_freeze() {
    let mut memory = ApiMemory::default();
    assert_eq!(memory.step(&site(false, "r1")), Step::Act);
    assert_eq!(memory.step(&site(false, "")), Step::Report);
    assert_eq!(memory.step(&site(true, "")), Step::Report);
    assert_eq!(
        memory.step(&site(false, "r1")),
        Step::Report,
        "etcd was restored again, not rebased"
    );
    let named = memory.freeze.clone().expect("frozen").rebase;
    assert_eq!(named, Some("r1".to_owned()), "it answers for this freeze");
    assert_eq!(memory.step(&site(true, "r1")), Step::Report);
    assert_eq!(memory.step(&site(false, "r2")), Step::Settle);
}

/// The younger backup holds the last rebase but one.
#[test]
fn no_rebase_that_a_host_ever_acted_by_ends_its_freeze() {
    let mut memory = ApiMemory::default();
    for rebase in ["r1", "r2"] {
        assert_eq!(
            memory.step(&site(true, memory.rebase.clone().as_str())),
            Step::Report
        );
        assert_eq!(memory.step(&site(false, rebase)), Step::Settle);
        memory.thaw(1, rebase, Epoch(1));
    }
    assert_eq!(memory.step(&site(false, "")), Step::Report);
    assert_eq!(memory.step(&site(false, "r1")), Step::Report);
    assert_eq!(memory.step(&site(false, "r2")), Step::Report);
    assert_eq!(memory.step(&site(true, "r2")), Step::Report);
    assert_eq!(memory.step(&site(false, "r3")), Step::Settle);
}

#[test]
fn an_agent_that_noticed_nothing_freezes_with_the_site() {
    let mut memory = ApiMemory::default();
    see(&mut memory, 10);
    assert_eq!(memory.step(&site(true, "r0")), Step::Report);
    assert_eq!(memory.step(&site(false, "r1")), Step::Settle);
}

#[test]
fn an_api_that_forgot_a_rebase_freezes_though_its_versions_grow() {
    let mut memory = ApiMemory::default();
    assert!(see(&mut memory, 10));
    assert_eq!(memory.step(&site(false, "r2")), Step::Act);
    assert!(see(&mut memory, 11));
    assert_eq!(memory.step(&site(false, "r1")), Step::Report);
    assert_eq!(memory.step(&site(false, "r3")), Step::Settle);
}

#[test]
fn a_word_in_a_lease_counts_above_its_version_and_not_from_before_a_rebase() {
    let mut memory = ApiMemory::default();
    assert_eq!(memory.word(), None);
    see(&mut memory, 40);
    let word = memory.word().expect("it acts");
    assert!(!went_back(&word, 41, ""), "a renewal follows what was seen");
    assert!(went_back(&word, 30, ""));
    assert!(
        !went_back(&word, 30, "r1"),
        "a dead host's last word is old"
    );
    for garbage in ["", "x", "-1 r", "99999999999999999999 r"] {
        assert!(!went_back(garbage, 1, ""), "{garbage}");
    }
    see(&mut memory, 30);
    assert_eq!(memory.word(), None, "a frozen host says so itself");
}

#[test]
fn an_epoch_above_the_apis_freezes() {
    let mut memory = ApiMemory::default();
    assert!(memory.see_epoch(&"v".into(), Epoch(5), Epoch(5)));
    assert!(!memory.see_epoch(&"v".into(), Epoch(6), Epoch(5)));
    assert!(memory.freeze.is_some());
}
