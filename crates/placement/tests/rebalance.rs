//! Rebalancing: every state legal, every move worth it, N+1 kept, and rest for who has moved.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{GIB, any_fleet, host, name, pool, uid, vm};
use model::{Architecture, HostName, Zone};
use placement::{
    EvacuationRequest, Failure, Fleet, Goal, Headroom, Mode, Rebalance, RebalanceRequest, Relation,
    Rules, Survival, headroom_report, lint, lint_plan, place, plan_evacuation, plan_rebalance,
    prove_headroom,
};
use proptest::prelude::*;

fn carried_out(fleet: &Fleet, answer: &Rebalance) -> Fleet {
    let mut after = fleet.clone();
    for step in &answer.plan.moves {
        after.vms.get_mut(&step.vm).unwrap().host = Some(step.to.clone());
    }
    after
}

/// Everything as far as possible on the first hosts.
fn crammed(mut fleet: Fleet) -> Fleet {
    for uid in fleet.vms.keys().cloned().collect::<Vec<_>>() {
        for name in fleet.hosts.keys().cloned().collect::<Vec<_>>() {
            let mut only = fleet.clone();
            only.hosts.retain(|other, _| *other == name);
            if place(&only, &uid, &BTreeSet::new()).is_ok() {
                fleet.vms.get_mut(&uid).unwrap().host = Some(name);
                break;
            }
        }
    }
    fleet.vms.retain(|_, vm| vm.host.is_some());
    fleet
}

/// How often a pool is evened out until nothing is left to gain, at the most: of 20,000 pools none needed more than four times.
const TIMES_MAX: usize = 12;

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![
        Just(Mode::Off),
        Just(Mode::Cautious),
        Just(Mode::Normal),
        Just(Mode::Eager)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn balance_is_legal_and_every_move_gains(
        fleet in any_fleet(6, 12),
        mode in mode(),
        moves_max in 0..6_usize,
        resting in proptest::collection::btree_set(0..12_usize, 0..4),
        promised in any::<bool>(),
    ) {
        let mut fleet = crammed(fleet);
        fleet.pools.get_mut("main").unwrap().failures_to_tolerate = u32::from(promised);
        let request = RebalanceRequest {
            mode,
            moves_max,
            moved_at_s: resting.into_iter().map(|index| (uid(index), 1_000)).collect(),
            now_s: 2_000,
            ..RebalanceRequest::new("main")
        };
        let answer = plan_rebalance(&fleet, &request);
        prop_assert_eq!(lint_plan(&fleet, &request.limits, &answer.plan), vec![]);
        let after = carried_out(&fleet, &answer);
        prop_assert_eq!(lint(&after).len(), lint(&fleet).len());
        prop_assert!(answer.gains.len() <= moves_max);
        prop_assert!(mode != Mode::Off || answer.gains.is_empty());
        for gain in &answer.gains {
            prop_assert!(!request.moved_at_s.contains_key(&gain.vm), "it rests");
            prop_assert!(gain.after_permille <= gain.before_permille);
        }
        if prove_headroom(&fleet, "main") == Headroom::Proven {
            prop_assert_eq!(prove_headroom(&after, "main"), Headroom::Proven);
        }
        // Not for ever: what was good enough is left alone the next time. Room that the moves of one time free is used the
        // next; each makes the pool more even, and soon nothing is left.
        let (mut fleet, mut before) = (after, answer.after_permille);
        let rests = (1..TIMES_MAX).any(|_| {
            let again = plan_rebalance(&fleet, &request);
            assert_eq!(again.before_permille, before);
            assert!(again.after_permille <= before, "{before} per mille, then {again:?}");
            (fleet, before) = (carried_out(&fleet, &again), again.after_permille);
            again.gains.is_empty()
        });
        prop_assert!(rests, "moves after {} times: {:?}", TIMES_MAX, plan_rebalance(&fleet, &request));
    }

    #[test]
    fn consolidation_empties_hosts_and_keeps_the_promise(fleet in any_fleet(6, 8), moves_max in 0..6_usize) {
        let fleet = crammed(fleet);
        let request = RebalanceRequest { goal: Goal::Consolidate(BTreeSet::new()), moves_max, ..RebalanceRequest::new("main") };
        let answer = plan_rebalance(&fleet, &request);
        prop_assert_eq!(lint_plan(&fleet, &request.limits, &answer.plan), vec![]);
        prop_assert!(answer.plan.moves.len() <= moves_max);
        prop_assert!(answer.emptied.len() >= one_by_one(&fleet, &request));
        let mut after = carried_out(&fleet, &answer);
        for name in &answer.emptied {
            prop_assert!(after.vms.values().all(|vm| vm.host.as_ref() != Some(name)));
            after.hosts.remove(name);
        }
        if prove_headroom(&fleet, "main") == Headroom::Proven {
            prop_assert_eq!(prove_headroom(&after, "main"), Headroom::Proven);
        }
    }
}

