//! What the core says an item can never reach, against all assignments of small instances.

use super::tests::{each_assignment, random_instance};
use super::*;
use crate::core::Model;
use crate::search::Rng;

/// Leaves each machine a fifth of the room it has at the start.
fn crowd(instance: &mut Instance, start: &[u32]) {
    for (m, machine) in instance.machines.iter_mut().enumerate() {
        for (r, capacity) in machine.capacity.iter_mut().enumerate() {
            let here = instance.processes.iter().zip(start);
            let used: i64 = here
                .filter(|(_, at)| **at == m as u32)
                .map(|(process, _)| process.need[r])
                .sum();
            *capacity = used + (*capacity - used) / 5;
            machine.safety[r] = machine.safety[r].min(*capacity);
        }
    }
}

#[test]
fn every_legal_assignment_is_within_reach_and_reach_says_no() {
    let (mut legal, mut denied) = (0, 0);
    for seed in 0..400 {
        let mut rng = Rng::new(seed, 3);
        let (mut instance, start) = random_instance(&mut rng);
        crowd(&mut instance, &start);
        let ways = (instance.machines.len() as f64).powi(start.len() as i32);
        if ways > 2e4 || !violations(&instance, &start, &start).is_empty() {
            continue;
        }
        let model = Model::new(instance.to_spec(&start)).unwrap();
        each_assignment(&instance, |at| {
            if !violations(&instance, &start, at).is_empty() {
                return;
            }
            legal += 1;
            for (item, &host) in at.iter().enumerate() {
                let item = item as u32;
                assert!(model.may_reach(item, host), "seed {seed}: {at:?}");
                assert!(model.reach(item).contains(&host), "seed {seed}: {at:?}");
            }
        });
        for item in 0..start.len() as u32 {
            let hosts = 0..instance.machines.len() as u32;
            denied += hosts.filter(|&h| !model.may_reach(item, h)).count();
        }
    }
    assert!(legal > 100 && denied > 100, "{legal} {denied}");
}
