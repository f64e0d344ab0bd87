//! What the benchmark does not use: classes of hosts, uniform pair costs, groups whose items may
//! share a host, illegal starts; and the checks of a stated problem.

use super::*;
use crate::search::{Budget, improve};

fn host(capacity: i64, safety: i64) -> Host {
    Host {
        neighbourhood: 0,
        zone: 0,
        capacity: vec![capacity],
        safety: vec![safety],
    }
}

fn item(need: i64, home: u32) -> Item {
    Item {
        group: 0,
        need: vec![need],
        move_cost: 1,
        class: 0,
        home,
    }
}

/// Three hosts; four items of one group on the first, which is over its safety load by 20.
fn spec() -> Spec {
    Spec {
        resources: vec![Resource {
            transient: false,
            weight: 10,
        }],
        hosts: vec![host(40, 20), host(40, 20), host(40, 20)],
        groups: vec![Group::default()],
        items: vec![item(10, 0); 4],
        balances: Vec::new(),
        pair_cost: PairCost::Uniform(3),
        group_move_weight: 0,
        classes: vec![Vec::new(), vec![false, false, true]],
    }
}

#[test]
fn the_search_makes_only_the_moves_that_are_worth_their_cost() {
    let model = Model::new(spec()).unwrap();
    assert_eq!(State::at_home(&model).cost().hosts, 200);
    let found = improve(&model, 1, 1, Budget::Proposals(20_000));
    // Two of four must leave, at 1 + 3 each; items of the group may share a host.
    assert_eq!(found.cost, Some(8));
    let away = found.placement.iter().filter(|&&h| h != 0).count();
    assert_eq!(away, 2);

    let mut dear = spec();
    dear.pair_cost = PairCost::Uniform(1_000);
    let model = Model::new(dear).unwrap();
    let found = improve(&model, 1, 1, Budget::Proposals(20_000));
    assert_eq!(found.placement, model.homes(), "nothing is worth 1,000");
}

#[test]
fn a_class_keeps_items_to_its_hosts_and_to_home() {
    let mut limited = spec();
    for item in &mut limited.items {
        item.class = 1;
    }
    let model = Model::new(limited).unwrap();
    let mut state = State::at_home(&model);
    assert!(!state.can_move(0, 1) && state.can_move(0, 2));
    state.apply_move(0, 2);
    assert!(state.can_move(0, 0), "home is always allowed");
    let found = improve(&model, 1, 1, Budget::Proposals(20_000));
    assert!(found.placement.iter().all(|&h| h != 1));
    assert_eq!(found.cost, Some(8));
}

#[test]
fn an_overfull_start_is_brought_under_its_limits() {
    let mut full = spec();
    full.hosts[0].capacity[0] = 15;
    let model = Model::new(full).unwrap();
    let state = State::at_home(&model);
    assert!(!state.is_legal() && state.hosts_over() == 1);
    assert!(state.can_move(0, 1), "what is over its limit may be left");
    let found = improve(&model, 1, 2, Budget::Proposals(20_000));
    assert_eq!(found.cost, Some(12), "three leave");
    let none = improve(&model, 1, 2, Budget::Proposals(0));
    assert_eq!(
        (none.cost, none.placement.as_slice()),
        (None, model.homes())
    );
}

#[test]
fn the_clock_ends_the_search() {
    let model = Model::new(spec()).unwrap();
    let looks = std::sync::atomic::AtomicU64::new(0);
    let clock = || looks.fetch_add(1, std::sync::atomic::Ordering::Relaxed) as f64 / 200.0;
    let found = improve(&model, 1, 1, Budget::Clock(&clock));
    assert_eq!(found.cost, Some(8));
    // Each phase looks once more than it works.
    assert!((200..210).contains(&looks.into_inner()));
}

#[test]
fn a_problem_that_cannot_be_used_says_why() {
    let says = |change: &dyn Fn(&mut Spec), expected: &str| {
        let mut wrong = spec();
        change(&mut wrong);
        let error = Model::new(wrong).unwrap_err().to_string();
        assert_eq!(error, expected);
    };
    says(
        &|s| s.hosts[1].capacity.clear(),
        "host 1 has 0 capacities, expected 1",
    );
    says(
        &|s| s.items[2].need.push(1),
        "item 2 has 2 needs, expected 1",
    );
    says(&|s| s.items[3].home = 3, "item 3 names host 3, of 3");
    says(&|s| s.items[3].class = 2, "item 3 names class 2, of 2");
    says(
        &|s| s.groups[0].depends_on = vec![5],
        "group 0 names group 5, of 1",
    );
    says(
        &|s| s.items[1].need[0] = -4,
        "item 1: need is -4, less than zero",
    );
    says(
        &|s| s.classes[1].truncate(2),
        "class 1 has 2 flags, expected 3",
    );
    says(
        &|s| s.pair_cost = PairCost::Uniform(-1),
        "pair cost 0: cost is -1, less than zero",
    );
    says(
        &|s| s.hosts[0].capacity[0] = i64::MAX,
        "the numbers are too large: the load of a resource could leave 64 bits",
    );
    says(
        &|s| s.resources[0].weight = i64::MAX,
        "the numbers are too large: the cost could leave 64 bits",
    );
}

#[test]
fn waste_is_what_hosts_cost_beyond_what_all_must_cost_together() {
    // 40 units of load where 30 are safe: 100 of the cost of hosts is there wherever items are.
    let mut little = spec();
    for host in &mut little.hosts {
        host.safety[0] = 10;
    }
    let model = Model::new(little).unwrap();
    let mut state = State::at_home(&model);
    let wastes = |state: &State<'_>| [0, 1, 2].map(|h| state.quick_waste(h));
    assert_eq!(state.cost().hosts, 300);
    // Not the host that is over wastes, but those that could take what it has.
    assert_eq!(wastes(&state), [0.0, 100.0, 100.0]);
    assert_eq!(state.quick_wastes(), 200.0);
    state.apply_move(0, 1);
    assert_eq!(wastes(&state), [0.0, 0.0, 100.0]);
    state.apply_move(1, 2);
    assert_eq!(wastes(&state), [0.0; 3]);
    assert_eq!(state.cost().hosts, 100);

    // Where there is room for all, waste is cost.
    let model = Model::new(spec()).unwrap();
    let state = State::at_home(&model);
    assert_eq!(wastes(&state), [200.0, 0.0, 0.0]);
    assert_eq!(state.quick_wastes(), 200.0);

    // A balance is a limit like others: of one resource, 5 free of the other are wished for per
    // unit free, which asks for -4 times what is free, 80 in sum.
    let mut balanced = spec();
    balanced.balances = vec![Balance {
        first: 0,
        second: 0,
        target: 5,
        weight: 2,
    }];
    let model = Model::new(balanced).unwrap();
    let state = State::at_home(&model);
    // The first host has nothing free, the others 40 each: of 2 * 4 * 80 nothing can be avoided.
    assert_eq!(state.cost().hosts, 200 + 640);
    assert_eq!(wastes(&state), [200.0, 0.0, 0.0]);
}
