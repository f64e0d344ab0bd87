//! The core and the search against the judge, on random small instances and the statement's example.

use std::collections::BTreeMap;

use super::*;
use crate::core::{Model, State};
use crate::search::{Budget, Rng, improve};

/// The example of the problem statement.
pub(super) const TOY: &str = "2\n1 100\n0 10\n4\n0 0 30 400 16 80 0 1 4 5\n0 0 10 240 8 160 1 0 3 4\n\
1 1 15 100 12 80 4 3 0 2\n1 2 10 100 8 80 5 4 2 0\n2\n2 0\n1 1 0\n3\n0 12 10 1000\n0 10 20 100\n\
1 6 200 1\n1\n0 1 20\n10\n1 10 100\n";

pub(crate) fn random_instance(rng: &mut Rng) -> (Instance, Vec<u32>) {
    let resources: Vec<(bool, i64)> = (0..1 + rng.below(3))
        .map(|_| (rng.below(2) == 0, rng.below(20) as i64))
        .collect();
    let n = resources.len();
    // Now and then a group of more than eight, for which the core keeps a count per host.
    let (n_machines, n_services) = (2 + rng.below(10), 1 + rng.below(5));
    let n_processes = 1 + rng.below(14);
    let size = 10 * (n_processes / n_machines + 1);
    let machines = (0..n_machines)
        .map(|_| Machine {
            neighbourhood: 7 * rng.below(3) as u32,
            location: 5 * rng.below(4) as u32,
            capacity: (0..n)
                .map(|_| (size + rng.below(size * 2)) as i64)
                .collect(),
            safety: (0..n).map(|_| rng.below(size * 2) as i64).collect(),
        })
        .collect();
    let services = (0..n_services)
        .map(|_| Service {
            spread_min: rng.below(4) as u32,
            depends_on: (0..rng.below(3))
                .map(|_| rng.below(n_services) as u32)
                .collect(),
        })
        .collect();
    let many = rng.below(3) == 0;
    let processes = (0..n_processes)
        .map(|_| Process {
            service: if many {
                0
            } else {
                rng.below(n_services) as u32
            },
            need: (0..n).map(|_| rng.below(12) as i64).collect(),
            move_cost: rng.below(5) as i64,
        })
        .collect();
    let balances = (0..rng.below(3))
        .map(|_| BalanceRule {
            resources: (rng.below(n), rng.below(n)),
            target: rng.below(4) as i64,
            weight: rng.below(6) as i64,
        })
        .collect();
    let instance = Instance {
        resources,
        machines,
        machine_move_cost: (0..n_machines * n_machines)
            .map(|_| rng.below(9) as u32)
            .collect(),
        services,
        processes,
        balances,
        process_move_weight: rng.below(3) as i64,
        service_move_weight: rng.below(50) as i64,
        machine_move_weight: rng.below(3) as i64,
    };
    let start = (0..n_processes)
        .map(|_| rng.below(n_machines) as u32)
        .collect();
    (instance, start)
}

/// The kind of a violation, to count what was refused.
fn kind(v: &Violation) -> &'static str {
    match v {
        Violation::Capacity { .. } => "capacity",
        Violation::Transient { .. } => "transient",
        Violation::Conflict { .. } => "conflict",
        Violation::Spread { .. } => "spread",
        Violation::Dependency { .. } => "dependency",
    }
}

