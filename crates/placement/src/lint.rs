//! An independent judge of a fleet and of plans: every rule written anew against the objects,
//! sharing no code with the filters.

mod plan;

use std::collections::BTreeMap;

use model::{HostName, VmUid};

use crate::fleet::{Fleet, Host, Pool, Vm};

pub use plan::{PlanFault, PlanViolation, lint_plan};

/// A rule that a fleet breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A host carries more than it has.
    Overloaded(HostName),
    /// Two VMs that must be apart are together.
    Together(VmUid, VmUid),
    /// A VM is where a rule forbids it.
    Misplaced(VmUid, &'static str),
}

/// Judges every VM and host.
pub fn lint(fleet: &Fleet) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut load: BTreeMap<&HostName, (u128, u128)> = BTreeMap::new();
    let mut groups: BTreeMap<(&str, &HostName), Vec<&VmUid>> = BTreeMap::new();
    for (uid, vm) in &fleet.vms {
        let both = vm.host.iter().chain(&vm.incoming);
        for name in both.filter(|name| vm.incoming.as_ref() != Some(name) || vm.host != vm.incoming)
        {
            let sum = load.entry(name).or_default();
            *sum = (
                sum.0 + u128::from(vm.cpu),
                sum.1 + u128::from(vm.memory_bytes),
            );
            if let Some(group) = &vm.apart {
                groups.entry((group, name)).or_default().push(uid);
            }
            let Some(host) = fleet.hosts.get(name) else {
                continue;
            };
            let broken = misplaced(vm, name, host, fleet.pools.get(&host.pool));
            violations.extend(
                broken
                    .into_iter()
                    .map(|rule| Violation::Misplaced(uid.clone(), rule)),
            );
        }
    }
    for together in groups.values() {
        for (index, one) in together.iter().enumerate() {
            for other in together.iter().skip(index + 1) {
                violations.push(Violation::Together((*one).clone(), (*other).clone()));
            }
        }
    }
    for (name, (cpu, memory)) in load {
        let host = fleet.hosts.get(name);
        if host.is_some_and(|host| overloaded(host, fleet.pools.get(&host.pool), cpu, memory)) {
            violations.push(Violation::Overloaded(name.clone()));
        }
    }
    violations
}

/// Rules that forbid a VM on a host, whatever else is there.
fn misplaced(vm: &Vm, name: &HostName, host: &Host, pool: Option<&Pool>) -> Vec<&'static str> {
    let Some(pool) = pool else {
        return vec!["pool"];
    };
    let rules = [
        (
            vm.zones.iter().any(|zone| !pool.zones.contains(zone)),
            "zone",
        ),
        (vm.architecture != pool.architecture, "architecture"),
        (vm.mlps_grade > pool.mlps_grade, "grade"),
        (
            vm.storage_pools
                .iter()
                .any(|pool| !host.storage_pools.contains(pool)),
            "storage",
        ),
        (
            vm.pinned_to.as_ref().is_some_and(|pinned| pinned != name),
            "pinned",
        ),
    ];
    let broken = rules.into_iter().filter(|(broken, _)| *broken);
    broken.map(|(_, rule)| rule).collect()
}

fn overloaded(host: &Host, pool: Option<&Pool>, cpu: u128, memory: u128) -> bool {
    pool.is_some_and(|pool| {
        cpu * 100 > u128::from(host.cpu) * u128::from(pool.cpu_overcommit_percent)
            || memory * 100
                > u128::from(host.memory_bytes) * u128::from(pool.memory_overcommit_percent)
    })
}