/// Hosts whose failure is not survived, where that is promised.
fn broken(fleet: &Fleet) -> BTreeSet<HostName> {
    let report = headroom_report(fleet, "main").unwrap();
    let promised = report.headroom != Headroom::NotPromised;
    let hosts = report.hosts.into_iter().filter(|_| promised);
    let hosts = hosts.filter_map(|report| match (report.failure, report.survival) {
        (Failure::Host(name), Survival::Broken(_) | Survival::Unknown) => Some(name),
        _ => None,
    });
    hosts.collect()
}

/// How many hosts are emptied one by one, the least loaded first: each if the schedule of an evacuation empties it too,
/// within the moves that are allowed, and N+1 is not worse without it.
fn one_by_one(fleet: &Fleet, request: &RebalanceRequest) -> usize {
    let before = broken(fleet);
    let used = |name: &HostName| {
        let there = fleet
            .vms
            .values()
            .filter(|vm| vm.places().any(|at| at == name));
        there.map(|vm| vm.memory_bytes).sum::<u64>()
    };
    let open = fleet
        .hosts
        .iter()
        .filter(|(_, host)| host.pool == "main" && host.closed.is_none());
    let mut order: Vec<(u64, &HostName)> = open.map(|(name, _)| (used(name), name)).collect();
    order.sort();
    let mut emptied = BTreeSet::new();
    for (_, name) in order {
        let mut hosts = emptied.clone();
        hosts.insert(name.clone());
        let plan = plan_evacuation(
            fleet,
            &EvacuationRequest {
                hosts: hosts.clone(),
                ..EvacuationRequest::default()
            },
        );
        let mut after = fleet.clone();
        for step in &plan.moves {
            after.vms.get_mut(&step.vm).unwrap().host = Some(step.to.clone());
        }
        after.hosts.retain(|name, _| !hosts.contains(name));
        let moves = plan.stuck.is_empty()
            && plan.leaving.is_empty()
            && plan.moves.len() <= request.moves_max;
        if moves && broken(&after).is_subset(&before) {
            emptied = hosts;
        }
    }
    emptied.len()
}

/// Emptying the host with the least on it takes a piece of both holes that two others would need whole.
fn least_loaded_is_in_the_way() -> Fleet {
    let mut fleet = plain(6);
    for (index, memory) in [14, 15, 15, 42, 42, 36].into_iter().enumerate() {
        fleet.hosts.get_mut(&name(index)).unwrap().memory_bytes = memory * GIB;
    }
    fleet.pools.get_mut("main").unwrap().failures_to_tolerate = 0;
    let sizes = [
        (0, 7),
        (0, 7),
        (1, 6),
        (1, 6),
        (1, 3),
        (2, 6),
        (2, 6),
        (2, 3),
        (3, 30),
        (4, 30),
        (5, 30),
    ];
    for (index, (at, memory)) in sizes.into_iter().enumerate() {
        let mut new = vm(&format!("v{index}"), 1, memory);
        new.host = Some(name(at));
        fleet.vms.insert(uid(index), new.into());
    }
    fleet
}