/// Every move and swap from a state, judged by the core and by recomputation.
fn compare_all(
    instance: &Instance,
    start: &[u32],
    state: &State<'_>,
    seen: &mut BTreeMap<&'static str, usize>,
) {
    let now = cost(instance, start, state.placement()).total();
    assert_eq!(i128::from(state.cost().total()), now);
    let mut judge = |placement: &[u32], delta: i64, may: bool| {
        let after = cost(instance, start, placement).total();
        assert_eq!(i128::from(delta), after - now, "delta");
        let broken = violations(instance, start, placement);
        assert_eq!(may, broken.is_empty(), "{broken:?}");
        *seen.entry("allowed").or_default() += usize::from(may);
        if let [only] = broken.as_slice() {
            *seen.entry(kind(only)).or_default() += 1;
        }
    };
    let items = instance.processes.len() as u32;
    let mut placement = state.placement().to_vec();
    for a in 0..items {
        let from = state.host_of(a);
        for to in (0..instance.machines.len() as u32).filter(|&to| to != from) {
            placement[a as usize] = to;
            let delta = state.delta_move(a, to);
            judge(&placement, delta, state.can_move(a, to));
        }
        placement[a as usize] = from;
        for b in (0..a).filter(|&b| state.host_of(b) != from) {
            placement.swap(a as usize, b as usize);
            let delta = state.delta_swap(a, b);
            judge(&placement, delta, state.can_swap(a, b));
            placement.swap(a as usize, b as usize);
        }
    }
}

#[test]
fn every_judgement_of_the_core_equals_recomputation() {
    let mut seen = BTreeMap::new();
    let mut legal_starts = 0;
    for seed in 0..4000 {
        let mut rng = Rng::new(seed, 0);
        let (instance, start) = random_instance(&mut rng);
        if !violations(&instance, &start, &start).is_empty() {
            continue;
        }
        legal_starts += 1;
        let model = Model::new(instance.to_spec(&start)).unwrap();
        let mut state = State::at_home(&model);
        for _ in 0..6 {
            assert!(state.is_legal(), "seed {seed}");
            compare_all(&instance, &start, &state, &mut seen);
            let (a, b) = (rng.below(start.len()) as u32, rng.below(start.len()) as u32);
            let to = rng.below(instance.machines.len()) as u32;
            if state.can_move(a, to) {
                state.apply_move(a, to);
            } else if state.can_swap(a, b) {
                state.apply_swap(a, b);
            }
        }
    }
    assert!(legal_starts > 100, "{legal_starts}");
    // Each answer was met on its own, so none of the comparisons is empty.
    for answer in [
        "allowed",
        "capacity",
        "transient",
        "conflict",
        "spread",
        "dependency",
    ] {
        assert!(
            seen.get(answer).is_some_and(|n| *n > 50),
            "{answer}: {seen:?}"
        );
    }
}

/// What a state's counts of broken rules are to be after a change.
fn after(state: &State<'_>, (short, broken): (i64, i64)) -> (i64, i64) {
    let now = state.broken_parts();
    (now.0 + short, now.1 + broken)
}

#[test]
fn any_sequence_of_changes_keeps_all_sums_even_through_illegal_states() {
    let mut illegal = 0;
    for seed in 0..1000 {
        let mut rng = Rng::new(seed, 1);
        let (instance, start) = random_instance(&mut rng);
        let model = Model::new(instance.to_spec(&start)).unwrap();
        let mut state = State::at_home(&model);
        let first = state.cost();
        let mut undo = Vec::new();
        let prices: Vec<i64> = (0..model.resource_count())
            .map(|_| rng.below(9) as i64)
            .collect();
        for _ in 0..20 {
            let item = rng.below(start.len()) as u32;
            let to = rng.below(instance.machines.len()) as u32;
            state.price_overflow(&prices);
            if state.host_of(item) != to {
                let (before, delta) = (state.cost().total(), state.delta_move(item, to));
                let quick = state.quick_added(item, to) - state.quick_freed(item);
                assert_eq!(quick + state.delta_away(item, to) as f64, delta as f64);
                let rules = after(&state, state.rules_change_move(item, to));
                undo.push((item, state.apply_move(item, to)));
                assert_eq!(state.broken_parts(), rules, "move, seed {seed}");
                assert_eq!(
                    state.cost().total(),
                    before + delta,
                    "priced move, seed {seed}"
                );
            }
            let other = rng.below(start.len()) as u32;
            if state.host_of(item) != state.host_of(other) {
                let (before, delta) = (state.cost().total(), state.delta_swap(item, other));
                let (here, there) = (state.host_of(item), state.host_of(other));
                let quick = state.quick_exchanged(here, item, other)
                    + state.quick_exchanged(there, other, item);
                assert_eq!(
                    quick + state.delta_away_swap(item, other) as f64,
                    delta as f64
                );
                let rules = after(&state, state.rules_change_swap(item, other));
                undo.push((item, here));
                undo.push((other, there));
                state.apply_swap(item, other);
                assert_eq!(state.broken_parts(), rules, "swap, seed {seed}");
                assert_eq!(
                    state.cost().total(),
                    before + delta,
                    "priced swap, seed {seed}"
                );
            }
            state.price_overflow(&[]);
            let total = cost(&instance, &start, state.placement()).total();
            assert_eq!(i128::from(state.cost().total()), total, "seed {seed}");
            let broken = violations(&instance, &start, state.placement());
            let counted = broken.iter().all(|v| kind(v) == "conflict");
            assert_eq!(state.is_legal(), counted, "seed {seed}: {broken:?}");
            illegal += usize::from(!counted);
        }
        while let Some((item, from)) = undo.pop() {
            state.apply_move(item, from);
        }
        assert_eq!(state.cost(), first, "undone, seed {seed}");
        assert_eq!(state.placement(), start);
    }
    assert!(illegal > 1000);
}

