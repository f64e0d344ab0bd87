//! An independent judge of assignments, written from the problem statement with plain loops and
//! 128-bit sums. It shares nothing with the core, so that it can catch the core's mistakes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::instance::Instance;

/// One broken hard constraint.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "the message of each kind says what its fields are"
)]
pub enum Violation {
    Capacity {
        machine: usize,
        resource: usize,
        used: i128,
        capacity: i64,
    },
    Transient {
        machine: usize,
        resource: usize,
        used: i128,
        capacity: i64,
    },
    Conflict {
        service: u32,
        machine: u32,
    },
    Spread {
        service: usize,
        locations: usize,
        wanted: u32,
    },
    Dependency {
        service: usize,
        neighbourhood: u32,
        on: u32,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Capacity {
                machine,
                resource,
                used,
                capacity,
            } => {
                write!(
                    f,
                    "machine {machine}, resource {resource}: {used} used of {capacity}"
                )
            }
            Violation::Transient {
                machine,
                resource,
                used,
                capacity,
            } => write!(
                f,
                "machine {machine}, resource {resource}: {used} used during the moves, of {capacity}"
            ),
            Violation::Conflict { service, machine } => {
                write!(
                    f,
                    "service {service} has several processes on machine {machine}"
                )
            }
            Violation::Spread {
                service,
                locations,
                wanted,
            } => {
                write!(
                    f,
                    "service {service} is in {locations} locations, {wanted} wanted"
                )
            }
            Violation::Dependency {
                service,
                neighbourhood,
                on,
            } => {
                write!(
                    f,
                    "service {service} is in neighbourhood {neighbourhood}, service {on} is not"
                )
            }
        }
    }
}

/// The weighted parts of the objective.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Load above safety capacity.
    pub load: i128,
    /// Missing balance.
    pub balance: i128,
    /// Moved processes.
    pub process_moves: i128,
    /// The service with most moved processes.
    pub service_moves: i128,
    /// Pairs of machines.
    pub machine_moves: i128,
}

impl Parts {
    /// The objective.
    pub fn total(&self) -> i128 {
        self.load + self.balance + self.process_moves + self.service_moves + self.machine_moves
    }
}

/// Use of each resource of each machine under an assignment.
fn use_of(instance: &Instance, assignment: &[u32]) -> Vec<Vec<i128>> {
    let mut used = vec![vec![0i128; instance.resources.len()]; instance.machines.len()];
    for (process, &machine) in instance.processes.iter().zip(assignment) {
        for (used, need) in used[machine as usize].iter_mut().zip(&process.need) {
            *used += i128::from(*need);
        }
    }
    used
}

/// Every hard constraint an assignment breaks, in a fixed order.
pub fn violations(instance: &Instance, start: &[u32], assignment: &[u32]) -> Vec<Violation> {
    let mut found = Vec::new();
    let used = use_of(instance, assignment);
    let mut both = used.clone();
    for (p, process) in instance.processes.iter().enumerate() {
        if start[p] != assignment[p] {
            for (r, need) in process.need.iter().enumerate() {
                if instance.resources[r].0 {
                    both[start[p] as usize][r] += i128::from(*need);
                }
            }
        }
    }
    for (machine, m) in instance.machines.iter().enumerate() {
        for (resource, &capacity) in m.capacity.iter().enumerate() {
            let limit = i128::from(capacity);
            if used[machine][resource] > limit {
                let used = used[machine][resource];
                found.push(Violation::Capacity {
                    machine,
                    resource,
                    used,
                    capacity,
                });
            } else if both[machine][resource] > limit {
                let used = both[machine][resource];
                found.push(Violation::Transient {
                    machine,
                    resource,
                    used,
                    capacity,
                });
            }
        }
    }
    let mut on: BTreeMap<(u32, u32), usize> = BTreeMap::new();
    let mut locations = vec![BTreeSet::new(); instance.services.len()];
    let mut hoods = vec![BTreeSet::new(); instance.services.len()];
    for (process, &machine) in instance.processes.iter().zip(assignment) {
        let m = &instance.machines[machine as usize];
        *on.entry((process.service, machine)).or_default() += 1;
        locations[process.service as usize].insert(m.location);
        hoods[process.service as usize].insert(m.neighbourhood);
    }
    for (&(service, machine), &count) in &on {
        if count > 1 {
            found.push(Violation::Conflict { service, machine });
        }
    }
    for (service, s) in instance.services.iter().enumerate() {
        if locations[service].len() < s.spread_min as usize {
            let (locations, wanted) = (locations[service].len(), s.spread_min);
            found.push(Violation::Spread {
                service,
                locations,
                wanted,
            });
        }
        for &on in &s.depends_on {
            for &neighbourhood in hoods[service].difference(&hoods[on as usize]) {
                found.push(Violation::Dependency {
                    service,
                    neighbourhood,
                    on,
                });
            }
        }
    }
    found
}

/// The objective of an assignment, part by part.
pub fn cost(instance: &Instance, start: &[u32], assignment: &[u32]) -> Parts {
    let used = use_of(instance, assignment);
    let mut parts = Parts::default();
    for (m, used) in instance.machines.iter().zip(&used) {
        for (r, used) in used.iter().enumerate() {
            let over = (used - i128::from(m.safety[r])).max(0);
            parts.load += i128::from(instance.resources[r].1) * over;
        }
        for b in &instance.balances {
            let free = |r: usize| i128::from(m.capacity[r]) - used[r];
            let missing = i128::from(b.target) * free(b.resources.0) - free(b.resources.1);
            parts.balance += i128::from(b.weight) * missing.max(0);
        }
    }
    let mut moved = vec![0i128; instance.services.len()];
    for (p, process) in instance.processes.iter().enumerate() {
        let (from, to) = (start[p] as usize, assignment[p] as usize);
        if from != to {
            moved[process.service as usize] += 1;
            parts.process_moves += i128::from(process.move_cost);
            parts.machine_moves +=
                i128::from(instance.machine_move_cost[from * instance.machines.len() + to]);
        }
    }
    parts.process_moves *= i128::from(instance.process_move_weight);
    parts.machine_moves *= i128::from(instance.machine_move_weight);
    parts.service_moves =
        i128::from(instance.service_move_weight) * moved.iter().copied().max().unwrap_or(0);
    parts
}