#[test]
fn the_search_empties_more_where_one_by_one_fails() {
    let fleet = least_loaded_is_in_the_way();
    let request = RebalanceRequest {
        goal: Goal::Consolidate(BTreeSet::new()),
        ..RebalanceRequest::new("main")
    };
    assert_eq!(one_by_one(&fleet, &request), 1);
    let answer = plan_rebalance(&fleet, &request);
    assert_eq!(
        answer.emptied,
        BTreeSet::from([name(1), name(2)]),
        "{}",
        answer.why
    );
    assert_eq!(lint_plan(&fleet, &request.limits, &answer.plan), vec![]);
    assert_eq!(answer.plan.moves.len(), 6);
    assert_eq!(
        plan_rebalance(&fleet, &request),
        answer,
        "one seed, one plan"
    );
    // Within the moves that are allowed: two suffice for the host that is emptied alone.
    let few = RebalanceRequest {
        moves_max: 5,
        ..request.clone()
    };
    assert_eq!(
        plan_rebalance(&fleet, &few).emptied,
        BTreeSet::from([name(0)])
    );
    // Of hosts that are named, each that stays is told why.
    let named = RebalanceRequest {
        goal: Goal::Consolidate((0..3).map(name).collect()),
        ..request.clone()
    };
    assert_eq!(
        plan_rebalance(&fleet, &named).why,
        "2 hosts can be emptied; h0 stays: so more hosts can be emptied"
    );
    // Who may not move now keeps the search away, not only the first way.
    let fixed = RebalanceRequest {
        fixed: BTreeSet::from([uid(2)]),
        ..request
    };
    assert_eq!(
        plan_rebalance(&fleet, &fixed).emptied,
        BTreeSet::from([name(0)])
    );
}

fn plain(hosts: usize) -> Fleet {
    let mut fleet = Fleet::default();
    fleet.pools.insert(
        "main".into(),
        pool(Architecture::x86_64, &[Zone::Common], 3),
    );
    for index in 0..hosts {
        fleet.hosts.insert(name(index), host("main", 64, 64));
    }
    fleet
}

#[test]
fn one_crowded_host_gives_to_the_others() {
    let mut fleet = plain(3);
    for index in 0..9 {
        let mut new = vm("v", 4, 4);
        new.host = Some(name(0));
        fleet.vms.insert(uid(index), new.into());
    }
    let request = RebalanceRequest {
        mode: Mode::Eager,
        ..RebalanceRequest::new("main")
    };
    let answer = plan_rebalance(&fleet, &request);
    let mut count = BTreeMap::new();
    for vm in carried_out(&fleet, &answer).vms.values() {
        *count.entry(vm.host.clone().unwrap()).or_insert(0) += 1;
    }
    assert_eq!(count.values().copied().collect::<Vec<_>>(), [3, 3, 3]);
    assert_eq!((answer.gains.len(), answer.after_permille), (6, 0));
    assert_eq!(answer.why, "6 moves gain enough");
}

/// Its pool promises less than before: what is above its capacity is to go as well, and each move says what it gains.
#[test]
fn a_host_that_is_promised_more_than_it_has_gives_until_all_are_alike() {
    let mut fleet = plain(4);
    for host in fleet.hosts.values_mut() {
        host.cpu = 16;
    }
    fleet.pools.get_mut("main").unwrap().failures_to_tolerate = 0;
    for index in 0..12 {
        let mut new = vm(&format!("v{index}"), 4, 4);
        new.host = Some(name(0));
        fleet.vms.insert(uid(index), new.into());
    }
    let request = RebalanceRequest {
        mode: Mode::Eager,
        moves_max: 20,
        ..RebalanceRequest::new("main")
    };
    let answer = plan_rebalance(&fleet, &request);
    // CPU 3,000 per mille of h0 and 750 of the pool, memory 750 and 187.
    assert_eq!((answer.before_permille, answer.after_permille), (946, 0));
    let after = carried_out(&fleet, &answer);
    let mut count = BTreeMap::new();
    for vm in after.vms.values() {
        *count.entry(vm.host.clone().unwrap()).or_insert(0) += 1;
    }
    assert_eq!(count.values().copied().collect::<Vec<_>>(), [3, 3, 3, 3]);
    let again = plan_rebalance(&after, &request);
    assert_eq!(again.before_permille, answer.after_permille);
}

#[test]
fn a_calm_pool_is_left_alone() {
    let mut fleet = plain(3);
    for index in 0..3 {
        let mut new = vm("v", 4, 4);
        new.host = Some(name(index));
        fleet.vms.insert(uid(index), new.into());
    }
    let answer = plan_rebalance(&fleet, &RebalanceRequest::new("main"));
    assert_eq!((answer.plan.moves.len(), answer.before_permille), (0, 0));
    assert_eq!(answer.why, "imbalance of 0 per mille is not worth a move");
}

#[test]
fn consolidation_leaves_one_host_to_spare() {
    let mut fleet = plain(4);
    for index in 0..4 {
        let mut new = vm("v", 4, 16);
        new.host = Some(name(index));
        fleet.vms.insert(uid(index), new.into());
    }
    let request = RebalanceRequest {
        goal: Goal::Consolidate(BTreeSet::new()),
        ..RebalanceRequest::new("main")
    };
    let answer = plan_rebalance(&fleet, &request);
    // Four of 16 GiB fit on one host of 64 GiB; a second must be there to take over.
    assert_eq!(
        (answer.emptied.len(), answer.why.as_str()),
        (2, "2 hosts can be emptied")
    );
}