/// Shows every assignment of a small instance, legal or not.
pub(super) fn each_assignment(instance: &Instance, mut see: impl FnMut(&[u32])) {
    let hosts = instance.machines.len() as u32;
    let mut at = vec![0; instance.processes.len()];
    loop {
        see(&at);
        let Some(k) = at.iter().position(|&h| h + 1 < hosts) else {
            return;
        };
        at[k] += 1;
        at[..k].fill(0);
    }
}

/// The cheapest legal assignment of a small instance, by trying all.
pub(super) fn optimum(instance: &Instance, start: &[u32]) -> i128 {
    let mut best = cost(instance, start, start).total();
    each_assignment(instance, |at| {
        let total = cost(instance, start, at).total();
        if total < best && violations(instance, start, at).is_empty() {
            best = total;
        }
    });
    best
}

#[test]
fn the_search_finds_the_optimum_of_small_instances() {
    let (mut solved, mut improved) = (0, 0);
    for seed in 0..600 {
        let mut rng = Rng::new(seed, 2);
        let (instance, start) = random_instance(&mut rng);
        let ways = (instance.machines.len() as f64).powi(start.len() as i32);
        if ways > 2e4 || !violations(&instance, &start, &start).is_empty() {
            continue;
        }
        let model = Model::new(instance.to_spec(&start)).unwrap();
        let found = improve(&model, seed, 1, Budget::Proposals(60_000));
        assert_eq!(violations(&instance, &start, &found.placement), Vec::new());
        let total = cost(&instance, &start, &found.placement).total();
        assert_eq!(found.cost.map(i128::from), Some(total));
        let best = optimum(&instance, &start);
        assert_eq!(total, best, "seed {seed}");
        solved += 1;
        improved += usize::from(best < cost(&instance, &start, &start).total());
    }
    assert!(solved > 20 && improved > 10, "{solved} {improved}");
}

#[test]
fn a_seed_and_a_number_of_proposals_fix_the_answer() {
    let instance = parse_model(TOY.as_bytes()).unwrap();
    let start = parse_assignment(b"0 3 0\n", &instance).unwrap();
    assert_eq!(violations(&instance, &start, &start), Vec::new());
    // The cost that the problem statement gives for this start.
    assert_eq!(cost(&instance, &start, &start).total(), 4200);
    let model = Model::new(instance.to_spec(&start)).unwrap();
    let one = improve(&model, 7, 2, Budget::Proposals(20_000));
    assert_eq!(one, improve(&model, 7, 2, Budget::Proposals(20_000)));
    assert_eq!(i128::from(one.cost.unwrap()), optimum(&instance, &start));
    let again = parse_assignment(write_assignment(&one.placement).as_bytes(), &instance);
    assert_eq!(again, Ok(one.placement));
}
