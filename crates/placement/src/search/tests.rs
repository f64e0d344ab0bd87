//! What chance in whole searches would hide: single attempts to rearrange, and exact descents.

use super::anneal::Annealer;
use super::polish::{descend, polish};
use super::propose::Change;
use super::rearrange::rearrange;
use super::rng::Rng;
use crate::core::{Group, Host, Item, Model, PairCost, Resource, Spec, State};
use crate::roadef::tests::random_instance;

/// One resource of which there is more load than all hosts together may safely have. Each item
/// may be at home, and the first three also on one other host.
fn model() -> Model {
    let host = |safety: i64| Host {
        neighbourhood: 0,
        zone: 0,
        capacity: vec![40],
        safety: vec![safety],
    };
    let item = |need: i64, home: u32, class: u32| Item {
        group: 0,
        need: vec![need],
        move_cost: 1,
        class,
        home,
    };
    Model::new(Spec {
        resources: vec![Resource {
            transient: false,
            weight: 10,
        }],
        hosts: vec![host(8), host(10), host(9), host(10)],
        groups: vec![Group::default()],
        items: vec![
            item(10, 0, 0),
            item(10, 2, 0),
            item(10, 3, 1),
            item(10, 3, 2),
            item(5, 3, 2),
        ],
        balances: Vec::new(),
        pair_cost: PairCost::Uniform(3),
        group_move_weight: 0,
        classes: vec![
            vec![false, true, false, false],
            vec![false, false, true, false],
            vec![false, false, false, true],
        ],
    })
    .unwrap()
}

#[test]
fn who_goes_home_is_replaced_where_it_was() {
    let model = model();
    let mut state = State::at_home(&model);
    state.apply_move(0, 1);
    // The first host is empty, 8 below its safety. Its item alone would leave the second 10
    // below; who comes there instead leaves the third 9 below, and it takes one from the last.
    assert!(state.delta_move(0, 0) > 0);
    assert_eq!(state.cost().hosts, 160);
    let mut one = Annealer::new(state, Rng::new(1, 0));
    for _ in 0..200 {
        rearrange(&mut one, 0.0);
    }
    assert_eq!(one.state.placement(), [0, 1, 2, 3, 3]);
    assert_eq!(one.best.cost(), Some(80 + 2 * 4));
    assert_eq!(one.best.placement(), one.state.placement());
}

#[test]
fn an_attempt_that_does_not_pay_leaves_nothing_behind() {
    let model = model();
    let mut state = State::at_home(&model);
    state.apply_move(2, 2);
    state.apply_move(1, 1);
    let mut one = Annealer::new(state, Rng::new(1, 0));
    let before = (one.state.placement().to_vec(), one.total());
    for _ in 0..200 {
        rearrange(&mut one, 0.0);
    }
    assert_eq!((one.state.placement().to_vec(), one.total()), before);
    assert_eq!(one.state.cost().total(), before.1 as i64);
    assert!(one.state.is_legal() && one.proposals > 200);
}

/// Two hosts of which each has what the other should have, and no room for both.
fn crossed() -> Model {
    let host = |safety: [i64; 2]| Host {
        neighbourhood: 0,
        zone: 0,
        capacity: vec![10, 10],
        safety: safety.to_vec(),
    };
    let item = |need: [i64; 2], home: u32| Item {
        group: 0,
        need: need.to_vec(),
        move_cost: 1,
        class: 0,
        home,
    };
    let resource = |transient: bool| Resource {
        transient,
        weight: 10,
    };
    Model::new(Spec {
        resources: vec![resource(false), resource(false)],
        hosts: vec![host([0, 8]), host([8, 0])],
        groups: vec![Group::default()],
        items: vec![item([8, 3], 0), item([3, 8], 1)],
        balances: Vec::new(),
        pair_cost: PairCost::Uniform(3),
        group_move_weight: 0,
        classes: vec![Vec::new()],
    })
    .unwrap()
}

