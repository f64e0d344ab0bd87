//! What chance in whole searches would hide: single attempts to rearrange.

use super::anneal::Annealer;
use super::rearrange::rearrange;
use super::rng::Rng;
use crate::core::{Group, Host, Item, Model, PairCost, Resource, Spec, State};

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
