//! Evacuation plans: every state on the way legal, everybody accounted for, stuck VMs truly
//! without a place, and the end close to what no schedule can beat.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{GIB, any_fleet, host, name, pool, uid, vm};
use model::{Architecture, HostName, Priority, VmUid, Zone};
use placement::{
    EvacuationRequest, Fleet, Limits, Move, Plan, PlanFault, Rules, Violation, lint, lint_plan,
    place, plan_evacuation,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// Places what it can, so that a fleet has something to move.
fn settled(mut fleet: Fleet) -> Fleet {
    for uid in fleet.vms.keys().cloned().collect::<Vec<_>>() {
        if let Ok(choice) = place(&fleet, &uid, &BTreeSet::new()) {
            fleet.vms.get_mut(&uid).unwrap().host = Some(choice.host);
        }
    }
    fleet
}

/// Whether all of these VMs can be placed on other hosts, by trying everything.
fn possible(fleet: &Fleet, waiting: &[VmUid], request: &EvacuationRequest) -> bool {
    let Some((first, rest)) = waiting.split_first() else {
        return true;
    };
    let open = |name: &HostName| {
        let host = &fleet.hosts[name];
        host.closed.is_none() && !request.hosts.contains(name)
    };
    fleet.hosts.keys().filter(|name| open(name)).any(|name| {
        let mut tried = fleet.clone();
        tried.vms.get_mut(first).unwrap().host = Some(name.clone());
        lint(&tried).is_empty() && possible(&tried, rest, request)
    })
}

fn accounted(fleet: &Fleet, request: &EvacuationRequest) -> Result<(), TestCaseError> {
    let plan = plan_evacuation(fleet, request);
    prop_assert_eq!(lint_plan(fleet, &request.limits, &plan), vec![]);
    prop_assert_eq!(
        &plan_evacuation(fleet, request),
        &plan,
        "same input, same plan"
    );
    let mut after = fleet.clone();
    for step in &plan.moves {
        prop_assert!(!request.hosts.contains(&step.to));
        let stays = request.fixed.contains_key(&step.vm) || request.idle.contains(&step.vm);
        prop_assert!(!stays, "{} can not move", step.vm);
        after.vms.get_mut(&step.vm).unwrap().host = Some(step.to.clone());
    }
    let stuck: BTreeSet<_> = plan.stuck.iter().map(|stuck| &stuck.vm).collect();
    for (uid, vm) in &after.vms {
        let remains = vm
            .host
            .as_ref()
            .is_some_and(|host| request.hosts.contains(host));
        let idle = request.idle.contains(uid);
        prop_assert_eq!(remains && !idle, stuck.contains(uid), "{}", uid);
        prop_assert_eq!(remains && idle, plan.idle.contains(uid), "{}", uid);
    }
    // Who is stuck has no place left, with everybody else moved and none of the hosts open.
    for name in &request.hosts {
        after.hosts.get_mut(name).unwrap().closed = Some("is being emptied".into());
    }
    for stuck in &plan.stuck {
        if let (Some(why), None) = (
            request.fixed.get(&stuck.vm),
            &fleet.vms[&stuck.vm].pinned_to,
        ) {
            prop_assert_eq!(&stuck.why, why);
            continue;
        }
        prop_assert!(place(&after, &stuck.vm, &BTreeSet::new()).is_err());
        prop_assert!(!stuck.why.is_empty());
    }
    // People are told names.
    let reasons = plan.moves.iter().map(|step| &step.reason);
    for told in reasons.chain(plan.stuck.iter().map(|stuck| &stuck.why)) {
        let mut words = told.split(|letter: char| !letter.is_alphanumeric());
        let shown = words.find(|word| fleet.vms.contains_key(&VmUid((*word).to_owned())));
        prop_assert_eq!(shown, None, "{}", told);
    }
    prop_assert!(plan.end_ms >= plan.bound_ms);
    // Where all that may move could find a place with nobody else moved, none is stuck.
    let waiting: Vec<VmUid> = (fleet.vms.iter())
        .filter(|(_, vm)| {
            vm.host
                .as_ref()
                .is_some_and(|host| request.hosts.contains(host))
        })
        .filter(|(_, vm)| vm.incoming.is_none() && vm.pinned_to.is_none())
        .map(|(uid, _)| uid.clone())
        .filter(|uid| !request.fixed.contains_key(uid) && !request.idle.contains(uid))
        .collect();
    let mut emptied = fleet.clone();
    for uid in &waiting {
        emptied.vms.get_mut(uid).unwrap().host = None;
    }
    if waiting.iter().any(|uid| stuck.contains(uid)) && waiting.len() <= 6 {
        prop_assert!(
            !possible(&emptied, &waiting, request),
            "all would find a place"
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn every_state_is_legal_and_everybody_is_accounted_for(
        fleet in any_fleet(6, 10),
        emptied in proptest::collection::btree_set(0..6_usize, 1..3),
        limits in limits(),
        dirty in proptest::collection::vec(0..2 * GIB, 10),
        fixed in proptest::collection::btree_set(0..10_usize, 0..3),
        idle in proptest::collection::btree_set(0..10_usize, 0..3),
    ) {
        let fleet = settled(fleet);
        let hosts: BTreeSet<_> = emptied.into_iter().map(name).filter(|name| fleet.hosts.contains_key(name)).collect();
        let request = EvacuationRequest {
            hosts,
            limits,
            dirty_bytes_per_second: dirty.into_iter().enumerate().map(|(index, rate)| (uid(index), rate)).collect(),
            priorities: BTreeMap::from([(uid(3), Priority::Critical)]),
            fixed: fixed.into_iter().map(|index| (uid(index), "it is being started".to_owned())).collect(),
            idle: idle.into_iter().map(uid).collect(),
            ..EvacuationRequest::default()
        };
        accounted(&fleet, &request)?;
    }

    /// Nearly full hosts, where one VM must often make room for another.
    #[test]
    fn a_tight_pool_is_emptied_without_an_illegal_state(
        memories in proptest::collection::vec(4..9_u64, 3..6),
        sizes in proptest::collection::vec(1..5_u64, 4..12),
    ) {
        let mut fleet = Fleet::default();
        fleet.pools.insert("main".into(), pool(Architecture::x86_64, &[Zone::Common], 3));
        for (index, memory) in memories.iter().enumerate() {
            fleet.hosts.insert(name(index), host("main", 64, *memory));
        }
        for (index, size) in sizes.iter().enumerate() {
            fleet.vms.insert(uid(index), vm(&format!("v{index}"), 1, *size).into());
        }
        let fleet = settled(fleet);
        let request = EvacuationRequest { hosts: BTreeSet::from([name(0)]), ..EvacuationRequest::default() };
        accounted(&fleet, &request)?;
    }
}

/// Few moves at once, with and without a bound of one move's own and of what each takes besides its copy.
fn limits() -> impl Strategy<Value = Limits> {
    let per_move = prop_oneof![Just(u64::MAX), GIB / 8..4 * GIB];
    (1..4_u32, 1..4_u32, per_move, 0..4_u64).prop_map(|(per_host, per_site, per_move, seconds)| {
        Limits {
            moves_per_host: per_host,
            moves_per_site: per_site,
            per_move,
            overhead_ms: seconds * 700,
            ..Limits::default()
        }
    })
}

/// A fleet of `hosts` at most two thirds full, links of several speeds.
fn data_centre() -> impl Strategy<Value = (Fleet, EvacuationRequest)> {
    let vms = proptest::collection::vec((1..9_u64, 0..200_u64, 0..4_u8), 20..160);
    let links = proptest::collection::vec(prop_oneof![Just(10_u64), Just(25)], 24);
    (6..24_usize, 1..4_usize, vms, links).prop_map(|(hosts, emptied, vms, links)| {
        let mut fleet = Fleet::default();
        fleet.pools.insert(
            "main".into(),
            pool(Architecture::x86_64, &[Zone::Common], 3),
        );
        for index in 0..hosts {
            fleet.hosts.insert(name(index), host("main", 1_000, 1_536));
        }
        let mut request = EvacuationRequest::default();
        for (index, (size, dirty, priority)) in vms.into_iter().enumerate() {
            let mut new = vm(&format!("v{index}"), 1, size * 4);
            new.host = Some(name(index % hosts));
            fleet.vms.insert(uid(index), new.into());
            request
                .dirty_bytes_per_second
                .insert(uid(index), dirty << 20);
            let priorities = [
                Priority::Critical,
                Priority::High,
                Priority::Normal,
                Priority::Low,
            ];
            request
                .priorities
                .insert(uid(index), priorities[usize::from(priority)]);
        }
        request.hosts = (0..emptied).map(name).collect();
        request.limits = Limits {
            links: links
                .into_iter()
                .enumerate()
                .map(|(index, gigabits)| (name(index), gigabits * 125_000_000))
                .collect(),
            moves_per_host: 4,
            ..Limits::default()
        };
        (fleet, request)
    })
}

/// Two hundred random cases, the same on every run: all within a tenth of what no schedule can beat.
#[test]
fn the_end_is_close_to_the_lower_bound() {
    close_to_the_lower_bound(0);
}

/// The same where each move takes two seconds besides its copy.
#[test]
fn the_end_is_close_to_the_lower_bound_where_moves_take_more_than_their_copy() {
    close_to_the_lower_bound(2_000);
}

fn close_to_the_lower_bound(overhead_ms: u64) {
    let mut runner = TestRunner::deterministic();
    let (mut ratios, mut sum) = (Vec::new(), 0.0);
    for _ in 0..200 {
        let (fleet, mut request) = data_centre().new_tree(&mut runner).unwrap().current();
        request.limits.overhead_ms = overhead_ms;
        let plan = plan_evacuation(&fleet, &request);
        assert_eq!(lint_plan(&fleet, &request.limits, &plan), vec![]);
        assert_eq!(plan.stuck, vec![]);
        let ratio = plan.end_ms as f64 / plan.bound_ms as f64;
        ratios.push(ratio);
        sum += ratio;
    }
    ratios.sort_by(f64::total_cmp);
    assert!(sum / 200.0 <= 1.02, "mean {}", sum / 200.0);
    assert!(ratios[199] <= 1.1, "{:?}", &ratios[190..]);
}

/// The roomiest host has a slow link: who leaves goes over the fast one as long as there is room behind it.
#[test]
fn a_faster_link_is_taken_when_that_ends_sooner() {
    let planned = |slow: u64, behind_the_fast: u64| {
        let mut fleet = Fleet::default();
        let only = pool(Architecture::x86_64, &[Zone::Common], 3);
        fleet.pools.insert("main".into(), only);
        for (index, memory) in [64, 64, behind_the_fast].into_iter().enumerate() {
            fleet.hosts.insert(name(index), host("main", 64, memory));
        }
        for index in 0..2 {
            let mut new = vm(&format!("v{index}"), 1, 8);
            new.host = Some(name(0));
            fleet.vms.insert(uid(index), new.into());
        }
        let request = EvacuationRequest {
            hosts: BTreeSet::from([name(0)]),
            limits: Limits {
                links: BTreeMap::from([(name(1), slow * GIB)]),
                link_default: 4 * GIB,
                ..Limits::default()
            },
            ..EvacuationRequest::default()
        };
        let plan = plan_evacuation(&fleet, &request);
        assert_eq!(lint_plan(&fleet, &request.limits, &plan), vec![]);
        let to = plan.moves.iter().map(|step| step.to.0.clone());
        (to.collect::<Vec<_>>(), plan.moves[0].reason.clone())
    };
    let (to, reason) = planned(1, 32);
    assert_eq!(to, ["h2", "h2"]);
    assert!(
        reason.ends_with("its link is faster than others'"),
        "{reason}"
    );
    assert_eq!(planned(1, 12).0, ["h2", "h1"], "room for one of them");
    let (to, reason) = planned(4, 32);
    assert_eq!(to, ["h1", "h1"]);
    assert!(!reason.contains("link"), "{reason}");
}

/// Where not all can begin at once the most urgent does, whatever the schedule's gaps were filled with, and
/// who makes room for it comes before it.
#[test]
fn the_most_urgent_move_begins_first() {
    let step = |vm: usize, start_ms, after: &[usize]| Move {
        vm: uid(vm),
        from: name(0),
        to: name(1),
        start_ms,
        end_ms: start_ms + 1,
        bytes: 1,
        after: after.iter().copied().map(uid).collect(),
        reason: String::new(),
    };
    let plan = Plan {
        moves: vec![
            step(0, 0, &[]),
            step(1, 0, &[]),
            step(2, 5, &[]),
            step(3, 7, &[1]),
            step(4, 9, &[3]),
        ],
        ..Plan::default()
    };
    let priorities = BTreeMap::from([
        (uid(0), Priority::High),
        (uid(1), Priority::Low),
        (uid(2), Priority::Critical),
        (uid(4), Priority::Critical),
    ]);
    let order = plan.in_order(&priorities);
    let order: Vec<_> = order.iter().map(|(_, step)| step.vm.clone()).collect();
    assert_eq!(order, [1, 2, 3, 4, 0].map(uid));
    let order = plan.in_order(&BTreeMap::new());
    let order: Vec<_> = order.iter().map(|(_, step)| step.vm.clone()).collect();
    assert_eq!(order, [0, 1, 2, 3, 4].map(uid));
}

/// One host, equal links: its link is never idle, so the end is the sum of its bytes.
#[test]
fn a_single_host_leaves_at_the_speed_of_its_link() {
    let mut fleet = Fleet::default();
    fleet.pools.insert(
        "main".into(),
        pool(Architecture::x86_64, &[Zone::Common], 3),
    );
    for index in 0..4 {
        fleet.hosts.insert(name(index), host("main", 64, 64));
    }
    for index in 0..10 {
        let mut new = vm(&format!("v{index}"), 1, 4);
        new.host = Some(name(0));
        fleet.vms.insert(uid(index), new.into());
    }
    let request = EvacuationRequest {
        hosts: BTreeSet::from([name(0)]),
        limits: Limits {
            link_default: 4 * GIB,
            ..Limits::default()
        },
        ..EvacuationRequest::default()
    };
    let plan = plan_evacuation(&fleet, &request);
    assert_eq!(
        (plan.moves.len(), plan.end_ms, plan.bound_ms),
        (10, 10_000, 10_000)
    );
    assert_eq!(plan.moves[3].start_ms, 3_000);
    assert_eq!(plan.moves[3].bytes, 4 * GIB);
}

/// The judge of plans finds what is broken in a plan that was right.
#[test]
fn a_spoilt_plan_is_found_out() {
    let mut fleet = Fleet::default();
    fleet.pools.insert(
        "main".into(),
        pool(Architecture::x86_64, &[Zone::Common], 3),
    );
    for (index, memory) in [8, 8, 4].into_iter().enumerate() {
        fleet.hosts.insert(name(index), host("main", 64, memory));
    }
    for (index, (at, memory)) in [(0, 6), (1, 4)].into_iter().enumerate() {
        let mut new = vm(&format!("v{index}"), 1, memory);
        new.host = Some(name(at));
        new.rules = Rules::kept_apart("g");
        fleet.vms.insert(uid(index), new.into());
    }
    let request = EvacuationRequest {
        hosts: BTreeSet::from([name(0)]),
        ..EvacuationRequest::default()
    };
    let plan = plan_evacuation(&fleet, &request);
    let faults = |plan: &Plan| -> Vec<PlanFault> {
        let violations = lint_plan(&fleet, &request.limits, plan);
        violations.into_iter().map(|found| found.fault).collect()
    };
    // v1 makes room on h1 for v0.
    let moves: Vec<_> = plan
        .moves
        .iter()
        .map(|step| (step.vm.0.as_str(), step.to.0.as_str()))
        .collect();
    assert_eq!(moves, [("u1", "h2"), ("u0", "h1")]);
    assert_eq!(plan.moves[1].after, [uid(1)]);
    assert_eq!(faults(&plan), []);

    let mut early = plan.clone();
    early.moves[1].start_ms -= 1;
    assert_eq!(
        faults(&early),
        [
            PlanFault::Overloaded,
            PlanFault::Together(uid(1)),
            PlanFault::Awaits(uid(1))
        ]
    );
    // By the clock it is right, and who carries it out heeds no clock.
    let mut forgetful = plan.clone();
    forgetful.moves[1].after.clear();
    assert_eq!(
        faults(&forgetful),
        ["room", "apart"].map(PlanFault::Unordered)
    );
    let mut awaiting = plan.clone();
    awaiting.moves[0].after.push(uid(9));
    assert_eq!(faults(&awaiting), [PlanFault::Awaits(uid(9))]);
    let mut fast = plan.clone();
    fast.moves[1].end_ms -= 10;
    assert!(faults(&fast).contains(&PlanFault::TooFast));
    let mut nowhere = plan.clone();
    nowhere.moves[0].to = name(7);
    assert!(faults(&nowhere).contains(&PlanFault::Closed));
    let mut contradicts = plan.clone();
    contradicts.idle.push(uid(1));
    assert_eq!(faults(&contradicts), [PlanFault::Stays]);
    let mut elsewhere = plan.clone();
    elsewhere.moves[1].from = name(2);
    assert!(faults(&elsewhere).contains(&PlanFault::NotThere));
    let mut heavy = plan;
    heavy.moves[1].bytes *= 3;
    assert_eq!(
        faults(&heavy),
        [
            PlanFault::LinkOverfull(name(0)),
            PlanFault::LinkOverfull(name(1))
        ]
    );
}

/// The emptiest host says that it can not carry the VM's network.
#[test]
fn nobody_moves_to_where_its_network_is_not_ready() {
    let mut fleet = Fleet::default();
    fleet.pools.insert(
        "main".into(),
        pool(Architecture::x86_64, &[Zone::Common], 3),
    );
    for (index, memory) in [8, 32, 8].into_iter().enumerate() {
        fleet.hosts.insert(name(index), host("main", 64, memory));
    }
    let unready = fleet.hosts.get_mut(&name(1)).unwrap();
    unready.unready_networks.insert("legacy".to_owned());
    let mut new = vm("v", 1, 4);
    new.host = Some(name(0));
    new.networks = BTreeSet::from(["legacy".to_owned()]).into();
    fleet.vms.insert(uid(0), new.into());
    let request = EvacuationRequest {
        hosts: BTreeSet::from([name(0)]),
        ..EvacuationRequest::default()
    };
    let plan = plan_evacuation(&fleet, &request);
    assert_eq!(plan.moves.len(), 1, "{plan:?}");
    assert_eq!(plan.moves[0].to, name(2));
    // The judge finds it where a plan, or a fleet, has it otherwise.
    let mut wrong = plan;
    wrong.moves[0].to = name(1);
    let violations = lint_plan(&fleet, &request.limits, &wrong);
    let faults: Vec<_> = violations.into_iter().map(|found| found.fault).collect();
    assert_eq!(faults, [PlanFault::Forbidden("network")]);
    fleet.vms.get_mut(&uid(0)).unwrap().host = Some(name(1));
    assert_eq!(lint(&fleet), [Violation::Misplaced(uid(0), "network")]);
}