#[test]
fn a_descent_finds_the_move_and_the_exchange_that_nothing_was_spent_on_before() {
    // An exchange saves 5 units on each host, and costs two moves.
    let model = crossed();
    let mut one = Annealer::new(State::at_home(&model), Rng::new(1, 0));
    assert_eq!(one.best.cost(), Some(160));
    assert!(descend(&mut one, 1.0, &|_| 0.0));
    assert_eq!(one.best.placement(), [1, 0]);
    assert_eq!(one.best.cost(), Some(60 + 8));

    // One goes home, for one that is away it pays, and a third leaves.
    let model = self::model();
    let mut state = State::at_home(&model);
    state.apply_move(0, 1);
    state.apply_move(1, 1);
    let mut one = Annealer::new(state, Rng::new(1, 0));
    assert!(descend(&mut one, 1.0, &|_| 0.0));
    assert_eq!(one.best.placement(), [0, 1, 2, 3, 3]);
}

#[test]
fn after_a_descent_no_allowed_move_or_exchange_gains() {
    let (mut changed, mut looked) = (0, 0);
    for seed in 0..2_000 {
        let mut rng = Rng::new(seed, 3);
        let (instance, start) = random_instance(&mut rng);
        let model = Model::new(instance.to_spec(&start)).unwrap();
        let mut state = State::at_home(&model);
        if !state.is_legal() {
            continue;
        }
        // Somewhere away from home, where descents and homes are not the same.
        let (items, hosts) = (model.item_count() as u32, model.host_count() as u32);
        for _ in 0..20 {
            let (item, to) = (
                rng.below(start.len()) as u32,
                rng.below(hosts as usize) as u32,
            );
            if state.can_move(item, to) {
                state.apply_move(item, to);
            }
        }
        let before = state.cost().total();
        let mut one = Annealer::new(state, rng);
        assert!(descend(&mut one, 1.0, &|_| 0.0));
        let state = &one.state;
        assert!(state.is_legal(), "seed {seed}");
        assert!(state.cost().total() <= before, "seed {seed}");
        assert_eq!(one.best.cost(), Some(state.cost().total()));
        changed += usize::from(state.cost().total() < before);
        for a in 0..items {
            for to in (0..hosts).filter(|&to| state.can_move(a, to)) {
                assert!(state.delta_move(a, to) >= 0, "seed {seed}: {a} to {to}");
                looked += 1;
            }
            for b in (0..a).filter(|&b| state.can_swap(a, b)) {
                assert!(state.delta_swap(a, b) >= 0, "seed {seed}: {a} and {b}");
                looked += 1;
            }
        }
    }
    assert!(changed > 100 && looked > 5_000, "{changed} {looked}");
}

#[test]
fn polishing_never_ends_worse_and_never_later() {
    for seed in 0..200 {
        let mut rng = Rng::new(seed, 4);
        let (instance, start) = random_instance(&mut rng);
        let model = Model::new(instance.to_spec(&start)).unwrap();
        let state = State::at_home(&model);
        if !state.is_legal() {
            continue;
        }
        let before = state.cost().total();
        let mut one = Annealer::new(state, rng);
        let all = 1_000 * (seed % 20) + 1;
        polish(&mut one, 50.0, &|done| done as f64 / all as f64);
        assert!(one.best.cost().is_some_and(|cost| cost <= before));
        // A batch, what one host's items take, and one attempt to rearrange.
        assert!(one.proposals < all + 2_000, "{} of {all}", one.proposals);
    }
}

#[test]
fn where_moves_count_more_only_what_pays_so_much_is_made() {
    let model = crossed();
    let mut one = Annealer::new(State::at_home(&model), Rng::new(1, 0));
    let before = one.total();
    // An exchange saves 100 at the hosts and costs 8: 13 times that is too much, 12 times is not.
    one.thrift = 12.0;
    assert!(!one.consider(Change::Swap(0, 1), 0.0));
    one.thrift = 11.0;
    assert!(one.consider(Change::Swap(0, 1), 0.0));
    assert_eq!(one.total() - before, 60.0 + 12.0 * 8.0 - 160.0);
}