#[test]
fn two_vms_change_places_where_no_single_move_helps() {
    let mut fleet = plain(2);
    for host in fleet.hosts.values_mut() {
        (host.cpu, host.memory_bytes) = (128, 128 * GIB);
    }
    for (index, (size, at)) in [(30, 0), (30, 0), (24, 1), (24, 1)].into_iter().enumerate() {
        let mut new = vm(&format!("v{index}"), size, size);
        new.host = Some(name(at));
        fleet.vms.insert(uid(index), new.into());
    }
    let request = RebalanceRequest {
        mode: Mode::Set {
            imbalance_permille: 10,
            gain_percent: 3,
        },
        ..RebalanceRequest::new("main")
    };
    let answer = plan_rebalance(&fleet, &request);
    assert_eq!((answer.before_permille, answer.after_permille), (46, 0));
    assert_eq!(answer.plan.moves.len(), 2, "{}", answer.why);
    assert_eq!(lint_plan(&fleet, &request.limits, &answer.plan), vec![]);
    for step in &answer.plan.moves {
        assert!(
            step.reason.starts_with("in exchange for n/v"),
            "{}",
            step.reason
        );
    }
    assert_eq!(
        plan_rebalance(&fleet, &request),
        answer,
        "one seed, one plan"
    );
    // One move is half an exchange, and makes it worse.
    let one = RebalanceRequest {
        moves_max: 1,
        ..request
    };
    assert_eq!(plan_rebalance(&fleet, &one).plan.moves, vec![]);
}

#[test]
fn balance_breaks_no_wish_about_other_vms() {
    let mut fleet = plain(3);
    let wish = |group: &str| BTreeSet::from([Relation::every(group)]);
    let near = Rules {
        rather_together: wish("near"),
        ..Rules::default()
    };
    let far = Rules {
        rather_apart: wish("far"),
        ..Rules::default()
    };
    let vms = [
        ("database", 0, near.clone()),
        ("cache", 0, near),
        ("far-1", 0, far.clone()),
        ("far-2", 1, far),
        ("plain-1", 0, Rules::default()),
        ("plain-2", 0, Rules::default()),
    ];
    for (index, (label, at, rules)) in vms.into_iter().enumerate() {
        let mut new = vm(label, 8, 8);
        (new.host, new.rules) = (Some(name(at)), rules);
        fleet.vms.insert(uid(index), new.into());
    }
    let request = RebalanceRequest {
        mode: Mode::Eager,
        ..RebalanceRequest::new("main")
    };
    let answer = plan_rebalance(&fleet, &request);
    assert!(
        answer.after_permille < answer.before_permille,
        "{}",
        answer.why
    );
    for step in &answer.plan.moves {
        let moved = fleet.vms[&step.vm].name.name.as_str();
        assert!(
            !["database", "cache"].contains(&moved),
            "{moved} leaves the other"
        );
        assert!(
            moved != "far-1" || step.to != name(1),
            "{moved} joins far-2"
        );
    }
}

#[test]
fn hosts_with_nothing_and_with_more_than_exists_are_no_panic() {
    let mut fleet = plain(4);
    for (index, size) in [(0, 0), (1, u64::MAX)] {
        let odd = fleet.hosts.get_mut(&name(index)).unwrap();
        (odd.cpu, odd.memory_bytes) = (size, size);
    }
    for index in 0..6 {
        let mut new = vm(&format!("v{index}"), 4, 8);
        new.host = Some(name(index % 4));
        fleet.vms.insert(uid(index), new.into());
    }
    let mut endless = vm("endless", 1, 1);
    (endless.cpu, endless.memory_bytes, endless.host) = (u64::MAX, u64::MAX, Some(name(2)));
    fleet.vms.insert(uid(9), endless.into());
    for goal in [Goal::Balance, Goal::Consolidate(BTreeSet::new())] {
        let request = RebalanceRequest {
            goal,
            mode: Mode::Eager,
            ..RebalanceRequest::new("main")
        };
        let answer = plan_rebalance(&fleet, &request);
        assert_eq!(
            lint_plan(&fleet, &request.limits, &answer.plan),
            vec![],
            "{}",
            answer.why
        );
    }
}
